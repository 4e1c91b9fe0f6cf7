/* gemv_neon.c - few rows against FP4 panels: nibbles decoded in registers, FMAs of FP32.
 *
 * A quarter of a panel is four output rows, one a lane: an activation is a lane of another vector.
 * Decoded weights serve all m rows. The products of one scale block are two chains from zero, of
 * even and of odd columns, so that one row does not wait for itself; their sum enters acc by an FMA
 * with the scale, which stays in FP32 and may be any. The sums of a row know nothing of m, of the
 * other rows or of the panel's place.
 *
 * Class i8 multiplies bytes by SMLAL into 16-bit lanes, where the eight products of a block (each
 * at most 12 * 127) fit, and adds those up once a block. */
#include "gemv_neon.h"

/* ---- Classes f32 and bf16 ---- */

/* Columns [k, k + group) of row r as FP32, in the order of layout.h. */
FP4_INLINE void widen(const void *row, fp4moe_act_class act, size_t k, size_t group, float *to) {
  for (size_t i = 0; i < group; i += 8) {
    if (act == FP4MOE_ACT_BF16) {
      const uint16x8_t x = vld1q_u16((const uint16_t *)row + k + i);
      vst1q_f32(to + i, vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(x), 16)));
      vst1q_f32(to + i + 4, vreinterpretq_f32_u32(vshll_high_n_u16(x, 16)));
    } else {
      const float32x4_t a = vld1q_f32((const float *)row + k + i);
      const float32x4_t b = vld1q_f32((const float *)row + k + i + 4);
      vst1q_f32(to + i, vuzp1q_f32(a, b));
      vst1q_f32(to + i + 4, vuzp2q_f32(a, b));
    }
  }
}

/* One scale block of one quarter; a: the rows' columns, widened. */
FP4_INLINE void block(const uint8_t *w, float32x4_t scale, size_t group, size_t m,
                      const float (*a)[32], float *acc, size_t acc_stride) {
  float32x4_t even[FP4_ROWS], odd[FP4_ROWS];
  FP4_UNROLL for (size_t r = 0; r < m; r++) even[r] = odd[r] = vdupq_n_f32(0);
  for (size_t v = 0; v < group / 8; v++) {
    const fp4_pairs x = fp4_decode_bf16(vld1q_u8(w + 64 * v));
    FP4_UNROLL for (size_t h = 0; h < 2; h++) {
      const float32x4_t w0 = fp4_even(x.pair[2 * h]), w1 = fp4_odd(x.pair[2 * h]);
      const float32x4_t w2 = fp4_even(x.pair[2 * h + 1]), w3 = fp4_odd(x.pair[2 * h + 1]);
      FP4_UNROLL for (size_t r = 0; r < m; r++) {
        const float32x4_t b = vld1q_f32(a[r] + 8 * v + 4 * h);
        even[r] = vfmaq_laneq_f32(even[r], w0, b, 0);
        odd[r] = vfmaq_laneq_f32(odd[r], w1, b, 1);
        even[r] = vfmaq_laneq_f32(even[r], w2, b, 2);
        odd[r] = vfmaq_laneq_f32(odd[r], w3, b, 3);
      }
    }
  }
  FP4_UNROLL for (size_t r = 0; r < m; r++) {
    float *to = acc + r * acc_stride;
    vst1q_f32(to, vfmaq_f32(vld1q_f32(to), vaddq_f32(even[r], odd[r]), scale));
  }
}

/* act, group and m are constants where this is expanded. */
FP4_INLINE void panel_float(const fp4moe_matmul *t, size_t p, fp4moe_act_class act, size_t group,
                            size_t m) {
  const uint8_t *w = t->weights + p * t->weights_stride, *s = t->scales + p * t->scales_stride;
  for (size_t k = 0; k < t->k; k += group, w += 8 * group, s += 16) {
    const fp4_scales scale = fp4_group_scales(s, group);
    float a[FP4_ROWS][32];
    fp4_prefetch(w + t->prefetch, group);
    FP4_UNROLL for (size_t r = 0; r < m; r++) widen(t->rows[r], act, t->k0 + k, group, a[r]);
    for (size_t q = 0; q < FP4_QUARTERS; q++)
      block(w + 16 * q, scale.quarter[q], group, m, (const float(*)[32])a, t->acc + 16 * p + 4 * q,
            t->acc_stride);
  }
}

FP4_INLINE void gemv_float(const fp4moe_matmul *t, fp4moe_act_class act, size_t group, size_t m) {
  if (!t->resume) fp4_zero_acc(t, m);
  for (size_t p = 0; p < t->panels; p++) panel_float(t, p, act, group, m);
}

#define MX_F32(m)  gemv_float(t, FP4MOE_ACT_F32, FP4_MX_GROUP, m)
#define NV_F32(m)  gemv_float(t, FP4MOE_ACT_F32, FP4_NV_GROUP, m)
#define MX_BF16(m) gemv_float(t, FP4MOE_ACT_BF16, FP4_MX_GROUP, m)
#define NV_BF16(m) gemv_float(t, FP4MOE_ACT_BF16, FP4_NV_GROUP, m)

FP4_GEMV_VARIANT(mx_f32, neon, MX_F32)
FP4_GEMV_VARIANT(nv_f32, neon, NV_F32)
FP4_GEMV_VARIANT(mx_bf16, neon, MX_BF16)
FP4_GEMV_VARIANT(nv_bf16, neon, NV_BF16)

/* ---- Class i8 ---- */

#define MX_I8(m) fp4_gemv_i8(t, FP4_MX_GROUP, m, fp4_sums_smlal)
#define NV_I8(m) fp4_gemv_i8(t, FP4_NV_GROUP, m, fp4_sums_smlal)

FP4_GEMV_VARIANT(mx_i8, neon, MX_I8)
FP4_GEMV_VARIANT(nv_i8, neon, NV_I8)
