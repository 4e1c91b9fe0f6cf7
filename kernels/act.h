/* act.h - exp, sigmoid, tanh and gelu of the activations: one polynomial each, one order of
 * operations.
 *
 * exp, tanh and gelu are within 2 ulp of the true function everywhere (measured: 1.0, 1.42, 1.76),
 * NaN for NaN; polynomials are minimax. A vector form repeats these operations, each fused where
 * this one is, and has the same bits. */
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

/* e^r - 1 for |r| <= ln2 / 2. */
static inline float fp4_expm1_small(float r) {
  float q = fmaf(r, FP4_EXP_C6, FP4_EXP_C5);
  q = fmaf(q, r, FP4_EXP_C4);
  q = fmaf(q, r, FP4_EXP_C3);
  q = fmaf(q, r, FP4_EXP_C2);
  return fmaf(r * r, q, r);
}

/* x 2^n in two exact halves, so that the result rounds once. */
static inline float fp4_scale(float x, float n) {
  int half = (int)n / 2;
  return x * fp4_pow2(half) * fp4_pow2((int)n - half);
}

/* e^x, x = n ln2 + r: infinite from 88.73 up, gradually subnormal and then 0 below -87.34. */
static inline float fp4_expf(float x) {
  x = x > FP4_EXP_HIGH ? FP4_EXP_HIGH : x;
  x = x < FP4_EXP_LOW ? FP4_EXP_LOW : x;
  if (x != x) return x;
  float n = fmaf(x, FP4_LOG2E, FP4_EXP_ROUND) - FP4_EXP_ROUND;
  float r = fmaf(n, -FP4_LN2_LOW, fmaf(n, -FP4_LN2_HIGH, x));
  return fp4_scale(1 + fp4_expm1_small(r), n);
}

static inline float fp4_sigmoidf(float x) { return 1 / (1 + fp4_expf(-x)); }

/* c[0] + c[1] x + ... */
static inline float fp4_poly(float x, const float *c, int degree) {
  float y = c[degree];
  while (degree--) y = fmaf(y, x, c[degree]);
  return y;
}

/* ---- tanh: x + x^3 p(x^2) below FP4_TANH_NEAR, else 1 - 2 / (e^2x + 1) ---- */

#define FP4_TANH_NEAR   0.55f
#define FP4_TANH_ONE    10.0f /* tanh is 1 here and above */
#define FP4_TANH_DEGREE 3
static const float fp4_tanh_near[] = {-0x1.55545ap-2f, 0x1.10d01ap-3f, -0x1.af96aap-5f,
                                      0x1.0da90cp-6f};

static inline float fp4_tanhf(float x) {
  float a = fabsf(x), y;
  a = a > FP4_TANH_ONE ? FP4_TANH_ONE : a;
  if (a < FP4_TANH_NEAR) {
    float s = a * a;
    y = fmaf(a * s, fp4_poly(s, fp4_tanh_near, FP4_TANH_DEGREE), a);
  } else {
    y = 1 - 2 / (fp4_expf(a + a) + 1);
  }
  return copysignf(y, x);
}

/* ---- gelu: max(x, 0) - a P(-a), a = |x|, P the normal distribution ----
 *
 * Nothing cancels: the difference is at least half of x, and for x < 0 it is the second term. Near
 * 0, a P(-a) = a (1/2 - a p(a^2)). Farther out it is e^(-a^2/2) v q(v - FP4_GELU_CENTRE) with v =
 * a / (a + 2). Where a rounding would show, what it left is carried along as name_low. */

#define FP4_GELU_NEAR        0.5f
#define FP4_GELU_ZERO        15.0f /* a P(-a) is 0 here and above */
#define FP4_GELU_CENTRE      0.62109375f
#define FP4_GELU_NEAR_DEGREE 3
#define FP4_GELU_FAR_DEGREE  7
#define FP4_GELU_FAR_0       0x1.304e88p-1f
static const float fp4_gelu_near[] = {0x1.988452p-2f, -0x1.105748p-4f, 0x1.466904p-7f,
                                      -0x1.2662eap-10f};
static const float fp4_gelu_far[] = {/* (q(t) - q(0)) / t */
                                     -0x1.3e9cd2p-1f, 0x1.bc9766p-3f,  0x1.054758p-2f,
                                     -0x1.3de84ap-3f, -0x1.0005aap-2f, 0x1.8849dap-5f,
                                     0x1.1628a8p-2f,  0x1.40f6fep-3f};

static inline float fp4_gelu_nearf(float a) {
  float p = fp4_poly(a * a, fp4_gelu_near, FP4_GELU_NEAR_DEGREE);
  float half = fmaf(-a, p, 0.5f), half_low = fmaf(-a, p, 0.5f - half);
  return fmaf(a, half, a * half_low);
}

static inline float fp4_gelu_farf(float a) {
  float d = a + 2, b = d - a, d_low = (a - (d - b)) + (2 - b);
  float v = a / d, v_low = fmaf(-v, d_low, fmaf(-v, d, a)) * fmaf(-0.5f, v, 0.5f);
  float t = v - FP4_GELU_CENTRE, k = fp4_poly(t, fp4_gelu_far, FP4_GELU_FAR_DEGREE);
  float q = fmaf(k, t, FP4_GELU_FAR_0);
  float q_low = fmaf(k, v_low, fmaf(k, t, FP4_GELU_FAR_0 - q));
  float f = v * q, f_low = fmaf(v, q, -f) + fmaf(v_low, q, v * q_low);
  float s = a * a, x = -0.5f * s, x_low = -0.5f * fmaf(a, a, -s);
  float n = fmaf(x, FP4_LOG2E, FP4_EXP_ROUND) - FP4_EXP_ROUND;
  float e = fp4_expm1_small(fmaf(n, -FP4_LN2_LOW, fmaf(n, -FP4_LN2_HIGH, x)) + x_low);
  return fp4_scale(f + fmaf(f, e, fmaf(f_low, e, f_low)), n);
}

static inline float fp4_geluf(float x) {
  if (x != x) return x;
  float a = fabsf(x);
  a = a > FP4_GELU_ZERO ? FP4_GELU_ZERO : a;
  return (x < 0 ? 0 : x) - (a < FP4_GELU_NEAR ? fp4_gelu_nearf(a) : fp4_gelu_farf(a));
}

/* x (1 + tanh(z)) / 2 = x sigmoid(2z), z = sqrt(2/pi) (x + 0.044715 x^3). */
#define FP4_GELU_TANH_1 1.5957691216057308f
#define FP4_GELU_TANH_3 0.071354816272599f

static inline float fp4_gelu_tanhf(float x) {
  return x * fp4_sigmoidf(x * fmaf(x * x, FP4_GELU_TANH_3, FP4_GELU_TANH_1));
}

#endif
