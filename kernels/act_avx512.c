/* act_avx512.c - act in AVX-512: a panel's 16 columns a step, the bits of act_c.c.
 *
 * Each function repeats the operations of act.h and act_c.c in their order; where those branch,
 * both sides are computed and blended. VMINPS and VMAXPS return their second operand where the
 * first is not strictly beyond it or one is NaN, which is the comparison of the specification.
 * VSCALEFPS rounds once, as the two exact halves do there. */
#include <immintrin.h>

#include "act.h"
#include "kernel.h"

static inline __m512 set(float x) { return _mm512_set1_ps(x); }

static inline __m512 add(__m512 a, __m512 b) { return _mm512_add_ps(a, b); }

static inline __m512 sub(__m512 a, __m512 b) { return _mm512_sub_ps(a, b); }

static inline __m512 mul(__m512 a, __m512 b) { return _mm512_mul_ps(a, b); }

static inline __m512 fmadd(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(a, b, c); }

/* -a * b + c */
static inline __m512 fnmadd(__m512 a, __m512 b, __m512 c) { return _mm512_fnmadd_ps(a, b, c); }

static inline __m512 at_most(__m512 x, float limit) { return _mm512_min_ps(set(limit), x); }

static inline __m512 at_least(__m512 x, float limit) { return _mm512_max_ps(set(limit), x); }

static inline __m512 clamp(__m512 x, float limit) { return at_least(at_most(x, limit), -limit); }

/* b where a < limit, else c. */
static inline __m512 below(__m512 a, float limit, __m512 b, __m512 c) {
  return _mm512_mask_mov_ps(c, _mm512_cmp_ps_mask(a, set(limit), _CMP_LT_OQ), b);
}

static inline __m512 poly(__m512 x, const float *c, int degree) {
  __m512 y = set(c[degree]);
  for (int i = degree; i-- > 0;) y = fmadd(y, x, set(c[i]));
  return y;
}

static inline __m512 expm1_small(__m512 r) {
  __m512 q = fmadd(r, set(FP4_EXP_C6), set(FP4_EXP_C5));
  q = fmadd(q, r, set(FP4_EXP_C4));
  q = fmadd(q, r, set(FP4_EXP_C3));
  q = fmadd(q, r, set(FP4_EXP_C2));
  return fmadd(mul(r, r), q, r);
}

/* n of x = n ln2 + r, and r. */
static inline __m512 reduce(__m512 x, __m512 *r) {
  const __m512 round = set(FP4_EXP_ROUND);
  __m512 n = sub(fmadd(x, set(FP4_LOG2E), round), round);
  *r = fmadd(n, set(-FP4_LN2_LOW), fmadd(n, set(-FP4_LN2_HIGH), x));
  return n;
}

static inline __m512 expv(__m512 x) {
  __m512 r, n = reduce(at_least(at_most(x, FP4_EXP_HIGH), FP4_EXP_LOW), &r);
  return _mm512_scalef_ps(add(set(1), expm1_small(r)), n);
}

static inline __m512 sigmoid(__m512 x) {
  return _mm512_div_ps(set(1), add(set(1), expv(_mm512_xor_ps(x, set(-0.0f)))));
}

static inline __m512 tanhv(__m512 x) {
  const __m512 sign = _mm512_and_ps(x, set(-0.0f));
  __m512 a = at_most(_mm512_abs_ps(x), FP4_TANH_ONE), s = mul(a, a);
  __m512 near = fmadd(mul(a, s), poly(s, fp4_tanh_near, FP4_TANH_DEGREE), a);
  __m512 far = sub(set(1), _mm512_div_ps(set(2), add(expv(add(a, a)), set(1))));
  return _mm512_or_ps(below(a, FP4_TANH_NEAR, near, far), sign);
}

static inline __m512 gelu_near(__m512 a) {
  __m512 p = poly(mul(a, a), fp4_gelu_near, FP4_GELU_NEAR_DEGREE);
  __m512 half = fnmadd(a, p, set(0.5f)), half_low = fnmadd(a, p, sub(set(0.5f), half));
  return fmadd(a, half, mul(a, half_low));
}

static inline __m512 gelu_far(__m512 a) {
  __m512 d = add(a, set(2)), b = sub(d, a), d_low = add(sub(a, sub(d, b)), sub(set(2), b));
  __m512 v = _mm512_div_ps(a, d);
  __m512 v_low = mul(fnmadd(v, d_low, fnmadd(v, d, a)), fmadd(set(-0.5f), v, set(0.5f)));
  __m512 t = sub(v, set(FP4_GELU_CENTRE)), k = poly(t, fp4_gelu_far, FP4_GELU_FAR_DEGREE);
  __m512 q = fmadd(k, t, set(FP4_GELU_FAR_0));
  __m512 q_low = fmadd(k, v_low, fmadd(k, t, sub(set(FP4_GELU_FAR_0), q)));
  __m512 f = mul(v, q), f_low = add(_mm512_fmsub_ps(v, q, f), fmadd(v_low, q, mul(v, q_low)));
  __m512 s = mul(a, a), x = mul(set(-0.5f), s), x_low = mul(set(-0.5f), _mm512_fmsub_ps(a, a, s));
  __m512 r, n = reduce(x, &r), e = expm1_small(add(r, x_low));
  return _mm512_scalef_ps(add(f, fmadd(f, e, fmadd(f_low, e, f_low))), n);
}

