"""What int8 costs on two real tasks: digits of scikit-learn as a graph of neighbours, and papers of cora_ml."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse, stats

from dgdm.diffusion.exact import fixed_point, transition
from dgdm.examples import train_head
from dgdm.tpu.accelerator import Cpu
from dgdm.tpu.calibration import CalibrationData
from dgdm.tpu.model import ModelFile
from dgdm.tpu.network import Network, network_of
from dgdm.tpu.quantizer import AdaptiveQuantizer, QuantizedModel
from dgdm.tpu.rows import RowModel

ALPHA = 0.15
PER_CLASS = 50  # papers that a head of cora_ml learns from
HIDDEN = (64,)


def digits(seeds: int) -> dict[str, Any]:
    """1,797 digits; half of them to learn from."""
    x, y = train_head.digits()
    return _lost([train_head.split(x, y, seed) for seed in range(seeds)], train_head.train)


def cora_ml(path: Path, seeds: int) -> dict[str, Any]:
    """2,995 papers, 2,879 words, 7 fields; citations as edges. Left out, and said so, where the file is not."""
    if not path.exists():
        return {"left_out": f"{path.name} is not there: --data names its folder"}
    with np.load(path, allow_pickle=True) as arrays:
        arcs, words = (
            sparse.csr_array(
                (arrays[f"{k}.data"], arrays[f"{k}.indices"], arrays[f"{k}.indptr"]), arrays[f"{k}.shape"]
            )
            for k in ("adj_matrix", "attr_matrix")
        )
        y = arrays["labels"].astype(np.int64)
    both = (arcs + arcs.T).tocoo()
    p = transition(both.row, both.col, np.ones(both.nnz), len(y))
    x = fixed_point(p, (words.toarray() > 0).astype(np.float64), ALPHA, 1e-6).astype(np.float32)
    return _lost([_papers(x, y, seed) for seed in range(seeds)], _train)


def _papers(x: np.ndarray, y: np.ndarray, seed: int) -> train_head.Task:
    order = np.random.default_rng(seed).permutation(len(y))
    learn = np.concatenate([order[y[order] == k][:PER_CLASS] for k in range(int(y.max()) + 1)])
    judge = np.setdiff1d(order, learn)
    return train_head.Task(x[learn], y[learn], x[judge], y[judge])


def _train(task: train_head.Task, seed: int) -> Network:
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415 - only this benchmark needs it
    from sklearn.neural_network import MLPClassifier  # noqa: PLC0415 - the same

    learner = MLPClassifier(HIDDEN, max_iter=40, learning_rate_init=0.005, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        learner.fit(task.train_x, task.train_y)
    return network_of("cora_ml", [w.T for w in learner.coefs_], learner.intercepts_)


def _lost(tasks: list[train_head.Task], train: Any) -> dict[str, Any]:
    """Percentage points that int8, and a mixture of precisions, lose against float32 on the same rows."""
    scores: dict[str, list[float]] = {"float32": [], "int8": [], "mixed": []}
    sizes: dict[str, list[int]] = {"int8": [], "mixed": []}
    for seed, task in enumerate(tasks):
        network = train(task, seed)
        data = CalibrationData.from_dataset(task.train_x, task.train_y, seed=seed)
        scores["float32"].append(100 * train_head.accuracy(network.forward(task.test_x), task.test_y))
        for name in ("int8", "mixed"):
            made = AdaptiveQuantizer(data, 0.99, mixed_precision=name == "mixed").quantize_model(network)
            scores[name].append(_score(made, task))
            sizes[name].append(len(made.content))
    found: dict[str, Any] = {
        "seeds": len(tasks),
        "judged_rows": len(tasks[0].test_y),
        "float32": {"accuracy": float(np.mean(scores["float32"]))},
    }
    for name in ("int8", "mixed"):
        lost = np.subtract(scores["float32"], scores[name])
        half = float(stats.t.ppf(0.975, len(lost) - 1) * lost.std(ddof=1) / np.sqrt(len(lost)))
        mean = float(lost.mean())
        found[name] = {
            "accuracy": float(np.mean(scores[name])),
            "points_lost": {"mean": mean, "low": mean - half, "high": mean + half, "confidence": 0.95},
            "bytes": float(np.median(sizes[name])),
        }
    found["mixed_is_smaller"] = bool(found["mixed"]["bytes"] < found["int8"]["bytes"])
    return found


def _score(made: QuantizedModel, task: train_head.Task) -> float:
    outputs = RowModel(Cpu(), ModelFile(made.content)).run(task.test_x)
    return 100 * train_head.accuracy(outputs, task.test_y)
