/* gemv_i8_avx2.h - few int8 rows against FP4 panels, nibbles decoded in registers: one body for
 * every dot of 256 bits that expands it (matmul_i8_avx2.h).
 *
 * 16 registers hold the sums of 4 rows and the codes of both halves of a panel; more rows, up to 8,
 * take one half after the other. One or two rows have their FP32 sums in registers too. Always
 * plain: what quick blocks save, looking at the scales costs. */
#ifndef FP4MOE_GEMV_I8_AVX2_H
#define FP4MOE_GEMV_I8_AVX2_H

#include "matmul_i8_avx2.h"

/* All rows against one panel; of and m are constants where this is expanded. */
FP4_INLINE void fp4_gemv_tile(const fp4moe_matmul *t, size_t panel, size_t m, fp4_i8_kind of) {
  const uint8_t *w = t->weights + panel * t->weights_stride;
  const uint8_t *s = t->scales + panel * t->scales_stride;
  float *out = t->acc + 16 * panel;
  fp4_parts at = fp4_parts_at(t->row_k, t->k0);
  const char *row[FP4_I8_M];
  __m256 acc[FP4_I8_M][2];
  FP4_UNROLL for (size_t r = 0; r < m; r++) row[r] = t->rows[r];
  fp4_i8_begin(t, out, m, acc);
  size_t k = 0;
  for (; k + 32 <= t->k; k += 32, fp4_parts_step(&at), w += 256, s += 512 / of.group) {
    FP4_UNROLL for (size_t v = 0; v < 4; v++) /* mostly of the next panel */
        _mm_prefetch((const char *)w + 64 * v + t->prefetch, _MM_HINT_T1);
    if (k % (4 * of.group) == 0) /* a line of them */
      _mm_prefetch((const char *)s + 2 * t->prefetch / of.group, _MM_HINT_T1);
    fp4_i8_block(row, m, at, w, s, 32, of, acc);
    if (m > 2) __asm__("" : "+m"(acc)); /* stays in memory */
  }
  if (of.group == FP4_NV_GROUP && k < t->k) fp4_i8_block(row, m, at, w, s, 16, of, acc);
  fp4_i8_end(t, out, m, acc);
}

#define FP4_GEMV_CASE(group, dot, m)                                                               \
  case m:                                                                                          \
    for (size_t p = 0; p < t->panels; p++)                                                         \
      fp4_gemv_tile(t, p, m, (fp4_i8_kind){group, 1, dot, 0, m > 4});                              \
    break;

/* One row of kernels.inc. */
#define FP4_GEMV_VARIANT(w, group, isa, dot)                                                       \
  void fp4moe_gemv_##w##_i8_8x16_##isa(const fp4moe_matmul *t) {                                   \
    switch (t->m) {                                                                                \
      FP4_GEMV_CASE(group, dot, 1)                                                                 \
      FP4_GEMV_CASE(group, dot, 2)                                                                 \
      FP4_GEMV_CASE(group, dot, 3)                                                                 \
      FP4_GEMV_CASE(group, dot, 4)                                                                 \
      FP4_GEMV_CASE(group, dot, 5)                                                                 \
      FP4_GEMV_CASE(group, dot, 6)                                                                 \
      FP4_GEMV_CASE(group, dot, 7)                                                                 \
      FP4_GEMV_CASE(group, dot, 8)                                                                 \
    }                                                                                              \
  }

#endif