static inline __m512 geluv(__m512 x) {
  __m512 a = at_most(_mm512_abs_ps(x), FP4_GELU_ZERO);
  return sub(at_least(x, 0), below(a, FP4_GELU_NEAR, gelu_near(a), gelu_far(a)));
}

static inline __m512 gelu_tanhv(__m512 x) {
  __m512 z = fmadd(mul(x, x), set(FP4_GELU_TANH_3), set(FP4_GELU_TANH_1));
  return mul(x, sigmoid(mul(x, z)));
}

/* The sums of one panel of acc, 16 columns, with their scale and bias. */
static inline __m512 input(const fp4moe_act_args *a, float scale, size_t r, size_t p) {
  const __m512 sum = _mm512_load_ps(a->acc + r * a->acc_stride + p * FP4MOE_PANEL);
  if (!a->bias) return mul(sum, set(scale));
  return fmadd(sum, set(scale), _mm512_load_ps(a->bias + p * FP4MOE_PANEL));
}

static inline __m512 silu(const fp4moe_act_args *a, __m512 g, __m512 u) {
  g = at_most(g, a->limit);
  return mul(mul(g, sigmoid(g)), clamp(u, a->limit));
}

static inline __m512 swiglu_oai(const fp4moe_act_args *a, __m512 g, __m512 u) {
  g = at_most(g, a->limit);
  u = mul(add(clamp(u, a->limit), set(a->beta)), g);
  return mul(u, sigmoid(mul(set(a->alpha), g)));
}

static inline __m512 swiglustep(const fp4moe_act_args *a, __m512 g, __m512 u) {
  return mul(at_most(mul(g, sigmoid(g)), a->limit), clamp(u, a->limit));
}

/* cap * tanh(x / cap) */
static inline __m512 soft_cap(__m512 x, float cap) {
  return mul(set(cap), tanhv(_mm512_div_ps(x, set(cap))));
}

static inline __m512 situ(const fp4moe_act_args *a, __m512 g, __m512 u) {
  g = mul(soft_cap(g, a->beta), sigmoid(g));
  return mul(g, a->linear_beta > 0 ? soft_cap(u, a->linear_beta) : u);
}

static inline __m512 gelu(const fp4moe_act_args *a, __m512 g, __m512 u) {
  (void)a;
  return mul(geluv(g), u);
}

static inline __m512 gelu_tanh(const fp4moe_act_args *a, __m512 g, __m512 u) {
  (void)a;
  return mul(gelu_tanhv(g), u);
}

static inline __m512 silu_unary(__m512 x) { return mul(x, sigmoid(x)); }

static inline __m512 relu2(__m512 x) { return mul(at_least(x, 0), at_least(x, 0)); }

static inline void gated(const fp4moe_act_args *a,
                         __m512 (*f)(const fp4moe_act_args *, __m512, __m512)) {
  for (size_t r = 0; r < a->m; r++)
    for (size_t p = 0; p < a->panels; p++)
      _mm512_store_ps(a->h + r * a->h_stride + p * FP4MOE_PANEL,
                      f(a, input(a, a->gate_scale, r, 2 * p), input(a, a->up_scale, r, 2 * p + 1)));
}

static inline void ungated(const fp4moe_act_args *a, __m512 (*f)(__m512)) {
  for (size_t r = 0; r < a->m; r++)
    for (size_t p = 0; p < a->panels; p++)
      _mm512_store_ps(a->h + r * a->h_stride + p * FP4MOE_PANEL, f(input(a, a->up_scale, r, p)));
}

void fp4moe_act_silu_avx512(const fp4moe_act_args *a) { gated(a, silu); }

void fp4moe_act_swiglu_oai_avx512(const fp4moe_act_args *a) { gated(a, swiglu_oai); }

void fp4moe_act_swiglustep_avx512(const fp4moe_act_args *a) { gated(a, swiglustep); }

void fp4moe_act_situ_avx512(const fp4moe_act_args *a) { gated(a, situ); }

void fp4moe_act_gelu_avx512(const fp4moe_act_args *a) { gated(a, gelu); }

void fp4moe_act_gelu_tanh_avx512(const fp4moe_act_args *a) { gated(a, gelu_tanh); }

void fp4moe_act_silu_unary_avx512(const fp4moe_act_args *a) { ungated(a, silu_unary); }

void fp4moe_act_gelu_unary_avx512(const fp4moe_act_args *a) { ungated(a, geluv); }

void fp4moe_act_gelu_tanh_unary_avx512(const fp4moe_act_args *a) { ungated(a, gelu_tanhv); }

void fp4moe_act_relu2_avx512(const fp4moe_act_args *a) { ungated(a, relu2); }
