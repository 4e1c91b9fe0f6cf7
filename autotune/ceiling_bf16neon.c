/* ceiling_bf16neon.c - BFMMLA, 16 BF16 multiply-adds each (ceilings.h). */
#include <arm_neon.h>

#include "ceilings.h"

uint64_t ceiling_bf16_bf16neon(const uint8_t *at, size_t n) {
  float32x4_t sum[CEILING_NEON];
  const bfloat16x8_t a = vreinterpretq_bf16_u16(vdupq_n_u16(0x3e99)), b = a; /* 0.3 */
  (void)at;
#pragma GCC unroll 32
  for (int j = 0; j < CEILING_NEON; j++) sum[j] = vdupq_n_f32(0);
  for (size_t i = 0; i < n; i++)
#pragma GCC unroll 32
    for (int j = 0; j < CEILING_NEON; j++) {
      sum[j] = vbfmmlaq_f32(sum[j], a, b);
      __asm__ volatile("" : "+w"(sum[j])); /* or equal chains become one */
    }
#pragma GCC unroll 32
  for (int j = 1; j < CEILING_NEON; j++) sum[0] = vaddq_f32(sum[0], sum[j]);
  return vaddvq_f32(sum[0]) > 0;
}
