/* gemm_i8mm.c - many int8 rows against panels of form s8x8, two rows by two columns an SMMLA.
 *
 * A tile is m rows of half a panel; within a block its columns pass in two parts, so that integer
 * sums take m registers beside 2m of FP32. The canonical chain runs on tiles as they are: a scale
 * is that of a column in both rows, an activation scale that of a row in both columns. */
#include "gemm_mm_neon.h"
#include "quant.h"

enum { BLOCKS = FP4_STRETCH / 32 };

/* The pass's rows, in pairs. */
typedef struct rows {
  int8x16_t q[FP4_STRETCH / 8][FP4_PAIRS];
  float32x4_t d[BLOCKS][FP4_PAIRS];
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

/* b[i][c] = exact sums of one group: pairs of rows, two tiles of columns at w. */
FP4_INLINE void group_sums(const int8_t *w, size_t group, size_t pairs,
                           const int8x16_t (*q)[FP4_PAIRS], int32x4_t b[FP4_PAIRS][2]) {
  FP4_UNROLL for (size_t i = 0; i < pairs; i++) b[i][0] = b[i][1] = vdupq_n_s32(0);
  FP4_UNROLL for (size_t k = 0; k < group / 8; k++) {
    FP4_UNROLL for (size_t c = 0; c < 2; c++) {
      const int8x16_t x = vld1q_s8(w + 128 * k + 16 * c);
      FP4_UNROLL for (size_t i = 0; i < pairs; i++) b[i][c] = vmmlaq_s32(b[i][c], q[k][i], x);
    }
  }
}

/* The scales of two columns, in both rows. */
FP4_INLINE float32x4_t scales_at(const int8_t *s) {
  const float32x2_t two = vld1_f32((const float *)(const void *)s);
  return vcombine_f32(two, two);
}

/* A block of n columns, 32 or the 16 at the end of a row, into the sums of two tiles of columns at
 * w; s: the first scale of those columns. */
FP4_INLINE void block(const int8_t *w, const int8_t *s, size_t n, size_t group, size_t pairs,
                      const int8x16_t (*q)[FP4_PAIRS], const float32x4_t *d,
                      float32x4_t (*acc)[FP4_TILES]) {
  const size_t step = 16 * group + 64;
  int32x4_t b0[FP4_PAIRS][2], b1[FP4_PAIRS][2];
  const int two = group == FP4_NV_GROUP && n == 32;
  group_sums(w, group, pairs, q, b0);
  if (two) group_sums(w + step, group, pairs, q + 2, b1);
  FP4_UNROLL for (size_t c = 0; c < 2; c++) {
    const float32x4_t s0 = scales_at(s + 8 * c), s1 = two ? scales_at(s + step + 8 * c) : s0;
    FP4_UNROLL for (size_t i = 0; i < pairs; i++) {
      const float32x4_t x = vcvtq_f32_s32(b0[i][c]);
      if (group == FP4_MX_GROUP) {
        acc[i][c] = vfmaq_f32(acc[i][c], x, vmulq_f32(d[i], s0));
      } else {
        float32x4_t sum = vmulq_f32(x, s0);
        if (two) sum = vfmaq_f32(sum, vcvtq_f32_s32(b1[i][c]), s1);
        acc[i][c] = vfmaq_f32(acc[i][c], sum, d[i]);
      }
    }
  }
}

FP4_INLINE void half_panel(const fp4_pass *at, const rows *a, const int8_t *w, size_t group,
                           size_t m, size_t h, float *out, size_t stride) {
  const size_t pairs = (m + 1) / 2, step = 32 / group * (16 * group + 64);
  const int8_t *s = w + 16 * group + 32 * h;
  float32x4_t acc[2][FP4_PAIRS][FP4_TILES];
  w += 64 * h;
  FP4_UNROLL for (size_t i = 0; i < pairs; i++) {
    float32x4_t tile[FP4_TILES];
    fp4_load_tiles(out, stride, m, i, at->fresh, tile);
    FP4_UNROLL for (size_t c = 0; c < FP4_TILES; c++) acc[c / 2][i][c % 2] = tile[c];
  }
  size_t k = 0;
  for (; k + 32 <= at->columns; k += 32, w += step, s += step) {
    FP4_UNROLL for (size_t c = 0; c < 2; c++)
        block(w + 32 * c, s + 16 * c, 32, group, pairs, a->q + k / 8, a->d[k / 32], acc[c]);
  }
  if (group == FP4_NV_GROUP && k < at->columns)
    FP4_UNROLL for (size_t c = 0; c < 2; c++)
        block(w + 32 * c, s + 16 * c, 16, group, pairs, a->q + k / 8, a->d[k / 32], acc[c]);
  FP4_UNROLL for (size_t i = 0; i < pairs; i++) {
    float32x4_t tile[FP4_TILES];
    FP4_UNROLL for (size_t c = 0; c < FP4_TILES; c++) tile[c] = acc[c / 2][i][c % 2];
    fp4_store_tiles(out, stride, m, i, tile);
  }
}

/* group and m are constants where this is expanded. */
FP4_INLINE void pass_s8x8(const fp4moe_matmul *t, const fp4_pass *at, size_t group, size_t m) {
  const size_t bytes = fp4_unpacked_bytes(FP4MOE_ACT_I8, at->k, group);
  rows a;
  pair_rows(t, at, m, &a);
  for (size_t h = 0; h < 2 * t->panels; h++) {
    const uint8_t *panel = t->weights + h / 2 * t->weights_stride + bytes;
    half_panel(at, &a, (const int8_t *)panel, group, m, h % 2,
               t->acc + at->row * t->acc_stride + 8 * h, t->acc_stride);
  }
}

#define MX_S8X8(t, at, m) pass_s8x8(t, at, FP4_MX_GROUP, m)
#define NV_S8X8(t, at, m) pass_s8x8(t, at, FP4_NV_GROUP, m)

FP4_GEMM_VARIANT(mx_s8x8, i8mm, MX_S8X8)
FP4_GEMM_VARIANT(nv_s8x8, i8mm, NV_S8X8)
