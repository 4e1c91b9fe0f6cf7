/* act_avx2.c - act in AVX2: half a panel's columns a step, the bits of act_c.c.
 *
 * Each function repeats the operations of act.h and act_c.c in their order. VMINPS and VMAXPS
 * return their second operand where the first is not strictly beyond it or one is NaN, which is
 * the comparison of the specification. 2^n comes in the same two exact halves. */
#include <immintrin.h>

#include "act.h"
#include "kernel.h"

static inline __m256 at_most(__m256 x, float limit) {
  return _mm256_min_ps(_mm256_set1_ps(limit), x);
}

static inline __m256 at_least(__m256 x, float limit) {
  return _mm256_max_ps(_mm256_set1_ps(limit), x);
}

/* 2^n of integers as fp4_pow2. */
static inline __m256 pow2(__m256i n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(n, _mm256_set1_epi32(127)), 23));
}

static inline __m256 expv(__m256 x) {
  const __m256 magic = _mm256_set1_ps(FP4_EXP_ROUND);
  x = at_least(at_most(x, FP4_EXP_HIGH), FP4_EXP_LOW);
  const __m256 n = _mm256_sub_ps(_mm256_fmadd_ps(x, _mm256_set1_ps(FP4_LOG2E), magic), magic);
  __m256 r = _mm256_fmadd_ps(n, _mm256_set1_ps(-FP4_LN2_HIGH), x);
  r = _mm256_fmadd_ps(n, _mm256_set1_ps(-FP4_LN2_LOW), r);
  __m256 q = _mm256_fmadd_ps(r, _mm256_set1_ps(FP4_EXP_C6), _mm256_set1_ps(FP4_EXP_C5));
  q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(FP4_EXP_C4));
  q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(FP4_EXP_C3));
  q = _mm256_fmadd_ps(q, r, _mm256_set1_ps(FP4_EXP_C2));
  const __m256 p = _mm256_add_ps(_mm256_set1_ps(1), _mm256_fmadd_ps(_mm256_mul_ps(r, r), q, r));
  const __m256i whole = _mm256_cvttps_epi32(n); /* of NaN: p is NaN whatever this is */
  const __m256i half = _mm256_srai_epi32(whole, 1);
  return _mm256_mul_ps(_mm256_mul_ps(p, pow2(half)), pow2(_mm256_sub_epi32(whole, half)));
}

static inline __m256 sigmoid(__m256 x) {
  const __m256 one = _mm256_set1_ps(1), minus = _mm256_set1_ps(-0.0f);
  return _mm256_div_ps(one, _mm256_add_ps(one, expv(_mm256_xor_ps(x, minus))));
}

/* The sums of 8 columns of acc with their scale and bias. */
static inline __m256 input(const fp4moe_act_args *a, float scale, size_t r, size_t column) {
  const __m256 sum = _mm256_load_ps(a->acc + r * a->acc_stride + column);
  if (!a->bias) return _mm256_mul_ps(sum, _mm256_set1_ps(scale));
  return _mm256_fmadd_ps(sum, _mm256_set1_ps(scale), _mm256_load_ps(a->bias + column));
}

static inline __m256 silu(const fp4moe_act_args *a, __m256 g, __m256 u) {
  g = at_most(g, a->limit);
  u = at_least(at_most(u, a->limit), -a->limit);
  return _mm256_mul_ps(_mm256_mul_ps(g, sigmoid(g)), u);
}

static inline __m256 swiglu_oai(const fp4moe_act_args *a, __m256 g, __m256 u) {
  g = at_most(g, a->limit);
  u = at_least(at_most(u, a->limit), -a->limit);
  u = _mm256_mul_ps(_mm256_add_ps(u, _mm256_set1_ps(a->beta)), g);
  return _mm256_mul_ps(u, sigmoid(_mm256_mul_ps(_mm256_set1_ps(a->alpha), g)));
}

static inline __m256 silu_unary(const fp4moe_act_args *a, __m256 x) {
  x = at_most(x, a->limit);
  return _mm256_mul_ps(x, sigmoid(x));
}

static inline __m256 relu2(const fp4moe_act_args *a, __m256 x) {
  (void)a;
  x = at_least(x, 0);
  return _mm256_mul_ps(x, x);
}

/* Columns [c, c + 8) of h are at c % 16 of the panels that acc has for c / 16. */
static inline void gated(const fp4moe_act_args *a,
                         __m256 (*f)(const fp4moe_act_args *, __m256, __m256)) {
  for (size_t r = 0; r < a->m; r++)
    for (size_t c = 0; c < a->panels * FP4MOE_PANEL; c += 8) {
      const size_t gate = c / FP4MOE_PANEL * FP4MOE_PANEL + c, up = gate + FP4MOE_PANEL;
      _mm256_store_ps(a->h + r * a->h_stride + c,
                      f(a, input(a, a->gate_scale, r, gate), input(a, a->up_scale, r, up)));
    }
}

static inline void ungated(const fp4moe_act_args *a, __m256 (*f)(const fp4moe_act_args *, __m256)) {
  for (size_t r = 0; r < a->m; r++)
    for (size_t c = 0; c < a->panels * FP4MOE_PANEL; c += 8)
      _mm256_store_ps(a->h + r * a->h_stride + c, f(a, input(a, a->up_scale, r, c)));
}

void fp4moe_act_silu_avx2(const fp4moe_act_args *a) { gated(a, silu); }

void fp4moe_act_swiglu_oai_avx2(const fp4moe_act_args *a) { gated(a, swiglu_oai); }

void fp4moe_act_silu_unary_avx2(const fp4moe_act_args *a) { ungated(a, silu_unary); }

void fp4moe_act_relu2_avx2(const fp4moe_act_args *a) { ungated(a, relu2); }
