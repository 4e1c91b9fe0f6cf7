/* layerfill.h - layers of random weights, built through the public interface. */
#ifndef FP4MOE_LAYERFILL_H
#define FP4MOE_LAYERFILL_H

#include "problem.h"

/* A finished layer of random codes, and scales that keep the outputs near 1; `seed` names it. */
fp4moe_layer *random_layer(fp4moe_context *context, const problem *p, uint64_t seed);

#endif
