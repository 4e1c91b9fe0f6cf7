/* ceiling_avx512.c - the ceilings of AVX-512 (ceilings.h). Two read loops, because which is better
 * depends on the host's prefetchers: one stream with software prefetch, and four streams. */
#include <immintrin.h>

#include "ceilings.h"

/* Four loads a step, `apart` bytes from each other; `ahead` = 0: no software prefetch. */
static inline uint64_t read_steps(const uint8_t *at, size_t n, size_t step, size_t apart,
                                  size_t ahead) {
  __m512i sum[4] = {_mm512_setzero_si512()};
  for (size_t i = 0; i < n; i += step)
#pragma GCC unroll 4
    for (size_t j = 0; j < 4; j++) {
      if (ahead) _mm_prefetch((const char *)at + i + apart * j + ahead, _MM_HINT_T0);
      sum[j] = _mm512_or_si512(sum[j], _mm512_load_si512(at + i + apart * j));
    }
  sum[0] = _mm512_or_si512(_mm512_or_si512(sum[0], sum[1]), _mm512_or_si512(sum[2], sum[3]));
  return (uint64_t)_mm512_reduce_or_epi64(sum[0]);
}

uint64_t ceiling_read_ahead_avx512(const uint8_t *at, size_t n) {
  return read_steps(at, n, 256, 64, 4096);
}

uint64_t ceiling_read_4_avx512(const uint8_t *at, size_t n) {
  return read_steps(at, n / 4, 64, n / 4, 0);
}

uint64_t ceiling_int8_avx512(const uint8_t *at, size_t n) {
  __m512i sum[CEILING_CHAINS], a = _mm512_set1_epi8(1), b = _mm512_set1_epi8(1);
  (void)at;
  for (int j = 0; j < CEILING_CHAINS; j++) sum[j] = _mm512_setzero_si512();
  for (size_t i = 0; i < n; i++)
#pragma GCC unroll 16
    for (int j = 0; j < CEILING_CHAINS; j++) {
      __asm__ volatile("" : "+v"(a));
      sum[j] = _mm512_add_epi16(sum[j], _mm512_maddubs_epi16(a, b));
    }
  for (int j = 1; j < CEILING_CHAINS; j++) sum[0] = _mm512_add_epi16(sum[0], sum[j]);
  return (uint64_t)_mm512_reduce_or_epi64(sum[0]);
}

uint64_t ceiling_f32_avx512(const uint8_t *at, size_t n) {
  __m512 sum[CEILING_CHAINS], a = _mm512_set1_ps(0.5f), b = _mm512_set1_ps(1);
  (void)at;
  for (int j = 0; j < CEILING_CHAINS; j++) sum[j] = _mm512_setzero_ps();
  for (size_t i = 0; i < n; i++)
#pragma GCC unroll 16
    for (int j = 0; j < CEILING_CHAINS; j++) sum[j] = _mm512_fmadd_ps(a, b, sum[j]);
  for (int j = 1; j < CEILING_CHAINS; j++) sum[0] = _mm512_add_ps(sum[0], sum[j]);
  return _mm512_reduce_add_ps(sum[0]) > 0;
}
