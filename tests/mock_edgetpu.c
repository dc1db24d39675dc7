/* A libedgetpu.so.1 without hardware: same C symbols, same behaviour at its edges, and every fault on demand.
 *
 * It claims nodes named edgetpu-custom-op and computes them: their options hold int8 layers, written by
 * mockedgetpu.py. Written from TFLite's public C headers (common.h, edgetpu_c.h).
 *
 *   MOCK_EDGETPU   a folder: file `devices` (e.g. "pci:/dev/apex_0,usb:/sys/bus/usb/devices/2-1"),
 *                  file `mode` (a word, read at each invocation), file `owner.N` (locked while device N is open)
 *
 * Modes: ok, echo, error, hang, abort, crash, slow, wrong, vanish (no device any more). A word with :N does it from
 * the Nth invocation of this process on.
 *
 *   cc -shared -fPIC -O2 -o libedgetpu_mock.so mock_edgetpu.c               the registration of TF 2.13 and later
 *   cc -DOLD_ABI ...          that of TF 2.5, passed by value: the runtime reads what lies behind it on the stack
 */
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

typedef struct { int size; int data[]; } IntArray;
typedef struct {
  int type; void *data; IntArray *dims; float scale; int zero_point; int allocation_type; size_t bytes;
  const void *allocation; const char *name; void *delegate; int handle; bool stale, is_variable;
  int quantization_type; void *quantization; void *sparsity; const IntArray *signature;
} Tensor;
typedef struct {
  IntArray *inputs, *outputs, *intermediates, *temporaries; void *user_data, *builtin_data;
  const void *custom_data; int custom_size; void *delegate; bool side_effect;
} Node;
struct Context; struct Delegate;
typedef struct Registration {
  void *(*init)(struct Context *, const char *, size_t);
  void (*free)(struct Context *, void *);
  int (*prepare)(struct Context *, Node *);
  int (*invoke)(struct Context *, Node *);
  const char *(*profile)(const struct Context *, const Node *);
  int32_t builtin_code; const char *custom_name; int version;
  void *external, *async_kernel; uint64_t inplace_operator; /* not in TF 2.5, whose struct has 64 bytes */
} Registration;
typedef struct Context {
  size_t tensors_size; int (*GetExecutionPlan)(struct Context *, IntArray **); Tensor *tensors; void *impl;
  int (*ResizeTensor)(struct Context *, Tensor *, IntArray *);
  void (*ReportError)(struct Context *, const char *, ...);
  int (*AddTensors)(struct Context *, int, int *);
  int (*GetNodeAndRegistration)(struct Context *, int, Node **, Registration **);
  int (*ReplaceNodeSubsets)(struct Context *, Registration, const IntArray *, struct Delegate *);
} Context;
typedef struct Delegate {
  void *data; int (*Prepare)(Context *, struct Delegate *); void *from, *to, *free_handle; int64_t flags; void *opaque;
} Delegate;
typedef struct { int type; const char *path; } Device;

/* What a delegated node needs: the tensors' numbers and the bytes of the custom operator's options. */
typedef struct { const char *program; size_t size; } Kernel;
typedef struct { int index[64]; const char *program[64]; int size[64]; int count; } Claims;

static char *slurp(const char *name, char *into, size_t room) {
  const char *folder = getenv("MOCK_EDGETPU");
  char path[512];
  into[0] = 0;
  if (!folder) return into;
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *file = fopen(path, "r");
  if (!file) return into;
  size_t n = fread(into, 1, room - 1, file);
  fclose(file);
  into[n] = 0;
  into[strcspn(into, "\n")] = 0;
  return into;
}

static const char *mode(void) {
  static char word[64];
  static int calls = 0;
  slurp("mode", word, sizeof word);
  calls++;
  char *colon = strchr(word, ':');
  if (colon) {
    *colon = 0;
    if (calls < atoi(colon + 1)) return "ok";
  }
  return word[0] ? word : "ok";
}

/* Layers of [int32 in, int32 out, int32 in_zero, int32 out_zero, int32 relu, int32 source, float scale[out],
 * int32 bias[out], int8 weight[out * in] padded to 4]; source -1 is the node's input, else a layer. The first int32
 * counts the layers, the second is a bit mask of those that are outputs. */
