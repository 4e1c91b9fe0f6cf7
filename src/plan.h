/* plan.h - what the oracle hands to forward: plain data, no decisions left.
 *
 * A recipe is one way to multiply an expert's rows with a projection: either {gemv} (nibbles
 * decoded in registers, mr rows at a time) or {unpack, gemm} (`panels` panels decoded into cache,
 * k_block columns at a time, then a register-blocked gemm over all rows). The recipe depends on the
 * expert's total rows m in the call through its bucket, never on how tasks were cut or how many
 * threads run; a schedule depends on threads and moves no bits. */
#ifndef FP4MOE_PLAN_H
#define FP4MOE_PLAN_H

#include "kernel.h"

/* m: 1, 2, 3-4, 5-8, 9-16, 17-32, 33-64, more. */
enum { FP4MOE_BUCKETS = 8 };

static inline int fp4moe_bucket(size_t m) {
  int b = 0;
  while (b < FP4MOE_BUCKETS - 1 && m > (size_t)1 << b) b++;
  return b;
}

/* The largest m of a bucket; 128 stands for the open one. */
static inline size_t fp4moe_bucket_rows(int bucket) { return (size_t)1 << bucket; }

/* Does a register tile of several panels have so few sums with m rows that each dot waits for the
 * one before? Then rows of one panel, whose chains are shorter, come first where no clock says. */
static inline int fp4moe_tile_waits(const fp4moe_kernel *k, size_t m) {
  size_t panels = k->nr / FP4MOE_PANEL;
  return panels > 1 && (m < k->mr ? m : k->mr) * panels < 10;
}

enum { FP4MOE_GATE_UP, FP4MOE_DOWN, FP4MOE_PHASES }; /* phase 1, phase 2 */

enum {
  FP4MOE_MAX_PANELS = 12,    /* of a recipe */
  FP4MOE_ROW_BLOCK = 256,    /* rows of an expert in one unit, at most */
  FP4MOE_TOKEN_BLOCK = 1024, /* tokens of a phase-2 unit, at most */
  FP4MOE_SPLIT_TOKENS = 8    /* up to here a 32-column group of h may have two units */
};

typedef struct fp4moe_recipe {
  const fp4moe_kernel *gemv; /* NULL: unpack + gemm */
  const fp4moe_kernel *unpack, *gemm;
  uint32_t panels;   /* of one unit, <= FP4MOE_MAX_PANELS; see fp4moe_panel_step */
  uint32_t k_block;  /* columns unpacked at once, a multiple of 32; 0: all */
  uint32_t prefetch; /* gemv: bytes ahead; gemm: 1 = the next unit's nibbles, 0 = none */
} fp4moe_recipe;

/* Do two recipes run the same kernels, however wide their units? */
static inline int fp4moe_same_kernels(const fp4moe_recipe *a, const fp4moe_recipe *b) {
  return a->gemv == b->gemv && a->unpack == b->unpack && a->gemm == b->gemm;
}

/* What serves where no clock says: a wide unit costs a worker little else, and of the distances
 * this one is nowhere far behind. */
enum {
  FP4MOE_USUAL_GEMV_PANELS = 8,
  FP4MOE_USUAL_GEMM_PANELS = 4,
  FP4MOE_USUAL_PREFETCH = 8192 /* bytes */
};

/* Does `unpack` write the panels that `gemm` reads? */
static inline int fp4moe_recipe_joins(const fp4moe_kernel *unpack, const fp4moe_kernel *gemm) {
  return unpack->op == FP4MOE_OP_UNPACK && unpack->form == gemm->form;
}

/* Workers take units in runs of remaining/(share * workers), at least one. Where no schedule was
 * measured all threads do, by the usual share. */
enum { FP4MOE_USUAL_SHARE = 2 };
typedef struct fp4moe_schedule {
  uint32_t bucket;  /* of tokens */
  uint32_t threads; /* of the call */
  uint32_t workers; /* that take part, <= threads */
  uint32_t share;
} fp4moe_schedule;

enum { FP4MOE_SCHEDULES = 64 };

/* Where the recipe of a bucket came from (table.h: fp4moe_match), or that a glob constrained its
 * kernels. */
typedef enum fp4moe_source {
  FP4MOE_FROM_STATIC = 0,
  FP4MOE_FROM_NEAREST,
  FP4MOE_FROM_PROVEN,
  FP4MOE_FROM_EXACT,
  FP4MOE_FROM_FORCED
} fp4moe_source;

typedef struct fp4moe_plan {
  fp4moe_act_class act_class;       /* of rows and matmuls */
  fp4moe_act_class quant_class;     /* of the quantiser */
  fp4moe_input_global input_global; /* class nvfp4 */
  /* A token's bits depend on nothing else in the call: each phase has the recipes of one summation
   * order, phase 2 one chain over the experts, uncut in runs or along K (call.c). */
  int batch_invariant;
  const fp4moe_kernel *quant, *act, *combine, *store;
  fp4moe_recipe recipe[FP4MOE_PHASES][FP4MOE_BUCKETS];
  uint8_t source[FP4MOE_PHASES][FP4MOE_BUCKETS]; /* fp4moe_source, for observers only */
  /* For an expert whose MXFP4 scales leave the foldable range (layout.h): scale after the dot. */
  fp4moe_recipe wide[FP4MOE_PHASES];
  fp4moe_schedule schedule[FP4MOE_SCHEDULES];
  uint32_t schedules;
} fp4moe_plan;

/* The schedule of a call, NULL: none was measured. */
static inline const fp4moe_schedule *fp4moe_plan_schedule(const fp4moe_plan *plan, size_t threads,
                                                          size_t tokens) {
  uint32_t bucket = (uint32_t)fp4moe_bucket(tokens);
  for (uint32_t i = 0; i < plan->schedules; i++)
    if (plan->schedule[i].threads == threads && plan->schedule[i].bucket == bucket)
      return &plan->schedule[i];
  return NULL;
}

/* A unit's panels are a multiple of this: gate and up together. */
static inline uint32_t fp4moe_panel_step(int phase, int gated) {
  return phase == FP4MOE_GATE_UP && gated ? 2u : 1u;
}

/* A linear (fp4moe_linear) is a layer of second matrices only, with this kind of activation: N is
 * its hidden, K its intermediate, and x enters at phase 2. */
enum { FP4MOE_LINEAR = 255 };

static inline int fp4moe_is_linear(const fp4moe_layer_desc *desc) {
  return (int)desc->activation.kind == FP4MOE_LINEAR;
}

/* The phase that x enters, and x's columns. */
static inline int fp4moe_first_phase(const fp4moe_layer_desc *desc) {
  return fp4moe_is_linear(desc) ? FP4MOE_DOWN : FP4MOE_GATE_UP;
}
static inline size_t fp4moe_x_columns(const fp4moe_layer_desc *desc) {
  return fp4moe_is_linear(desc) ? desc->intermediate : desc->hidden;
}

/* The recipe of an expert with `rows` rows in the call. */
static inline const fp4moe_recipe *fp4moe_plan_recipe(const fp4moe_plan *plan,
                                                      const fp4moe_record *record, int phase,
                                                      size_t rows) {
  uint32_t flag = phase == FP4MOE_DOWN ? FP4MOE_RECORD_WIDE_2 : FP4MOE_RECORD_WIDE_13;
  if (plan->act_class != FP4MOE_ACT_I8 && (record->flags & flag)) return &plan->wide[phase];
  return &plan->recipe[phase][fp4moe_bucket(rows)];
}

#endif
