/* compare.h - two tables of one host: do two runs of the tuner choose alike?
 *
 * A pick is what runs for a shape (phase, format, class, N, K, gating, cores) and a bucket of rows:
 * the first entry, or the static order where the tuner had the shape and kept none. Picks are
 * compared whole - kernels, panels, K block, prefetch - and by their kernels alone. Where they
 * differ, each table is asked how much longer the other's pick took in its own races: within the
 * noise it stored, the two are one to it. That noise is what counts as equal (TUNE_EFFECT, or what
 * a race could tell apart) and, of a pick that raced twice, by how much its own two looks differ.
 */
#ifndef FP4MOE_COMPARE_H
#define FP4MOE_COMPARE_H

#include "oracle.h"

enum { TABLES = 2 };

typedef struct compare_pick {
  fp4moe_recipe_key key;
  fp4moe_recipe recipe[TABLES];
  int is_static[TABLES];
  int same_kernels;
  /* In the race of this table: time of the other's pick over its own. 0: not known, for the other's
   * was surely slower there and left no time, or the table has none of these rows. */
  double ratio[TABLES];
  double noise[TABLES]; /* of that race: what it took for equal */
  int within[TABLES];   /* 1: the ratio lies within the noise */
} compare_pick;

typedef struct comparison {
  size_t picks;                     /* that both tables have */
  size_t same, same_kernels;        /* whole; by kernels */
  size_t within_both, within_one;   /* of those that differ: within the noise of the races */
  size_t only[TABLES];              /* shapes and rows that one has alone: not compared */
  size_t schedules, same_schedules; /* exact keys that both have */
  size_t differ_count;              /* picks - same */
  compare_pick *differ;             /* [differ_count] in key order; NULL: none */
} comparison;

/* The static order is that of `s`, whose table is not read. NULL memory: 0. The caller frees
 * differ. */
int compare_tables(const fp4moe_selector *s, const fp4moe_table *const tables[TABLES],
                   comparison *out);

#endif
