/* layer_call.c - random layers and their calls (layer_call.h). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fp4.h"
#include "layer_call.h"
#include "quant.h"

const class_word class_words[CLASS_WORDS] = {
    [CLASS_F32_MX] = {"f32 mx", FP4MOE_MXFP4, FP4MOE_PRECISION_F32, FP4MOE_GLOBAL_LAYER},
    [CLASS_F32_NV] = {"f32 nv", FP4MOE_NVFP4, FP4MOE_PRECISION_F32, FP4MOE_GLOBAL_LAYER},
    [CLASS_BF16_MX] = {"bf16 mx", FP4MOE_MXFP4, FP4MOE_PRECISION_BF16, FP4MOE_GLOBAL_LAYER},
    [CLASS_BF16_NV] = {"bf16 nv", FP4MOE_NVFP4, FP4MOE_PRECISION_BF16, FP4MOE_GLOBAL_LAYER},
    [CLASS_INT8_MX] = {"int8 mx", FP4MOE_MXFP4, FP4MOE_PRECISION_INT8, FP4MOE_GLOBAL_LAYER},
    [CLASS_INT8_NV] = {"int8 nv", FP4MOE_NVFP4, FP4MOE_PRECISION_INT8, FP4MOE_GLOBAL_LAYER},
    [CLASS_MXFP8] = {"mxfp8", FP4MOE_MXFP4, FP4MOE_PRECISION_MXFP8, FP4MOE_GLOBAL_LAYER},
    [CLASS_NVFP4] = {"nvfp4 layer", FP4MOE_NVFP4, FP4MOE_PRECISION_NVFP4, FP4MOE_GLOBAL_LAYER},
    [CLASS_NVFP4_EXPERT] = {"nvfp4 expert", FP4MOE_NVFP4, FP4MOE_PRECISION_NVFP4,
                            FP4MOE_GLOBAL_EXPERT},
    [CLASS_NVFP4_TOKEN] = {"nvfp4 token", FP4MOE_NVFP4, FP4MOE_PRECISION_NVFP4,
                           FP4MOE_GLOBAL_TOKEN},
};

fp4moe_layer_desc class_desc(const class_word *w, size_t hidden, size_t intermediate,
                             size_t experts) {
  return (fp4moe_layer_desc){.struct_size = sizeof(fp4moe_layer_desc),
                             .hidden = hidden,
                             .intermediate = intermediate,
                             .experts = experts,
                             .format = w->format,
                             .precision = w->precision,
                             .activation = {.kind = FP4MOE_SILU, .gated = 1},
                             .input_global = w->input_global};
}

int is_close(closeness c) { return c.rel_l2 <= 1e-5 && c.ties <= 8 + c.elements / 50; }

problem draw(const fp4moe_layer_desc *d, size_t tokens, size_t top_k, int with_gaps) {
  problem p = {tokens, top_k, d->hidden, NULL, NULL, NULL, NULL};
  p.x = malloc(tokens * p.hidden * sizeof(float));
  p.y = malloc(tokens * p.hidden * sizeof(float));
  p.weights = malloc(tokens * top_k * sizeof(float));
  p.ids = malloc(tokens * top_k * sizeof(int32_t));
  for (size_t i = 0; i < tokens * p.hidden; i++)
    p.x[i] = fp4_from_bf16(fp4_to_bf16(check_uniform(-1, 1)));
  for (size_t i = 0; i < tokens * top_k; i++) {
    p.weights[i] = check_uniform(0.1f, 1);
    p.ids[i] = with_gaps && !check_below(4) ? -1 : (int32_t)check_below(d->experts);
  }
  return p;
}

void drop(problem *p) {
  free(p->x);
  free(p->y);
  free(p->weights);
  free(p->ids);
}

fp4moe_batch batch_of(const problem *p) {
  fp4moe_batch b = {.struct_size = sizeof b,
                    .tokens = p->tokens,
                    .top_k = p->top_k,
                    .x = p->x,
                    .x_dtype = FP4MOE_F32,
                    .y = p->y,
                    .y_dtype = FP4MOE_F32,
                    .topk_ids = p->ids,
                    .ids_dtype = FP4MOE_I32,
                    .topk_weights = p->weights};
  return b;
}

closeness error_of(const random_layer *m, const problem *p) {
  return random_layer_compare(m, p->tokens, p->top_k, p->x, p->ids, p->weights, p->y);
}

fp4moe_context *context_with(fp4moe_context_desc d) {
  fp4moe_context *ctx = NULL;
  d.struct_size = sizeof d;
  CHECK(!fp4moe_context_create(&d, &ctx), "%s", fp4moe_error_detail());
  return ctx;
}

fp4moe_context *context_of(size_t threads) {
  return context_with((fp4moe_context_desc){.max_threads = threads});
}

fp4moe_layer *layer_of(const random_layer *m, fp4moe_context *ctx) {
  fp4moe_layer *layer = NULL;
  CHECK(!random_layer_open(m, ctx, &layer), "%s", fp4moe_error_detail());
  return layer;
}

fp4moe_linear *linear_of(fp4moe_context *ctx, fp4moe_linear_desc d, const fp4moe_projection *w) {
  fp4moe_linear *linear = NULL;
  d.struct_size = sizeof d;
  fp4moe_status status = fp4moe_linear_begin(ctx, &d, &linear);
  for (size_t e = 0; !status && e < d.experts; e++)
    status = fp4moe_linear_set_expert(linear, e, &w[e]);
  if (!status) status = fp4moe_linear_finish(linear);
  CHECK(!status, "%s", fp4moe_error_detail());
  return linear;
}

fp4moe_status run_rows(fp4moe_linear *linear, size_t rows, const float *x, float *y) {
  const fp4moe_rows in = {.struct_size = sizeof in, .rows = rows, .data = (float *)(uintptr_t)x};
  const fp4moe_rows out = {.struct_size = sizeof out, .rows = rows, .data = y};
  const fp4moe_limits l = {sizeof l, rows, 1, 0};
  const size_t bytes = fp4moe_linear_workspace_bytes(linear, &l);
  void *workspace = memset(malloc(bytes), 0xa5, bytes);
  fp4moe_status status = fp4moe_matmul_grouped(linear, &in, &out, NULL, workspace, bytes);
  free(workspace);
  return status;
}

fp4moe_status run(fp4moe_layer *layer, const fp4moe_batch *b) {
  const fp4moe_limits l = {sizeof l, b->tokens, b->top_k, b->threads};
  const size_t bytes = fp4moe_workspace_bytes(layer, &l);
  void *workspace = memset(malloc(bytes), 0xa5, bytes); /* what stands there must not matter */
  fp4moe_status status = fp4moe_layer_forward(layer, b, workspace, bytes);
  free(workspace);
  return status;
}

