/* gemv_avx512bf16.c - few rows against FP4 panels: nibbles decoded in registers, BF16 dots.
 *
 * One 64-byte vector of a panel becomes four of BF16 pairs (decode_avx512.h); lane j of each is
 * output row j, so an activation pair is one 32-bit broadcast and no sum ever crosses lanes. Each
 * decoded vector serves all m rows. The dots of one scale block are a chain from zero, then one
 * FP32 FMA by the scale adds them to acc; the sums of a row know nothing of m, of the other rows
 * or of the panel's place.
 *
 * The block scale stays in FP32, so every E8M0 is served: experts whose scales do not fold into
 * BF16 come here. E4M3 scales are used 2^-8 too small and acc is multiplied by 2^8 at the end.
 *
 * A block's dots wait for each other, but those of the next block do not wait for them: the core
 * runs ahead. So one or two rows read one panel after the other, a single stream, which memory
 * serves up to a fifth faster than four; more rows take two panels, which share each activation's
 * load. The acc of 7 and 8 rows must then wait in the first-level cache for a block's end.
 * Prefetches go to L2 only: the ones into L1 hold the buffers that its own misses need and cost
 * some 6 % of the memory's speed. */
#include "decode_avx512.h"
#include "kernel.h"

enum { MAX_M = 8, MAX_NP = 2 };

/* m rows x np panels; group, m and np are constants where this is expanded. */
FP4_INLINE void tile(const fp4moe_matmul *t, size_t panel, size_t group, size_t m, size_t np) {
  const __m512i table = fp4_e2m1_bf16();
  const size_t ws = t->weights_stride, ss = t->scales_stride;
  const uint8_t *w = t->weights + panel * ws, *s = t->scales + panel * ss;
  float *out = t->acc + 16 * panel;
  const float unit = group == FP4_NV_GROUP ? 0x1p8f : 1.0f;
  /* Blocks in two stretches: what is `ahead` of the second lies past the panel's end, and what is
   * fetched there is the panel np further: of this call, or of the next one, which normally goes
   * on where this one ends (a fetch of what is not there does nothing). */
  const size_t step = 2 * group, end = 2 * t->k, ahead = t->prefetch;
  const size_t turn = 4 * end > ahead ? (end - ahead / 4) / step * step : 0;
  const size_t jump = np * ws - 4 * end;
  const char *a[MAX_M];
  __m512 acc[MAX_M][MAX_NP];
  FP4_UNROLL for (size_t r = 0; r < m; r++) {
    a[r] = (const char *)t->rows[r] + 2 * t->k0;
    FP4_UNROLL for (size_t p = 0; p < np; p++) {
      const __m512 old =
          t->resume ? _mm512_load_ps(out + r * t->acc_stride + 16 * p) : _mm512_setzero_ps();
      acc[r][p] = _mm512_mul_ps(old, _mm512_set1_ps(1 / unit));
    }
  }
  for (size_t k2 = 0, stop = turn, to_soon = ahead; k2 < end; stop = end, to_soon += jump) {
    for (; k2 < stop; k2 += step, w += 8 * group, s += 16) {
      const uint8_t *soon = w + to_soon;
      __m512 dot[MAX_M][MAX_NP];
      FP4_UNROLL for (size_t p = 0; p < np; p++) {
        FP4_UNROLL for (size_t v = 0; v < group / 8; v++)
            _mm_prefetch((const char *)soon + 64 * v, _MM_HINT_T1);
        _mm_prefetch((const char *)s + p * ss + 2 * ahead / group, _MM_HINT_T1);
        soon += ws;
        __asm__("" : "+r"(soon)); /* or each line's address is hoisted, and spilled */
        FP4_UNROLL for (size_t r = 0; r < m; r++) dot[r][p] = _mm512_setzero_ps();
      }
      FP4_UNROLL for (size_t v = 0; v < group / 8; v++) {
        __m512i x[MAX_NP];
        FP4_UNROLL for (size_t p = 0; p < np; p++) x[p] = _mm512_load_si512(w + p * ws + 64 * v);
        FP4_UNROLL for (size_t i = 0; i < 4; i++) {
          __m512i b[MAX_NP];
          FP4_UNROLL for (size_t p = 0; p < np; p++) b[p] = fp4_next_pair(table, &x[p]);
          FP4_UNROLL for (size_t r = 0; r < m; r++) {
            const __m512i pair = fp4_pair_everywhere(a[r] + k2 + 16 * v + 4 * i);
            FP4_UNROLL for (size_t p = 0; p < np; p++) dot[r][p] =
                _mm512_dpbf16_ps(dot[r][p], (__m512bh)b[p], (__m512bh)pair);
          }
        }
      }
      FP4_UNROLL for (size_t p = 0; p < np; p++) {
        const __m128i byte = _mm_load_si128((const __m128i *)(s + p * ss));
        const __m512 scale = group == FP4_NV_GROUP ? fp4_e4m3_f32_256th(byte) : fp4_e8m0_f32(byte);
        FP4_UNROLL for (size_t r = 0; r < m; r++) acc[r][p] =
            _mm512_fmadd_ps(dot[r][p], scale, acc[r][p]);
      }
      if (m > 6) __asm__("" : "+m"(acc)); /* keeps them out of registers */
    }
  }
  FP4_UNROLL for (size_t r = 0; r < m; r++) {
    FP4_UNROLL for (size_t p = 0; p < np; p++) _mm512_store_ps(
        out + r * t->acc_stride + 16 * p, _mm512_mul_ps(acc[r][p], _mm512_set1_ps(unit)));
  }
}

FP4_INLINE void panels(const fp4moe_matmul *t, size_t group, size_t m, size_t np) {
  size_t p = 0;
  for (; p + np <= t->panels; p += np) tile(t, p, group, m, np);
  if (p < t->panels) tile(t, p, group, m, 1);
}

/* The panels at once for each m. */
#define CASE(group, m, np)                                                                         \
  case m:                                                                                          \
    panels(t, group, m, np);                                                                       \
    break;
#define VARIANT(w, group)                                                                          \
  void fp4moe_gemv_##w##_bf16_8x16_avx512bf16(const fp4moe_matmul *t) {                            \
    switch (t->m) {                                                                                \
      CASE(group, 1, 1)                                                                            \
      CASE(group, 2, 1)                                                                            \
      CASE(group, 3, 2)                                                                            \
      CASE(group, 4, 2)                                                                            \
      CASE(group, 5, 2)                                                                            \
      CASE(group, 6, 2)                                                                            \
      CASE(group, 7, 2)                                                                            \
      CASE(group, 8, 2)                                                                            \
    }                                                                                              \
  }

VARIANT(mx, FP4_MX_GROUP)
VARIANT(nv, FP4_NV_GROUP)
