/* op_data.c - inputs of single kernels and calls of them (op_data.h).
 *
 * One block of memory a thread. Inputs that a call reads once (nibbles, tokens, sums) are more than
 * one call's and taken in turn, so that they come from the level-2 cache and not the first. */
#include <math.h>
#include <stdlib.h>

#include "call.h"
#include "cli.h"
#include "fp4.h"
#include "layerfill.h"
#include "op_data.h"
#include "panel.h"

enum { GEMV_PANELS = 4, EPILOGUE_PANELS = 6 };

const fp4moe_kernel *op_c_row(fp4moe_op op, int form, const fp4moe_layer_desc *desc) {
  static const fp4moe_request any = {.cap = FP4MOE_ISA_c};
  const fp4moe_selector s = {.request = &any};
  for (size_t i = 0; i < fp4moe_kernel_count; i++)
    if (fp4moe_kernels[i].op == op && (form == FP4MOE_ANY || fp4moe_kernels[i].form == form) &&
        !fp4moe_judge(&s, desc, &fp4moe_kernels[i]))
      return &fp4moe_kernels[i];
  die("%s: no C row serves this layer", fp4moe_op_name(op));
}

/* Has the layer's class this form of panels? */
static int op_has_form(int form, const fp4moe_layer_desc *desc) {
  static const fp4moe_request any = {.cap = FP4MOE_ISA_c};
  const fp4moe_selector s = {.request = &any};
  for (size_t i = 0; i < fp4moe_kernel_count; i++)
    if (fp4moe_kernels[i].op == FP4MOE_OP_UNPACK && fp4moe_kernels[i].form == form &&
        !fp4moe_judge(&s, desc, &fp4moe_kernels[i]))
      return 1;
  return 0;
}

size_t op_panels(const fp4moe_kernel *kernel) {
  size_t tile = kernel->nr / FP4MOE_PANEL;
  switch (kernel->op) {
  case FP4MOE_OP_GEMM:
    return tile;
  case FP4MOE_OP_GEMV:
    return tile > GEMV_PANELS ? tile : GEMV_PANELS;
  case FP4MOE_OP_ACT:
  case FP4MOE_OP_COMBINE:
    return EPILOGUE_PANELS;
  default:
    return 1;
  }
}

/* ---- Room ---- */

static size_t at_least(size_t n, size_t least) { return n > least ? n : least; }

/* The next part of the block; base NULL only counts. */
static void *part(uint8_t *base, size_t *used, size_t bytes) {
  void *at = base ? base + *used : NULL;
  *used += fp4_align(bytes);
  return at;
}

static void lay_out_weights(op_data *d, uint8_t *base, size_t *used) {
  const op_shape *s = &d->shape;
  size_t panel = fp4_panel_bytes(d->k), scales = fp4_panel_scale_bytes(d->k, d->group);
  int gemm = s->op == FP4MOE_OP_GEMM;
  d->all_panels = gemm ? s->panels : at_least(s->cache_bytes / (panel + scales), s->panels);
  d->nibbles = part(base, used, d->all_panels * panel);
  d->scales = part(base, used, d->all_panels * scales);
  fp4moe_act_class act = fp4moe_act_class_of(s->desc.precision);
  d->unpacked_stride = fp4_align(fp4_unpacked_bytes(act, d->k, d->group));
  for (int form = 0; gemm && form < FP4MOE_FORMS; form++)
    if (op_has_form(form, &s->desc))
      d->unpacked[form] = part(base, used, d->all_panels * d->unpacked_stride);
}

static void lay_out_rows(op_data *d, uint8_t *base, size_t *used) {
  const op_shape *s = &d->shape;
  int quant = s->op == FP4MOE_OP_QUANT;
  size_t row = fp4_row_bytes(fp4moe_act_class_of(s->desc.precision), d->k);
  d->x_rows = quant ? at_least(s->cache_bytes / (2 * d->k), 1) : s->rows;
  d->x = part(base, used, d->x_rows * d->k * sizeof *d->x);
  if (quant) {
    d->out_bytes = row;
    return;
  }
  d->row_data = part(base, used, s->rows * row);
  d->row = part(base, used, s->rows * sizeof *d->row);
}

static void lay_out_sums(op_data *d, uint8_t *base, size_t *used) {
  const op_shape *s = &d->shape;
  size_t call = s->op == FP4MOE_OP_STORE ? fp4moe_cut_runs(d->k, 1) * d->k
                                         : s->rows * s->panels * FP4MOE_PANEL;
  d->all_sums = at_least(s->cache_bytes / sizeof *d->sums, call);
  d->sums = part(base, used, d->all_sums * sizeof *d->sums);
  d->bias = part(base, used, s->panels * FP4MOE_PANEL * sizeof *d->bias);
  d->weight = part(base, used, s->rows * sizeof *d->weight);
  d->index = part(base, used, s->rows * sizeof *d->index);
  d->out_bytes = (s->op == FP4MOE_OP_STORE ? d->k : call) * sizeof *d->sums;
}

