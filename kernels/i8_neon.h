/* i8_neon.h - class i8: four output rows of one panel times m activation rows.
 *
 * 16 bytes of codes are four columns of each of four rows, which is the form of SDOT by element:
 * lane j of a sum is output row j, four activations are one lane of another vector. Codes are
 * signed, 2*e2m1, so a block's sum needs no correction. Then comes the canonical chain of kernel.h,
 * whose operations are its formula's. */
#ifndef FP4MOE_I8_NEON_H
#define FP4MOE_I8_NEON_H

#include "kernel.h"
#include "neon.h"
#include "quant.h"

/* b[r] = exact sums over n columns, 16 or 32: n/4 vectors of codes times m rows at q[r]. */
typedef void fp4_sums_fn(const int8x16_t *codes, size_t n, const int8_t *const *q, size_t m,
                         int32x4_t *b);

/* Without SDOT: products of 8 bits in 16-bit lanes, two rows to a vector, summed at the end. */
FP4_INLINE void fp4_sums_smlal(const int8x16_t *codes, size_t n, const int8_t *const *q, size_t m,
                               int32x4_t *b) {
  FP4_UNROLL for (size_t r = 0; r < m; r++) {
    int16x8_t lo = vdupq_n_s16(0), hi = vdupq_n_s16(0);
    FP4_UNROLL for (size_t i = 0; i < n / 4; i++) {
      int32_t four;
      memcpy(&four, q[r] + 4 * i, sizeof four);
      const int8x16_t a = vreinterpretq_s8_s32(vdupq_n_s32(four));
      lo = vmlal_s8(lo, vget_low_s8(codes[i]), vget_low_s8(a));
      hi = vmlal_high_s8(hi, codes[i], a);
    }
    b[r] = vpaddq_s32(vpaddlq_s16(lo), vpaddlq_s16(hi));
  }
}

#ifdef __ARM_FEATURE_DOTPROD
FP4_INLINE void fp4_sums_sdot(const int8x16_t *codes, size_t n, const int8_t *const *q, size_t m,
                              int32x4_t *b) {
  FP4_UNROLL for (size_t r = 0; r < m; r++) b[r] = vdupq_n_s32(0);
  FP4_UNROLL for (size_t i = 0; i < n / 4; i += 4) {
    FP4_UNROLL for (size_t r = 0; r < m; r++) {
      const int8x16_t a = vld1q_s8(q[r] + 4 * i);
#define DOT(lane) b[r] = vdotq_laneq_s32(b[r], codes[i + lane], a, lane);
      FP4_FOR_4_LANES(DOT)
#undef DOT
    }
  }
}
#endif

/* n columns, 32 or the 16 at the end of a row, into m sums at acc. second: of the upper 16 columns
 * where the group is 16. */
FP4_INLINE void fp4_i8_chain(const int8x16_t *codes, size_t n, size_t group, const int8_t *const *q,
                             const float *d, float32x4_t first, float32x4_t second, size_t m,
                             fp4_sums_fn *sums, float *acc, size_t acc_stride) {
  int32x4_t b0[FP4_ROWS], b1[FP4_ROWS];
  const int8_t *upper[FP4_ROWS];
  const int two = group == FP4_NV_GROUP && n == 32;
  sums(codes, two ? 16 : n, q, m, b0);
  FP4_UNROLL for (size_t r = 0; r < m; r++) upper[r] = q[r] + 16;
  if (two) sums(codes + 4, 16, upper, m, b1);
  FP4_UNROLL for (size_t r = 0; r < m; r++) {
    const float32x4_t x = vcvtq_f32_s32(b0[r]), old = vld1q_f32(acc + r * acc_stride);
    float32x4_t sum;
    if (group == FP4_MX_GROUP) {
      sum = vfmaq_f32(old, x, vmulq_n_f32(first, d[r]));
    } else {
      float32x4_t t = vmulq_f32(x, first);
      if (two) t = vfmaq_f32(t, vcvtq_f32_s32(b1[r]), second);
      sum = vfmaq_n_f32(old, t, d[r]);
    }
    vst1q_f32(acc + r * acc_stride, sum);
  }
}

#endif
