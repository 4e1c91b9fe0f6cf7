/* act_neon.c - act in NEON: four columns a step, the bits of act_c.c.
 *
 * Each function repeats the operations of act.h and act_c.c in their order. Limits are a comparison
 * and a choice, because FMIN and FMAX are another thing for NaN and for zeros. */
#include "act.h"
#include "kernel.h"
#include "neon.h"

FP4_INLINE float32x4_t at_most(float32x4_t x, float limit) {
  const float32x4_t most = vdupq_n_f32(limit);
  return vbslq_f32(vcgtq_f32(x, most), most, x);
}

FP4_INLINE float32x4_t at_least(float32x4_t x, float limit) {
  const float32x4_t least = vdupq_n_f32(limit);
  return vbslq_f32(vcltq_f32(x, least), least, x);
}

/* 2^n for -126 <= n <= 127. */
FP4_INLINE float32x4_t pow2(int32x4_t n) {
  return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(n, vdupq_n_s32(127)), 23));
}

FP4_INLINE float32x4_t expv(float32x4_t x) {
  const float32x4_t magic = vdupq_n_f32(FP4_EXP_ROUND);
  x = at_least(at_most(x, FP4_EXP_HIGH), FP4_EXP_LOW);
  const float32x4_t n = vsubq_f32(vfmaq_f32(magic, x, vdupq_n_f32(FP4_LOG2E)), magic);
  float32x4_t r = vfmaq_f32(x, n, vdupq_n_f32(-FP4_LN2_HIGH));
  r = vfmaq_f32(r, n, vdupq_n_f32(-FP4_LN2_LOW));
  float32x4_t q = vfmaq_f32(vdupq_n_f32(FP4_EXP_C5), r, vdupq_n_f32(FP4_EXP_C6));
  q = vfmaq_f32(vdupq_n_f32(FP4_EXP_C4), q, r);
  q = vfmaq_f32(vdupq_n_f32(FP4_EXP_C3), q, r);
  q = vfmaq_f32(vdupq_n_f32(FP4_EXP_C2), q, r);
  const float32x4_t p = vaddq_f32(vdupq_n_f32(1), vfmaq_f32(r, vmulq_f32(r, r), q));
  const int32x4_t whole = vcvtq_s32_f32(n), half = vshrq_n_s32(whole, 1); /* of any two halves */
  return vmulq_f32(vmulq_f32(p, pow2(half)), pow2(vsubq_s32(whole, half)));
}

FP4_INLINE float32x4_t sigmoid(float32x4_t x) {
  const float32x4_t one = vdupq_n_f32(1);
  return vdivq_f32(one, vaddq_f32(one, expv(vnegq_f32(x))));
}

/* Four sums of acc from column c of row r, with their scale and bias. */
FP4_INLINE float32x4_t input(const fp4moe_act_args *a, float scale, size_t r, size_t c) {
  const float32x4_t sum = vld1q_f32(a->acc + r * a->acc_stride + c), s = vdupq_n_f32(scale);
  return a->bias ? vfmaq_f32(vld1q_f32(a->bias + c), sum, s) : vmulq_f32(sum, s);
}

FP4_INLINE float32x4_t silu(const fp4moe_act_args *a, float32x4_t g, float32x4_t u) {
  g = at_most(g, a->limit);
  u = at_least(at_most(u, a->limit), -a->limit);
  return vmulq_f32(vmulq_f32(g, sigmoid(g)), u);
}

FP4_INLINE float32x4_t swiglu_oai(const fp4moe_act_args *a, float32x4_t g, float32x4_t u) {
  g = at_most(g, a->limit);
  u = at_least(at_most(u, a->limit), -a->limit);
  u = vmulq_f32(vaddq_f32(u, vdupq_n_f32(a->beta)), g);
  return vmulq_f32(u, sigmoid(vmulq_f32(vdupq_n_f32(a->alpha), g)));
}

FP4_INLINE float32x4_t silu_unary(const fp4moe_act_args *a, float32x4_t x) {
  x = at_most(x, a->limit);
  return vmulq_f32(x, sigmoid(x));
}

FP4_INLINE float32x4_t relu2(const fp4moe_act_args *a, float32x4_t x) {
  (void)a;
  x = at_least(x, 0);
  return vmulq_f32(x, x);
}

FP4_INLINE void gated(const fp4moe_act_args *a,
                      float32x4_t (*f)(const fp4moe_act_args *, float32x4_t, float32x4_t)) {
  for (size_t r = 0; r < a->m; r++)
    for (size_t c = 0; c < a->panels * FP4MOE_PANEL; c += 4) {
      const size_t g = c / FP4MOE_PANEL * FP4MOE_PANEL + c; /* of gate and up panels in turn */
      vst1q_f32(a->h + r * a->h_stride + c,
                f(a, input(a, a->gate_scale, r, g), input(a, a->up_scale, r, g + FP4MOE_PANEL)));
    }
}

FP4_INLINE void ungated(const fp4moe_act_args *a,
                        float32x4_t (*f)(const fp4moe_act_args *, float32x4_t)) {
  for (size_t r = 0; r < a->m; r++)
    for (size_t c = 0; c < a->panels * FP4MOE_PANEL; c += 4)
      vst1q_f32(a->h + r * a->h_stride + c, f(a, input(a, a->up_scale, r, c)));
}

void fp4moe_act_silu_neon(const fp4moe_act_args *a) { gated(a, silu); }

void fp4moe_act_swiglu_oai_neon(const fp4moe_act_args *a) { gated(a, swiglu_oai); }

void fp4moe_act_silu_unary_neon(const fp4moe_act_args *a) { ungated(a, silu_unary); }

void fp4moe_act_relu2_neon(const fp4moe_act_args *a) { ungated(a, relu2); }
