/* quant_avx512.c - quant in AVX-512: 16 elements a step, the bits of quant_c.c.
 *
 * E4M3 and E2M1 are rounded in place, as FP32: a normal one at the last bit that it keeps, a
 * subnormal one to a multiple of its step (VRNDSCALE). One block's scale is scalar, and shared with
 * C (quant.h).
 *
 * A block of 16 at the end of an i8 row is one of 32 whose upper half is zero and is not written.
 * The maximum of an i8 block is taken on the bits of the magnitudes, where Inf and NaN stand above
 * every finite number; the division is a division. */
#include <math.h>

#include "quant.h"
#include "quant_avx512.h"

void fp4moe_quant_f32_avx512(const void *x, fp4moe_dtype dtype, size_t k, void *row, size_t k0,
                             size_t row_k, float inverse) {
  (void)row_k, (void)inverse;
  for (size_t i = 0; i < k; i += 16)
    _mm512_store_ps((float *)row + k0 + i, fp4_load_avx512(x, dtype, i));
}

/* fp4_bf16_order as a byte shuffle: word i comes from bytes 2 * order[i] and the next. */
static inline __m128i order_bytes(void) {
  const __m128i order = _mm_cvtepu8_epi16(_mm_loadl_epi64((const void *)fp4_bf16_order));
  return _mm_add_epi16(_mm_mullo_epi16(order, _mm_set1_epi16(0x0202)), _mm_set1_epi16(0x0100));
}

static inline __m256i order_words(__m256i words) {
  return _mm256_shuffle_epi8(words, _mm256_broadcastsi128_si256(order_bytes()));
}

void fp4moe_quant_bf16_avx512(const void *x, fp4moe_dtype dtype, size_t k, void *row, size_t k0,
                              size_t row_k, float inverse) {
  (void)row_k, (void)inverse;
  for (size_t i = 0; i < k; i += 16)
    _mm256_store_si256((__m256i *)(void *)((uint16_t *)row + k0 + i),
                       order_words(fp4_to_bf16_avx512(fp4_load_avx512(x, dtype, i))));
}

typedef struct {
  __m512 half[2];
} block;

static inline uint32_t top_of(block x) {
  const __m512i mask = _mm512_set1_epi32(0x7fffffff);
  return _mm512_reduce_max_epu32(
      _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(x.half[0]), mask),
                       _mm512_and_si512(_mm512_castps_si512(x.half[1]), mask)));
}

static inline __m512i to_codes(__m512 x, float d) {
  const __m512i limit = _mm512_set1_epi32(127);
  const __m512i q = _mm512_cvtps_epi32(_mm512_div_ps(x, _mm512_set1_ps(d)));
  return _mm512_max_epi32(_mm512_min_epi32(q, limit),
                          _mm512_sub_epi32(_mm512_setzero_si512(), limit));
}

/* Block number i of the row: n = 32 or 16 columns. */
static inline void quant_block(block x, size_t i, size_t n, const fp4_i8_row *to) {
  const uint32_t top = top_of(x);
  float d = fp4_f32_from_bits(top) / 127;
  const int finite = top < 0x7f800000, zero = !finite || d < 0x1p-126f;
  if (zero) d = finite ? 0 : fp4_f32_from_bits(0x7fc00000);
  to->d[i] = d;
  to->sum[i] = 0;
  for (size_t h = 0; h < n / 16; h++) {
    const __m512i q = zero ? _mm512_setzero_si512() : to_codes(x.half[h], d);
    _mm_store_si128((__m128i *)(void *)(to->q + 32 * i + 16 * h), _mm512_cvtepi32_epi8(q));
    to->half[2 * i + h] = -12 * _mm512_reduce_add_epi32(q);
    const int32_t first = -12 * _mm512_mask_reduce_add_epi32(0x3333, q);
    to->pair[4 * i + 2 * h] = (int16_t)first;
    to->pair[4 * i + 2 * h + 1] = (int16_t)(to->half[2 * i + h] - first);
    to->sum[i] += to->half[2 * i + h];
  }
}

