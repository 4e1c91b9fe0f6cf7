/* grid.c - the tuner's candidates (grid.h).
 *
 * Kernels race before variants: which kernel runs makes most of the difference, how it is run a few
 * per cent, and the product of both is so many candidates that none gets the rounds it needs.
 * Values to try stand in lists here; which of them is good is for the clock to say. C kernels are
 * left out where a row with an ISA serves: they are the specification, hundreds of times slower. */
#include "grid.h"

static const uint32_t prefetches[] = {4096, 16384, 8192, 32768, 2048, 1024};
static const uint32_t k_blocks[] = {0, 512, 1024};
static const uint32_t gemv_panels[] = {8, 4, 2};
static const uint32_t gemm_panels[] = {4, 2, 6, 3, 1};
enum { QUICK_PREFETCHES = 2, QUICK_GEMV_PANELS = 2 };
#define COUNT(list) (sizeof(list) / sizeof *(list))

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
    if (!fp4moe_recipe_order(&g->out[i], r, g->bucket)) return;
  if (g->count < GRID_MAX) g->out[g->count++] = *r;
}

/* ---- Kernels ---- */

static void add_usual(grid *g, fp4moe_recipe r) {
  fp4moe_usual_recipe(g->desc, g->phase, &r);
  add(g, &r);
}

static const fp4moe_kernel *first_unpack(const grid *g, const fp4moe_kernel *gemm) {
  for (size_t i = 0; i < fp4moe_kernel_count; i++) {
    const fp4moe_kernel *k = &fp4moe_kernels[i];
    if (serves(g, k, FP4MOE_OP_UNPACK) && fp4moe_recipe_joins(k, gemm)) return k;
  }
  return NULL;
}

/* A gemv row reads a unit's weights rows/mr times, all but the first from cache. */
static void add_kernels(grid *g) {
  size_t rows = fp4moe_bucket_rows(g->bucket);
  for (size_t i = 0; i < fp4moe_kernel_count; i++) {
    const fp4moe_kernel *k = &fp4moe_kernels[i];
    if (serves(g, k, FP4MOE_OP_GEMV) && k->mr * 12 >= rows)
      add_usual(g, (fp4moe_recipe){.gemv = k});
    if (serves(g, k, FP4MOE_OP_GEMM) && rows >= 4 && first_unpack(g, k))
      add_usual(g, (fp4moe_recipe){.unpack = first_unpack(g, k), .gemm = k});
  }
}

size_t grid_kernels(const fp4moe_selector *s, const fp4moe_layer_desc *desc, int phase, int bucket,
                    fp4moe_recipe out[GRID_MAX]) {
  grid g = {s, desc, phase, bucket, 0, !grid_has_choice(s, desc), out, 0};
  fp4moe_recipe first;
  if (!fp4moe_static_recipe(s, desc, phase, bucket, &first)) add(&g, &first);
  add_kernels(&g);
  return g.count;
}

/* ---- Variants ---- */

static void add_gemv_variants(grid *g, const fp4moe_recipe *of) {
  size_t widths = g->quick ? QUICK_GEMV_PANELS : COUNT(gemv_panels);
  size_t distances = g->quick ? QUICK_PREFETCHES : COUNT(prefetches);
  for (size_t w = 0; w < widths; w++)
    for (size_t p = 0; p < distances; p++) {
      fp4moe_recipe r = *of;
      r.panels = gemv_panels[w], r.prefetch = prefetches[p];
      add(g, &r);
    }
}

/* 1: a unit of so many panels is whole tiles, or nearly, and has gate and up together. */
static int width_fits(const grid *g, const fp4moe_kernel *gemm, uint32_t panels) {
  uint32_t step = fp4moe_panel_step(g->phase, g->desc->activation.gated);
  return panels % step == 0 &&
         (panels % (gemm->nr / FP4MOE_PANEL) == 0 || (!g->quick && panels > 1));
}

/* By panels and K blocks; quick: by panels, of the recipe's own unpack row. */
static void add_widths(grid *g, const fp4moe_recipe *of) {
  size_t blocks = g->quick ? 1 : COUNT(k_blocks), n, k;
  fp4moe_phase_shape(g->desc, g->phase, &n, &k);
  for (size_t w = 0; w < COUNT(gemm_panels); w++)
    for (size_t b = 0; b < blocks; b++) {
      fp4moe_recipe r = *of;
      r.panels = gemm_panels[w], r.k_block = k_blocks[b];
      if (width_fits(g, r.gemm, r.panels) && r.k_block < k) add(g, &r);
    }
}

static void add_gemm_variants(grid *g, const fp4moe_recipe *of) {
  add_widths(g, of);
  for (size_t i = 0; i < fp4moe_kernel_count; i++) {
    fp4moe_recipe r = *of;
    r.unpack = &fp4moe_kernels[i];
    if (!serves(g, r.unpack, FP4MOE_OP_UNPACK) || !fp4moe_recipe_joins(r.unpack, r.gemm)) continue;
    add(g, &r);
    if (!g->quick) add_widths(g, &r);
  }
}

size_t grid_variants(const fp4moe_selector *s, const fp4moe_layer_desc *desc, int phase, int bucket,
                     const fp4moe_recipe *of, int quick, fp4moe_recipe out[GRID_MAX]) {
  grid g = {s, desc, phase, bucket, quick, !grid_has_choice(s, desc), out, 0};
  add(&g, of);
  if (of->gemv)
    add_gemv_variants(&g, of);
  else
    add_gemm_variants(&g, of);
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
