/* bench.c - `fp4moe bench`: a layer's time against the machine's limits, measured so that the share
 * can be believed.
 *
 *   efficiency = median over rounds of floor / time, where a round measures the ceilings and then
 *   every M once with a fresh router draw, and floor = max(packed bytes of the draw's distinct
 *   experts / bandwidth, operations / the class's dot rate) of that round.
 *
 * Weights come from memory, never from a cache: layers rotate so that 4 last-level caches of other
 * data lie between two uses of an expert. A round's ceilings alone stream more than that, so at
 * most as many layers are kept as a round has calls, its waking call included. What is timed is the
 * public forward call with BF16 in and out; before that a few tokens of each M are compared with
 * the C rows of class f32.
 *
 * --against makes the calls of an M twice, with the same draws on different layers; which plan goes
 * first changes from round to round. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "head.h"
#include "layer.h"
#include "layerfill.h"

static const char usage[] =
    "usage: fp4moe bench (--model PRESET | --hidden H --intermediate I --experts E --topk K\n"
    "                     --format mxfp4|nvfp4 [--activation NAME] [--biases] [--weight-on-input]\n"
    "                     | --linear N,K --experts E --topk K --format F [--biases])\n"
    "                    --precision P --tokens LIST [--layers N] [--threads N] [--kernel GLOB]\n"
    "                    [--against GLOB|static] [--json]\n"
    "       fp4moe bench --op unpack|quant|gemv|gemm|act|combine|store (--model ... | --hidden ...)\n"
    "                    [--precision P] [--tokens LIST] [--threads N] [--kernel GLOB] [--json]\n"
    "\n"
    "Times the forward call of a layer with random weights and compares it with the machine's\n"
    "limits, which are measured in the same rounds. Exit status 1: an efficiency above 1.05, or an\n"
    "error beyond the class's bound; such figures are not to be believed.\n"
    "\n" PROBLEM_USAGE
    "  --linear N,K         instead of a layer E matrices [N][K]: each token times --topk of them\n"
    "  --layers N           keep N distinct layers and run them in turn: times are per layer\n"
    "  --against GLOB       make each call a second time with the kernels that GLOB allows, in the\n"
    "                       same rounds: ratio = that time / this time, with quartiles\n"
    "  --against static     likewise without the table: ratio is what tuning brings\n"
    "  --op OP              every kernel of one op alone, from the L2 cache, on one thread and on\n"
    "                       all; --tokens are the rows that the kernel is given. C kernels only\n"
    "                       where --kernel or FP4MOE_CPU=c asks for them\n";

double bench_operations(const problem *p, size_t tokens) {
  const preset *s = &p->shape;
  int matrices = problem_is_linear(p) ? 1 : s->activation.gated ? 3 : 2;
  return 2.0 * (double)(tokens * s->top_k) * matrices * (double)(s->hidden * s->intermediate);
}

/* ---- Layers ---- */

static size_t record_bytes(const problem *p) {
  fp4moe_layer_desc desc = problem_desc(p);
  fp4moe_shape shape;
  fp4moe_shape_of(&desc, &shape);
  return shape.bytes;
}

/* Expected bytes of the distinct experts of a call. */
static double call_bytes(const problem *p, size_t tokens) {
  double e = (double)p->shape.experts;
  double missed = pow(1 - (double)p->shape.top_k / e, (double)tokens);
  return e * (1 - missed) * (double)record_bytes(p);
}

/* Layers to keep: see the head of this file. */
static size_t count_layers(const bench *b) {
  const problem *p = &b->problem;
  double least = INFINITY;
  for (size_t i = 0; i < p->calls; i++) least = fmin(least, call_bytes(p, p->tokens[i]));
  size_t between = (size_t)ceil(4 * (double)b->host.llc_bytes / least);
  size_t a_round = p->layers * (p->calls + 1) * (size_t)b->sides;
  size_t n = between + 1 < a_round ? between + 1 : a_round;
  return n > p->layers ? n : p->layers;
}

/* The number after `name` in a file of lines "Name:  number ...", `missing` where there is none. */
static double number_in(const char *path, const char *name, double missing) {
  char line[128];
  size_t n = strlen(name);
  FILE *f = fopen(path, "re");
  double value = missing;
  while (f && fgets(line, sizeof line, f))
    if (!strncmp(line, name, n)) value = strtod(line + n, NULL);
  if (f) fclose(f);
  return value;
}

static double available_bytes(void) {
  return 1024 * number_in("/proc/meminfo", "MemAvailable:", INFINITY);
}

