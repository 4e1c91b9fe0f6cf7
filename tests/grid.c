/* grid.c - matrices with poisoned gaps (grid.h). */
#include "grid.h"

#include "call.h"
#include "check.h"
#include "quant.h"

grid grid_new(fp4moe_dtype dtype, size_t rows, size_t columns, size_t gap) {
  size_t bytes = fp4moe_dtype_bytes(dtype);
  grid g = {dtype, rows, columns, (columns + gap) * bytes, NULL};
  g.data = check_buffer(rows ? (rows - 1) * g.stride + columns * bytes : 0, CHECK_AFTER);
  return g;
}

void *grid_row(const grid *g, size_t row) { return (uint8_t *)g->data + row * g->stride; }

void grid_set(const grid *g, size_t row, size_t column, double value) {
  void *to = grid_row(g, row);
  switch (g->dtype) {
  case FP4MOE_F32:
    ((float *)to)[column] = (float)value;
    break;
  case FP4MOE_F16:
    ((uint16_t *)to)[column] = fp4_to_f16((float)value);
    break;
  case FP4MOE_BF16:
    ((uint16_t *)to)[column] = fp4_to_bf16((float)value);
    break;
  case FP4MOE_I32:
    ((int32_t *)to)[column] = (int32_t)value;
    break;
  case FP4MOE_I64:
    ((int64_t *)to)[column] = (int64_t)value;
    break;
  }
}

float grid_get(const grid *g, size_t row, size_t column) {
  return fp4_load(grid_row(g, row), g->dtype, column);
}

void grid_fill(const grid *g, const float *values) {
  for (size_t i = 0; i < g->rows; i++)
    for (size_t j = 0; j < g->columns; j++) grid_set(g, i, j, (double)values[i * g->columns + j]);
}

void grid_gaps(const grid *g, const unsigned char *used, const char *what) {
  size_t bytes = g->columns * fp4moe_dtype_bytes(g->dtype);
  for (size_t i = 0; i < g->rows; i++) {
    const uint8_t *row = grid_row(g, i);
    size_t end = i + 1 < g->rows ? g->stride : bytes;
    for (size_t b = used && !used[i] ? 0 : bytes; b < end; b++)
      if (!CHECK(row[b] == 0xff, "%s: row %zu, byte %zu of %zu was written", what, i, b, bytes))
        return;
  }
}

float rounded(fp4moe_dtype dtype, float x) {
  if (dtype == FP4MOE_F16) return fp4_from_f16(fp4_to_f16(x));
  return dtype == FP4MOE_BF16 ? fp4_from_bf16(fp4_to_bf16(x)) : x;
}

void grid_same(const grid *g, const float *values, float add, const char *what) {
  for (size_t i = 0; i < g->rows; i++)
    for (size_t j = 0; j < g->columns; j++) {
      float got = grid_get(g, i, j), want = rounded(g->dtype, add + values[i * g->columns + j]);
      if (!CHECK(fp4_f32_bits(got) == fp4_f32_bits(want), "%s: [%zu][%zu] is %g, expected %g", what,
                 i, j, (double)got, (double)want))
        return;
    }
}
