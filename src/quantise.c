/* quantise.c - activations of a call into the form that its matmuls read (kernel.h, quant).
 *
 *   x   each token once; class nvfp4 with a global of each expert: each (token, slot)
 *   h   by the phase-1 unit that made it, which owns whole quantiser groups. Where units share a
 *       32-column group, by the one that ends it; where the global is a row's own, in a phase after
 *       phase 1, row by row
 *
 * Class nvfp4 writes q * SF, which is the activation times G. The rest, 1/G, is one factor with the
 * projection's global where G is one for all rows of an expert; it multiplies the sums row by row
 * where each row has its own. Sums of q * SF * weight stay below 2^40: nothing overflows on the
 * way, and the product of both globals is formed before it meets a sum. */
#include <string.h>

#include "quant.h"
#include "quantise.h"

/* ---- Globals of class nvfp4 ---- */

static int is_nvfp4(const fp4moe_call *c) { return c->plan->quant_class == FP4MOE_ACT_NVFP4; }

int fp4moe_call_x_by_row(const fp4moe_call *c) {
  return is_nvfp4(c) && c->plan->input_global == FP4MOE_GLOBAL_EXPERT;
}

int fp4moe_call_dynamic(const fp4moe_call *c) {
  return is_nvfp4(c) && c->plan->input_global == FP4MOE_GLOBAL_TOKEN;
}

/* G of an expert's rows in a phase: 1 where it is each row's own, or the class has none. */
static float inverse_of(const fp4moe_call *c, const float *globals, int phase) {
  const fp4moe_layer_desc *d = &c->layer->desc;
  if (fp4moe_call_x_by_row(c)) return 1 / globals[FP4MOE_INPUT_SCALES + phase];
  if (!is_nvfp4(c) || fp4moe_call_dynamic(c)) return 1;
  return 1 / (phase == FP4MOE_DOWN ? d->input_scale_down : d->input_scale_gate_up);
}

float fp4moe_sum_scale(const fp4moe_call *c, const float *globals, int phase, int projection) {
  float global = globals[projection];
  if (c->plan->act_class == FP4MOE_ACT_I8) return 0.5f * global; /* i8 codes are 2 * e2m1 */
  return global / inverse_of(c, globals, phase);
}

void fp4moe_scale_rows(const fp4moe_call *c, int phase, size_t row, size_t rows, size_t columns,
                       float *acc) {
  int of_x = phase == fp4moe_first_phase(&c->layer->desc);
  for (size_t r = 0; r < rows; r++) {
    float scale = of_x ? c->x_scale[c->row_token[row + r]] : c->h_scale[row + r];
    for (size_t i = 0; i < columns; i++) acc[r * columns + i] *= scale;
  }
}

/* G of a row from its own amax. A row of less than 2^-80 counts as that; one with NaN or Inf has
 * blocks of NaN under any G. */
static float dynamic_inverse(const void *x, fp4moe_dtype dtype, size_t k) {
  uint32_t top = fp4_f32_bits(0x1p-80f);
  for (size_t i = 0; i < k; i++) {
    uint32_t mag = fp4_f32_bits(fp4_load(x, dtype, i)) & 0x7fffffff;
    if (mag > top) top = mag;
  }
  if (top >= 0x7f800000) return 1;
  return 1 / (fp4_f32_from_bits(top) / (6 * 448));
}

/* ---- x ---- */

size_t fp4moe_quant_x_units(const fp4moe_call *c) {
  size_t rows = fp4moe_call_x_by_row(c) ? c->rows : c->tokens;
  return (rows + FP4MOE_QUANT_ROWS - 1) / FP4MOE_QUANT_ROWS;
}

/* A token's x, times the router weight where that goes first. */
static const void *weighted_x(const fp4moe_call *c, size_t token, float *room,
                              fp4moe_dtype *dtype) {
  const void *x = fp4moe_call_x(c, c->token0 + token);
  *dtype = c->batch.x_dtype;
  if (!c->layer->desc.router_weight_on_input || c->form.unreduced) return x;
  float w = fp4moe_call_weight(c, c->token0 + token, 0);
  for (size_t i = 0; i < c->layer->desc.hidden; i++) room[i] = fp4_load(x, *dtype, i) * w;
  *dtype = FP4MOE_F32;
  return room;
}