static process_state look_at_process(void) {
  return (process_state){1024 * number_in("/proc/self/status", "VmRSS:", NAN),
                         (long)number_in("/proc/self/status", "Threads:", 0)};
}

/* Fewer experts where the memory is too small, with a word about it. */
static void fit_memory(bench *b) {
  problem *p = &b->problem;
  double room = 0.85 * available_bytes(), each = (double)(b->layer_count * record_bytes(p));
  size_t all = p->shape.experts;
  if (each * (double)all <= room) return;
  p->shape.experts = (size_t)(room / each);
  if (p->shape.experts < p->shape.top_k)
    die("%s: %zu layers of %.1f GB do not fit the memory", p->name, b->layer_count,
        (double)record_bytes(p) * (double)all * 1e-9);
  size_t n = strlen(p->name);
  snprintf(p->name + n, sizeof p->name - n, " with %zu of %zu experts", p->shape.experts, all);
  fprintf(stderr, "%s: memory is too small for all experts: %s\n", command_name, p->name);
}

static void make_layers(bench *b) {
  b->layers = allocate(b->layer_count, sizeof *b->layers);
  for (size_t i = 0; i < b->layer_count; i++) {
    progress("packing random layers", i, b->layer_count);
    b->layers[i] = random_layer(b->context, &b->problem, i + 1);
  }
}

/* ---- Plans ---- */

/* Both sides choose from the same table, or the second from none. */
static void make_plans(bench *b) {
  const problem *p = &b->problem;
  fp4moe_layer_desc desc = problem_desc(p);
  b->sides = p->against ? SIDES : 1;
  require(fp4moe_context_select(b->context, &desc, &b->plan[OWN]), p->name);
  if (!p->against) return;
  if (!strcmp(p->against, "static")) {
    fp4moe_request request = b->context->request;
    const fp4moe_selector untuned = {&b->host, &request, NULL};
    request.tuned = FP4MOE_TUNED_OFF;
    require(fp4moe_select(&untuned, &desc, &b->plan[AGAINST]), p->name);
    return;
  }
  fp4moe_context *rival = problem_context(p, p->against);
  require(fp4moe_context_select(rival, &desc, &b->plan[AGAINST]), "--against");
  fp4moe_context_destroy(rival);
}

/* The layers of the next calls, `n` of them, run by a side's plan. */
static void use_plan(bench *b, int side, size_t n) {
  for (size_t i = 0; i < n; i++)
    b->layers[(b->next_layer + i) % b->layer_count]->plan = &b->plan[side];
}

/* ---- Calls ---- */

static void make_trials(bench *b) {
  const problem *p = &b->problem;
  fp4moe_layer_desc desc = problem_desc(p);
  size_t most = 0;
  for (size_t i = 0; i < p->calls; i++) most = p->tokens[i] > most ? p->tokens[i] : most;
  b->trials = allocate(p->layers, sizeof *b->trials);
  for (size_t i = 0; i < p->layers; i++)
    trial_init(&b->trials[i], &desc, most, p->shape.top_k, i + 1);
  for (int side = 0; side < b->sides; side++) {
    use_plan(b, side, 1);
    size_t bytes = trial_workspace_bytes(b->trials, b->layers[b->next_layer]);
    if (bytes > b->workspace_bytes) b->workspace_bytes = bytes;
  }
  b->workspace = allocate_workspace(b->workspace_bytes);
}

static void check_cases(bench *b) {
  for (size_t i = 0; i < b->problem.calls; i++) {
    bench_case *c = &b->cases[i];
    c->tokens = b->problem.tokens[i];
    trial_draw(b->trials, c->tokens);
    for (int side = 0; side < b->sides; side++, b->next_layer++) {
      bench_side *s = &c->side[side];
      progress("checking against C", i, b->problem.calls);
      use_plan(b, side, 1);
      s->err = trial_check(b->trials, b->layers[b->next_layer % b->layer_count], b->workspace,
                           b->workspace_bytes, s->kernels, sizeof s->kernels);
    }
  }
}

