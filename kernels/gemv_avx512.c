/* gemv_avx512.c - few rows against FP4 panels: nibbles decoded in registers, FP32 multiply-adds.
 *
 * One 64-byte vector of a panel becomes eight of FP32 (decode_avx512.h); lane j of each is output
 * row j, so an activation is one 32-bit broadcast and no sum ever crosses lanes. Each decoded
 * vector serves all m rows. The products of one scale block are two chains from zero, of the lower
 * and of the upper halves of the pairs of layout.h; one FMA by the scale adds their sum to acc. So
 * every E8M0 is served, and the sums of a row know nothing of m, of the other rows or of the
 * panel's place. E4M3 scales are used 2^-8 too small and acc is multiplied by 2^8 at the end.
 *
 * The limit is the ports: for one vector 8m FMAs and m/4 (MXFP4) or m/2 (NVFP4) more for scales,
 * and 8 permutes and 3 shifts, one of whose two ports is the FMAs'. A second panel at once was
 * measured slower than the second chain. Rows of class bf16 are widened to FP32 one block ahead,
 * exactly. Prefetches go to L2 only, as in gemv_avx512bf16.c. */
#include "decode_avx512.h"
#include "kernel.h"

enum { MAX_M = 8 };

/* Where half h of pair i of a block stands among the columns of f32, or of widened bf16. */
FP4_INLINE size_t place(fp4moe_act_class act, size_t i, size_t h) {
  if (act == FP4MOE_ACT_BF16) return fp4_wide_place(i, h);
  return i / 4 * 8 + i % 2 * 4 + i % 4 / 2 + 2 * h; /* fp4_bf16_order */
}

/* One block of each row as FP32. */
FP4_INLINE void widen(const char *const rows[MAX_M], size_t k, size_t group, size_t m,
                      float wide[MAX_M][FP4_MX_GROUP]) {
  FP4_UNROLL for (size_t r = 0; r < m; r++) {
    FP4_UNROLL for (size_t i = 0; i < group; i += 16)
        fp4_widen16(rows[r] + 2 * (k + i), wide[r] + i);
  }
}

/* One panel against m rows; act, group and m are constants where this is expanded. */
FP4_INLINE void tile(const fp4moe_matmul *t, size_t panel, fp4moe_act_class act, size_t group,
                     size_t m) {
  const __m512 f32 = fp4_e2m1_f32();
  const __m512i bf16 = fp4_e2m1_bf16();
  const uint8_t *w = t->weights + panel * t->weights_stride;
  const uint8_t *s = t->scales + panel * t->scales_stride;
  const size_t column = act == FP4MOE_ACT_F32 ? 4 : 2, ahead = t->prefetch;
  const float unit = group == FP4_NV_GROUP ? 0x1p8f : 1.0f;
  float *out = t->acc + 16 * panel;
  _Alignas(64) float wide[2][MAX_M][FP4_MX_GROUP]; /* this block and the next */
  const char *rows[MAX_M];
  __m512 acc[MAX_M];
  FP4_UNROLL for (size_t r = 0; r < m; r++) {
    rows[r] = (const char *)t->rows[r] + column * t->k0;
    const __m512 old = t->resume ? _mm512_load_ps(out + r * t->acc_stride) : _mm512_setzero_ps();
    acc[r] = _mm512_mul_ps(old, _mm512_set1_ps(1 / unit));
  }
  if (act == FP4MOE_ACT_BF16) widen(rows, 0, group, m, wide[0]);
  for (size_t k = 0; k < t->k; k += group, w += 8 * group, s += 16) {
    const size_t odd = k / group % 2;
    const float *a[MAX_M];
    __m512 dot[MAX_M][2];
    if (act == FP4MOE_ACT_BF16 && k + group < t->k) widen(rows, k + group, group, m, wide[!odd]);
    FP4_UNROLL for (size_t r = 0; r < m; r++) {
      const void *row = rows[r] + column * k;
      a[r] = act == FP4MOE_ACT_F32 ? row : wide[odd][r];
      dot[r][0] = dot[r][1] = _mm512_setzero_ps();
    }
    _mm_prefetch((const char *)s + 2 * ahead / group, _MM_HINT_T1);
    FP4_UNROLL for (size_t v = 0; v < group; v += 8) {
      const __m512i x = _mm512_load_si512(w + 8 * v);
      _mm_prefetch((const char *)w + 8 * v + ahead, _MM_HINT_T1); /* mostly of the next panel */
      FP4_UNROLL for (size_t i = 0; i < 4; i++) {
        __m512 two[2];
        fp4_pair_f32(f32, bf16, x, i, two);
        FP4_UNROLL for (size_t h = 0; h < 2; h++) {
          FP4_UNROLL for (size_t r = 0; r < m; r++) dot[r][h] =
              _mm512_fmadd_ps(two[h], _mm512_set1_ps(a[r][place(act, v / 2 + i, h)]), dot[r][h]);
        }
      }
    }
    const __m128i byte = _mm_load_si128((const __m128i *)s);
    const __m512 scale = group == FP4_NV_GROUP ? fp4_e4m3_f32_256th(byte) : fp4_e8m0_f32(byte);
    FP4_UNROLL for (size_t r = 0; r < m; r++) acc[r] =
        _mm512_fmadd_ps(_mm512_add_ps(dot[r][0], dot[r][1]), scale, acc[r]);
  }
  FP4_UNROLL for (size_t r = 0; r < m; r++)
      _mm512_store_ps(out + r * t->acc_stride, _mm512_mul_ps(acc[r], _mm512_set1_ps(unit)));
}

#define CASE(act, group, m)                                                                        \
  case m:                                                                                          \
    for (size_t p = 0; p < t->panels; p++) tile(t, p, act, group, m);                              \
    break;
#define VARIANT(w, a, act, group)                                                                  \
  void fp4moe_gemv_##w##_##a##_8x16_avx512(const fp4moe_matmul *t) {                               \
    switch (t->m) {                                                                                \
      CASE(act, group, 1)                                                                          \
      CASE(act, group, 2)                                                                          \
      CASE(act, group, 3)                                                                          \
      CASE(act, group, 4)                                                                          \
      CASE(act, group, 5)                                                                          \
      CASE(act, group, 6)                                                                          \
      CASE(act, group, 7)                                                                          \
      CASE(act, group, 8)                                                                          \
    }                                                                                              \
  }

VARIANT(mx, f32, FP4MOE_ACT_F32, FP4_MX_GROUP)
VARIANT(nv, f32, FP4MOE_ACT_F32, FP4_NV_GROUP)
VARIANT(mx, bf16, FP4MOE_ACT_BF16, FP4_MX_GROUP)
VARIANT(nv, bf16, FP4MOE_ACT_BF16, FP4_NV_GROUP)
