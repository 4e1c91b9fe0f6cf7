/* gemm_tiles.h - how a float gemm goes over its tiles: the same for every instruction set.
 *
 * A file defines tile functions of constant m x np for all shapes of TILES_ALL, puts them in a
 * table [np - 1][m - 1] and calls gemm_tiles from each variant. Column tiles run outside, row tiles
 * inside: np panels stay in L2 while all rows pass. Rows are cut evenly (9 rows at mr 8 are 5 + 4):
 * a tile of one row would wait for its own chain. `next` is handed out over all tiles, to be
 * prefetched. */
#ifndef FP4MOE_GEMM_TILES_H
#define FP4MOE_GEMM_TILES_H

#include "kernel.h"

enum {
  MAX_MR = 14,
  MAX_NP = 4,
  STRETCH = 128, /* k between two looks at what is to be prefetched */
};

/* A tile's corner, and its share of `next`. */
typedef struct place {
  size_t row, panel;
  const uint8_t *soon;
  size_t soon_bytes; /* per stretch of k */
} place;

typedef void tile_fn(const fp4moe_matmul *t, const place *at);

/* X(a, m, np) for every shape that some variant's 24 to 28 accumulators allow. */
#define UP_TO_6(X, a, np) X(a, 1, np) X(a, 2, np) X(a, 3, np) X(a, 4, np) X(a, 5, np) X(a, 6, np)
#define UP_TO_8(X, a, np) UP_TO_6(X, a, np) X(a, 7, np) X(a, 8, np)
#define UP_TO_14(X, a, np)                                                                         \
  UP_TO_8(X, a, np)                                                                                \
  X(a, 9, np) X(a, 10, np) X(a, 11, np) X(a, 12, np) X(a, 13, np) X(a, 14, np)
#define TILES_ALL(X, a) UP_TO_14(X, a, 1) UP_TO_14(X, a, 2) UP_TO_8(X, a, 3) UP_TO_6(X, a, 4)

static inline void gemm_tiles(const fp4moe_matmul *t, tile_fn *const tiles[MAX_NP][MAX_MR],
                              size_t mr, size_t nr) {
  const size_t width = nr / 16, row_tiles = (t->m + mr - 1) / mr;
  const size_t stretches = (t->k + STRETCH - 1) / STRETCH;
  const size_t shares = (t->panels + width - 1) / width * row_tiles * stretches;
  place at = {.soon = t->next, .soon_bytes = (t->next_bytes + shares - 1) / shares};
  for (at.panel = 0; at.panel < t->panels; at.panel += width) {
    const size_t left = t->panels - at.panel, np = left < width ? left : width;
    at.row = 0;
    for (size_t tiles_left = row_tiles; tiles_left; tiles_left--) {
      const size_t m = (t->m - at.row + tiles_left - 1) / tiles_left;
      tiles[np - 1][m - 1](t, &at);
      at.row += m;
      at.soon += at.soon_bytes * stretches;
    }
  }
}

#endif
