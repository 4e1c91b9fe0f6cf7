/* check_quant.c - every quant row against a reference in double, bit for bit, from every dtype.
 *
 * The reference knows the rounding of kernel.h only. A row is written whole or in pieces; the bytes
 * that a piece does not own, padding included, must stay what they were. */
#include "check.h"

#include <math.h>
#include <string.h>

#include "call.h"
#include "fp4.h"
#include "quantiser.h"

/* What the inputs look like. */
enum { PLAIN, TIES, EXTREME, TINY, MIXED, HOLES, KINDS };

static float draw(int kind) {
  static const float odd[] = {
      0, -0.0f, 0x1p-126f, -0x1p-126f, 0x1p-149f, 0x1p-127f, 65504, 0x1.fffffep127f,
      1, -1,    0x1p-24f,  127.5f,     INFINITY,  -INFINITY, NAN,   0x1.fep127f};
  switch (kind) {
  case PLAIN:
    return check_uniform(-4, 4);
  case TIES: /* with a 127 in the block, halves are ties of i8; few bits are ties of BF16 */
    return check_below(8) ? 0.5f * (float)check_below(255) * (check_below(2) ? 1.0f : -1.0f)
                          : (check_below(2) ? 127.0f : 1 + 0x1p-8f * (float)check_below(64));
  case EXTREME:
    return (check_below(2) ? 1.0f : -1.0f) * (check_below(2) ? 65504.0f : 0x1.fffffep127f);
  case TINY:
    return check_uniform(-1, 1) * (check_below(2) ? 0x1p-118f : 0x1p-126f);
  case MIXED:
    return check_float();
  default:
    return odd[check_below(check_below(4) ? 12 : 16)];
  }
}

static void put(void *x, fp4moe_dtype dtype, size_t i, float value) {
  uint16_t h = dtype == FP4MOE_F16 ? fp4_to_f16(value) : (uint16_t)(fp4_f32_bits(value) >> 16);
  if (dtype == FP4MOE_F32)
    memcpy((char *)x + 4 * i, &value, 4);
  else
    memcpy((char *)x + 2 * i, &h, 2);
}

static float get(const void *x, fp4moe_dtype dtype, size_t i) {
  uint16_t h;
  float value;
  if (dtype == FP4MOE_F32) {
    memcpy(&value, (const char *)x + 4 * i, 4);
    return value;
  }
  memcpy(&h, (const char *)x + 2 * i, 2);
  return dtype == FP4MOE_F16 ? fp4_from_f16(h) : fp4_f32_from_bits((uint32_t)h << 16);
}

/* ---- The reference: columns [k0, k0 + k) of a row ---- */

/* In place of the integer trick of fp4.h: the two neighbours, in double. */
static uint16_t round_bf16(float x) {
  if (x != x) return 0x7fc0;
  if (fabsf(x) < 0x1p-126f || isinf(x))
    return (uint16_t)((fp4_f32_bits(x) >> 16) & (isinf(x) ? 0xffff : 0x8000));
  double step = ldexp(1, ilogbf(x) - 7);
  double y = rint((double)x / step) * step; /* exact but for the one rint, to even */
  if (fabs(y) >= 0x1p128) return signbit(x) ? 0xff80 : 0x7f80;
  return (uint16_t)(fp4_f32_bits((float)y) >> 16);
}

