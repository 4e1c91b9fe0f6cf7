/* unpack_neon.h - what the unpack rows of NEON and beyond share. */
#ifndef FP4MOE_UNPACK_NEON_H
#define FP4MOE_UNPACK_NEON_H

#include "kernel.h"
#include "neon.h"

/* The pairs of 16 bytes of nibbles times the scales of their rows. */
FP4_INLINE fp4_pairs fp4_scaled_bf16(uint8x16_t nibbles, float32x4_t scale) {
  fp4_pairs w = fp4_decode_bf16(nibbles);
  FP4_UNROLL for (size_t i = 0; i < 4; i++) {
    const uint32x4_t even = vreinterpretq_u32_f32(vmulq_f32(fp4_even(w.pair[i]), scale));
    const uint32x4_t odd = vreinterpretq_u32_f32(vmulq_f32(fp4_odd(w.pair[i]), scale));
    w.pair[i] = vreinterpretq_u16_u32(vsriq_n_u32(odd, even, 16));
  }
  return w;
}

/* The scales behind the bytes of a group; returns what follows them. */
FP4_INLINE int8_t *fp4_store_scales(int8_t *out, const uint8_t *scales, size_t group) {
  const fp4_scales s = fp4_group_scales(scales, group);
  FP4_UNROLL for (size_t q = 0; q < FP4_QUARTERS; q++)
      vst1q_f32((float *)(void *)out + 4 * q, s.quarter[q]);
  return out + 64;
}

#endif