void backwards(void *pool, size_t n, void (*fn)(void *arg, size_t i), void *arg) {
  (void)pool;
  while (n--) fn(arg, n);
}

uint8_t *whole_records(const fp4moe_layer *layer) {
  const size_t each = layer->shape.bytes;
  uint8_t *all = aligned_alloc(64, layer->desc.experts * each);
  for (size_t e = 0; e < layer->desc.experts; e++)
    fp4moe_layer_whole_record(layer, e, all + e * each);
  return all;
}

void quant_floor(const void *x, fp4moe_dtype dtype, size_t k, void *row, size_t k0, size_t row_k,
                 float inverse) {
  (void)row_k, (void)inverse;
  for (size_t at = 0; at < k; at += 32) {
    float v[32], top = 0x1p-100f;
    for (size_t i = 0; i < 32; i++) top = fmaxf(top, fabsf(v[i] = fp4_load(x, dtype, at + i)));
    const int shift = ilogbf(top) - 8;
    for (size_t i = 0; i < 32; i++) {
      float q = fp4_e4m3(fp4_to_e4m3(ldexpf(v[i / 8 * 8 + fp4_bf16_order[i % 8]], -shift)));
      ((uint16_t *)row)[k0 + at + i] = fp4_to_bf16(ldexpf(q, shift));
    }
  }
}
