/* gemm_avx512vnni.c - many int8 rows against unpacked u8 panels, the canonical chain of class i8.
 *
 * A tile keeps m x np sums of 16 columns in registers over all k of the call. Where integer sums of
 * both panels fit beside them (6 rows of MX, 4 of NV, which need two a panel), the panels share
 * each activation's load: half a load a dot, for cores that dot twice and load twice a cycle.
 * Larger tiles pass their panels one after the other within 32 k.
 *
 * Column tiles run outside, row tiles inside: np panels stay in L2 while all rows pass. 1024 k of
 * them at a time: the scales of those are brought into the form of quick blocks once, in 4 KiB of
 * the first-level cache, for all row tiles. Where one of them does not serve, plain tiles step in
 * for these k (matmul_i8_avx512.h). Rows are cut evenly (9 rows at mr 8 are 5 + 4): a tile of one
 * row would wait for its own chain. */
#include "matmul_i8_avx512.h"

enum {
  STRETCH = 128,  /* k between two looks at what is to be prefetched */
  READY_K = 1024, /* k whose scales are made ready at once, a multiple of STRETCH */
};

/* Of each 32 k of a panel, its scales as quick blocks take them. */
typedef uint8_t ready_scales[READY_K / 32][64];

/* A tile's corner, its share of `next`, and the scales of its panels if they serve. */
typedef struct place {
  size_t row, panel;
  const uint8_t *soon;
  size_t soon_bytes; /* per stretch of k */
  const ready_scales *ready;
} place;

/* 0: nothing is stored. */
typedef int tile_fn(const fp4moe_matmul *t, const place *at);

/* of, m and np are constants where this is expanded. */
FP4_INLINE int tile(const fp4moe_matmul *t, const place *at, size_t m, size_t np, fp4_i8_kind of) {
  const size_t g = np * m <= (of.group == FP4_NV_GROUP ? 8 : 12) ? np : 1;
  const size_t ws = t->weights_stride, ss = of.quick ? sizeof *at->ready : ws;
  const size_t scales_step = of.quick ? 64 : 32 / of.group * fp4_codes_step(of);
  const uint8_t *w = t->weights + at->panel * ws, *soon = at->soon;
  const uint8_t *s = of.quick ? (*at->ready)[0] : w + 16 * of.group;
  float *out = t->acc + at->row * t->acc_stride + 16 * at->panel;
  fp4_parts to = fp4_parts_at(t->row_k, t->k0);
  fp4_seen seen = fp4_nothing_seen();
  const char *row[FP4_I8_M];
  __m512 acc[FP4_I8_NP][FP4_I8_M];
  FP4_UNROLL for (size_t r = 0; r < m; r++) row[r] = t->rows[at->row + r];
  if (!fp4_i8_open(t, out, m, np, of, acc)) return 0;
  const size_t end = to.q + t->k / 32 * 32;
  while (to.q < end) {
    const size_t stop = end - to.q < STRETCH ? end : to.q + STRETCH;
    for (size_t i = 0; i < at->soon_bytes; i += 64)
      _mm_prefetch((const char *)soon + i, _MM_HINT_T1);
    soon += at->soon_bytes;
    for (; to.q < stop; fp4_parts_step(&to)) {
      FP4_UNROLL for (size_t p = 0; p < np; p += g) {
        const fp4_block here = {w + p * ws, s + p * ss, ws, ss, g};
        fp4_forget(&to, of.group);
        fp4_i8_block(row, m, to, here, 32, of, &seen, acc + p);
      }
      w += 32 / of.group * fp4_codes_step(of), s += scales_step;
    }
  }
  if (of.group == FP4_NV_GROUP && t->k % 32) FP4_UNROLL for (size_t p = 0; p < np; p++) {
      const fp4_block here = {w + p * ws, s + p * ss, ws, ss, 1};
      fp4_i8_block(row, m, to, here, 16, of, &seen, acc + p);
    }
  fp4_i8_close(t, out, m, np, of, acc);
  return 1;
}

#define NAME(w, m, np, word) gemm_##w##_i8_##m##x##np##_panels_##word##_avx512vnni
#define TILE(w, group, m, np, word, quick)                                                         \
  static int NAME(w, m, np, word)(const fp4moe_matmul *t, const place *at) {                       \
    return tile(t, at, m, np, (fp4_i8_kind){group, NULL, quick});                                  \
  }
#define MX(m, np)       TILE(mx, FP4_MX_GROUP, m, np, quick, FP4_READY)
#define NV(m, np)       TILE(nv, FP4_NV_GROUP, m, np, quick, FP4_READY)
#define MX_PLAIN(m, np) TILE(mx, FP4_MX_GROUP, m, np, plain, FP4_PLAIN)
#define NV_PLAIN(m, np) TILE(nv, FP4_NV_GROUP, m, np, plain, FP4_PLAIN)
#define UP_TO_6(X, np)  X(1, np) X(2, np) X(3, np) X(4, np) X(5, np) X(6, np)
#define UP_TO_8(X, np)  UP_TO_6(X, np) X(7, np) X(8, np)

UP_TO_8(MX, 1)
UP_TO_8(MX, 2)
UP_TO_8(NV, 1)
UP_TO_6(NV, 2)
UP_TO_8(MX_PLAIN, 1)
UP_TO_8(NV_PLAIN, 1)

