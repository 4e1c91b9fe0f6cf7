/* check_order.c - the bounds of float matmul rows, derived from the order in which each row sums.
 *
 * The order is read off its results. Weights are 1 and activations are, but for a mask M in column
 * i and -M in column j, so large that ones added to it are lost: what is left is the number of
 * columns that join the sum above the node where i and j meet. So the leaves of every subtree that
 * holds column i are counted; the number of different counts is the number of additions that i
 * goes through. What rounds besides: the product of class f32, and the first product with a scale
 * of NVFP4 that is no power of two. A sum is off by no more than the most roundings of a column,
 * times 2^-24, times sum|a*w|, for any values; so that number must not exceed err * K/32 + 4, in
 * one call and where calls of 32 or 64 columns resume each other.
 *
 * BFMMLA and BFDOT round to odd, where nothing is lost in a mask: check_matmul.c alone sees to the
 * bounds of these rows. */
#include <string.h>

#include "check.h"
#include "fp4.h"

enum { MOST_ROWS = 16, MOST_K = 1024, COLUMNS = FP4MOE_PANEL };

static const float mask = 0x1p40f;

typedef struct order_case {
  const fp4moe_kernel *row;
  fp4moe_format format;
  size_t group, k, piece, m; /* m rows are probes */
  uint8_t *weights, *scales; /* of one panel, each weight 1 */
  void *rows;                /* [MOST_ROWS] */
} order_case;

static fp4moe_act_class act_of(const order_case *c) { return (fp4moe_act_class)c->row->act; }

static order_case make_case(const fp4moe_kernel *row, fp4moe_format format, size_t k) {
  order_case c = {.row = row, .format = format, .group = format == FP4MOE_MXFP4 ? 32 : 16, .k = k};
  uint8_t *nibbles = check_buffer(fp4_panel_bytes(k), CHECK_AFTER);
  c.m = row->mr < MOST_ROWS ? row->mr : MOST_ROWS;
  c.scales = check_buffer(fp4_panel_scale_bytes(k, c.group), CHECK_AFTER);
  c.rows = check_buffer(MOST_ROWS * fp4_row_bytes(act_of(&c), k), CHECK_AFTER);
  memset(nibbles, 0x22, fp4_panel_bytes(k));
  memset(c.scales, format == FP4MOE_MXFP4 ? 127 : 0x38, fp4_panel_scale_bytes(k, c.group));
  c.weights = nibbles;
  if (row->op != FP4MOE_OP_GEMM) return c;
  c.weights = check_buffer(fp4_unpacked_bytes(act_of(&c), k, c.group), CHECK_AFTER);
  check_c_unpack((int)format, row->form)->fn.unpack(nibbles, c.scales, k, c.weights);
  return c;
}

/* Sums of the m rows, in calls of `piece` columns. */
static void sum_rows(const order_case *c, float *sums) {
  const void *rows[MOST_ROWS];
  for (size_t r = 0; r < c->m; r++)
    rows[r] = (const char *)c->rows + r * fp4_row_bytes(act_of(c), c->k);
  fp4moe_matmul t = {.m = c->m, .panels = 1, .row_k = c->k, .rows = rows};
  t.acc = sums;
  t.acc_stride = COLUMNS;
  for (; t.k0 < c->k; t.k0 += t.k, t.resume = 1) {
    t.k = c->k - t.k0 < c->piece ? c->k - t.k0 : c->piece;
    if (c->row->op == FP4MOE_OP_GEMV) {
      t.weights = c->weights + fp4_panel_bytes(t.k0);
      t.scales = c->scales + fp4_panel_scale_bytes(t.k0, c->group);
    } else {
      t.weights = c->weights + fp4_unpacked_bytes(act_of(c), t.k0, c->group);
    }
    c->row->fn.matmul(&t);
  }
}

/* Row r becomes the probe of columns i and j. */
static void make_probe(const order_case *c, size_t r, size_t i, size_t j) {
  float x[MOST_K];
  void *row = (char *)c->rows + r * fp4_row_bytes(act_of(c), c->k);
  for (size_t k = 0; k < c->k; k++) x[k] = k == i ? mask : k == j ? -mask : 1;
  check_c_quant(c->row->act)->fn.quant(x, FP4MOE_F32, c->k, row, 0, c->k, 1);
}

/* The most additions that column i goes through, over the panel's 16 sums. */
static size_t additions(const order_case *c, size_t i) {
  static uint8_t seen[COLUMNS][MOST_K + 1];
  _Alignas(64) float sums[MOST_ROWS * COLUMNS];
  size_t most = 0;
  memset(seen, 0, sizeof seen);
  for (size_t j = 0; j < c->k; j += c->m) {
    for (size_t r = 0; r < c->m; r++) make_probe(c, r, i, (j + r) % c->k);
    sum_rows(c, sums);
    for (size_t r = 0; r < c->m; r++)
      for (size_t n = 0; n < COLUMNS && (j + r) % c->k != i; n++) {
        const float above = sums[r * COLUMNS + n];
        if (!CHECK(above >= 0 && above <= (float)(c->k - 2) && above == (float)(size_t)above,
                   "k %zu in %zu, columns %zu and %zu: %g", c->k, c->piece, i, (j + r) % c->k,
                   (double)above))
          return 0;
        seen[n][c->k - (size_t)above] = 1;
      }
  }
  for (size_t n = 0; n < COLUMNS; n++) {
    size_t count = 0;
    for (size_t size = 0; size <= c->k; size++) count += seen[n][size];
    most = count > most ? count : most;
  }
  return most;
}

/* Roundings of a column's part that are no additions. */
static size_t own_roundings(const order_case *c) {
  const int product = c->row->act == FP4MOE_ACT_F32;
  const int scale = c->row->op == FP4MOE_OP_GEMV && c->format == FP4MOE_NVFP4;
  return (size_t)(product + scale);
}

static void check_columns(const order_case *c, size_t step) {
  size_t most = 0;
  for (size_t i = 0; i < c->k; i += step) {
    const size_t n = additions(c, i);
    most = n > most ? n : most;
  }
  const size_t roundings = most + own_roundings(c);
  CHECK(32 * roundings <= c->row->err * c->k + 4 * 32,
        "k %zu in calls of %zu: %zu roundings, err %u allows %g", c->k, c->piece, roundings,
        c->row->err, (double)c->row->err * (double)c->k / 32 + 4);
}

static void test_order(const fp4moe_kernel *row) {
  static const size_t ks[] = {16, 32, 48, 96, MOST_K}, pieces[] = {MOST_K, 32, 64};
  const fp4moe_format format = row->format == FP4MOE_MXFP4 ? FP4MOE_MXFP4 : FP4MOE_NVFP4;
  for (size_t i = 0; i < sizeof ks / sizeof *ks; i++) {
    if (format == FP4MOE_MXFP4 && ks[i] % 32) continue;
    order_case c = make_case(row, format, ks[i]);
    for (size_t p = 0; p < 3 && (p == 0 || pieces[p] < ks[i]); p++) {
      c.piece = pieces[p];
      check_columns(&c, ks[i] == MOST_K ? 331 : 1);
    }
    CHECK_RELEASE();
  }
}

void check_order(void) {
  CU_pSuite suite = check_suite("order");
  for (size_t i = 0; i < fp4moe_kernel_count; i++) {
    const fp4moe_kernel *row = &fp4moe_kernels[i];
    if (row->err && row->isa != FP4MOE_ISA_bf16neon)
      check_one_row(suite, "summation order", row, test_order);
  }
}
