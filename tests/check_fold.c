/* check_fold.c - the gemv rows that fold the block scale into the weight (gemv_fold_avx512bf16.c):
 * no row of them has bits of its own.
 *
 * A panel all of whose scales fold has those of every gemm row of its ISA over that panel unpacked;
 * one with another scale anywhere in the call has those of the gemv row that scales in FP32, and
 * leaves its neighbours alone. So a table that moves rows between these kernels moves no bit. */
#include <string.h>

#include "check.h"
#include "fp4.h"

#if defined(__x86_64__)

enum { MOST_PANELS = 6, MOST_K = 320, MOST_ROWS = 12, ROUNDS = 60 };

typedef struct fold_case {
  fp4moe_format format;
  size_t group, m, panels, k, k0, n; /* columns [k0, k0 + n) of k */
  int resume, strange[MOST_PANELS];
  uint8_t *nibbles, *scales, *unpacked;
  const void *rows[MOST_ROWS];
  float *before; /* of resume: [m][16 * panels] */
} fold_case;

/* Does not fold: the ends of E8M0, a sign or NaN of E4M3. */
static uint8_t strange_scale(fp4moe_format format) {
  static const uint8_t ends[] = {0, 1, 254};
  return format == FP4MOE_MXFP4 ? ends[check_below(3)] : (uint8_t)(0x80 | check_below(0x80));
}

static void draw_weights(fold_case *c) {
  const size_t nibbles = fp4_panel_bytes(c->k), scales = fp4_panel_scale_bytes(c->k, c->group);
  const size_t unpacked = fp4_unpacked_bytes(FP4MOE_ACT_BF16, c->k, c->group);
  c->nibbles = check_buffer(c->panels * nibbles, CHECK_AFTER);
  c->scales = check_buffer(c->panels * scales, CHECK_AFTER);
  c->unpacked = check_buffer(c->panels * unpacked, CHECK_AFTER);
  for (size_t i = 0; i < c->panels * nibbles; i++) c->nibbles[i] = (uint8_t)check_random();
  for (size_t i = 0; i < c->panels * scales; i++)
    c->scales[i] = (uint8_t)(c->format == FP4MOE_MXFP4 ? 110 + check_below(34) : check_below(0x7f));
  for (size_t p = 0; p < c->panels; p++) {
    uint8_t *s = c->scales + p * scales;
    const size_t at = fp4_panel_scale_bytes(c->k0, c->group);
    c->strange[p] = check_below(3) == 0;
    if (c->strange[p])
      s[at + check_below(fp4_panel_scale_bytes(c->n, c->group))] = strange_scale(c->format);
    check_c_unpack((int)c->format, FP4MOE_FORM_bf16)
        ->fn.unpack(c->nibbles + p * nibbles, s, c->k, c->unpacked + p * unpacked);
  }
}

static void draw_rows(fold_case *c) {
  const size_t bytes = fp4_row_bytes(FP4MOE_ACT_BF16, c->k);
  uint8_t *rows = check_buffer(MOST_ROWS * bytes, CHECK_AFTER);
  float x[MOST_K];
  for (size_t r = 0; r < c->m; r++) {
    for (size_t k = 0; k < c->k; k++) x[k] = check_uniform(-2, 2);
    check_c_quant(FP4MOE_ACT_BF16)->fn.quant(x, FP4MOE_F32, c->k, rows + r * bytes, 0, c->k, 1);
    c->rows[r] = rows + r * bytes;
  }
  c->before = check_buffer(c->m * 16 * c->panels * sizeof *c->before, CHECK_AFTER);
  for (size_t i = 0; i < c->m * 16 * c->panels; i++) c->before[i] = check_uniform(-9, 9);
}