/* Of each format: the quick tiles by np and m, the plain ones by m. */
#define MX_ENTRY(m, np)       [np - 1][m - 1] = NAME(mx, m, np, quick),
#define NV_ENTRY(m, np)       [np - 1][m - 1] = NAME(nv, m, np, quick),
#define MX_PLAIN_ENTRY(m, np) [m - 1] = NAME(mx, m, np, plain),
#define NV_PLAIN_ENTRY(m, np) [m - 1] = NAME(nv, m, np, plain),
static tile_fn *const mx_quick[FP4_I8_NP][FP4_I8_M] = {UP_TO_8(MX_ENTRY, 1) UP_TO_8(MX_ENTRY, 2)};
static tile_fn *const nv_quick[FP4_I8_NP][FP4_I8_M] = {UP_TO_8(NV_ENTRY, 1) UP_TO_6(NV_ENTRY, 2)};
static tile_fn *const mx_plain[FP4_I8_M] = {UP_TO_8(MX_PLAIN_ENTRY, 1)};
static tile_fn *const nv_plain[FP4_I8_M] = {UP_TO_8(NV_PLAIN_ENTRY, 1)};

/* The corner's m rows x np panels, panel by panel. */
static void plain_avx512vnni(const fp4moe_matmul *t, place at, size_t np, tile_fn *plain) {
  for (size_t end = at.panel + np; at.panel < end; at.panel++, at.soon_bytes = 0) plain(t, &at);
}

/* The scales of a panel's k columns, from its first group's on. 0: one of them does not serve. */
FP4_INLINE int make_ready(const uint8_t *s, size_t k, size_t group, const fp4_limits *limits,
                          ready_scales out) {
  const fp4_i8_kind of = {group, NULL, FP4_QUICK};
  const size_t step = fp4_codes_step(of);
  fp4_seen seen = fp4_nothing_seen();
  for (size_t i = 0; 32 * i < k; i++, s += 32 / group * step)
    _mm512_store_si512(out[i], group == FP4_MX_GROUP
                                   ? fp4_magic_seen(s, of, &seen)
                                   : fp4_words_seen(s, k - 32 * i < 32 ? 16 : 32, step, &seen));
  return fp4_within(&seen, group, limits);
}

/* All rows against np panels, for the k of a part. */
static void row_tiles(const fp4moe_matmul *t, place *at, size_t mr, size_t np,
                      tile_fn *const *quick, tile_fn *const *plain) {
  const size_t count = (t->m + mr - 1) / mr, stretches = (t->k + STRETCH - 1) / STRETCH;
  at->row = 0;
  for (size_t left = count; left; left--) {
    const size_t m = (t->m - at->row + left - 1) / left;
    if (!at->ready || !quick[m - 1](t, at)) plain_avx512vnni(t, *at, np, plain[m - 1]);
    at->row += m;
    at->soon += at->soon_bytes * stretches;
  }
}

FP4_INLINE void gemm_avx512vnni(const fp4moe_matmul *t, size_t group, size_t mr, size_t nr) {
  _Alignas(64) ready_scales ready[FP4_I8_NP];
  tile_fn *const(*quick)[FP4_I8_M] = group == FP4_MX_GROUP ? mx_quick : nv_quick;
  tile_fn *const *plain = group == FP4_MX_GROUP ? mx_plain : nv_plain;
  const size_t width = nr / 16, stretches = (t->k + STRETCH - 1) / STRETCH;
  const size_t shares = (t->panels + width - 1) / width * ((t->m + mr - 1) / mr) * stretches;
  const fp4_limits limits = fp4_i8_limits(t, group);
  fp4moe_matmul part = *t;
  place at = {.soon = t->next, .soon_bytes = (t->next_bytes + shares - 1) / shares};
  for (at.panel = 0; at.panel < t->panels; at.panel += width) {
    const size_t left = t->panels - at.panel, np = left < width ? left : width;
    for (size_t done = 0; done < t->k; done += part.k) {
      int serves = limits.quick;
      part.k = t->k - done < READY_K ? t->k - done : READY_K;
      part.k0 = t->k0 + done;
      part.weights = t->weights + (16 + 64 / group) * done;
      part.resume = t->resume || done;
      for (size_t p = 0; p < np && serves; p++)
        serves = make_ready(part.weights + (at.panel + p) * t->weights_stride + 16 * group, part.k,
                            group, &limits, ready[p]);
      at.ready = serves ? ready : NULL;
      row_tiles(&part, &at, mr, np, quick[np - 1], plain);
    }
  }
}

#define VARIANT(w, group, mr, nr)                                                                  \
  void fp4moe_gemm_##w##_i8_##mr##x##nr##_avx512vnni(const fp4moe_matmul *t) {                     \
    gemm_avx512vnni(t, group, mr, nr);                                                             \
  }

VARIANT(mx, FP4_MX_GROUP, 6, 32)
VARIANT(mx, FP4_MX_GROUP, 8, 32)
VARIANT(nv, FP4_NV_GROUP, 4, 32)
VARIANT(nv, FP4_NV_GROUP, 6, 32)
