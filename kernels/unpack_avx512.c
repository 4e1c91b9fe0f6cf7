/* unpack_avx512.c - FP4 panels to BF16 and FP32 panels, the block scale folded in.
 *
 * FP32 is a product of two, any scale: its stores cost more than the multiplication. For BF16,
 * vector i of the four that one vector of nibbles becomes is the pair i of layout.h: both 16-bit
 * halves of 32-bit lane j belong to row j, so one scale vector serves both.
 *
 * BF16 has two paths, chosen per scale block of 16 rows. Common scales never leave 16 bits: a power
 * of two is an integer added to the bits of a BF16, under a mask that keeps zeros; E4M3's fraction
 * is a choice between two patterns. The others (the ends of E8M0; E4M3 that is zero, negative,
 * subnormal or NaN) multiply each half in FP32, as the _c row does: exact but for overflow. */
#include "decode_avx512.h"
#include "kernel.h"

enum { ONE = 0x3f80 /* 1.0 in BF16 */ };

/* Any scale. Products have at most six significant bits, so the upper half of FP32 holds them. (It
 * takes no vector: GCC leaves upper halves in use at the end of a function that does.) */
static void unpack_bf16_any_avx512(const uint8_t *nibbles, const uint8_t *scales, size_t group,
                                   char *out) {
  const __m512 scale = fp4_group_scales(scales, group);
  const __m512i table = fp4_e2m1_bf16(), upper = _mm512_set1_epi32((int)0xffff0000);
  for (size_t v = 0; v < group / 8; v++) {
    __m512i x = _mm512_load_si512(nibbles + 64 * v);
    FP4_UNROLL for (size_t i = 0; i < 4; i++) {
      const __m512i b = fp4_next_pair(table, &x);
      const __m512 lo = _mm512_mul_ps(_mm512_castsi512_ps(_mm512_slli_epi32(b, 16)), scale);
      const __m512 hi = _mm512_mul_ps(_mm512_castsi512_ps(_mm512_and_si512(b, upper)), scale);
      const __m512i lo16 = _mm512_srli_epi32(_mm512_castps_si512(lo), 16);
      const __m512i hi16 = _mm512_and_si512(_mm512_castps_si512(hi), upper);
      _mm512_store_si512(out + 256 * v + 64 * i, _mm512_or_si512(hi16, lo16));
    }
  }
}

/* The two vectors of pair i are columns 4 * (i % 2) + i / 2 and the second after that. */
FP4_INLINE void unpack_f32(const uint8_t *nibbles, const uint8_t *scales, size_t k, size_t group,
                           float *out) {
  const __m512 f32 = fp4_e2m1_f32();
  const __m512i bf16 = fp4_e2m1_bf16();
  for (size_t k0 = 0; k0 < k; k0 += group, scales += 16) {
    const __m512 scale = fp4_group_scales(scales, group);
    for (size_t v = 0; v < group; v += 8, nibbles += 64, out += 128) {
      const __m512i x = _mm512_load_si512(nibbles);
      FP4_UNROLL for (size_t i = 0; i < 4; i++) {
        float *to = out + 64 * (i % 2) + 16 * (i / 2);
        __m512 two[2];
        fp4_pair_f32(f32, bf16, x, i, two);
        _mm512_store_ps(to, _mm512_mul_ps(two[0], scale));
        _mm512_store_ps(to + 32, _mm512_mul_ps(two[1], scale));
      }
    }
  }
}

void fp4moe_unpack_mx_f32_avx512(const uint8_t *nibbles, const uint8_t *scales, size_t k,
                                 void *panel) {
  unpack_f32(nibbles, scales, k, FP4_MX_GROUP, panel);
}

void fp4moe_unpack_nv_f32_avx512(const uint8_t *nibbles, const uint8_t *scales, size_t k,
                                 void *panel) {
  unpack_f32(nibbles, scales, k, FP4_NV_GROUP, panel);
}

/* 16 scale bytes, once in each quarter. */
FP4_INLINE __m512i load16(const uint8_t *s) {
  return _mm512_broadcast_i32x4(_mm_load_si128((const __m128i *)s));
}

/* Is first <= s <= last for all 16 bytes? */
FP4_INLINE int within(__m512i s, int first, int last) {
  const __m128i above = _mm_sub_epi8(_mm512_castsi512_si128(s), _mm_set1_epi8((char)first));
  return !_mm_cmpgt_epu8_mask(above, _mm_set1_epi8((char)(last - first)));
}