static int compute(const char *p, const int8_t *x, size_t n_in, int8_t **outputs) {
  const int32_t *head = (const int32_t *)p;
  int layers = head[0], written = 0;
  int8_t *made[16];
  if (layers < 1 || layers > 16) return 1;
  p += 8;
  int width = ((const int32_t *)p)[0];
  size_t rows = n_in / width;
  for (int l = 0; l < layers; l++) {
    const int32_t *h = (const int32_t *)p;
    int in = h[0], out = h[1], zin = h[2], zout = h[3], relu = h[4], source = h[5];
    const float *scale = (const float *)(h + 6);
    const int32_t *bias = (const int32_t *)(scale + out);
    const int8_t *w = (const int8_t *)(bias + out);
    const int8_t *from = source < 0 ? x : made[source];
    made[l] = malloc(rows * out);
    for (size_t r = 0; r < rows; r++)
      for (int o = 0; o < out; o++) {
        int32_t sum = bias[o];
        for (int i = 0; i < in; i++) sum += ((int32_t)from[r * in + i] - zin) * w[(size_t)o * in + i];
        double y = nearbyint((double)sum * scale[o]) + zout;
        if (relu && y < zout) y = zout;
        made[l][r * out + o] = (int8_t)(y < -128 ? -128 : y > 127 ? 127 : y);
      }
    if (head[1] >> l & 1) memcpy(outputs[written++], made[l], rows * out);
    p = (const char *)(w + (((size_t)out * in + 3) & ~(size_t)3));
  }
  for (int l = 0; l < layers; l++) free(made[l]);
  return 0;
}

static void *kernel_init(Context *c, const char *buffer, size_t length) {
  (void)c; (void)length;
  /* for a delegate kernel TFLite passes TfLiteDelegateParams: delegate, nodes_to_replace, inputs, outputs */
  struct Params { Delegate *delegate; IntArray *nodes, *inputs, *outputs; } *params = (void *)buffer;
  Claims *claims = params->delegate->data;
  Kernel *kernel = malloc(sizeof *kernel);
  kernel->program = NULL;
  for (int i = 0; i < claims->count; i++)
    if (claims->index[i] == params->nodes->data[0]) {
      kernel->program = claims->program[i];
      kernel->size = (size_t)claims->size[i];
    }
  return kernel;
}
static void kernel_free(Context *c, void *kernel) { (void)c; free(kernel); }
static int kernel_prepare(Context *c, Node *n) {
  Kernel *kernel = n->user_data;
  if (kernel->program && kernel->size < 8) { c->ReportError(c, "invalid package"); return 1; }
  return 0;
}
static int kernel_invoke(Context *c, Node *n) {
  const char *m = mode();
  if (!strcmp(m, "hang")) for (;;) sleep(1);
  if (!strcmp(m, "abort")) { fprintf(stderr, "F :237] transfer on tag 1 failed. Abort. Deadline exceeded\n"); abort(); }
  if (!strcmp(m, "crash")) raise(SIGSEGV);
  if (!strcmp(m, "error") || !strcmp(m, "vanish")) {
    c->ReportError(c, "HIB Error. hib_error_status = 0000000000000008, hib_first_error_status = 0000000000000008");
    return 1;
  }
  if (!strcmp(m, "slow")) usleep(50000);
  Tensor *in = &c->tensors[n->inputs->data[0]];
  int8_t *out[16];
  for (int i = 0; i < n->outputs->size && i < 16; i++) out[i] = c->tensors[n->outputs->data[i]].data;
  if (!strcmp(m, "echo")) {
    Tensor *first = &c->tensors[n->outputs->data[0]];
    memcpy(out[0], in->data, in->bytes < first->bytes ? in->bytes : first->bytes);
    return 0;
  }
  Kernel *kernel = n->user_data;
  if (compute(kernel->program, in->data, in->bytes, out)) { c->ReportError(c, "invalid package"); return 1; }
  if (!strcmp(m, "wrong"))
    for (int i = 0; i < n->outputs->size && i < 16; i++)
      for (size_t k = 0; k < c->tensors[n->outputs->data[i]].bytes; k++) out[i][k] ^= 0x55;
  return 0;
}

