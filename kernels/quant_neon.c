/* quant_neon.c - quant in NEON: the bits of quant_c.c.
 *
 * The maximum of an i8 block is taken on the bits of the magnitudes, where Inf and NaN stand above
 * every finite number; the division is a division. Narrowing saturates at -128, one beyond. */
#include "quant_neon.h"
#include "neon.h"
#include "quant.h"

void fp4moe_quant_f32_neon(const void *x, fp4moe_dtype dtype, size_t k, void *row, size_t k0,
                           size_t row_k, float inverse) {
  (void)row_k, (void)inverse;
  for (size_t i = 0; i < k; i += 4) vst1q_f32((float *)row + k0 + i, fp4_load_neon(x, dtype, i));
}

/* fp4_bf16_order: the even columns of eight, then the odd ones. */
void fp4moe_quant_bf16_neon(const void *x, fp4moe_dtype dtype, size_t k, void *row, size_t k0,
                            size_t row_k, float inverse) {
  (void)row_k, (void)inverse;
  for (size_t i = 0; i < k; i += 8) {
    const uint32x4_t a = fp4_to_bf16_neon(fp4_load_neon(x, dtype, i));
    const uint32x4_t b = fp4_to_bf16_neon(fp4_load_neon(x, dtype, i + 4));
    vst1q_u16((uint16_t *)row + k0 + i,
              vcombine_u16(vmovn_u32(vuzp1q_u32(a, b)), vmovn_u32(vuzp2q_u32(a, b))));
  }
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
    vst1q_s8(to->q + 32 * i + 16 * h, q);
    to->half[2 * i + h] = -12 * vaddlvq_s8(q);
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
