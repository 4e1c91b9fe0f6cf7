/* bench.h - what a bench keeps and measured, on its way to the report. */
#ifndef FP4MOE_BENCH_H
#define FP4MOE_BENCH_H

#include "ceilings.h"
#include "measure.h"
#include "plan.h"
#include "problem.h"
#include "trial.h"

enum { MIN_ROUNDS = 15, MAX_ROUNDS = 51 };

/* The problem's own calls, and those of --against. */
enum { OWN, AGAINST, SIDES };

/* Parts of a call whose workers wait for each other at its end. */
enum { PHASES = 2 };

/* What one side did with the calls of an M. */
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
  double ratio[MAX_ROUNDS];        /* time of AGAINST / time of OWN */
  double idle[PHASES][MAX_ROUNDS]; /* share of the workers' time at which they wait, of OWN */
  double even_ms[MAX_ROUNDS], even_share[MAX_ROUNDS]; /* bench_even.c */
} bench_case;

/* What the process holds. */
typedef struct process_state {
  double resident_bytes; /* NaN: not known */
  long threads;
} process_state;

/* Distinct layers of one library, used in turn; layer i has the weights of seed i + 1. */
typedef struct rotation {
  const library *lib;
  fp4moe_context *context;
  fp4moe_layer **layers;
  size_t count, next;
  void *workspace;
  size_t workspace_bytes;
} rotation;

typedef struct bench {
  problem problem;
  fp4moe_host host;
  fp4moe_plan plan[SIDES]; /* by which layers of this program run */
  int sides;               /* 1 without --against */
  size_t threads;
  rotation own;
  rotation *of[SIDES]; /* both `own`, or the second --against's file */
  trial *trials;       /* [problem.layers]: one for each layer of a sample */
  trial even;          /* of skewed routings: their equals */
  size_t rounds;
  ceilings ceilings[MAX_ROUNDS];
  process_state before, after; /* the rounds */
  bench_case cases[MAX_CALLS];
} bench;

static inline int bench_has_rival(const bench *b) {
  return b->sides == SIDES && b->of[AGAINST] != b->of[OWN];
}

/* Of a rotation: the layer of the i-th next call. */
static inline fp4moe_layer *bench_layer(const rotation *r, size_t i) {
  return r->layers[(r->next + i) % r->count];
}

/* The layers of all rotations. count: as many as let weights come from memory, of fewer experts
 * where it is too small for them. */
void bench_count_layers(bench *b);
void bench_make_layers(bench *b);
size_t bench_record_bytes(const problem *p);
process_state bench_look_at_process(void);

/* Makes room for calls of this trial, of the rotation's present layer. */
void bench_reserve(rotation *r, const trial *t);

/* What a side's n calls took, of trial i and its i-th next layer. */
typedef struct bench_spent {
  double ns, bytes, floor_ns; /* sums */
  double phase_ns[PHASES], wait_ns[PHASES];
} bench_spent;
bench_spent bench_run(bench *b, int side, const trial *trials, size_t n);

/* --against FILE: its side of the bench. open: before layers are made. check: its error and kernels
 * with the present draw. begin: after the last check. settle: before its calls and ours, so that
 * neither meets the other's threads. */
void rival_open(bench *b);
void rival_check(const bench *b, bench_side *side);
void rival_begin(const bench *b);
void rival_settle(rotation *r);
void rival_close(bench *b);

/* Skewed routings: calls of equal rows per expert. open: after layers are made. */
void even_open(bench *b);
void even_sample(bench *b, bench_case *c);
size_t even_calls(routing r); /* of a sample */

/* --routing none. Returns the exit status. */
int bench_empty(bench *b, int argc, char **argv);

/* Prints the ceilings and the cases as a table or as JSON lines; sorts their samples. Returns the
 * exit status. */
int bench_report(bench *b, int argc, char **argv);
void bench_print_problem(const problem *p);

/* Is the name among those of a comma-separated list? */
int bench_has_name(const char *names, const char *name, size_t length);

/* Multiply-adds of a call, times two. */
double bench_operations(const problem *p, size_t tokens);

/* `fp4moe bench --op`: single kernels instead of a layer. Returns the exit status. */
int bench_op(const problem *p, int argc, char **argv);

#endif
