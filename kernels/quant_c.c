/* quant_c.c - the specification of quant: a caller's row in the form of an activation class.
 *
 * Every source element is first FP32, exactly; what follows is the rounding of kernel.h. No element
 * of another block, and nothing outside the columns asked for, is read or written. */
#include <math.h>

#include "quant.h"

void fp4moe_quant_f32_c(const void *x, fp4moe_dtype dtype, size_t k, void *row, size_t k0,
                        size_t row_k, float inverse) {
  (void)row_k, (void)inverse;
  float *to = (float *)row + k0;
  for (size_t i = 0; i < k; i++) to[i] = fp4_load(x, dtype, i);
}

void fp4moe_quant_bf16_c(const void *x, fp4moe_dtype dtype, size_t k, void *row, size_t k0,
                         size_t row_k, float inverse) {
  (void)row_k, (void)inverse;
  uint16_t *to = (uint16_t *)row + k0;
  for (size_t at = 0; at < k; at++)
    to[at] = fp4_to_bf16(fp4_load(x, dtype, at / 8 * 8 + fp4_bf16_order[at % 8]));
}

/* The largest magnitude, as bits: above every finite one stand Inf and NaN. */
static uint32_t top_of(const float *x, size_t n) {
  uint32_t top = 0;
  for (size_t i = 0; i < n; i++) {
    uint32_t mag = fp4_f32_bits(x[i]) & 0x7fffffff;
    if (mag > top) top = mag;
  }
  return top;
}

/* Writes the codes of one block and returns its d. */
static float quant_block(const float *x, size_t n, int8_t *q) {
  uint32_t top = top_of(x, n);
  memset(q, 0, n);
  if (top >= 0x7f800000) return fp4_f32_from_bits(0x7fc00000);
  float d = fp4_f32_from_bits(top) / 127;
  if (d < 0x1p-126f) return 0;
  for (size_t i = 0; i < n; i++) {
    float r = nearbyintf(x[i] / d);
    q[i] = (int8_t)(r > 127 ? 127 : r < -127 ? -127 : r);
  }
  return d;
}

static int32_t sum_of(const int8_t *q, size_t n) {
  int32_t sum = 0;
  for (size_t i = 0; i < n; i++) sum += q[i];
  return sum;
}

/* What the 16 columns at q leave beside them. */
static void put_half(const int8_t *q, int32_t *half, int16_t pair[2]) {
  int sum[2] = {0, 0};
  for (size_t i = 0; i < 16; i++) sum[i % 4 / 2] += q[i];
  pair[0] = (int16_t)(-12 * sum[0]);
  pair[1] = (int16_t)(-12 * sum[1]);
  *half = pair[0] + pair[1];
}

void fp4moe_quant_i8_c(const void *x, fp4moe_dtype dtype, size_t k, void *row, size_t k0,
                       size_t row_k, float inverse) {
  (void)inverse;
  const fp4_i8_row to = fp4_i8_row_at(row, row_k, k0);
  for (size_t at = 0; at < k; at += 32) {
    size_t n = k - at < 32 ? k - at : 32;
    float block[32];
    for (size_t i = 0; i < n; i++) block[i] = fp4_load(x, dtype, at + i);
    to.d[at / 32] = quant_block(block, n, to.q + at);
    to.sum[at / 32] = -12 * sum_of(to.q + at, n);
    for (size_t i = 0; i < n; i += 16)
      put_half(to.q + at + i, to.half + (at + i) / 16, to.pair + (at + i) / 8);
  }
}

/* n values in the order of a bf16 row. */
static void put_bf16(const float *x, size_t n, uint16_t *to) {
  for (size_t i = 0; i < n; i++) to[i] = fp4_to_bf16(x[i / 8 * 8 + fp4_bf16_order[i % 8]]);
}

void fp4moe_quant_mxfp8_c(const void *x, fp4moe_dtype dtype, size_t k, void *row, size_t k0,
                          size_t row_k, float inverse) {
  (void)row_k, (void)inverse;
  for (size_t at = 0; at < k; at += 32) {
    float v[32];
    for (size_t i = 0; i < 32; i++) v[i] = fp4_load(x, dtype, at + i);
    const uint32_t top = top_of(v, 32), s = fp4_mxfp8_scale(top);
    for (size_t i = 0; i < 32; i++)
      v[i] = top >= 0x7f800000
                 ? NAN
                 : fp4_e4m3(fp4_to_e4m3(v[i] * fp4_mxfp8_inverse(s))) * fp4_e8m0((uint8_t)s);
    put_bf16(v, 32, (uint16_t *)row + k0 + at);
  }
}

void fp4moe_quant_nvfp4_c(const void *x, fp4moe_dtype dtype, size_t k, void *row, size_t k0,
                          size_t row_k, float inverse) {
  (void)row_k;
  for (size_t at = 0; at < k; at += 16) {
    float v[16];
    for (size_t i = 0; i < 16; i++) v[i] = fp4_load(x, dtype, at + i);
    const uint32_t top = top_of(v, 16);
    const uint8_t sf = fp4_nvfp4_scale(top, inverse);
    const float o = fp4_nvfp4_inverse(sf, inverse);
    for (size_t i = 0; i < 16; i++)
      v[i] = top >= 0x7f800000 ? NAN : fp4_e2m1(fp4_to_e2m1(v[i] * o)) * fp4_e4m3(sf);
    put_bf16(v, 16, (uint16_t *)row + k0 + at);
  }
}
