/* gemm_c.c - the specification of gemm: sums from unpacked panels.
 *
 * One chain per output, k ascending (bf16: in the order in which the row holds its columns). f32
 * and bf16 add products one by one. Class i8 is the canonical order of gemv_c.c. Form i8 has
 * unsigned codes: their offset of 12 is taken out by starting a block's integer sum at
 * -12 * (sum of q), which the row brings along. */
#include <math.h>

#include "panel.h"
#include "quant.h"

/* Adds the call's columns of one row times one unpacked panel to sum. */
typedef void chain_fn(const fp4moe_matmul *t, const void *row, const uint8_t *panel,
                      float sum[FP4MOE_PANEL]);

static inline void gemm(const fp4moe_matmul *t, chain_fn *chain) {
  for (size_t p = 0; p < t->panels; p++)
    for (size_t r = 0; r < t->m; r++) {
      float *acc = t->acc + r * t->acc_stride + p * FP4MOE_PANEL, sum[FP4MOE_PANEL] = {0};
      if (t->resume) memcpy(sum, acc, sizeof sum);
      chain(t, t->rows[r], t->weights + p * t->weights_stride, sum);
      memcpy(acc, sum, sizeof sum);
    }
}

static inline void chain_f32(const fp4moe_matmul *t, const void *row, const uint8_t *panel,
                             float sum[FP4MOE_PANEL]) {
  const float *a = (const float *)row + t->k0, *w = (const float *)(const void *)panel;
  for (size_t k = 0; k < t->k; k++)
    for (size_t j = 0; j < FP4MOE_PANEL; j++) sum[j] += a[k] * w[k * FP4MOE_PANEL + j];
}

static inline void chain_bf16_of(const fp4moe_matmul *t, const void *row, const uint8_t *panel,
                                 size_t together, float sum[FP4MOE_PANEL]) {
  const uint16_t *a = (const uint16_t *)row + t->k0, *w = (const uint16_t *)(const void *)panel;
  for (size_t k = 0; k < t->k; k++)
    for (size_t j = 0; j < FP4MOE_PANEL; j++)
      sum[j] += fp4_from_bf16(a[k]) *
                fp4_from_bf16(w[(k / together * FP4MOE_PANEL + j) * together + k % together]);
}

/* How a form of class i8 holds its codes: columns of a row side by side, and what was added. */
typedef struct bytes {
  size_t together;
  int offset;
} bytes;

static inline int code(bytes of, const uint8_t *block, size_t k, size_t j) {
  const uint8_t byte = block[(k / of.together * FP4MOE_PANEL + j) * of.together + k % of.together];
  return of.offset ? byte : (int8_t)byte;
}

/* Exact sum of q * 2*e2m1 over one block of n columns, and the scales behind its codes. */
static inline const float *block_sums(bytes of, const uint8_t *block, const int8_t *q, size_t n,
                                      int32_t minus_12_q, int32_t b[FP4MOE_PANEL]) {
  for (size_t j = 0; j < FP4MOE_PANEL; j++) {
    b[j] = of.offset ? minus_12_q : 0;
    for (size_t k = 0; k < n; k++) b[j] += code(of, block, k, j) * q[k];
  }
  return (const float *)(const void *)(block + n * FP4MOE_PANEL);
}

static inline void chain_mx(const fp4moe_matmul *t, const void *row, const uint8_t *panel, bytes of,
                            float sum[FP4MOE_PANEL]) {
  const fp4_i8_row a = fp4_i8_row_at(row, t->row_k, t->k0);
  for (size_t k = 0; k < t->k; k += 32, panel += fp4_unpacked_bytes(FP4MOE_ACT_I8, 32, 32)) {
    int32_t b[FP4MOE_PANEL];
    const float *s = block_sums(of, panel, a.q + k, 32, a.sum[k / 32], b);
    for (size_t j = 0; j < FP4MOE_PANEL; j++)
      sum[j] = fmaf((float)b[j], a.d[k / 32] * s[j], sum[j]);
  }
}

static inline void chain_nv(const fp4moe_matmul *t, const void *row, const uint8_t *panel, bytes of,
                            float sum[FP4MOE_PANEL]) {
  const fp4_i8_row a = fp4_i8_row_at(row, t->row_k, t->k0);
  float two[FP4MOE_PANEL]; /* 32 k under one activation scale, or the 16 at the end of a row */
  for (size_t k = 0; k < t->k; k += 16, panel += fp4_unpacked_bytes(FP4MOE_ACT_I8, 16, 16)) {
    int32_t b[FP4MOE_PANEL];
    const float *s = block_sums(of, panel, a.q + k, 16, a.half[k / 16], b);
    for (size_t j = 0; j < FP4MOE_PANEL; j++)
      two[j] = k % 32 ? fmaf((float)b[j], s[j], two[j]) : (float)b[j] * s[j];
    if (k % 32 == 0 && k + 16 < t->k) continue;
    for (size_t j = 0; j < FP4MOE_PANEL; j++) sum[j] = fmaf(two[j], a.d[k / 32], sum[j]);
  }
}

void fp4moe_gemm_f32_8x16_c(const fp4moe_matmul *t) { gemm(t, chain_f32); }

/* The chain of one form, and its row. */
#define VARIANT(name, form_chain, form)                                                            \
  static void chain_##name(const fp4moe_matmul *t, const void *row, const uint8_t *panel,          \
                           float sum[FP4MOE_PANEL]) {                                              \
    form_chain(t, row, panel, form, sum);                                                          \
  }                                                                                                \
  void fp4moe_gemm_##name##_8x16_c(const fp4moe_matmul *t) { gemm(t, chain_##name); }
#define BYTES(together, offset) ((bytes){together, offset})

VARIANT(bf16, chain_bf16_of, 2)
VARIANT(bf16x4, chain_bf16_of, 4)
VARIANT(mx_i8, chain_mx, BYTES(4, 12))
VARIANT(nv_i8, chain_nv, BYTES(4, 12))
VARIANT(mx_s8, chain_mx, BYTES(4, 0))
VARIANT(nv_s8, chain_nv, BYTES(4, 0))
VARIANT(mx_s8x8, chain_mx, BYTES(8, 0))
VARIANT(nv_s8x8, chain_nv, BYTES(8, 0))
