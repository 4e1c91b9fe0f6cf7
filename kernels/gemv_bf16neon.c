/* gemv_bf16neon.c - few BF16 rows against FP4 panels, BFDOT by element on decoded nibbles.
 *
 * As gemv_neon.c, with pairs in place of columns: lane j of a decoded pair is a pair of row j's
 * columns, an activation pair is one lane. The dots of one scale block are two chains from zero. */
#include "gemv_neon.h"

static const int32_t zero[4];

/* One scale block of one quarter; a: the rows' columns of the block. */
FP4_INLINE void block(const uint8_t *w, float32x4_t scale, size_t group, size_t m,
                      const bfloat16_t *const *a, size_t k, float *acc, size_t acc_stride) {
  float32x4_t even[FP4_ROWS], odd[FP4_ROWS];
  FP4_UNROLL for (size_t r = 0; r < m; r++) {
    even[r] = vreinterpretq_f32_s32(fp4_load_anew(zero));
    odd[r] = vreinterpretq_f32_s32(fp4_load_anew(zero));
  }
  FP4_UNROLL for (size_t v = 0; v < group / 8; v++) {
    const fp4_pairs x = fp4_decode_bf16(vld1q_u8(w + 64 * v));
    FP4_UNROLL for (size_t r = 0; r < m; r++) {
      const bfloat16x8_t b = vld1q_bf16(a[r] + k + 8 * v);
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
FP4_INLINE void stretch(const fp4moe_matmul *t, const fp4_stretch *at, size_t group, size_t m) {
  const bfloat16_t *a[FP4_ROWS];
  FP4_UNROLL for (size_t r = 0; r < m; r++) a[r] = (const bfloat16_t *)t->rows[r] + t->k0 + at->k;
  for (size_t q = 0; q < FP4_QUARTERS; q++)
    for (size_t k = 0; k < at->columns; k += group)
      block(at->w + 16 * q + 8 * k, vld1q_f32(at->s[k / group] + 4 * q), group, m, a, k,
            at->acc + 4 * q, t->acc_stride);
}

#define MX(t, m) fp4_gemv_stretches(t, FP4_MX_GROUP, m, stretch)
#define NV(t, m) fp4_gemv_stretches(t, FP4_NV_GROUP, m, stretch)

FP4_GEMV_VARIANT(mx_bf16, bf16neon, MX)
FP4_GEMV_VARIANT(nv_bf16, bf16neon, NV)
