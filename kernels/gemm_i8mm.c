/* gemm_i8mm.c - many int8 rows against panels of form s8x8, two rows by two columns an SMMLA.
 *
 * A tile is m rows of a quarter of a panel, 2 x 2 sums a vector: m integer sums and m of FP32 stay
 * in registers. The canonical chain runs on them as they are: a scale is that of a column in both
 * rows, an activation scale that of a row in both columns. */
#include "gemm_mm_neon.h"
#include "i8_neon.h"

/* The pass's rows, in pairs. */
typedef struct rows {
  int8x16_t q[FP4_STRETCH / 8][FP4_PAIRS];
  float32x4_t d[FP4_STRETCH / 32][FP4_PAIRS];
} rows;

FP4_INLINE void pair_rows(const fp4moe_matmul *t, const fp4_pass *at, size_t m, rows *to) {
  FP4_UNROLL for (size_t i = 0; i < (m + 1) / 2; i++) {
    const size_t first = at->row + 2 * i, second = at->row + fp4_second(i, m);
    const fp4_i8_row a = fp4_i8_row_at(t->rows[first], t->row_k, t->k0 + at->k);
    const fp4_i8_row b = fp4_i8_row_at(t->rows[second], t->row_k, t->k0 + at->k);
    for (size_t k = 0; k < at->columns; k += 16) {
      const int64x2_t x = vreinterpretq_s64_s8(vld1q_s8(a.q + k));
      const int64x2_t y = vreinterpretq_s64_s8(vld1q_s8(b.q + k));
      to->q[k / 8][i] = vreinterpretq_s8_s64(vzip1q_s64(x, y));
      to->q[k / 8 + 1][i] = vreinterpretq_s8_s64(vzip2q_s64(x, y));
    }
    for (size_t k = 0; k < at->columns; k += 32)
      to->d[k / 32][i] = vcombine_f32(vdup_n_f32(a.d[k / 32]), vdup_n_f32(b.d[k / 32]));
  }
}

/* b[i][c] = exact sums of one group: pairs of rows, two pairs of columns at w. */
FP4_INLINE void group_sums(const int8_t *w, size_t group, size_t pairs,
                           const int8x16_t (*q)[FP4_PAIRS], float32x4_t b[FP4_PAIRS][2]) {
  int32x4_t sum[FP4_PAIRS][2];
  FP4_UNROLL for (size_t i = 0; i < 2 * pairs; i++) sum[i / 2][i % 2] = fp4_load_anew(fp4_offset);
  FP4_UNROLL for (size_t k = 0; k < group / 8; k++) {
    const int8x16_t x = vld1q_s8(w + 128 * k), y = vld1q_s8(w + 128 * k + 16);
    FP4_UNROLL for (size_t i = 0; i < pairs; i++) {
      sum[i][0] = vmmlaq_s32(sum[i][0], q[k][i], x);
      sum[i][1] = vmmlaq_s32(sum[i][1], q[k][i], y);
    }
  }
  FP4_UNROLL for (size_t i = 0; i < 2 * pairs; i++) b[i / 2][i % 2] =
      fp4_without_offset(sum[i / 2][i % 2]);
}

/* The scales of two columns, in both rows. */
FP4_INLINE float32x4_t scales_at(const float *s) {
  const float32x2_t two = vld1_f32(s);
  return vcombine_f32(two, two);
}

/* A block of n columns, 32 or the 16 at the end of a row, into the sums of a quarter; w: its codes,
 * s: its scales. */
FP4_INLINE void block(const int8_t *w, const float *s, size_t n, size_t group, size_t pairs,
                      const int8x16_t (*q)[FP4_PAIRS], const float32x4_t *d,
                      float32x4_t (*acc)[2]) {
  const size_t step = 16 * group + 64;
  const int two = group == FP4_NV_GROUP && n == 32;
  float32x4_t b[FP4_PAIRS][2], t[FP4_PAIRS][2];
  group_sums(w, group, pairs, q, b);
  FP4_UNROLL for (size_t c = 0; c < 2; c++) {
    const float32x4_t scale = scales_at(s + 2 * c);
    FP4_UNROLL for (size_t i = 0; i < pairs; i++) {
      if (group == FP4_MX_GROUP)
        acc[i][c] = vfmaq_f32(acc[i][c], b[i][c], vmulq_f32(d[i], scale));
      else
        t[i][c] = vmulq_f32(b[i][c], scale);
    }
  }
  if (group == FP4_MX_GROUP) return;
  if (two) group_sums(w + step, group, pairs, q + 2, b);
  FP4_UNROLL for (size_t c = 0; c < 2; c++) {
    const float32x4_t scale = scales_at(s + (two ? step / 4 : 0) + 2 * c);
    FP4_UNROLL for (size_t i = 0; i < pairs; i++) {
      if (two) t[i][c] = vfmaq_f32(t[i][c], b[i][c], scale);
      acc[i][c] = vfmaq_f32(acc[i][c], t[i][c], d[i]);
    }
  }
}

FP4_INLINE void quarter(const fp4_pass *at, const rows *a, const int8_t *w, const float *s,
                        size_t group, size_t m, float *out, size_t stride) {
  const size_t pairs = (m + 1) / 2, step = 32 / group * (16 * group + 64);
  const int8x16_t(*q)[FP4_PAIRS] = a->q;
  const float32x4_t(*d)[FP4_PAIRS] = a->d;
  float32x4_t acc[FP4_PAIRS][2];
  FP4_UNROLL for (size_t i = 0; i < pairs; i++)
      fp4_load_tiles(out, stride, m, i, 2, at->fresh, acc[i]);
  size_t k = 0;
  for (; k + 32 <= at->columns; k += 32, w += step, s += step / 4, q += 4, d++)
    block(w, s, 32, group, pairs, q, *d, acc);
  if (group == FP4_NV_GROUP && k < at->columns) block(w, s, 16, group, pairs, q, *d, acc);
  FP4_UNROLL for (size_t i = 0; i < pairs; i++) fp4_store_tiles(out, stride, m, i, 2, acc[i]);
}

/* group and m are constants where this is expanded. */
FP4_INLINE void pass_s8x8(const fp4moe_matmul *t, const fp4_pass *at, size_t group, size_t m) {
  rows a;
  pair_rows(t, at, m, &a);
  for (size_t i = 0; i < FP4_QUARTERS * t->panels; i++) {
    const uint8_t *w =
        t->weights + i / 4 * t->weights_stride + fp4_unpacked_bytes(FP4MOE_ACT_I8, at->k, group);
    const float *s = (const float *)(const void *)(w + 16 * group) + i % 4 * 4;
    quarter(at, &a, (const int8_t *)w + i % 4 * 32, s, group, m,
            t->acc + at->row * t->acc_stride + 4 * i, t->acc_stride);
  }
}

#define MX_S8X8(t, at, m) pass_s8x8(t, at, FP4_MX_GROUP, m)
#define NV_S8X8(t, at, m) pass_s8x8(t, at, FP4_NV_GROUP, m)

FP4_GEMM_VARIANT(mx_s8x8, i8mm, MX_S8X8)
FP4_GEMM_VARIANT(nv_s8x8, i8mm, NV_S8X8)
