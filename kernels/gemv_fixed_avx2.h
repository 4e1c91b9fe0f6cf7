/* gemv_fixed_avx2.h - one BF16 row against FP4 panels in fixed point: one body for every dot of
 * 256 bits that expands it (matmul_i8_avx2.h).
 *
 * FP32 lanes cost AVX2 more to decode than to multiply; bytes cost it little of either. So 32
 * activations become integers of 22 bits and a sign, multiples of their block's unit, 2^-21 of the
 * power of two below the largest: exact for all that are 2^-14 of it or more. An integer is three
 * signed digits of base 256, each a byte that meets the codes 2*e2m1 + 12 of class i8; the sums of
 * a scale block are exact integers:
 *
 *   acc = fmaf(((B2 * 2^16) + (B1 * 2^8 + B0)) * unit, scale, acc)
 *
 * with one rounding before the multiplication by unit, a power of two. What is no such multiple
 * (far smaller ones, a block with Inf or NaN) is zero there and added after its 32 columns:
 * acc = fmaf(w * a, scale, acc). So a row's bits depend on nothing but the row and the panel.
 *
 * The row is brought into digits once a call, CHUNK columns at a time. More rows gain nothing:
 * each costs three times the products of class i8. */
#ifndef FP4MOE_GEMV_FIXED_AVX2_H
#define FP4MOE_GEMV_FIXED_AVX2_H

#include <string.h>

#include "matmul_i8_avx2.h"

enum {
  FP4_DIGITS = 3,
  FP4_CHUNK = 4096,
  FP4_FIXED_BITS = 21,
};

/* A row's columns as digits. Each 32 k: 0..7, 16..23, 8..15, 24..31. */
typedef struct fp4_fixed {
  _Alignas(32) int8_t digit[FP4_DIGITS][FP4_CHUNK];
  _Alignas(32) int32_t start[FP4_CHUNK / 16][FP4_DIGITS + 1]; /* of a group, as fp4_start */
  float unit[FP4_CHUNK / 32];                                 /* half of it, for codes are 2*e2m1 */
  uint32_t rest[FP4_CHUNK / 32]; /* bit i: element i of the row's 32 is not in the digits */
} fp4_fixed;

/* Where the 8 columns from v on stand among the digits of their 32. */
FP4_INLINE size_t fp4_digit_place(size_t v) { return v % 16 * 2 + v / 16 * 8; }

/* ---- Rows into digits ---- */

/* The exponent, as bits, of the largest of 32 BF16 magnitudes. */
FP4_INLINE uint32_t fp4_top_exponent(const __m256i mag[2]) {
  const __m256i top = _mm256_max_epu16(mag[0], mag[1]);
  const __m128i half = _mm_max_epu16(_mm256_castsi256_si128(top), _mm256_extracti128_si256(top, 1));
  const __m128i least = _mm_minpos_epu16(_mm_xor_si128(half, _mm_set1_epi16(-1)));
  return (~(uint32_t)_mm_cvtsi128_si32(least) & 0x7fff) >> 7;
}

/* The words of mag that are zero or above `floor`. */
FP4_INLINE __m256i fp4_kept(__m256i mag, int16_t floor) {
  return _mm256_or_si256(_mm256_cmpeq_epi16(mag, _mm256_setzero_si256()),
                         _mm256_cmpgt_epi16(mag, _mm256_set1_epi16(floor)));
}

/* 4 x 8 integers, of the lower and the upper halves of two vectors of BF16 in the order of rows, to
 * their bytes in the order of fp4_fixed. */
FP4_INLINE void fp4_digits(const __m256i y[4], __m256i digit[FP4_DIGITS]) {
  const __m256i gather = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  const __m256i natural = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15));
  __m256i z[4];
  FP4_UNROLL for (size_t i = 0; i < 4; i++) z[i] = _mm256_shuffle_epi8(y[i], gather);
  const __m256i a = _mm256_unpacklo_epi32(z[0], z[1]), b = _mm256_unpacklo_epi32(z[2], z[3]);
  const __m256i c = _mm256_unpackhi_epi32(z[0], z[1]), d = _mm256_unpackhi_epi32(z[2], z[3]);
  digit[0] = _mm256_shuffle_epi8(_mm256_unpacklo_epi64(a, b), natural);
  digit[1] = _mm256_shuffle_epi8(_mm256_unpackhi_epi64(a, b), natural);
  digit[2] = _mm256_shuffle_epi8(_mm256_unpacklo_epi64(c, d), natural);
}

