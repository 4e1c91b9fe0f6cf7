/* gemm_avx512bf16.c - many rows against unpacked BF16 panels.
 *
 * A tile keeps m x np accumulators of 16 columns in registers over all k of the call: one chain of
 * VDPBF16PS per output, k ascending in the order of layout.h. Lane j is output row j of the panel,
 * an activation pair is one 32-bit broadcast. Every tile shape has that one order, so bits depend
 * neither on m nor on which row of kernels.inc ran. */
#include "decode_avx512.h"
#include "gemm_tiles.h"

/* m and np are constants where this is expanded. */
FP4_INLINE void tile(const fp4moe_matmul *t, const place *at, size_t m, size_t np) {
  const size_t ws = t->weights_stride;
  const uint8_t *w = t->weights + at->panel * ws, *soon = at->soon;
  float *out = t->acc + at->row * t->acc_stride + 16 * at->panel;
  const char *a[MAX_MR];
  __m512 acc[MAX_MR][MAX_NP];
  FP4_UNROLL for (size_t r = 0; r < m; r++) {
    a[r] = (const char *)t->rows[at->row + r] + 2 * t->k0;
    FP4_UNROLL for (size_t p = 0; p < np; p++) acc[r][p] =
        t->resume ? _mm512_load_ps(out + r * t->acc_stride + 16 * p) : _mm512_setzero_ps();
  }
  for (size_t k = 0, stop; k < t->k; k = stop) {
    stop = t->k - k < STRETCH ? t->k : k + STRETCH;
    for (size_t i = 0; i < at->soon_bytes; i += 64)
      _mm_prefetch((const char *)soon + i, _MM_HINT_T1);
    soon += at->soon_bytes;
    for (size_t k2 = 2 * k; k2 < 2 * stop; k2 += 16, w += 256) {
      /* More pointers than registers: reload them, or they come to be kept in vector registers. */
      if (m > 10) __asm__("" : "+m"(a));
      FP4_UNROLL for (size_t i = 0; i < 4; i++) {
        __m512i b[MAX_NP];
        FP4_UNROLL for (size_t p = 0; p < np; p++) b[p] = _mm512_load_si512(w + p * ws + 64 * i);
        FP4_UNROLL for (size_t r = 0; r < m; r++) {
          const __m512i pair = fp4_pair_everywhere(a[r] + k2 + 4 * i);
          FP4_UNROLL for (size_t p = 0; p < np; p++) acc[r][p] =
              _mm512_dpbf16_ps(acc[r][p], (__m512bh)b[p], (__m512bh)pair);
        }
      }
    }
  }
  FP4_UNROLL for (size_t r = 0; r < m; r++) {
    FP4_UNROLL for (size_t p = 0; p < np; p++)
        _mm512_store_ps(out + r * t->acc_stride + 16 * p, acc[r][p]);
  }
}

#define NAME(a, m, np) gemm_##a##_##m##x##np##_panels_avx512bf16
#define TILE(a, m, np)                                                                             \
  static void NAME(a, m, np)(const fp4moe_matmul *t, const place *at) { tile(t, at, m, np); }
TILES_ALL(TILE, bf16)

#define ENTRY(a, m, np) [np - 1][m - 1] = NAME(a, m, np),
static tile_fn *const tiles[MAX_NP][MAX_MR] = {TILES_ALL(ENTRY, bf16)};

#define VARIANT(mr, nr)                                                                            \
  void fp4moe_gemm_bf16_##mr##x##nr##_avx512bf16(const fp4moe_matmul *t) {                         \
    gemm_tiles(t, tiles, mr, nr);                                                                  \
  }

VARIANT(8, 48)
VARIANT(14, 32)
VARIANT(6, 64)
