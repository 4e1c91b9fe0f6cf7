/* ceiling_avx512bf16.c - VDPBF16PS, 32 BF16 multiply-adds each (ceilings.h). */
#include <immintrin.h>

#include "ceilings.h"

uint64_t ceiling_bf16_avx512bf16(const uint8_t *at, size_t n) {
  __m512 sum[CEILING_CHAINS];
  __m512bh a = _mm512_cvtne2ps_pbh(_mm512_set1_ps(0.5f), _mm512_set1_ps(0.5f)), b = a;
  (void)at;
  for (int j = 0; j < CEILING_CHAINS; j++) sum[j] = _mm512_setzero_ps();
  for (size_t i = 0; i < n; i++)
#pragma GCC unroll 16
    for (int j = 0; j < CEILING_CHAINS; j++) sum[j] = _mm512_dpbf16_ps(sum[j], a, b);
  for (int j = 1; j < CEILING_CHAINS; j++) sum[0] = _mm512_add_ps(sum[0], sum[j]);
  return _mm512_reduce_add_ps(sum[0]) > 0;
}
