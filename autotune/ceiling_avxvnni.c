/* ceiling_avxvnni.c - VEX VPDPBUSD, 32 int8 multiply-adds each (ceilings.h). */
#include <immintrin.h>

#include "ceilings.h"

uint64_t ceiling_int8_avxvnni(const uint8_t *at, size_t n) {
  __m256i sum[CEILING_YMM], a = _mm256_set1_epi8(1), b = _mm256_set1_epi8(1);
  (void)at;
#pragma GCC unroll 16
  for (int j = 0; j < CEILING_YMM; j++) sum[j] = _mm256_setzero_si256();
  for (size_t i = 0; i < n; i++)
#pragma GCC unroll 16
    for (int j = 0; j < CEILING_YMM; j++) {
      sum[j] = _mm256_dpbusd_avx_epi32(sum[j], a, b);
      __asm__ volatile("" : "+x"(sum[j])); /* or equal chains become one */
    }
#pragma GCC unroll 16
  for (int j = 1; j < CEILING_YMM; j++) sum[0] = _mm256_add_epi32(sum[0], sum[j]);
  return (uint64_t)_mm256_extract_epi64(sum[0], 0);
}
