/* gemm_bf16neon.c - many BF16 rows against panels of form bf16x4, two rows by two columns a BFMMLA.
 *
 * A tile is m rows of half a panel, 2m accumulators. BFMMLA adds four columns in two steps, each
 * the sum of a pair and then that to the sum so far, rounding to odd and taking subnormals to zero
 * (less than one unit of 2^-23 a step). */
#include "gemm_mm_neon.h"

typedef bfloat16x8_t rows[FP4_STRETCH / 4][FP4_PAIRS];

FP4_INLINE void pair_rows(const fp4moe_matmul *t, const fp4_pass *at, size_t m, rows to) {
  FP4_UNROLL for (size_t i = 0; i < (m + 1) / 2; i++) {
    const uint16_t *a = (const uint16_t *)t->rows[at->row + 2 * i] + t->k0 + at->k;
    const uint16_t *b = (const uint16_t *)t->rows[at->row + fp4_second(i, m)] + t->k0 + at->k;
    for (size_t k = 0; k < at->columns; k += 8) {
      const uint64x2_t x = vreinterpretq_u64_u16(vld1q_u16(a + k));
      const uint64x2_t y = vreinterpretq_u64_u16(vld1q_u16(b + k));
      to[k / 4][i] = vreinterpretq_bf16_u64(vzip1q_u64(x, y));
      to[k / 4 + 1][i] = vreinterpretq_bf16_u64(vzip2q_u64(x, y));
    }
  }
}

FP4_INLINE void half_panel(const fp4_pass *at, const bfloat16x8_t (*a)[FP4_PAIRS],
                           const uint8_t *panel, size_t m, float *out, size_t stride) {
  const bfloat16_t *w = (const bfloat16_t *)(const void *)panel;
  const size_t pairs = (m + 1) / 2;
  float32x4_t acc[FP4_PAIRS][FP4_TILES];
  FP4_UNROLL for (size_t i = 0; i < pairs; i++)
      fp4_load_tiles(out, stride, m, i, FP4_TILES, at->fresh, acc[i]);
  for (size_t k = 0; k < at->columns; k += 4, w += 64) {
    FP4_UNROLL for (size_t c = 0; c < FP4_TILES; c++) {
      const bfloat16x8_t b = vld1q_bf16(w + 8 * c);
      FP4_UNROLL for (size_t i = 0; i < pairs; i++) acc[i][c] =
          vbfmmlaq_f32(acc[i][c], a[k / 4][i], b);
    }
  }
  FP4_UNROLL for (size_t i = 0; i < pairs; i++)
      fp4_store_tiles(out, stride, m, i, FP4_TILES, acc[i]);
}

/* m is a constant where this is expanded. */
FP4_INLINE void pass_bf16x4(const fp4moe_matmul *t, const fp4_pass *at, size_t m) {
  rows a;
  pair_rows(t, at, m, a);
  for (size_t h = 0; h < 2 * t->panels; h++)
    half_panel(at, (const bfloat16x8_t(*)[FP4_PAIRS])a,
               t->weights + h / 2 * t->weights_stride + 32 * at->k + h % 2 * 64, m,
               t->acc + at->row * t->acc_stride + 8 * h, t->acc_stride);
}

FP4_GEMM_VARIANT(bf16x4, bf16neon, pass_bf16x4)
