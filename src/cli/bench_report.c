/* bench_report.c - the figures of a bench as a table or as JSON lines (bench.h), and whether they
 * are to be believed: an efficiency above 1.05 is a fault of the ruler, an error beyond the class's
 * bound one of the kernels. */
#include <stdio.h>

#include "bench.h"

/* Twice what a class keeps over a layer's tokens: the few that are sampled scatter. */
static const double class_bound[] = {
    [FP4MOE_PRECISION_F32] = 2e-5, [FP4MOE_PRECISION_BF16] = 1e-2, [FP4MOE_PRECISION_INT8] = 3e-2};
static const double most_efficiency = 1.05;

typedef struct figures {
  measure_summary ms, efficiency;
  double floor_ms, gbytes_s, gflops;
} figures;

static figures sum_up(const bench *b, bench_case *c) {
  figures f = {.ms = measure_summarise(c->ms, b->rounds),
               .efficiency = measure_summarise(c->efficiency, b->rounds),
               .floor_ms = measure_summarise(c->floor_ms, b->rounds).median};
  f.gbytes_s = measure_summarise(c->bytes, b->rounds).median * 1e-6 / f.ms.median;
  f.gflops = bench_operations(&b->problem, c->tokens) * 1e-6 / f.ms.median;
  return f;
}

/* The median of one field of all rounds' ceilings. */
static double median_ceiling(const bench *b, size_t field) {
  double x[MAX_ROUNDS];
  for (size_t r = 0; r < b->rounds; r++)
    x[r] = *(const double *)((const char *)&b->ceilings[r] + field);
  return measure_summarise(x, b->rounds).median;
}

static ceilings median_ceilings(const bench *b) {
  return (ceilings){.read_gbytes_s = median_ceiling(b, offsetof(ceilings, read_gbytes_s)),
                    .int8_gops = median_ceiling(b, offsetof(ceilings, int8_gops)),
                    .bf16_gflops = median_ceiling(b, offsetof(ceilings, bf16_gflops)),
                    .f32_gflops = median_ceiling(b, offsetof(ceilings, f32_gflops))};
}

/* ---- JSON ---- */

static void json_ceilings(const bench *b) {
  ceilings c = median_ceilings(b);
  print_json(json_pack("{ss sI sf sf sf sf}", "what", "ceilings", "threads", (json_int_t)b->threads,
                       "read_gbytes_s", c.read_gbytes_s, "int8_gops", c.int8_gops, "bf16_gflops",
                       c.bf16_gflops, "f32_gflops", c.f32_gflops));
}

static void json_case(const bench *b, const bench_case *c, const figures *f) {
  const problem *p = &b->problem;
  print_json(json_pack("{ss ss ss ss sI sI sf sf sf sf sf sf s[ff] so so}", "what", "layer",
                       "model", p->name, "format", word_of(format_words, (int)p->shape.format),
                       "precision", word_of(precision_words, (int)p->precision), "tokens",
                       (json_int_t)c->tokens, "threads", (json_int_t)b->threads, "ms", f->ms.median,
                       "ms_min", f->ms.min, "gbytes_s", f->gbytes_s, "gflops", f->gflops,
                       "floor_ms", f->floor_ms, "efficiency", f->efficiency.median, "quartiles",
                       f->efficiency.q1, f->efficiency.q3, "err", json_number(c->err.rel_l2),
                       "kernels", json_names(c->kernels)));
}

/* ---- Table ---- */

static void print_header(const bench *b, int argc, char **argv) {
  const problem *p = &b->problem;
  const preset *s = &p->shape;
  ceilings c = median_ceilings(b);
  printf("# fp4moe");
  for (int i = 0; i < argc; i++) printf(" %s", argv[i]);
  printf("  # %s, %zu threads\n", b->host.cpu_model, b->threads);
  printf("# %s: H %zu, I %zu, E %zu, top-%zu, %s, %s%s, class %s; %zu layers in turn, %zu rounds\n",
         p->name, s->hidden, s->intermediate, s->experts, s->top_k,
         word_of(format_words, (int)s->format), activation_text(&s->activation),
         s->biases ? ", biases" : "", word_of(precision_words, (int)p->precision), b->layer_count,
         b->rounds);
  printf("# limits: read %.1f GB/s, int8 %.0f Gop/s, bf16 %.0f GFLOP/s, f32 %.0f GFLOP/s\n",
         c.read_gbytes_s, c.int8_gops, c.bf16_gflops, c.f32_gflops);
  printf("%7s %9s %9s %7s %8s %9s %6s %13s %9s  %s\n", "tokens", "ms", "ms_min", "GB/s", "GFLOP/s",
         "floor_ms", "eff", "quartiles", "err", "kernels");
}

static void print_case(const bench_case *c, const figures *f) {
  printf("%7zu %9.3f %9.3f %7.2f %8.1f %9.3f %6.3f %6.3f %6.3f %9.2e  %s\n", c->tokens,
         f->ms.median, f->ms.min, f->gbytes_s, f->gflops, f->floor_ms, f->efficiency.median,
         f->efficiency.q1, f->efficiency.q3, c->err.rel_l2, c->kernels);
}

/* ---- Belief ---- */

static int believe(const bench *b, const bench_case *c, const figures *f) {
  double bound = class_bound[b->problem.precision];
  if (!(c->err.rel_l2 <= bound)) {
    fprintf(stderr, "%s: tokens %zu: err %g is beyond the class's %g\n", command_name, c->tokens,
            c->err.rel_l2, bound);
    return EXIT_CHECK;
  }
  if (f->efficiency.median <= most_efficiency) return 0;
  fprintf(stderr, "%s: tokens %zu: efficiency %.3f is above %g: a fault of the measurement\n",
          command_name, c->tokens, f->efficiency.median, most_efficiency);
  return EXIT_CHECK;
}

int bench_report(bench *b, int argc, char **argv) {
  int status = 0;
  if (b->problem.json)
    json_ceilings(b);
  else
    print_header(b, argc, argv);
  for (size_t i = 0; i < b->problem.calls; i++) {
    bench_case *c = &b->cases[i];
    figures f = sum_up(b, c);
    if (b->problem.json)
      json_case(b, c, &f);
    else
      print_case(c, &f);
    status |= believe(b, c, &f);
  }
  return status;
}