FP4_INLINE void fp4_put_start(__m128i sums, fp4_i8_kind of, int32_t *start) {
  _mm_store_si128((__m128i *)(void *)start, of.dot ? _mm_madd_epi16(sums, _mm_set1_epi16(-1))
                                                   : _mm_sub_epi16(_mm_setzero_si128(), sums));
}

/* -12 * (the digits of each group that meet 16 bits of a sum), or all of them where it has 32. */
FP4_INLINE void fp4_fixed_start(const __m256i digit[FP4_DIGITS], fp4_i8_kind of,
                                int32_t (*start)[4]) {
  __m128i x[FP4_DIGITS];
  FP4_UNROLL for (size_t d = 0; d < FP4_DIGITS; d++) {
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(12), digit[d]);
    x[d] = _mm_add_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
  }
  const __m128i a = _mm_unpacklo_epi32(x[0], x[1]), b = _mm_unpacklo_epi32(x[2], x[2]);
  const __m128i c = _mm_unpackhi_epi32(x[0], x[1]), d = _mm_unpackhi_epi32(x[2], x[2]);
  const __m128i first = _mm_add_epi16(_mm_unpacklo_epi64(a, b), _mm_unpackhi_epi64(a, b));
  const __m128i second = _mm_add_epi16(_mm_unpacklo_epi64(c, d), _mm_unpackhi_epi64(c, d));
  if (of.group == FP4_MX_GROUP) {
    fp4_put_start(_mm_add_epi16(first, second), of, start[0]);
  } else {
    fp4_put_start(first, of, start[0]);
    fp4_put_start(second, of, start[1]);
  }
}

/* n columns, 32 or the 16 at the end of a row, to block `at` of f. A sum with 1.5 * 2^23 units has
 * the integer in its last bits. */
FP4_INLINE void fp4_fix_block(const char *x, size_t n, size_t at, fp4_i8_kind of, fp4_fixed *f) {
  const __m256i upper = _mm256_set1_epi32((int)0xffff0000), sign = _mm256_set1_epi32(0x00808080);
  __m256i mag[2], pair[2] = {_mm256_load_si256((const void *)x), _mm256_setzero_si256()};
  if (n == 32) pair[1] = _mm256_load_si256((const void *)(x + 32));
  FP4_UNROLL for (size_t i = 0; i < 2; i++) mag[i] =
      _mm256_and_si256(pair[i], _mm256_set1_epi16(0x7fff));
  const uint32_t top = fp4_top_exponent(mag), e = top < 23 ? 23 : top; /* units are normal */
  const int16_t floor = (int16_t)(top == 255 ? 0x7fff : ((e + 7 - FP4_FIXED_BITS) << 7) - 1);
  const __m256i kept[2] = {fp4_kept(mag[0], floor), fp4_kept(mag[1], floor)};
  const __m256i magic = _mm256_set1_epi32((int)((e + 23 - FP4_FIXED_BITS) << 23 | 0x400000));
  __m256i y[4], digit[FP4_DIGITS];
  FP4_UNROLL for (size_t i = 0; i < 4; i++) {
    const __m256i two = _mm256_and_si256(kept[i / 2], pair[i / 2]);
    const __m256i a = i % 2 ? _mm256_and_si256(two, upper) : _mm256_slli_epi32(two, 16);
    const __m256 sum = _mm256_add_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(magic));
    const __m256i q = _mm256_sub_epi32(_mm256_castps_si256(sum), magic);
    y[i] = _mm256_xor_si256(_mm256_add_epi32(q, sign), sign);
  }
  const uint32_t unit = (e - FP4_FIXED_BITS - 1) << 23;
  memcpy(&f->unit[at], &unit, 4);
  f->rest[at] = ~(uint32_t)_mm256_movemask_epi8(
      _mm256_permute4x64_epi64(_mm256_packs_epi16(kept[0], kept[1]), 0xd8));
  fp4_digits(y, digit);
  fp4_fixed_start(digit, of, f->start + 32 / of.group * at);
  FP4_UNROLL for (size_t d = 0; d < FP4_DIGITS; d++)
      _mm256_store_si256((__m256i *)(void *)(f->digit[d] + 32 * at), digit[d]);
}

