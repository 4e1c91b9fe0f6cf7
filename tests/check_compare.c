/* check_compare.c - what `fp4moe-autotune report` says of two tables and of gains (compare.h,
 * gains.h): planted tables, known answers. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "compare.h"
#include "gains.h"

static const fp4moe_host host;
static const fp4moe_request request = {.cap = FP4MOE_ISA_c};
static const fp4moe_selector selector = {&host, &request, NULL};

enum { ENTRIES = 8 };

/* Entries of down, MXFP4, bf16, N 64, K 96: rows (a bucket), ns, panels. */
typedef struct planted {
  int bucket;
  uint64_t ns;
  uint32_t panels;
} planted;

static fp4moe_table plant(fp4moe_recipe_entry e[ENTRIES], const planted *p, size_t n) {
  fp4moe_recipe usual;
  const fp4moe_layer_desc desc = {.precision = FP4MOE_PRECISION_BF16, .activation.gated = 1};
  CHECK(!fp4moe_static_recipe(&selector, &desc, FP4MOE_DOWN, 0, &usual), "no C kernel");
  memset(e, 0, ENTRIES * sizeof *e);
  for (size_t i = 0; i < n; i++) {
    e[i] = (fp4moe_recipe_entry){.phase = FP4MOE_DOWN,
                                 .format = FP4MOE_MXFP4,
                                 .act = FP4MOE_ACT_BF16,
                                 .gated = 1,
                                 .bucket = p[i].bucket,
                                 .n = 64,
                                 .k = 96,
                                 .cores = 2,
                                 .ns = p[i].ns,
                                 .noise = 20000,
                                 .recipe = usual};
    e[i].recipe.panels = p[i].panels;
  }
  fp4moe_table t = {.recipe = e, .recipes = n};
  fp4moe_table_sort(&t);
  return t;
}

/* Bucket by bucket: the same; others within the noise of both, of one, of neither; one table alone.
 */
static void picks(void) {
  static const planted first[] = {{0, 100, 2}, {1, 100, 2}, {1, 101, 6}, {2, 100, 2},
                                  {2, 101, 6}, {3, 100, 2}, {3, 103, 6}, {4, 100, 2}};
  static const planted second[] = {{0, 900, 2}, {1, 900, 6}, {1, 910, 2},
                                   {2, 900, 6}, {2, 990, 2}, {3, 900, 6}};
  fp4moe_recipe_entry e[TABLES][ENTRIES];
  fp4moe_table a = plant(e[0], first, 8), b = plant(e[1], second, 6);
  const fp4moe_table *const tables[TABLES] = {&a, &b}, *const turned[TABLES] = {&b, &a};
  comparison c, d;
  a.partial_of = b.partial_of = 1; /* rows without entries are unknown */
  if (!CHECK(compare_tables(&selector, tables, &c), "no memory")) return;
  CHECK(c.picks == 4 && c.same == 1 && c.same_kernels == 4, "%zu picks, %zu same, %zu kernels",
        c.picks, c.same, c.same_kernels);
  CHECK(c.within_both == 1 && c.within_one == 1 && c.differ_count == 3, "%zu both, %zu one, %zu",
        c.within_both, c.within_one, c.differ_count);
  CHECK(c.only[0] == 1 && c.only[1] == 0, "only %zu and %zu", c.only[0], c.only[1]);
  const compare_pick *last = &c.differ[2];
  CHECK(fabs(last->ratio[0] - 1.03) < 1e-9 && last->ratio[1] == 0 && !last->within[0],
        "ratios %g and %g", last->ratio[0], last->ratio[1]);
  if (!CHECK(compare_tables(&selector, turned, &d), "no memory")) return;
  CHECK(d.same == c.same && d.within_both == c.within_both && d.within_one == c.within_one &&
            d.only[1] == 1,
        "turned round, it is not the same");
  free(c.differ);
  free(d.differ);
}

