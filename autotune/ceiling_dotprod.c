/* ceiling_dotprod.c - SDOT, 16 int8 multiply-adds each (ceilings.h). */
#include <arm_neon.h>

#include "ceilings.h"

uint64_t ceiling_int8_dotprod(const uint8_t *at, size_t n) {
  int32x4_t sum[CEILING_NEON];
  const int8x16_t a = vdupq_n_s8(1), b = vdupq_n_s8(1);
  (void)at;
#pragma GCC unroll 32
  for (int j = 0; j < CEILING_NEON; j++) sum[j] = vdupq_n_s32(0);
  for (size_t i = 0; i < n; i++)
#pragma GCC unroll 32
    for (int j = 0; j < CEILING_NEON; j++) {
      sum[j] = vdotq_s32(sum[j], a, b);
      __asm__ volatile("" : "+w"(sum[j])); /* or equal chains become one */
    }
#pragma GCC unroll 32
  for (int j = 1; j < CEILING_NEON; j++) sum[0] = vaddq_s32(sum[0], sum[j]);
  return (uint64_t)vaddvq_s32(sum[0]);
}
