/* quant_neon.c - quant in NEON: the bits of quant_c.c.
 *
 * E4M3 and E2M1 are rounded in place, as FP32: a normal one at the last bit that it keeps, a
 * subnormal one to a multiple of its step, by adding and subtracting a number of that last bit. One
 * block's scale is scalar, and shared with C (quant.h).
 *
 * The maximum of a block is taken on the bits of the magnitudes, where Inf and NaN stand above
 * every finite number; the division is a division. Narrowing saturates at -128, one beyond. */
#include <math.h>

#include "neon.h"
#include "quant.h"
#include "quant_neon.h"

void fp4moe_quant_f32_neon(const void *x, fp4moe_dtype dtype, size_t k, void *row, size_t k0,
                           size_t row_k, float inverse) {
  (void)row_k, (void)inverse;
  for (size_t i = 0; i < k; i += 4) vst1q_f32((float *)row + k0 + i, fp4_load_neon(x, dtype, i));
}

/* 8 columns of a BF16 row, in fp4_bf16_order: the even ones, then the odd ones. */
static inline void put_bf16(float32x4_t x, float32x4_t y, void *row, size_t at) {
  const uint32x4_t a = fp4_to_bf16_neon(x), b = fp4_to_bf16_neon(y);
  vst1q_u16((uint16_t *)row + at,
            vcombine_u16(vmovn_u32(vuzp1q_u32(a, b)), vmovn_u32(vuzp2q_u32(a, b))));
}

void fp4moe_quant_bf16_neon(const void *x, fp4moe_dtype dtype, size_t k, void *row, size_t k0,
                            size_t row_k, float inverse) {
  (void)row_k, (void)inverse;
  for (size_t i = 0; i < k; i += 8)
    put_bf16(fp4_load_neon(x, dtype, i), fp4_load_neon(x, dtype, i + 4), row, k0 + i);
}

static inline uint32_t top_of(const float32x4_t *x, size_t n) {
  uint32x4_t top = vdupq_n_u32(0);
  for (size_t i = 0; i < n / 4; i++)
    top = vmaxq_u32(top, vandq_u32(vreinterpretq_u32_f32(x[i]), vdupq_n_u32(0x7fffffff)));
  return vmaxvq_u32(top);
}

/* 16 codes. */
static inline int8x16_t to_codes(const float32x4_t *x, float d) {
  const float32x4_t by = vdupq_n_f32(d);
  int32x4_t q[4];
  for (size_t i = 0; i < 4; i++) q[i] = vcvtnq_s32_f32(vdivq_f32(x[i], by));
  const int16x8_t a = vqmovn_high_s32(vqmovn_s32(q[0]), q[1]);
  const int16x8_t b = vqmovn_high_s32(vqmovn_s32(q[2]), q[3]);
  return vmaxq_s8(vqmovn_high_s16(vqmovn_s16(a), b), vdupq_n_s8(-127));
}

/* 16 columns, number h of the row: their codes, and -12 times their sums: of k % 4 < 2, the rest.
 */
static inline void put_codes(int8x16_t q, size_t h, const fp4_i8_row *to) {
  const int16x8_t two = vpaddlq_s8(q);
  const int32_t first = vaddvq_s16(vuzp1q_s16(two, two)) / 2;
  const int32_t second = vaddvq_s16(vuzp2q_s16(two, two)) / 2;
  vst1q_s8(to->q + 16 * h, q);
  to->pair[2 * h] = (int16_t)(-12 * first);
  to->pair[2 * h + 1] = (int16_t)(-12 * second);
  to->half[h] = -12 * (first + second);
}

/* Block number i of the row: n = 32 or 16 columns. */
static inline void quant_block(const float32x4_t *x, size_t i, size_t n, const fp4_i8_row *to) {
  const uint32_t top = top_of(x, n);
  float d = fp4_f32_from_bits(top) / 127;
  const int finite = top < 0x7f800000, zero = !finite || d < 0x1p-126f;
  if (zero) d = finite ? 0 : fp4_f32_from_bits(0x7fc00000);
  to->d[i] = d;
  to->sum[i] = 0;
  for (size_t h = 0; h < n / 16; h++) {
    const int8x16_t q = zero ? vdupq_n_s8(0) : to_codes(x + 4 * h, d);
    put_codes(q, 2 * i + h, to);
    to->sum[i] += to->half[2 * i + h];
  }
}

