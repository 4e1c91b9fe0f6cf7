/* oracle.h - which kernel runs, and why not the others.
 *
 * select is pure: (problem, host, request, table) -> plan, or the reason why there is none. It
 * looks at capability first, then at the table's measured order, then at the static order of
 * kernels.inc. The report names every kernel. */
#ifndef FP4MOE_ORACLE_H
#define FP4MOE_ORACLE_H

#include "host.h"
#include "plan.h"
#include "table.h"

/* Reasons against a kernel, as bits; each is a phrase of the report. */
enum {
  FP4MOE_NO_ISA = 1, /* the CPU lacks a bit that its suffix needs */
  FP4MOE_NO_CAP = 2, /* FP4MOE_CPU is below it */
  FP4MOE_NO_FORMAT = 4,
  FP4MOE_NO_CLASS = 8,
  FP4MOE_NO_ACTIVATION = 16,
  FP4MOE_NO_FORCED = 32, /* the kernel globs name others of its op */
};

/* What the caller asked for, beyond the problem. */
typedef struct fp4moe_request {
  char globs[512]; /* comma-separated; "" = none */
  uint32_t forced; /* ops that a glob matches, one bit each */
  fp4moe_isa cap;
} fp4moe_request;

typedef struct fp4moe_selector {
  const fp4moe_host *host;
  const fp4moe_request *request;
  const fp4moe_table *table; /* NULL: none */
} fp4moe_selector;

/* Parses globs into the request: INVALID where one matches no kernel. */
fp4moe_status fp4moe_request_globs(fp4moe_request *request, const char *globs, const char *origin);

/* The class of a precision's quantiser, and of its rows and matmuls: MXFP8 and NVFP4 run on those
 * of BF16, and so share its entries of the table. */
fp4moe_act_class fp4moe_quant_class_of(fp4moe_precision precision);
fp4moe_act_class fp4moe_act_class_of(fp4moe_precision precision);

/* The class that a kernel of this op must have. */
fp4moe_act_class fp4moe_op_class(fp4moe_op op, fp4moe_precision precision);

/* Reasons against `kernel` for a layer, 0 = eligible. */
uint32_t fp4moe_judge(const fp4moe_selector *s, const fp4moe_layer_desc *desc,
                      const fp4moe_kernel *kernel);

/* The plan of a layer. UNSUPPORTED where an op has no kernel, with what would serve. */
fp4moe_status fp4moe_select(const fp4moe_selector *s, const fp4moe_layer_desc *desc,
                            fp4moe_plan *plan);

/* (N, K) of a phase's matmul: gate/up [2I or I][H], down [H][I]. */
void fp4moe_phase_shape(const fp4moe_layer_desc *desc, int phase, size_t *n, size_t *k);

/* The recipe without a table: what kernels.inc's order says for `bucket`. */
fp4moe_status fp4moe_static_recipe(const fp4moe_selector *s, const fp4moe_layer_desc *desc,
                                   int phase, int bucket, fp4moe_recipe *recipe);

/* The table's recipe for `bucket`, the fastest that is eligible; NONE leaves *recipe alone. */
fp4moe_match fp4moe_select_recipe(const fp4moe_selector *s, const fp4moe_layer_desc *desc,
                                  int phase, int bucket, fp4moe_recipe *recipe);

const char *fp4moe_op_name(fp4moe_op op);

/* The report of fp4moe_explain. */
fp4moe_status fp4moe_report(const fp4moe_selector *s, const fp4moe_layer_desc *desc,
                            const fp4moe_problem *problem, const char *table_text,
                            fp4moe_text *out);

#endif
