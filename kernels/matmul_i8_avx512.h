/* matmul_i8_avx512.h - class i8: 32 columns of one panel times m rows, for gemv and gemm alike.
 *
 * Lane j of every vector is output row j of a panel, four activations are one 32-bit broadcast, no
 * sum crosses lanes. A group's integer sum starts from the row's own -12 * (sum of q), so codes
 * stay unsigned. Then comes the canonical chain of kernel.h, in one of two forms.
 *
 * Plain blocks multiply as the formula does, whatever the scales. But dots and FP32 multiplies
 * share two of the four vector pipes, so quick blocks are made of other things where they can be:
 *
 *   MX   acc = fmaf(B, d * 2^e, acc) = fmaf(B * 2^e, d, acc), where d * 2^e is a normal number. The
 *        integer sum starts from the bits of M = 1.5 * 2^(23+e) and ends as those of M + B * 2^e;
 *        one subtraction leaves B * 2^e.
 *   NV   t = fmaf(B1, s1, B0 * s0) is the exact B0 * s0 + B1 * s1, rounded once. Where scales are
 *        multiples of 2^-6, as all from 1/8 up, B and 64 * s fit 16 bits: VPMADDWD is that sum, its
 *        conversion that rounding. The chain then runs 64 times too large.
 *
 * A gemv's quick tile looks at the scales as they pass; a gemm, whose tiles share them, before.
 * Where one of them, an activation scale or a resumed sum lies outside of what is said here, the
 * tile stores nothing and a plain one takes its place. Bits are the same, so nothing depends on
 * which ran. */
#ifndef FP4MOE_MATMUL_I8_AVX512_H
#define FP4MOE_MATMUL_I8_AVX512_H

#include "i8_avx512.h"

enum { FP4_I8_M = 8, FP4_I8_NP = 2 };

/* Forms of a block. FP4_READY: quick, and its scales are ready-made: fp4_magic, fp4_words. */
enum { FP4_PLAIN = 0, FP4_QUICK, FP4_READY };

/* ---- Places ---- */

/* Where the parts of an activation row stand for the columns at hand: bytes from its start. */
typedef struct fp4_parts {
  size_t q, d, sum, half;
} fp4_parts;

FP4_INLINE fp4_parts fp4_parts_at(size_t row_k, size_t k0) {
  return (fp4_parts){k0, fp4_i8_d(row_k) + k0 / 8, fp4_i8_sum(row_k) + k0 / 8,
                     fp4_i8_half(row_k) + k0 / 4};
}

/* The next 32 columns. */
FP4_INLINE void fp4_parts_step(fp4_parts *at) {
  at->q += 32, at->d += 4, at->sum += 4, at->half += 8;
}

/* Makes the compiler take the places for new ones: panels that pass one after the other read the
 * same activations, and it would rather spill those than load them again. */
FP4_INLINE void fp4_forget(fp4_parts *at, size_t group) {
  __asm__("" : "+r"(at->q), "+r"(at->d));
  if (group == FP4_MX_GROUP)
    __asm__("" : "+r"(at->sum));
  else
    __asm__("" : "+r"(at->half));
}

FP4_INLINE __m512 fp4_float_everywhere(const char *x) {
  return _mm512_castsi512_ps(fp4_pair_everywhere(x));
}

/* What a body is expanded for: all constants. codes: how nibbles are looked up; NULL: the panels
 * are unpacked. */
typedef struct fp4_i8_kind {
  size_t group;
  fp4_codes_fn *codes;
  int quick;
} fp4_i8_kind;

/* Bytes from group to group, of codes and of scales. */
FP4_INLINE size_t fp4_codes_step(fp4_i8_kind of) {
  return of.codes ? 8 * of.group : 16 * of.group + 64;
}
FP4_INLINE size_t fp4_scales_step(fp4_i8_kind of) { return of.codes ? 16 : 16 * of.group + 64; }

