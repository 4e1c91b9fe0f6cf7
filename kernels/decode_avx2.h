/* decode_avx2.h - FP4 nibbles and block scales in AVX2 registers: 8 rows of a panel at a time.
 *
 * A BF16 E2M1 value is two bytes, each a function of the code, so VPSHUFB looks up 32 upper bytes
 * and 32 lower ones. 32 bytes of a panel are 8 rows x 8 k; the low nibbles of 32-bit lane r are k 0
 * to 3 of row r, the high ones k 4 to 7 (layout.h). BF16 above zeros is FP32, exactly. */
#ifndef FP4MOE_DECODE_AVX2_H
#define FP4MOE_DECODE_AVX2_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

#include "layout.h"
#include "unroll.h"

FP4_INLINE __m256i fp4_load_bytes(const uint8_t *x) {
  return _mm256_load_si256((const __m256i *)(const void *)x);
}

/* Four bytes of an activation row in every 32-bit lane. */
typedef int fp4_four __attribute__((may_alias));
FP4_INLINE __m256i fp4_four_everywhere(const char *a) {
  return _mm256_set1_epi32(*(const fp4_four *)a);
}

/* ---- Codes ---- */

/* k 0..3 and k 4..7 of each row: one code a byte. */
typedef struct fp4_nibbles {
  __m256i lo, hi;
} fp4_nibbles;

FP4_INLINE fp4_nibbles fp4_split(__m256i x) {
  const __m256i low = _mm256_set1_epi8(15);
  __asm__("" : "+x"(x)); /* loaded once, not by each that takes it */
  return (fp4_nibbles){_mm256_and_si256(x, low), _mm256_and_si256(_mm256_srli_epi16(x, 4), low)};
}

/* The upper and the lower bytes of the BF16 values of 32 codes. */
FP4_INLINE __m256i fp4_upper_bytes(__m256i codes) {
  const __m128i t =
      _mm_setr_epi8(0, 0x3f, 0x3f, 0x3f, 0x40, 0x40, 0x40, 0x40, (char)0x80, (char)0xbf, (char)0xbf,
                    (char)0xbf, (char)0xc0, (char)0xc0, (char)0xc0, (char)0xc0);
  return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(t), codes);
}

FP4_INLINE __m256i fp4_lower_bytes(__m256i codes) {
  const __m128i t = _mm_setr_epi8(0, 0, (char)0x80, (char)0xc0, 0, 0x40, (char)0x80, (char)0xc0, 0,
                                  0, (char)0x80, (char)0xc0, 0, 0x40, (char)0x80, (char)0xc0);
  return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(t), codes);
}

/* Of a lane's two BF16: the one in its lower half, the one in its upper half. */
FP4_INLINE __m256 fp4_lower_f32(__m256i pair) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(pair, 16));
}

FP4_INLINE __m256 fp4_upper_f32(__m256i pair) {
  return _mm256_castsi256_ps(_mm256_and_si256(pair, _mm256_set1_epi32((int)0xffff0000)));
}

/* ---- Scales of 8 rows ---- */

/* E8M0: s << 23, but for s = 0, the subnormal 2^-127. 255, which no loaded expert has, is +Inf. */
FP4_INLINE __m256 fp4_e8m0_f32(__m128i s) {
  const __m256i x = _mm256_slli_epi32(_mm256_cvtepu8_epi32(s), 23);
  return _mm256_castsi256_ps(_mm256_max_epu32(x, _mm256_set1_epi32(0x00400000)));
}

/* E4M3, rows 8 half and on of 16, whose common steps the compiler makes once: the seven bits moved
 * into an F16, whose bias is 15 and whose subnormals are those of E4M3, then times 2^8. */
FP4_INLINE __m256 fp4_e4m3_f32(__m128i s, size_t half) {
  const __m256i wide = _mm256_cvtepi8_epi16(s), nan = _mm256_set1_epi16(0x7f);
  const __m256i is_nan = _mm256_cmpeq_epi16(_mm256_and_si256(wide, nan), nan);
  const __m256i number = /* s7 came twice */
      _mm256_and_si256(_mm256_slli_epi16(wide, 7), _mm256_set1_epi16((short)0xbfff));
  const __m256i f16 = _mm256_or_si256(number, is_nan);
  const __m128i part = half ? _mm256_extracti128_si256(f16, 1) : _mm256_castsi256_si128(f16);
  return _mm256_mul_ps(_mm256_cvtph_ps(part), _mm256_set1_ps(0x1p8f));
}

/* Those of one half of a group, whose 16 scales are at s. */
FP4_INLINE __m256 fp4_group_scales(const uint8_t *s, size_t half, size_t group) {
  if (group == FP4_NV_GROUP)
    return fp4_e4m3_f32(_mm_load_si128((const __m128i *)(const void *)s), half);
  return fp4_e8m0_f32(_mm_loadl_epi64((const __m128i *)(const void *)(s + 8 * half)));
}

#endif
