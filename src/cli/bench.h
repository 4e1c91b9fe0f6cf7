/* bench.h - what a bench measured, on its way to the report. */
#ifndef FP4MOE_BENCH_H
#define FP4MOE_BENCH_H

#include "ceilings.h"
#include "measure.h"
#include "plan.h"
#include "problem.h"
#include "trial.h"

enum { MIN_ROUNDS = 15, MAX_ROUNDS = 51 };

/* The problem's own plan, and the one of --against. */
enum { OWN, AGAINST, SIDES };

/* What one plan did with the calls of an M. */
typedef struct bench_side {
  double ms[MAX_ROUNDS];
  difference err;
  char kernels[2048];
} bench_side;

/* Samples of one M, one a round; times are per layer. */
typedef struct bench_case {
  size_t tokens;
  bench_side side[SIDES];
  double floor_ms[MAX_ROUNDS], efficiency[MAX_ROUNDS], bytes[MAX_ROUNDS];
  double ratio[MAX_ROUNDS]; /* time of AGAINST / time of OWN */
} bench_case;

/* What the process holds. */
typedef struct process_state {
  double resident_bytes; /* NaN: not known */
  long threads;
} process_state;

typedef struct bench {
  problem problem;
  fp4moe_host host;
  fp4moe_context *context;
  fp4moe_plan plan[SIDES];
  int sides; /* 1 without --against */
  size_t threads;
  fp4moe_layer **layers; /* distinct, used in rotation */
  size_t layer_count, next_layer;
  void *workspace;
  size_t workspace_bytes;
  trial *trials; /* [problem.layers]: one for each layer of a sample */
  size_t rounds;
  ceilings ceilings[MAX_ROUNDS];
  process_state before, after; /* the rounds */
  bench_case cases[MAX_CALLS];
} bench;

/* Prints the ceilings and the cases as a table or as JSON lines; sorts their samples. Returns the
 * exit status. */
int bench_report(bench *b, int argc, char **argv);

/* Multiply-adds of a call, times two. */
double bench_operations(const problem *p, size_t tokens);

/* `fp4moe bench --op`: single kernels instead of a layer. Returns the exit status. */
int bench_op(const problem *p, int argc, char **argv);

#endif
