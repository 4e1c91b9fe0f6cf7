/* op_report.c - the figures of single kernels as a table or as JSON lines (bench_op.h). A kernel
 * that promises the bits of the C row is held to them; the others show their worst error beside
 * their bound. */
#include <math.h>
#include <stdio.h>

#include "bench_op.h"
#include "head.h"
#include "measure.h"

typedef struct figures {
  double gbytes_s_one, gops_one, gbytes_s, gops, share;
} figures;

static figures sum_up(op_case *c) {
  double one = measure_summarise(c->one_ns, OP_ROUNDS).median;
  double all = measure_summarise(c->all_ns, OP_ROUNDS).median;
  return (figures){c->work.bytes / one, c->work.operations / one, c->work.bytes / all,
                   c->work.operations / all, measure_summarise(c->share, OP_ROUNDS).median};
}

static void json_line(const op_bench *b, const op_case *c, const figures *f) {
  const problem *p = b->problem;
  json_t *line = json_pack("{ss ss ss ss ss sI sI sI sf sf sf sf sf}", "what", "op", "op", p->op,
                           "kernel", c->kernel->name, "model", p->name, "format",
                           word_of(format_words, (int)p->shape.format), "rows", (json_int_t)c->m,
                           "k", (json_int_t)p->shape.hidden, "threads", (json_int_t)b->threads,
                           "gbytes_s_one", f->gbytes_s_one, "gops_one", f->gops_one, "gbytes_s",
                           f->gbytes_s, "gops", f->gops, "share", f->share);
  static const char *const names[COUNTERS_EVENTS] = {"cycles", "instructions", "llc_misses"};
  for (int i = 0; i < COUNTERS_EVENTS; i++)
    json_put(line, names[i], json_number(c->counts.event[i] / c->counted_calls));
  json_put(line, "task_clock_ns", json_number(c->counts.task_clock_ns / c->counted_calls));
  json_put(line, "tsc", json_number(c->counts.tsc / c->counted_calls));
  json_merge(line, c->kernel->err ? json_pack("{so sI}", "err", json_number(c->err), "bound",
                                              (json_int_t)c->kernel->err)
                                  : json_pack("{sb}", "same_bits", c->same_bits));
  print_json(line);
}

static void print_columns(const op_bench *b) {
  const problem *p = b->problem;
  printf("# %s, %s: K %zu, %s; inputs from the level-2 cache, %d rounds\n", p->op, p->name,
         p->shape.hidden, word_of(format_words, (int)p->shape.format), OP_ROUNDS);
  puts(
      "# share, all threads: of the larger of input bytes / read bandwidth and operations / dots\n"
      "# err: the C row's bits; or worst |y - exact|, and its bound, in 2^-24 * sum|a*w| per 32 k");
  if (*counters_missing(b->counters))
    printf("# ipc: instructions a cycle, one thread; - not counted: %s\n",
           counters_missing(b->counters));
  printf("%-42s %4s  %21s  %7zu threads\n", "", "", "1 thread", b->threads);
  printf("%-42s %4s  %7s %7s %5s  %7s %7s  %6s  %s\n", "kernel", "rows", "GB/s", "Gop/s", "ipc",
         "GB/s", "Gop/s", "share", "err");
}

/* A rate, or a dash where the op has none. */
static void print_rate(double rate) {
  if (rate > 0)
    printf(" %7.1f", rate);
  else
    printf(" %7s", "-");
}

static void print_line(const op_bench *b, const op_case *c, const figures *f) {
  printf("%-42s ", c->kernel->name);
  printf(b->takes_rows ? "%4zu " : "   - ", c->m);
  print_rate(f->gbytes_s_one);
  print_rate(f->gops_one);
  double ipc = c->counts.event[COUNTERS_INSTRUCTIONS] / c->counts.event[COUNTERS_CYCLES];
  if (isfinite(ipc))
    printf(" %5.2f ", ipc);
  else
    printf("     - ");
  print_rate(f->gbytes_s);
  print_rate(f->gops);
  printf("  %6.3f  ", f->share);
  if (c->kernel->err)
    printf("%.2g of %u\n", c->err, c->kernel->err);
  else
    puts(c->same_bits ? "same bits" : "OTHER BITS");
}

static int believe(const op_case *c) {
  if (c->kernel->err ? c->err <= c->kernel->err : c->same_bits) return 0;
  fprintf(stderr, "%s: %s, %zu rows: not what its row in kernels.inc promises\n", command_name,
          c->kernel->name, c->m);
  return EXIT_CHECK;
}

int op_report(op_bench *b, int argc, char **argv) {
  int status = 0, json = b->problem->json;
  head_command(b->context, json, argc, argv);
  head_limits(b->ceilings, OP_ROUNDS, b->threads, json);
  if (!json) print_columns(b);
  for (size_t i = 0; i < b->count; i++) {
    op_case *c = &b->cases[i];
    figures f = sum_up(c);
    if (json)
      json_line(b, c, &f);
    else
      print_line(b, c, &f);
    status |= believe(c);
  }
  return status;
}
