/* measure.c - statistics and random draws (measure.h). The generator is splitmix64: one word of
 * state, so a draw is named by one number. */
#include <stdlib.h>
#include <string.h>

#include "fp4.h"
#include "measure.h"

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Value at share q of the sorted samples. */
static double quantile(const double *sorted, size_t n, double q) {
  double at = q * (double)(n - 1);
  size_t below = (size_t)at, above = below + 1 < n ? below + 1 : below;
  return sorted[below] + (at - (double)below) * (sorted[above] - sorted[below]);
}

measure_summary measure_summarise(double *samples, size_t n) {
  qsort(samples, n, sizeof *samples, compare);
  return (measure_summary){.min = samples[0],
                           .q1 = quantile(samples, n, 0.25),
                           .median = quantile(samples, n, 0.5),
                           .q3 = quantile(samples, n, 0.75)};
}

uint64_t measure_random(measure_rng *rng) {
  uint64_t z = rng->state += UINT64_C(0x9e3779b97f4a7c15);
  z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
  return z ^ z >> 31;
}

double measure_uniform(measure_rng *rng) { return (double)(measure_random(rng) >> 11) * 0x1p-53; }

void measure_random_bytes(measure_rng *rng, void *bytes, size_t n) {
  uint8_t *to = bytes;
  for (size_t i = 0; i < n; i += 8) {
    uint64_t word = measure_random(rng);
    memcpy(to + i, &word, n - i < 8 ? n - i : 8);
  }
}

void measure_random_bf16(measure_rng *rng, uint16_t *x, size_t n) {
  for (size_t i = 0; i < n; i++) { /* four uniform 16-bit words: near normal, variance 4/12 */
    uint64_t word = measure_random(rng);
    double sum = 0;
    for (int j = 0; j < 4; j++) sum += (double)(word >> 16 * j & 0xffff) / 65536 - 0.5;
    x[i] = fp4_to_bf16((float)(sum * 1.7320508075688772));
  }
}

static int among(const int32_t *ids, size_t n, int32_t id) {
  while (n-- > 0)
    if (ids[n] == id) return 1;
  return 0;
}

void measure_random_routing(measure_rng *rng, size_t tokens, size_t top_k, size_t experts,
                            int32_t *ids, float *weights) {
  for (size_t t = 0; t < tokens; t++, ids += top_k, weights += top_k) {
    float sum = 0;
    for (size_t j = 0; j < top_k; j++) {
      do ids[j] = (int32_t)(measure_random(rng) % experts);
      while (among(ids, j, ids[j]));
      weights[j] = 0.1f + (float)measure_uniform(rng);
      sum += weights[j];
    }
    for (size_t j = 0; j < top_k; j++) weights[j] /= sum;
  }
}
