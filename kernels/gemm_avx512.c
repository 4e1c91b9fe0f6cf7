/* gemm_avx512.c - many rows against unpacked panels of FP32, or of BF16 widened on the way.
 *
 * A tile keeps m x np accumulators of 16 columns in registers over all k of the call: one chain of
 * FMAs per output, k ascending in the order in which the class holds its columns (layout.h). Lane j
 * is output row j of the panel, an activation is one 32-bit broadcast. Every tile shape has that
 * one order, so bits depend neither on m nor on which row of kernels.inc ran.
 *
 * Class bf16 costs FMAs of FP32 and half the bytes. A vector of weight pairs becomes two, lower and
 * upper halves, beside the FMAs; rows are widened into `wide` one step ahead. */
#include "decode_avx512.h"
#include "gemm_tiles.h"

enum { STEP = 16 }; /* k that are widened at once */

/* Bytes of one column of a panel, and of a row. */
FP4_INLINE size_t panel_column(fp4moe_act_class act) { return act == FP4MOE_ACT_F32 ? 64 : 32; }
FP4_INLINE size_t row_column(fp4moe_act_class act) { return act == FP4MOE_ACT_F32 ? 4 : 2; }

/* Column k of a panel. */
FP4_INLINE __m512 weights(fp4moe_act_class act, const uint8_t *w, size_t k) {
  if (act == FP4MOE_ACT_F32) return _mm512_load_ps(w + 64 * k);
  const __m512i pair = _mm512_load_si512(w + 64 * (k / 2));
  return _mm512_castsi512_ps(k % 2 ? _mm512_and_si512(pair, _mm512_set1_epi32((int)0xffff0000))
                                   : _mm512_slli_epi32(pair, 16));
}

/* act, m and np are constants where this is expanded. */
FP4_INLINE void tile(const fp4moe_matmul *t, const place *at, fp4moe_act_class act, size_t m,
                     size_t np) {
  const size_t ws = t->weights_stride;
  const uint8_t *w = t->weights + at->panel * ws, *soon = at->soon;
  float *out = t->acc + at->row * t->acc_stride + 16 * at->panel;
  _Alignas(64) float wide[2][MAX_MR][STEP]; /* this step and the next */
  const char *a[MAX_MR];
  __m512 acc[MAX_MR][MAX_NP];
  FP4_UNROLL for (size_t r = 0; r < m; r++) {
    a[r] = (const char *)t->rows[at->row + r] + row_column(act) * t->k0;
    FP4_UNROLL for (size_t p = 0; p < np; p++) acc[r][p] =
        t->resume ? _mm512_load_ps(out + r * t->acc_stride + 16 * p) : _mm512_setzero_ps();
  }
  if (act == FP4MOE_ACT_BF16)
    for (size_t r = 0; r < m; r++) fp4_widen16(a[r], wide[0][r]);
  for (size_t k = 0; k < t->k; k += STEP) {
    const size_t odd = k / STEP % 2;
    if (k % STRETCH == 0) {
      for (size_t i = 0; i < at->soon_bytes; i += 64)
        _mm_prefetch((const char *)soon + i, _MM_HINT_T1);
      soon += at->soon_bytes;
    }
    if (act == FP4MOE_ACT_BF16 && k + STEP < t->k)
      for (size_t r = 0; r < m; r++) fp4_widen16(a[r] + 2 * (k + STEP), wide[!odd][r]);
    for (size_t i = 0; i < STEP; i += 4, w += 4 * panel_column(act)) {
      FP4_UNROLL for (size_t j = 0; j < 4; j++) {
        /* More row pointers than registers: reload them, or they come to be kept in vector
         * registers; and no weights ahead of their turn, which would push out accumulators. */
        if (m > 10) __asm__("" : "+m"(a) : : "memory");
        __m512 b[MAX_NP];
        FP4_UNROLL for (size_t p = 0; p < np; p++) b[p] = weights(act, w + p * ws, j);
        FP4_UNROLL for (size_t r = 0; r < m; r++) {
          const void *there = a[r] + 4 * (k + i + j);
          const float *x =
              act == FP4MOE_ACT_F32 ? there : &wide[odd][r][i / 2 + fp4_wide_place(j / 2, j % 2)];
          const __m512 one = _mm512_set1_ps(*x);
          FP4_UNROLL for (size_t p = 0; p < np; p++) acc[r][p] =
              _mm512_fmadd_ps(b[p], one, acc[r][p]);
        }
      }
    }
  }
  FP4_UNROLL for (size_t r = 0; r < m; r++) {
    FP4_UNROLL for (size_t p = 0; p < np; p++)
        _mm512_store_ps(out + r * t->acc_stride + 16 * p, acc[r][p]);
  }
}

#define NAME(a, m, np) gemm_##a##_##m##x##np##_panels_avx512
#define TILE(a, m, np)                                                                             \
  static void NAME(a, m, np)(const fp4moe_matmul *t, const place *at) {                            \
    tile(t, at, CLASS_##a, m, np);                                                                 \
  }
#define CLASS_f32  FP4MOE_ACT_F32
#define CLASS_bf16 FP4MOE_ACT_BF16

TILES_ALL(TILE, f32)
TILES_ALL(TILE, bf16)

#define ENTRY(a, m, np) [np - 1][m - 1] = NAME(a, m, np),
static tile_fn *const tiles_f32[MAX_NP][MAX_MR] = {TILES_ALL(ENTRY, f32)};
static tile_fn *const tiles_bf16[MAX_NP][MAX_MR] = {TILES_ALL(ENTRY, bf16)};

#define VARIANT(a, mr, nr)                                                                         \
  void fp4moe_gemm_##a##_##mr##x##nr##_avx512(const fp4moe_matmul *t) {                            \
    gemm_tiles(t, tiles_##a, mr, nr);                                                              \
  }

VARIANT(f32, 8, 48)
VARIANT(f32, 14, 32)
VARIANT(f32, 6, 64)
VARIANT(bf16, 8, 48)
VARIANT(bf16, 14, 32)
VARIANT(bf16, 6, 64)