size_t fp4moe_quant_x(const fp4moe_call *c, size_t unit, size_t n, uint8_t *scratch) {
  size_t k = fp4moe_x_columns(&c->layer->desc), first = unit * FP4MOE_QUANT_ROWS;
  size_t by_row = (size_t)fp4moe_call_x_by_row(c), all = by_row ? c->rows : c->tokens;
  size_t end = first + n * FP4MOE_QUANT_ROWS < all ? first + n * FP4MOE_QUANT_ROWS : all;
  float *room = (float *)(void *)(scratch + c->panel_bytes + 2 * c->acc_bytes);
  const fp4moe_active *a = c->active;
  int phase = fp4moe_first_phase(&c->layer->desc);
  for (size_t i = first; i < end; i++) {
    while (by_row && i >= (size_t)a->first + a->rows) a++;
    fp4moe_dtype dtype;
    const void *x = weighted_x(c, by_row ? c->row_token[i] : i, room, &dtype);
    float inverse = c->x_scale ? dynamic_inverse(x, dtype, k) : inverse_of(c, a->globals, phase);
    if (c->x_scale) c->x_scale[i] = 1 / inverse;
    c->plan->quant->fn.quant(x, dtype, k, c->x + i * c->x_row_bytes, 0, k, inverse);
  }
  return n;
}

/* ---- h ---- */

/* Columns [at, at + n) of an activation row, from h. */
static void quant_columns(const fp4moe_call *c, size_t row, const float *h, size_t at, size_t n,
                          float inverse) {
  c->plan->quant->fn.quant(h, FP4MOE_F32, n, c->h + row * c->h_row_bytes, at,
                           c->layer->shape.intermediate, inverse);
}

static void keep_wide(const fp4moe_call *c, const fp4moe_unit1 *u, const float *h, size_t column,
                      size_t columns) {
  size_t all = c->layer->shape.intermediate;
  for (size_t r = 0; r < u->rows; r++)
    memcpy(c->h_wide + (u->row + r) * all + column, h + r * columns, columns * sizeof *h);
}

/* Who brings a group's last columns quantises it. */
static void quant_ended_groups(const fp4moe_call *c, const fp4moe_unit1 *u, size_t column,
                               size_t columns, float inverse) {
  size_t all = c->layer->shape.intermediate, end = column + columns;
  atomic_uint *done = c->group_done + (size_t)(u->active - c->active) * fp4_blocks32(all);
  for (size_t at = column; at < end; at = (at / 32 + 1) * 32) {
    size_t group = at / 32 * 32, size = all - group < 32 ? all - group : 32;
    size_t mine = (end < group + size ? end : group + size) - at;
    if (atomic_fetch_add(&done[at / 32], (unsigned)mine) + mine < size) continue;
    for (size_t r = u->row; r < u->row + u->rows; r++)
      quant_columns(c, r, c->h_wide + r * all + group, group, size, inverse);
  }
}

void fp4moe_quant_h(const fp4moe_call *c, const fp4moe_unit1 *u, const float *h, size_t column,
                    size_t columns) {
  float inverse = inverse_of(c, u->active->globals, FP4MOE_DOWN);
  if (c->h_wide) keep_wide(c, u, h, column, columns);
  if (c->group_done) quant_ended_groups(c, u, column, columns, inverse);
  for (size_t r = 0; r < u->rows && !c->h_wide; r++)
    quant_columns(c, u->row + r, h + r * columns, column, columns, inverse);
}

size_t fp4moe_quant_h_units(const fp4moe_call *c) {
  return fp4moe_call_dynamic(c) ? (c->rows + FP4MOE_QUANT_ROWS - 1) / FP4MOE_QUANT_ROWS : 0;
}

size_t fp4moe_quant_h_rows(const fp4moe_call *c, size_t unit, size_t n, uint8_t *scratch) {
  size_t k = c->layer->shape.intermediate, end = (unit + n) * FP4MOE_QUANT_ROWS;
  (void)scratch;
  for (size_t r = unit * FP4MOE_QUANT_ROWS; r < end && r < c->rows; r++) {
    float inverse = dynamic_inverse(c->h_wide + r * k, FP4MOE_F32, k);
    c->h_scale[r] = 1 / inverse;
    quant_columns(c, r, c->h_wide + r * k, 0, k, inverse);
  }
  return n;
}