/* Rows that a finished run, or its gain line, left to the static order are a pick of it. */
static void left_static(void) {
  static const planted first[] = {{0, 100, 2}}, second[] = {{0, 100, 2}, {1, 100, 8}, {2, 100, 2}};
  fp4moe_recipe_entry e[TABLES][ENTRIES];
  fp4moe_table a = plant(e[0], first, 1), b = plant(e[1], second, 3);
  fp4moe_gain_entry gain = {FP4MOE_MXFP4, FP4MOE_ACT_BF16, 1, 2, 0, 0, 2, 2, 64, 96, 1, 900000, 0};
  const fp4moe_table *const tables[TABLES] = {&a, &b};
  for (int partial = 0; partial < 2; partial++) {
    comparison c;
    a.partial_of = (size_t)partial, b.partial_of = 1;
    a.gain = &gain, a.gains = 1;
    if (!CHECK(compare_tables(&selector, tables, &c), "no memory")) return;
    CHECK(c.picks == 3 - (size_t)partial && c.same == c.picks - 1,
          "partial %d: %zu picks, %zu same", partial, c.picks, c.same);
    CHECK(c.differ_count == 1 && c.differ[0].is_static[0] && !c.differ[0].is_static[1] &&
              c.differ[0].key.bucket == 2,
          "%zu differ", c.differ_count);
    free(c.differ);
  }
}

/* A linear's line speaks of the second phase alone. */
static void linears(void) {
  static const planted none[] = {{3, 100, 2}};
  fp4moe_recipe_entry e[TABLES][ENTRIES];
  fp4moe_table a = plant(e[0], none, 1), b = plant(e[1], none, 1);
  fp4moe_gain_entry gain = {FP4MOE_MXFP4, FP4MOE_ACT_BF16, 0, 2, 1, 0, 2, 2, 64, 96, 1, 900000, 0};
  const fp4moe_table *const tables[TABLES] = {&a, &b};
  comparison c;
  for (int t = 0; t < TABLES; t++) /* of an ungated layer of the same numbers */
    e[t][0].phase = FP4MOE_GATE_UP, e[t][0].gated = 0, e[t][0].n = 96, e[t][0].k = 64;
  a.partial_of = b.partial_of = 1;
  a.gain = b.gain = &gain, a.gains = b.gains = 1;
  if (!CHECK(compare_tables(&selector, tables, &c), "no memory")) return;
  CHECK(c.picks == 2 && c.same == 2, "%zu picks, %zu same", c.picks, c.same);
  free(c.differ);
}

static void gains(void) {
  fp4moe_gain_entry g[] = {
      {.act = FP4MOE_ACT_BF16, .ratio = 2000000, .kept = 1, .hidden = 32, .intermediate = 64},
      {.act = FP4MOE_ACT_BF16, .ratio = 500000, .kept = 0},
      {.act = FP4MOE_ACT_I8, .ratio = 1000000, .kept = 1},
      {.act = FP4MOE_ACT_BF16,
       .ratio = 990000,
       .kept = 1,
       .gated = 1,
       .hidden = 32,
       .intermediate = 64}};
  const fp4moe_table t = {.gain = g, .gains = 4}, none = {.gains = 0};
  gain_summary s = gains_summarise(&t, FP4MOE_ACT_BF16), all = gains_summarise(&t, GAIN_ALL);
  CHECK(s.count == 3 && s.removed == 1 && fabs(s.mean - cbrt(2 * 0.99)) < 1e-9, "mean %g", s.mean);
  CHECK(s.worst == &g[3] && s.best == &g[0], "worst or best");
  CHECK(all.count == 4 && fabs(all.mean - pow(2 * 0.99, 0.25)) < 1e-9, "mean of all %g", all.mean);
  CHECK(gains_summarise(&none, GAIN_ALL).count == 0, "a table without gains");
  fp4moe_recipe_key up = gain_key(&g[3], FP4MOE_GATE_UP), down = gain_key(&g[0], FP4MOE_DOWN);
  CHECK(up.n == 128 && up.k == 32 && down.n == 32 && down.k == 64, "keys %zux%zu %zux%zu", up.n,
        up.k, down.n, down.k);
}

void check_compare(void) {
  CU_pSuite s = check_suite("compare");
  check_test(s, "picks", picks);
  check_test(s, "left static", left_static);
  check_test(s, "linears", linears);
  check_test(s, "gains", gains);
}
