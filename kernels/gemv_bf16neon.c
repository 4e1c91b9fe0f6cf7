/* gemv_bf16neon.c - few BF16 rows against FP4 panels, BFDOT by element on decoded nibbles.
 *
 * As gemv_neon.c, with pairs in place of columns: lane j of a decoded pair is a pair of row j's
 * columns, an activation pair is one lane. The dots of one scale block are two chains from zero. */
#include "gemv_neon.h"

/* One scale block of one quarter; a: the rows' columns of the block. */
FP4_INLINE void block(const uint8_t *w, float32x4_t scale, size_t group, size_t m,
                      const bfloat16_t *const *a, float *acc, size_t acc_stride) {
  float32x4_t even[FP4_ROWS], odd[FP4_ROWS];
  FP4_UNROLL for (size_t r = 0; r < m; r++) even[r] = odd[r] = vdupq_n_f32(0);
  for (size_t v = 0; v < group / 8; v++) {
    const fp4_pairs x = fp4_decode_bf16(vld1q_u8(w + 64 * v));
    FP4_UNROLL for (size_t r = 0; r < m; r++) {
      const bfloat16x8_t b = vld1q_bf16(a[r] + 8 * v);
#define DOT(to, lane)                                                                              \
  to[r] = vbfdotq_laneq_f32(to[r], vreinterpretq_bf16_u16(x.pair[lane]), b, lane);
      DOT(even, 0) DOT(odd, 1) DOT(even, 2) DOT(odd, 3)
#undef DOT
    }
  }
  FP4_UNROLL for (size_t r = 0; r < m; r++) {
    float *to = acc + r * acc_stride;
    vst1q_f32(to, vfmaq_f32(vld1q_f32(to), vaddq_f32(even[r], odd[r]), scale));
  }
}

/* group and m are constants where this is expanded. */
FP4_INLINE void gemv(const fp4moe_matmul *t, size_t group, size_t m) {
  if (!t->resume) fp4_zero_acc(t, m);
  for (size_t p = 0; p < t->panels; p++) {
    const uint8_t *w = t->weights + p * t->weights_stride, *s = t->scales + p * t->scales_stride;
    for (size_t k = 0; k < t->k; k += group, w += 8 * group, s += 16) {
      const fp4_scales scale = fp4_group_scales(s, group);
      const bfloat16_t *a[FP4_ROWS];
      fp4_prefetch(w + t->prefetch, group);
      FP4_UNROLL for (size_t r = 0; r < m; r++) a[r] = (const bfloat16_t *)t->rows[r] + t->k0 + k;
      for (size_t q = 0; q < FP4_QUARTERS; q++)
        block(w + 16 * q, scale.quarter[q], group, m, a, t->acc + 16 * p + 4 * q, t->acc_stride);
    }
  }
}

#define MX(m) gemv(t, FP4_MX_GROUP, m)
#define NV(m) gemv(t, FP4_NV_GROUP, m)

FP4_GEMV_VARIANT(mx_bf16, bf16neon, MX)
FP4_GEMV_VARIANT(nv_bf16, bf16neon, NV)
