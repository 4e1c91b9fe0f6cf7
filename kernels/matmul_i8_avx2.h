/* matmul_i8_avx2.h - class i8: 32 columns of one panel times m rows, for gemv and gemm alike, with
 * VPMADDUBSW or with a VPDPBUSD of 256 bits.
 *
 * A half panel is 8 rows in 32-bit lanes, four activations are one 32-bit broadcast, no sum crosses
 * lanes. Codes are u8 = 2*e2m1 + 12; the offset is taken out by where a sum starts.
 *
 * VPMADDUBSW leaves two 16-bit sums in a lane, of k % 4 < 2 and of k % 4 >= 2. A product of two
 * pairs is at most 2 * 24 * 127 = 6096: it does not saturate. A sum over 32 k starts from the row's
 * pair, -12 * (the 16 activations that meet it), and adds modulo 2^16, so whatever passes through
 * on the way its end is the true sum of 16 products of 2*e2m1 and q modulo 2^16; and that is at
 * most 16 * 12 * 127 = 24384, which 16 bits hold. One VPMADDWD ends it.
 *
 * Then comes the canonical chain of kernel.h. NV has a quick form with the same bits, where a
 * call's scales allow it (fp4_i8_quick): t = fmaf(B1, s1, B0 * s0) is the exact sum, rounded once.
 * Where scales are multiples of 2^-6, as all from 1/8 up, 64 * s fits 16 bits and VPMADDWD
 * multiplies by it in place of one; a product is below 2 * 12192 * 28672 and two fit 32 bits. The
 * conversion rounds 64 * t, which d / 64 multiplies: d is at least 2^-120. (For MX an addition of
 * exponents in place of d * s was measured, and is no faster.)
 */
#ifndef FP4MOE_MATMUL_I8_AVX2_H
#define FP4MOE_MATMUL_I8_AVX2_H

#include "i8_avx2.h"
#include "kernel.h"

/* The sums of 6 rows of both halves, or of 8 rows of one half, leave 4 of the 16 registers. */
enum { FP4_I8_M = 8 };

/* acc + the products of four bytes a lane: VPDPBUSD as VEX or EVEX has it. */
typedef __m256i fp4_dot_fn(__m256i acc, __m256i u8, __m256i s8);

/* What a body is expanded for: all constants. */
typedef struct fp4_i8_kind {
  size_t group;
  int nibbles;     /* decoded on the way; else unpacked panels */
  fp4_dot_fn *dot; /* NULL: VPMADDUBSW */
  int quick;       /* NV */
  int by_half;     /* one half of the panel after the other; else both share a row's broadcast */
} fp4_i8_kind;

/* ---- Places: where the parts of a row stand for the columns at hand, bytes from its start ---- */

typedef struct fp4_parts {
  size_t q, d, sum, half, pair;
} fp4_parts;

FP4_INLINE fp4_parts fp4_parts_at(size_t row_k, size_t k0) {
  return (fp4_parts){k0, fp4_i8_d(row_k) + k0 / 8, fp4_i8_sum(row_k) + k0 / 8,
                     fp4_i8_half(row_k) + k0 / 4, fp4_i8_pair(row_k) + k0 / 4};
}

/* The next 32 columns. */
FP4_INLINE void fp4_parts_step(fp4_parts *at) {
  at->q += 32, at->d += 4, at->sum += 4, at->half += 8, at->pair += 8;
}

/* Bytes from group to group, of codes and of scales. */
FP4_INLINE size_t fp4_codes_step(fp4_i8_kind of) {
  return of.nibbles ? 8 * of.group : 16 * of.group + 64;
}
FP4_INLINE size_t fp4_scales_step(fp4_i8_kind of) { return of.nibbles ? 16 : 16 * of.group + 64; }

/* ---- Integer sums ---- */

/* acc + the products of four bytes a lane. The sums are kept from being added in another order,
 * which would take registers. */
FP4_INLINE __m256i fp4_dot(__m256i acc, __m256i u8, __m256i s8, fp4_i8_kind of) {
  acc = of.dot ? of.dot(acc, u8, s8) : _mm256_add_epi16(acc, _mm256_maddubs_epi16(u8, s8));
  __asm__("" : "+x"(acc));
  return acc;
}

/* Halves of a panel that are summed at once. */
FP4_INLINE size_t fp4_halves(fp4_i8_kind of) { return of.by_half ? 1 : 2; }

