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
                      const float (*a)[FP4_STRETCH], size_t k, float *acc, size_t acc_stride) {
  float32x4_t even[FP4_ROWS], odd[FP4_ROWS];
  FP4_UNROLL for (size_t v = 0; v < group / 8; v++) {
    const fp4_pairs x = fp4_decode_bf16(vld1q_u8(w + 64 * v));
    FP4_UNROLL for (size_t h = 0; h < 2; h++) {
      const float32x4_t w0 = fp4_even(x.pair[2 * h]), w1 = fp4_odd(x.pair[2 * h]);
      const float32x4_t w2 = fp4_even(x.pair[2 * h + 1]), w3 = fp4_odd(x.pair[2 * h + 1]);
      FP4_UNROLL for (size_t r = 0; r < m; r++) {
        const float32x4_t b = vld1q_f32(a[r] + k + 8 * v + 4 * h);
        even[r] = v + h ? vfmaq_laneq_f32(even[r], w0, b, 0) : vmulq_laneq_f32(w0, b, 0);
        odd[r] = v + h ? vfmaq_laneq_f32(odd[r], w1, b, 1) : vmulq_laneq_f32(w1, b, 1);
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
FP4_INLINE void stretch_float(const fp4moe_matmul *t, const fp4_stretch *at, fp4moe_act_class act,
                              size_t group, size_t m) {
  float a[FP4_ROWS][FP4_STRETCH];
  for (size_t r = 0; r < m; r++) widen(t->rows[r], act, t->k0 + at->k, at->columns, a[r]);
  for (size_t q = 0; q < FP4_QUARTERS; q++)
    for (size_t k = 0; k < at->columns; k += group)
      block(at->w + 16 * q + 8 * k, vld1q_f32(at->s[k / group] + 4 * q), group, m,
            (const float(*)[FP4_STRETCH])a, k, at->acc + 4 * q, t->acc_stride);
}

FP4_INLINE void stretch_f32(const fp4moe_matmul *t, const fp4_stretch *at, size_t group, size_t m) {
  stretch_float(t, at, FP4MOE_ACT_F32, group, m);
}
FP4_INLINE void stretch_bf16(const fp4moe_matmul *t, const fp4_stretch *at, size_t group,
                             size_t m) {
  stretch_float(t, at, FP4MOE_ACT_BF16, group, m);
}

#define MX_F32(t, m)  fp4_gemv_stretches(t, FP4_MX_GROUP, m, stretch_f32)
#define NV_F32(t, m)  fp4_gemv_stretches(t, FP4_NV_GROUP, m, stretch_f32)
#define MX_BF16(t, m) fp4_gemv_stretches(t, FP4_MX_GROUP, m, stretch_bf16)
#define NV_BF16(t, m) fp4_gemv_stretches(t, FP4_NV_GROUP, m, stretch_bf16)

FP4_GEMV_VARIANT(mx_f32, neon, MX_F32)
FP4_GEMV_VARIANT(nv_f32, neon, NV_F32)
FP4_GEMV_VARIANT(mx_bf16, neon, MX_BF16)
FP4_GEMV_VARIANT(nv_bf16, neon, NV_BF16)

/* ---- Class i8 ---- */

FP4_INLINE void stretch_i8(const fp4moe_matmul *t, const fp4_stretch *at, size_t group, size_t m) {
  fp4_gemv_i8(t, at, group, m, fp4_sums_smlal);
}

#define MX_I8(t, m) fp4_gemv_stretches(t, FP4_MX_GROUP, m, stretch_i8)
#define NV_I8(t, m) fp4_gemv_stretches(t, FP4_NV_GROUP, m, stretch_i8)

FP4_GEMV_VARIANT(mx_i8, neon, MX_I8)
FP4_GEMV_VARIANT(nv_i8, neon, NV_I8)