/* ---- What quick tiles may serve ---- */

/* MX: bits of the least and the largest scale that go with the call's activations. */
typedef struct fp4_limits {
  int quick;
  uint32_t least, most;
} fp4_limits;

/* Activation scales d > 0 and block scales 2^e: d * 2^e and M have biased exponents of 1 to 254.
 * NV: the chain times 64 neither overflows nor spares a sum that rounds for being subnormal. */
static inline fp4_limits fp4_i8_limits(const fp4moe_matmul *t, size_t group) {
  const size_t blocks = fp4_blocks32(t->k), first = fp4_parts_at(t->row_k, t->k0).d;
  __m512i low = _mm512_set1_epi32(-1), high = _mm512_setzero_si512();
  for (size_t r = 0; r < t->m; r++) {
    const char *d = (const char *)t->rows[r] + first;
    for (size_t i = 0; i < blocks; i += 16) {
      const __mmask16 here = blocks - i < 16 ? (__mmask16)((1u << (blocks - i)) - 1) : 0xffff;
      const __m512i x = _mm512_maskz_loadu_epi32(here, d + 4 * i);
      low = _mm512_min_epu32(low, _mm512_sub_epi32(x, _mm512_set1_epi32(1))); /* 0: the largest */
      high = _mm512_max_epu32(high, x);
    }
  }
  const uint32_t most = _mm512_reduce_max_epu32(high) >> 23;
  const uint32_t least = most ? (_mm512_reduce_min_epu32(low) + 1) >> 23 : 127;
  if (group == FP4_NV_GROUP) return (fp4_limits){least >= 127 - 80 && most <= 127 + 60, 0, 0};
  return (fp4_limits){most < 255, (least < 127 ? 128 - least : 1) << 23,
                      (most > 381 - 231 ? 381 - most : 231) << 23};
}

/* What a quick tile saw. MX: the range of its scales; NV: a lane that is not zero where one does
 * not serve. */
typedef struct fp4_seen {
  __m512i least, most;
  __m512 inexact;
} fp4_seen;

FP4_INLINE fp4_seen fp4_nothing_seen(void) {
  return (fp4_seen){_mm512_set1_epi32(-1), _mm512_setzero_si512(), _mm512_setzero_ps()};
}

FP4_INLINE int fp4_within(const fp4_seen *x, size_t group, const fp4_limits *l) {
  const __m512i inexact = _mm512_castps_si512(x->inexact);
  if (group == FP4_NV_GROUP) return !_mm512_test_epi32_mask(inexact, inexact);
  return !_mm512_cmplt_epu32_mask(x->least, _mm512_set1_epi32((int)l->least)) &&
         !_mm512_cmpgt_epu32_mask(x->most, _mm512_set1_epi32((int)l->most));
}

/* ---- Integer sums: of g panels, ws bytes apart, that share each activation's load ---- */

/* b[p][r] += the dots of n columns at row + q; g and n are constants. */
FP4_INLINE void fp4_dots(const char *const *row, size_t m, size_t q, const uint8_t *w, size_t ws,
                         size_t g, size_t n, fp4_codes_fn *codes, __m512i (*b)[FP4_I8_M]) {
  FP4_UNROLL for (size_t v = 0; v < n / 8; v++) {
    __m512i c[2][FP4_I8_NP];
    FP4_UNROLL for (size_t p = 0; p < g; p++) {
      const uint8_t *at = w + p * ws;
      const fp4_codes two = codes ? codes(_mm512_load_si512(at + 64 * v))
                                  : (fp4_codes){_mm512_load_si512(at + 128 * v),
                                                _mm512_load_si512(at + 128 * v + 64)};
      c[0][p] = two.lo, c[1][p] = two.hi;
    }
    FP4_UNROLL for (size_t half = 0; half < 2; half++) {
      FP4_UNROLL for (size_t r = 0; r < m; r++) {
        const __m512i x = fp4_pair_everywhere(row[r] + q + 8 * v + 4 * half);
        FP4_UNROLL for (size_t p = 0; p < g; p++) b[p][r] =
            _mm512_dpbusd_epi32(b[p][r], c[half][p], x);
      }
    }
  }
}

