/* tune.h - measures the candidates of one problem on this host and writes down what it saw. */
#ifndef FP4MOE_TUNE_H
#define FP4MOE_TUNE_H

#include "context.h"
#include "cli/problem.h"

/* Entries gathered over problems; grows. */
typedef struct tune_result {
  fp4moe_table table; /* recipe and schedule only */
  size_t recipe_cap, schedule_cap;
  size_t candidates, banned; /* measured; wrong against the C rows */
} tune_result;

/* A problem: shape and class. Every candidate is verified against the C row before it is timed, and
 * timed in whole phases of the forward call: all workers, weights from memory, unpack included. */
void tune_problem(fp4moe_context *context, const problem *p, int quick, tune_result *result);

/* Puts the entries of `old` that `result` has no key for beside its own. */
void tune_merge(tune_result *result, const fp4moe_table *old);

#endif
