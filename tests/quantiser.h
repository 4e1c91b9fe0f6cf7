/* quantiser.h - the quantisers of the classes once more, in double and by definition.
 *
 * They share no code with the library. Rounding to a few bits is made of ldexp and rint; where the
 * definition rounds a step to FP32, so do they. A nudge moves what is rounded: an element that two
 * nudges take to different values is near a tie. */
#ifndef FP4MOE_QUANTISER_H
#define FP4MOE_QUANTISER_H

#include "kernel.h"

/* `value` is added to the elements, in units of the element where the step of rounding goes with it
 * and of the block's maximum in int8; `scale` to the maximum, in its units, before the block's
 * scale is chosen. */
typedef struct nudge {
  double value, scale;
} nudge;

/* x^ of x[n], n a multiple of 16, each x taken as FP32; nvfp4: x^ times G. A block of mxfp8 or
 * nvfp4 with NaN or Inf becomes NaN. */
void reference_quantise(fp4moe_act_class act, float inverse, size_t n, const double *x, nudge by,
                        double *to);

/* nvfp4's G of a row by its own maximum. */
float reference_dynamic_inverse(size_t n, const double *x);

#endif