/* b[p][r] = the exact sums of one group; start says where in a row its -12 * sum is. */
FP4_INLINE void fp4_group_sums(const char *const *row, size_t m, size_t q, size_t start,
                               const uint8_t *w, size_t ws, size_t g, fp4_i8_kind of,
                               __m512i (*b)[FP4_I8_M]) {
  FP4_UNROLL for (size_t r = 0; r < m; r++) {
    const __m512i x = fp4_pair_everywhere(row[r] + start);
    FP4_UNROLL for (size_t p = 0; p < g; p++) b[p][r] = x;
  }
  fp4_dots(row, m, q, w, ws, g, of.group, of.codes, b);
}

/* ---- Blocks: n columns, 32 or the 16 at the end of a row, of g panels into acc[p][r] ---- */

/* The panels of a block, and bytes from one to the next. */
typedef struct fp4_block {
  const uint8_t *w, *s;
  size_t ws, ss, g;
} fp4_block;

FP4_INLINE __m512 fp4_plain_scales(const uint8_t *s, fp4_i8_kind of) {
  return of.codes ? fp4_group_scales(s, of.group) : _mm512_load_ps(s);
}

FP4_INLINE void fp4_plain_mx(const char *const *row, size_t m, fp4_parts at, fp4_block k,
                             fp4_i8_kind of, __m512 (*acc)[FP4_I8_M]) {
  __m512i b[FP4_I8_NP][FP4_I8_M];
  fp4_group_sums(row, m, at.q, at.sum, k.w, k.ws, k.g, of, b);
  FP4_UNROLL for (size_t p = 0; p < k.g; p++) {
    const __m512 scale = fp4_plain_scales(k.s + p * k.ss, of);
    FP4_UNROLL for (size_t r = 0; r < m; r++) acc[p][r] =
        _mm512_fmadd_ps(_mm512_cvtepi32_ps(b[p][r]),
                        _mm512_mul_ps(fp4_float_everywhere(row[r] + at.d), scale), acc[p][r]);
  }
}

FP4_INLINE void fp4_plain_nv(const char *const *row, size_t m, fp4_parts at, fp4_block k, size_t n,
                             fp4_i8_kind of, __m512 (*acc)[FP4_I8_M]) {
  __m512i b[FP4_I8_NP][FP4_I8_M];
  __m512 two[FP4_I8_NP][FP4_I8_M];
  fp4_group_sums(row, m, at.q, at.half, k.w, k.ws, k.g, of, b);
  FP4_UNROLL for (size_t p = 0; p < k.g; p++) {
    const __m512 s0 = fp4_plain_scales(k.s + p * k.ss, of);
    FP4_UNROLL for (size_t r = 0; r < m; r++) two[p][r] =
        _mm512_mul_ps(_mm512_cvtepi32_ps(b[p][r]), s0);
  }
  if (n == 32) {
    k.w += fp4_codes_step(of), k.s += fp4_scales_step(of);
    fp4_group_sums(row, m, at.q + 16, at.half + 4, k.w, k.ws, k.g, of, b);
    FP4_UNROLL for (size_t p = 0; p < k.g; p++) {
      const __m512 s1 = fp4_plain_scales(k.s + p * k.ss, of);
      FP4_UNROLL for (size_t r = 0; r < m; r++) two[p][r] =
          _mm512_fmadd_ps(_mm512_cvtepi32_ps(b[p][r]), s1, two[p][r]);
    }
  }
  FP4_UNROLL for (size_t r = 0; r < m; r++) {
    const __m512 d = fp4_float_everywhere(row[r] + at.d);
    FP4_UNROLL for (size_t p = 0; p < k.g; p++) acc[p][r] =
        _mm512_fmadd_ps(two[p][r], d, acc[p][r]);
  }
}

