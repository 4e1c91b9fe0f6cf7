/* random_layer.h - random layers in checkpoint form and what they compute in double precision.
 *
 * The reference decodes every weight exactly and sums in double; it shares no code with the
 * library but the scalar format definitions of fp4.h. */
#ifndef FP4MOE_RANDOM_LAYER_H
#define FP4MOE_RANDOM_LAYER_H

#include "layer.h"

/* What random_layer_compare gets wrong, to see that a comparison would notice. */
typedef enum random_fault {
  FAULT_NONE = 0,
  FAULT_SWAPPED,       /* gate for up and up for gate */
  FAULT_CLAMPED_FIRST, /* limits before silu instead of after it, or after instead of before */
  FAULT_BOTH_SIDES,    /* the gate is limited below too */
  FAULT_NO_LIMIT,
  FAULT_NO_ALPHA,
  FAULT_NO_BETA,
  FAULT_NO_LINEAR_BETA,
  FAULT_OTHER_GELU, /* erf for tanh, tanh for erf */
  FAULT_GATED       /* x times the function of x */
} random_fault;

typedef struct random_layer {
  fp4moe_layer_desc desc;
  int biases;
  random_fault fault; /* of the reference; a new layer has none */
  /* Per projection 0 gate, 1 up, 2 down: [E][N][K/2], [E][N][K/group], [E], [E][N]. */
  uint8_t *codes[3], *scales[3];
  float *global[3], *bias[3];
  float *input_scale[3]; /* [E]; class NVFP4 with the layer's global: its maxima are in desc */
  size_t n[3], k[3], group;
} random_layer;

/* Random codes; scales from `scale` of (projection, expert, row, block), NULL: moderate ones. */
typedef uint8_t random_scale_fn(const random_layer *m, int projection, size_t block);
random_layer *random_layer_new(const fp4moe_layer_desc *desc, int biases, random_scale_fn *scale);
void random_layer_free(random_layer *m);

/* The same weights as a layer of the library. */
fp4moe_status random_layer_open(const random_layer *m, fp4moe_context *ctx, fp4moe_layer **layer);
fp4moe_expert_weights random_layer_expert(const random_layer *m, size_t e);

/* y [N] of one projection in double, bias included, from x [K] through the class's quantiser. */
void random_layer_project(const random_layer *m, int projection, size_t e, const float *x,
                          double *y);

/* The weights of a finished layer: restored from its records. */
random_layer *random_layer_restore(const fp4moe_layer *layer);

/* How far y [tokens][H] is from what double precision makes of x [tokens][H], with the class's
 * quantisers before both matmuls; id -1 adds nothing. Elements of h within TIE_WINDOW (quantiser.h
 * has its units) of a rounding tie may be on either side of it, and so may block scales. */
#define TIE_WINDOW 1e-5
typedef struct closeness {
  double rel_l2;
  size_t elements, ties; /* of h that were quantised; of them near a tie */
} closeness;
closeness random_layer_compare(const random_layer *m, size_t tokens, size_t top_k, const float *x,
                               const int32_t *ids, const float *weights, const float *y);

/* sqrt(sum (a-b)^2 / sum b^2). */
double rel_l2(size_t n, const float *a, const double *b);

#endif
