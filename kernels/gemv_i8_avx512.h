/* gemv_i8_avx512.h - few int8 rows against FP4 panels, nibbles decoded in registers: one body, and
 * a way of looking codes up for each ISA that expands it (i8_avx512.h).
 *
 * Weights that come from memory, as a prefetch distance says, are read one panel after the other,
 * one stream: two panels at once are a sixth slower there, whatever they save
 * (gemv_avx512bf16.c says why). Where they are in cache and activations of three rows or more would
 * be most of what is loaded, two panels share each: a dot then costs half a load, and from 6 rows
 * up their sums over k wait in the first-level cache for the end of a block. Prefetches go to L2
 * (there too). */
#ifndef FP4MOE_GEMV_I8_AVX512_H
#define FP4MOE_GEMV_I8_AVX512_H

#include "matmul_i8_avx512.h"

/* m rows x np panels; of, m and np are constants where this is expanded. 0: nothing is stored. */
FP4_INLINE int fp4_gemv_tile(const fp4moe_matmul *t, size_t panel, size_t m, size_t np,
                             fp4_i8_kind of, const fp4_limits *limits) {
  const size_t ws = t->weights_stride, ss = t->scales_stride;
  const size_t g = m > 2 && np == 2 ? 2 : 1; /* panels that share loads */
  const uint8_t *w = t->weights + panel * ws, *s = t->scales + panel * ss;
  float *out = t->acc + 16 * panel;
  fp4_parts at = fp4_parts_at(t->row_k, t->k0);
  fp4_seen seen = fp4_nothing_seen();
  /* What is `ahead` of the last columns lies past the panel's end, and what is fetched for them is
   * the panel np further: of this call, or of the next one, which normally goes on where this one
   * ends (a fetch of what is not there does nothing). */
  const size_t end = at.q + t->k / 32 * 32, ahead = t->prefetch, bytes = 8 * t->k;
  const size_t turn = bytes > ahead ? at.q + (bytes - ahead) / 256 * 32 : at.q;
  const size_t jump = np * ws - bytes;
  const char *row[FP4_I8_M];
  __m512 acc[FP4_I8_NP][FP4_I8_M];
  FP4_UNROLL for (size_t r = 0; r < m; r++) row[r] = t->rows[r];
  if (!fp4_i8_open(t, out, m, np, of, acc)) return 0;
  for (size_t stop = turn, to_soon = ahead; at.q < end; stop = end, to_soon += jump) {
    for (; at.q < stop; fp4_parts_step(&at), w += 256, s += 512 / of.group) {
      const uint8_t *soon = w + to_soon;
      if (ahead) FP4_UNROLL for (size_t p = 0; p < np; p++) {
          FP4_UNROLL for (size_t v = 0; v < 4; v++)
              _mm_prefetch((const char *)soon + 64 * v, _MM_HINT_T1);
          _mm_prefetch((const char *)s + p * ss + 2 * ahead / of.group, _MM_HINT_T1);
          soon += ws;
          __asm__("" : "+r"(soon)); /* or each line's address is hoisted, and spilled */
        }
      FP4_UNROLL for (size_t p = 0; p < np; p += g) {
        const fp4_block here = {w + p * ws, s + p * ss, ws, ss, g};
        fp4_forget(&at, of.group);
        fp4_i8_block(row, m, at, here, 32, of, &seen, acc + p);
      }
      if (m * np > 12) __asm__("" : "+m"(acc)); /* keeps them out of registers */
    }
  }
  if (of.group == FP4_NV_GROUP && t->k % 32) FP4_UNROLL for (size_t p = 0; p < np; p++) {
      const fp4_block here = {w + p * ws, s + p * ss, ws, ss, 1};
      fp4_i8_block(row, m, at, here, 16, of, &seen, acc + p);
    }
  if (of.quick && !fp4_within(&seen, of.group, limits)) return 0;
  fp4_i8_close(t, out, m, np, of, acc);
  return 1;
}

FP4_INLINE void fp4_gemv_step(const fp4moe_matmul *t, size_t panel, size_t m, size_t np,
                              fp4_i8_kind of, const fp4_limits *limits) {
  const fp4_i8_kind plain = {of.group, of.codes, FP4_PLAIN};
  if (!of.quick)
    fp4_gemv_tile(t, panel, m, np, plain, limits);
  else if (!limits->quick || !fp4_gemv_tile(t, panel, m, np, of, limits))
    for (size_t p = panel; p < panel + np; p++) fp4_gemv_tile(t, p, m, 1, plain, limits);
}

FP4_INLINE void fp4_gemv_panels(const fp4moe_matmul *t, size_t m, size_t np, fp4_i8_kind of) {
  const fp4_limits limits = of.quick ? fp4_i8_limits(t, of.group) : (fp4_limits){0, 0, 0};
  size_t p = 0;
  for (; p + np <= t->panels; p += np) fp4_gemv_step(t, p, m, np, of, &limits);
  if (np > 1 && p < t->panels) fp4_gemv_step(t, p, m, 1, of, &limits);
}

/* Quick tiles pay from 3 rows up, below memory is the limit; and for MX only: what NV's would save,
 * looking at its scales costs. */
#define FP4_GEMV_OF(group, codes, m, np)                                                           \
  fp4_gemv_panels(t, m, np, (fp4_i8_kind){group, codes, (group) == FP4_MX_GROUP && m > 2})
#define FP4_GEMV_CASE(group, codes, m, np)                                                         \
  case m:                                                                                          \
    if ((np) > 1 && !t->prefetch)                                                                  \
      FP4_GEMV_OF(group, codes, m, np);                                                            \
    else                                                                                           \
      FP4_GEMV_OF(group, codes, m, 1);                                                             \
    break;

/* One row of kernels.inc: for each m, the panels at once where they are in cache. */
#define FP4_GEMV_VARIANT(w, group, isa, codes)                                                     \
  void fp4moe_gemv_##w##_i8_8x16_##isa(const fp4moe_matmul *t) {                                   \
    switch (t->m) {                                                                                \
      FP4_GEMV_CASE(group, codes, 1, 1)                                                            \
      FP4_GEMV_CASE(group, codes, 2, 2)                                                            \
      FP4_GEMV_CASE(group, codes, 3, 2)                                                            \
      FP4_GEMV_CASE(group, codes, 4, 2)                                                            \
      FP4_GEMV_CASE(group, codes, 5, 2)                                                            \
      FP4_GEMV_CASE(group, codes, 6, (group) == FP4_MX_GROUP ? 2 : 1)                              \
      FP4_GEMV_CASE(group, codes, 7, (group) == FP4_MX_GROUP ? 2 : 1)                              \
      FP4_GEMV_CASE(group, codes, 8, (group) == FP4_MX_GROUP ? 2 : 1)                              \
    }                                                                                              \
  }

#endif
