/* gemm_i8_neon.h - one pass of class i8 over panels of form s8, by whatever multiplies bytes. */
#ifndef FP4MOE_GEMM_I8_NEON_H
#define FP4MOE_GEMM_I8_NEON_H

#include "gemm_neon.h"
#include "i8_neon.h"

/* n columns, 32 or the 16 at the end of a row, of one panel; w: codes, then scales. */
FP4_INLINE void fp4_s8_block(const int8_t *w, size_t n, size_t group, const int8_t *const *q,
                             const float *d, size_t m, fp4_sums_fn *sums, float *acc,
                             size_t acc_stride) {
  const size_t step = 16 * group + 64; /* from group to group */
  const float *first = (const float *)(const void *)(w + 16 * group);
  const float *second = n > group ? (const float *)(const void *)(w + step + 16 * group) : first;
  for (size_t quarter = 0; quarter < FP4_QUARTERS; quarter++) {
    int8x16_t codes[8];
    FP4_UNROLL for (size_t i = 0; i < n / 4; i++) codes[i] =
        vld1q_s8(w + 4 * i / group * step + 64 * (i % (group / 4)) + 16 * quarter);
    fp4_i8_chain(codes, n, group, q, d, vld1q_f32(first + 4 * quarter),
                 vld1q_f32(second + 4 * quarter), m, sums, acc + 4 * quarter, acc_stride);
  }
}

/* group, m and sums are constants where this is expanded. */
FP4_INLINE void fp4_pass_s8(const fp4moe_matmul *t, const fp4_pass *at, size_t group, size_t m,
                            fp4_sums_fn *sums) {
  for (size_t p = 0; p < t->panels; p++) {
    const uint8_t *panel =
        t->weights + p * t->weights_stride + fp4_unpacked_bytes(FP4MOE_ACT_I8, at->k, group);
    const int8_t *w = (const int8_t *)panel;
    float *acc = t->acc + at->row * t->acc_stride + 16 * p;
    if (at->fresh)
      for (size_t r = 0; r < m; r++) memset(acc + r * t->acc_stride, 0, 16 * sizeof *acc);
    for (size_t k = 0; k < at->columns; k += 32) {
      const int8_t *q[FP4_ROWS];
      float d[FP4_ROWS];
      FP4_UNROLL for (size_t r = 0; r < m; r++) {
        const fp4_i8_row row = fp4_i8_row_at(t->rows[at->row + r], t->row_k, t->k0 + at->k + k);
        q[r] = row.q;
        d[r] = *row.d;
      }
      if (group == FP4_NV_GROUP && at->columns - k < 32)
        fp4_s8_block(w, 16, group, q, d, m, sums, acc, t->acc_stride);
      else
        fp4_s8_block(w, 32, group, q, d, m, sums, acc, t->acc_stride);
      w += fp4_unpacked_bytes(FP4MOE_ACT_I8, 32, group);
    }
  }
}

#endif
