/* gemm_mm_neon.h - sums in tiles of two rows by two columns, as SMMLA and BFMMLA make them.
 *
 * Lanes of a tile: (row 0, column 0), (0, 1), (1, 0), (1, 1). Rows pass in pairs, side by side in
 * one vector; the last of an odd number is its own neighbour and leaves one half of its tile. */
#ifndef FP4MOE_GEMM_MM_NEON_H
#define FP4MOE_GEMM_MM_NEON_H

#include "gemm_neon.h"

enum { FP4_PAIRS = FP4_ROWS / 2, FP4_TILES = 4 /* of half a panel */ };

/* Rows 2i and 2i + 1 of m. */
FP4_INLINE size_t fp4_second(size_t i, size_t m) { return 2 * i + 1 < m ? 2 * i + 1 : 2 * i; }

/* n tiles of rows 2i, 2i + 1: 2n columns from out. */
FP4_INLINE void fp4_load_tiles(const float *out, size_t stride, size_t m, size_t i, size_t n,
                               int fresh, float32x4_t *tile) {
  FP4_UNROLL for (size_t c = 0; c < n; c++) {
    const float *a = out + 2 * i * stride + 2 * c, *b = out + fp4_second(i, m) * stride + 2 * c;
    tile[c] = fresh ? vdupq_n_f32(0) : vcombine_f32(vld1_f32(a), vld1_f32(b));
  }
}

FP4_INLINE void fp4_store_tiles(float *out, size_t stride, size_t m, size_t i, size_t n,
                                const float32x4_t *tile) {
  FP4_UNROLL for (size_t c = 0; c < n; c++) {
    vst1_f32(out + 2 * i * stride + 2 * c, vget_low_f32(tile[c]));
    if (2 * i + 1 < m) vst1_f32(out + (2 * i + 1) * stride + 2 * c, vget_high_f32(tile[c]));
  }
}

#endif
