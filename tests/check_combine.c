/* check_combine.c - combine and store: every row against the formulas of kernel.h, bit for bit. */
#include "check.h"

#include <math.h>
#include <string.h>

#include "call.h"
#include "fp4.h"

static float draw(void) {
  static const float odd[] = {0,         -0.0f,      INFINITY, -INFINITY, NAN,     0x1p-149f,
                              0x1p-126f, -0x1p-127f, 65504,    65520,     3.3e38f, -3.3e38f};
  size_t kind = check_below(16);
  if (kind == 0) return odd[check_below(12)];
  if (kind == 1) return check_float();
  return check_uniform(-4, 4);
}

/* `count` floats, read-only when the caller is done. */
static float *floats(size_t count, int side) {
  float *x = check_buffer(count * sizeof *x, side);
  for (size_t i = 0; i < count; i++) x[i] = draw();
  return x;
}

/* ---- combine ---- */

enum { Y_ROWS = 5 };

static void expect_combine(const fp4moe_combine_args *a, float *y) {
  for (size_t r = 0; r < a->m; r++)
    for (size_t c = 0; c < 16 * a->panels; c++) {
      const float sum = a->acc[r * a->acc_stride + c];
      const float v = a->bias ? fmaf(sum, a->scale, a->bias[c]) : sum * a->scale;
      float *to = &y[a->index[r] * a->y_stride + c];
      *to = fmaf(a->weight[r], v, *to);
    }
}

static void check_combine_case(const fp4moe_kernel *row, size_t m, size_t panels, int side) {
  fp4moe_combine_args a = {.m = m, .panels = panels};
  a.acc_stride = 16 * (panels + check_below(3));
  a.y_stride = 16 * (panels + check_below(3));
  a.scale = check_below(2) ? 1 : check_uniform(-2, 2);
  const size_t y_count = (Y_ROWS - 1) * a.y_stride + 16 * panels;
  float *y = floats(y_count, side), *want = check_buffer(y_count * sizeof *want, side);
  uint32_t *index = check_buffer(m * sizeof *index, side);
  a.acc = floats((m - 1) * a.acc_stride + 16 * panels, side);
  a.bias = check_below(2) ? floats(16 * panels, side) : NULL;
  a.weight = floats(m, side);
  for (size_t r = 0; r < m; r++) index[r] = (uint32_t)check_below(Y_ROWS); /* it repeats */
  a.index = index;
  a.y = want;
  memcpy(want, y, y_count * sizeof *y);
  expect_combine(&a, want);
  a.y = y;
  check_readonly(a.acc);
  check_readonly(a.bias);
  check_readonly(a.weight);
  check_readonly(index);
  row->fn.combine(&a);
  CHECK_SAME_FLOATS(y, want, y_count, "y, gaps included");
  CHECK_RELEASE();
}

static void test_combine(const fp4moe_kernel *row) {
  for (size_t m = 1; m <= 12; m++)
    for (size_t panels = 1; panels <= 9; panels++)
      for (int side = 0; side < CHECK_SIDES; side++)
        for (int repeat = 0; repeat < 4; repeat++) check_combine_case(row, m, panels, side);
  check_combine_case(row, 40, 180, CHECK_AFTER);
}

/* ---- store ---- */

static void expect_store(size_t n, size_t parts, const float *partials, size_t stride,
                         fp4moe_dtype dtype, int accumulate, uint8_t *y) {
  for (size_t i = 0; i < n; i++) {
    float sum = partials[i], old = 0;
    uint16_t half;
    for (size_t p = 1; p < parts; p++) sum += partials[p * stride + i];
    memcpy(&half, y + 2 * i, 2);
    if (accumulate && dtype == FP4MOE_F32) memcpy(&old, y + 4 * i, 4);
    if (accumulate && dtype == FP4MOE_F16) old = fp4_from_f16(half);
    if (accumulate && dtype == FP4MOE_BF16) old = fp4_from_bf16(half);
    sum = old + sum;
    if (sum != sum) sum = fp4_f32_from_bits(0x7fc00000);
    half = dtype == FP4MOE_F16 ? fp4_to_f16(sum) : fp4_to_bf16(sum);
    if (dtype == FP4MOE_F32)
      memcpy(y + 4 * i, &sum, 4);
    else
      memcpy(y + 2 * i, &half, 2);
  }
}

