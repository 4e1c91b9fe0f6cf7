/* gemm_i8_neon.h - one pass of class i8 over panels of form s8, by whatever multiplies bytes.
 *
 * A tile is m rows of a quarter of a panel: m integer sums and m of FP32 stay in registers through
 * the stretch, beside codes that serve all rows. */
#ifndef FP4MOE_GEMM_I8_NEON_H
#define FP4MOE_GEMM_I8_NEON_H

#include "gemm_neon.h"
#include "i8_neon.h"

/* n columns from k of the pass, 32 or the 16 at the end of a row, of a quarter; w: its codes. */
FP4_INLINE void fp4_s8_block(const int8_t *w, const float *s, size_t n, size_t group,
                             const fp4_i8_rows *a, size_t k, size_t m, fp4_sums_fn *sums,
                             float32x4_t *acc) {
  const size_t step = 16 * group + 64; /* from group to group */
  int8x16_t codes[8];
  FP4_UNROLL for (size_t i = 0; i < n / 4; i++) codes[i] =
      vld1q_s8(w + 4 * i / group * step + 64 * (i % (group / 4)));
  const float32x4_t first = vld1q_f32(s);
  fp4_i8_chain(codes, n, group, a, k, first, n > group ? vld1q_f32(s + step / 4) : first, m, sums,
               acc);
}

FP4_INLINE void fp4_s8_quarter(const fp4_pass *at, const int8_t *w, const float *s, size_t group,
                               const fp4_i8_rows *a, size_t m, fp4_sums_fn *sums, float *out,
                               size_t stride) {
  const size_t step = 32 / group * (16 * group + 64);
  float32x4_t acc[FP4_ROWS];
  size_t k = 0;
  fp4_load_rows(out, stride, m, at->fresh, acc);
  for (; k + 32 <= at->columns; k += 32, w += step, s += step / 4)
    fp4_s8_block(w, s, 32, group, a, k, m, sums, acc);
  if (group == FP4_NV_GROUP && k < at->columns) fp4_s8_block(w, s, 16, group, a, k, m, sums, acc);
  fp4_store_rows(out, stride, m, acc);
}

/* group, m and sums are constants where this is expanded. */
FP4_INLINE void fp4_pass_s8(const fp4moe_matmul *t, const fp4_pass *at, size_t group, size_t m,
                            fp4_sums_fn *sums) {
  fp4_i8_rows a;
  fp4_i8_rows_at(t, at->row, at->k, at->columns, m, &a);
  for (size_t q = 0; q < FP4_QUARTERS * t->panels; q++) {
    const uint8_t *w = t->weights + q / 4 * t->weights_stride +
                       fp4_unpacked_bytes(FP4MOE_ACT_I8, at->k, group) + q % 4 * 16;
    fp4_s8_quarter(at, (const int8_t *)w, (const float *)(const void *)(w + 16 * group), group, &a,
                   m, sums, t->acc + at->row * t->acc_stride + 4 * q, t->acc_stride);
  }
}

#endif
