/* ceiling_c.c - the ceilings of any CPU (ceilings.h): what a C compiler makes of plain loops. */
#include "ceilings.h"

uint64_t ceiling_read_c(const uint8_t *at, size_t n) {
  const uint64_t *x = (const void *)at;
  uint64_t sum[8] = {0};
  for (size_t i = 0; i < n / 8; i += 8)
    for (size_t j = 0; j < 8; j++) sum[j] |= x[i + j];
  return sum[0] + sum[1] + sum[2] + sum[3] + sum[4] + sum[5] + sum[6] + sum[7];
}

uint64_t ceiling_int8_c(const uint8_t *at, size_t n) {
  int8_t a[CEILING_CHAINS], b[CEILING_CHAINS];
  int32_t sum[CEILING_CHAINS] = {0}, total = 0;
  (void)at;
  for (int j = 0; j < CEILING_CHAINS; j++) a[j] = (int8_t)j, b[j] = (int8_t)-j;
  for (size_t i = 0; i < n; i++) {
    __asm__ volatile("" : "+m"(a), "+m"(b));
    for (int j = 0; j < CEILING_CHAINS; j++) sum[j] += a[j] * b[j];
  }
  for (int j = 0; j < CEILING_CHAINS; j++) total ^= sum[j];
  return (uint64_t)(uint32_t)total;
}

uint64_t ceiling_f32_c(const uint8_t *at, size_t n) {
  float a[CEILING_CHAINS], sum[CEILING_CHAINS] = {0}, total = 0;
  (void)at;
  for (int j = 0; j < CEILING_CHAINS; j++) a[j] = (float)j;
  for (size_t i = 0; i < n; i++) {
    __asm__ volatile("" : "+m"(a));
    for (int j = 0; j < CEILING_CHAINS; j++) sum[j] += a[j] * 0.5f;
  }
  for (int j = 0; j < CEILING_CHAINS; j++) total += sum[j];
  return total > 0;
}
