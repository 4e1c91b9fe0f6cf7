/* act_neon.c - act in NEON: 4 columns a step, the bits of act_c.c (act_vector.h).
 *
 * Limits are a comparison and a choice, as in the specification: FMIN and FMAX are another thing
 * for NaN and for zeros. */
#include "act.h"
#include "kernel.h"
#include "vector_neon.h"

static inline vec sub(vec a, vec b) { return vsubq_f32(a, b); }

static inline vec quotient(vec a, vec b) { return vdivq_f32(a, b); }

static inline vec minus(vec x) { return vnegq_f32(x); }

static inline vec magnitude(vec x) { return vabsq_f32(x); }

static inline vec fmsub(vec a, vec b, vec c) { return vfmaq_f32(minus(c), a, b); }

/* -a * b + c */
static inline vec fnmadd(vec a, vec b, vec c) { return vfmsq_f32(c, a, b); }

/* The magnitude x with the sign of y. */
static inline vec with_sign(vec x, vec y) { return vbslq_f32(vdupq_n_u32(0x7fffffff), x, y); }

/* b where a < limit, else c. */
static inline vec below(vec a, float limit, vec b, vec c) {
  return vbslq_f32(vcltq_f32(a, set(limit)), b, c);
}

static inline vec at_most(vec x, float limit) {
  return vbslq_f32(vcgtq_f32(x, set(limit)), set(limit), x);
}

static inline vec at_least(vec x, float limit) { return below(x, limit, set(limit), x); }

/* 2^n, as fp4_pow2. */
static inline vec pow2(int32x4_t n) {
  return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n, vdupq_n_s32(127)), 23));
}

/* In two exact halves; where n is NaN, so is x, whatever its integer is. */
static inline vec scale(vec x, vec n) {
  const int32x4_t whole = vcvtq_s32_f32(n), half = vshrq_n_s32(whole, 1);
  return mul(mul(x, pow2(half)), pow2(vsubq_s32(whole, half)));
}

#include "act_vector.h"

ACT_ROWS(neon)
