/* ceiling_neon.h - the dot ceilings of AArch64 (ceilings.h): CEILING_NEON chains of one
 * instruction, fewer than its registers and more than any core needs to be busy. */
#ifndef FP4MOE_CEILING_NEON_H
#define FP4MOE_CEILING_NEON_H

#include <arm_neon.h>

#include "ceilings.h"

/* dot(sum, x, x), of sums of a type with its zero and its addition; lane(sum) is a number. */
#define CEILING_DOT(name, type, zero, factor, value, dot, add, lane)                               \
  uint64_t name(const uint8_t *at, size_t n) {                                                     \
    type sum[CEILING_NEON];                                                                        \
    const factor x = value;                                                                        \
    (void)at;                                                                                      \
    _Pragma("GCC unroll 32") for (int j = 0; j < CEILING_NEON; j++) sum[j] = zero(0);              \
    for (size_t i = 0; i < n; i++)                                                                 \
      _Pragma("GCC unroll 32") for (int j = 0; j < CEILING_NEON; j++) {                            \
        sum[j] = dot(sum[j], x, x);                                                                \
        __asm__ volatile("" : "+w"(sum[j])); /* or equal chains become one */                      \
      }                                                                                            \
    _Pragma("GCC unroll 32") for (int j = 1; j < CEILING_NEON; j++) sum[0] = add(sum[0], sum[j]);  \
    return (uint64_t)lane(sum[0]);                                                                 \
  }

#endif
