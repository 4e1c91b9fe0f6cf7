/* act_avx2.c - act in AVX2: 8 columns a step, the bits of act_c.c (act_vector.h).
 *
 * VMINPS and VMAXPS return their second operand where the first is not strictly beyond it or one is
 * NaN, which is the comparison of the specification. */
#include "act.h"
#include "kernel.h"
#include "vector_avx2.h"

static inline vec sub(vec a, vec b) { return _mm256_sub_ps(a, b); }

static inline vec quotient(vec a, vec b) { return _mm256_div_ps(a, b); }

static inline vec fmsub(vec a, vec b, vec c) { return _mm256_fmsub_ps(a, b, c); }

/* -a * b + c */
static inline vec fnmadd(vec a, vec b, vec c) { return _mm256_fnmadd_ps(a, b, c); }

static inline vec minus(vec x) { return _mm256_xor_ps(x, set(-0.0f)); }

static inline vec magnitude(vec x) { return _mm256_andnot_ps(set(-0.0f), x); }

/* The magnitude x with the sign of y. */
static inline vec with_sign(vec x, vec y) { return _mm256_or_ps(x, _mm256_and_ps(y, set(-0.0f))); }

static inline vec at_most(vec x, float limit) { return _mm256_min_ps(set(limit), x); }

static inline vec at_least(vec x, float limit) { return _mm256_max_ps(set(limit), x); }

/* b where a < limit, else c. */
static inline vec below(vec a, float limit, vec b, vec c) {
  return _mm256_blendv_ps(c, b, _mm256_cmp_ps(a, set(limit), _CMP_LT_OQ));
}

/* 2^n, as fp4_pow2. */
static inline vec pow2(__m256i n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}

/* In two exact halves; where n is NaN, so is x, whatever its integer is. */
static inline vec scale(vec x, vec n) {
  const __m256i whole = _mm256_cvttps_epi32(n), half = _mm256_srai_epi32(whole, 1);
  return mul(mul(x, pow2(half)), pow2(_mm256_sub_epi32(whole, half)));
}

#include "act_vector.h"

ACT_ROWS(avx2)
