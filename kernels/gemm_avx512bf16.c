/* gemm_avx512bf16.c - many rows against unpacked BF16 panels.
 *
 * A tile keeps m x np accumulators of 16 columns in registers over all k of the call: one chain of
 * VDPBF16PS per output, k ascending in the order of layout.h. Lane j is output row j of the panel,
 * an activation pair is one 32-bit broadcast. Every tile shape has that one order, so bits depend
 * neither on m nor on which row of kernels.inc ran.
 *
 * Column tiles run outside, row tiles inside: np panels stay in L2 while all rows pass. Rows are
 * cut evenly (9 rows at mr 8 are 5 + 4): a tile of one row would wait for its own chain. */
#include "decode_avx512.h"
#include "kernel.h"

enum {
  MAX_MR = 14,
  MAX_NP = 4,
  STRETCH = 128, /* k between two looks at what is to be prefetched */
};

/* A tile's corner, and its share of `next`. */
typedef struct place {
  size_t row, panel;
  const uint8_t *soon;
  size_t soon_bytes; /* per stretch of k */
} place;

typedef void tile_fn(const fp4moe_matmul *t, const place *at);

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

#define NAME(m, np) gemm_bf16_##m##x##np##_panels_avx512bf16
#define TILE(m, np)                                                                                \
  static void NAME(m, np)(const fp4moe_matmul *t, const place *at) { tile(t, at, m, np); }
#define UP_TO_6(X, np)  X(1, np) X(2, np) X(3, np) X(4, np) X(5, np) X(6, np)
#define UP_TO_8(X, np)  UP_TO_6(X, np) X(7, np) X(8, np)
#define UP_TO_14(X, np) UP_TO_8(X, np) X(9, np) X(10, np) X(11, np) X(12, np) X(13, np) X(14, np)

UP_TO_14(TILE, 1)
UP_TO_14(TILE, 2)
UP_TO_8(TILE, 3)
UP_TO_6(TILE, 4)

#define ENTRY(m, np) [np - 1][m - 1] = NAME(m, np),
static tile_fn *const tiles[MAX_NP][MAX_MR] = {UP_TO_14(ENTRY, 1) UP_TO_14(ENTRY, 2)
                                                   UP_TO_8(ENTRY, 3) UP_TO_6(ENTRY, 4)};

FP4_INLINE void gemm(const fp4moe_matmul *t, size_t mr, size_t nr) {
  const size_t width = nr / 16, row_tiles = (t->m + mr - 1) / mr;
  const size_t stretches = (t->k + STRETCH - 1) / STRETCH;
  const size_t shares = (t->panels + width - 1) / width * row_tiles * stretches;
  place at = {.soon = t->next, .soon_bytes = (t->next_bytes + shares - 1) / shares};
  for (at.panel = 0; at.panel < t->panels; at.panel += width) {
    const size_t left = t->panels - at.panel, np = left < width ? left : width;
    at.row = 0;
    for (size_t tiles_left = row_tiles; tiles_left; tiles_left--) {
      const size_t m = (t->m - at.row + tiles_left - 1) / tiles_left;
      tiles[np - 1][m - 1](t, &at);
      at.row += m;
      at.soon += at.soon_bytes * stretches;
    }
  }
}

#define VARIANT(mr, nr)                                                                            \
  void fp4moe_gemm_bf16_##mr##x##nr##_avx512bf16(const fp4moe_matmul *t) { gemm(t, mr, nr); }

VARIANT(8, 48)
VARIANT(14, 32)
VARIANT(6, 64)
