/* check_unpack.c - the formats of fp4.h against their definitions, and every unpack row.
 *
 * The reference decodes in double (formats.h), so it shares nothing with fp4.h. Unpack sees every
 * scale byte with every byte of codes, in every class; the _c rows are compared with the reference,
 * all rows with it bit for bit. */
#include "check.h"

#include <math.h>
#include <string.h>

#include "formats.h"
#include "fp4.h"

static double f16_value(unsigned h) {
  unsigned exponent = h >> 10 & 31, mantissa = h & 1023;
  double x = exponent ? ldexp(1024 + mantissa, (int)exponent - 25) : ldexp(mantissa, -24);
  if (exponent == 31) x = mantissa ? NAN : INFINITY;
  return h & 0x8000 ? -x : x;
}

/* Same value and sign, or both NaN. */
static int same(double a, double b) {
  return (a != a && b != b) || (a == b && !signbit(a) == !signbit(b));
}

static void test_e2m1(void) {
  for (unsigned code = 0; code < 16; code++) {
    CHECK(same((double)fp4_e2m1(code), e2m1_value(code)), "code %u", code);
    CHECK(fp4_e2m1_x2(code) == (int)(2 * e2m1_value(code)), "code %u, doubled", code);
  }
  const uint8_t bytes[2] = {0x21, 0x43};
  for (size_t k = 0; k < 4; k++) CHECK(fp4_code(bytes, k) == k + 1, "column %zu", k);
}

static void test_scales(void) {
  for (unsigned s = 0; s < 256; s++) {
    CHECK(same((double)fp4_e8m0((uint8_t)s), e8m0_value(s)), "e8m0 %u", s);
    CHECK(same((double)fp4_e4m3((uint8_t)s), e4m3_value(s)), "e4m3 %u", s);
  }
  CHECK(fp4_f32_bits(fp4_e8m0(255)) == 0x7fc00000, "e8m0 NaN");
  CHECK(fp4_f32_bits(fp4_e4m3(0xff)) == 0x7fc00000, "e4m3 NaN");
}

static void test_from_16(void) {
  for (uint32_t h = 0; h < 65536; h++) {
    CHECK(same((double)fp4_from_f16((uint16_t)h), f16_value(h)), "f16 %#x", h);
    CHECK(fp4_f32_bits(fp4_from_bf16((uint16_t)h)) == h << 16, "bf16 %#x", h);
  }
}

/* The nearest of two neighbours of x; a tie goes to the even pattern. */
static uint32_t nearest(double x, uint32_t low, double low_value, uint32_t high,
                        double high_value) {
  double down = fabs(x - low_value), up = fabs(high_value - x);
  return down < up || (down == up && low % 2 == 0) ? low : high;
}

static uint32_t expect_bf16(float x) {
  uint32_t bits = fp4_f32_bits(x), low = bits >> 16;
  if (x != x) return 0x7fc0;
  if (fabsf(x) < 0x1p-126f) return low & 0x8000;
  if (isinf(x)) return low;
  double low_value = (double)fp4_f32_from_bits(low << 16);
  double step = ldexp(1, ilogb(low_value) - 7); /* infinity counts as the next finite */
  return nearest(x, low, low_value, low + 1, low_value + copysign(step, x));
}

static uint32_t expect_f16(float x) {
  uint32_t sign = signbit(x) ? 0x8000 : 0, low = 0, step = 0x4000;
  double mag = fabs((double)x);
  for (; step; step >>= 1) /* the largest pattern at or below */
    if (low + step < 0x7c00 && f16_value(low + step) <= mag) low += step;
  double above = low == 0x7bff ? 65536 : f16_value(low + 1);
  return sign | (mag >= above ? 0x7c00 : nearest(mag, low, f16_value(low), low + 1, above));
}

static void check_rounding(float x) {
  uint32_t bits = fp4_f32_bits(x), h = fp4_to_f16(x);
  CHECK(fp4_to_bf16(x) == expect_bf16(x), "%#x to bf16: %#x", bits, fp4_to_bf16(x));
  if (x != x)
    CHECK((h & 0x7e00) == 0x7e00 && h >> 15 == bits >> 31, "%#x to f16: %#x", bits, h);
  else
    CHECK(h == expect_f16(x), "%#x to f16: %#x, expected %#x", bits, h, expect_f16(x));
}

