/* trial.h - calls with random tokens and random routing: what bench times, and run without an
 * input. Also the measure of error between two results. */
#ifndef FP4MOE_TRIAL_H
#define FP4MOE_TRIAL_H

#include "library.h"
#include "routing.h"

typedef struct trial {
  size_t tokens, top_k, experts;
  size_t columns, hidden; /* of x; of y */
  int linear;             /* calls a linear's handle, not a layer's */
  size_t y_rows;          /* rows of y for a token: of a linear top_k, of a layer 1 */
  uint16_t *x;            /* BF16 [tokens][columns] */
  uint16_t *y;            /* BF16 [tokens][y_rows][hidden] */
  int32_t *ids;
  float *weights;
  measure_rng rng;
  routing routing; /* of its draws */
} trial;

/* Room for up to `tokens` tokens; x is drawn once. */
void trial_init(trial *t, const fp4moe_layer_desc *desc, size_t tokens, size_t top_k,
                uint64_t seed);
void trial_free(trial *t);

/* A fresh draw for the next call. */
void trial_draw(trial *t, size_t tokens);

/* The call of the present draw, BF16 in and out; through a linear as an indexed one. Of the library
 * whose layer it is. */
fp4moe_batch trial_batch(const trial *t, fp4moe_stats *stats);
fp4moe_status trial_run(const trial *t, const library *lib, fp4moe_layer *layer,
                        const fp4moe_batch *batch, void *workspace, size_t workspace_bytes);

/* A batch through a linear's handle. */
fp4moe_status linear_run(const library *lib, fp4moe_layer *linear, const fp4moe_batch *batch,
                         void *workspace, size_t workspace_bytes);

typedef struct difference {
  double rel_l2;  /* |y - ref| / |ref|; NaN where either has one */
  double max_abs; /* largest |y - ref| */
} difference;
difference compare(const float *y, const float *ref, size_t n);

/* Runs the present draw with an FP32 output, compares sampled tokens with the C rows of class f32,
 * and writes the names of the kernels that served it (comma-separated) if cap > 0. */
difference trial_check(const trial *t, fp4moe_layer *layer, void *workspace, size_t workspace_bytes,
                       char *kernels, size_t cap);

/* The same comparison for a layer of another library, whose weights are those of `layer`. */
difference trial_check_other(const trial *t, const library *lib, fp4moe_layer *other,
                             fp4moe_layer *layer, void *workspace, size_t workspace_bytes);

/* Workspace for calls of this trial. */
size_t trial_workspace_bytes(const trial *t, const library *lib, const fp4moe_layer *layer);

#endif
