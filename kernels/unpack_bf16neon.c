/* unpack_bf16neon.c - FP4 panels to form bf16x4, two pairs of a row side by side: what BFMMLA
 * multiplies. */
#include "unpack_neon.h"

FP4_INLINE void store_fours(uint16_t *to, uint16x8_t first, uint16x8_t second) {
  const uint32x4_t a = vreinterpretq_u32_u16(first), b = vreinterpretq_u32_u16(second);
  vst1q_u16(to, vreinterpretq_u16_u32(vzip1q_u32(a, b)));
  vst1q_u16(to + 8, vreinterpretq_u16_u32(vzip2q_u32(a, b)));
}

FP4_INLINE void unpack_bf16x4(const uint8_t *nibbles, const uint8_t *scales, size_t k, size_t group,
                              uint16_t *out) {
  for (size_t at = 0; at < k; at += group, nibbles += 8 * group, out += 16 * group) {
    const fp4_scales s = fp4_group_scales(scales + at / group * 16, group);
    FP4_UNROLL for (size_t v = 0; v < group / 8; v++) {
      FP4_UNROLL for (size_t q = 0; q < FP4_QUARTERS; q++) {
        const fp4_pairs w = fp4_scaled_bf16(vld1q_u8(nibbles + 64 * v + 16 * q), s.quarter[q]);
        store_fours(out + 128 * v + 16 * q, w.pair[0], w.pair[1]);
        store_fours(out + 128 * v + 16 * q + 64, w.pair[2], w.pair[3]);
      }
    }
  }
}

void fp4moe_unpack_mx_bf16x4_bf16neon(const uint8_t *nibbles, const uint8_t *scales, size_t k,
                                      void *panel) {
  unpack_bf16x4(nibbles, scales, k, FP4_MX_GROUP, panel);
}

void fp4moe_unpack_nv_bf16x4_bf16neon(const uint8_t *nibbles, const uint8_t *scales, size_t k,
                                      void *panel) {
  unpack_bf16x4(nibbles, scales, k, FP4_NV_GROUP, panel);
}
