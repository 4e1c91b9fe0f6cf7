/* quant_avx2.c - quant in AVX2: 8 elements a step, the bits of quant_c.c.
 *
 * E4M3 and E2M1 are rounded in place, as FP32: a normal one at the last bit that it keeps, a
 * subnormal one to a multiple of its step, by adding and subtracting a number of that last bit. One
 * block's scale is scalar, and shared with C (quant.h).
 *
 * A block of 16 at the end of an i8 row is one of 32 whose upper half is zero and is not written.
 * The maximum of a block is taken on the bits of the magnitudes, where Inf and NaN stand above
 * every finite number; the division is a division. */
#include <math.h>

#include "quant.h"
#include "quant_avx2.h"

void fp4moe_quant_f32_avx2(const void *x, fp4moe_dtype dtype, size_t k, void *row, size_t k0,
                           size_t row_k, float inverse) {
  (void)row_k, (void)inverse;
  for (size_t i = 0; i < k; i += 8)
    _mm256_store_ps((float *)row + k0 + i, fp4_load_avx2(x, dtype, i));
}

/* 8 columns of a BF16 row, in fp4_bf16_order: word i comes from bytes 2 * order[i] and the next. */
static inline void put_bf16(__m256 x, void *row, size_t at) {
  const __m128i order = _mm_cvtepu8_epi16(_mm_loadl_epi64((const void *)fp4_bf16_order));
  const __m128i bytes =
      _mm_add_epi16(_mm_mullo_epi16(order, _mm_set1_epi16(0x0202)), _mm_set1_epi16(0x0100));
  _mm_store_si128((__m128i *)(void *)((uint16_t *)row + at),
                  _mm_shuffle_epi8(fp4_to_bf16_avx2(x), bytes));
}

void fp4moe_quant_bf16_avx2(const void *x, fp4moe_dtype dtype, size_t k, void *row, size_t k0,
                            size_t row_k, float inverse) {
  (void)row_k, (void)inverse;
  for (size_t i = 0; i < k; i += 8) put_bf16(fp4_load_avx2(x, dtype, i), row, k0 + i);
}

/* Up to 32 columns; those past the row's end are zero. */
typedef struct block {
  __m256 eighth[4];
} block;

static inline block load_block(const void *x, fp4moe_dtype dtype, size_t i, size_t n) {
  block b;
  for (size_t e = 0; e < 4; e++)
    b.eighth[e] = 8 * e < n ? fp4_load_avx2(x, dtype, i + 8 * e) : _mm256_setzero_ps();
  return b;
}

static inline uint32_t top_of(const block *x) {
  const __m256i mask = _mm256_set1_epi32(0x7fffffff);
  __m256i top = _mm256_setzero_si256();
  for (size_t e = 0; e < 4; e++)
    top = _mm256_max_epu32(top, _mm256_and_si256(_mm256_castps_si256(x->eighth[e]), mask));
  __m128i t = _mm_max_epu32(_mm256_castsi256_si128(top), _mm256_extracti128_si256(top, 1));
  t = _mm_max_epu32(t, _mm_shuffle_epi32(t, 0x4e));
  t = _mm_max_epu32(t, _mm_shuffle_epi32(t, 0xb1));
  return (uint32_t)_mm_cvtsi128_si32(t);
}

/* ---- i8 ---- */

static inline __m256i to_codes(__m256 x, float d) {
  const __m256i limit = _mm256_set1_epi32(127);
  const __m256i q = _mm256_cvtps_epi32(_mm256_div_ps(x, _mm256_set1_ps(d)));
  return _mm256_max_epi32(_mm256_min_epi32(q, limit),
                          _mm256_sub_epi32(_mm256_setzero_si256(), limit));
}

/* 16 columns, number h of the row: their codes, and what dots start from. */
static inline void put_codes(__m256i a, __m256i b, size_t h, const fp4_i8_row *to) {
  const __m128i q =
      _mm_packs_epi16(_mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1)),
                      _mm_packs_epi32(_mm256_castsi256_si128(b), _mm256_extracti128_si256(b, 1)));
  /* -12 times neighbours, which VPMADDUBSW adds: words of k % 4 < 2, and of k % 4 >= 2. */
  __m128i pair = _mm_maddubs_epi16(_mm_set1_epi8(12), q);
  pair = _mm_add_epi16(pair, _mm_shuffle_epi32(pair, 0x4e));
  pair = _mm_add_epi16(pair, _mm_shuffle_epi32(pair, 0xb1));
  pair = _mm_sub_epi16(_mm_setzero_si128(), pair);
  _mm_store_si128((__m128i *)(void *)(to->q + 16 * h), q);
  to->half[h] = _mm_cvtsi128_si32(_mm_madd_epi16(pair, _mm_set1_epi16(1)));
  to->pair[2 * h] = (int16_t)_mm_extract_epi16(pair, 0);
  to->pair[2 * h + 1] = (int16_t)_mm_extract_epi16(pair, 1);
}

