/* quant_avx2.h - 8 elements of a caller's row to and from FP32, the bits of fp4.h. */
#ifndef FP4MOE_QUANT_AVX2_H
#define FP4MOE_QUANT_AVX2_H

#include <immintrin.h>

#include "kernel.h"

/* Elements [i, i + 8) of x as FP32. */
static inline __m256 fp4_load_avx2(const void *x, fp4moe_dtype dtype, size_t i) {
  if (dtype == FP4MOE_F32) return _mm256_loadu_ps((const float *)x + i);
  const __m128i half = _mm_loadu_si128((const void *)((const uint16_t *)x + i));
  if (dtype == FP4MOE_F16) return _mm256_cvtph_ps(half);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

/* Eight 32-bit lanes, each below 2^16, as 16-bit words. */
static inline __m128i fp4_words_avx2(__m256i x) {
  return _mm_packus_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
}

/* As fp4_to_bf16. */
static inline __m128i fp4_to_bf16_avx2(__m256 x) {
  const __m256i u = _mm256_castps_si256(x), mask = _mm256_set1_epi32(0x7fffffff);
  const __m256i mag = _mm256_and_si256(u, mask), sign = _mm256_andnot_si256(mask, u);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
  const __m256i tiny = _mm256_cmpgt_epi32(_mm256_set1_epi32(0x00800000), mag);
  const __m256i nan = _mm256_cmpgt_epi32(mag, _mm256_set1_epi32(0x7f800000));
  __m256i y = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  y = _mm256_blendv_epi8(y, sign, tiny);
  y = _mm256_blendv_epi8(y, _mm256_set1_epi32(0x7fc00000), nan);
  return fp4_words_avx2(_mm256_srli_epi32(y, 16));
}

#endif
