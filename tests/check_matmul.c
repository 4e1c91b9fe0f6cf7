/* check_matmul.c - every gemv and gemm row.
 *
 * A case is weights, scales and activation rows, each against a guard page and read-only, and their
 * values in double. Rows with an error are held to the bound of kernel.h against the sum in double
 * over their own inputs; rows without to the bits of the _c row, and the _c rows of class i8 to a
 * chain written here from the formula of kernel.h. All rows: any m, strides larger than needed, K
 * in two calls, m of one and a neighbour of NaN give an output row the same bits. */
#include "check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fp4.h"

/* What the inputs look like. */
enum { PLAIN, LARGEST, CANCELLING, STICKY, TINY, WIDE, SPARSE, KINDS };

typedef struct matmul_case {
  const fp4moe_kernel *row;
  fp4moe_format format;
  fp4moe_act_class act;
  int kind, side, same_row;
  size_t group, m, panels, k;
  uint8_t *nibbles, *scales, *unpacked; /* unpacked: gemm */
  size_t nibbles_stride, scales_stride, unpacked_stride, acc_stride;
  const void **rows;
  double *w, *a; /* [16 * panels][k], [m][k] */
} matmul_case;

/* ---- Making a case ---- */

static uint8_t draw_scale(const matmul_case *c, size_t column) {
  const int folded =
      c->row->op == FP4MOE_OP_GEMM && c->act != FP4MOE_ACT_I8; /* then 2 <= s <= 252 */
  if (c->kind == STICKY) return c->format == FP4MOE_MXFP4 ? 127 : 0x38;
  /* As checkpoints have them: 1/8 and up, which int8 tiles take in integers. SPARSE adds signs. */
  if (c->format == FP4MOE_NVFP4 &&
      (c->kind == PLAIN || c->kind == SPARSE || (c->kind == TINY && c->act == FP4MOE_ACT_I8)))
    return (uint8_t)(0x20 + check_below(0x5f) + (c->kind == SPARSE ? 0x80 * check_below(2) : 0));
  if (c->format == FP4MOE_NVFP4) {
    uint8_t s = c->kind == LARGEST ? 0x7e : (uint8_t)check_random();
    return (s & 0x7f) == 0x7f ? (uint8_t)(s ^ 1) : s;
  }
  switch (c->kind) {
  case LARGEST:
    return folded ? 252 : 254;
  case TINY:
    return (uint8_t)(2 + check_below(120));
  case WIDE: /* each column around an exponent of its own */
    return folded ? (uint8_t)(2 + (column * 41 + check_below(4)) % 251)
                  : (uint8_t)((column * 41 + check_below(4)) % 255);
  default:
    return (uint8_t)(120 + check_below(14));
  }
}

static uint8_t draw_codes(const matmul_case *c) {
  switch (c->kind) {
  case LARGEST:
    return 0x77;
  case CANCELLING: /* +6 and -6: k and k + 4 of a lane */
    return 0x7f;
  case STICKY:
    return 0x22;
  case SPARSE:
    return (uint8_t)(check_random() & check_random() & 0x8f);
  default:
    return (uint8_t)check_random();
  }
}

static float draw_activation(const matmul_case *c, size_t k) {
  switch (c->kind) {
  case LARGEST:
    return check_uniform(0x1.8p-30f, 0x1p-29f);
  case CANCELLING:
    return 3 + check_uniform(0, 0x1p-6f);
  case STICKY: /* every addition rounds up by nearly half a unit: the bound is reached */
    return k % (c->row->op == FP4MOE_OP_GEMV ? c->group : c->k) == 0 ? 1 : 0x1.02p-24f;
  case TINY:
    if (c->act == FP4MOE_ACT_I8) return check_uniform(-0x1p-115f, 0x1p-115f); /* d near 2^-122 */
    return check_uniform(-0x1p-122f, 0x1p-122f);
  case WIDE:
    return check_uniform(-0x1p-40f, 0x1p-40f);
  case SPARSE:
    return check_below(4) ? (check_below(2) ? 0.0f : -0.0f) : check_uniform(-8, 8);
  default:
    return check_uniform(-2, 2);
  }
}