/* Block number i of the row: n = 32 or 16 columns. */
static inline void quant_block(const block *x, size_t i, size_t n, const fp4_i8_row *to) {
  const uint32_t top = top_of(x);
  float d = fp4_f32_from_bits(top) / 127;
  const int finite = top < 0x7f800000, zero = !finite || d < 0x1p-126f;
  if (zero) d = finite ? 0 : fp4_f32_from_bits(0x7fc00000);
  to->d[i] = d;
  to->sum[i] = 0;
  for (size_t h = 0; h < n / 16; h++) {
    const __m256i none = _mm256_setzero_si256();
    put_codes(zero ? none : to_codes(x->eighth[2 * h], d),
              zero ? none : to_codes(x->eighth[2 * h + 1], d), 2 * i + h, to);
    to->sum[i] += to->half[2 * i + h];
  }
}

void fp4moe_quant_i8_avx2(const void *x, fp4moe_dtype dtype, size_t k, void *row, size_t k0,
                          size_t row_k, float inverse) {
  (void)inverse;
  const fp4_i8_row to = fp4_i8_row_at(row, row_k, k0);
  for (size_t i = 0; i < k; i += 32) {
    const size_t n = k - i < 32 ? 16 : 32;
    const block b = load_block(x, dtype, i, n);
    quant_block(&b, i / 32, n, &to);
  }
}

/* ---- mxfp8, nvfp4 ---- */

/* Nearest-even to a significand of `bits` stored bits, exponents from that of `least` on,
 * saturating at `most`; below `least`, a normal number of that many bits, to multiples of
 * least / 2^bits: the last bit of 1.5 * 2^(23 - bits) * least. */
static inline __m256 round_to(__m256 x, int bits, float least, float most) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  const __m256 mag = _mm256_min_ps(_mm256_andnot_ps(sign, x), _mm256_set1_ps(most));
  const __m256i u = _mm256_castps_si256(mag), half = _mm256_set1_epi32((1 << (22 - bits)) - 1);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 23 - bits), _mm256_set1_epi32(1));
  const __m256i kept = _mm256_set1_epi32(-(1 << (23 - bits)));
  const __m256i y = _mm256_and_si256(_mm256_add_epi32(u, _mm256_add_epi32(half, odd)), kept);
  const __m256 magic = _mm256_set1_ps(1.5f * (float)(1 << (23 - bits)) * least);
  const __m256 fine = _mm256_sub_ps(_mm256_add_ps(mag, magic), magic);
  const __m256 small = _mm256_cmp_ps(mag, _mm256_set1_ps(least), _CMP_LT_OQ);
  return _mm256_or_ps(_mm256_blendv_ps(_mm256_castsi256_ps(y), fine, small),
                      _mm256_and_ps(x, sign));
}

void fp4moe_quant_mxfp8_avx2(const void *x, fp4moe_dtype dtype, size_t k, void *row, size_t k0,
                             size_t row_k, float inverse) {
  (void)row_k, (void)inverse;
  for (size_t i = 0; i < k; i += 32) {
    const block b = load_block(x, dtype, i, 32);
    const uint32_t top = top_of(&b), s = fp4_mxfp8_scale(top);
    const __m256 down = _mm256_set1_ps(fp4_mxfp8_inverse(s));
    const __m256 up = _mm256_set1_ps(top >= 0x7f800000 ? NAN : fp4_e8m0((uint8_t)s));
    for (size_t e = 0; e < 4; e++) {
      const __m256 q = round_to(_mm256_mul_ps(b.eighth[e], down), 3, 0x1p-6f, 448);
      put_bf16(_mm256_mul_ps(q, up), row, k0 + i + 8 * e);
    }
  }
}

void fp4moe_quant_nvfp4_avx2(const void *x, fp4moe_dtype dtype, size_t k, void *row, size_t k0,
                             size_t row_k, float inverse) {
  (void)row_k;
  for (size_t i = 0; i < k; i += 16) {
    const block b = load_block(x, dtype, i, 16);
    const uint32_t top = top_of(&b);
    const uint8_t sf = fp4_nvfp4_scale(top, inverse);
    const __m256 o = _mm256_set1_ps(fp4_nvfp4_inverse(sf, inverse));
    const __m256 scale = _mm256_set1_ps(top >= 0x7f800000 ? NAN : fp4_e4m3(sf));
    for (size_t e = 0; e < 2; e++) {
      const __m256 q = round_to(_mm256_mul_ps(b.eighth[e], o), 1, 1, 6);
      put_bf16(_mm256_mul_ps(q, scale), row, k0 + i + 8 * e);
    }
  }
}
