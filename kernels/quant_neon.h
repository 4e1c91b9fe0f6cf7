/* quant_neon.h - 4 elements of a caller's row to and from FP32, the bits of fp4.h. */
#ifndef FP4MOE_QUANT_NEON_H
#define FP4MOE_QUANT_NEON_H

#include <arm_neon.h>

#include "kernel.h"

/* Elements [i, i + 4) of x as FP32. */
static inline float32x4_t fp4_load_neon(const void *x, fp4moe_dtype dtype, size_t i) {
  if (dtype == FP4MOE_F32) return vld1q_f32((const float *)x + i);
  const uint16x4_t half = vld1_u16((const uint16_t *)x + i);
  if (dtype == FP4MOE_F16) return vcvt_f32_f16(vreinterpret_f16_u16(half));
  return vreinterpretq_f32_u32(vshll_n_u16(half, 16));
}

/* The BF16 in the lower half of each lane. Instructions that convert keep the payload of a NaN. */
static inline uint32x4_t fp4_to_bf16_neon(float32x4_t x) {
  const uint32x4_t u = vreinterpretq_u32_f32(x), mag = vandq_u32(u, vdupq_n_u32(0x7fffffff));
  const uint32x4_t odd = vandq_u32(vshrq_n_u32(u, 16), vdupq_n_u32(1));
  const uint32x4_t tiny = vcltq_u32(mag, vdupq_n_u32(0x00800000));
  const uint32x4_t nan = vcgtq_u32(mag, vdupq_n_u32(0x7f800000));
  uint32x4_t y = vaddq_u32(u, vaddq_u32(odd, vdupq_n_u32(0x7fff)));
  y = vbslq_u32(tiny, vandq_u32(u, vdupq_n_u32(0x80000000)), y);
  y = vbslq_u32(nan, vdupq_n_u32(0x7fc00000), y);
  return vshrq_n_u32(y, 16);
}

#endif