static void expect_i8_block(const float *x, size_t n, uint8_t *row, size_t row_k, size_t at) {
  double top = 0;
  int bad = 0, q[32] = {0};
  for (size_t i = 0; i < n; i++) {
    top = fmax(top, fabs((double)x[i]));
    bad |= !isfinite(x[i]);
  }
  float d = bad ? fp4_f32_from_bits(0x7fc00000) : (float)(top / 127);
  if (d < 0x1p-126f) d = 0;
  for (size_t i = 0; i < n && d > 0; i++)
    q[i] = (int)fmin(fmax(rint((double)(float)((double)x[i] / (double)d)), -127), 127);
  int32_t half[2] = {0, 0};
  int16_t pair[4] = {0, 0, 0, 0};
  for (size_t i = 0; i < n; i++) {
    row[at + i] = (uint8_t)q[i];
    half[i / 16] -= 12 * q[i];
    pair[i / 16 * 2 + i % 4 / 2] = (int16_t)(pair[i / 16 * 2 + i % 4 / 2] - 12 * q[i]);
  }
  int32_t sum = half[0] + half[1];
  memcpy(row + fp4_i8_d(row_k) + at / 32 * 4, &d, 4);
  memcpy(row + fp4_i8_sum(row_k) + at / 32 * 4, &sum, 4);
  memcpy(row + fp4_i8_half(row_k) + at / 16 * 4, half, n / 16 * 4);
  memcpy(row + fp4_i8_pair(row_k) + at / 16 * 4, pair, n / 16 * 4);
}

static const float inverse = 1 / 0.0123f; /* nvfp4's G */

/* mxfp8 and nvfp4: what a block is rounded to, before BF16. */
static void expect_fp_block(fp4moe_act_class act, float *x, size_t n) {
  double v[32];
  for (size_t i = 0; i < n; i++) v[i] = (double)x[i];
  reference_quantise(act, inverse, n, v, (nudge){0, 0}, v);
  for (size_t i = 0; i < n; i++) x[i] = (float)v[i];
}

static void expect(fp4moe_act_class act, const void *x, fp4moe_dtype dtype, size_t k, uint8_t *row,
                   size_t k0, size_t row_k) {
  static const size_t order[8] = {0, 2, 4, 6, 1, 3, 5, 7};
  for (size_t at = 0; at < k; at += 16) {
    float v[32];
    const size_t n = fp4_quant_group(act) == 32 && k - at >= 32 ? 32 : 16;
    for (size_t i = 0; i < n; i++) v[i] = get(x, dtype, at + i);
    if (act == FP4MOE_ACT_F32) memcpy(row + 4 * (k0 + at), v, 64);
    if (act >= FP4MOE_ACT_MXFP8) expect_fp_block(act, v, n);
    for (size_t i = 0; i < n && fp4_row_form(act) == FP4MOE_ACT_BF16; i++) {
      uint16_t h = round_bf16(v[i / 8 * 8 + order[i % 8]]);
      memcpy(row + 2 * (k0 + at + i), &h, 2);
    }
    if (act == FP4MOE_ACT_I8) expect_i8_block(v, n, row, row_k, k0 + at);
    at += n - 16;
  }
}

/* ---- The rows ---- */

static void check_row(const fp4moe_kernel *row, const void *x, fp4moe_dtype dtype, size_t k,
                      size_t k0, size_t row_k, int side) {
  const fp4moe_act_class act = (fp4moe_act_class)row->act;
  const size_t bytes = fp4_row_bytes(act, row_k);
  uint8_t *got = check_buffer(bytes, side), *want = check_buffer(bytes, side);
  expect(act, x, dtype, k, want, k0, row_k);
  row->fn.quant(x, dtype, k, got, k0, row_k, inverse);
  CHECK_SAME(got, want, bytes, 1, "row, in bytes");
}

static void *source(fp4moe_dtype dtype, size_t k, int kind, int side) {
  void *x = check_buffer(k * fp4moe_dtype_bytes(dtype), side);
  for (size_t i = 0; i < k; i++) put(x, dtype, i, draw(kind));
  check_readonly(x);
  return x;
}

/* Columns that k0 and k are multiples of, and K is. */
static size_t step_of(const fp4moe_kernel *row) {
  return fp4_quant_group((fp4moe_act_class)row->act);
}
static size_t step_of_k(const fp4moe_kernel *row) { return row->act == FP4MOE_ACT_MXFP8 ? 32 : 16; }

