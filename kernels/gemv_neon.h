/* gemv_neon.h - what the gemv rows of NEON and beyond share: a function for each m, stretches of
 * columns, class i8.
 *
 * A panel passes once from end to end, in stretches of 1 KiB of nibbles that stay in the first
 * cache: first the stretch's scales become FP32 and what stands `prefetch` bytes on is asked for,
 * be it the next panel's or not there at all; then each quarter passes with its m sums in
 * registers. */
#ifndef FP4MOE_GEMV_NEON_H
#define FP4MOE_GEMV_NEON_H

#include "i8_neon.h"
#include "kernel.h"
#include "neon.h"

/* The lines of one block of nibbles, into the second-level cache. */
FP4_INLINE void fp4_prefetch(const uint8_t *soon, size_t group) {
  FP4_UNROLL for (size_t v = 0; v < group / 8; v++) __builtin_prefetch(soon + 64 * v, 0, 2);
}

/* A stretch of one panel: its nibbles, its scales as FP32, its sums. */
typedef struct fp4_stretch {
  const uint8_t *w;
  size_t k, columns;
  float *acc;
  float s[FP4_STRETCH / FP4_NV_GROUP][FP4MOE_PANEL];
} fp4_stretch;

typedef void fp4_stretch_fn(const fp4moe_matmul *t, const fp4_stretch *at, size_t group, size_t m);

FP4_INLINE void fp4_widen_scales(const uint8_t *s, size_t group, size_t prefetch, fp4_stretch *at) {
  const size_t groups = at->columns / group;
  for (size_t i = 0; i < groups; i++) {
    const fp4_scales x = fp4_group_scales(s + FP4MOE_PANEL * i, group);
    fp4_prefetch(at->w + 8 * group * i + prefetch, group);
    FP4_UNROLL for (size_t q = 0; q < FP4_QUARTERS; q++) vst1q_f32(at->s[i] + 4 * q, x.quarter[q]);
  }
}

/* group, m and body are constants where this is expanded. */
FP4_INLINE void fp4_gemv_stretches(const fp4moe_matmul *t, size_t group, size_t m,
                                   fp4_stretch_fn *body) {
  for (size_t p = 0; p < t->panels; p++) {
    fp4_stretch at;
    at.acc = t->acc + 16 * p;
    for (size_t r = 0; r < m && !t->resume; r++)
      memset(at.acc + r * t->acc_stride, 0, 16 * sizeof *at.acc);
    for (at.k = 0; at.k < t->k; at.k += FP4_STRETCH) {
      at.w = t->weights + p * t->weights_stride + 8 * at.k;
      at.columns = t->k - at.k < FP4_STRETCH ? t->k - at.k : FP4_STRETCH;
      fp4_widen_scales(t->scales + p * t->scales_stride + at.k / group * FP4MOE_PANEL, group,
                       t->prefetch, &at);
      body(t, &at, group, m);
    }
  }
}

/* ---- Class i8 ---- */

/* n columns from k of the stretch, 32 or the 16 at the end of a row, of a quarter. */
FP4_INLINE void fp4_gemv_i8_block(const uint8_t *w, const float *s, size_t n, size_t group,
                                  const fp4_i8_rows *a, size_t k, size_t m, fp4_sums_fn *sums,
                                  float32x4_t *acc) {
  int8x16_t codes[8];
  FP4_UNROLL for (size_t v = 0; v < n / 8; v++) {
    const fp4_codes c = fp4_decode_s8(vld1q_u8(w + 64 * v));
    codes[2 * v] = c.lo;
    codes[2 * v + 1] = c.hi;
  }
  const float32x4_t first = vld1q_f32(s);
  fp4_i8_chain(codes, n, group, a, k, first, n > group ? vld1q_f32(s + FP4MOE_PANEL) : first, m,
               sums, acc);
}

/* group, m and sums are constants where this is expanded. */
FP4_INLINE void fp4_gemv_i8(const fp4moe_matmul *t, const fp4_stretch *at, size_t group, size_t m,
                            fp4_sums_fn *sums) {
  fp4_i8_rows a;
  fp4_i8_rows_at(t, 0, at->k, at->columns, m, &a);
  for (size_t q = 0; q < FP4_QUARTERS; q++) {
    const uint8_t *w = at->w + 16 * q;
    const float *s = at->s[0] + 4 * q;
    float *out = at->acc + 4 * q;
    float32x4_t acc[FP4_ROWS];
    size_t k = 0;
    fp4_load_rows(out, t->acc_stride, m, 0, acc);
    for (; k + 32 <= at->columns; k += 32, w += 256, s += 32 / group * FP4MOE_PANEL)
      fp4_gemv_i8_block(w, s, 32, group, &a, k, m, sums, acc);
    if (group == FP4_NV_GROUP && k < at->columns)
      fp4_gemv_i8_block(w, s, 16, group, &a, k, m, sums, acc);
    fp4_store_rows(out, t->acc_stride, m, acc);
  }
}

/* One row of kernels.inc: BODY(t, m) for each m. */
#define FP4_GEMV_ROWS(words, isa, BODY, m)                                                         \
  static void gemv_##words##_##m##_rows_##isa(const fp4moe_matmul *t) { BODY(t, m); }
#define FP4_GEMV_VARIANT(words, isa, BODY)                                                         \
  FP4_FOR_ROWS(FP4_GEMV_ROWS, words, isa, BODY)                                                    \
  void fp4moe_gemv_##words##_8x16_##isa(const fp4moe_matmul *t) {                                  \
    static fp4moe_matmul_fn *const rows[FP4_ROWS] = FP4_ROWS_NAMES(gemv_##words, isa);             \
    rows[t->m - 1](t);                                                                             \
  }

#endif
