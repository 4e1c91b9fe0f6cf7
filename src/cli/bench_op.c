/* bench_op.c - `fp4moe bench --op`: every kernel of one op alone, on one thread and on all, its
 * inputs in the level-2 cache.
 *
 * Rounds as for a layer: each measures the ceilings and then every kernel once. The share is that
 * of a layer, floor / time, with floor = max(bytes of input / read bandwidth, operations / the
 * class's dot rate): above 1 the kernel is faster than memory can feed it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "bench_op.h"
#include "head.h"

enum {
  WARM_NS = 300000, /* not counted: inputs come into the cache, threads awake */
  BURST_NS = 2000000,
  SPIN_NS = 100000, /* of idle threads: from the warm burst to the counted one */
  UNIT_NS = 20000,
};

/* Rows without --tokens; {0}: the kernel takes no rows. */
static const size_t usual_rows[FP4MOE_OPS][4] = {
    [FP4MOE_OP_GEMV] = {1, 2, 4, 8},
    [FP4MOE_OP_GEMM] = {16, 32, 64, 256},
    [FP4MOE_OP_ACT] = {1, 64},
    [FP4MOE_OP_COMBINE] = {1, 64},
};

/* ---- What to run ---- */

static fp4moe_op parse_op(const char *text) {
  char all[128] = "";
  for (int op = 0; op < FP4MOE_OPS; op++) {
    const char *name = fp4moe_op_name((fp4moe_op)op);
    if (!strcmp(name, text)) return (fp4moe_op)op;
    snprintf(all + strlen(all), sizeof all - strlen(all), " %s", name);
  }
  die("--op %s: not one of%s", text, all);
}

static void take_rows(op_bench *b) {
  const problem *p = b->problem;
  const size_t *usual = usual_rows[b->op];
  b->takes_rows = usual[0] != 0;
  if (!b->takes_rows && p->calls) die("--op %s goes without --tokens", p->op);
  for (size_t i = 0; i < p->calls; i++)
    if (p->tokens[i] > FP4MOE_ROW_BLOCK)
      die("--tokens %zu: a kernel is given at most %d rows", p->tokens[i], FP4MOE_ROW_BLOCK);
  b->row_counts = p->calls;
  memcpy(b->rows, p->tokens, sizeof b->rows);
  for (; !p->calls && b->row_counts < 4 && usual[b->row_counts]; b->row_counts++)
    b->rows[b->row_counts] = usual[b->row_counts];
  if (!b->row_counts) b->rows[b->row_counts++] = 1;
}

/* The class in which a kernel runs. */
static fp4moe_precision class_of(const op_bench *b, const fp4moe_kernel *kernel) {
  for (int c = 0; c < OP_CLASSES; c++)
    if ((int)fp4moe_op_class(kernel->op, (fp4moe_precision)c) == kernel->act)
      return (fp4moe_precision)c;
  return b->problem->precision;
}

static int admits(const op_bench *b, const fp4moe_kernel *kernel) {
  const fp4moe_request *request = &b->context->request;
  const fp4moe_selector s = {&b->context->host, request, NULL};
  fp4moe_layer_desc desc = problem_desc(b->problem);
  if (b->problem->any_precision) desc.precision = class_of(b, kernel);
  int c_rows = request->forced >> b->op & 1 || b->context->isa == FP4MOE_ISA_c;
  return kernel->op == b->op && !fp4moe_judge(&s, &desc, kernel) &&
         (c_rows || kernel->isa != FP4MOE_ISA_c);
}

static void list_cases(op_bench *b) {
  b->cases = allocate(fp4moe_kernel_count * b->row_counts, sizeof *b->cases);
  for (size_t i = 0; i < fp4moe_kernel_count; i++) {
    const fp4moe_kernel *k = &fp4moe_kernels[i];
    if (!admits(b, k)) continue;
    if (op_panels(k) > b->panels) b->panels = op_panels(k);
    for (size_t r = 0; r < b->row_counts; r++)
      b->cases[b->count++] = (op_case){
          .kernel = k, .m = b->rows[r], .panels = op_panels(k), .precision = class_of(b, k)};
  }
  if (!b->count)
    die("--op %s: only C kernels serve this problem; --kernel names them", b->problem->op);
}

/* ---- Inputs ---- */

typedef struct making {
  op_shape shape;
  op_data *data;
} making;

static void make_data(void *arg, size_t thread) {
  const making *m = arg;
  op_data_make(&m->data[thread], &m->shape, thread + 1);
}

/* Each thread its own, touched by it first. */
static void make_inputs(op_bench *b) {
  making m = {.shape = {.op = b->op,
                        .desc = problem_desc(b->problem),
                        .panels = b->panels,
                        .cache_bytes = b->context->host.l2_bytes / 2}};
  for (size_t r = 0; r < b->row_counts; r++)
    if (b->rows[r] > m.shape.rows) m.shape.rows = b->rows[r];
  for (size_t i = 0; i < b->count; i++) {
    op_case *c = &b->cases[i];
    op_data **data = &b->data[c->precision];
    if (!*data) {
      m.shape.desc.precision = c->precision;
      m.data = *data = allocate(b->threads, sizeof **data);
      fp4moe_pool_run(b->pool, b->threads, make_data, &m);
    }
    c->data = *data;
  }
}

