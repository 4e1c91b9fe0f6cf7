/* gemm_neon.h - how the gemm rows of NEON and beyond go over their rows and columns.
 *
 * Row tiles of at most 8 rows run outside, then stretches of k. A pass brings its rows' columns
 * into the form that its instruction takes, once, and goes with them over all panels of the call;
 * between passes the sums are in acc, exactly. Rows are cut evenly (9 rows are 5 + 4): a tile of
 * one row would wait for its own chain. `next` is handed out over all passes. */
#ifndef FP4MOE_GEMM_NEON_H
#define FP4MOE_GEMM_NEON_H

#include "kernel.h"
#include "neon.h"

/* One pass: rows [row, row + m), columns [k, k + columns) of the call. fresh: sums start at 0. */
typedef struct fp4_pass {
  size_t row, k, columns;
  int fresh;
} fp4_pass;

typedef void fp4_pass_fn(const fp4moe_matmul *t, const fp4_pass *at);

static inline void fp4_gemm_passes(const fp4moe_matmul *t, fp4_pass_fn *const passes[FP4_ROWS]) {
  const size_t tiles = (t->m + FP4_ROWS - 1) / FP4_ROWS;
  const size_t stretches = (t->k + FP4_STRETCH - 1) / FP4_STRETCH;
  const size_t share = (t->next_bytes + tiles * stretches - 1) / (tiles * stretches);
  const uint8_t *soon = t->next;
  fp4_pass at = {0};
  for (size_t left = tiles; left; left--) {
    const size_t m = (t->m - at.row + left - 1) / left;
    for (at.k = 0; at.k < t->k; at.k += FP4_STRETCH, soon += share) {
      for (size_t i = 0; i < share; i += 64) __builtin_prefetch(soon + i, 0, 2);
      at.columns = t->k - at.k < FP4_STRETCH ? t->k - at.k : FP4_STRETCH;
      at.fresh = at.k == 0 && !t->resume;
      passes[m - 1](t, &at);
    }
    at.row += m;
  }
}

/* One row of kernels.inc: PASS(t, at, m) for each m. */
#define FP4_GEMM_PASS(words, isa, PASS, m)                                                         \
  static void gemm_##words##_##m##_rows_##isa(const fp4moe_matmul *t, const fp4_pass *at) {        \
    PASS(t, at, m);                                                                                \
  }
#define FP4_GEMM_VARIANT(words, isa, PASS)                                                         \
  FP4_FOR_ROWS(FP4_GEMM_PASS, words, isa, PASS)                                                    \
  void fp4moe_gemm_##words##_8x16_##isa(const fp4moe_matmul *t) {                                  \
    static fp4_pass_fn *const passes[FP4_ROWS] = FP4_ROWS_NAMES(gemm_##words, isa);                \
    fp4_gemm_passes(t, passes);                                                                    \
  }

#endif
