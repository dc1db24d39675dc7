// InstantGNN (github.com/zheng-yp/InstantGNN, commit c9fc32b) behind a pipe: commands in, seconds out.
//
// Usage: harness FOLDER NODES ARCS FEATURES RMAX ALPHA THREADS. FOLDER holds graph_adj_el.txt and graph_adj_pl.txt as
// InstantGNN reads them, and x.bin: float64, one node after another. Commands: "batch FILE", "lines FILE COUNT",
// "write FILE", each answered by the seconds it took; the first answer is for the solve at the start.

#include <chrono>
#include <cstdio>

#include "instantAlg.cpp"

namespace {

double since(std::chrono::steady_clock::time_point begun) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
}

void answer(std::chrono::steady_clock::time_point begun) {
    std::printf("%.9f\n", since(begun));
    std::fflush(stdout);
}

}  // namespace

int main(int count, char** words) {
    if (count != 8) {
        return 2;
    }
    const std::string folder = words[1];
    const long nodes = std::atol(words[2]), arcs = std::atol(words[3]), features = std::atol(words[4]);
    const double rmax = std::atof(words[5]), alpha = std::atof(words[6]);
    std::cout.rdbuf(nullptr);  // it tells what it does; the pipe is for answers

    std::vector<double> x(nodes * features);
    std::FILE* file = std::fopen((folder + "/x.bin").c_str(), "rb");
    if (file == nullptr || std::fread(x.data(), sizeof(double), x.size(), file) != x.size()) {
        return 3;
    }
    std::fclose(file);
    Eigen::Map<Eigen::MatrixXd> table(x.data(), features, nodes);
    auto* peer = new propagation::Instantgnn();
    peer->NUMTHREAD = std::atoi(words[7]);

    auto begun = std::chrono::steady_clock::now();
    peer->initial_operation(folder + "/", "graph", arcs, nodes, rmax, alpha, table);
    answer(begun);

    std::string command, path;
    while (std::cin >> command >> path) {
        begun = std::chrono::steady_clock::now();
        if (command == "batch") {
            peer->snapshot_operation(path, rmax, alpha, table);
        } else if (command == "lines") {
            int lines = 0;
            std::cin >> lines;
            begun = std::chrono::steady_clock::now();
            peer->linenum_operation(path, 0, lines, rmax, alpha, table);
        } else {
            file = std::fopen(path.c_str(), "wb");
            if (file == nullptr || std::fwrite(x.data(), sizeof(double), x.size(), file) != x.size()) {
                return 4;
            }
            std::fclose(file);
        }
        answer(begun);
    }
    return 0;
}