/* ---- Measuring ---- */

static void run_calls(void *arg, size_t thread) {
  op_bench *b = arg;
  const op_case *c = b->now;
  uint64_t mode = fp4moe_fp_enter();
  size_t turn = 0;
  do {
    for (size_t i = 0; i < c->unit; i++)
      op_call(&c->data[thread], c->kernel, c->m, c->panels, turn++);
    atomic_fetch_add(&b->calls, c->unit);
  } while (fp4moe_now_ns() - b->start < b->least_ns);
  fp4moe_fp_leave(mode);
}

/* Time of a call while `threads` threads call for at least `least_ns`. */
static double burst(op_bench *b, const op_case *c, size_t threads, uint64_t least_ns) {
  b->now = c;
  b->calls = 0;
  b->least_ns = least_ns;
  b->start = fp4moe_now_ns();
  fp4moe_pool_run(b->pool, threads, run_calls, b);
  return (double)(fp4moe_now_ns() - b->start) / (double)b->calls;
}

static double warm_burst(op_bench *b, const op_case *c, size_t threads) {
  burst(b, c, threads, WARM_NS);
  return burst(b, c, threads, BURST_NS);
}

static void prepare(op_bench *b, op_case *c) {
  c->work = op_call(c->data, c->kernel, c->m, c->panels, 0);
  c->unit = 1;
  c->unit = 1 + (size_t)(UNIT_NS / burst(b, c, 1, UNIT_NS));
  if (c->kernel->err)
    c->err = op_worst_error(c->data, c->kernel, c->m, c->panels);
  else
    c->same_bits = op_same_bits(c->data, c->kernel, c->m, c->panels);
}

/* One thread, counted: the pool's first is the caller. */
static double counted_burst(op_bench *b, op_case *c) {
  burst(b, c, 1, WARM_NS);
  counters_sample before = counters_read(b->counters);
  double ns = burst(b, c, 1, BURST_NS);
  counters_sample after = counters_read(b->counters), d = counters_between(&before, &after);
  for (int i = 0; i < COUNTERS_EVENTS; i++) c->counts.event[i] += d.event[i];
  c->counts.task_clock_ns += d.task_clock_ns;
  c->counts.tsc += d.tsc;
  c->counted_calls += (double)b->calls;
  return ns;
}

static void measure(op_bench *b, op_case *c, size_t round) {
  const ceilings *limit = &b->ceilings[round];
  c->one_ns[round] = counted_burst(b, c);
  c->all_ns[round] = warm_burst(b, c, b->threads);
  double floor_ns = fmax(c->work.bytes / limit->read_gbytes_s,
                         c->work.operations / class_rate(c->precision, limit));
  c->share[round] = floor_ns / c->all_ns[round];
}

static void run_rounds(op_bench *b) {
  ceilings_meter *meter =
      ceilings_open(&b->context->host, b->context->request.cap, b->threads, NULL);
  if (!meter) die("no memory to measure the bandwidth with");
  for (size_t r = 0; r < OP_ROUNDS; r++) {
    progress("measuring, rounds", r, OP_ROUNDS);
    b->ceilings[r] = ceilings_measure(meter);
    for (size_t i = 0; i < b->count; i++) measure(b, &b->cases[i], r);
  }
  progress_clear();
  ceilings_close(meter);
}

static void close_bench(op_bench *b) {
  for (int c = 0; c < OP_CLASSES; c++) {
    for (size_t i = 0; b->data[c] && i < b->threads; i++) op_data_free(&b->data[c][i]);
    free(b->data[c]);
  }
  free(b->cases);
  counters_close(b->counters);
  fp4moe_pool_destroy(b->pool);
  fp4moe_context_destroy(b->context);
}

int bench_op(const problem *p, int argc, char **argv) {
  static op_bench b;
  b = (op_bench){.problem = p, .op = parse_op(p->op)};
  b.context = open_context(p->threads, p->kernels);
  b.threads = fp4moe_context_threads(b.context);
  take_rows(&b);
  list_cases(&b);
  const fp4moe_host *host = &b.context->host;
  b.pool = fp4moe_pool_create(b.threads, b.threads <= host->allowed_cores ? host->core_pu : NULL,
                              SPIN_NS);
  b.counters = counters_open();
  if (!b.pool || !b.counters) die("no memory for threads");
  make_inputs(&b);
  for (size_t i = 0; i < b.count; i++) prepare(&b, &b.cases[i]);
  run_rounds(&b);
  int status = op_report(&b, argc, argv);
  close_bench(&b);
  return status;
}
