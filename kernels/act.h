/* act.h - exp and sigmoid of the activations: one polynomial, one order of operations.
 *
 * exp is within 2 ulp of the true function everywhere: infinite from 88.73 up, gradually subnormal
 * and then 0 below -87.34, NaN for NaN. x = n ln2 + r with |r| <= ln2 / 2; e^r = 1 + (r + r^2
 * q(r)), q minimax of degree 4; 2^n in two exact halves, so that the result rounds once. A vector
 * form repeats these operations, each fused where this one is, and has the same bits. */
#ifndef FP4MOE_ACT_FUNCTIONS_H
#define FP4MOE_ACT_FUNCTIONS_H

#include <math.h>

#include "fp4.h"

#define FP4_EXP_HIGH  89.0f   /* e^x is infinite here and above */
#define FP4_EXP_LOW   -104.0f /* and 0 here and below */
#define FP4_LOG2E     0x1.715476p+0f
#define FP4_LN2_HIGH  0x1.62e43p-1f /* ln2 = high + low */
#define FP4_LN2_LOW   -0x1.05c61p-29f
#define FP4_EXP_ROUND 0x1.8p23f /* adding it leaves the nearest integer in the low bits */
#define FP4_EXP_C2    0x1.fffffcp-2f
#define FP4_EXP_C3    0x1.55549p-3f
#define FP4_EXP_C4    0x1.5558f4p-5f
#define FP4_EXP_C5    0x1.123a6cp-7f
#define FP4_EXP_C6    0x1.6a2352p-10f

/* 2^n for -126 <= n <= 127. */
static inline float fp4_pow2(int n) { return fp4_f32_from_bits((uint32_t)(n + 127) << 23); }

static inline float fp4_expf(float x) {
  x = x > FP4_EXP_HIGH ? FP4_EXP_HIGH : x;
  x = x < FP4_EXP_LOW ? FP4_EXP_LOW : x;
  if (x != x) return x;
  float n = fmaf(x, FP4_LOG2E, FP4_EXP_ROUND) - FP4_EXP_ROUND;
  float r = fmaf(n, -FP4_LN2_LOW, fmaf(n, -FP4_LN2_HIGH, x));
  float q = fmaf(r, FP4_EXP_C6, FP4_EXP_C5);
  q = fmaf(q, r, FP4_EXP_C4);
  q = fmaf(q, r, FP4_EXP_C3);
  q = fmaf(q, r, FP4_EXP_C2);
  float p = 1 + fmaf(r * r, q, r);
  int half = (int)n / 2;
  return p * fp4_pow2(half) * fp4_pow2((int)n - half);
}

static inline float fp4_sigmoidf(float x) { return 1 / (1 + fp4_expf(-x)); }

#endif
