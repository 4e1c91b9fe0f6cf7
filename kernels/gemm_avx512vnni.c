/* gemm_avx512vnni.c - many int8 rows against unpacked u8 panels, the canonical chain of class i8.
 *
 * A tile keeps m x np sums of 16 columns in registers over all k of the call. Where integer sums of
 * both panels fit beside them (6 rows of MX, 4 of NV, which need two a panel), the panels share
 * each activation's load: half a load a dot, for cores that dot twice and load twice a cycle.
 * Larger tiles pass their panels one after the other within 32 k. Tiles are quick ones, in whose
 * place a plain one steps where it must (matmul_i8_avx512.h).
 *
 * Column tiles run outside, row tiles inside: np panels stay in L2 while all rows pass, and once a
 * quick tile finds scales that do not serve, the rows that follow are spared it. Rows are
 * cut evenly (9 rows at mr 8 are 5 + 4): a tile of one row would wait for its own chain. */
#include "matmul_i8_avx512.h"

enum { STRETCH = 128 }; /* k between two looks at what is to be prefetched */

/* A tile's corner, its share of `next`, and what lets it be quick. */
typedef struct place {
  size_t row, panel;
  const uint8_t *soon;
  size_t soon_bytes; /* per stretch of k */
  fp4_limits limits;
} place;

typedef int tile_fn(const fp4moe_matmul *t, const place *at);

/* of, m and np are constants where this is expanded. 0: nothing is stored. */
FP4_INLINE int tile(const fp4moe_matmul *t, const place *at, size_t m, size_t np, fp4_i8_kind of) {
  const size_t g = np * m <= (of.group == FP4_NV_GROUP ? 8 : 12) ? np : 1;
  const size_t ws = t->weights_stride, scales = 16 * of.group;
  const uint8_t *w = t->weights + at->panel * ws, *soon = at->soon;
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
    for (; to.q < stop; fp4_parts_step(&to), w += 32 / of.group * fp4_codes_step(of)) {
      FP4_UNROLL for (size_t p = 0; p < np; p += g) {
        const fp4_block here = {w + p * ws, w + p * ws + scales, ws, ws, g};
        fp4_forget(&to, of.group);
        fp4_i8_block(row, m, to, here, 32, of, &seen, acc + p);
      }
    }
  }
  if (of.group == FP4_NV_GROUP && t->k % 32) FP4_UNROLL for (size_t p = 0; p < np; p++) {
      const fp4_block here = {w + p * ws, w + p * ws + scales, ws, ws, 1};
      fp4_i8_block(row, m, to, here, 16, of, &seen, acc + p);
    }
  if (of.quick && !fp4_within(&seen, of.group, &at->limits)) return 0;
  fp4_i8_close(t, out, m, np, of, acc);
  return 1;
}

#define NAME(w, m, np, word) gemm_##w##_i8_##m##x##np##_panels_##word##_avx512vnni
#define TILE(w, group, m, np, word, quick)                                                         \
  static int NAME(w, m, np, word)(const fp4moe_matmul *t, const place *at) {                       \
    return tile(t, at, m, np, (fp4_i8_kind){group, NULL, quick});                                  \
  }
#define MX(m, np)       TILE(mx, FP4_MX_GROUP, m, np, quick, FP4_QUICK)
#define NV(m, np)       TILE(nv, FP4_NV_GROUP, m, np, quick, FP4_QUICK)
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

static void gemm_avx512vnni(const fp4moe_matmul *t, size_t group, size_t mr, size_t nr) {
  tile_fn *const(*quick_tiles)[FP4_I8_M] = group == FP4_MX_GROUP ? mx_quick : nv_quick;
  tile_fn *const *plain_tiles = group == FP4_MX_GROUP ? mx_plain : nv_plain;
  const size_t width = nr / 16, row_tiles = (t->m + mr - 1) / mr;
  const size_t stretches = (t->k + STRETCH - 1) / STRETCH;
  const size_t shares = (t->panels + width - 1) / width * row_tiles * stretches;
  place at = {.soon = t->next,
              .soon_bytes = (t->next_bytes + shares - 1) / shares,
              .limits = fp4_i8_limits(t, group)};
  for (at.panel = 0; at.panel < t->panels; at.panel += width) {
    const size_t left = t->panels - at.panel, np = left < width ? left : width;
    int quick = at.limits.quick;
    at.row = 0;
    for (size_t tiles_left = row_tiles; tiles_left; tiles_left--) {
      const size_t m = (t->m - at.row + tiles_left - 1) / tiles_left;
      if (quick) quick = quick_tiles[np - 1][m - 1](t, &at);
      if (!quick) plain_avx512vnni(t, at, np, plain_tiles[m - 1]);
      at.row += m;
      at.soon += at.soon_bytes * stretches;
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
