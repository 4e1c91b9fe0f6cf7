/* i8_avx2.h - the codes of class i8 in AVX2 registers: u8 = 2*e2m1 + 12, which VPMADDUBSW and
 * VPDPBUSD take as it is. */
#ifndef FP4MOE_I8_AVX2_H
#define FP4MOE_I8_AVX2_H

#include "decode_avx2.h"

FP4_INLINE fp4_nibbles fp4_codes(__m256i x) {
  const __m128i once = _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0);
  const __m256i table = _mm256_broadcastsi128_si256(once);
  const fp4_nibbles n = fp4_split(x);
  return (fp4_nibbles){_mm256_shuffle_epi8(table, n.lo), _mm256_shuffle_epi8(table, n.hi)};
}

#endif