/* x[r][h] of four columns: c[h] are the codes of half h, q the place in the rows. */
FP4_INLINE void fp4_products(const char *const *row, size_t m, size_t q, const __m256i c[2],
                             fp4_i8_kind of, __m256i (*x)[2]) {
  FP4_UNROLL for (size_t r = 0; r < m; r++) {
    const __m256i a = fp4_four_everywhere(row[r] + q);
    FP4_UNROLL for (size_t h = 0; h < fp4_halves(of); h++) x[r][h] = fp4_dot(x[r][h], c[h], a, of);
  }
}

/* The same of eight columns, whose nibbles are at w. */
FP4_INLINE void fp4_nibble_products(const char *const *row, size_t m, size_t q, const uint8_t *w,
                                    fp4_i8_kind of, __m256i (*x)[2]) {
  __m256i lo[2], hi[2];
  FP4_UNROLL for (size_t h = 0; h < fp4_halves(of); h++) {
    const fp4_nibbles c = fp4_codes(fp4_load_bytes(w + 32 * h));
    lo[h] = c.lo, hi[h] = c.hi;
  }
  fp4_products(row, m, q, lo, of, x);
  fp4_products(row, m, q + 4, hi, of, x);
}

/* What the sums of a group start from. */
FP4_INLINE __m256i fp4_start(const char *row, fp4_parts at, fp4_i8_kind of) {
  if (of.dot) return fp4_four_everywhere(row + (of.group == FP4_MX_GROUP ? at.sum : at.half));
  const __m256i pair = fp4_four_everywhere(row + at.pair);
  if (of.group == FP4_NV_GROUP) return pair;
  return _mm256_add_epi16(pair, fp4_four_everywhere(row + at.pair + 4));
}

/* x[r][h] = the sums of one group: of 32 bits with VPDPBUSD, else of 16. */
FP4_INLINE void fp4_group_sums(const char *const *row, size_t m, fp4_parts at, const uint8_t *w,
                               fp4_i8_kind of, __m256i (*x)[2]) {
  FP4_UNROLL for (size_t r = 0; r < m; r++) x[r][0] = x[r][1] = fp4_start(row[r], at, of);
  if (of.nibbles) {
    FP4_UNROLL for (size_t v = 0; v < of.group; v += 8)
        fp4_nibble_products(row, m, at.q + v, w + 8 * v, of, x);
  } else {
    FP4_UNROLL for (size_t v = 0; v < of.group; v += 4) {
      const __m256i c[2] = {fp4_load_bytes(w + 16 * v), fp4_load_bytes(w + 16 * v + 32)};
      fp4_products(row, m, at.q + v, c, of, x);
    }
  }
}

FP4_INLINE __m256i fp4_to_32(__m256i x, fp4_i8_kind of) {
  return of.dot ? x : _mm256_madd_epi16(x, _mm256_set1_epi16(1));
}

/* ---- Scales ---- */

FP4_INLINE __m256 fp4_half_scales(const uint8_t *s, size_t h, fp4_i8_kind of) {
  if (of.nibbles) return fp4_group_scales(s, h, of.group);
  return _mm256_load_ps((const float *)(const void *)s + 8 * h);
}

FP4_INLINE __m256 fp4_float_everywhere(const char *x) {
  return _mm256_castsi256_ps(fp4_four_everywhere(x));
}

/* s + 1.5 * 2^17, whose last bit is 1/64. */
FP4_INLINE __m256 fp4_by_64ths(__m256 s) { return _mm256_add_ps(s, _mm256_set1_ps(0x1.8p17f)); }

/* 64 * s in both halves of each lane. */
FP4_INLINE __m256i fp4_x64(__m256 s) {
  const __m256i x = _mm256_castps_si256(fp4_by_64ths(s));
  return _mm256_blend_epi16(x, _mm256_slli_epi32(x, 16), 0xaa);
}

/* ---- Blocks: n columns, 32 or the 16 at the end of a row, of one panel into acc[r][half] ----
 *
 * From half `first` on, as many as are summed at once. */

FP4_INLINE void fp4_block_mx(const char *const *row, size_t m, fp4_parts at, const uint8_t *w,
                             const uint8_t *s, size_t first, fp4_i8_kind of, __m256 (*acc)[2]) {
  __m256i x[FP4_I8_M][2];
  fp4_group_sums(row, m, at, w + 32 * first, of, x);
  FP4_UNROLL for (size_t h = 0; h < fp4_halves(of); h++) {
    const __m256 scale = fp4_half_scales(s, first + h, of);
    FP4_UNROLL for (size_t r = 0; r < m; r++) {
      const __m256 by = _mm256_mul_ps(fp4_float_everywhere(row[r] + at.d), scale);
      const __m256 b = _mm256_cvtepi32_ps(fp4_to_32(x[r][h], of));
      acc[r][first + h] = _mm256_fmadd_ps(b, by, acc[r][first + h]);
    }
  }
}