/* ---- Blocks ---- */

FP4_INLINE void fp4_fixed_add(float *acc, __m256 a, __m256 b) {
  _mm256_store_ps(acc, _mm256_fmadd_ps(a, b, _mm256_load_ps(acc)));
}

/* B2, B1, B0 of one group to FP32, times the block's unit. */
FP4_INLINE __m256 fp4_fixed_sum(const __m256i x[FP4_DIGITS], __m256 unit, fp4_i8_kind of) {
  const __m256i low = of.dot ? _mm256_add_epi32(_mm256_slli_epi32(x[1], 8), x[0])
                             : _mm256_add_epi32(_mm256_madd_epi16(x[1], _mm256_set1_epi16(256)),
                                                fp4_to_32(x[0], of));
  const __m256 high = _mm256_cvtepi32_ps(fp4_to_32(x[2], of));
  return _mm256_mul_ps(_mm256_fmadd_ps(high, _mm256_set1_ps(0x1p16f), _mm256_cvtepi32_ps(low)),
                       unit);
}

/* Four columns of a panel: c[h] are the codes of half h, q the digits' place. */
FP4_INLINE void fp4_fixed_products(const fp4_fixed *f, size_t q, const __m256i c[2], fp4_i8_kind of,
                                   __m256i (*x)[FP4_DIGITS]) {
  FP4_UNROLL for (size_t d = 0; d < FP4_DIGITS; d++) {
    const __m256i a = fp4_four_everywhere((const char *)f->digit[d] + q);
    FP4_UNROLL for (size_t h = 0; h < 2; h++) x[h][d] = fp4_dot(x[h][d], c[h], a, of);
  }
}

/* Group number g of f times one panel. */
FP4_INLINE void fp4_fixed_group(const fp4_fixed *f, size_t g, const uint8_t *w, const uint8_t *s,
                                fp4_i8_kind of, float *acc) {
  const size_t at = g * of.group / 32, first = g * of.group % 32;
  __m256i x[2][FP4_DIGITS];
  FP4_UNROLL for (size_t d = 0; d < FP4_DIGITS; d++) x[0][d] = x[1][d] =
      fp4_four_everywhere((const char *)&f->start[g][d]);
  FP4_UNROLL for (size_t v = 0; v < of.group; v += 8) {
    const fp4_nibbles a = fp4_codes(fp4_load_bytes(w + 8 * v));
    const fp4_nibbles b = fp4_codes(fp4_load_bytes(w + 8 * v + 32));
    const __m256i lo[2] = {a.lo, b.lo}, hi[2] = {a.hi, b.hi};
    const size_t q = 32 * at + fp4_digit_place(first + v);
    fp4_fixed_products(f, q, lo, of, x);
    fp4_fixed_products(f, q + 4, hi, of, x);
  }
  const __m256 unit = fp4_float_everywhere((const char *)&f->unit[at]);
  FP4_UNROLL for (size_t h = 0; h < 2; h++)
      fp4_fixed_add(acc + 8 * h, fp4_fixed_sum(x[h], unit, of), fp4_group_scales(s, h, of.group));
}

/* The columns of 32 that digits do not hold: those of the set bits of rest, in the row's order from
 * x on. */