static void make_weights(matmul_case *c) {
  const size_t panel_bytes = fp4_panel_bytes(c->k),
               scale_bytes = fp4_panel_scale_bytes(c->k, c->group);
  c->nibbles_stride = panel_bytes + 64 * check_below(3);
  c->scales_stride = scale_bytes + 16 * check_below(3);
  c->nibbles = check_buffer((c->panels - 1) * c->nibbles_stride + panel_bytes, c->side);
  c->scales = check_buffer((c->panels - 1) * c->scales_stride + scale_bytes, c->side);
  for (size_t p = 0; p < c->panels; p++) {
    for (size_t i = 0; i < panel_bytes; i++) c->nibbles[p * c->nibbles_stride + i] = draw_codes(c);
    for (size_t i = 0; i < scale_bytes; i++)
      c->scales[p * c->scales_stride + i] = draw_scale(c, 16 * p + i % 16);
  }
  check_readonly(c->nibbles);
  check_readonly(c->scales);
}

static void unpack_weights(matmul_case *c) {
  const size_t bytes = fp4_unpacked_bytes(c->act, c->k, c->group);
  const fp4moe_kernel *unpack = check_c_unpack((int)c->format, c->row->form);
  c->unpacked_stride = bytes + 64 * check_below(3);
  c->unpacked = check_buffer((c->panels - 1) * c->unpacked_stride + bytes, c->side);
  for (size_t p = 0; p < c->panels; p++)
    unpack->fn.unpack(c->nibbles + p * c->nibbles_stride, c->scales + p * c->scales_stride, c->k,
                      c->unpacked + p * c->unpacked_stride);
  check_readonly(c->unpacked);
}

/* Rows stand in memory in reverse, so that the first ends at the guard page. */
static void make_rows(matmul_case *c) {
  const fp4moe_kernel *quant = check_c_quant((int)c->act);
  const size_t bytes = fp4_row_bytes(c->act, c->k), distinct = c->same_row ? 1 : c->m;
  float *x = malloc(c->k * sizeof *x);
  uint8_t *data = check_buffer(distinct * bytes, c->side);
  c->rows = malloc(c->m * sizeof *c->rows);
  for (size_t r = 0; r < c->m; r++) {
    uint8_t *row = data + (distinct - 1 - (c->same_row ? 0 : r)) * bytes;
    for (size_t k = 0; k < c->k; k++) x[k] = draw_activation(c, k);
    quant->fn.quant(x, FP4MOE_F32, c->k, row, 0, c->k, 1);
    c->rows[r] = row;
  }
  check_readonly(data);
  free(x);
}

/* ---- The inputs as numbers ---- */

static double activation(const matmul_case *c, size_t r, size_t k) {
  static const size_t place[8] = {0, 4, 1, 5, 2, 6, 3, 7}; /* of column k % 8 in a BF16 row */
  const uint8_t *row = c->rows[r];
  float x;
  uint16_t h;
  switch (c->act) {
  case FP4MOE_ACT_F32:
    memcpy(&x, row + 4 * k, 4);
    return (double)x;
  case FP4MOE_ACT_BF16:
    memcpy(&h, row + 2 * (k / 8 * 8 + place[k % 8]), 2);
    return (double)fp4_from_bf16(h);
  default:
    memcpy(&x, row + fp4_i8_d(c->k) + 4 * (k / 32), 4);
    return (double)x * (int8_t)row[k];
  }
}

static float scale_of(const matmul_case *c, size_t column, size_t k) {
  uint8_t s = c->scales[column / 16 * c->scales_stride + k / c->group * 16 + column % 16];
  return c->format == FP4MOE_MXFP4 ? fp4_e8m0(s) : fp4_e4m3(s);
}

/* 2 * e2m1. */
static int code_x2(const matmul_case *c, size_t column, size_t k) {
  uint8_t byte = c->nibbles[column / 16 * c->nibbles_stride + k / 8 * 64 + column % 16 * 4 + k % 4];
  return fp4_e2m1_x2(k % 8 < 4 ? byte : byte >> 4);
}

