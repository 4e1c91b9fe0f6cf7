/* tune.h - tunes one problem (a shape and a class) on this host, into table entries. */
#ifndef FP4MOE_TUNE_H
#define FP4MOE_TUNE_H

#include "cli/problem.h"
#include "context.h"
#include "entries.h"

/* The least difference that makes the tuner choose other than the static order, of recipes,
 * schedules and placements. Prefetch distances and widths of units are a few per cent apart, and
 * which of them is ahead changes with a host's mood: below this two runs would not agree. */
#define TUNE_EFFECT 0.05

/* How a run goes on, and what it saw. */
typedef struct tune_run {
  int quick;              /* fewer candidates and rounds */
  uint64_t deadline_ns;   /* of the whole run, fp4moe_now_ns; 0 = none */
  const int *interrupted; /* not 0: end soon */
  int quiet;              /* no progress on the terminal, no line a pick */
  int json;               /* picks as JSON */
  void (*banned)(const char *problem, const fp4moe_recipe *recipe, const char *reason);
  size_t candidates, refused; /* proven and timed; wrong, faulting or hanging */
  size_t removed;             /* picks that lost the second race, buckets whose whole layer lost */
  double noise;               /* largest of the races' */
  int unfinished;             /* 1: deadline or interrupt came first */
} tune_run;

/* 1: deadline or interrupt has come. */
int tune_is_late(const tune_run *run);

/* Every candidate is proven in a child process before it is timed, and timed in whole phases of the
 * forward call: all workers, weights from memory, unpack included. Kernels race first, then the
 * variants of the winner, then schedules. Unfinished, `out` has the buckets that were done. */
void tune_problem(tune_run *run, fp4moe_context *context, const problem *p, entries *out);

/* The last step, after every problem had its first: the picks that `all` has of this one race
 * against the static order again, then the whole layer as tuned, with random routing, against the
 * static order; what loses comes after the static recipe, and the gains are stored. */
void tune_prove(tune_run *run, fp4moe_context *context, const problem *p, entries *all);

/* Candidates of the problem, before any is refused. */
size_t tune_size(const tune_run *run, fp4moe_context *context, const problem *p);

/* Times a sample of the table's picks again, against what came after them: one line each. Returns
 * how many picks another entry now beats by more than the noise. */
size_t tune_verify(tune_run *run, fp4moe_context *context, const problem *p,
                   const fp4moe_table *table);

#endif