/* One sample of a side: a call of each of problem.layers layers, with the present draws. */
static void sample(bench *b, bench_case *c, int side) {
  size_t n = b->problem.layers, r = b->rounds;
  const ceilings *limit = &b->ceilings[r];
  double bytes = 0, floor_ns = 0;
  double dot_ns =
      bench_operations(&b->problem, c->tokens) / class_rate(b->problem.precision, limit);
  use_plan(b, side, n);
  uint64_t start = fp4moe_now_ns();
  for (size_t i = 0; i < n; i++, b->next_layer++) {
    fp4moe_stats stats = {.struct_size = sizeof stats};
    fp4moe_batch batch = trial_batch(&b->trials[i], &stats);
    require(trial_run(b->layers[b->next_layer % b->layer_count], &batch, b->workspace,
                      b->workspace_bytes),
            "forward");
    bytes += (double)stats.weight_bytes;
    floor_ns += fmax((double)stats.weight_bytes / limit->read_gbytes_s, dot_ns);
  }
  double ns = (double)(fp4moe_now_ns() - start);
  c->side[side].ms[r] = ns * 1e-6 / (double)n;
  if (side != OWN) return;
  c->floor_ms[r] = floor_ns * 1e-6 / (double)n;
  c->efficiency[r] = floor_ns / ns;
  c->bytes[r] = bytes / (double)n;
}

/* All sides of an M with the same draws. */
static void sample_case(bench *b, bench_case *c) {
  size_t r = b->rounds;
  for (size_t i = 0; i < b->problem.layers; i++) trial_draw(&b->trials[i], c->tokens);
  for (int i = 0; i < b->sides; i++) sample(b, c, (int)(r + (size_t)i) % b->sides);
  c->ratio[r] = c->side[AGAINST].ms[r] / c->side[OWN].ms[r];
}

/* The ruler reads the layers' own weights where they are large enough and in one piece, so that
 * what is resident is theirs; else memory of its own. */
static int layers_are_windows(const bench *b) {
  const problem *p = &b->problem;
  return p->layers >= CEILING_WINDOWS && b->context->nodes < 2 &&
         p->shape.experts * record_bytes(p) >= ceilings_window_bytes(&b->host);
}

static ceilings_meter *open_meter(const bench *b) {
  const uint8_t *windows[CEILING_WINDOWS];
  int own = !layers_are_windows(b);
  for (size_t i = 0; !own && i < CEILING_WINDOWS; i++)
    windows[i] = fp4moe_layer_record(b->layers[i], 0, 0);
  ceilings_meter *meter =
      ceilings_open(&b->host, b->context->request.cap, b->threads, own ? NULL : windows);
  if (!meter) die("no memory to measure the bandwidth with");
  return meter;
}

/* At least MIN_ROUNDS, and more while they are cheap: a shared host deserves them. */
static void run_rounds(bench *b, ceilings_meter *meter) {
  const double cheap_ns = 8e9;
  uint64_t start = fp4moe_now_ns();
  while (b->rounds < MIN_ROUNDS ||
         (b->rounds < MAX_ROUNDS && (double)(fp4moe_now_ns() - start) < cheap_ns)) {
    progress("measuring, rounds", b->rounds, b->rounds < MIN_ROUNDS ? MIN_ROUNDS : MAX_ROUNDS);
    b->ceilings[b->rounds] = ceilings_measure(meter);
    sample_case(b, &b->cases[0]); /* wakes the pool: in a model, layers follow one another */
    for (size_t i = 0; i < b->problem.calls; i++) sample_case(b, &b->cases[i]);
    if (!b->rounds++) b->before = look_at_process();
  }
  b->after = look_at_process();
  progress_clear();
}

static void close_bench(bench *b) {
  for (size_t i = 0; i < b->problem.layers; i++) trial_free(&b->trials[i]);
  for (size_t i = 0; i < b->layer_count; i++) fp4moe_layer_destroy(b->layers[i]);
  fp4moe_context_destroy(b->context);
  free(b->trials);
  free(b->layers);
  free(b->workspace);
}

int command_bench(int argc, char **argv) {
  static bench b;
  problem_parse(argc, argv, usage, 1, &b.problem);
  if (b.problem.op) return bench_op(&b.problem, argc, argv);
  fp4moe_host_read(&b.host);
  b.context = problem_context(&b.problem, b.problem.kernels);
  b.threads = fp4moe_context_threads(b.context);
  make_plans(&b);
  b.layer_count = count_layers(&b);
  fit_memory(&b);
  ceilings_meter *meter = layers_are_windows(&b) ? NULL : open_meter(&b);
  make_layers(&b);
  if (!meter) meter = open_meter(&b);
  make_trials(&b);
  check_cases(&b);
  run_rounds(&b, meter);
  int status = bench_report(&b, argc, argv);
  ceilings_close(meter);
  close_bench(&b);
  return status;
}
