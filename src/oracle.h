/* oracle.h - which kernel runs, and why not the others.
 *
 * select is pure: (problem, host, request, table) -> plan, or the reason why there is none. It
 * looks at capability first, then at the table's measured order, then at the static order of
 * kernels.inc. The report names every kernel.
 *
 * batch_invariant: in the float classes a matmul row has a summation order of its own, so one row
 * serves every m of a phase, by the recipe of one bucket; the rows of class i8 are all of one
 * order, the canonical one, and stay as they are. */
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
  FP4MOE_NO_ORDER = 64,  /* batch_invariant: it sums in another order than the row chosen */
};

/* What the caller asked for, beyond the problem. */
typedef struct fp4moe_request {
  char globs[512];    /* comma-separated; "" = none */
  const char *origin; /* where the globs came from */
  uint32_t forced;    /* ops that a glob matches, one bit each */
  fp4moe_isa cap;
  fp4moe_tuned tuned;
  int batch_invariant;
} fp4moe_request;

typedef struct fp4moe_selector {
  const fp4moe_host *host;
  const fp4moe_request *request;
  const fp4moe_table *table; /* NULL: none */
} fp4moe_selector;

/* Parses globs into the request: INVALID where one matches no kernel. origin is kept. */
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

/* The plan of a layer. UNSUPPORTED where an op has no kernel or a glob constrains nothing of the
 * layer, with what would serve; or where tuned is REQUIRE and a key is not in the table. */
fp4moe_status fp4moe_select(const fp4moe_selector *s, const fp4moe_layer_desc *desc,
                            fp4moe_plan *plan);

/* Do two plans choose and schedule alike, from whatever sources? */
int fp4moe_plan_same(const fp4moe_plan *a, const fp4moe_plan *b);

/* (N, K) of a phase's matmul: gate/up [2I or I][H], down [H][I]. */
void fp4moe_phase_shape(const fp4moe_layer_desc *desc, int phase, size_t *n, size_t *k);

/* Without a table, and under forced kernels, the buckets of few rows have a gemv: m up to 16; and
 * the next one, m up to 32, where the gemv is wide and none but gemms are forced. Without either
 * there may be one in others too (oracle.c). */
enum { FP4MOE_GEMV_BUCKETS = 5, FP4MOE_WIDE_GEMV_BUCKETS = 6 };
int fp4moe_is_wide(const fp4moe_kernel *gemv);

/* Panels, K block and prefetch of a recipe whose kernels are given, where no clock says. */
void fp4moe_usual_recipe(const fp4moe_layer_desc *desc, int phase, fp4moe_recipe *r);

/* The recipe without a table: what kernels.inc's order says for `bucket`. */
fp4moe_status fp4moe_static_recipe(const fp4moe_selector *s, const fp4moe_layer_desc *desc,
                                   int phase, int bucket, fp4moe_recipe *recipe);

/* The recipe for the rows of a bucket, and where it came from. */
typedef struct fp4moe_choice {
  fp4moe_recipe_key key;
  fp4moe_match match;               /* NONE, PROVEN: the static order */
  const fp4moe_recipe_entry *entry; /* of the table, the fastest that is eligible; else NULL */
  fp4moe_recipe recipe;
} fp4moe_choice;
fp4moe_status fp4moe_choose(const fp4moe_selector *s, const fp4moe_layer_desc *desc, int phase,
                            int bucket, fp4moe_choice *choice);

const char *fp4moe_op_name(fp4moe_op op);
const char *fp4moe_source_name(fp4moe_source source); /* "static", "nearest", ..., "forced" */

/* "phase=down format=mxfp4 class=bf16 n=2880 ...", as in a table. */
enum { FP4MOE_KEY_TEXT = 160 };
void fp4moe_key_text(const fp4moe_recipe_key *key, char text[FP4MOE_KEY_TEXT]);

/* A problem in the oracle's terms: rows of each expert when they are spread evenly. */
size_t fp4moe_problem_rows(const fp4moe_layer_desc *desc, const fp4moe_problem *problem);

/* What would change the choice for a problem, a line each (advice.c). */
typedef struct fp4moe_advice {
  size_t count;
  char line[16][400];
} fp4moe_advice;
void fp4moe_advise(const fp4moe_selector *s, const fp4moe_layer_desc *desc,
                   const fp4moe_problem *problem, fp4moe_advice *advice);

/* "fp4moe_unpack_... + fp4moe_gemm_..." or the gemv. */
enum { FP4MOE_RECIPE_TEXT = 160 };
void fp4moe_recipe_text(const fp4moe_recipe *recipe, char text[FP4MOE_RECIPE_TEXT]);

/* The report of fp4moe_explain. running: what the layer has now, NULL: there is no layer. */
fp4moe_status fp4moe_report(const fp4moe_selector *s, const fp4moe_layer_desc *desc,
                            const fp4moe_problem *problem, const char *table_text,
                            const fp4moe_plan *running, fp4moe_text *out);

#endif
