/* neon.h - FP4 nibbles and block scales in NEON registers: four rows (a quarter of a panel) each.
 *
 * TBL looks up bytes, so a nibble becomes a BF16 by two lookups, of its lower and of its upper
 * byte. TRN1 and TRN2 join the bytes of even and of odd columns: the result is the pairs of
 * layout.h, 32-bit lane j holding two columns of row j. A BF16 in the upper half of a lane is a
 * FP32 already. */
#ifndef FP4MOE_NEON_H
#define FP4MOE_NEON_H

#include <arm_neon.h>
#include <stddef.h>
#include <stdint.h>

#include "layout.h"
#include "unroll.h"

enum {
  FP4_QUARTERS = 4,
  FP4_ROWS = 8,
  FP4_STRETCH = 128, /* columns of a pass: their activations stay in the first cache */
};

/* A function for each m, up to FP4_ROWS: X(words, isa, body, m), and all of their names. */
#define FP4_FOR_ROWS(X, words, isa, body)                                                          \
  X(words, isa, body, 1)                                                                           \
  X(words, isa, body, 2)                                                                           \
  X(words, isa, body, 3)                                                                           \
  X(words, isa, body, 4)                                                                           \
  X(words, isa, body, 5)                                                                           \
  X(words, isa, body, 6) X(words, isa, body, 7) X(words, isa, body, 8)
#define FP4_ROWS_NAMES(words, isa)                                                                 \
  {                                                                                                \
    words##_1_rows_##isa, words##_2_rows_##isa, words##_3_rows_##isa, words##_4_rows_##isa,        \
        words##_5_rows_##isa, words##_6_rows_##isa, words##_7_rows_##isa, words##_8_rows_##isa     \
  }

/* Lane i of a vector is a constant of the instruction. */
#define FP4_FOR_4_LANES(X) X(0) X(1) X(2) X(3)

/* A load where it stands, beside the dots; the compiler would load once, and each copy of the
 * register would take a dot's place. */
FP4_INLINE int32x4_t fp4_load_anew(const int32_t from[4]) {
  int32x4_t x;
  __asm__ volatile("ldr %q0, %1" : "=w"(x) : "m"(*(const int32x4_t *)(const void *)from));
  return x;
}

/* ---- Nibbles: 16 bytes are 4 rows x 8 columns ---- */

/* 2*e2m1 of columns 0..3 and of 4..7, four bytes a row. */
typedef struct fp4_codes {
  int8x16_t lo, hi;
} fp4_codes;

FP4_INLINE fp4_codes fp4_decode_s8(uint8x16_t x) {
  const int8x16_t table = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
  return (fp4_codes){vqtbl1q_s8(table, vandq_u8(x, vdupq_n_u8(15))),
                     vqtbl1q_s8(table, vshrq_n_u8(x, 4))};
}

/* The pairs of layout.h: columns (0,2) (4,6) (1,3) (5,7), two BF16 a row. */
typedef struct fp4_pairs {
  uint16x8_t pair[4];
} fp4_pairs;

FP4_INLINE fp4_pairs fp4_decode_bf16(uint8x16_t x) {
  const uint8x16_t lower = {0, 0, 0x80, 0xc0, 0, 0x40, 0x80, 0xc0,
                            0, 0, 0x80, 0xc0, 0, 0x40, 0x80, 0xc0};
  const uint8x16_t upper = {0,    0x3f, 0x3f, 0x3f, 0x40, 0x40, 0x40, 0x40,
                            0x80, 0xbf, 0xbf, 0xbf, 0xc0, 0xc0, 0xc0, 0xc0};
  const uint8x16_t lo = vandq_u8(x, vdupq_n_u8(15)), hi = vshrq_n_u8(x, 4);
  const uint8x16_t a = vqtbl1q_u8(lower, lo), b = vqtbl1q_u8(upper, lo);
  const uint8x16_t c = vqtbl1q_u8(lower, hi), d = vqtbl1q_u8(upper, hi);
  return (fp4_pairs){{vreinterpretq_u16_u8(vtrn1q_u8(a, b)), vreinterpretq_u16_u8(vtrn1q_u8(c, d)),
                      vreinterpretq_u16_u8(vtrn2q_u8(a, b)),
                      vreinterpretq_u16_u8(vtrn2q_u8(c, d))}};
}

/* The lower and the upper BF16 of each 32-bit lane as FP32. */
FP4_INLINE float32x4_t fp4_even(uint16x8_t pair) {
  return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_u16(pair), 16));
}
FP4_INLINE float32x4_t fp4_odd(uint16x8_t pair) {
  return vreinterpretq_f32_u32(
      vandq_u32(vreinterpretq_u32_u16(pair), vdupq_n_u32(UINT32_C(0xffff0000))));
}

/* ---- Block scales: 16 rows ---- */

typedef struct fp4_scales {
  float32x4_t quarter[FP4_QUARTERS];
} fp4_scales;

/* FP32 whose upper two bytes are given. */
FP4_INLINE fp4_scales fp4_from_bytes(uint8x16_t lower, uint8x16_t upper) {
  const uint16x8_t zero = vdupq_n_u16(0);
  const uint16x8_t a = vreinterpretq_u16_u8(vzip1q_u8(lower, upper));
  const uint16x8_t b = vreinterpretq_u16_u8(vzip2q_u8(lower, upper));
  return (fp4_scales){
      {vreinterpretq_f32_u16(vzip1q_u16(zero, a)), vreinterpretq_f32_u16(vzip2q_u16(zero, a)),
       vreinterpretq_f32_u16(vzip1q_u16(zero, b)), vreinterpretq_f32_u16(vzip2q_u16(zero, b))}};
}

/* E8M0, any byte. The BF16 of 2^(s-127) is s << 7, but for the subnormal s = 0 and for NaN, which
 * both have bit 6 besides. */
FP4_INLINE fp4_scales fp4_e8m0_scales(const uint8_t *s) {
  const uint8x16_t byte = vld1q_u8(s), one = vdupq_n_u8(1);
  const uint8x16_t ends = vandq_u8(vcleq_u8(vaddq_u8(byte, one), one), vdupq_n_u8(0x40));
  return fp4_from_bytes(vorrq_u8(vshlq_n_u8(byte, 7), ends), vshrq_n_u8(byte, 1));
}

/* E4M3, any byte. The seven bits moved into a FP32 are the scale times 2^-120, whose subnormals are
 * E4M3's. */
FP4_INLINE fp4_scales fp4_e4m3_scales(const uint8_t *s) {
  const uint8x16_t byte = vld1q_u8(s);
  const uint8x16_t nan = vceqq_u8(vorrq_u8(byte, vdupq_n_u8(0x80)), vdupq_n_u8(0xff));
  const uint8x16_t upper = /* the sign came five times */
      vandq_u8(vreinterpretq_u8_s8(vshrq_n_s8(vreinterpretq_s8_u8(byte), 4)), vdupq_n_u8(0x87));
  fp4_scales x = fp4_from_bytes(vbslq_u8(nan, vdupq_n_u8(0xc0), vshlq_n_u8(byte, 4)),
                                vbslq_u8(nan, vdupq_n_u8(0x7f), upper));
  FP4_UNROLL for (size_t q = 0; q < FP4_QUARTERS; q++) x.quarter[q] =
      vmulq_n_f32(x.quarter[q], 0x1p120f);
  return x;
}

FP4_INLINE fp4_scales fp4_group_scales(const uint8_t *s, size_t group) {
  return group == FP4_NV_GROUP ? fp4_e4m3_scales(s) : fp4_e8m0_scales(s);
}

#endif