static fold_case draw(const fp4moe_kernel *row) {
  fold_case c = {.format = (fp4moe_format)row->format};
  c.group = c.format == FP4MOE_MXFP4 ? 32 : 16;
  c.m = 1 + check_below(row->mr);
  c.panels = 1 + check_below(MOST_PANELS);
  c.k = c.group * (1 + check_below(MOST_K / c.group));
  c.k0 = 32 * check_below((c.k + 31) / 32);
  c.n = c.k - c.k0;
  if (c.n > 32 && check_below(2)) c.n = 32 * (1 + check_below(c.n / 32));
  c.resume = (int)check_below(2);
  draw_weights(&c);
  draw_rows(&c);
  return c;
}

/* The call by a row of kernels.inc, of as many rows at a time as it takes. */
static const float *run(const fp4moe_kernel *row, const fold_case *c) {
  const int gemv = row->op == FP4MOE_OP_GEMV;
  const size_t columns = 16 * c->panels, most = gemv ? row->mr : c->m;
  float *acc = check_buffer(c->m * columns * sizeof *acc, CHECK_AFTER);
  memcpy(acc, c->before, c->m * columns * sizeof *acc);
  fp4moe_matmul t = {.panels = c->panels, .k0 = c->k0, .k = c->n, .row_k = c->k};
  t.weights = gemv ? c->nibbles + fp4_panel_bytes(c->k0)
                   : c->unpacked + fp4_unpacked_bytes(FP4MOE_ACT_BF16, c->k0, c->group);
  t.weights_stride =
      gemv ? fp4_panel_bytes(c->k) : fp4_unpacked_bytes(FP4MOE_ACT_BF16, c->k, c->group);
  t.scales = gemv ? c->scales + fp4_panel_scale_bytes(c->k0, c->group) : NULL;
  t.scales_stride = fp4_panel_scale_bytes(c->k, c->group);
  t.acc_stride = columns;
  t.resume = c->resume;
  for (size_t r = 0; r < c->m; r += most) {
    t.m = c->m - r < most ? c->m - r : most;
    t.rows = c->rows + r;
    t.acc = acc + r * columns;
    row->fn.matmul(&t);
  }
  return acc;
}

/* The panels that are strange, or are not, are those of another row. */
static void same_panels(const fold_case *c, const float *got, const fp4moe_kernel *other,
                        int strange) {
  const float *want = run(other, c);
  for (size_t r = 0; r < c->m; r++)
    for (size_t p = 0; p < c->panels; p++)
      if (c->strange[p] == strange)
        CHECK_SAME_FLOATS(got + 16 * (r * c->panels + p), want + 16 * (r * c->panels + p), 16,
                          other->name);
}

static void test_fold(const fp4moe_kernel *row) {
  for (int round = 0; round < ROUNDS; round++) {
    const fold_case c = draw(row);
    const float *got = run(row, &c);
    size_t gemms = 0, gemvs = 0;
    for (const fp4moe_kernel *o = fp4moe_kernels; o < fp4moe_kernels + fp4moe_kernel_count; o++) {
      if (o->isa != row->isa || o->act != row->act || !strcmp(o->name, row->name)) continue;
      if (o->op == FP4MOE_OP_GEMM) same_panels(&c, got, o, 0), gemms++;
      if (o->op == FP4MOE_OP_GEMV && o->format == row->format) same_panels(&c, got, o, 1), gemvs++;
    }
    CHECK(gemms && gemvs == 1, "%zu gemm rows and %zu gemv rows to compare with", gemms, gemvs);
    CHECK_RELEASE();
  }
}

void check_fold(void) {
  CU_pSuite suite = check_suite("fold");
  for (size_t i = 0; i < fp4moe_kernel_count; i++)
    if (fp4moe_kernels[i].op == FP4MOE_OP_GEMV && fp4moe_kernels[i].isa == FP4MOE_ISA_avx512bf16 &&
        fp4moe_kernels[i].mr == MOST_ROWS)
      check_one_row(suite, "bits", &fp4moe_kernels[i], test_fold);
}

#else

void check_fold(void) { check_suite("fold"); }

#endif
