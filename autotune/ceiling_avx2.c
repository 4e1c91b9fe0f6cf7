/* ceiling_avx2.c - the ceilings of AVX2 (ceilings.h). An int8 dot without VNNI is VPMADDUBSW and a
 * 16-bit addition, and after ten of them VPMADDWD and a 32-bit one. */
#include <immintrin.h>

#include "ceilings.h"

uint64_t ceiling_read_avx2(const uint8_t *at, size_t n) {
  __m256i sum[8] = {_mm256_setzero_si256()};
  for (size_t i = 0; i < n; i += 256)
#pragma GCC unroll 8
    for (size_t j = 0; j < 8; j++) {
      if (j % 2 == 0) _mm_prefetch((const char *)at + i + 32 * j + 4096, _MM_HINT_T0);
      sum[j] = _mm256_or_si256(sum[j], _mm256_load_si256((const __m256i *)(at + i + 32 * j)));
    }
  for (size_t j = 1; j < 8; j++) sum[0] = _mm256_or_si256(sum[0], sum[j]);
  return (uint64_t)_mm256_extract_epi64(sum[0], 0) + (uint64_t)_mm256_extract_epi64(sum[0], 3);
}

uint64_t ceiling_int8_avx2(const uint8_t *at, size_t n) {
  const __m256i one = _mm256_set1_epi16(1), b = _mm256_set1_epi8(1);
  __m256i a = b, sum[CEILING_PAIRS], x[CEILING_PAIRS];
  (void)at;
#pragma GCC unroll 16
  for (int j = 0; j < CEILING_PAIRS; j++) sum[j] = x[j] = _mm256_setzero_si256();
  for (size_t i = 0; i < n; i++) {
#pragma GCC unroll 16
    for (int p = 0; p < CEILING_PRODUCTS; p++)
#pragma GCC unroll 16
      for (int j = 0; j < CEILING_PAIRS; j++) {
        __asm__ volatile("" : "+x"(a));
        x[j] = _mm256_add_epi16(x[j], _mm256_maddubs_epi16(a, b));
        __asm__ volatile("" : "+x"(x[j]));
      }
#pragma GCC unroll 16
    for (int j = 0; j < CEILING_PAIRS; j++)
      sum[j] = _mm256_add_epi32(sum[j], _mm256_madd_epi16(x[j], one));
  }
#pragma GCC unroll 16
  for (int j = 1; j < CEILING_PAIRS; j++) sum[0] = _mm256_add_epi32(sum[0], sum[j]);
  return (uint64_t)_mm256_extract_epi64(sum[0], 0);
}

uint64_t ceiling_f32_avx2(const uint8_t *at, size_t n) {
  __m256 sum[CEILING_YMM], a = _mm256_set1_ps(0.5f), b = _mm256_set1_ps(1);
  (void)at;
  for (int j = 0; j < CEILING_YMM; j++) sum[j] = _mm256_setzero_ps();
  for (size_t i = 0; i < n; i++)
#pragma GCC unroll 16
    for (int j = 0; j < CEILING_YMM; j++) sum[j] = _mm256_fmadd_ps(a, b, sum[j]);
  for (int j = 1; j < CEILING_YMM; j++) sum[0] = _mm256_add_ps(sum[0], sum[j]);
  return _mm256_cvtss_f32(sum[0]) > 0;
}
