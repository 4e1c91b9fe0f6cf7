/* bench_op.h - what `fp4moe bench --op` measured, on its way to the report. */
#ifndef FP4MOE_BENCH_OP_H
#define FP4MOE_BENCH_OP_H

#include <stdatomic.h>

#include "ceilings.h"
#include "context.h"
#include "counters.h"
#include "op_data.h"
#include "problem.h"

enum { OP_ROUNDS = 9, OP_CLASSES = 5 };

/* A kernel and a number of rows. */
typedef struct op_case {
  const fp4moe_kernel *kernel;
  size_t m, panels;
  fp4moe_precision precision;
  op_data *data;                               /* [threads] */
  size_t unit;                                 /* calls between two looks at the clock */
  op_work work;                                /* of a call */
  double one_ns[OP_ROUNDS], all_ns[OP_ROUNDS]; /* of a call, on one thread, on all together */
  double share[OP_ROUNDS];
  counters_sample counts; /* of the one thread's bursts, all rounds */
  double counted_calls;
  int same_bits;
  double err; /* where the kernel does not promise bits */
} op_case;

typedef struct op_bench {
  const problem *problem;
  fp4moe_op op;
  fp4moe_context *context;
  fp4moe_pool *pool;
  size_t threads, rows[MAX_CALLS], row_counts, panels;
  int takes_rows;
  op_data *data[OP_CLASSES]; /* by precision; NULL: no kernel */
  op_case *cases;
  size_t count;
  ceilings ceilings[OP_ROUNDS];
  counters *counters;
  /* the present burst */
  const op_case *now;
  uint64_t start, least_ns;
  atomic_size_t calls;
} op_bench;

/* Prints the cases as a table or as JSON lines; sorts their samples. Returns the exit status. */
int op_report(op_bench *b, int argc, char **argv);

#endif
