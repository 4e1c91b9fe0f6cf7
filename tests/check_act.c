/* check_act.c - the activation rows: within a few ulp of the true function, and the same bits on
 * every ISA for any input at all. */
#include "check.h"

#include <math.h>
#include <string.h>

#include "act.h"

/* Units in the last place of FP32 at x: those of the subnormals below the least normal. */
static double ulp(double x) {
  int exponent = x == 0 ? -126 : ilogb(x);
  return ldexp(1, (exponent < -126 ? -126 : exponent) - 23);
}

static double exp_error(float x) {
  double want = exp((double)x), got = (double)fp4_expf(x);
  if (want >= 0x1.ffffffp127) return got == INFINITY ? 0 : INFINITY;
  return fabs(got - want) / ulp(want);
}

static void test_exp(void) {
  double worst = 0;
  for (uint32_t i = 0; i < 1u << 22; i++) { /* equal steps over all finite results and beyond */
    float x = -110.0f + (float)i * (205.0f / (1 << 22));
    worst = fmax(worst, exp_error(x));
  }
  for (uint32_t bits = 0; bits < 0x43000000; bits += 997) { /* every magnitude, both signs */
    worst = fmax(worst, exp_error(fp4_f32_from_bits(bits)));
    worst = fmax(worst, exp_error(-fp4_f32_from_bits(bits)));
  }
  CHECK(worst <= 2, "exp is %g ulp off", worst);
  CHECK(fp4_expf(INFINITY) == INFINITY && fp4_expf(-INFINITY) == 0, "exp at the infinities");
  CHECK(fp4_expf(0x1.62e430p6f) == INFINITY && fp4_expf(0x1.62e42ep6f) < INFINITY, "exp overflow");
  CHECK(fp4_expf(0) == 1 && fp4_expf(-0.0f) == 1 && fp4_expf(-3e38f) == 0, "exp at 0 and below");
  CHECK(fp4_expf(-103.9f) == 0x1p-149f, "exp's least result");
  CHECK(isnan(fp4_expf(NAN)), "exp of NaN");
}

/* ---- Calls ---- */

static size_t acc_panels(const fp4moe_kernel *row, size_t panels) {
  return row->gated ? 2 * panels : panels;
}

typedef struct act_case {
  fp4moe_act_args args;
  float *acc, *bias;
} act_case;

static act_case make_case(const fp4moe_kernel *row, size_t m, size_t panels, int biased, int side) {
  const size_t from = acc_panels(row, panels);
  act_case c = {.args = {.m = m, .panels = panels, .alpha = 1.702f, .beta = 1, .limit = 7}};
  c.args.gate_scale = c.args.up_scale = 1;
  c.args.acc_stride = 16 * (from + check_below(3));
  c.args.h_stride = 16 * (panels + check_below(3));
  c.acc = check_buffer(((m - 1) * c.args.acc_stride + 16 * from) * sizeof(float), side);
  c.args.acc = c.acc;
  if (biased) c.args.bias = c.bias = check_buffer(16 * from * sizeof(float), side);
  return c;
}

static float *run(const fp4moe_kernel *row, const act_case *c, int side) {
  fp4moe_act_args args = c->args;
  args.h = check_buffer(((args.m - 1) * args.h_stride + 16 * args.panels) * sizeof(float), side);
  check_readonly(c->acc);
  if (c->bias) check_readonly(c->bias);
  row->fn.act(&args);
  return args.h;
}

/* ---- Against the true function ---- */

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

/* In double but for the arguments that FP32 rounds before the function sees them. */
static double truth(const fp4moe_kernel *row, const fp4moe_act_args *a, float g, float u) {
  const double limit = (double)a->limit, x = fmin((double)g, limit);
  const double y = fmax(fmin((double)u, limit), -limit);
  switch (row->kind) {
  case FP4MOE_SILU:
    return row->gated ? x * sigmoid(x) * y
                      : fmin((double)u, limit) * sigmoid(fmin((double)u, limit));
  case FP4MOE_SWIGLU_OAI:
    return (double)((float)y + a->beta) * x * sigmoid((double)(a->alpha * (float)x));
  default:
    return fmax((double)u, 0) * fmax((double)u, 0);
  }
}

static float ups(size_t i) {
  static const float values[] = {1, -0.75f, 7, -7, 6.99f, -123, 0.001f, 1000, 0, -1};
  return values[i % (sizeof values / sizeof *values)];
}

/* Sweeps gate (or the only input) over [-low, low] in steps, both inputs from acc alone. */
static void check_sweep(const fp4moe_kernel *row, float low, float limit) {
  enum { PANELS = 64, CALLS = 40 };
  for (size_t i = 0; i < CALLS; i++) {
    act_case c = make_case(row, 1, PANELS, 0, CHECK_AFTER);
    c.args.limit = limit;
    for (size_t n = 0; n < 16 * PANELS; n++) {
      const size_t at = n / 16 * (row->gated ? 32 : 16) + n % 16;
      c.acc[at] = -low + 2 * low * (float)(i * 16 * PANELS + n) / (float)(CALLS * 16 * PANELS);
      if (row->gated) c.acc[at + 16] = ups(n);
    }
    const float *h = run(row, &c, CHECK_AFTER);
    for (size_t n = 0; n < 16 * PANELS; n++) {
      const size_t at = n / 16 * (row->gated ? 32 : 16) + n % 16;
      const float g = c.acc[at], u = row->gated ? c.acc[at + 16] : g;
      const double want = truth(row, &c.args, g, u);
      /* Below -87 the sigmoid's denominator overflows: it is 0 in place of a subnormal. */
      const double allowed = 6 * ulp(want) + 0x1p-126 * fabs((double)g) * (1 + fabs((double)u));
      if (!CHECK(fabs((double)h[n] - want) <= allowed, "gate %g, up %g: %.9g, true %.9g", (double)g,
                 (double)u, (double)h[n], want))
        break;
    }
    CHECK_RELEASE();
  }
}

