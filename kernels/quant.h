/* quant.h - one element of a caller's row as FP32, the parts of an int8 activation row, and the
 * block scales of mxfp8 and nvfp4, which C and vectors share: one of a block, the same bits. */
#ifndef FP4MOE_QUANT_H
#define FP4MOE_QUANT_H

#include "fp4.h"
#include "kernel.h"

/* Exact; x has any alignment of its element. */
static inline float fp4_load(const void *x, fp4moe_dtype dtype, size_t i) {
  switch (dtype) {
  case FP4MOE_F16:
    return fp4_from_f16(((const uint16_t *)x)[i]);
  case FP4MOE_BF16:
    return fp4_from_bf16(((const uint16_t *)x)[i]);
  default:
    return ((const float *)x)[i];
  }
}

/* The parts of an i8 row (kernel.h), each from column k0 on. A reader only reads. */
typedef struct fp4_i8_row {
  int8_t *q;
  float *d;
  int32_t *sum, *half;
  int16_t *pair;
} fp4_i8_row;

static inline fp4_i8_row fp4_i8_row_at(const void *row, size_t row_k, size_t k0) {
  uint8_t *base = (uint8_t *)(uintptr_t)row;
  return (fp4_i8_row){(int8_t *)base + k0, (float *)(base + fp4_i8_d(row_k)) + k0 / 32,
                      (int32_t *)(base + fp4_i8_sum(row_k)) + k0 / 32,
                      (int32_t *)(base + fp4_i8_half(row_k)) + k0 / 16,
                      (int16_t *)(base + fp4_i8_pair(row_k)) + k0 / 8};
}

/* ---- Block scales, from the bits of the block's largest magnitude (finite) ---- */

/* E8M0 byte of mxfp8: ceil(log2(top / 448)) + 127, where 448 = 1.75 * 2^8. */
static inline uint32_t fp4_mxfp8_scale(uint32_t top) {
  const uint32_t exponent = (top + 0x1fffff) >> 23; /* + 1 where the significand is above 1.75 */
  return exponent > 8 ? exponent - 8 : 0;
}

/* 2^(127 - s), s <= 247 as above. */
static inline float fp4_mxfp8_inverse(uint32_t s) { return fp4_f32_from_bits((254 - s) << 23); }

/* SF of nvfp4 as E4M3, and G / SF. */
static inline uint8_t fp4_nvfp4_scale(uint32_t top, float inverse) {
  return fp4_to_e4m3(inverse * (fp4_f32_from_bits(top) * (1.0f / 6.0f)));
}

static inline float fp4_nvfp4_inverse(uint8_t sf, float inverse) {
  return sf ? inverse / fp4_e4m3(sf) : 0;
}

#endif
