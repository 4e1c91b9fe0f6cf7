/* bench_report.c - the figures of a bench as a table or as JSON lines (bench.h), and whether they
 * are to be believed: an efficiency above 1.05 is a fault of the ruler, an error beyond the class's
 * bound one of the kernels. */
#include <stdio.h>
#include <string.h>

#include "activation.h"
#include "bench.h"
#include "head.h"

/* Twice what a class keeps over a layer's tokens: the few that are sampled scatter, those of a
 * layer of 64 columns by some half. Classes mxfp8 and nvfp4 by their quantisers (kernel.h),
 * whose elements have m = 3 and 1 bits behind the leading one: an error is even within half of
 * 2^-m, the step of significands from 1 to 2, and these are even too, so it is sqrt((2^-2m / 12) /
 * (7 / 3)) = 2^-m / sqrt(28) of the elements in the mean of squares. Random weights pass on that
 * share. It enters three times, by gate, by up, whose product h has both, and by h itself: sqrt(3 /
 * 28) 2^-m, 0.327 2^-m. */
static const double class_bound[] = {[FP4MOE_PRECISION_F32] = 2e-5,
                                     [FP4MOE_PRECISION_BF16] = 1e-2,
                                     [FP4MOE_PRECISION_INT8] = 3e-2,
                                     [FP4MOE_PRECISION_MXFP8] = 2 * 0.327 * 0x1p-3,
                                     [FP4MOE_PRECISION_NVFP4] = 2 * 0.327 * 0x1p-1};
static const double most_efficiency = 1.05;

typedef struct figures {
  measure_summary ms, efficiency, against_ms, ratio, even_share;
  double floor_ms, gbytes_s, gflops, even_ms, idle[PHASES];
} figures;

static figures sum_up(const bench *b, bench_case *c) {
  figures f = {.ms = measure_summarise(c->side[OWN].ms, b->rounds),
               .against_ms = measure_summarise(c->side[AGAINST].ms, b->rounds),
               .efficiency = measure_summarise(c->efficiency, b->rounds),
               .ratio = measure_summarise(c->ratio, b->rounds),
               .even_share = measure_summarise(c->even_share, b->rounds),
               .even_ms = measure_summarise(c->even_ms, b->rounds).median,
               .floor_ms = measure_summarise(c->floor_ms, b->rounds).median};
  for (int i = 0; i < PHASES; i++) f.idle[i] = measure_summarise(c->idle[i], b->rounds).median;
  f.gbytes_s = measure_summarise(c->bytes, b->rounds).median * 1e-6 / f.ms.median;
  f.gflops = bench_operations(&b->problem, c->tokens) * 1e-6 / f.ms.median;
  return f;
}

static size_t threads_against(const bench *b) {
  const rotation *r = b->of[AGAINST];
  return r->lib->context_threads(r->context);
}

/* ---- JSON ---- */

static void json_case(const bench *b, const bench_case *c, const figures *f) {
  const problem *p = &b->problem;
  json_t *line =
      json_pack("{ss ss ss ss sI sI sf sf sf sf sf sf s[ff] so so}", "what", "layer", "model",
                p->name, "format", word_of(format_words, (int)p->shape.format), "precision",
                word_of(precision_words, (int)p->precision), "tokens", (json_int_t)c->tokens,
                "threads", (json_int_t)b->threads, "ms", f->ms.median, "ms_min", f->ms.min,
                "gbytes_s", f->gbytes_s, "gflops", f->gflops, "floor_ms", f->floor_ms, "efficiency",
                f->efficiency.median, "quartiles", f->efficiency.q1, f->efficiency.q3, "err",
                json_number(c->side[OWN].err.rel_l2), "kernels", json_names(c->side[OWN].kernels));
  if (p->routing_word)
    json_merge(line,
               json_pack("{ss s[ff]}", "routing", p->routing_word, "idle", f->idle[0], f->idle[1]));
  if (routing_is_skewed(p->routing))
    json_merge(line,
               json_pack("{sf sf s[ff]}", "even_ms", f->even_ms, "share", f->even_share.median,
                         "share_quartiles", f->even_share.q1, f->even_share.q3));
  if (b->sides == SIDES)
    json_merge(line,
               json_pack("{ss sI sf sf s[ff] so so}", "against", p->against, "against_threads",
                         (json_int_t)threads_against(b), "against_ms", f->against_ms.median,
                         "ratio", f->ratio.median, "ratio_quartiles", f->ratio.q1, f->ratio.q3,
                         "against_err", json_number(c->side[AGAINST].err.rel_l2), "against_kernels",
                         json_names(c->side[AGAINST].kernels)));
  print_json(line);
}

/* ---- Table ---- */

void bench_print_problem(const problem *p) {
  const preset *s = &p->shape;
  char activation[FP4MOE_ACTIVATION_TEXT];
  int linear = problem_is_linear(p);
  fp4moe_activation_text(&s->activation, activation);
  printf("# %s: %s %zu, %s %zu, E %zu, top-%zu, %s, %s%s, class %s", p->name, linear ? "N" : "H",
         s->hidden, linear ? "K" : "I", s->intermediate, s->experts, s->top_k,
         word_of(format_words, (int)s->format), linear ? "no activation" : activation,
         s->biases ? ", biases" : "", word_of(precision_words, (int)p->precision));
  if (p->routing_word) printf(", routing %s", p->routing_word);
}

