/* fp4.h - the number formats in scalar C: the one definition of each.
 *
 * E2M1, E8M0 and E4M3 as in OCP Microscaling Formats 1.0 and the public NVFP4 checkpoints; BF16 and
 * F16 as IEEE defines them, with the two choices that every ISA here makes alike: rounding to BF16
 * is nearest-even, takes |x| < 2^-126 to a signed zero and any NaN to 0x7fc0.
 * Bits go in and out; nothing here depends on the caller's rounding mode or flush bits except
 * where a product of floats is formed, and kernels run in the canonical mode. */
#ifndef FP4MOE_FP4_H
#define FP4MOE_FP4_H

#include <math.h>
#include <stdint.h>
#include <string.h>

static inline float fp4_f32_from_bits(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

static inline uint32_t fp4_f32_bits(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

/* ---- E2M1: sign<<3 | m, m = 0..7 -> 0 0.5 1 1.5 2 3 4 6 ---- */

/* 2 * value, exact in int8. Codes 0 and 8 are both 0. */
static inline int fp4_e2m1_x2(unsigned code) {
  static const int8_t table[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
  return table[code & 15];
}

/* Code 8 is -0. */
static inline float fp4_e2m1(unsigned code) {
  float x = 0.5f * (float)fp4_e2m1_x2(code);
  return (code & 15) == 8 ? -0.0f : x;
}

/* The code of x: nearest, ties to the even code, saturating at 6; -0 and what rounds to it is 8. x
 * is no NaN. */
static inline unsigned fp4_to_e2m1(float x) {
  static const float above[7] = {0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5.0f};
  uint32_t u = fp4_f32_bits(x);
  float mag = fp4_f32_from_bits(u & 0x7fffffff);
  unsigned code = 0;
  for (unsigned i = 0; i < 7; i++) code += mag > above[i] || (mag == above[i] && i % 2);
  return u >> 31 << 3 | code;
}

/* Code of element k in a row of packed checkpoint bytes: the low nibble is the even k. */
static inline unsigned fp4_code(const uint8_t *row, size_t k) {
  return (unsigned)row[k / 2] >> 4 * (k % 2) & 15;
}

/* ---- Block scales ---- */

/* 2^(s-127); s = 0 is the FP32 subnormal 2^-127, s = 255 is NaN. */
static inline float fp4_e8m0(uint8_t s) {
  if (s == 255) return fp4_f32_from_bits(0x7fc00000);
  return fp4_f32_from_bits(s ? (uint32_t)s << 23 : 0x00400000);
}

/* E4M3FN: bias 7, max 448, no infinity, NaN = 0x7f and 0xff, least subnormal 2^-9. */
static inline float fp4_e4m3(uint8_t s) {
  uint32_t sign = (uint32_t)(s & 0x80) << 24, mag = s & 0x7f;
  if (mag == 0x7f) return fp4_f32_from_bits(0x7fc00000);
  if (mag >= 8) return fp4_f32_from_bits(sign | ((mag << 20) + (120u << 23)));
  float x = (float)mag * 0x1p-9f;
  return fp4_f32_from_bits(sign | fp4_f32_bits(x));
}

/* Nearest-even, saturating at 448 (Inf too), any NaN to 0x7f of its sign. Rounding mode nearest. */
static inline uint8_t fp4_to_e4m3(float x) {
  uint32_t u = fp4_f32_bits(x), mag = u & 0x7fffffff, sign = u >> 24 & 0x80;
  if (mag > 0x7f800000) return (uint8_t)(sign | 0x7f);
  if (mag >= 0x43e00000) return (uint8_t)(sign | 0x7e);
  if (mag >= 0x3c800000) /* 2^-6, normal: rebias, round at bit 20 */
    return (uint8_t)(sign | ((mag - (120u << 23) + 0x7ffff + (mag >> 20 & 1)) >> 20));
  return (uint8_t)(sign | (uint32_t)nearbyintf(fp4_f32_from_bits(mag) * 0x1p9f));
}

/* ---- BF16 and F16 ---- */

static inline float fp4_from_bf16(uint16_t b) { return fp4_f32_from_bits((uint32_t)b << 16); }

static inline uint16_t fp4_to_bf16(float x) {
  uint32_t u = fp4_f32_bits(x), mag = u & 0x7fffffff;
  if (mag > 0x7f800000) return 0x7fc0;
  if (mag < 0x00800000) return (uint16_t)(u >> 16 & 0x8000);
  return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static inline float fp4_from_f16(uint16_t h) {
  uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = h >> 10 & 31, m = h & 0x3ff;
  if (e == 31) return fp4_f32_from_bits(sign | 0x7f800000 | m << 13 | (m ? 0x400000 : 0));
  if (e) return fp4_f32_from_bits(sign | (e + 112) << 23 | m << 13);
  float x = (float)m * 0x1p-24f;
  return fp4_f32_from_bits(sign | fp4_f32_bits(x));
}

/* Nearest-even, overflow to infinity, subnormals kept, any NaN to a quiet NaN of its sign. */
static inline uint16_t fp4_to_f16(float x) {
  uint32_t u = fp4_f32_bits(x), mag = u & 0x7fffffff;
  uint16_t sign = (uint16_t)(u >> 16 & 0x8000);
  if (mag > 0x7f800000) return (uint16_t)(sign | 0x7e00 | (mag >> 13 & 0x3ff));
  if (mag >= 0x477ff000) return (uint16_t)(sign | 0x7c00);
  if (mag >= 0x38800000) /* normal: rebias, round at bit 13 */
    return (uint16_t)(sign | ((mag - (112u << 23) + 0xfff + (mag >> 13 & 1)) >> 13));
  if (mag < 0x33000000) return sign; /* under half the least subnormal */
  uint32_t e = mag >> 23, m = (mag & 0x7fffff) | 0x800000, shift = 126 - e;
  uint32_t q = m >> shift, rest = m & ((1u << shift) - 1), half = 1u << (shift - 1);
  return (uint16_t)(sign | (q + (rest > half || (rest == half && (q & 1)))));
}

#endif
