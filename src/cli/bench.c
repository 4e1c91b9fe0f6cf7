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
 * --against makes the calls of an M twice, with the same draws on different layers, or on the same
 * weights in another library (rival.c); which side goes first changes from round to round. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "head.h"
#include "layer.h"

static const char usage[] =
    "usage: fp4moe bench (--model PRESET | --hidden H --intermediate I --experts E --topk K\n"
    "                     --format mxfp4|nvfp4 [--activation NAME] [--biases] [--weight-on-input]\n"
    "                     | --linear N,K --experts E --topk K --format F [--biases])\n"
    "                    --precision P --tokens LIST [--layers N] [--threads N] [--kernel GLOB]\n"
    "                    [--against GLOB|static|FILE] [--routing WORD] [--json]\n"
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
    "  --against FILE       likewise by another build or version of libfp4moe.so, with threads and\n"
    "                       weights of its own; FILE has a / or ends in .so. --kernel is not for\n"
    "                       it; FP4MOE_KERNEL, as all of the environment, is for both\n"
    "  --routing WORD       prints the share of time for which workers wait in phases 1 and 2, and\n"
    "                       routes the tokens' rows as WORD says:\n"
    "    router             each token to experts at random (without --routing too)\n"
    "    even               as many to every expert\n"
    "    one, most          top-1, all to one expert, or nine of ten: share = the time that experts\n"
    "                       of these rows take beside others of as many / ms\n"
    "    none               every id is -1: us of 10,000 empty calls back to back\n"
    "  --op OP              every kernel of one op alone, from the L2 cache, on one thread and on\n"
    "                       all; --tokens are the rows that the kernel is given. C kernels only\n"
    "                       where --kernel or FP4MOE_CPU=c asks for them\n";

/* ---- Plans ---- */

/* Both sides choose from the same table, or the second from none; a library file as it will. */
static void make_plans(bench *b) {
  const problem *p = &b->problem;
  fp4moe_layer_desc desc = problem_desc(p);
  fp4moe_context *own = b->own.context;
  b->of[OWN] = b->of[AGAINST] = &b->own;
  b->sides = p->against ? SIDES : 1;
  require(fp4moe_context_select(own, &desc, &b->plan[OWN]), p->name);
  if (!p->against) return;
  if (library_is_file(p->against)) {
    rival_open(b);
    return;
  }
  if (!strcmp(p->against, "static")) {
    fp4moe_request request = own->request;
    const fp4moe_selector untuned = {&b->host, &request, NULL};
    request.tuned = FP4MOE_TUNED_OFF;
    require(fp4moe_select(&untuned, &desc, &b->plan[AGAINST]), p->name);
    return;
  }
  fp4moe_context *other = problem_context(p, p->against);
  require(fp4moe_context_select(other, &desc, &b->plan[AGAINST]), "--against");
  fp4moe_context_destroy(other);
}

/* The layers of the next calls, `n` of them, run by a side's plan: a library file's by its own. */
static void use_plan(bench *b, int side, size_t n) {
  const rotation *r = b->of[side];
  for (size_t i = 0; i < n && r == &b->own; i++) bench_layer(r, i)->plan = &b->plan[side];
}

/* ---- Calls ---- */

void bench_reserve(rotation *r, const trial *t) {
  size_t bytes = trial_workspace_bytes(t, r->lib, bench_layer(r, 0));
  if (bytes <= r->workspace_bytes) return;
  free(r->workspace);
  r->workspace = allocate_workspace(bytes);
  r->workspace_bytes = bytes;
}

static void make_trials(bench *b) {
  const problem *p = &b->problem;
  fp4moe_layer_desc desc = problem_desc(p);
  size_t most = 0;
  for (size_t i = 0; i < p->calls; i++) most = p->tokens[i] > most ? p->tokens[i] : most;
  b->trials = allocate(p->layers, sizeof *b->trials);
  for (size_t i = 0; i < p->layers; i++) {
    trial_init(&b->trials[i], &desc, most, p->shape.top_k, i + 1);
    b->trials[i].routing = p->routing;
  }
  for (int side = 0; side < b->sides; side++) {
    use_plan(b, side, 1);
    bench_reserve(b->of[side], b->trials);
  }
}

/* On the first layer; what it leaves in a cache is gone when rounds begin. */
static void check_side(bench *b, bench_case *c, int side) {
  bench_side *s = &c->side[side];
  rotation *own = &b->own;
  if (b->of[side] != own) {
    rival_check(b, s);
    return;
  }
  use_plan(b, side, 1);
  s->err = trial_check(b->trials, bench_layer(own, 0), own->workspace, own->workspace_bytes,
                       s->kernels, sizeof s->kernels);
}

static void check_cases(bench *b) {
  for (size_t i = 0; i < b->problem.calls; i++) {
    bench_case *c = &b->cases[i];
    c->tokens = b->problem.tokens[i];
    trial_draw(b->trials, c->tokens);
    progress("checking against C", i, b->problem.calls);
    for (int side = 0; side < b->sides; side++) check_side(b, c, side);
  }
  if (bench_has_rival(b)) rival_begin(b);
}

/* Room for what another version counts. */
typedef union roomy_stats {
  fp4moe_stats of;
  char room[1024];
} roomy_stats;

