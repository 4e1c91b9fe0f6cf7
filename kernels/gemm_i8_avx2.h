/* gemm_i8_avx2.h - many int8 rows against unpacked u8 panels, the canonical chain of class i8: one
 * body for every dot of 256 bits that expands it.
 *
 * A tile is m rows x one panel over all k of the call; the integer sums of a group are in
 * registers, the FP32 sums beside them in L1, touched once in 32 k. Whether a call is quick is
 * known before its first tile (matmul_i8_avx2.h). */
#ifndef FP4MOE_GEMM_I8_AVX2_H
#define FP4MOE_GEMM_I8_AVX2_H

#include <string.h>

#include "gemm_tiles.h"
#include "matmul_i8_avx2.h"

/* of and m are constants where this is expanded. */
FP4_INLINE void fp4_gemm_tile(const fp4moe_matmul *t, const place *at, size_t m, fp4_i8_kind of) {
  const uint8_t *w = t->weights + at->panel * t->weights_stride, *soon = at->soon;
  float *out = t->acc + at->row * t->acc_stride + 16 * at->panel;
  const size_t step = 32 / of.group * fp4_codes_step(of), scales = 16 * of.group;
  fp4_parts to = fp4_parts_at(t->row_k, t->k0);
  const char *row[FP4_I8_M];
  __m256 acc[FP4_I8_M][2];
  FP4_UNROLL for (size_t r = 0; r < m; r++) row[r] = t->rows[at->row + r];
  fp4_i8_begin(t, out, m, acc);
  size_t k = 0;
  for (; k + 32 <= t->k; k += 32, fp4_parts_step(&to), w += step) {
    if (k % STRETCH == 0) {
      for (size_t i = 0; i < at->soon_bytes; i += 64)
        _mm_prefetch((const char *)soon + i, _MM_HINT_T1);
      soon += at->soon_bytes;
    }
    fp4_i8_block(row, m, to, w, w + scales, 32, of, acc);
    __asm__("" : "+m"(acc)); /* stays in memory */
  }
  if (of.group == FP4_NV_GROUP && k < t->k) fp4_i8_block(row, m, to, w, w + scales, 16, of, acc);
  fp4_i8_end(t, out, m, acc);
}

/* ---- May a call of NV be quick? ---- */

/* Is every activation scale of the call 2^-120 or more, and finite? */
static inline int fp4_d_normal(const fp4moe_matmul *t) {
  const size_t blocks = fp4_blocks32(t->k), first = fp4_parts_at(t->row_k, t->k0).d;
  uint32_t low = UINT32_MAX, high = 0;
  for (size_t r = 0; r < t->m; r++) {
    const char *d = (const char *)t->rows[r] + first;
    for (size_t i = 0; i < blocks; i++) {
      uint32_t bits;
      memcpy(&bits, d + 4 * i, 4);
      low = bits < low ? bits : low;
      high = bits > high ? bits : high;
    }
  }
  return low >= 7u << 23 && high < 255u << 23;
}

/* Is 64 times each of 16 scales an integer? Lanes of fractional are set where it is none. */
static inline __m256 fp4_look(const uint8_t *scales, __m256 fractional) {
  for (size_t h = 0; h < 2; h++) {
    const __m256 s = _mm256_load_ps((const float *)(const void *)scales + 8 * h);
    const __m256 rounded = _mm256_sub_ps(fp4_by_64ths(s), _mm256_set1_ps(0x1.8p17f));
    fractional = _mm256_or_ps(fractional, _mm256_cmp_ps(rounded, s, _CMP_NEQ_UQ));
  }
  return fractional;
}

static inline int fp4_i8_quick(const fp4moe_matmul *t) {
  const size_t step = 16 * FP4_NV_GROUP + 64;
  __m256 fractional = _mm256_setzero_ps();
  if (!fp4_d_normal(t)) return 0;
  for (size_t p = 0; p < t->panels; p++)
    for (size_t g = 0; g < t->k / FP4_NV_GROUP; g++)
      fractional = fp4_look(t->weights + p * t->weights_stride + (g + 1) * step - 64, fractional);
  return _mm256_movemask_ps(fractional) == 0;
}

/* ---- The rows of one format: tiles of 1 to mr rows, quick and plain ---- */

#define FP4_GEMM_NAME(w, m, isa, word) gemm_##w##_i8_##m##x16_panel_##word##_##isa
#define FP4_GEMM_TILE(w, group, m, isa, dot, word, quick)                                          \
  static void FP4_GEMM_NAME(w, m, isa, word)(const fp4moe_matmul *t, const place *at) {            \
    fp4_gemm_tile(t, at, m, (fp4_i8_kind){group, 0, dot, quick});                                  \
  }
#define FP4_GEMM_TILES(w, group, isa, dot, word, quick)                                            \
  FP4_GEMM_TILE(w, group, 1, isa, dot, word, quick)                                                \
  FP4_GEMM_TILE(w, group, 2, isa, dot, word, quick)                                                \
  FP4_GEMM_TILE(w, group, 3, isa, dot, word, quick)                                                \
  FP4_GEMM_TILE(w, group, 4, isa, dot, word, quick)                                                \
  FP4_GEMM_TILE(w, group, 5, isa, dot, word, quick)                                                \
  FP4_GEMM_TILE(w, group, 6, isa, dot, word, quick)                                                \
  static tile_fn *const tiles_##w##_##word[MAX_NP][MAX_MR] = {                                     \
      {FP4_GEMM_NAME(w, 1, isa, word), FP4_GEMM_NAME(w, 2, isa, word),                             \
       FP4_GEMM_NAME(w, 3, isa, word), FP4_GEMM_NAME(w, 4, isa, word),                             \
       FP4_GEMM_NAME(w, 5, isa, word), FP4_GEMM_NAME(w, 6, isa, word)}};

#define FP4_GEMM_VARIANT(w, mr, isa)                                                               \
  void fp4moe_gemm_##w##_i8_##mr##x16_##isa(const fp4moe_matmul *t) {                              \
    gemm_tiles(t, tiles_##w##_plain, mr, 16);                                                      \
  }

#endif
