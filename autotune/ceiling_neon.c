/* ceiling_neon.c - the ceilings of every AArch64 CPU (ceilings.h). An int8 multiply-add without
 * SDOT is SMLAL, into 16 bits. */
#include "ceiling_neon.h"

uint64_t ceiling_read_neon(const uint8_t *at, size_t n) {
  uint8x16_t sum[8] = {vdupq_n_u8(0)};
  for (size_t i = 0; i < n; i += 128) {
    for (size_t j = 0; j < 128; j += 64) __builtin_prefetch(at + i + j + 4096, 0, 3);
#pragma GCC unroll 8
    for (size_t j = 0; j < 8; j++) sum[j] = vorrq_u8(sum[j], vld1q_u8(at + i + 16 * j));
  }
  for (size_t j = 1; j < 8; j++) sum[0] = vorrq_u8(sum[0], sum[j]);
  return vaddvq_u8(sum[0]);
}

CEILING_DOT(ceiling_int8_neon, int16x8_t, vdupq_n_s16, int8x8_t, vdup_n_s8(1), vmlal_s8, vaddq_s16,
            vaddvq_s16)
CEILING_DOT(ceiling_f32_neon, float32x4_t, vdupq_n_f32, float32x4_t, vdupq_n_f32(0.5f), vfmaq_f32,
            vaddq_f32, vaddvq_f32)