static void add_stats(bench_spent *spent, const fp4moe_stats *s) {
  spent->bytes += (double)s->weight_bytes;
  spent->phase_ns[0] += (double)(s->threads * s->phase1_ns);
  spent->phase_ns[1] += (double)(s->threads * s->phase2_ns);
  spent->wait_ns[0] += (double)s->phase1_wait_ns;
  spent->wait_ns[1] += (double)s->phase2_wait_ns;
}

bench_spent bench_run(bench *b, int side, const trial *trials, size_t n) {
  rotation *r = b->of[side];
  const ceilings *limit = &b->ceilings[b->rounds];
  double dot_ns = bench_operations(&b->problem, trials->tokens);
  dot_ns /= class_rate(b->problem.precision, limit);
  bench_spent spent = {0};
  use_plan(b, side, n);
  if (bench_has_rival(b)) rival_settle(r);
  uint64_t start = fp4moe_now_ns();
  for (size_t i = 0; i < n; i++, r->next++) {
    roomy_stats stats = {.of.struct_size = sizeof stats};
    fp4moe_batch batch = trial_batch(&trials[i], &stats.of);
    library_require(
        r->lib,
        trial_run(&trials[i], r->lib, bench_layer(r, 0), &batch, r->workspace, r->workspace_bytes),
        "forward");
    spent.floor_ns += fmax((double)stats.of.weight_bytes / limit->read_gbytes_s, dot_ns);
    add_stats(&spent, &stats.of);
  }
  spent.ns = (double)(fp4moe_now_ns() - start);
  return spent;
}

/* One sample of a side: a call of each of problem.layers layers, with the present draws. */
static void sample(bench *b, bench_case *c, int side) {
  size_t n = b->problem.layers, r = b->rounds;
  bench_spent spent = bench_run(b, side, b->trials, n);
  c->side[side].ms[r] = spent.ns * 1e-6 / (double)n;
  if (side != OWN) return;
  c->floor_ms[r] = spent.floor_ns * 1e-6 / (double)n;
  c->efficiency[r] = spent.floor_ns / spent.ns;
  c->bytes[r] = spent.bytes / (double)n;
  for (int i = 0; i < PHASES; i++)
    c->idle[i][r] = spent.wait_ns[i] / fmax(spent.phase_ns[i], 1); /* a linear has no first */
}

/* All sides of an M with the same draws. */
static void sample_case(bench *b, bench_case *c) {
  size_t r = b->rounds;
  for (size_t i = 0; i < b->problem.layers; i++) trial_draw(&b->trials[i], c->tokens);
  for (int i = 0; i < b->sides; i++) sample(b, c, (int)(r + (size_t)i) % b->sides);
  c->ratio[r] = c->side[AGAINST].ms[r] / c->side[OWN].ms[r];
  if (!routing_is_skewed(b->problem.routing)) return;
  even_sample(b, c);
  c->even_share[r] = c->even_ms[r] / c->side[OWN].ms[r];
}

/* The ruler reads the layers' own weights where they are large enough and in one piece, so that
 * what is resident is theirs; else memory of its own. */
static int layers_are_windows(const bench *b) {
  const problem *p = &b->problem;
  return p->layers >= CEILING_WINDOWS && b->own.context->nodes < 2 &&
         p->shape.experts * bench_record_bytes(p) >= ceilings_window_bytes(&b->host);
}

static ceilings_meter *open_meter(const bench *b) {
  const uint8_t *windows[CEILING_WINDOWS];
  int own = !layers_are_windows(b);
  for (size_t i = 0; !own && i < CEILING_WINDOWS; i++)
    windows[i] = fp4moe_layer_record(b->own.layers[i], 0, 0);
  ceilings_meter *meter =
      ceilings_open(&b->host, b->own.context->request.cap, b->threads, own ? NULL : windows);
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
    if (!b->rounds++) b->before = bench_look_at_process();
  }
  b->after = bench_look_at_process();
  progress_clear();
}

static void close_bench(bench *b) {
  rotation *own = &b->own;
  if (bench_has_rival(b)) rival_close(b);
  for (size_t i = 0; i < b->problem.layers; i++) trial_free(&b->trials[i]);
  for (size_t i = 0; i < own->count; i++) fp4moe_layer_destroy(own->layers[i]);
  fp4moe_context_destroy(own->context);
  trial_free(&b->even);
  free(b->trials);
  free(own->layers);
  free(own->workspace);
}

int command_bench(int argc, char **argv) {
  static bench b;
  problem_parse(argc, argv, usage, 1, &b.problem);
  if (b.problem.op) return bench_op(&b.problem, argc, argv);
  fp4moe_host_read(&b.host);
  b.own =
      (rotation){.lib = &own_library, .context = problem_context(&b.problem, b.problem.kernels)};
  b.threads = fp4moe_context_threads(b.own.context);
  make_plans(&b);
  if (b.problem.routing == ROUTING_NONE) return bench_empty(&b, argc, argv);
  bench_count_layers(&b);
  ceilings_meter *meter = layers_are_windows(&b) ? NULL : open_meter(&b);
  bench_make_layers(&b);
  if (!meter) meter = open_meter(&b);
  make_trials(&b);
  use_plan(&b, OWN, 1);
  if (routing_is_skewed(b.problem.routing)) even_open(&b);
  check_cases(&b);
  run_rounds(&b, meter);
  int status = bench_report(&b, argc, argv);
  ceilings_close(meter);
  close_bench(&b);
  return status;
}