static void test_shapes(const fp4moe_kernel *row) {
  static const size_t ks[] = {16, 32, 48, 64, 80, 96, 160, 512, 2880, 2896};
  for (size_t i = 0; i < sizeof ks / sizeof *ks; i++)
    for (int dtype = FP4MOE_F32; dtype <= FP4MOE_BF16 && ks[i] % step_of_k(row) == 0; dtype++)
      for (int kind = 0; kind < KINDS; kind++)
        for (int side = 0; side < CHECK_SIDES; side++) {
          void *x = source((fp4moe_dtype)dtype, ks[i], kind, side);
          check_row(row, x, (fp4moe_dtype)dtype, ks[i], 0, ks[i], side);
          CHECK_RELEASE();
        }
}

/* A source that is aligned to its element only, and columns in the middle of a row. */
static void test_pieces(const fp4moe_kernel *row) {
  for (int repeat = 0; repeat < 600; repeat++) {
    const fp4moe_dtype dtype = (fp4moe_dtype)check_below(3);
    const size_t row_k = step_of_k(row) * (1 + check_below(20)), size = fp4moe_dtype_bytes(dtype);
    const size_t step = step_of(row);
    const size_t k0 = step * check_below((row_k + step - 1) / step), left = row_k - k0;
    const size_t k = left < step || check_below(2) ? left : step * (1 + check_below(left / step));
    const size_t skew = check_below(32);
    char *x = source(dtype, k + skew, (int)check_below(KINDS), repeat % CHECK_SIDES);
    check_row(row, x + skew * size, dtype, k, k0, row_k, repeat % CHECK_SIDES);
    CHECK_RELEASE();
  }
}

/* Every element of 16 bits; many and the interesting ones of 32. */
static void test_every_pattern(const fp4moe_kernel *row) {
  enum { K = 4096 };
  for (int dtype = FP4MOE_F32; dtype <= FP4MOE_BF16; dtype++)
    for (uint32_t first = 0; first < 65536; first += K) {
      uint8_t *x = check_buffer(K * fp4moe_dtype_bytes((fp4moe_dtype)dtype), CHECK_AFTER);
      for (uint32_t i = 0; i < K; i++) {
        const uint32_t word = (first + i) << 16 | (uint32_t[]){0, 0x8000, 0x7fff, 0x8001}[i % 4];
        const uint16_t half = (uint16_t)(first + i);
        if (dtype == FP4MOE_F32)
          memcpy(x + 4 * i, &word, 4);
        else
          memcpy(x + 2 * i, &half, 2);
      }
      check_row(row, x, (fp4moe_dtype)dtype, K, 0, K, CHECK_AFTER);
      CHECK_RELEASE();
    }
}

/* ---- By hand ---- */

static void quant_i8(const float *x, size_t k, uint8_t *row) {
  check_c_quant(FP4MOE_ACT_I8)->fn.quant(x, FP4MOE_F32, k, row, 0, k, 1);
}

static void test_i8_by_hand(void) {
  _Alignas(64) uint8_t row[1024];
  _Alignas(64) float x[64];
  float d[2];
  int32_t sum[2], half[4];
  for (int i = 0; i < 64; i++) x[i] = i < 32 ? 0.5f : 1;
  x[0] = 127, x[1] = 1.5f, x[2] = -2.5f, x[3] = -126;
  x[63] = -INFINITY;
  quant_i8(x, 64, row);
  memcpy(d, row + fp4_i8_d(64), sizeof d);
  memcpy(sum, row + fp4_i8_sum(64), sizeof sum);
  memcpy(half, row + fp4_i8_half(64), sizeof half);
  CHECK(d[0] == 1 && d[1] != d[1], "d %g %g", (double)d[0], (double)d[1]);
  CHECK(row[0] == 127 && row[1] == 2 && row[2] == 254 && row[3] == 130 && row[4] == 0 && !row[63],
        "codes %d %d %d %d %d", row[0], row[1], row[2], row[3], row[4]);
  CHECK(sum[0] == -12 && sum[1] == 0 && half[0] == -12 && half[1] == 0, "sums %d %d", sum[0],
        half[0]);
  for (int i = 0; i < 32; i++) x[i] = 126 * 0x1p-126f; /* d < 2^-126 */
  quant_i8(x, 32, row);
  memcpy(d, row + fp4_i8_d(32), sizeof *d);
  CHECK(d[0] == 0 && row[0] == 0, "d %g", (double)d[0]);
}