static size_t lay_out(op_data *d, uint8_t *base) {
  const op_shape *s = &d->shape;
  size_t used = 0;
  switch (s->op) {
  case FP4MOE_OP_UNPACK:
    lay_out_weights(d, base, &used);
    d->out_bytes = d->unpacked_stride;
    break;
  case FP4MOE_OP_QUANT:
    lay_out_rows(d, base, &used);
    break;
  case FP4MOE_OP_GEMV:
  case FP4MOE_OP_GEMM:
    lay_out_weights(d, base, &used);
    lay_out_rows(d, base, &used);
    d->out_bytes = s->rows * s->panels * FP4MOE_PANEL * sizeof(float);
    break;
  default:
    lay_out_sums(d, base, &used);
  }
  d->out = part(base, &used, d->out_bytes);
  return used;
}

/* ---- Contents ---- */

static void fill_weights(op_data *d, measure_rng *rng) {
  size_t panel = fp4_panel_bytes(d->k), scales = fp4_panel_scale_bytes(d->k, d->group);
  measure_random_bytes(rng, d->nibbles, d->all_panels * panel);
  random_scales(rng, d->shape.desc.format, d->k, d->scales, d->all_panels * scales);
  for (int form = 0; form < FP4MOE_FORMS; form++)
    for (size_t p = 0; d->unpacked[form] && p < d->all_panels; p++)
      op_c_row(FP4MOE_OP_UNPACK, form, &d->shape.desc)
          ->fn.unpack(d->nibbles + p * panel, d->scales + p * scales, d->k,
                      d->unpacked[form] + p * d->unpacked_stride);
}

static void fill_rows(op_data *d) {
  size_t bytes = fp4_row_bytes(fp4moe_act_class_of(d->shape.desc.precision), d->k);
  for (size_t r = 0; r < d->shape.rows; r++) {
    d->row[r] = d->row_data + r * bytes;
    op_c_row(FP4MOE_OP_QUANT, FP4MOE_ANY, &d->shape.desc)
        ->fn.quant(d->x + r * d->k, FP4MOE_BF16, d->k, d->row_data + r * bytes, 0, d->k, 1);
  }
}

static void fill_floats(measure_rng *rng, float *x, size_t n) {
  for (size_t i = 0; i < n; i++) x[i] = 4 * (float)measure_uniform(rng) - 2;
}

void op_data_make(op_data *d, const op_shape *shape, uint64_t seed) {
  measure_rng rng = {seed};
  *d = (op_data){.shape = *shape, .k = shape->desc.hidden, .group = fp4_group(shape->desc.format)};
  lay_out(d, allocate_workspace(lay_out(d, NULL)));
  if (d->nibbles) fill_weights(d, &rng);
  if (d->x) measure_random_bf16(&rng, d->x, d->x_rows * d->k);
  if (d->row) fill_rows(d);
  if (!d->sums) return;
  fill_floats(&rng, d->sums, d->all_sums);
  fill_floats(&rng, d->bias, shape->panels * FP4MOE_PANEL);
  fill_floats(&rng, d->weight, shape->rows);
  for (size_t r = 0; r < shape->rows; r++) d->index[r] = (uint32_t)r;
}

void op_data_free(op_data *d) {
  free(d->nibbles ? (void *)d->nibbles : d->x ? (void *)d->x : d->sums); /* the first part */
}

/* ---- Calls ---- */

typedef struct call {
  size_t m, panels, turn;
} call;

static op_work call_unpack(op_data *d, const fp4moe_kernel *kernel, const call *c) {
  size_t p = c->turn % d->all_panels;
  size_t panel = fp4_panel_bytes(d->k), scales = fp4_panel_scale_bytes(d->k, d->group);
  kernel->fn.unpack(d->nibbles + p * panel, d->scales + p * scales, d->k, d->out);
  return (op_work){(double)(panel + scales), 0, d->out_bytes};
}

static op_work call_quant(op_data *d, const fp4moe_kernel *kernel, const call *c) {
  kernel->fn.quant(d->x + c->turn % d->x_rows * d->k, FP4MOE_BF16, d->k, d->out, 0, d->k, 1);
  return (op_work){2.0 * (double)d->k, 0, d->out_bytes};
}