static void test_true(const fp4moe_kernel *row) {
  check_sweep(row, 0.5f, 7);
  check_sweep(row, 20, 7);
  check_sweep(row, 120, INFINITY);
  check_sweep(row, 120, 10);
}

/* ---- Bits ---- */

static float draw(void) {
  static const float odd[] = {0,    -0.0f,     INFINITY, -INFINITY, NAN,       -NAN,  7,    -7,
                              7.5f, 0x1p-149f, 88.7f,    -88.8f,    0x1p-126f, 3e38f, -104, 1};
  if (check_below(4) == 0) return odd[check_below(16)];
  return check_below(2) ? check_float() : check_uniform(-100, 100);
}

static void fill(act_case *c, size_t columns) {
  for (size_t r = 0; r < c->args.m; r++)
    for (size_t n = 0; n < columns; n++) c->acc[r * c->args.acc_stride + n] = draw();
  for (size_t n = 0; n < columns && c->bias; n++) c->bias[n] = draw();
}

static void test_bits(const fp4moe_kernel *row) {
  static const float limits[] = {7, 10, INFINITY, 0.5f};
  for (int i = 0; i < 2000; i++) {
    const int side = i % CHECK_SIDES;
    const size_t m = 1 + check_below(4), panels = 1 + check_below(6);
    act_case c = make_case(row, m, panels, i / 2 % 2, side);
    fill(&c, 16 * acc_panels(row, panels));
    c.args.limit = limits[check_below(4)];
    c.args.gate_scale = check_below(2) ? 1 : check_uniform(-2, 2);
    c.args.up_scale = check_below(2) ? 1 : check_uniform(-2, 2);
    c.args.beta = check_uniform(-1, 1);
    const float *got = run(row, &c, side), *want = run(check_spec(row), &c, side);
    CHECK_SAME_FLOATS(got, want, (m - 1) * c.args.h_stride + 16 * panels, "_c row");
    for (size_t r = 0; r + 1 < m; r++)
      for (size_t n = 16 * panels; n < c.args.h_stride; n++)
        CHECK(fp4_f32_bits(got[r * c.args.h_stride + n]) == 0xffffffff, "column %zu written", n);
    CHECK_RELEASE();
  }
}

/* Scales and bias, gate and up, each from its own place: one fused multiply-add. */
static void test_inputs(const fp4moe_kernel *row) {
  act_case c = make_case(row, 2, 3, 1, CHECK_AFTER), plain = make_case(row, 2, 3, 0, CHECK_AFTER);
  c.args.gate_scale = 0.37f, c.args.up_scale = -1.1f;
  const size_t columns = 16 * acc_panels(row, 3);
  for (size_t n = 0; n < columns; n++) c.bias[n] = check_uniform(-1, 1);
  for (size_t r = 0; r < 2; r++)
    for (size_t n = 0; n < columns; n++) {
      const int gate = row->gated && n / 16 % 2 == 0;
      float *x = &c.acc[r * c.args.acc_stride + n];
      *x = check_uniform(-4, 4);
      plain.acc[r * plain.args.acc_stride + n] =
          fmaf(*x, gate ? c.args.gate_scale : c.args.up_scale, c.bias[n]);
    }
  const float *got = run(row, &c, CHECK_AFTER), *want = run(row, &plain, CHECK_AFTER);
  for (size_t r = 0; r < 2; r++)
    CHECK_SAME_FLOATS(got + r * c.args.h_stride, want + r * plain.args.h_stride, 48, "inputs");
  CHECK_RELEASE();
}

/* A NaN in either input is NaN, whatever the limits; its neighbours are not. */
static void test_nan(const fp4moe_kernel *row) {
  for (size_t bad = 0; bad < 16 * acc_panels(row, 1); bad++) {
    act_case c = make_case(row, 1, 1, 0, CHECK_AFTER);
    for (size_t n = 0; n < 16 * acc_panels(row, 1); n++) c.acc[n] = n == bad ? NAN : 2;
    const float *h = run(row, &c, CHECK_AFTER);
    for (size_t n = 0; n < 16; n++)
      CHECK(isnan(h[n]) == (n == bad % 16), "NaN at %zu: column %zu is %g", bad, n, (double)h[n]);
    CHECK_RELEASE();
  }
}

void check_act(void) {
  CU_pSuite suite = check_suite("act");
  check_test(suite, "exp", test_exp);
  check_rows(suite, "true function", FP4MOE_OP_ACT, test_true);
  check_rows(suite, "bits", FP4MOE_OP_ACT, test_bits);
  check_rows(suite, "inputs", FP4MOE_OP_ACT, test_inputs);
  check_rows(suite, "nan", FP4MOE_OP_ACT, test_nan);
}