static int delegate_prepare(Context *c, Delegate *d) {
  IntArray *plan;
  if (c->GetExecutionPlan(c, &plan)) return 1;
  int count = plan->size, *order = malloc(sizeof(int) * (count + 1));
  memcpy(order, plan->data, sizeof(int) * count);
  Claims *claims = d->data;
  Registration r;
  memset(&r, 0, sizeof r);
  r.init = kernel_init; r.free = kernel_free; r.prepare = kernel_prepare; r.invoke = kernel_invoke;
  r.custom_name = "EdgeTpuDelegateForCustomOp"; r.version = 1;
#ifdef OLD_ABI
  r.external = r.async_kernel = (void *)0x5a5a5a; r.inplace_operator = 0x5a5a5a;
#endif
  for (int k = 0; k < count; k++) {
    Node *node; Registration *g;
    if (c->GetNodeAndRegistration(c, order[k], &node, &g)) return 1;
    if (!g->custom_name || strcmp(g->custom_name, "edgetpu-custom-op") || claims->count == 64) continue;
    claims->index[claims->count] = order[k];
    claims->program[claims->count] = node->custom_data;
    claims->size[claims->count++] = node->custom_size;
    IntArray *one = malloc(sizeof(IntArray) + sizeof(int));
    one->size = 1; one->data[0] = order[k];
    int failed = c->ReplaceNodeSubsets(c, r, one, d);
    free(one);
    if (failed) { free(order); return 1; }
  }
  free(order);
  return 0;
}

static Device *list(size_t *n) {
  static char text[2048];
  *n = 0;
  slurp("devices", text, sizeof text);
  char word[64];
  if (!strcmp(slurp("mode", word, sizeof word), "vanish")) return NULL;
  if (!text[0]) return NULL;
  Device *devices = malloc(sizeof(Device) * 32);
  char *save;
  for (char *t = strtok_r(text, ",", &save); t && *n < 32; t = strtok_r(NULL, ",", &save)) {
    devices[*n].type = !strncmp(t, "usb:", 4);
    devices[(*n)++].path = strdup(t + 4); /* leaks on purpose */
  }
  return devices;
}

/* PCIe refuses a second process; within one process later opens share the device. */
static int open_device(size_t index) {
  static int held[32];
  if (held[index]) return 1;
  char path[512];
  snprintf(path, sizeof path, "%s/owner.%zu", getenv("MOCK_EDGETPU"), index);
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB)) return 0;
  return held[index] = 1; /* until the process ends */
}

EXPORT Device *edgetpu_list_devices(size_t *n) { return list(n); }
EXPORT void edgetpu_free_devices(Device *d) { free(d); }
EXPORT void edgetpu_verbosity(int v) { (void)v; }
EXPORT const char *edgetpu_version(void) { return "BuildLabel(MOCK), RuntimeVersion(14)"; }
EXPORT Delegate *tflite_plugin_create_delegate(char **keys, char **values, size_t n, void (*report)(const char *)) {
  (void)report; /* the real library does not use it either: a failure has no reason */
  const char *device = "";
  for (size_t i = 0; i < n; i++) {
    if (!strcmp(keys[i], "device")) device = values[i];
    const char *folder = getenv("MOCK_EDGETPU");
    char path[512];
    snprintf(path, sizeof path, "%s/options", folder ? folder : ".");
    FILE *log = folder ? fopen(path, "a") : NULL;
    if (log) { fprintf(log, "%s=%s\n", keys[i], values[i]); fclose(log); }
  }
  int type = !strncmp(device, "usb", 3) ? 1 : !strncmp(device, "pci", 3) ? 0 : -1;
  if (type < 0 && *device && *device != ':') return NULL;
  const char *colon = strchr(device, ':');
  int want = colon ? atoi(colon + 1) : 0, seen = 0;
  size_t count;
  Device *devices = list(&count);
  for (size_t i = 0; i < count; i++)
    if ((type < 0 || devices[i].type == type) && seen++ == want && open_device(i)) {
      free(devices);
      Delegate *d = calloc(1, sizeof *d);
      d->data = calloc(1, sizeof(Claims));
      d->Prepare = delegate_prepare;
      d->flags = 1;
      return d;
    }
  free(devices);
  return NULL;
}
EXPORT void tflite_plugin_destroy_delegate(Delegate *d) {
  if (d) free(d->data);
  free(d);
}
