/* unpack_avx2.c - FP4 panels to FP32, BF16 and u8 panels, half a panel (8 rows) at a time.
 *
 * f32 and bf16 multiply in FP32, any scale, as the _c rows do: products have at most six
 * significant bits, so the upper half of FP32 holds them. In the pairs of layout.h both 16-bit
 * halves of a lane belong to one row, so one scale vector serves both. */
#include <math.h>

#include "decode_avx2.h"
#include "i8_avx2.h"
#include "kernel.h"

/* Any scale bytes, as the C rows read them. */
FP4_INLINE __m256 any_scales(const uint8_t *s, size_t half, size_t group) {
  const __m256 x = fp4_group_scales(s, half, group);
  const __m256 nan = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fc00000));
  return _mm256_blendv_ps(x, nan, _mm256_cmp_ps(x, _mm256_set1_ps(INFINITY), _CMP_NLT_UQ));
}

/* The four pairs of layout.h of 8 rows x 8 k, as BF16: (k0,k2) (k4,k6) (k1,k3) (k5,k7). */
FP4_INLINE void pairs_of(__m256i x, __m256i pair[4]) {
  const __m256i even = _mm256_set1_epi16(0xff);
  const fp4_nibbles n = fp4_split(x);
  FP4_UNROLL for (size_t i = 0; i < 2; i++) {
    const __m256i codes = i ? n.hi : n.lo;
    const __m256i upper = fp4_upper_bytes(codes), lower = fp4_lower_bytes(codes);
    pair[i] = _mm256_or_si256(_mm256_slli_epi16(upper, 8), _mm256_and_si256(lower, even));
    pair[i + 2] = _mm256_or_si256(_mm256_andnot_si256(even, upper), _mm256_srli_epi16(lower, 8));
  }
}

/* Pair i is columns 4 * (i % 2) + i / 2 and the second after that. */
FP4_INLINE void unpack_f32(const uint8_t *nibbles, const uint8_t *scales, size_t k, size_t group,
                           float *out) {
  for (size_t k0 = 0; k0 < k; k0 += group, scales += 16)
    for (size_t half = 0; half < 16; half += 8) {
      const __m256 scale = any_scales(scales, half / 8, group);
      for (size_t v = k0; v < k0 + group; v += 8) {
        __m256i pair[4];
        pairs_of(fp4_load_bytes(nibbles + 8 * v + 4 * half), pair);
        FP4_UNROLL for (size_t i = 0; i < 4; i++) {
          float *to = out + 16 * (v + 4 * (i % 2) + i / 2) + half;
          _mm256_store_ps(to, _mm256_mul_ps(fp4_lower_f32(pair[i]), scale));
          _mm256_store_ps(to + 32, _mm256_mul_ps(fp4_upper_f32(pair[i]), scale));
        }
      }
    }
}

FP4_INLINE void unpack_bf16(const uint8_t *nibbles, const uint8_t *scales, size_t k, size_t group,
                            char *out) {
  const __m256i upper = _mm256_set1_epi32((int)0xffff0000);
  for (size_t k0 = 0; k0 < k; k0 += group, scales += 16)
    for (size_t half = 0; half < 16; half += 8) {
      const __m256 scale = any_scales(scales, half / 8, group);
      for (size_t v = k0; v < k0 + group; v += 8) {
        __m256i pair[4];
        pairs_of(fp4_load_bytes(nibbles + 8 * v + 4 * half), pair);
        FP4_UNROLL for (size_t i = 0; i < 4; i++) {
          const __m256 lo = _mm256_mul_ps(fp4_lower_f32(pair[i]), scale);
          const __m256 hi = _mm256_mul_ps(fp4_upper_f32(pair[i]), scale);
          const __m256i lo16 = _mm256_srli_epi32(_mm256_castps_si256(lo), 16);
          const __m256i hi16 = _mm256_and_si256(_mm256_castps_si256(hi), upper);
          _mm256_store_si256((__m256i *)(void *)(out + 32 * v + 64 * i + 4 * half),
                             _mm256_or_si256(hi16, lo16));
        }
      }
    }
}

FP4_INLINE void unpack_i8(const uint8_t *nibbles, const uint8_t *scales, size_t k, size_t group,
                          char *out) {
  for (size_t k0 = 0; k0 < k; k0 += group, scales += 16, out += 16 * group + 64)
    for (size_t half = 0; half < 16; half += 8) {
      for (size_t v = 0; v < group; v += 8) {
        const fp4_nibbles c = fp4_codes(fp4_load_bytes(nibbles + 8 * (k0 + v) + 4 * half));
        _mm256_store_si256((__m256i *)(void *)(out + 16 * v + 4 * half), c.lo);
        _mm256_store_si256((__m256i *)(void *)(out + 16 * v + 4 * half + 64), c.hi);
      }
      _mm256_store_ps((float *)(void *)(out + 16 * group) + half,
                      any_scales(scales, half / 8, group));
    }
}

#define VARIANT(w, form, group)                                                                    \
  void fp4moe_unpack_##w##_##form##_avx2(const uint8_t *nibbles, const uint8_t *scales, size_t k,  \
                                         void *panel) {                                            \
    unpack_##form(nibbles, scales, k, group, panel);                                               \
  }

VARIANT(mx, f32, FP4_MX_GROUP)
VARIANT(nv, f32, FP4_NV_GROUP)
VARIANT(mx, bf16, FP4_MX_GROUP)
VARIANT(nv, bf16, FP4_NV_GROUP)
VARIANT(mx, i8, FP4_MX_GROUP)
VARIANT(nv, i8, FP4_NV_GROUP)
