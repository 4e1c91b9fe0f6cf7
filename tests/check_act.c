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

/* The worst error of f against the true function, in ulp: every magnitude, both signs. */
static double worst_error(float (*f)(float), double (*truth)(double), uint32_t step) {
  double worst = 0;
  for (uint32_t bits = 0; bits < 0x7f800000; bits += step) {
    float x = fp4_f32_from_bits(bits);
    worst = fmax(worst, fabs((double)f(x) - truth((double)x)) / ulp(truth((double)x)));
    worst = fmax(worst, fabs((double)f(-x) - truth(-(double)x)) / ulp(truth(-(double)x)));
  }
  return worst;
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

static void test_tanh(void) {
  double worst = worst_error(fp4_tanhf, tanh, 499);
  CHECK(worst <= 2, "tanh is %g ulp off", worst);
  CHECK(fp4_tanhf(INFINITY) == 1 && fp4_tanhf(-INFINITY) == -1, "tanh at the infinities");
  CHECK(fp4_tanhf(0) == 0 && signbit(fp4_tanhf(-0.0f)), "tanh at 0");
  CHECK(fp4_tanhf(0x1p-149f) == 0x1p-149f, "tanh of the least number");
  CHECK(isnan(fp4_tanhf(NAN)), "tanh of NaN");
}

static double true_gelu(double x) { return x * 0.5 * erfc(-x / sqrt(2)); }

static void test_gelu(void) {
  double worst = worst_error(fp4_geluf, true_gelu, 499);
  CHECK(worst <= 2, "gelu is %g ulp off", worst);
  CHECK(fp4_geluf(INFINITY) == INFINITY && fp4_geluf(-INFINITY) == 0, "gelu at the infinities");
  CHECK(fp4_geluf(0) == 0 && signbit(fp4_geluf(-0.0f)), "gelu at 0");
  CHECK(fp4_geluf(3e38f) == 3e38f && fp4_geluf(-3e38f) == 0, "gelu of large numbers");
  CHECK(isnan(fp4_geluf(NAN)), "gelu of NaN");
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
  if (row->kind == FP4MOE_SITU) c.args.beta = 4, c.args.linear_beta = 25;
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

/* The argument of gelu_tanh's sigmoid, which FP32 rounds three times. */
static double gelu_tanh_z(double x) { return 2 * sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x); }

static double true_gelu_tanh(double x) { return x * sigmoid(gelu_tanh_z(x)); }

/* x of an ungated function is u. In double but for the arguments that FP32 rounds before the
 * function sees them. */
static double truth(const fp4moe_kernel *row, const fp4moe_act_args *a, float g, float u) {
  const double limit = (double)a->limit, beta = (double)a->beta, linear = (double)a->linear_beta;
  const double x = row->gated ? (double)g : (double)u, y = row->gated ? (double)u : 1;
  const double below = fmin(x, limit), clamped = fmax(fmin(y, limit), -limit);
  switch (row->kind) {
  case FP4MOE_SILU:
    return row->gated ? below * sigmoid(below) * clamped : x * sigmoid(x);
  case FP4MOE_SWIGLU_OAI:
    return (double)((float)clamped + a->beta) * below * sigmoid((double)(a->alpha * (float)below));
  case FP4MOE_SWIGLUSTEP:
    return fmin(x * sigmoid(x), limit) * clamped;
  case FP4MOE_GELU:
    return true_gelu(x) * y;
  case FP4MOE_GELU_TANH:
    return true_gelu_tanh(x) * y;
  case FP4MOE_SITU:
    return beta * tanh(x / beta) * sigmoid(x) * (linear > 0 ? linear * tanh(y / linear) : y);
  default:
    return fmax(x, 0) * fmax(x, 0);
  }
}

/* Ulp that a result may be off: a factor each, and what e^z makes of a rounded z. */
static double allowed_ulp(const fp4moe_kernel *row, float x) {
  if (row->kind == FP4MOE_SITU) return 12;
  return row->kind == FP4MOE_GELU_TANH ? 6 + 4 * fabs(fmin(gelu_tanh_z((double)x), 0)) : 6;
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
      const double allowed =
          allowed_ulp(row, g) * ulp(want) + 0x1p-126 * fabs((double)g) * (1 + fabs((double)u));
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
  static const float limits[] = {7, 10, INFINITY, 0.5f}, linear[] = {0, 25, 0.5f};
  for (int i = 0; i < 2000; i++) {
    const int side = i % CHECK_SIDES;
    const size_t m = 1 + check_below(4), panels = 1 + check_below(6);
    act_case c = make_case(row, m, panels, i / 2 % 2, side);
    fill(&c, 16 * acc_panels(row, panels));
    c.args.limit = limits[check_below(4)];
    c.args.gate_scale = check_below(2) ? 1 : check_uniform(-2, 2);
    c.args.up_scale = check_below(2) ? 1 : check_uniform(-2, 2);
    c.args.beta = check_uniform(row->kind == FP4MOE_SITU ? 0.1f : -1, 1);
    c.args.linear_beta = linear[check_below(3)];
    const float *got = run(row, &c, side), *want = run(check_spec(row), &c, side);
    CHECK_SAME_FLOATS(got, want, (m - 1) * c.args.h_stride + 16 * panels, "_c row");
    for (size_t r = 0; r + 1 < m; r++)
      for (size_t n = 16 * panels; n < c.args.h_stride; n++)
        CHECK(fp4_f32_bits(got[r * c.args.h_stride + n]) == 0xffffffff, "column %zu written", n);
    CHECK_RELEASE();
  }
}

/* Every pair of special values, and every magnitude with each of them for the other input. */
static void test_special(const fp4moe_kernel *row) {
  static const float odd[] = {0,    INFINITY,  NAN,       0x1p-149f, 0x1p-126f, 0x1.fffffcp-127f,
                              0.5f, 0.55f,     1,         7,         15,        88.7f,
                              104,  0x1p-100f, 0x1p+100f, 3e38f};
  enum { ODD = 32, PANELS = ODD * ODD / 16 };
  float value[ODD];
  for (size_t i = 0; i < ODD; i++) value[i] = i < ODD / 2 ? odd[i] : -odd[i - ODD / 2];
  for (uint32_t pass = 0; pass < 300; pass++) {
    act_case c = make_case(row, 1, PANELS, 0, CHECK_AFTER);
    if (pass % 2) c.args.limit = INFINITY, c.args.linear_beta = 0;
    for (uint32_t n = 0; n < ODD * ODD; n++) {
      const float x =
          pass < 2 ? value[n / ODD]
                   : fp4_f32_from_bits((pass << 10 | n) * 13981 + (uint32_t)check_below(13981));
      const size_t at = n / 16 * (row->gated ? 32 : 16) + n % 16;
      c.acc[at] = x;
      if (row->gated) c.acc[at + 16] = value[n % ODD];
    }
    const float *got = run(row, &c, CHECK_AFTER), *want = run(check_spec(row), &c, CHECK_AFTER);
    CHECK_SAME_FLOATS(got, want, ODD * ODD, "_c row");
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
  check_test(suite, "tanh", test_tanh);
  check_test(suite, "gelu", test_gelu);
  check_rows(suite, "true function", FP4MOE_OP_ACT, test_true);
  check_rows(suite, "bits", FP4MOE_OP_ACT, test_bits);
  check_rows(suite, "special", FP4MOE_OP_ACT, test_special);
  check_rows(suite, "inputs", FP4MOE_OP_ACT, test_inputs);
  check_rows(suite, "nan", FP4MOE_OP_ACT, test_nan);
}