static fp4moe_matmul product(const op_data *d, const call *c) {
  return (fp4moe_matmul){.m = c->m,
                         .panels = c->panels,
                         .k = d->k,
                         .row_k = d->k,
                         .rows = d->row,
                         .acc = d->out,
                         .acc_stride = FP4MOE_PANEL * c->panels};
}

static op_work matmul_work(const op_data *d, const call *c, double bytes) {
  size_t sums = c->m * c->panels * FP4MOE_PANEL;
  return (op_work){bytes, 2.0 * (double)(sums * d->k), sums * sizeof(float)};
}

static op_work call_gemv(op_data *d, const fp4moe_kernel *kernel, const call *c) {
  size_t panel = fp4_panel_bytes(d->k), scales = fp4_panel_scale_bytes(d->k, d->group);
  size_t first = c->turn % (d->all_panels / c->panels) * c->panels;
  fp4moe_matmul t = product(d, c);
  t.weights = d->nibbles + first * panel;
  t.weights_stride = panel;
  t.scales = d->scales + first * scales;
  t.scales_stride = scales;
  for (size_t r = 0; r < c->m; r += kernel->mr) {
    t.m = c->m - r < kernel->mr ? c->m - r : kernel->mr;
    t.rows = d->row + r;
    t.acc = (float *)d->out + r * t.acc_stride;
    kernel->fn.matmul(&t);
  }
  return matmul_work(d, c, (double)(c->panels * (panel + scales)));
}

static op_work call_gemm(op_data *d, const fp4moe_kernel *kernel, const call *c) {
  fp4moe_matmul t = product(d, c);
  t.weights = d->unpacked[kernel->form];
  t.weights_stride = d->unpacked_stride;
  kernel->fn.matmul(&t);
  return matmul_work(d, c, 0);
}

/* Sums of the next call of `floats`. */
static const float *next_sums(const op_data *d, const call *c, size_t floats) {
  return d->sums + c->turn % (d->all_sums / floats) * floats;
}

static op_work call_act(op_data *d, const fp4moe_kernel *kernel, const call *c) {
  const fp4moe_activation *a = &d->shape.desc.activation;
  size_t width = c->panels * FP4MOE_PANEL, h_panels = c->panels / (a->gated ? 2 : 1);
  fp4moe_act_args args = {.m = c->m,
                          .panels = h_panels,
                          .acc = next_sums(d, c, c->m * width),
                          .acc_stride = width,
                          .bias = d->bias,
                          .gate_scale = 1,
                          .up_scale = 1,
                          .alpha = a->alpha,
                          .beta = a->beta,
                          .limit = a->limit > 0 ? a->limit : INFINITY,
                          .linear_beta = a->linear_beta,
                          .h = d->out,
                          .h_stride = h_panels * FP4MOE_PANEL};
  kernel->fn.act(&args);
  return (op_work){(double)(c->m * width * sizeof(float)), 0, c->m * args.h_stride * sizeof(float)};
}

static op_work call_combine(op_data *d, const fp4moe_kernel *kernel, const call *c) {
  size_t width = c->panels * FP4MOE_PANEL, bytes = c->m * width * sizeof(float);
  fp4moe_combine_args args = {.m = c->m,
                              .panels = c->panels,
                              .acc = next_sums(d, c, c->m * width),
                              .acc_stride = width,
                              .scale = 1,
                              .bias = d->bias,
                              .weight = d->weight,
                              .index = d->index,
                              .y = d->out,
                              .y_stride = width};
  kernel->fn.combine(&args);
  return (op_work){2 * (double)bytes, 0, bytes}; /* reads y as well */
}

/* A token's partial sums, as many as a call of one token has, to BF16. */
static op_work call_store(op_data *d, const fp4moe_kernel *kernel, const call *c) {
  size_t parts = fp4moe_cut_runs(d->k, 1), floats = parts * d->k;
  kernel->fn.store(d->k, parts, next_sums(d, c, floats), d->k, FP4MOE_BF16, 0, d->out);
  return (op_work){(double)(floats * sizeof(float)), 0, d->k * sizeof(uint16_t)};
}

op_work op_call(op_data *d, const fp4moe_kernel *kernel, size_t m, size_t panels, size_t turn) {
  static op_work (*const calls[FP4MOE_OPS])(op_data *, const fp4moe_kernel *, const call *) = {
      [FP4MOE_OP_UNPACK] = call_unpack, [FP4MOE_OP_QUANT] = call_quant,
      [FP4MOE_OP_GEMV] = call_gemv,     [FP4MOE_OP_GEMM] = call_gemm,
      [FP4MOE_OP_ACT] = call_act,       [FP4MOE_OP_COMBINE] = call_combine,
      [FP4MOE_OP_STORE] = call_store};
  const call c = {m, panels, turn};
  return calls[kernel->op](d, kernel, &c);
}