static __attribute__((noinline)) void fp4_fixed_rest(uint32_t rest, const char *x, const uint8_t *w,
                                                     const uint8_t *s, size_t group, float *acc) {
  const __m256 magnitudes = _mm256_setr_ps(0, 0.5f, 1, 1.5f, 2, 3, 4, 6);
  for (; rest; rest &= rest - 1) {
    const size_t i = (size_t)__builtin_ctz(rest), j = fp4_bf16_order[i % 8], k = i - i % 8 + j;
    uint16_t bf16;
    memcpy(&bf16, x + 2 * i, 2);
    const __m256 a = _mm256_castsi256_ps(_mm256_set1_epi32((int)((uint32_t)bf16 << 16)));
    const __m128i shift = _mm_cvtsi32_si128((int)(j % 4 * 8 + j / 4 * 4));
    for (size_t h = 0; h < 2; h++) {
      const __m256i code = _mm256_srl_epi32(fp4_load_bytes(w + 8 * (k - j) + 32 * h), shift);
      const __m256 minus = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_srli_epi32(code, 3), 31));
      const __m256 weight = _mm256_xor_ps(_mm256_permutevar8x32_ps(magnitudes, code), minus);
      fp4_fixed_add(acc + 8 * h, _mm256_mul_ps(weight, a),
                    fp4_group_scales(s + k / group * 16, h, group));
    }
  }
}

/* Columns [from, from + k) of the call, which f holds, of one panel; of is constant where this is
 * expanded. */
FP4_INLINE void fp4_fixed_tile(const fp4moe_matmul *t, const fp4_fixed *f, size_t panel,
                               size_t from, size_t k, fp4_i8_kind of) {
  const uint8_t *w = t->weights + panel * t->weights_stride + 8 * from;
  const uint8_t *s = t->scales + panel * t->scales_stride + from / of.group * 16;
  const char *row = (const char *)t->rows[0] + 2 * (t->k0 + from);
  float *out = t->acc + 16 * panel;
  _Alignas(32) float acc[16] = {0};
  if (t->resume || from) memcpy(acc, out, sizeof acc);
  for (size_t i = 0; i < k; i += 32, w += 256, s += 512 / of.group) {
    FP4_UNROLL for (size_t v = 0; v < 4; v++) /* mostly of the next panel */
        _mm_prefetch((const char *)w + 64 * v + t->prefetch, _MM_HINT_T1);
    if (i % (4 * of.group) == 0) /* a line of them */
      _mm_prefetch((const char *)s + 2 * t->prefetch / of.group, _MM_HINT_T1);
    for (size_t g = 0; g < 32 && i + g < k; g += of.group)
      fp4_fixed_group(f, (i + g) / of.group, w + 8 * g, s + 16 * (g / of.group), of, acc);
    if (f->rest[i / 32]) fp4_fixed_rest(f->rest[i / 32], row + 2 * i, w, s, of.group, acc);
  }
  memcpy(out, acc, sizeof acc);
}

/* A call with one row; of is constant where this is expanded. */
FP4_INLINE void fp4_gemv_fixed(const fp4moe_matmul *t, fp4_i8_kind of) {
  const size_t chunks = (t->k + FP4_CHUNK - 1) / FP4_CHUNK;
  const size_t chunk = (t->k / chunks + 31) / 32 * 32;
  fp4_fixed f;
  for (size_t from = 0; from < t->k; from += chunk) {
    const size_t k = t->k - from < chunk ? t->k - from : chunk;
    const char *row = (const char *)t->rows[0] + 2 * (t->k0 + from);
    for (size_t i = 0; i < k; i += 32)
      fp4_fix_block(row + 2 * i, k - i < 32 ? 16 : 32, i / 32, of, &f);
    for (size_t p = 0; p < t->panels; p++) fp4_fixed_tile(t, &f, p, from, k, of);
  }
}

#define FP4_FIXED_VARIANT(w, group, isa, dot)                                                      \
  void fp4moe_gemv_##w##_bf16_1x16_##isa(const fp4moe_matmul *t) {                                 \
    fp4_gemv_fixed(t, (fp4_i8_kind){group, 1, dot, 0});                                            \
  }

#endif
