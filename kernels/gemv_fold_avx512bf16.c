/* gemv_fold_avx512bf16.c - up to 12 rows against FP4 panels: decoded in registers, scale and all.
 *
 * A tile keeps m x np accumulators in registers over all k of the call, one chain of VDPBF16PS per
 * output, as gemm_avx512bf16.c does and with its bits; but its weights are nibbles, decoded once a
 * tile on the pipes that the dots leave idle. No panel is written to the cache to be read again,
 * and more rows than 12 are further passes over nibbles that are a quarter of their panel's size.
 *
 * The block scale becomes part of the weight by a saturating subtraction, with no mask. Entries of
 * the table are 2^125 (MXFP4) or 2^64 (NVFP4) times the weight and a zero weight is zero: taking
 * away what the scale lacks to that moves the exponent down and leaves zero alone. For E4M3, whose
 * fraction is added too, the bits of BF16(s) are:
 *   bits(e * s)       = bits(e) + bits(s) - bits(1), e a power of two
 *   bits(1.5 * e * s) = bits(1.5 * e) + d + bits(s) - bits(1)
 * where d, 0 to 20, is a function of the fraction of s. Entries of 1.5, 3 and 6 have the bits of 28
 * set, which cover every d; `keep` leaves those of this row's, and nothing at all of a zero scale.
 *
 * Panels with a scale that does not fold so (the ends of E8M0; E4M3 that is negative or NaN) are
 * seen as they pass: their tiles store nothing, and those panels go to the kernel that scales in
 * FP32 (gemv_avx512bf16.c). */
#include "decode_avx512.h"
#include "kernel.h"

enum {
  MAX_ROWS = 12,
  MAX_PANELS = 4,
  ONE = 0x3f80 /* 1.0 in BF16 */
};
enum { MX_UP = 125, NV_UP = 64 }; /* of the table's exponents */

/* The weights of one block of 16 rows are (entry & keep) - down. */
typedef struct fold {
  __m512i keep, down;
} fold;

FP4_INLINE __m512i fold_table(size_t group) {
  const __m512i plain = fp4_e2m1_bf16();
  const __mmask32 nonzero = _mm512_test_epi16_mask(plain, _mm512_set1_epi16(0x7fff));
  const __mmask32 with_half = _mm512_test_epi16_mask(plain, _mm512_set1_epi16(0x40));
  const short up = (short)((group == FP4_NV_GROUP ? NV_UP : MX_UP) << 7);
  const __m512i table = _mm512_maskz_add_epi16(nonzero, plain, _mm512_set1_epi16(up));
  if (group == FP4_MX_GROUP) return table;
  return _mm512_mask_add_epi16(table, with_half, table, _mm512_set1_epi16(28));
}

FP4_INLINE fold fold_mx(__m128i s) {
  const __m512i up = _mm512_slli_epi32(_mm512_cvtepu8_epi32(s), 7);
  const __m512i both = _mm512_or_si512(up, _mm512_slli_epi32(up, 16));
  const __m512i all = _mm512_set1_epi16((short)((MX_UP + 127) << 7));
  return (fold){all, _mm512_sub_epi16(all, both)};
}

/* By way of F16 and FP32, which normalise subnormals: the bits of BF16(s * 2^-8). */
FP4_INLINE fold fold_nv(__m128i s) {
  const __m512i d = _mm512_broadcast_i32x4(_mm_setr_epi16(0, 8, 16, 20, 16, 12, 8, 4));
  const __m512i kept = _mm512_or_si512(d, _mm512_set1_epi16(~28));
  const __m256i f16 = _mm256_slli_epi16(_mm256_cvtepu8_epi16(s), 7);
  const __m512i f32 = _mm512_castps_si512(_mm512_cvtph_ps(f16));
  const __m512i both = _mm512_or_si512(f32, _mm512_srli_epi32(f32, 16));
  const __m512i all = _mm512_set1_epi16((short)(((NV_UP - 8) << 7) + ONE));
  return (fold){_mm512_maskz_permutexvar_epi16(_mm512_test_epi16_mask(both, both),
                                               _mm512_srli_epi16(both, 4), kept),
                _mm512_sub_epi16(all, both)};
}

/* The scales that a tile saw: of bytes 0 to `span` after the first one that folds. */
FP4_INLINE __m128i from_first(__m128i s, size_t group) {
  return group == FP4_MX_GROUP ? _mm_sub_epi8(s, _mm_set1_epi8(2)) : s;
}
FP4_INLINE int all_fold(__m128i most, size_t group) {
  const __m128i span = _mm_set1_epi8((char)(group == FP4_MX_GROUP ? 252 - 2 : 0x7e));
  return !_mm_cmpgt_epu8_mask(most, span);
}

/* m rows x np panels; group, m and np are constants where this is expanded. 0: some scale does not
 * fold, nothing is stored. */
