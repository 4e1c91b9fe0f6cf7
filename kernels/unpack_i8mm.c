/* unpack_i8mm.c - FP4 panels to form s8x8, eight columns of a row side by side: what SMMLA
 * multiplies. Low nibbles are columns 0..3 of a row and high ones 4..7, so ZIP joins them. */
#include "unpack_neon.h"

FP4_INLINE void unpack_s8x8(const uint8_t *nibbles, const uint8_t *scales, size_t k, size_t group,
                            int8_t *out) {
  for (size_t at = 0; at < k; at += group, nibbles += 8 * group) {
    FP4_UNROLL for (size_t i = 0; i < group / 2; i++) {
      const fp4_codes c = fp4_decode_s8(vld1q_u8(nibbles + 16 * i));
      const int32x4_t lo = vreinterpretq_s32_s8(c.lo), hi = vreinterpretq_s32_s8(c.hi);
      vst1q_s8(out + 32 * i, vreinterpretq_s8_s32(vzip1q_s32(lo, hi)));
      vst1q_s8(out + 32 * i + 16, vreinterpretq_s8_s32(vzip2q_s32(lo, hi)));
    }
    out = fp4_store_scales(out + 16 * group, scales + at / group * 16, group);
  }
}

void fp4moe_unpack_mx_s8x8_i8mm(const uint8_t *nibbles, const uint8_t *scales, size_t k,
                                void *panel) {
  unpack_s8x8(nibbles, scales, k, FP4_MX_GROUP, panel);
}

void fp4moe_unpack_nv_s8x8_i8mm(const uint8_t *nibbles, const uint8_t *scales, size_t k,
                                void *panel) {
  unpack_s8x8(nibbles, scales, k, FP4_NV_GROUP, panel);
}
