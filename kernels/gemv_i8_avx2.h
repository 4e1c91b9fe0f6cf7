/* gemv_i8_avx2.h - few int8 rows against FP4 panels, nibbles decoded in registers: one body for
 * every dot of 256 bits that expands it (matmul_i8_avx2.h).
 *
 * 16 registers hold the sums of 4 rows and the codes: more rows pass one after the other, panel by
 * panel, which stays in L1. Always plain: what quick blocks save, looking at the scales costs. */
#ifndef FP4MOE_GEMV_I8_AVX2_H
#define FP4MOE_GEMV_I8_AVX2_H

#include <string.h>

#include "matmul_i8_avx2.h"

enum { FP4_GEMV_M = 4 };

/* Rows [first, first + m) against one panel; of and m are constants where this is expanded. */
FP4_INLINE void fp4_gemv_tile(const fp4moe_matmul *t, size_t panel, size_t first, size_t m,
                              fp4_i8_kind of) {
  const uint8_t *w = t->weights + panel * t->weights_stride;
  const uint8_t *s = t->scales + panel * t->scales_stride;
  float *out = t->acc + first * t->acc_stride + 16 * panel;
  fp4_parts at = fp4_parts_at(t->row_k, t->k0);
  const char *row[FP4_GEMV_M];
  _Alignas(32) float acc[FP4_GEMV_M][16];
  for (size_t r = 0; r < m; r++) {
    row[r] = t->rows[first + r];
    if (t->resume)
      memcpy(acc[r], out + r * t->acc_stride, sizeof acc[r]);
    else
      memset(acc[r], 0, sizeof acc[r]);
  }
  size_t k = 0;
  for (; k + 32 <= t->k; k += 32, fp4_parts_step(&at), w += 256, s += 512 / of.group) {
    FP4_UNROLL for (size_t v = 0; v < 4; v++) /* mostly of the next panel */
        _mm_prefetch((const char *)w + 64 * v + t->prefetch, _MM_HINT_T1);
    _mm_prefetch((const char *)s + 2 * t->prefetch / of.group, _MM_HINT_T1);
    fp4_i8_block(row, m, at, w, s, 32, of, acc);
    __asm__("" : "+m"(acc)); /* stays in memory */
  }
  if (of.group == FP4_NV_GROUP && k < t->k) fp4_i8_block(row, m, at, w, s, 16, of, acc);
  for (size_t r = 0; r < m; r++) memcpy(out + r * t->acc_stride, acc[r], sizeof acc[r]);
}

#define FP4_GEMV_CASE(group, dot, m)                                                               \
  case m:                                                                                          \
    fp4_gemv_tile(t, panel, first, m, (fp4_i8_kind){group, 1, dot, 0});                            \
    break;

/* One row of kernels.inc. */
#define FP4_GEMV_VARIANT(w, group, isa, dot)                                                       \
  static void tile_##w##_##isa(const fp4moe_matmul *t, size_t panel, size_t first, size_t m) {     \
    switch (m) {                                                                                   \
      FP4_GEMV_CASE(group, dot, 1)                                                                 \
      FP4_GEMV_CASE(group, dot, 2)                                                                 \
      FP4_GEMV_CASE(group, dot, 3)                                                                 \
      FP4_GEMV_CASE(group, dot, 4)                                                                 \
    }                                                                                              \
  }                                                                                                \
  void fp4moe_gemv_##w##_i8_8x16_##isa(const fp4moe_matmul *t) {                                   \
    const size_t first = t->m > FP4_GEMV_M ? (t->m + 1) / 2 : t->m;                                \
    for (size_t p = 0; p < t->panels; p++) {                                                       \
      tile_##w##_##isa(t, p, 0, first);                                                            \
      if (first < t->m) tile_##w##_##isa(t, p, first, t->m - first);                               \
    }                                                                                              \
  }

#endif