/* Every pattern's value, its neighbours, the ties between patterns and theirs; then any bits. */
static void test_to_16(void) {
  for (uint32_t h = 0; h < 65536; h++) {
    const uint32_t f16 = fp4_f32_bits(fp4_from_f16((uint16_t)h));
    for (uint32_t d = 0; d < 3; d++) {
      check_rounding(fp4_f32_from_bits(f16 + d - 1));
      check_rounding(fp4_f32_from_bits(f16 + 0x1000 + d - 1));
      check_rounding(fp4_f32_from_bits((h << 16) + d - 1));
      check_rounding(fp4_f32_from_bits((h << 16) + 0x8000 + d - 1));
    }
  }
  for (int m = 0; m < 2048; m++)
    for (uint32_t d = 0; d < 3; d++) /* the subnormals of F16 and the ties between them */
      check_rounding(fp4_f32_from_bits(fp4_f32_bits((float)m * 0x1p-25f) + d - (m > 0)));
  for (int i = 0; i < 500000; i++) check_rounding(check_float());
}

/* ---- Unpack ---- */

enum { MAX_K = 96 };

typedef struct panel {
  size_t group, k;
  uint8_t *nibbles, *scales;
} panel;

static double scale_value(const panel *p, size_t k, size_t row) {
  unsigned s = p->scales[k / p->group * 16 + row];
  return p->group == 32 ? e8m0_value(s) : e4m3_value(s);
}

/* By the picture of layout.h. */
static unsigned code_at(const panel *p, size_t k, size_t row) {
  return p->nibbles[k / 8 * 64 + row * 4 + k % 4] >> (k % 8 < 4 ? 0 : 4) & 15;
}

static uint32_t weight_bits(const panel *p, size_t k, size_t row) {
  double w = e2m1_value(code_at(p, k, row)) * scale_value(p, k, row);
  return w != w ? 0x7fc00000 : fp4_f32_bits((float)w);
}

static void expect_f32(const panel *p, uint8_t *out) {
  for (size_t k = 0; k < p->k; k++)
    for (size_t row = 0; row < 16; row++) {
      uint32_t bits = weight_bits(p, k, row);
      memcpy(out + (k * 16 + row) * 4, &bits, 4);
    }
}

/* `together` columns of a row side by side. */
static void expect_pairs(const panel *p, size_t together, uint8_t *out) {
  static const size_t order[8] = {0, 2, 4, 6, 1, 3, 5, 7};
  for (size_t k = 0; k < p->k; k++)
    for (size_t row = 0; row < 16; row++) {
      uint32_t bits = weight_bits(p, k / 8 * 8 + order[k % 8], row);
      CHECK((bits & 0xffff) == 0, "a weight with more than 8 bits");
      memcpy(out + ((k / together * 16 + row) * together + k % together) * 2, (char *)&bits + 2, 2);
    }
}

static void expect_bytes(const panel *p, size_t together, int offset, uint8_t *out) {
  for (size_t k0 = 0; k0 < p->k; k0 += p->group) {
    for (size_t k = 0; k < p->group; k++)
      for (size_t row = 0; row < 16; row++)
        out[(k / together * 16 + row) * together + k % together] =
            (uint8_t)((int)(2 * e2m1_value(code_at(p, k0 + k, row))) + offset);
    out += p->group * 16;
    for (size_t row = 0; row < 16; row++, out += 4) {
      float s = (float)scale_value(p, k0, row);
      uint32_t bits = s != s ? 0x7fc00000 : fp4_f32_bits(s);
      memcpy(out, &bits, 4);
    }
  }
}

static size_t group_of(const fp4moe_kernel *row) { return row->format == FP4MOE_MXFP4 ? 32 : 16; }

static const struct {
  size_t side;
  int offset;
} forms[] = {
#define FORM(word, class, side, offset) {side, offset},
#include "forms.inc"
};

