/* target.h - the layer or linear that the tuner measures on: random weights, enough experts that
 * one comes back only after several last-level caches of others, and calls of a given shape. */
#ifndef FP4MOE_TARGET_H
#define FP4MOE_TARGET_H

#include "context.h"
#include "cli/problem.h"
#include "prove.h"

typedef struct target {
  fp4moe_context *context;
  problem problem; /* with as many experts as were built */
  fp4moe_layer *layer;
  fp4moe_selector selector; /* no table */
  fp4moe_plan plan;         /* that calls run */
  size_t active;            /* experts of a uniform call; slots of a token */
  size_t next;              /* the expert where the next call starts */
  uint16_t *x, *y;
  int32_t *ids, *routed; /* of the call; of one router draw */
  float *weights;
  size_t most_tokens;
  void *workspace;
  size_t workspace_bytes;
  float *want, *got; /* of the proof: the C rows' result, a candidate's */
} target;

void target_open(target *t, fp4moe_context *context, const problem *p);
void target_close(target *t);

/* `rows` rows for each of the next `active` experts; of fewer experts where many rows and units
 * are enough for every worker. */
fp4moe_stats target_call_uniform(target *t, size_t rows);

/* A call of random routing in which an expert has `rows` rows on average; ns of the whole call. The
 * draw is one for all calls of the same rows, on other experts each time. Of a linear: a call of
 * `rows` rows on the next matrix. */
double target_call_routed(target *t, size_t rows);
size_t target_routed_tokens(const target *t, size_t rows);

/* prove_check of recipe i of `candidates`: is the result that of the C rows? */
typedef struct target_candidates {
  target *target;
  int phase;
  const fp4moe_recipe *recipe;
} target_candidates;
/* What the first n of them need, so that a child that proves them allocates nothing. */
void target_reserve(const target_candidates *candidates, size_t n);
int target_holds(void *candidates, size_t i, char reason[PROVE_REASON]);

#endif