FP4_INLINE int tile(const fp4moe_matmul *t, size_t panel, size_t group, size_t m, size_t np) {
  const __m512i table = fold_table(group);
  const size_t ws = t->weights_stride, ss = t->scales_stride;
  const uint8_t *w = t->weights + panel * ws, *s = t->scales + panel * ss;
  float *out = t->acc + 16 * panel;
  /* What is `ahead` of a panel's last blocks is the panel np further: of this call, or of the next
   * one, which normally goes on where this one ends (a fetch of what is not there does nothing). */
  const size_t bytes = 8 * t->k, ahead = t->prefetch, jump = ahead + np * ws - bytes;
  __m128i most = _mm_setzero_si128();
  const char *a[MAX_ROWS];
  __m512 acc[MAX_ROWS][MAX_PANELS];
  FP4_UNROLL for (size_t r = 0; r < m; r++) {
    a[r] = (const char *)t->rows[r] + 2 * t->k0;
    FP4_UNROLL for (size_t p = 0; p < np; p++) acc[r][p] =
        t->resume ? _mm512_load_ps(out + r * t->acc_stride + 16 * p) : _mm512_setzero_ps();
  }
  for (size_t k2 = 0; k2 < 2 * t->k; k2 += 2 * group, w += 8 * group, s += 16) {
    fold f[MAX_PANELS];
    FP4_UNROLL for (size_t p = 0; p < np; p++) {
      const __m128i byte = _mm_load_si128((const __m128i *)(s + p * ss));
      most = _mm_max_epu8(most, from_first(byte, group));
      f[p] = group == FP4_MX_GROUP ? fold_mx(byte) : fold_nv(byte);
    }
    if (ahead) {
      const uint8_t *soon = w + (4 * k2 + ahead < bytes ? ahead : jump);
      FP4_UNROLL for (size_t p = 0; p < np; p++, soon += ws) {
        FP4_UNROLL for (size_t v = 0; v < group / 8; v++)
            _mm_prefetch((const char *)soon + 64 * v, _MM_HINT_T1);
        _mm_prefetch((const char *)s + p * ss + 2 * ahead / group, _MM_HINT_T1);
      }
    }
    FP4_UNROLL for (size_t v = 0; v < group / 8; v++) {
      __m512i x[MAX_PANELS];
      FP4_UNROLL for (size_t p = 0; p < np; p++) x[p] = _mm512_load_si512(w + p * ws + 64 * v);
      /* More pointers than registers: reload them, or they come to be kept in vector registers. */
      if (m > (group == FP4_NV_GROUP ? 8 : 10)) __asm__("" : "+m"(a));
      FP4_UNROLL for (size_t i = 0; i < 4; i++) {
        __m512i b[MAX_PANELS];
        FP4_UNROLL for (size_t p = 0; p < np; p++) {
          b[p] = fp4_next_pair(table, &x[p]);
          if (group == FP4_NV_GROUP) b[p] = _mm512_and_si512(b[p], f[p].keep);
          b[p] = _mm512_subs_epu16(b[p], f[p].down);
        }
        FP4_UNROLL for (size_t r = 0; r < m; r++) {
          const __m512i pair = fp4_pair_everywhere(a[r] + k2 + 16 * v + 4 * i);
          FP4_UNROLL for (size_t p = 0; p < np; p++) acc[r][p] =
              _mm512_dpbf16_ps(acc[r][p], (__m512bh)b[p], (__m512bh)pair);
        }
      }
    }
  }
  if (!all_fold(most, group)) return 0;
  FP4_UNROLL for (size_t r = 0; r < m; r++) {
    FP4_UNROLL for (size_t p = 0; p < np; p++)
        _mm512_store_ps(out + r * t->acc_stride + 16 * p, acc[r][p]);
  }
  return 1;
}

/* One panel, whatever its scales. */
static void any_scales(const fp4moe_matmul *t, size_t panel, fp4moe_matmul_fn *kernel) {
  fp4moe_matmul part = *t;
  part.panels = 1;
  part.weights += panel * t->weights_stride;
  part.scales += panel * t->scales_stride;
  for (size_t r = 0; r < t->m; r += part.m) {
    part.m = t->m - r < 8 ? t->m - r : 8;
    part.rows = t->rows + r;
    part.acc = t->acc + r * t->acc_stride + 16 * panel;
    kernel(&part);
  }
}

/* np panels at once; those of a tile that does not fold one by one. */
FP4_INLINE void panels(const fp4moe_matmul *t, size_t group, size_t m, size_t np,
                       fp4moe_matmul_fn *unfolded) {
  for (size_t p = 0, n; p < t->panels; p += n) {
    n = t->panels - p >= np ? np : t->panels - p >= 2 ? 2 : 1;
    if (n == np && tile(t, p, group, m, np)) continue;
    if (n == 2 && np > 2 && tile(t, p, group, m, 2)) continue;
    for (size_t end = p + n, one = p; one < end; one++)
      if (!tile(t, one, group, m, 1)) any_scales(t, one, unfolded);
  }
}

#define CASE(w, group, m, np)                                                                      \
  case m:                                                                                          \
    panels(t, group, m, np, fp4moe_gemv_##w##_bf16_8x16_avx512bf16);                               \
    break;
#define VARIANT(w, group)                                                                          \
  void fp4moe_gemv_##w##_bf16_12x32_avx512bf16(const fp4moe_matmul *t) {                           \
    switch (t->m) {                                                                                \
      CASE(w, group, 1, 4)                                                                         \
      CASE(w, group, 2, 4)                                                                         \
      CASE(w, group, 3, 4)                                                                         \
      CASE(w, group, 4, 4)                                                                         \
      CASE(w, group, 5, 4)                                                                         \
      CASE(w, group, 6, 2)                                                                         \
      CASE(w, group, 7, 2)                                                                         \
      CASE(w, group, 8, 2)                                                                         \
      CASE(w, group, 9, 2)                                                                         \
      CASE(w, group, 10, 2)                                                                        \
      CASE(w, group, 11, 2)                                                                        \
      CASE(w, group, 12, 2)                                                                        \
    }                                                                                              \
  }

VARIANT(mx, FP4_MX_GROUP)
VARIANT(nv, FP4_NV_GROUP)