/* Runs the row on the panel, against the reference. */
static void check_panel(const fp4moe_kernel *row, const panel *p, int side) {
  uint8_t want[64 * MAX_K + 64 * MAX_K / 16];
  const size_t bytes = fp4_unpacked_bytes((fp4moe_act_class)row->act, p->k, p->group);
  const size_t unit = row->act == FP4MOE_ACT_F32 ? 4 : row->act == FP4MOE_ACT_BF16 ? 2 : 1;
  uint8_t *got = check_buffer(bytes, side);
  switch (row->act) {
  case FP4MOE_ACT_F32:
    expect_f32(p, want);
    break;
  case FP4MOE_ACT_BF16:
    expect_pairs(p, forms[row->form].side, want);
    break;
  default:
    expect_bytes(p, forms[row->form].side, forms[row->form].offset, want);
  }
  check_readonly(p->nibbles);
  check_readonly(p->scales);
  row->fn.unpack(p->nibbles, p->scales, p->k, got);
  CHECK_SAME(got, want, bytes / unit, unit, "unpacked");
  CHECK_RELEASE();
}

static panel make_panel(const fp4moe_kernel *row, size_t k, int side) {
  panel p = {.group = group_of(row), .k = k};
  p.nibbles = check_buffer(8 * k, side);
  p.scales = check_buffer(k / p.group * 16, side);
  return p;
}

/* Each scale byte alone with each code byte, then among others. */
static void test_every_byte(const fp4moe_kernel *row) {
  for (unsigned s = 0; s < 256; s++)
    for (unsigned mixed = 0; mixed < 2; mixed++) {
      panel p = make_panel(row, 32, CHECK_AFTER);
      for (size_t i = 0; i < 256; i++) p.nibbles[i] = (uint8_t)(i * 149 + s);
      for (size_t i = 0; i < 32 / p.group * 16; i++)
        p.scales[i] = (uint8_t)(mixed ? s + i * 37 : s);
      check_panel(row, &p, CHECK_BEFORE);
    }
}

static void test_shapes(const fp4moe_kernel *row) {
  for (size_t k = group_of(row); k <= MAX_K; k += group_of(row))
    for (int side = 0; side < CHECK_SIDES; side++)
      for (int repeat = 0; repeat < 20; repeat++) {
        panel p = make_panel(row, k, side);
        for (size_t i = 0; i < 8 * k; i++) p.nibbles[i] = (uint8_t)check_random();
        for (size_t i = 0; i < k / p.group * 16; i++) p.scales[i] = (uint8_t)check_random();
        check_panel(row, &p, side);
      }
}

/* What the plan relies on: no rounding inside 2 <= s <= 252, and the known edges outside. */
static void test_mx_edges(void) {
  static const struct {
    uint8_t s;
    unsigned code;
    uint16_t bits;
  } edges[] = {{0, 1, 0x0020},    {0, 7, 0x0140},   {0, 8, 0x8000},   {1, 1, 0x0040},
               {1, 2, 0x0080},    {2, 1, 0x0080},   {2, 9, 0x8080},   {252, 7, 0x7f40},
               {253, 7, 0x7f80},  {253, 6, 0x7f80}, {253, 5, 0x7f40}, {254, 3, 0x7f40},
               {254, 12, 0xff80}, {255, 0, 0x7fc0}, {255, 8, 0x7fc0}};
  const fp4moe_kernel *row = check_c_unpack(FP4MOE_MXFP4, FP4MOE_FORM_bf16);
  for (size_t i = 0; i < sizeof edges / sizeof *edges; i++) {
    uint16_t out[32 * 16];
    uint8_t nibbles[256], scales[16];
    memset(nibbles, (int)(edges[i].code * 17), sizeof nibbles);
    memset(scales, edges[i].s, sizeof scales);
    row->fn.unpack(nibbles, scales, 32, out);
    CHECK(out[77] == edges[i].bits, "scale %u, code %u: %#x", edges[i].s, edges[i].code, out[77]);
  }
}

void check_unpack(void) {
  CU_pSuite suite = check_suite("unpack");
  check_test(suite, "e2m1", test_e2m1);
  check_test(suite, "block scales", test_scales);
  check_test(suite, "f16 and bf16 to f32", test_from_16);
  check_test(suite, "f32 to f16 and bf16", test_to_16);
  check_test(suite, "mxfp4 edges in bf16", test_mx_edges);
  check_rows(suite, "every byte", FP4MOE_OP_UNPACK, test_every_byte);
  check_rows(suite, "shapes", FP4MOE_OP_UNPACK, test_shapes);
}
