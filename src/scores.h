/* scores.h - the scores of a block of logits, in FP32.
 *
 * Loops have a constant length and no branch, so that a compiler makes vectors of them at any
 * level; products and sums stay apart (no fused multiply-add, which a baseline CPU lacks), so the
 * bits are the same everywhere. e^x is wanted for x <= 0 only: within 2 ulp, 0 below -87.
 * ln(1 + t), 0 <= t <= 1, is 2 atanh(s) with s = t / (2 + t) <= 1/3: its series to s^15. */
#ifndef FP4MOE_SCORES_H
#define FP4MOE_SCORES_H

#include <math.h>

#include "act.h"
#include "fp4moe.h"

enum { FP4MOE_SCORES = 32 }; /* logits of a block */

#define SCORES_EXP_LOW  -87.0f
#define SCORES_LN2_HIGH 0x1.63p-1f /* 9 bits: its product with any exponent is exact */
#define SCORES_LN2_LOW  -0x1.bd0106p-13f

/* e^x for x <= 0; NaN for NaN. x = n ln2 + r as in act.h. */
static inline float fp4moe_exp_negative(float x) {
  float inside = x < SCORES_EXP_LOW ? SCORES_EXP_LOW : x;
  float shifted = inside * FP4_LOG2E + FP4_EXP_ROUND, n = shifted - FP4_EXP_ROUND;
  float r = inside - n * SCORES_LN2_HIGH - n * SCORES_LN2_LOW;
  float q = r * FP4_EXP_C6 + FP4_EXP_C5;
  q = q * r + FP4_EXP_C4;
  q = q * r + FP4_EXP_C3;
  q = q * r + FP4_EXP_C2;
  float power = fp4_f32_from_bits((fp4_f32_bits(shifted) << 23) + (127u << 23)); /* 2^n */
  float y = (1 + (r + r * r * q)) * power;
  return x < SCORES_EXP_LOW ? 0 : y;
}

static inline float fp4moe_log1p_unit(float t) {
  float s = t / (2 + t), z = s * s;
  float series = z * (1.0f / 15) + 1.0f / 13;
  series = series * z + 1.0f / 11;
  series = series * z + 1.0f / 9;
  series = series * z + 1.0f / 7;
  series = series * z + 1.0f / 5;
  series = series * z + 1.0f / 3;
  return 2 * (s + s * z * series);
}

static inline void fp4moe_exp_block(float max, float x[FP4MOE_SCORES]) {
  for (int i = 0; i < FP4MOE_SCORES; i++) x[i] = fp4moe_exp_negative(x[i] - max);
}

static inline void fp4moe_sigmoid_block(float x[FP4MOE_SCORES]) {
  for (int i = 0; i < FP4MOE_SCORES; i++) {
    float e = fp4moe_exp_negative(-fabsf(x[i]));
    float top = x[i] < 0 ? e : 1;
    x[i] = top / (1 + e);
  }
}

static inline void fp4moe_sqrt_softplus_block(float x[FP4MOE_SCORES]) {
  for (int i = 0; i < FP4MOE_SCORES; i++) {
    float above = x[i] > 0 ? x[i] : 0;
    x[i] = above + fp4moe_log1p_unit(fp4moe_exp_negative(-fabsf(x[i])));
  }
  for (int i = 0; i < FP4MOE_SCORES; i++) x[i] = sqrtf(x[i]);
}

#endif