static void make_values(matmul_case *c) {
  const double unit = c->act == FP4MOE_ACT_I8 ? 1 : 0.5; /* class i8 leaves the half to act */
  c->w = malloc(16 * c->panels * c->k * sizeof *c->w);
  c->a = malloc(c->m * c->k * sizeof *c->a);
  for (size_t n = 0; n < 16 * c->panels; n++)
    for (size_t k = 0; k < c->k; k++)
      c->w[n * c->k + k] = unit * code_x2(c, n, k) * (double)scale_of(c, n, k);
  for (size_t r = 0; r < c->m; r++)
    for (size_t k = 0; k < c->k; k++) c->a[r * c->k + k] = activation(c, r, k);
}

static matmul_case make_case(const fp4moe_kernel *row, fp4moe_format format, size_t m,
                             size_t panels, size_t k, int kind) {
  matmul_case c = {.row = row, .format = format, .act = (fp4moe_act_class)row->act, .kind = kind};
  c.side = (int)check_below(CHECK_SIDES);
  c.same_row = check_below(8) == 0;
  c.group = format == FP4MOE_MXFP4 ? 32 : 16;
  c.m = m, c.panels = panels, c.k = k;
  c.acc_stride = 16 * (panels + check_below(3));
  make_weights(&c);
  if (row->op == FP4MOE_OP_GEMM) unpack_weights(&c);
  make_rows(&c);
  make_values(&c);
  return c;
}

static void free_case(matmul_case *c) {
  free(c->rows);
  free(c->w);
  free(c->a);
  CHECK_RELEASE();
}

/* ---- Calling ---- */

static float *new_acc(const matmul_case *c) {
  return check_buffer(((c->m - 1) * c->acc_stride + 16 * c->panels) * sizeof(float), c->side);
}

/* Rows [r, r + m), columns [k0, k0 + k). */
static void call(const fp4moe_kernel *row, const matmul_case *c, size_t r, size_t m, size_t k0,
                 size_t k, int resume, float *acc) {
  fp4moe_matmul t = {.m = m, .panels = c->panels, .k0 = k0, .k = k, .row_k = c->k};
  t.rows = c->rows + r;
  t.acc = acc;
  t.acc_stride = c->acc_stride;
  t.resume = resume;
  if (row->op == FP4MOE_OP_GEMV) {
    t.weights = c->nibbles + fp4_panel_bytes(k0);
    t.weights_stride = c->nibbles_stride;
    t.scales = c->scales + fp4_panel_scale_bytes(k0, c->group);
    t.scales_stride = c->scales_stride;
    t.prefetch = 64 * check_below(64) * check_below(2);
  } else {
    t.weights = c->unpacked + fp4_unpacked_bytes(c->act, k0, c->group);
    t.weights_stride = c->unpacked_stride;
    t.next = check_below(2) ? c->nibbles : NULL;
    t.next_bytes = t.next ? fp4_panel_bytes(c->k) : 0;
  }
  row->fn.matmul(&t);
}

/* ---- What must come out ---- */

static void check_bound(const matmul_case *c, double err, size_t k0, size_t k1, const float *acc) {
  for (size_t r = 0; r < c->m; r++)
    for (size_t n = 0; n < 16 * c->panels; n++) {
      double exact = 0, sum = 0, scale = 1, got = (double)acc[r * c->acc_stride + n];
      for (size_t k = k0; k < k1; k++) {
        double x = c->a[r * c->k + k] * c->w[n * c->k + k];
        exact += x;
        sum += fabs(x);
        if (k % 16 == 0) scale = fmax(scale, fabs((double)scale_of(c, n, k)));
      }
      const double columns = (double)(k1 - k0);
      double bound = (err * columns / 32 + 4) * 0x1p-24 * sum + 2 * columns * 0x1p-126 * scale;
      if (!CHECK(fabs(got - exact) <= bound,
                 "kind %d, m %zu, panels %zu, k %zu..%zu, row %zu, column %zu: %.9g, exact %.9g, "
                 "bound %.3g, scale %g",
                 c->kind, c->m, c->panels, k0, k1, r, n, got, exact, bound, scale))
        return;
    }
}

