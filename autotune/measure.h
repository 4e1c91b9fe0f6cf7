/* measure.h - the one clock, the one set of statistics and the one source of random inputs.
 *
 * Bench and tuner use these and no others, so that their figures compare. The clock is the
 * library's own, fp4moe_now_ns: CLOCK_MONOTONIC. Draws are deterministic: the same seed gives the
 * same weights, tokens and routing on every host. */
#ifndef FP4MOE_MEASURE_H
#define FP4MOE_MEASURE_H

#include <stddef.h>
#include <stdint.h>

#include "pool.h"

typedef struct measure_summary {
  double min, q1, median, q3;
} measure_summary;

/* Sorts samples[n], n >= 1, and sums them up; quartiles are interpolated. */
measure_summary measure_summarise(double *samples, size_t n);

typedef struct measure_rng {
  uint64_t state; /* any seed */
} measure_rng;

uint64_t measure_random(measure_rng *rng);
double measure_uniform(measure_rng *rng); /* [0, 1) */
void measure_random_bytes(measure_rng *rng, void *bytes, size_t n);

/* x[n]: BF16, mean 0, variance 1, within +-3.5. */
void measure_random_bf16(measure_rng *rng, uint16_t *x, size_t n);

/* One router draw: for each token top_k distinct experts (top_k <= experts), each as likely, and
 * positive weights of sum 1. ids and weights: [tokens][top_k]. */
void measure_random_routing(measure_rng *rng, size_t tokens, size_t top_k, size_t experts,
                            int32_t *ids, float *weights);

#endif