/* One group of NV: t of the first one, or chained to it. Quick: the bits of 64 * t, an integer. */
FP4_INLINE void fp4_group_nv(const char *const *row, size_t m, fp4_parts at, const uint8_t *w,
                             const uint8_t *s, size_t first, fp4_i8_kind of, int chained,
                             __m256 (*two)[2]) {
  __m256i x[FP4_I8_M][2];
  fp4_group_sums(row, m, at, w + 32 * first, of, x);
  FP4_UNROLL for (size_t h = 0; h < fp4_halves(of); h++) {
    const __m256 scale = fp4_half_scales(s, first + h, of);
    const __m256i by_64 = fp4_x64(scale);
    FP4_UNROLL for (size_t r = 0; r < m; r++) {
      if (of.quick) {
        const __m256i t = _mm256_madd_epi16(x[r][h], by_64);
        const __m256i old = chained ? _mm256_castps_si256(two[r][h]) : _mm256_setzero_si256();
        two[r][h] = _mm256_castsi256_ps(_mm256_add_epi32(old, t));
      } else {
        const __m256 b = _mm256_cvtepi32_ps(fp4_to_32(x[r][h], of));
        two[r][h] = chained ? _mm256_fmadd_ps(b, scale, two[r][h]) : _mm256_mul_ps(b, scale);
      }
    }
  }
}

FP4_INLINE void fp4_block_nv(const char *const *row, size_t m, fp4_parts at, const uint8_t *w,
                             const uint8_t *s, size_t n, size_t first, fp4_i8_kind of,
                             __m256 (*acc)[2]) {
  const __m256i by_64 = _mm256_set1_epi32(6 << 23);
  __m256 two[FP4_I8_M][2];
  fp4_group_nv(row, m, at, w, s, first, of, 0, two);
  at.q += 16, at.half += 4, at.pair += 4, w += fp4_codes_step(of), s += fp4_scales_step(of);
  if (n == 32) fp4_group_nv(row, m, at, w, s, first, of, 1, two);
  FP4_UNROLL for (size_t r = 0; r < m; r++) {
    const __m256i d = fp4_four_everywhere(row[r] + at.d);
    const __m256 by = _mm256_castsi256_ps(of.quick ? _mm256_sub_epi32(d, by_64) : d);
    FP4_UNROLL for (size_t h = 0; h < fp4_halves(of); h++) {
      const __m256 t = of.quick ? _mm256_cvtepi32_ps(_mm256_castps_si256(two[r][h])) : two[r][h];
      acc[r][first + h] = _mm256_fmadd_ps(t, by, acc[r][first + h]);
    }
  }
}

FP4_INLINE void fp4_i8_block(const char *const *row, size_t m, fp4_parts at, const uint8_t *w,
                             const uint8_t *s, size_t n, fp4_i8_kind of, __m256 (*acc)[2]) {
  for (size_t first = 0; first < 2; first += fp4_halves(of)) {
    if (of.group == FP4_MX_GROUP) fp4_block_mx(row, m, at, w, s, first, of, acc);
    if (of.group == FP4_NV_GROUP) fp4_block_nv(row, m, at, w, s, n, first, of, acc);
  }
}

/* ---- Sums of a tile: registers are for the integers, acc is touched once in 32 k ---- */

FP4_INLINE void fp4_i8_begin(const fp4moe_matmul *t, const float *out, size_t m, __m256 (*acc)[2]) {
  FP4_UNROLL for (size_t r = 0; r < m; r++) {
    FP4_UNROLL for (size_t h = 0; h < 2; h++) acc[r][h] =
        t->resume ? _mm256_load_ps(out + r * t->acc_stride + 8 * h) : _mm256_setzero_ps();
  }
}

FP4_INLINE void fp4_i8_end(const fp4moe_matmul *t, float *out, size_t m, __m256 (*acc)[2]) {
  FP4_UNROLL for (size_t r = 0; r < m; r++) {
    FP4_UNROLL for (size_t h = 0; h < 2; h++)
        _mm256_store_ps(out + r * t->acc_stride + 8 * h, acc[r][h]);
  }
}

#endif
