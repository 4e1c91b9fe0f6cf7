/* gemv_avx2.c - few rows against FP4 panels: nibbles decoded in registers, FP32 multiply-adds.
 *
 * The two bytes of 32 BF16 weights, interleaved, are two vectors of row pairs: 32-bit lanes hold
 * (k0,k1) (k2,k3) of one row and then of the next. So a vector of their lower halves is two rows
 * in each 128 bits by k0 and k2, and meets the 64-bit broadcast of activations (k0,k2); the upper
 * halves meet (k1,k3). Rows 0 1 4 5 and rows 2 3 6 7 of half a panel have a chain each over a scale
 * block; VHADDPS adds neighbours and leaves the 8 rows in order. One FMA by the block scale adds
 * them to acc. So every E8M0 is served, and the sums of a row know nothing of m, of the other rows
 * or of the panel's place.
 *
 * Rows of either class are first put into FP32 in the order of layout.h, block by block. 16
 * registers hold the chains of 4 rows: more rows pass one after the other, panel by panel, which
 * stays in L1. */
#include <string.h>

#include "decode_avx2.h"
#include "kernel.h"

enum { MAX_M = 4 };

/* One block of a row as FP32, in the order of fp4_bf16_order. */
FP4_INLINE void widen(fp4moe_act_class act, const char *row, size_t group, float *wide) {
  const __m256i order = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
  FP4_UNROLL for (size_t i = 0; i < group; i += 8) {
    if (act == FP4MOE_ACT_F32) {
      const __m256 x = _mm256_load_ps((const float *)(const void *)row + i);
      _mm256_store_ps(wide + i, _mm256_permutevar8x32_ps(x, order));
    } else {
      const __m128i x = _mm_load_si128((const __m128i *)(const void *)(row + 2 * i));
      _mm256_store_ps(wide + i,
                      _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16)));
    }
  }
}

/* Two neighbours of a widened row in every 64 bits. */
FP4_INLINE __m256 two_everywhere(const float *wide) {
  return _mm256_castpd_ps(_mm256_broadcast_sd((const double *)(const void *)wide));
}

/* dot[r] += 8 rows x 8 k of a panel times row r, whose 8 k are at wide + r * FP4_MX_GROUP. */
FP4_INLINE void dots(__m256i x, size_t m, const float *wide, __m256 (*dot)[2]) {
  const fp4_nibbles n = fp4_split(x);
  __asm__("" : "+r"(wide)); /* or the other half's broadcasts of the same are kept, in memory */
  FP4_UNROLL for (size_t i = 0; i < 2; i++) {
    const __m256i codes = i ? n.hi : n.lo;
    const __m256i upper = fp4_upper_bytes(codes), lower = fp4_lower_bytes(codes);
    const __m256i pair[2] = {_mm256_unpacklo_epi8(lower, upper),
                             _mm256_unpackhi_epi8(lower, upper)};
    FP4_UNROLL for (size_t odd = 0; odd < 2; odd++) {
      __m256 w[2];
      FP4_UNROLL for (size_t c = 0; c < 2; c++) w[c] =
          odd ? fp4_upper_f32(pair[c]) : fp4_lower_f32(pair[c]);
      FP4_UNROLL for (size_t r = 0; r < m; r++) {
        const __m256 a = two_everywhere(wide + r * FP4_MX_GROUP + 4 * odd + 2 * i);
        FP4_UNROLL for (size_t c = 0; c < 2; c++) dot[r][c] = _mm256_fmadd_ps(w[c], a, dot[r][c]);
      }
    }
  }
}

/* Rows [row, row + m) against one panel; act, group and m are constants where this is expanded. */
FP4_INLINE void tile(const fp4moe_matmul *t, size_t panel, size_t row, fp4moe_act_class act,
                     size_t group, size_t m) {
  const uint8_t *w = t->weights + panel * t->weights_stride;
  const uint8_t *s = t->scales + panel * t->scales_stride;
  const size_t column = act == FP4MOE_ACT_F32 ? 4 : 2, ahead = t->prefetch;
  float *out = t->acc + row * t->acc_stride + 16 * panel;
  _Alignas(32) float wide[MAX_M][FP4_MX_GROUP], acc[MAX_M][16]; /* registers are for the chains */
  for (size_t r = 0; r < m; r++)
    if (t->resume)
      memcpy(acc[r], out + r * t->acc_stride, sizeof acc[r]);
    else
      memset(acc[r], 0, sizeof acc[r]);
  for (size_t k = 0; k < t->k; k += group, w += 8 * group, s += 16) {
    FP4_UNROLL for (size_t r = 0; r < m; r++)
        widen(act, (const char *)t->rows[row + r] + column * (t->k0 + k), group, wide[r]);
    _mm_prefetch((const char *)s + 2 * ahead / group, _MM_HINT_T1);
    FP4_UNROLL for (size_t v = 0; v < group; v += 8)
        _mm_prefetch((const char *)w + 8 * v + ahead, _MM_HINT_T1); /* mostly the next panel's */
    for (size_t h = 0; h < 16; h += 8) {
      __m256 dot[MAX_M][2];
      FP4_UNROLL for (size_t r = 0; r < m; r++) dot[r][0] = dot[r][1] = _mm256_setzero_ps();
      for (size_t v = 0; v < group; v += 8)
        dots(fp4_load_bytes(w + 8 * v + 4 * h), m, wide[0] + v, dot);
      const __m256 scale = fp4_group_scales(s, h / 8, group);
      FP4_UNROLL for (size_t r = 0; r < m; r++) {
        const __m256 sum = _mm256_hadd_ps(dot[r][0], dot[r][1]);
        _mm256_store_ps(acc[r] + h, _mm256_fmadd_ps(sum, scale, _mm256_load_ps(acc[r] + h)));
      }
    }
  }
  for (size_t r = 0; r < m; r++) memcpy(out + r * t->acc_stride, acc[r], sizeof acc[r]);
}

#define CASE(act, group, m)                                                                        \
  case m:                                                                                          \
    tile(t, panel, row, act, group, m);                                                            \
    break;
#define VARIANT(w, a, act, group)                                                                  \
  static void tile_##w##_##a(const fp4moe_matmul *t, size_t panel, size_t row, size_t m) {         \
    switch (m) {                                                                                   \
      CASE(act, group, 1)                                                                          \
      CASE(act, group, 2)                                                                          \
      CASE(act, group, 3)                                                                          \
      CASE(act, group, 4)                                                                          \
    }                                                                                              \
  }                                                                                                \
  void fp4moe_gemv_##w##_##a##_8x16_avx2(const fp4moe_matmul *t) {                                 \
    const size_t first = t->m > MAX_M ? (t->m + 1) / 2 : t->m;                                     \
    for (size_t p = 0; p < t->panels; p++) {                                                       \
      tile_##w##_##a(t, p, 0, first);                                                              \
      if (first < t->m) tile_##w##_##a(t, p, first, t->m - first);                                 \
    }                                                                                              \
  }

VARIANT(mx, f32, FP4MOE_ACT_F32, FP4_MX_GROUP)
VARIANT(nv, f32, FP4MOE_ACT_F32, FP4_NV_GROUP)
VARIANT(mx, bf16, FP4MOE_ACT_BF16, FP4_MX_GROUP)
VARIANT(nv, bf16, FP4MOE_ACT_BF16, FP4_NV_GROUP)