void fp4moe_quant_i8_neon(const void *x, fp4moe_dtype dtype, size_t k, void *row, size_t k0,
                          size_t row_k, float inverse) {
  (void)inverse;
  const fp4_i8_row to = fp4_i8_row_at(row, row_k, k0);
  for (size_t i = 0; i < k; i += 32) {
    const size_t n = k - i < 32 ? 16 : 32;
    float32x4_t block[8];
    for (size_t j = 0; j < n / 4; j++) block[j] = fp4_load_neon(x, dtype, i + 4 * j);
    quant_block(block, i / 32, n, &to);
  }
}

/* ---- mxfp8, nvfp4 ---- */

/* Nearest-even to a significand of `bits` stored bits, exponents from that of `least` on,
 * saturating at `most`; below `least`, a normal number of that many bits, to multiples of
 * least / 2^bits: the last bit of 1.5 * 2^(23 - bits) * least. */
FP4_INLINE float32x4_t round_to(float32x4_t x, int bits, float least, float most) {
  const float32x4_t mag = vminq_f32(vabsq_f32(x), vdupq_n_f32(most));
  const uint32x4_t u = vreinterpretq_u32_f32(mag), half = vdupq_n_u32((1u << (22 - bits)) - 1);
  const uint32x4_t odd = vandq_u32(vshlq_u32(u, vdupq_n_s32(bits - 23)), vdupq_n_u32(1));
  const uint32x4_t kept = vdupq_n_u32(~((1u << (23 - bits)) - 1));
  const uint32x4_t y = vandq_u32(vaddq_u32(u, vaddq_u32(half, odd)), kept);
  const float32x4_t magic = vdupq_n_f32(1.5f * (float)(1 << (23 - bits)) * least);
  const float32x4_t fine = vsubq_f32(vaddq_f32(mag, magic), magic);
  const uint32x4_t small = vcltq_f32(mag, vdupq_n_f32(least));
  const float32x4_t rounded = vbslq_f32(small, fine, vreinterpretq_f32_u32(y));
  return vbslq_f32(vdupq_n_u32(0x7fffffff), rounded, x);
}

void fp4moe_quant_mxfp8_neon(const void *x, fp4moe_dtype dtype, size_t k, void *row, size_t k0,
                             size_t row_k, float inverse) {
  (void)row_k, (void)inverse;
  for (size_t i = 0; i < k; i += 32) {
    float32x4_t b[8];
    for (size_t j = 0; j < 8; j++) b[j] = fp4_load_neon(x, dtype, i + 4 * j);
    const uint32_t top = top_of(b, 32), s = fp4_mxfp8_scale(top);
    const float down = fp4_mxfp8_inverse(s);
    const float up = top >= 0x7f800000 ? NAN : fp4_e8m0((uint8_t)s);
    for (size_t j = 0; j < 8; j++)
      b[j] = vmulq_n_f32(round_to(vmulq_n_f32(b[j], down), 3, 0x1p-6f, 448), up);
    for (size_t j = 0; j < 8; j += 2) put_bf16(b[j], b[j + 1], row, k0 + i + 4 * j);
  }
}

void fp4moe_quant_nvfp4_neon(const void *x, fp4moe_dtype dtype, size_t k, void *row, size_t k0,
                             size_t row_k, float inverse) {
  (void)row_k;
  for (size_t i = 0; i < k; i += 16) {
    float32x4_t b[4];
    for (size_t j = 0; j < 4; j++) b[j] = fp4_load_neon(x, dtype, i + 4 * j);
    const uint32_t top = top_of(b, 16);
    const uint8_t sf = fp4_nvfp4_scale(top, inverse);
    const float o = fp4_nvfp4_inverse(sf, inverse);
    const float scale = top >= 0x7f800000 ? NAN : fp4_e4m3(sf);
    for (size_t j = 0; j < 4; j++)
      b[j] = vmulq_n_f32(round_to(vmulq_n_f32(b[j], o), 1, 1, 6), scale);
    for (size_t j = 0; j < 4; j += 2) put_bf16(b[j], b[j + 1], row, k0 + i + 4 * j);
  }
}