/* The formula of class i8, one output. */
static float canonical(const matmul_case *c, size_t r, size_t n) {
  const int8_t *q = c->rows[r];
  float acc = 0;
  for (size_t k = 0; k < c->k; k += 32) {
    int32_t b[2] = {0, 0};
    float d;
    memcpy(&d, (const char *)q + fp4_i8_d(c->k) + 4 * (k / 32), 4);
    for (size_t i = k; i < c->k && i < k + 32; i++) b[i % 32 / 16] += code_x2(c, n, i) * q[i];
    if (c->format == FP4MOE_MXFP4) {
      acc = fmaf((float)(b[0] + b[1]), d * scale_of(c, n, k), acc);
      continue;
    }
    float t = (float)b[0] * scale_of(c, n, k);
    if (k + 16 < c->k) t = fmaf((float)b[1], scale_of(c, n, k + 16), t);
    acc = fmaf(t, d, acc);
  }
  return acc;
}

static void check_canonical(const matmul_case *c, const float *acc) {
  for (size_t r = 0; r < c->m; r++)
    for (size_t n = 0; n < 16 * c->panels; n++) {
      float want = canonical(c, r, n);
      if (!CHECK_SAME_FLOATS(acc + r * c->acc_stride + n, &want, 1, "canonical chain")) return;
    }
}

/* Sums of columns [k0, k1), by the promise that the row makes. */
static void check_sums(const matmul_case *c, size_t k0, size_t k1, const float *acc) {
  if (c->row->err) {
    check_bound(c, c->row->err, k0, k1, acc);
    return;
  }
  check_bound(c, 4, k0, k1, acc); /* the class's own: at most two roundings more a block */
  if (c->row->isa == FP4MOE_ISA_c) {
    if (k0 == 0 && k1 == c->k) check_canonical(c, acc);
    return;
  }
  float *want = new_acc(c);
  call(check_spec(c->row), c, 0, c->m, k0, k1 - k0, 0, want);
  for (size_t r = 0; r < c->m; r++)
    CHECK_SAME_FLOATS(acc + r * c->acc_stride, want + r * c->acc_stride, 16 * c->panels, "_c row");
}

static void check_gaps(const matmul_case *c, const float *acc) {
  for (size_t r = 0; r + 1 < c->m; r++)
    for (size_t n = 16 * c->panels; n < c->acc_stride; n++)
      CHECK(fp4_f32_bits(acc[r * c->acc_stride + n]) == 0xffffffff, "row %zu, column %zu written",
            r, n);
}

/* ---- The tests ---- */

static void check_whole(matmul_case *c) {
  float *acc = new_acc(c);
  call(c->row, c, 0, c->m, 0, c->k, 0, acc);
  check_sums(c, 0, c->k, acc);
  check_gaps(c, acc);
}

typedef void case_fn(matmul_case *c);

/* Runs `test` on the formats that the row serves, m, panels and K; kinds of inputs in turn. */
static void sweep(const fp4moe_kernel *row, size_t most_m, size_t step_m, size_t most_k, int kind,
                  case_fn *test) {
  for (int format = FP4MOE_MXFP4; format <= FP4MOE_NVFP4; format++) {
    if (row->format != FP4MOE_ANY && row->format != format) continue;
    const size_t group = format == FP4MOE_MXFP4 ? 32 : 16;
    for (size_t k = group; k <= most_k; k += group)
      for (size_t panels = 1; panels <= 5; panels++)
        for (size_t m = 1; m <= most_m; m += step_m) {
          matmul_case c = make_case(row, (fp4moe_format)format, m, panels, k, kind++ % KINDS);
          test(&c);
          free_case(&c);
        }
  }
}

static size_t most_rows(const fp4moe_kernel *row) {
  return row->op == FP4MOE_OP_GEMV ? row->mr : 2 * row->mr + 1;
}

static void test_shapes(const fp4moe_kernel *row) {
  const int kinds = row->op == FP4MOE_OP_GEMV ? KINDS : 1; /* gemm has m enough */
  for (int kind = 0; kind < kinds; kind++) sweep(row, most_rows(row), 1, 96, kind, check_whole);
}

