/* quant.h - one element of a caller's row as FP32, and the parts of an int8 activation row. */
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
} fp4_i8_row;

static inline fp4_i8_row fp4_i8_row_at(const void *row, size_t row_k, size_t k0) {
  uint8_t *base = (uint8_t *)(uintptr_t)row;
  return (fp4_i8_row){(int8_t *)base + k0, (float *)(base + fp4_i8_d(row_k)) + k0 / 32,
                      (int32_t *)(base + fp4_i8_sum(row_k)) + k0 / 32,
                      (int32_t *)(base + fp4_i8_half(row_k)) + k0 / 16};
}

#endif