/* s << 23: the scale where it is normal, and outside of any limits where it is not. */
FP4_INLINE __m512i fp4_scale_bits(const uint8_t *s, fp4_i8_kind of) {
  if (!of.codes) return _mm512_load_si512(s);
  return _mm512_slli_epi32(_mm512_cvtepu8_epi32(_mm_load_si128((const __m128i *)s)), 23);
}

/* M of each lane, from its scale's bits. */
FP4_INLINE __m512i fp4_magic(__m512i bits) {
  return _mm512_add_epi32(bits, _mm512_set1_epi32((23 << 23) + (1 << 22)));
}

FP4_INLINE __m512i fp4_magic_seen(const uint8_t *s, fp4_i8_kind of, fp4_seen *x) {
  const __m512i bits = fp4_scale_bits(s, of);
  x->least = _mm512_min_epu32(x->least, bits);
  x->most = _mm512_max_epu32(x->most, bits);
  return fp4_magic(bits);
}

FP4_INLINE void fp4_quick_mx(const char *const *row, size_t m, fp4_parts at, fp4_block k,
                             fp4_i8_kind of, fp4_seen *x, __m512 (*acc)[FP4_I8_M]) {
  __m512i b[FP4_I8_NP][FP4_I8_M], magic[FP4_I8_NP];
  FP4_UNROLL for (size_t p = 0; p < k.g; p++) {
    const uint8_t *s = k.s + p * k.ss;
    magic[p] = of.quick == FP4_READY ? _mm512_load_si512(s) : fp4_magic_seen(s, of, x);
  }
  FP4_UNROLL for (size_t r = 0; r < m; r++) {
    const __m512i sum = fp4_pair_everywhere(row[r] + at.sum);
    FP4_UNROLL for (size_t p = 0; p < k.g; p++) b[p][r] = _mm512_add_epi32(magic[p], sum);
  }
  fp4_dots(row, m, at.q, k.w, k.ws, k.g, 32, of.codes, b);
  FP4_UNROLL for (size_t r = 0; r < m; r++) {
    const __m512 d = fp4_float_everywhere(row[r] + at.d);
    FP4_UNROLL for (size_t p = 0; p < k.g; p++) acc[p][r] = _mm512_fmadd_ps(
        _mm512_sub_ps(_mm512_castsi512_ps(b[p][r]), _mm512_castsi512_ps(magic[p])), d, acc[p][r]);
  }
}

/* The low halves of each lane: that of a below, of b above. */
FP4_INLINE __m512i fp4_low_halves(__m512i a, __m512i b) {
  return _mm512_mask_mov_epi16(_mm512_slli_epi32(b, 16), 0x55555555, a);
}

/* 64 * s in the low half of each lane, of unpacked scales; the upper half is anything. */
FP4_INLINE __m512i fp4_scale_x64(const uint8_t *s, fp4_seen *x) {
  const __m512 scale = _mm512_load_ps(s), magic = _mm512_set1_ps(0x1.8p17f); /* last bit: 1/64 */
  const __m512 sum = _mm512_add_ps(scale, magic);
  x->inexact = _mm512_or_ps(x->inexact, _mm512_sub_ps(_mm512_sub_ps(sum, magic), scale));
  return _mm512_castps_si512(sum);
}

/* 64 times the scales of n columns: of the first group in the low halves, of the second above. */
FP4_INLINE __m512i fp4_words_seen(const uint8_t *s, size_t n, size_t step, fp4_seen *x) {
  const __m512i first = fp4_scale_x64(s, x);
  return fp4_low_halves(first, n == 32 ? fp4_scale_x64(s + step, x) : _mm512_setzero_si512());
}

