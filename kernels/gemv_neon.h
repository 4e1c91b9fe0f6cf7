/* gemv_neon.h - what the gemv rows of NEON and beyond share: a case for each m, and class i8.
 *
 * A panel passes once from end to end, its quarters one after the other within a block, so that
 * weights come in order; sums stay in acc, which is in the first cache. Prefetches are of what
 * stands `prefetch` bytes on in the weight stream, be it the next panel's or not there at all. */
#ifndef FP4MOE_GEMV_NEON_H
#define FP4MOE_GEMV_NEON_H

#include "i8_neon.h"
#include "kernel.h"
#include "neon.h"

/* The lines of one block of nibbles, into the second-level cache. */
FP4_INLINE void fp4_prefetch(const uint8_t *soon, size_t group) {
  FP4_UNROLL for (size_t v = 0; v < group / 8; v++) __builtin_prefetch(soon + 64 * v, 0, 2);
}

FP4_INLINE void fp4_zero_acc(const fp4moe_matmul *t, size_t m) {
  for (size_t r = 0; r < m; r++)
    for (size_t n = 0; n < 16 * t->panels; n += 4)
      vst1q_f32(t->acc + r * t->acc_stride + n, vdupq_n_f32(0));
}

/* ---- Class i8 ---- */

/* Columns [k, k + n) of the call, 32 or the 16 at the end of a row, of one panel. */
FP4_INLINE void fp4_gemv_i8_block(const fp4moe_matmul *t, size_t k, size_t n, const uint8_t *w,
                                  const uint8_t *s, float *acc, size_t group, size_t m,
                                  fp4_sums_fn *sums) {
  const int8_t *q[FP4_ROWS];
  float d[FP4_ROWS];
  const fp4_scales first = fp4_group_scales(s, group);
  const fp4_scales second = n > group ? fp4_group_scales(s + 16, group) : first;
  FP4_UNROLL for (size_t r = 0; r < m; r++) {
    const fp4_i8_row row = fp4_i8_row_at(t->rows[r], t->row_k, t->k0 + k);
    q[r] = row.q;
    d[r] = *row.d;
  }
  for (size_t quarter = 0; quarter < FP4_QUARTERS; quarter++) {
    int8x16_t codes[8];
    FP4_UNROLL for (size_t v = 0; v < n / 8; v++) {
      const fp4_codes c = fp4_decode_s8(vld1q_u8(w + 64 * v + 16 * quarter));
      codes[2 * v] = c.lo;
      codes[2 * v + 1] = c.hi;
    }
    fp4_i8_chain(codes, n, group, q, d, first.quarter[quarter], second.quarter[quarter], m, sums,
                 acc + 4 * quarter, t->acc_stride);
  }
}

/* group, m and sums are constants where this is expanded. */
FP4_INLINE void fp4_gemv_i8(const fp4moe_matmul *t, size_t group, size_t m, fp4_sums_fn *sums) {
  if (!t->resume) fp4_zero_acc(t, m);
  for (size_t p = 0; p < t->panels; p++) {
    const uint8_t *w = t->weights + p * t->weights_stride, *s = t->scales + p * t->scales_stride;
    float *acc = t->acc + 16 * p;
    size_t k = 0;
    for (; k + 32 <= t->k; k += 32, w += 256, s += 512 / group) {
      fp4_prefetch(w + t->prefetch, 32);
      fp4_gemv_i8_block(t, k, 32, w, s, acc, group, m, sums);
    }
    if (group == FP4_NV_GROUP && k < t->k) fp4_gemv_i8_block(t, k, 16, w, s, acc, group, m, sums);
  }
}

/* One row of kernels.inc: BODY(m) for each m. */
#define FP4_GEMV_CASE(BODY, m)                                                                     \
  case m:                                                                                          \
    BODY(m);                                                                                       \
    break;
#define FP4_GEMV_VARIANT(words, isa, BODY)                                                         \
  void fp4moe_gemv_##words##_8x16_##isa(const fp4moe_matmul *t) {                                  \
    switch (t->m) {                                                                                \
      FP4_GEMV_CASE(BODY, 1)                                                                       \
      FP4_GEMV_CASE(BODY, 2)                                                                       \
      FP4_GEMV_CASE(BODY, 3)                                                                       \
      FP4_GEMV_CASE(BODY, 4)                                                                       \
      FP4_GEMV_CASE(BODY, 5)                                                                       \
      FP4_GEMV_CASE(BODY, 6)                                                                       \
      FP4_GEMV_CASE(BODY, 7)                                                                       \
      FP4_GEMV_CASE(BODY, 8)                                                                       \
    }                                                                                              \
  }

#endif
