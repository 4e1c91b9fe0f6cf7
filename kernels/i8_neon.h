/* i8_neon.h - class i8: four output rows of one panel times m activation rows.
 *
 * 16 bytes of codes are four columns of each of four rows, which is the form of SDOT by element:
 * lane j of a sum is output row j, four activations are one lane of another vector. Codes are
 * signed, 2*e2m1, so a block's sum needs no correction. Then comes the canonical chain of kernel.h,
 * whose operations are its formula's.
 *
 * SCVTF costs as much as four SDOTs. So sums start at the bits of 1.5 * 2^23: read as FP32, such a
 * sum of integers below 2^22 is 1.5 * 2^23 + sum exactly, and a subtraction is the conversion. The
 * start comes from memory, beside the dots; a copy of a register would take a dot's place. */
#ifndef FP4MOE_I8_NEON_H
#define FP4MOE_I8_NEON_H

#include "kernel.h"
#include "neon.h"
#include "quant.h"

/* b[r] = exact sum over n columns, 16 or 32: n/4 vectors of codes times m rows at q[r]. */
typedef void fp4_sums_fn(const int8x16_t *codes, size_t n, const int8_t *const *q, size_t m,
                         float32x4_t *b);

/* ---- Sums that are FP32 but for an offset ---- */

#define FP4_OFFSET      12582912.0f /* 1.5 * 2^23 */
#define FP4_OFFSET_BITS 0x4b400000
static const int32_t fp4_offset[4] = {FP4_OFFSET_BITS, FP4_OFFSET_BITS, FP4_OFFSET_BITS,
                                      FP4_OFFSET_BITS};
static const int32_t fp4_even_offset[4] = {FP4_OFFSET_BITS, 0, FP4_OFFSET_BITS, 0};

FP4_INLINE float32x4_t fp4_without_offset(int32x4_t sum) {
  return vsubq_f32(vreinterpretq_f32_s32(sum), vdupq_n_f32(FP4_OFFSET));
}

/* ---- The two ways to multiply ---- */

/* Without SDOT: products of 8 bits in 16-bit lanes, two rows to a vector, summed at the end. */
FP4_INLINE void fp4_sums_smlal(const int8x16_t *codes, size_t n, const int8_t *const *q, size_t m,
                               float32x4_t *b) {
  FP4_UNROLL for (size_t r = 0; r < m; r++) {
    int16x8_t lo, hi;
    FP4_UNROLL for (size_t i = 0; i < n / 4; i++) {
      int32_t four;
      memcpy(&four, q[r] + 4 * i, sizeof four);
      const int8x16_t a = vreinterpretq_s8_s32(vdupq_n_s32(four));
      lo = i ? vmlal_s8(lo, vget_low_s8(codes[i]), vget_low_s8(a))
             : vmull_s8(vget_low_s8(codes[i]), vget_low_s8(a));
      hi = i ? vmlal_high_s8(hi, codes[i], a) : vmull_high_s8(codes[i], a);
    }
    const int32x4_t x = vpadalq_s16(fp4_load_anew(fp4_even_offset), lo);
    const int32x4_t y = vpadalq_s16(fp4_load_anew(fp4_even_offset), hi);
    b[r] = fp4_without_offset(vpaddq_s32(x, y));
  }
}

#ifdef __ARM_FEATURE_DOTPROD
FP4_INLINE void fp4_sums_sdot(const int8x16_t *codes, size_t n, const int8_t *const *q, size_t m,
                              float32x4_t *b) {
  int32x4_t sum[FP4_ROWS];
  FP4_UNROLL for (size_t r = 0; r < m; r++) sum[r] = fp4_load_anew(fp4_offset);
  FP4_UNROLL for (size_t i = 0; i < n / 4; i += 4) {
    FP4_UNROLL for (size_t r = 0; r < m; r++) {
      const int8x16_t a = vld1q_s8(q[r] + 4 * i);
#define DOT(lane) sum[r] = vdotq_laneq_s32(sum[r], codes[i + lane], a, lane);
      FP4_FOR_4_LANES(DOT)
#undef DOT
    }
  }
  FP4_UNROLL for (size_t r = 0; r < m; r++) b[r] = fp4_without_offset(sum[r]);
}
#endif

/* ---- The chain ---- */

/* The rows of a stretch of columns: q from its first on; d of each block of 32, row by row. */
typedef struct fp4_i8_rows {
  const int8_t *q[FP4_ROWS];
  float d[FP4_STRETCH / 32][FP4_ROWS];
} fp4_i8_rows;

FP4_INLINE void fp4_i8_rows_at(const fp4moe_matmul *t, size_t row, size_t k, size_t columns,
                               size_t m, fp4_i8_rows *to) {
  FP4_UNROLL for (size_t r = 0; r < m; r++) {
    const fp4_i8_row a = fp4_i8_row_at(t->rows[row + r], t->row_k, t->k0 + k);
    to->q[r] = a.q;
    for (size_t i = 0; i < fp4_blocks32(columns); i++) to->d[i][r] = a.d[i];
  }
}

/* n columns, 32 or the 16 at the end of a row, into m sums: those of the stretch from k on. second:
 * the scales of the upper 16 columns where the group is 16. */
FP4_INLINE void fp4_i8_chain(const int8x16_t *codes, size_t n, size_t group, const fp4_i8_rows *a,
                             size_t k, float32x4_t first, float32x4_t second, size_t m,
                             fp4_sums_fn *sums, float32x4_t *acc) {
  const int two = group == FP4_NV_GROUP && n == 32;
  const int8_t *q[FP4_ROWS], *upper[FP4_ROWS];
  float32x4_t b[FP4_ROWS], t[FP4_ROWS];
  const float32x4_t *d = (const float32x4_t *)(const void *)a->d[k / 32];
  FP4_UNROLL for (size_t r = 0; r < m; r++) {
    q[r] = a->q[r] + k;
    upper[r] = q[r] + 16;
  }
  sums(codes, two ? 16 : n, q, m, b);
  if (group == FP4_MX_GROUP) {
    FP4_UNROLL for (size_t r = 0; r < m; r++) acc[r] =
        vfmaq_f32(acc[r], b[r], vmulq_n_f32(first, d[r / 4][r % 4]));
    return;
  }
  FP4_UNROLL for (size_t r = 0; r < m; r++) t[r] = vmulq_f32(b[r], first);
  if (two) {
    sums(codes + 4, 16, upper, m, b);
    FP4_UNROLL for (size_t r = 0; r < m; r++) t[r] = vfmaq_f32(t[r], b[r], second);
  }
  FP4_UNROLL for (size_t r = 0; r < m; r++) acc[r] = vfmaq_n_f32(acc[r], t[r], d[r / 4][r % 4]);
}

FP4_INLINE void fp4_load_rows(const float *out, size_t stride, size_t m, int fresh,
                              float32x4_t *acc) {
  FP4_UNROLL for (size_t r = 0; r < m; r++) acc[r] =
      fresh ? vdupq_n_f32(0) : vld1q_f32(out + r * stride);
}

FP4_INLINE void fp4_store_rows(float *out, size_t stride, size_t m, const float32x4_t *acc) {
  FP4_UNROLL for (size_t r = 0; r < m; r++) vst1q_f32(out + r * stride, acc[r]);
}

#endif