/* Writes a bf16 row; the value of column i comes back from where the order puts it. */
static float column(const uint16_t *row, size_t i) {
  static const size_t at[8] = {0, 4, 1, 5, 2, 6, 3, 7};
  return fp4_f32_from_bits((uint32_t)row[i / 8 * 8 + at[i % 8]] << 16);
}

static void test_mxfp8_by_hand(void) {
  const fp4moe_kernel *c = check_c_quant(FP4MOE_ACT_MXFP8);
  _Alignas(64) uint16_t row[32];
  float x[32] = {448, 1, 0.07f, -27, 29, 0x1p-10f, 0x1p-9f}; /* s = 127: plain E4M3 */
  static const float want[7] = {448, 1, 0.0703125f, -28, 28, 0, 0x1p-9f};
  c->fn.quant(x, FP4MOE_F32, 32, row, 0, 32, 1);
  for (size_t i = 0; i < 7; i++) CHECK(column(row, i) == want[i], "%g", (double)column(row, i));
  x[0] = 450; /* s = 128, where the floor rule keeps 127 and saturates */
  c->fn.quant(x, FP4MOE_F32, 32, row, 0, 32, 1);
  CHECK(column(row, 0) == 448 && column(row, 6) == 0, "%g", (double)column(row, 0));
  x[0] = 464; /* a tie */
  c->fn.quant(x, FP4MOE_F32, 32, row, 0, 32, 1);
  CHECK(column(row, 0) == 448, "%g", (double)column(row, 0));
  x[0] = 0x1.fffffep127f; /* 256 * 2^120 is 2^128 */
  c->fn.quant(x, FP4MOE_F32, 32, row, 0, 32, 1);
  CHECK(isinf(column(row, 0)) && column(row, 1) == 0, "%g", (double)column(row, 0));
}

static void test_nvfp4_by_hand(void) {
  const fp4moe_kernel *c = check_c_quant(FP4MOE_ACT_NVFP4);
  _Alignas(64) uint16_t row[16];
  float x[16] = {6, -5, 3.5f, 2.5f, 1.75f, -1.25f, 0.75f, 0.25f, -0.2f}; /* SF = G = 4 */
  static const float want[9] = {6, -4, 4, 2, 2, -1, 1, 0, -0.0f};
  c->fn.quant(x, FP4MOE_F32, 16, row, 0, 16, 4);
  for (size_t i = 0; i < 9; i++)
    CHECK(column(row, i) == 4 * want[i] && !signbit(column(row, i)) == !signbit(want[i]), "%g",
          (double)column(row, i));
  c->fn.quant(x, FP4MOE_F32, 16, row, 0, 16, 0x1p-10f); /* SF = 2^-10 is a tie: 0, and so is q */
  CHECK(column(row, 0) == 0 && signbit(column(row, 1)), "%g", (double)column(row, 0));
  c->fn.quant(x, FP4MOE_F32, 16, row, 0, 16, 1000); /* SF saturates at 448, q at 6 */
  CHECK(column(row, 0) == 6 * 448 && column(row, 3) == 6 * 448, "%g", (double)column(row, 3));
}

void check_quant(void) {
  CU_pSuite suite = check_suite("quant");
  check_test(suite, "i8 by hand", test_i8_by_hand);
  check_test(suite, "mxfp8 by hand", test_mxfp8_by_hand);
  check_test(suite, "nvfp4 by hand", test_nvfp4_by_hand);
  check_rows(suite, "shapes", FP4MOE_OP_QUANT, test_shapes);
  check_rows(suite, "pieces", FP4MOE_OP_QUANT, test_pieces);
  check_rows(suite, "every pattern", FP4MOE_OP_QUANT, test_every_pattern);
}