/* With --layers: what a model of so many layers holds. */
static double packed_bytes(const bench *b) {
  size_t layers = bench_has_rival(b) ? 2 * b->own.count : b->own.count;
  return (double)layers * (double)fp4moe_layer_bytes(b->own.layers[0]);
}

static void print_memory(const bench *b) {
  printf("# memory: packed weights %.3f GB, resident %.3f GB (%.3f); threads %ld, after the first "
         "round %ld\n",
         packed_bytes(b) * 1e-9, b->after.resident_bytes * 1e-9,
         b->after.resident_bytes / packed_bytes(b), b->after.threads, b->before.threads);
}

static void json_memory(const bench *b) {
  print_json(json_pack("{ss sf so sI sI}", "what", "memory", "packed_bytes", packed_bytes(b),
                       "resident_bytes", json_number(b->after.resident_bytes), "threads",
                       (json_int_t)b->after.threads, "threads_after_first_round",
                       (json_int_t)b->before.threads));
}

static void print_columns(const bench *b) {
  const problem *p = &b->problem;
  if (p->routing_word) puts("# idle: the workers' share of phases 1 and 2 in which they wait");
  if (routing_is_skewed(p->routing))
    puts("# share: even_ms / ms, even_ms the time of such experts among others of as many rows");
  if (b->sides == SIDES)
    printf("# ratio: time under --against '%s' (%zu threads) / ms, in the same rounds\n",
           p->against, threads_against(b));
  printf("%7s %9s %9s %7s %8s %9s %6s %13s %9s", "tokens", "ms", "ms_min", "GB/s", "GFLOP/s",
         "floor_ms", "eff", "quartiles", "err");
  if (p->routing_word) printf("  %5s %5s", "idle1", "idle2");
  if (routing_is_skewed(p->routing)) printf("  %9s %6s %13s", "even_ms", "share", "quartiles");
  if (b->sides == SIDES) printf("  %6s %13s %9s", "ratio", "quartiles", "err");
  puts("  kernels");
}

int bench_has_name(const char *names, const char *name, size_t length) {
  for (size_t n; *names; names += n + (names[n] == ',')) {
    n = strcspn(names, ",");
    if (n == length && !memcmp(names, name, n)) return 1;
  }
  return 0;
}

/* The kernels of the other side that are not this one's. A library may not name its. */
static void print_rivals(const char *own, const char *against) {
  const char *before = " against ";
  int all_named = *against != 0;
  for (size_t n; *against; against += n + (against[n] == ',')) {
    n = strcspn(against, ",");
    if (bench_has_name(own, against, n)) continue;
    printf("%s%.*s", before, (int)n, against);
    before = ",";
  }
  if (*before == ' ') printf(all_named ? " against the same" : " against some without names");
}

static void print_case(const bench *b, const bench_case *c, const figures *f) {
  const problem *p = &b->problem;
  const bench_side *own = &c->side[OWN], *against = &c->side[AGAINST];
  printf("%7zu %9.3f %9.3f %7.2f %8.1f %9.3f %6.3f %6.3f %6.3f %9.2e", c->tokens, f->ms.median,
         f->ms.min, f->gbytes_s, f->gflops, f->floor_ms, f->efficiency.median, f->efficiency.q1,
         f->efficiency.q3, own->err.rel_l2);
  if (p->routing_word) printf("  %5.3f %5.3f", f->idle[0], f->idle[1]);
  if (routing_is_skewed(p->routing))
    printf("  %9.3f %6.3f %6.3f %6.3f", f->even_ms, f->even_share.median, f->even_share.q1,
           f->even_share.q3);
  if (b->sides == SIDES)
    printf("  %6.3f %6.3f %6.3f %9.2e", f->ratio.median, f->ratio.q1, f->ratio.q3,
           against->err.rel_l2);
  printf("  %s", own->kernels);
  if (b->sides == SIDES) print_rivals(own->kernels, against->kernels);
  putchar('\n');
}

/* ---- Belief ---- */

static int believe(const bench *b, const bench_case *c, const figures *f) {
  double bound = class_bound[b->problem.precision];
  for (int side = 0; side < b->sides; side++) {
    double err = c->side[side].err.rel_l2;
    if (err <= bound) continue;
    fprintf(stderr, "%s: tokens %zu%s: err %g is beyond the class's %g\n", command_name, c->tokens,
            side == OWN ? "" : " under --against", err, bound);
    return EXIT_CHECK;
  }
  if (f->efficiency.median <= most_efficiency) return 0;
  fprintf(stderr, "%s: tokens %zu: efficiency %.3f is above %g: a fault of the measurement\n",
          command_name, c->tokens, f->efficiency.median, most_efficiency);
  return EXIT_CHECK;
}

int bench_report(bench *b, int argc, char **argv) {
  int status = 0, json = b->problem.json;
  head_command(b->own.context, json, argc, argv);
  if (!json) {
    bench_print_problem(&b->problem);
    printf("; %zu layers in turn, %zu rounds\n", b->own.count, b->rounds);
  }
  head_limits(b->ceilings, b->rounds, b->threads, json);
  if (b->problem.layers > 1) (json ? json_memory : print_memory)(b);
  if (!json) print_columns(b);
  for (size_t i = 0; i < b->problem.calls; i++) {
    bench_case *c = &b->cases[i];
    figures f = sum_up(b, c);
    if (json)
      json_case(b, c, &f);
    else
      print_case(b, c, &f);
    status |= believe(b, c, &f);
  }
  return status;
}
