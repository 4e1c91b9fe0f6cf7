/* ceiling_avx512vnni.c - VPDPBUSD, 64 int8 multiply-adds each (ceilings.h). */
#include <immintrin.h>

#include "ceilings.h"

uint64_t ceiling_int8_avx512vnni(const uint8_t *at, size_t n) {
  __m512i sum[CEILING_CHAINS], a = _mm512_set1_epi8(1), b = _mm512_set1_epi8(1);
  (void)at;
  for (int j = 0; j < CEILING_CHAINS; j++) sum[j] = _mm512_setzero_si512();
  for (size_t i = 0; i < n; i++)
#pragma GCC unroll 16
    for (int j = 0; j < CEILING_CHAINS; j++) sum[j] = _mm512_dpbusd_epi32(sum[j], a, b);
  for (int j = 1; j < CEILING_CHAINS; j++) sum[0] = _mm512_add_epi32(sum[0], sum[j]);
  return (uint64_t)_mm512_reduce_or_epi64(sum[0]);
}
