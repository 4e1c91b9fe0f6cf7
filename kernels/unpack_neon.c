/* unpack_neon.c - FP4 panels to FP32, BF16 and signed byte panels.
 *
 * A quarter of a vector of nibbles, four rows of eight columns, becomes the pairs of layout.h; the
 * product with the block scale is formed in FP32, which holds it exactly whatever the scale, and
 * its upper half is the BF16: SRI puts the two of a pair together. Bytes go with their scales. */
#include "unpack_neon.h"

/* Columns of the pairs: (0,2) (4,6) (1,3) (5,7). */
FP4_INLINE void unpack_f32(const uint8_t *nibbles, const uint8_t *scales, size_t k, size_t group,
                           float *out) {
  for (size_t at = 0; at < k; at += 8, nibbles += 64, out += 128) {
    const fp4_scales s = fp4_group_scales(scales + at / group * 16, group);
    FP4_UNROLL for (size_t q = 0; q < FP4_QUARTERS; q++) {
      const fp4_pairs w = fp4_decode_bf16(vld1q_u8(nibbles + 16 * q));
      FP4_UNROLL for (size_t i = 0; i < 4; i++) {
        float *to = out + 64 * (i % 2) + 16 * (i / 2) + 4 * q;
        vst1q_f32(to, vmulq_f32(fp4_even(w.pair[i]), s.quarter[q]));
        vst1q_f32(to + 32, vmulq_f32(fp4_odd(w.pair[i]), s.quarter[q]));
      }
    }
  }
}

FP4_INLINE void unpack_bf16(const uint8_t *nibbles, const uint8_t *scales, size_t k, size_t group,
                            uint16_t *out) {
  for (size_t at = 0; at < k; at += group, nibbles += 8 * group, out += 16 * group) {
    const fp4_scales s = fp4_group_scales(scales + at / group * 16, group);
    FP4_UNROLL for (size_t v = 0; v < group / 8; v++) {
      FP4_UNROLL for (size_t q = 0; q < FP4_QUARTERS; q++) {
        const fp4_pairs w = fp4_scaled_bf16(vld1q_u8(nibbles + 64 * v + 16 * q), s.quarter[q]);
        FP4_UNROLL for (size_t i = 0; i < 4; i++)
            vst1q_u16(out + 128 * v + 32 * i + 8 * q, w.pair[i]);
      }
    }
  }
}

FP4_INLINE void unpack_s8(const uint8_t *nibbles, const uint8_t *scales, size_t k, size_t group,
                          int8_t *out) {
  for (size_t at = 0; at < k; at += group, nibbles += 8 * group) {
    FP4_UNROLL for (size_t i = 0; i < group / 2; i++) {
      const fp4_codes c = fp4_decode_s8(vld1q_u8(nibbles + 16 * i));
      int8_t *to = out + i / 4 * 128 + i % 4 * 16;
      vst1q_s8(to, c.lo);
      vst1q_s8(to + 64, c.hi);
    }
    out = fp4_store_scales(out + 16 * group, scales + at / group * 16, group);
  }
}

#define VARIANT(w, form, group)                                                                    \
  void fp4moe_unpack_##w##_##form##_neon(const uint8_t *nibbles, const uint8_t *scales, size_t k,  \
                                         void *panel) {                                            \
    unpack_##form(nibbles, scales, k, group, panel);                                               \
  }

VARIANT(mx, f32, FP4_MX_GROUP)
VARIANT(nv, f32, FP4_NV_GROUP)
VARIANT(mx, bf16, FP4_MX_GROUP)
VARIANT(nv, bf16, FP4_NV_GROUP)
VARIANT(mx, s8, FP4_MX_GROUP)
VARIANT(nv, s8, FP4_NV_GROUP)
