/* i8_avx512.h - class i8 in AVX-512 registers: codes as bytes, block scales, activation scales.
 *
 * One vector of nibbles becomes two of u8 = 2*e2m1 + 12: the low nibbles are columns 0..3 of each
 * lane's row, the high ones 4..7 (layout.h), which is the form VPDPBUSD takes as it is. There are
 * two ways to look a nibble up:
 *
 *   VPERMB   takes the low six bits of a byte as its index into 64 bytes: the 16 codes, four times.
 *            Bits 4 and 5 are another nibble's and change nothing: 3 instructions for 128 weights.
 *   VPSHUFB  yields 0 where bit 7 is set, so the other nibble is masked off first: 5 instructions.
 *
 * The file that expands a body has the instruction set for the way that it names. */
#ifndef FP4MOE_I8_AVX512_H
#define FP4MOE_I8_AVX512_H

#include "decode_avx512.h"
#include "kernel.h"

/* The codes of k 0..3 and of k 4..7 of every row. */
typedef struct fp4_codes {
  __m512i lo, hi;
} fp4_codes;

typedef fp4_codes fp4_codes_fn(__m512i nibbles);

/* 2*e2m1 + 12 for each nibble, in every 16 bytes. */
FP4_INLINE __m512i fp4_code_table(void) {
  const __m128i once = _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0);
  return _mm512_broadcast_i32x4(once);
}

FP4_INLINE fp4_codes fp4_codes_shuffled(__m512i x) {
  const __m512i table = fp4_code_table(), low = _mm512_set1_epi8(15);
  const __m512i high = _mm512_and_si512(_mm512_srli_epi16(x, 4), low);
  return (fp4_codes){_mm512_shuffle_epi8(table, _mm512_and_si512(x, low)),
                     _mm512_shuffle_epi8(table, high)};
}

#ifdef __AVX512VBMI__
FP4_INLINE fp4_codes fp4_codes_permuted(__m512i x) {
  const __m512i table = fp4_code_table();
  return (fp4_codes){_mm512_permutexvar_epi8(x, table),
                     _mm512_permutexvar_epi8(_mm512_srli_epi16(x, 4), table)};
}
#endif

#endif