/* Byte j in both 16-bit halves of 32-bit lane j. */
FP4_INLINE __m512i spread(__m512i s) {
  const __m512i first = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __m512i twice = _mm512_or_si512(first, _mm512_slli_epi32(first, 16));
  return _mm512_shuffle_epi8(s, _mm512_or_si512(twice, _mm512_set1_epi32((int)0x80008000)));
}

/* One scale block: (weight & keep) + add where the weight is not zero. */
FP4_INLINE void fold(const uint8_t *nibbles, __m512i table, __m512i keep, __m512i add, size_t group,
                     char *out) {
  const __m512i magnitude = _mm512_set1_epi16(0x7fff);
  FP4_UNROLL for (size_t v = 0; v < group / 8; v++) {
    __m512i x = _mm512_load_si512(nibbles + 64 * v);
    FP4_UNROLL for (size_t i = 0; i < 4; i++) {
      const __m512i b = fp4_next_pair(table, &x);
      const __mmask32 nonzero = _mm512_test_epi16_mask(b, magnitude);
      const __m512i w = _mm512_mask_add_epi16(b, nonzero, _mm512_and_si512(b, keep), add);
      _mm512_store_si512(out + 256 * v + 64 * i, w);
    }
  }
}

/* 2 <= s <= 252: every product is a normal BF16, and s moves its exponent by s - 127. */
void fp4moe_unpack_mx_bf16_avx512(const uint8_t *nibbles, const uint8_t *scales, size_t k,
                                  void *panel) {
  const __m512i table = fp4_e2m1_bf16(), all = _mm512_set1_epi32(-1);
  char *out = panel;
  for (size_t k0 = 0; k0 < k; k0 += FP4_MX_GROUP) {
    for (; k0 < k; k0 += FP4_MX_GROUP) {
      const __m512i s = load16(scales + k0 / 2);
      if (!within(s, 2, 252)) break;
      const __m512i add = _mm512_sub_epi16(_mm512_slli_epi16(spread(s), 7), _mm512_set1_epi16(ONE));
      fold(nibbles + 8 * k0, table, all, add, FP4_MX_GROUP, out + 32 * k0);
    }
    if (k0 < k)
      unpack_bf16_any_avx512(nibbles + 8 * k0, scales + k0 / 2, FP4_MX_GROUP, out + 32 * k0);
  }
}

/* Positive normal s: its BF16 bits are (s << 4) + (120 << 7), and for e a power of two
 *   bits(e * s)       = bits(e) + bits(s) - bits(1)
 *   bits(1.5 * e * s) = bits(e) + bits(1.5 * s) - bits(1)
 *                     = bits(1.5 * e) + d + bits(s) - bits(1)
 * where d, 0 to 20, is a function of the fraction of s. The table's 1.5, 3 and 6 have the bits of
 * 28 set, which cover every d; `keep` leaves those of this row's. */
void fp4moe_unpack_nv_bf16_avx512(const uint8_t *nibbles, const uint8_t *scales, size_t k,
                                  void *panel) {
  const __m512i plain = fp4_e2m1_bf16();
  const __mmask32 with_half = _mm512_test_epi16_mask(plain, _mm512_set1_epi16(0x40));
  const __m512i table = _mm512_mask_add_epi16(plain, with_half, plain, _mm512_set1_epi16(28));
  const __m512i d = _mm512_broadcast_i32x4(_mm_setr_epi16(0, 8, 16, 20, 16, 12, 8, 4));
  char *out = panel;
  for (size_t k0 = 0; k0 < k; k0 += FP4_NV_GROUP) {
    for (; k0 < k; k0 += FP4_NV_GROUP) {
      const __m512i s = load16(scales + k0);
      if (!within(s, 0x08, 0x7e)) break;
      const __m512i both = spread(s);
      const __m512i keep =
          _mm512_permutexvar_epi16(both, _mm512_or_si512(d, _mm512_set1_epi16(~28)));
      const __m512i add =
          _mm512_sub_epi16(_mm512_slli_epi16(both, 4), _mm512_set1_epi16(ONE - (120 << 7)));
      fold(nibbles + 8 * k0, table, keep, add, FP4_NV_GROUP, out + 32 * k0);
    }
    if (k0 < k) unpack_bf16_any_avx512(nibbles + 8 * k0, scales + k0, FP4_NV_GROUP, out + 32 * k0);
  }
}
