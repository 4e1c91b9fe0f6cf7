/* grid.c - the tuner's candidates (grid.h).
 *
 * Values to try stand in lists here; which of them is good is for the clock to say. C kernels are
 * left out where a row with an ISA serves: they are the specification, hundreds of times slower. */
#include <string.h>

#include "grid.h"

static const uint32_t prefetches[] = {4096, 16384, 32768, 8192, 2048, 1024};
static const uint32_t k_blocks[] = {0, 512, 1024};
static const uint32_t widths[] = {1, 2, 3, 4, 6}; /* panels */

typedef struct {
  const fp4moe_selector *s;
  const fp4moe_layer_desc *desc;
  int phase, bucket, quick, c_only;
  fp4moe_recipe *out;
  size_t count;
} grid;

static int serves(const grid *g, const fp4moe_kernel *k, fp4moe_op op) {
  return k->op == op && !fp4moe_judge(g->s, g->desc, k) && (g->c_only || k->isa != FP4MOE_ISA_c);
}

static void add(grid *g, const fp4moe_recipe *r) {
  for (size_t i = 0; i < g->count; i++)
    if (!memcmp(&g->out[i], r, sizeof *r)) return;
  if (g->count < GRID_MAX) g->out[g->count++] = *r;
}

/* A gemv row reads a unit's weights rows/mr times, all but the first from cache. */
static void add_gemv(grid *g, const fp4moe_kernel *k) {
  size_t rows = fp4moe_bucket_rows(g->bucket);
  if (k->mr * 12 < rows) return;
  for (uint32_t panels = 2; panels <= 8; panels *= 2)
    for (size_t p = 0; p < (g->quick ? 2 : sizeof prefetches / sizeof *prefetches); p++) {
      fp4moe_recipe r = {.gemv = k, .panels = panels, .prefetch = prefetches[p]};
      add(g, &r);
    }
}

static void add_gemm(grid *g, const fp4moe_kernel *unpack, const fp4moe_kernel *gemm) {
  uint32_t step = fp4moe_panel_step(g->phase, g->desc->activation.gated);
  size_t n, k;
  fp4moe_phase_shape(g->desc, g->phase, &n, &k);
  for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
    for (size_t b = 0; b < (g->quick ? 1 : sizeof k_blocks / sizeof *k_blocks); b++) {
      uint32_t tile = gemm->nr / FP4MOE_PANEL;
      int fits = widths[w] % step == 0 && (widths[w] % tile == 0 || (!g->quick && widths[w] > 1));
      if (!fits || k_blocks[b] >= k) continue;
      fp4moe_recipe r = {.unpack = unpack,
                         .gemm = gemm,
                         .panels = widths[w],
                         .k_block = k_blocks[b],
                         .prefetch = 1};
      add(g, &r);
    }
}

static void add_all(grid *g) {
  size_t rows = fp4moe_bucket_rows(g->bucket);
  for (size_t i = 0; i < fp4moe_kernel_count; i++) {
    const fp4moe_kernel *k = &fp4moe_kernels[i];
    if (serves(g, k, FP4MOE_OP_GEMV)) add_gemv(g, k);
    if (!serves(g, k, FP4MOE_OP_UNPACK) || rows < 4) continue;
    for (size_t j = 0; j < fp4moe_kernel_count; j++)
      if (serves(g, &fp4moe_kernels[j], FP4MOE_OP_GEMM) &&
          fp4moe_recipe_joins(k, &fp4moe_kernels[j]))
        add_gemm(g, k, &fp4moe_kernels[j]);
  }
}

size_t grid_recipes(const fp4moe_selector *s, const fp4moe_layer_desc *desc, int phase, int bucket,
                    int quick, fp4moe_recipe out[GRID_MAX]) {
  grid g = {s, desc, phase, bucket, quick, !grid_has_choice(s, desc), out, 0};
  fp4moe_recipe first;
  if (!fp4moe_static_recipe(s, desc, phase, bucket, &first)) add(&g, &first);
  add_all(&g);
  return g.count;
}

int grid_has_choice(const fp4moe_selector *s, const fp4moe_layer_desc *desc) {
  for (size_t i = 0; i < fp4moe_kernel_count; i++) {
    const fp4moe_kernel *k = &fp4moe_kernels[i];
    int matmul = k->op == FP4MOE_OP_GEMV || k->op == FP4MOE_OP_GEMM;
    if (matmul && k->isa != FP4MOE_ISA_c && !fp4moe_judge(s, desc, k)) return 1;
  }
  return 0;
}
