/* act_avx512.c - act in AVX-512: a panel's 16 columns a step, the bits of act_c.c.
 *
 * Each function repeats the operations of act.h and act_c.c in their order. VMINPS and VMAXPS
 * return their second operand where the first is not strictly beyond it or one is NaN, which is
 * the comparison of the specification. VSCALEFPS rounds once, as the two exact halves do there. */
#include <immintrin.h>

#include "act.h"
#include "kernel.h"

static inline __m512 at_most(__m512 x, float limit) {
  return _mm512_min_ps(_mm512_set1_ps(limit), x);
}

static inline __m512 at_least(__m512 x, float limit) {
  return _mm512_max_ps(_mm512_set1_ps(limit), x);
}

static inline __m512 expv(__m512 x) {
  const __m512 magic = _mm512_set1_ps(FP4_EXP_ROUND);
  x = at_least(at_most(x, FP4_EXP_HIGH), FP4_EXP_LOW);
  __m512 n = _mm512_sub_ps(_mm512_fmadd_ps(x, _mm512_set1_ps(FP4_LOG2E), magic), magic);
  __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(-FP4_LN2_HIGH), x);
  r = _mm512_fmadd_ps(n, _mm512_set1_ps(-FP4_LN2_LOW), r);
  __m512 q = _mm512_fmadd_ps(r, _mm512_set1_ps(FP4_EXP_C6), _mm512_set1_ps(FP4_EXP_C5));
  q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(FP4_EXP_C4));
  q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(FP4_EXP_C3));
  q = _mm512_fmadd_ps(q, r, _mm512_set1_ps(FP4_EXP_C2));
  __m512 p = _mm512_fmadd_ps(_mm512_mul_ps(r, r), q, r);
  return _mm512_scalef_ps(_mm512_add_ps(_mm512_set1_ps(1), p), n);
}

static inline __m512 sigmoid(__m512 x) {
  const __m512 one = _mm512_set1_ps(1), minus = _mm512_set1_ps(-0.0f);
  return _mm512_div_ps(one, _mm512_add_ps(one, expv(_mm512_xor_ps(x, minus))));
}

/* The sums of one panel of acc, 16 columns, with their scale and bias. */
static inline __m512 input(const fp4moe_act_args *a, float scale, size_t r, size_t p) {
  const __m512 sum = _mm512_load_ps(a->acc + r * a->acc_stride + p * FP4MOE_PANEL);
  if (!a->bias) return _mm512_mul_ps(sum, _mm512_set1_ps(scale));
  return _mm512_fmadd_ps(sum, _mm512_set1_ps(scale), _mm512_load_ps(a->bias + p * FP4MOE_PANEL));
}

static inline __m512 silu(const fp4moe_act_args *a, __m512 g, __m512 u) {
  g = at_most(g, a->limit);
  u = at_least(at_most(u, a->limit), -a->limit);
  return _mm512_mul_ps(_mm512_mul_ps(g, sigmoid(g)), u);
}

static inline __m512 swiglu_oai(const fp4moe_act_args *a, __m512 g, __m512 u) {
  g = at_most(g, a->limit);
  u = at_least(at_most(u, a->limit), -a->limit);
  u = _mm512_mul_ps(_mm512_add_ps(u, _mm512_set1_ps(a->beta)), g);
  return _mm512_mul_ps(u, sigmoid(_mm512_mul_ps(_mm512_set1_ps(a->alpha), g)));
}

static inline __m512 silu_unary(const fp4moe_act_args *a, __m512 x) {
  x = at_most(x, a->limit);
  return _mm512_mul_ps(x, sigmoid(x));
}

static inline __m512 relu2(const fp4moe_act_args *a, __m512 x) {
  (void)a;
  x = at_least(x, 0);
  return _mm512_mul_ps(x, x);
}

static inline void gated(const fp4moe_act_args *a,
                         __m512 (*f)(const fp4moe_act_args *, __m512, __m512)) {
  for (size_t r = 0; r < a->m; r++)
    for (size_t p = 0; p < a->panels; p++)
      _mm512_store_ps(a->h + r * a->h_stride + p * FP4MOE_PANEL,
                      f(a, input(a, a->gate_scale, r, 2 * p), input(a, a->up_scale, r, 2 * p + 1)));
}

static inline void ungated(const fp4moe_act_args *a, __m512 (*f)(const fp4moe_act_args *, __m512)) {
  for (size_t r = 0; r < a->m; r++)
    for (size_t p = 0; p < a->panels; p++)
      _mm512_store_ps(a->h + r * a->h_stride + p * FP4MOE_PANEL, f(a, input(a, a->up_scale, r, p)));
}

void fp4moe_act_silu_avx512(const fp4moe_act_args *a) { gated(a, silu); }

void fp4moe_act_swiglu_oai_avx512(const fp4moe_act_args *a) { gated(a, swiglu_oai); }

void fp4moe_act_silu_unary_avx512(const fp4moe_act_args *a) { ungated(a, silu_unary); }

void fp4moe_act_relu2_avx512(const fp4moe_act_args *a) { ungated(a, relu2); }
