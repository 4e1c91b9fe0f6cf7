/* ceiling_neon.c - the ceilings of every AArch64 CPU (ceilings.h). An int8 multiply-add without
 * SDOT is SMLAL, into 16 bits. */
#include <arm_neon.h>

#include "ceilings.h"

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

uint64_t ceiling_int8_neon(const uint8_t *at, size_t n) {
  int16x8_t sum[CEILING_NEON];
  const int8x8_t a = vdup_n_s8(1), b = vdup_n_s8(1);
  (void)at;
#pragma GCC unroll 32
  for (int j = 0; j < CEILING_NEON; j++) sum[j] = vdupq_n_s16(0);
  for (size_t i = 0; i < n; i++)
#pragma GCC unroll 32
    for (int j = 0; j < CEILING_NEON; j++) {
      sum[j] = vmlal_s8(sum[j], a, b);
      __asm__ volatile("" : "+w"(sum[j])); /* or equal chains become one */
    }
#pragma GCC unroll 32
  for (int j = 1; j < CEILING_NEON; j++) sum[0] = vaddq_s16(sum[0], sum[j]);
  return (uint64_t)vaddvq_s16(sum[0]);
}

uint64_t ceiling_f32_neon(const uint8_t *at, size_t n) {
  float32x4_t sum[CEILING_NEON];
  const float32x4_t a = vdupq_n_f32(0.5f), b = vdupq_n_f32(1);
  (void)at;
#pragma GCC unroll 32
  for (int j = 0; j < CEILING_NEON; j++) sum[j] = vdupq_n_f32(0);
  for (size_t i = 0; i < n; i++)
#pragma GCC unroll 32
    for (int j = 0; j < CEILING_NEON; j++) {
      sum[j] = vfmaq_f32(sum[j], a, b);
      __asm__ volatile("" : "+w"(sum[j]));
    }
#pragma GCC unroll 32
  for (int j = 1; j < CEILING_NEON; j++) sum[0] = vaddq_f32(sum[0], sum[j]);
  return vaddvq_f32(sum[0]) > 0;
}
