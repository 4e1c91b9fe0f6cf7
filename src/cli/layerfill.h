/* layerfill.h - layers of random weights, built through the public interface. */
#ifndef FP4MOE_LAYERFILL_H
#define FP4MOE_LAYERFILL_H

#include "library.h"
#include "measure.h"
#include "problem.h"

/* A finished layer of random codes, and scales that keep the outputs near 1; `seed` names it. */
fp4moe_layer *random_layer(fp4moe_context *context, const problem *p, uint64_t seed);

/* The same weights as a layer of `lib`, whose context it is; of a linear the handle of that. */
fp4moe_layer *random_layer_of(const library *lib, fp4moe_context *context, const problem *p,
                              uint64_t seed);

/* Block scales of weights with K columns, any layout: they keep a sum over K near 1 (NVFP4: with a
 * global of 1 / (5 sqrt K)). */
void random_scales(measure_rng *rng, fp4moe_format format, size_t k, uint8_t *scales, size_t n);

#endif