static void test_long_k(const fp4moe_kernel *row) {
  static const size_t ks[] = {2048, 2880, 2896};
  for (int format = FP4MOE_MXFP4; format <= FP4MOE_NVFP4; format++)
    for (size_t i = 0; i < sizeof ks / sizeof *ks; i++)
      for (int kind = 0; kind < KINDS; kind++) {
        if (row->format != FP4MOE_ANY && row->format != format) continue;
        if (format == FP4MOE_MXFP4 && ks[i] % 32) continue;
        matmul_case c =
            make_case(row, (fp4moe_format)format, 1 + check_below(row->mr), 2, ks[i], kind);
        check_whole(&c);
        free_case(&c);
      }
}

/* K cut anywhere, the second part alone, and resumed. */
static void check_split(matmul_case *c) {
  const size_t cut = 32 * check_below((c->k + 31) / 32);
  if (cut == 0) return;
  float *acc = new_acc(c), *tail = new_acc(c), *whole = new_acc(c);
  call(c->row, c, 0, c->m, cut, c->k - cut, 0, tail);
  check_sums(c, cut, c->k, tail);
  call(c->row, c, 0, c->m, 0, cut, 0, acc);
  check_sums(c, 0, cut, acc);
  call(c->row, c, 0, c->m, cut, c->k - cut, 1, acc);
  check_sums(c, 0, c->k, acc);
  check_gaps(c, acc);
  if (c->row->err) return;
  call(c->row, c, 0, c->m, 0, c->k, 0, whole);
  CHECK_SAME_FLOATS(acc, whole, (c->m - 1) * c->acc_stride + 16 * c->panels, "resumed");
}

static void test_split(const fp4moe_kernel *row) {
  sweep(row, most_rows(row), row->op == FP4MOE_OP_GEMV ? 1 : 3, 192, 0, check_split);
}

/* A row's bits: the same alone, and beside a row of NaN. */
static void check_alone(matmul_case *c) {
  float *acc = new_acc(c), *alone = new_acc(c);
  call(c->row, c, 0, c->m, 0, c->k, 0, acc);
  for (size_t r = 0; r < c->m; r++) {
    call(c->row, c, r, 1, 0, c->k, 0, alone);
    CHECK_SAME_FLOATS(acc + r * c->acc_stride, alone, 16 * c->panels, "row alone");
  }
  uint8_t *nan = check_buffer(fp4_row_bytes(c->act, c->k), c->side); /* 0xff: NaN in each class */
  const size_t bad = check_below(c->m);
  c->rows[bad] = nan;
  float *beside = new_acc(c);
  call(c->row, c, 0, c->m, 0, c->k, 0, beside);
  for (size_t r = 0; r < c->m; r++) {
    const float *got = beside + r * c->acc_stride;
    if (r != bad) CHECK_SAME_FLOATS(got, acc + r * c->acc_stride, 16 * c->panels, "beside NaN");
    if (r == bad) CHECK(got[0] != got[0], "row %zu of NaN gave %g", r, (double)got[0]);
  }
}

static void test_alone(const fp4moe_kernel *row) {
  sweep(row, most_rows(row), row->op == FP4MOE_OP_GEMV ? 1 : 3, 96, 0, check_alone);
}

static const struct {
  const char *name;
  check_row_fn *test;
} tests[] = {{"shapes", test_shapes},
             {"long k", test_long_k},
             {"k in parts", test_split},
             {"rows alone", test_alone}};

void check_matmul(void) {
  CU_pSuite suite = check_suite("matmul");
  for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
    check_rows(suite, tests[i].name, FP4MOE_OP_GEMV, tests[i].test);
    check_rows(suite, tests[i].name, FP4MOE_OP_GEMM, tests[i].test);
#if defined(__x86_64__)
    for (size_t r = 0; r < CHECK_EVEX_ROWS; r++)
      check_one_row(suite, tests[i].name, &check_evex_rows[r], tests[i].test);
#endif
  }
}