FP4_INLINE void fp4_quick_nv(const char *const *row, size_t m, fp4_parts at, fp4_block k, size_t n,
                             fp4_i8_kind of, fp4_seen *x, __m512 (*acc)[FP4_I8_M]) {
  __m512i b0[FP4_I8_NP][FP4_I8_M], b1[FP4_I8_NP][FP4_I8_M];
  const size_t codes = fp4_codes_step(of), step = fp4_scales_step(of);
  fp4_group_sums(row, m, at.q, at.half, k.w, k.ws, k.g, of, b0);
  if (n == 32) fp4_group_sums(row, m, at.q + 16, at.half + 4, k.w + codes, k.ws, k.g, of, b1);
  FP4_UNROLL for (size_t p = 0; p < k.g; p++) {
    const uint8_t *s = k.s + p * k.ss;
    const __m512i scales =
        of.quick == FP4_READY ? _mm512_load_si512(s) : fp4_words_seen(s, n, step, x);
    FP4_UNROLL for (size_t r = 0; r < m; r++) {
      const __m512i both = n == 32 ? fp4_low_halves(b0[p][r], b1[p][r]) : b0[p][r];
      acc[p][r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_madd_epi16(both, scales)),
                                  fp4_float_everywhere(row[r] + at.d), acc[p][r]);
    }
  }
}

FP4_INLINE void fp4_i8_block(const char *const *row, size_t m, fp4_parts at, fp4_block k, size_t n,
                             fp4_i8_kind of, fp4_seen *x, __m512 (*acc)[FP4_I8_M]) {
  if (of.group == FP4_MX_GROUP && of.quick) fp4_quick_mx(row, m, at, k, of, x, acc);
  if (of.group == FP4_MX_GROUP && !of.quick) fp4_plain_mx(row, m, at, k, of, acc);
  if (of.group == FP4_NV_GROUP && of.quick) fp4_quick_nv(row, m, at, k, n, of, x, acc);
  if (of.group == FP4_NV_GROUP && !of.quick) fp4_plain_nv(row, m, at, k, n, of, acc);
}

/* ---- A tile's corner, m rows from `row` x np panels at `out` ---- */

/* Sums to go on from. 0: a quick tile cannot. */
FP4_INLINE int fp4_i8_open(const fp4moe_matmul *t, const float *out, size_t m, size_t np,
                           fp4_i8_kind of, __m512 (*acc)[FP4_I8_M]) {
  const int times_64 = of.quick && of.group == FP4_NV_GROUP;
  FP4_UNROLL for (size_t p = 0; p < np; p++) {
    FP4_UNROLL for (size_t r = 0; r < m; r++) acc[p][r] = _mm512_setzero_ps();
  }
  if (!t->resume) return 1;
  FP4_UNROLL for (size_t p = 0; p < np; p++) {
    FP4_UNROLL for (size_t r = 0; r < m; r++) {
      acc[p][r] = _mm512_load_ps(out + r * t->acc_stride + 16 * p);
      if (!times_64) continue;
      if (_mm512_cmp_ps_mask(_mm512_abs_ps(acc[p][r]), _mm512_set1_ps(0x1p100f), _CMP_NLT_UQ))
        return 0;
      acc[p][r] = _mm512_mul_ps(acc[p][r], _mm512_set1_ps(64));
    }
  }
  return 1;
}

FP4_INLINE void fp4_i8_close(const fp4moe_matmul *t, float *out, size_t m, size_t np,
                             fp4_i8_kind of, __m512 (*acc)[FP4_I8_M]) {
  const int times_64 = of.quick && of.group == FP4_NV_GROUP;
  FP4_UNROLL for (size_t p = 0; p < np; p++) {
    FP4_UNROLL for (size_t r = 0; r < m; r++) {
      if (times_64) acc[p][r] = _mm512_mul_ps(acc[p][r], _mm512_set1_ps(0x1p-6f));
      _mm512_store_ps(out + r * t->acc_stride + 16 * p, acc[p][r]);
    }
  }
}

#endif