static void check_store_case(const fp4moe_kernel *row, size_t n, size_t parts, fp4moe_dtype dtype,
                             int accumulate, int side) {
  const size_t size = fp4moe_dtype_bytes(dtype), bytes = n * size, skew = size * check_below(16);
  const size_t stride = n + 16 * check_below(3);
  float *partials = floats((parts - 1) * stride + n, side);
  uint8_t *y = check_buffer(bytes + skew, side), *want = check_buffer(bytes, side);
  uint8_t *at = side == CHECK_AFTER ? y + skew : y;
  for (size_t i = 0; i < bytes && accumulate; i++) at[i] = (uint8_t)check_random();
  for (size_t i = 0; i < n && accumulate && check_below(4); i++) { /* mostly: moderate values */
    const float x = check_uniform(-4, 4);
    const uint16_t h = dtype == FP4MOE_F16 ? fp4_to_f16(x) : fp4_to_bf16(x);
    memcpy(at + i * size, size == 4 ? (const void *)&x : &h, size);
  }
  memcpy(want, at, bytes);
  expect_store(n, parts, partials, stride, dtype, accumulate, want);
  check_readonly(partials);
  row->fn.store(n, parts, partials, stride, dtype, accumulate, at);
  CHECK_SAME(at, want, n, size, "y");
  for (size_t i = 0; i < skew; i++)
    CHECK((at == y ? y[bytes + i] : y[i]) == 0xff, "byte %zu beside y was written", i);
  CHECK_RELEASE();
}

static void test_store(const fp4moe_kernel *row) {
  for (int dtype = FP4MOE_F32; dtype <= FP4MOE_BF16; dtype++)
    for (int accumulate = 0; accumulate < 2; accumulate++)
      for (size_t parts = 1; parts <= 5; parts++)
        for (size_t n = 16; n <= 160; n += 16)
          for (int side = 0; side < CHECK_SIDES; side++)
            check_store_case(row, n, parts, (fp4moe_dtype)dtype, accumulate, side);
  for (int dtype = FP4MOE_F32; dtype <= FP4MOE_BF16; dtype++)
    check_store_case(row, 65536, 2, (fp4moe_dtype)dtype, 1, CHECK_AFTER);
}

/* The signs of zero, and one NaN for all. */
static void test_store_by_hand(const fp4moe_kernel *row) {
  _Alignas(64) float partials[16] = {-0.0f, 0, -NAN, 0x1p-127f, -0x1p-127f, INFINITY};
  _Alignas(64) uint32_t y[16];
  _Alignas(64) uint16_t half[16];
  static const uint32_t f32[6] = {0, 0, 0x7fc00000, 0x00400000, 0x80400000, 0x7f800000};
  static const uint16_t bf16[6] = {0, 0, 0x7fc0, 0, 0x8000, 0x7f80};
  static const uint16_t f16[6] = {0, 0, 0x7e00, 0, 0x8000, 0x7c00};
  row->fn.store(16, 1, partials, 16, FP4MOE_F32, 0, y);
  CHECK_SAME(y, f32, 6, 4, "f32");
  row->fn.store(16, 1, partials, 16, FP4MOE_BF16, 0, half);
  CHECK_SAME(half, bf16, 6, 2, "bf16");
  row->fn.store(16, 1, partials, 16, FP4MOE_F16, 0, half);
  CHECK_SAME(half, f16, 6, 2, "f16");
  for (int i = 0; i < 16; i++) half[i] = 0x8000;
  row->fn.store(16, 1, partials, 16, FP4MOE_BF16, 1, half); /* y + sum: -0 + -0 is -0 */
  CHECK(half[0] == 0x8000 && half[1] == 0, "accumulated zeros %#x %#x", half[0], half[1]);
}

void check_combine(void) {
  CU_pSuite suite = check_suite("combine");
  check_rows(suite, "combine", FP4MOE_OP_COMBINE, test_combine);
  check_rows(suite, "store", FP4MOE_OP_STORE, test_store);
  check_rows(suite, "store by hand", FP4MOE_OP_STORE, test_store_by_hand);
}