void fp4moe_quant_i8_avx512(const void *x, fp4moe_dtype dtype, size_t k, void *row, size_t k0,
                            size_t row_k, float inverse) {
  (void)inverse;
  const fp4_i8_row to = fp4_i8_row_at(row, row_k, k0);
  for (size_t i = 0; i < k; i += 32) {
    const size_t n = k - i < 32 ? 16 : 32;
    const block b = {{fp4_load_avx512(x, dtype, i),
                      n == 32 ? fp4_load_avx512(x, dtype, i + 16) : _mm512_setzero_ps()}};
    quant_block(b, i / 32, n, &to);
  }
}

/* ---- mxfp8, nvfp4 ---- */

static inline __m512 saturated(__m512 x, float most) {
  return _mm512_min_ps(_mm512_abs_ps(x), _mm512_set1_ps(most));
}

/* Nearest-even to a significand of `bits` stored bits, exponents from that of `least` on,
 * saturating at `most`; below `least` it is `fine`: VRNDSCALE's multiples of the subnormals' step,
 * formed by ROUND_TO because its immediate must be a constant where it is written. */
static inline __attribute__((always_inline)) __m512 round_to(__m512 x, int bits, float least,
                                                             float most, __m512 fine) {
  const __m512i sign = _mm512_set1_epi32(INT32_MIN), one = _mm512_set1_epi32(1);
  const __m512 mag = saturated(x, most);
  const __m512i u = _mm512_castps_si512(mag), half = _mm512_set1_epi32((1 << (22 - bits)) - 1);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, (unsigned)(23 - bits)), one);
  const __m512i kept = _mm512_set1_epi32(-(1 << (23 - bits)));
  __m512i y = _mm512_and_si512(_mm512_add_epi32(u, _mm512_add_epi32(half, odd)), kept);
  y = _mm512_mask_mov_epi32(y, _mm512_cmp_ps_mask(mag, _mm512_set1_ps(least), _CMP_LT_OQ),
                            _mm512_castps_si512(fine));
  return _mm512_castsi512_ps(_mm512_or_si512(y, _mm512_and_si512(_mm512_castps_si512(x), sign)));
}

#define ROUND_TO(x, bits, least, most, steps)                                                      \
  round_to(x, bits, least, most, _mm512_roundscale_ps(saturated(x, most), steps))

enum { STEPS_OF_E4M3 = 9 << 4, STEPS_OF_E2M1 = 1 << 4 }; /* 2^-9, 2^-1 */

static inline void put_bf16(__m512 x, void *row, size_t at) {
  _mm256_store_si256((__m256i *)(void *)((uint16_t *)row + at), order_words(fp4_to_bf16_avx512(x)));
}

void fp4moe_quant_mxfp8_avx512(const void *x, fp4moe_dtype dtype, size_t k, void *row, size_t k0,
                               size_t row_k, float inverse) {
  (void)row_k, (void)inverse;
  for (size_t i = 0; i < k; i += 32) {
    block b = {{fp4_load_avx512(x, dtype, i), fp4_load_avx512(x, dtype, i + 16)}};
    const uint32_t top = top_of(b), s = fp4_mxfp8_scale(top);
    const __m512 down = _mm512_set1_ps(fp4_mxfp8_inverse(s));
    const __m512 up = _mm512_set1_ps(top >= 0x7f800000 ? NAN : fp4_e8m0((uint8_t)s));
    for (size_t h = 0; h < 2; h++) {
      const __m512 q = ROUND_TO(_mm512_mul_ps(b.half[h], down), 3, 0x1p-6f, 448, STEPS_OF_E4M3);
      put_bf16(_mm512_mul_ps(q, up), row, k0 + i + 16 * h);
    }
  }
}

void fp4moe_quant_nvfp4_avx512(const void *x, fp4moe_dtype dtype, size_t k, void *row, size_t k0,
                               size_t row_k, float inverse) {
  (void)row_k;
  for (size_t i = 0; i < k; i += 16) {
    const block b = {{fp4_load_avx512(x, dtype, i), _mm512_setzero_ps()}};
    const uint32_t top = top_of(b);
    const uint8_t sf = fp4_nvfp4_scale(top, inverse);
    const __m512 o = _mm512_set1_ps(fp4_nvfp4_inverse(sf, inverse));
    const __m512 scale = _mm512_set1_ps(top >= 0x7f800000 ? NAN : fp4_e4m3(sf));
    const __m512 q = ROUND_TO(_mm512_mul_ps(b.half[0], o), 1, 1, 6, STEPS_OF_E2M1);
    put_bf16(_mm512_mul_ps(q, scale), row, k0 + i);
  }
}
