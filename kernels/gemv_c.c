/* gemv_c.c - the specification of gemv: sums straight from the nibbles, any block scale.
 *
 * A block of one scale is summed over its codes, k ascending, and enters the chain of its output
 * through one fused multiply-add. Class i8 is the canonical order of the class: its bits are those
 * of every other row. The float rows promise their bound only. */
#include <math.h>

#include "panel.h"
#include "quant.h"

/* The row's columns [k0, k0 + n) as FP32, k ascending. */
static inline void load_row(fp4moe_act_class act, const void *row, size_t k0, size_t n, float *a) {
  if (act == FP4MOE_ACT_F32) {
    memcpy(a, (const float *)row + k0, n * sizeof *a);
    return;
  }
  const uint16_t *from = (const uint16_t *)row + k0;
  for (size_t at = 0; at < n; at++)
    a[at / 8 * 8 + fp4_bf16_order[at % 8]] = fp4_from_bf16(from[at]);
}

static inline void zero_acc(const fp4moe_matmul *t) {
  for (size_t r = 0; r < t->m; r++)
    memset(t->acc + r * t->acc_stride, 0, t->panels * FP4MOE_PANEL * sizeof *t->acc);
}

/* One block: columns [k, k + group) of the call, panel p. */
static inline void float_block(fp4moe_format format, fp4moe_act_class act, const fp4moe_matmul *t,
                               size_t p, size_t k) {
  const size_t group = fp4_group(format);
  const uint8_t *nibbles = t->weights + p * t->weights_stride;
  const uint8_t *scales = t->scales + p * t->scales_stride + k / group * FP4MOE_PANEL;
  float code[32][FP4MOE_PANEL], a[32];
  for (size_t i = 0; i < group; i++)
    for (size_t j = 0; j < FP4MOE_PANEL; j++)
      code[i][j] = fp4_e2m1(fp4_panel_code(nibbles, k + i, j));
  for (size_t r = 0; r < t->m; r++) {
    float sum[FP4MOE_PANEL] = {0}, *acc = t->acc + r * t->acc_stride + p * FP4MOE_PANEL;
    load_row(act, t->rows[r], t->k0 + k, group, a);
    for (size_t i = 0; i < group; i++)
      for (size_t j = 0; j < FP4MOE_PANEL; j++) sum[j] += a[i] * code[i][j];
    for (size_t j = 0; j < FP4MOE_PANEL; j++)
      acc[j] = fmaf(sum[j], fp4_scale(format, scales[j]), acc[j]);
  }
}

static inline void gemv_float(fp4moe_format format, fp4moe_act_class act, const fp4moe_matmul *t) {
  if (!t->resume) zero_acc(t);
  for (size_t p = 0; p < t->panels; p++)
    for (size_t k = 0; k < t->k; k += fp4_group(format)) float_block(format, act, t, p, k);
}

void fp4moe_gemv_mx_f32_8x16_c(const fp4moe_matmul *t) {
  gemv_float(FP4MOE_MXFP4, FP4MOE_ACT_F32, t);
}

void fp4moe_gemv_nv_f32_8x16_c(const fp4moe_matmul *t) {
  gemv_float(FP4MOE_NVFP4, FP4MOE_ACT_F32, t);
}

void fp4moe_gemv_mx_bf16_8x16_c(const fp4moe_matmul *t) {
  gemv_float(FP4MOE_MXFP4, FP4MOE_ACT_BF16, t);
}

void fp4moe_gemv_nv_bf16_8x16_c(const fp4moe_matmul *t) {
  gemv_float(FP4MOE_NVFP4, FP4MOE_ACT_BF16, t);
}

/* The canonical step: B0, B1 are the exact sums of 2*e2m1 * q over the blocks of 32 k. */
static inline float chain(fp4moe_format format, const int32_t b[2], const uint8_t *scales, float d,
                          size_t blocks, float acc) {
  if (format == FP4MOE_MXFP4) return fmaf((float)b[0], d * fp4_e8m0(scales[0]), acc);
  float t = (float)b[0] * fp4_e4m3(scales[0]);
  if (blocks == 2) t = fmaf((float)b[1], fp4_e4m3(scales[FP4MOE_PANEL]), t);
  return fmaf(t, d, acc);
}

/* 32 k, or the 16 at the end of a row: columns [k, k + n) of the call, panel p. */
static inline void i8_block(fp4moe_format format, const fp4moe_matmul *t, size_t p, size_t k,
                            size_t n) {
  const size_t group = fp4_group(format);
  const uint8_t *nibbles = t->weights + p * t->weights_stride;
  const uint8_t *scales = t->scales + p * t->scales_stride + k / group * FP4MOE_PANEL;
  int code[32][FP4MOE_PANEL];
  for (size_t i = 0; i < n; i++)
    for (size_t j = 0; j < FP4MOE_PANEL; j++)
      code[i][j] = fp4_e2m1_x2(fp4_panel_code(nibbles, k + i, j));
  for (size_t r = 0; r < t->m; r++) {
    const fp4_i8_row row = fp4_i8_row_at(t->rows[r], t->row_k, t->k0 + k);
    float *acc = t->acc + r * t->acc_stride + p * FP4MOE_PANEL;
    for (size_t j = 0; j < FP4MOE_PANEL; j++) {
      int32_t b[2] = {0, 0};
      for (size_t i = 0; i < n; i++) b[i / group] += code[i][j] * row.q[i];
      acc[j] = chain(format, b, scales + j, *row.d, n / group, acc[j]);
    }
  }
}

static inline void gemv_i8(fp4moe_format format, const fp4moe_matmul *t) {
  if (!t->resume) zero_acc(t);
  for (size_t p = 0; p < t->panels; p++)
    for (size_t k = 0; k < t->k; k += 32) i8_block(format, t, p, k, t->k - k < 32 ? t->k - k : 32);
}

void fp4moe_gemv_mx_i8_8x16_c(const fp4moe_matmul *t) { gemv_i8(FP4MOE_MXFP4, t); }

void fp4moe_gemv_nv_i8_8x16_c(const fp4moe_matmul *t) { gemv_i8(FP4MOE_NVFP4, t); }
