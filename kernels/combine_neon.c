/* combine_neon.c - combine and store in NEON: four columns a step, the bits of combine_c.c.
 *
 * A NaN of combine may differ from the specification's in sign and payload, which is why store
 * leaves one kind only. */
#include "kernel.h"
#include "neon.h"
#include "quant_neon.h"

/* One row. The bias is a branch outside of the loop over columns. */
FP4_INLINE void combine_row(const fp4moe_combine_args *a, size_t r, int biased) {
  const float32x4_t scale = vdupq_n_f32(a->scale), weight = vdupq_n_f32(a->weight[r]);
  const float *acc = a->acc + r * a->acc_stride;
  float *y = a->y + a->index[r] * a->y_stride;
  for (size_t c = 0; c < a->panels * FP4MOE_PANEL; c += 4) {
    float32x4_t v = vld1q_f32(acc + c);
    v = biased ? vfmaq_f32(vld1q_f32(a->bias + c), v, scale) : vmulq_f32(v, scale);
    vst1q_f32(y + c, vfmaq_f32(vld1q_f32(y + c), weight, v));
  }
}

void fp4moe_combine_neon(const fp4moe_combine_args *a) {
  for (size_t r = 0; r < a->m; r++)
    if (a->bias)
      combine_row(a, r, 1);
    else
      combine_row(a, r, 0);
}

FP4_INLINE void store4(float32x4_t x, fp4moe_dtype dtype, void *y, size_t i) {
  const float32x4_t nan = vreinterpretq_f32_u32(vdupq_n_u32(0x7fc00000));
  x = vbslq_f32(vceqq_f32(x, x), x, nan);
  switch (dtype) {
  case FP4MOE_F16:
    vst1_u16((uint16_t *)y + i, vreinterpret_u16_f16(vcvt_f16_f32(x)));
    break;
  case FP4MOE_BF16:
    vst1_u16((uint16_t *)y + i, vmovn_u32(fp4_to_bf16_neon(x)));
    break;
  default:
    vst1q_f32((float *)y + i, x);
  }
}

void fp4moe_store_neon(size_t n, size_t parts, const float *partials, size_t stride,
                       fp4moe_dtype dtype, int accumulate, void *y) {
  for (size_t i = 0; i < n; i += 4) {
    float32x4_t sum = vld1q_f32(partials + i);
    for (size_t p = 1; p < parts; p++) sum = vaddq_f32(sum, vld1q_f32(partials + p * stride + i));
    const float32x4_t old = accumulate ? fp4_load_neon(y, dtype, i) : vdupq_n_f32(0);
    store4(vaddq_f32(old, sum), dtype, y, i);
  }
}
