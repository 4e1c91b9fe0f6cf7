/* decode_avx512.h - FP4 nibbles and block scales in AVX-512 registers.
 *
 * VPERMW takes five index bits of each 16-bit lane, so a table that holds the 16 E2M1 values twice
 * decodes nibble 0 of every lane with no masking: bit 4 belongs to the next nibble and changes
 * nothing. Nibbles 1, 2, 3 are shifted down first: 7 instructions for 128 weights, none of them on
 * the pipes of the dots.
 *
 * Vector i of the four is the pair i of layout.h: 32-bit lane j holds two BF16 weights of row j. */
#ifndef FP4MOE_DECODE_AVX512_H
#define FP4MOE_DECODE_AVX512_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#include "layout.h"
#include "unroll.h"

/* The E2M1 values as BF16, twice. */
FP4_INLINE __m512i fp4_e2m1_bf16(void) {
  const __m256i once = _mm256_setr_epi16(
      0, 0x3f00, 0x3f80, 0x3fc0, 0x4000, 0x4040, 0x4080, 0x40c0, (short)0x8000, (short)0xbf00,
      (short)0xbf80, (short)0xbfc0, (short)0xc000, (short)0xc040, (short)0xc080, (short)0xc0c0);
  return _mm512_broadcast_i64x4(once);
}

/* Table entry of nibble 0 of each 16-bit lane; nibble 1 then moves into its place. */
FP4_INLINE __m512i fp4_next_pair(__m512i table, __m512i *x) {
  const __m512i b = _mm512_permutexvar_epi16(*x, table);
  *x = _mm512_srli_epi16(*x, 4);
  return b;
}

/* The E2M1 values as FP32: VPERMPS takes four index bits of each 32-bit lane. */
FP4_INLINE __m512 fp4_e2m1_f32(void) {
  return _mm512_setr_ps(0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6);
}

/* Pair i of layout.h as two FP32 vectors: nibble i of each lane's lower and upper 16 bits. BF16
 * above zeros is FP32: a VPERMW that leaves the lower halves zero decodes the upper nibbles where
 * they are, so 128 weights cost 8 permutes and 3 shifts. */
FP4_INLINE void fp4_pair_f32(__m512 f32, __m512i bf16, __m512i x, size_t i, __m512 two[2]) {
  const __m512i y = i ? _mm512_srli_epi32(x, (unsigned)(4 * i)) : x;
  two[0] = _mm512_permutexvar_ps(y, f32);
  two[1] = _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(0xaaaaaaaa, y, bf16));
}

/* 8 pairs of a row as FP32: the lower halves, then the upper ones. */
FP4_INLINE void fp4_widen16(const char *row, float wide[16]) {
  const __m256i x = _mm256_load_si256((const __m256i *)(const void *)row);
  const __m256i upper = _mm256_and_si256(x, _mm256_set1_epi32((int)0xffff0000));
  _mm256_store_ps(wide, _mm256_castsi256_ps(_mm256_slli_epi32(x, 16)));
  _mm256_store_ps(wide + 8, _mm256_castsi256_ps(upper));
}

/* Where half h of pair i stands among columns so widened. */
FP4_INLINE size_t fp4_wide_place(size_t i, size_t h) { return i / 8 * 16 + 8 * h + i % 8; }

/* One activation pair, two BF16 of any row, in every 32-bit lane. */
typedef int fp4_pair __attribute__((may_alias));
FP4_INLINE __m512i fp4_pair_everywhere(const char *a) {
  return _mm512_set1_epi32(*(const fp4_pair *)a);
}

/* 16 E8M0 bytes as FP32: s << 23, but for s = 0, the subnormal 2^-127. 255, which no loaded expert
 * has, is +Inf. */
FP4_INLINE __m512 fp4_e8m0_f32(__m128i s) {
  const __m512i x = _mm512_slli_epi32(_mm512_cvtepu8_epi32(s), 23);
  return _mm512_castsi512_ps(_mm512_max_epu32(x, _mm512_set1_epi32(0x00400000)));
}

FP4_INLINE __m512 fp4_nan_f32(void) { return _mm512_castsi512_ps(_mm512_set1_epi32(0x7fc00000)); }

/* 16 E4M3 bytes as FP32 times 2^-8: the seven bits moved into an F16, whose bias is 15 and whose
 * subnormals are those of E4M3. */
FP4_INLINE __m512 fp4_e4m3_f32_256th(__m128i s) {
  const __m128i nan = _mm_set1_epi8(0x7f);
  const __mmask16 number = _mm_cmpneq_epi8_mask(_mm_and_si128(s, nan), nan);
  const __m256i f16 = _mm256_and_si256(_mm256_slli_epi16(_mm256_cvtepi8_epi16(s), 7),
                                       _mm256_set1_epi16((short)0xbfff)); /* s7 came twice */
  return _mm512_mask_cvtph_ps(fp4_nan_f32(), number, f16);
}

/* The 16 scales of a group, as the C rows have them; 0xff of E8M0 is NaN. */
FP4_INLINE __m512 fp4_group_scales(const uint8_t *s, size_t group) {
  const __m128i byte = _mm_load_si128((const __m128i *)s);
  if (group == FP4_NV_GROUP) return _mm512_mul_ps(fp4_e4m3_f32_256th(byte), _mm512_set1_ps(0x1p8f));
  const __mmask16 nan = _mm_cmpeq_epi8_mask(byte, _mm_set1_epi8(-1));
  return _mm512_mask_mov_ps(fp4_e8m0_f32(byte), nan, fp4_nan_f32());
}

#endif
