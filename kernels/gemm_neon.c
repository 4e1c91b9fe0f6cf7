/* gemm_neon.c - many rows against unpacked panels: FMAs of FP32, and bytes by SMLAL.
 *
 * A float tile is m rows of half a panel, 2m accumulators; an activation is a lane of a vector.
 * One chain of FMAs per output, columns in the order in which the class holds them (layout.h).
 * BF16 activations are widened once a pass, BF16 weights beside the FMAs. */
#include "gemm_neon.h"
#include "gemm_i8_neon.h"

/* The pass's columns of one row as FP32. */
FP4_INLINE void widen(const void *row, fp4moe_act_class act, size_t k, size_t columns, float *to) {
  for (size_t i = 0; i < columns; i += 8) {
    if (act == FP4MOE_ACT_BF16) {
      const uint16x8_t x = vld1q_u16((const uint16_t *)row + k + i);
      vst1q_f32(to + i, vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(x), 16)));
      vst1q_f32(to + i + 4, vreinterpretq_f32_u32(vshll_high_n_u16(x, 16)));
    } else {
      vst1q_f32(to + i, vld1q_f32((const float *)row + k + i));
      vst1q_f32(to + i + 4, vld1q_f32((const float *)row + k + i + 4));
    }
  }
}

/* Column j of four of the quarter at w: of a BF16 panel a half of pair j / 2. */
FP4_INLINE float32x4_t weights(const uint8_t *w, fp4moe_act_class act, size_t j) {
  if (act == FP4MOE_ACT_F32) return vld1q_f32((const float *)(const void *)(w + 64 * j));
  const uint16x8_t pair = vld1q_u16((const uint16_t *)(const void *)(w + 64 * (j / 2)));
  return j % 2 ? fp4_odd(pair) : fp4_even(pair);
}

/* act and m are constants where this is expanded. */
FP4_INLINE void half_panel(const fp4_pass *at, const uint8_t *w, fp4moe_act_class act, size_t m,
                           const float (*a)[FP4_STRETCH], float *out, size_t stride) {
  const size_t column = act == FP4MOE_ACT_F32 ? 64 : 32;
  float32x4_t acc[FP4_ROWS][2];
  FP4_UNROLL for (size_t r = 0; r < m; r++) {
    FP4_UNROLL for (size_t q = 0; q < 2; q++) acc[r][q] =
        at->fresh ? vdupq_n_f32(0) : vld1q_f32(out + r * stride + 4 * q);
  }
  for (size_t k = 0; k < at->columns; k += 4, w += 4 * column) {
    float32x4_t b[FP4_ROWS];
    FP4_UNROLL for (size_t r = 0; r < m; r++) b[r] = vld1q_f32(a[r] + k);
#define FMA(lane)                                                                                  \
  FP4_UNROLL for (size_t q = 0; q < 2; q++) {                                                      \
    const float32x4_t x = weights(w + 16 * q, act, lane);                                          \
    FP4_UNROLL for (size_t r = 0; r < m; r++) acc[r][q] =                                          \
        vfmaq_laneq_f32(acc[r][q], x, b[r], lane);                                                 \
  }
    FP4_FOR_4_LANES(FMA)
#undef FMA
  }
  FP4_UNROLL for (size_t r = 0; r < m; r++) {
    FP4_UNROLL for (size_t q = 0; q < 2; q++) vst1q_f32(out + r * stride + 4 * q, acc[r][q]);
  }
}

FP4_INLINE void pass_float(const fp4moe_matmul *t, const fp4_pass *at, fp4moe_act_class act,
                           size_t m) {
  const size_t bytes = (act == FP4MOE_ACT_F32 ? 64 : 32) * at->k;
  float a[FP4_ROWS][FP4_STRETCH];
  for (size_t r = 0; r < m; r++) widen(t->rows[at->row + r], act, t->k0 + at->k, at->columns, a[r]);
  for (size_t h = 0; h < 2 * t->panels; h++)
    half_panel(at, t->weights + h / 2 * t->weights_stride + bytes + h % 2 * 32, act, m,
               (const float(*)[FP4_STRETCH])a, t->acc + at->row * t->acc_stride + 8 * h,
               t->acc_stride);
}

#define F32(t, at, m)   pass_float(t, at, FP4MOE_ACT_F32, m)
#define BF16(t, at, m)  pass_float(t, at, FP4MOE_ACT_BF16, m)
#define MX_S8(t, at, m) fp4_pass_s8(t, at, FP4_MX_GROUP, m, fp4_sums_smlal)
#define NV_S8(t, at, m) fp4_pass_s8(t, at, FP4_NV_GROUP, m, fp4_sums_smlal)

FP4_GEMM_VARIANT(f32, neon, F32)
FP4_GEMM_VARIANT(bf16, neon, BF16)
FP4_GEMM_VARIANT(mx_s8, neon, MX_S8)
FP4_GEMM_VARIANT(nv_s8, neon, NV_S8)
