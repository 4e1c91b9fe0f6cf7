/* quant_avx512.h - 16 elements of a caller's row to and from FP32, the bits of fp4.h.
 *
 * Rounding to BF16 is done on integers, as fp4_to_bf16 does it: VCVTNEPS2BF16 is another ISA and
 * keeps the payload of a NaN. */
#ifndef FP4MOE_QUANT_AVX512_H
#define FP4MOE_QUANT_AVX512_H

#include <immintrin.h>

#include "kernel.h"

/* Elements [i, i + 16) of x as FP32. */
static inline __m512 fp4_load_avx512(const void *x, fp4moe_dtype dtype, size_t i) {
  if (dtype == FP4MOE_F32) return _mm512_loadu_ps((const float *)x + i);
  const __m256i half = _mm256_loadu_si256((const void *)((const uint16_t *)x + i));
  if (dtype == FP4MOE_F16) return _mm512_cvtph_ps(half);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

static inline __m256i fp4_to_bf16_avx512(__m512 x) {
  const __m512i u = _mm512_castps_si512(x);
  const __m512i mag = _mm512_and_si512(u, _mm512_set1_epi32(0x7fffffff));
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  const __mmask16 tiny = _mm512_cmplt_epu32_mask(mag, _mm512_set1_epi32(0x00800000));
  const __mmask16 nan = _mm512_cmpgt_epu32_mask(mag, _mm512_set1_epi32(0x7f800000));
  __m512i y = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  y = _mm512_mask_and_epi32(y, tiny, u, _mm512_set1_epi32(INT32_MIN));
  y = _mm512_mask_mov_epi32(y, nan, _mm512_set1_epi32(0x7fc00000));
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(y, 16));
}

#endif
