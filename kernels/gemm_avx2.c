/* gemm_avx2.c - many rows against unpacked panels of FP32, or of BF16 widened on the way.
 *
 * A tile keeps m x 16 sums in registers over all k of the call: one chain of FMAs per output, k
 * ascending in the order in which the class holds its columns (layout.h). Lane j is output row j of
 * a half panel, an activation is one 32-bit broadcast. Every tile shape has that one order, so bits
 * depend neither on m nor on which row of kernels.inc ran.
 *
 * Class bf16 costs the FMAs of f32 and half its bytes. A vector of weight pairs becomes two, lower
 * and upper halves, beside the FMAs; rows are widened one step ahead. */
#include "decode_avx2.h"
#include "gemm_tiles.h"

enum { STEP = 16, MR = 6 }; /* k that are widened at once; rows that 16 registers hold */

/* Bytes of one column of a panel, and of a row. */
FP4_INLINE size_t panel_column(fp4moe_act_class act) { return act == FP4MOE_ACT_F32 ? 64 : 32; }
FP4_INLINE size_t row_column(fp4moe_act_class act) { return act == FP4MOE_ACT_F32 ? 4 : 2; }

FP4_INLINE void widen(const char *row, float wide[STEP]) {
  FP4_UNROLL for (size_t i = 0; i < STEP; i += 8) {
    const __m128i x = _mm_load_si128((const __m128i *)(const void *)(row + 2 * i));
    _mm256_store_ps(wide + i, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16)));
  }
}

/* Column k of half a panel. */
FP4_INLINE __m256 weights(fp4moe_act_class act, const uint8_t *w, size_t k) {
  if (act == FP4MOE_ACT_F32) return _mm256_load_ps((const float *)(const void *)(w + 64 * k));
  const __m256i pair = fp4_load_bytes(w + 64 * (k / 2));
  return k % 2 ? fp4_upper_f32(pair) : fp4_lower_f32(pair);
}

/* act and m are constants where this is expanded. */
FP4_INLINE void tile(const fp4moe_matmul *t, const place *at, fp4moe_act_class act, size_t m) {
  const uint8_t *w = t->weights + at->panel * t->weights_stride, *soon = at->soon;
  float *out = t->acc + at->row * t->acc_stride + 16 * at->panel;
  _Alignas(32) float wide[2][MR][STEP]; /* this step and the next */
  const char *a[MR];
  __m256 acc[MR][2];
  FP4_UNROLL for (size_t r = 0; r < m; r++) {
    a[r] = (const char *)t->rows[at->row + r] + row_column(act) * t->k0;
    FP4_UNROLL for (size_t h = 0; h < 2; h++) acc[r][h] =
        t->resume ? _mm256_load_ps(out + r * t->acc_stride + 8 * h) : _mm256_setzero_ps();
    if (act == FP4MOE_ACT_BF16) widen(a[r], wide[0][r]);
  }
  for (size_t k = 0; k < t->k; k += STEP) {
    const size_t odd = k / STEP % 2;
    if (k % STRETCH == 0) {
      for (size_t i = 0; i < at->soon_bytes; i += 64)
        _mm_prefetch((const char *)soon + i, _MM_HINT_T1);
      soon += at->soon_bytes;
    }
    if (act == FP4MOE_ACT_BF16 && k + STEP < t->k)
      for (size_t r = 0; r < m; r++) widen(a[r] + 2 * (k + STEP), wide[!odd][r]);
    for (size_t i = 0; i < STEP; i += 4, w += 4 * panel_column(act)) {
      FP4_UNROLL for (size_t j = 0; j < 4; j++) {
        const __m256 b[2] = {weights(act, w, j), weights(act, w + 32, j)};
        FP4_UNROLL for (size_t r = 0; r < m; r++) {
          const void *there = a[r] + 4 * (k + i + j);
          const float *x = act == FP4MOE_ACT_F32 ? there : &wide[odd][r][i + j];
          const __m256 one = _mm256_broadcast_ss(x);
          FP4_UNROLL for (size_t h = 0; h < 2; h++) acc[r][h] =
              _mm256_fmadd_ps(b[h], one, acc[r][h]);
        }
      }
    }
  }
  FP4_UNROLL for (size_t r = 0; r < m; r++) {
    FP4_UNROLL for (size_t h = 0; h < 2; h++)
        _mm256_store_ps(out + r * t->acc_stride + 8 * h, acc[r][h]);
  }
}

#define NAME(a, m, np) gemm_##a##_##m##x##np##_panels_avx2
#define TILE(a, m, np)                                                                             \
  static void NAME(a, m, np)(const fp4moe_matmul *t, const place *at) { tile(t, at, CLASS_##a, m); }
#define CLASS_f32  FP4MOE_ACT_F32
#define CLASS_bf16 FP4MOE_ACT_BF16
UP_TO_6(TILE, f32, 1)
UP_TO_6(TILE, bf16, 1)

#define ENTRY(a, m, np) [np - 1][m - 1] = NAME(a, m, np),
static tile_fn *const tiles_f32[MAX_NP][MAX_MR] = {UP_TO_6(ENTRY, f32, 1)};
static tile_fn *const tiles_bf16[MAX_NP][MAX_MR] = {UP_TO_6(ENTRY, bf16, 1)};

void fp4moe_gemm_f32_6x16_avx2(const fp4moe_matmul *t) { gemm_tiles(t, tiles_f32, MR, 16); }

void fp4moe_gemm_bf16_6x16_avx2(const fp4moe_matmul *t) { gemm_tiles(t, tiles_bf16, MR, 16); }
