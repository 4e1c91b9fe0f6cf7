/* trial.c - random calls and their check (trial.h). The reference is slow C, so a check samples a
 * few tokens, spread over the call; with at most that many tokens it covers them all. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "layer.h"
#include "trial.h"

enum { SAMPLES = 4 };

void trial_init(trial *t, const fp4moe_layer_desc *desc, size_t tokens, size_t top_k,
                uint64_t seed) {
  *t = (trial){
      .tokens = tokens,
      .top_k = top_k,
      .columns = fp4moe_x_columns(desc),
      .hidden = desc->hidden,
      .linear = fp4moe_is_linear(desc),
      .y_rows = fp4moe_is_linear(desc) ? top_k : 1,
      .experts = desc->experts,
      .x = allocate(tokens * fp4moe_x_columns(desc), sizeof *t->x),
      .y = allocate(tokens * (fp4moe_is_linear(desc) ? top_k : 1) * desc->hidden, sizeof *t->y),
      .ids = allocate(tokens * top_k, sizeof *t->ids),
      .weights = allocate(tokens * top_k, sizeof *t->weights),
      .rng = {seed}};
  measure_random_bf16(&t->rng, t->x, tokens * t->columns);
  trial_draw(t, tokens);
}

void trial_free(trial *t) {
  free(t->x);
  free(t->y);
  free(t->ids);
  free(t->weights);
}

void trial_draw(trial *t, size_t tokens) {
  t->tokens = tokens;
  routing_draw(t->routing, &t->rng, tokens, t->top_k, t->experts, t->ids, t->weights);
}

fp4moe_batch trial_batch(const trial *t, fp4moe_stats *stats) {
  return (fp4moe_batch){.struct_size = sizeof(fp4moe_batch),
                        .tokens = t->tokens,
                        .top_k = t->top_k,
                        .x = t->x,
                        .x_dtype = FP4MOE_BF16,
                        .y = t->y,
                        .y_dtype = FP4MOE_BF16,
                        .topk_ids = t->ids,
                        .ids_dtype = FP4MOE_I32,
                        .topk_weights = t->weights,
                        .stats = stats};
}

fp4moe_status linear_run(const library *lib, fp4moe_layer *linear, const fp4moe_batch *b,
                         void *workspace, size_t bytes) {
  fp4moe_indexed call = {.struct_size = sizeof call,
                         .tokens = b->tokens,
                         .slots = b->top_k,
                         .x = b->x,
                         .x_dtype = b->x_dtype,
                         .x_slots = 1,
                         .y = b->y,
                         .y_dtype = b->y_dtype,
                         .ids = b->topk_ids,
                         .ids_dtype = b->ids_dtype};
  fp4moe_options options = {.struct_size = sizeof options, .stats = b->stats};
  return lib->matmul_indexed((fp4moe_linear *)(void *)linear, &call, &options, workspace, bytes);
}

fp4moe_status trial_run(const trial *t, const library *lib, fp4moe_layer *layer,
                        const fp4moe_batch *batch, void *workspace, size_t bytes) {
  return t->linear ? linear_run(lib, layer, batch, workspace, bytes)
                   : lib->layer_forward(layer, batch, workspace, bytes);
}

size_t trial_workspace_bytes(const trial *t, const library *lib, const fp4moe_layer *layer) {
  fp4moe_limits limits = {.struct_size = sizeof limits, .max_tokens = t->tokens, .top_k = t->top_k};
  return t->linear
             ? lib->linear_workspace_bytes((const fp4moe_linear *)(const void *)layer, &limits)
             : lib->workspace_bytes(layer, &limits);
}

difference compare(const float *y, const float *ref, size_t n) {
  double sum = 0, norm = 0, most = 0;
  for (size_t i = 0; i < n; i++) {
    double d = (double)y[i] - (double)ref[i];
    sum += d * d;
    norm += (double)ref[i] * (double)ref[i];
    most = fabs(d) > most || isnan(d) ? fabs(d) : most;
  }
  return (difference){sum > 0 || isnan(sum) ? sqrt(sum / norm) : 0, most};
}

/* The sampled tokens as a trial of their own, whose rows are token[i]. */
static void sample(const trial *t, trial *s, size_t *token) {
  size_t n = t->tokens < SAMPLES ? t->tokens : SAMPLES, h = t->columns, k = t->top_k;
  *s = *t;
  s->tokens = n;
  s->x = allocate(n * h, sizeof *s->x);
  s->y = NULL;
  s->ids = allocate(n * k, sizeof *s->ids);
  s->weights = allocate(n * k, sizeof *s->weights);
  for (size_t i = 0; i < n; i++) {
    token[i] = i * t->tokens / n;
    memcpy(s->x + i * h, t->x + token[i] * h, h * sizeof *s->x);
    memcpy(s->ids + i * k, t->ids + token[i] * k, k * sizeof *s->ids);
    memcpy(s->weights + i * k, t->weights + token[i] * k, k * sizeof *s->weights);
  }
}

static fp4moe_batch f32_batch(const trial *t, float *y, fp4moe_stats *stats) {
  fp4moe_batch batch = trial_batch(t, stats);
  batch.y = y;
  batch.y_dtype = FP4MOE_F32;
  return batch;
}

/* The batch by the C rows of class f32. */
static void reference(const trial *s, fp4moe_layer *layer, const fp4moe_batch *batch) {
  fp4moe_plan plan;
  if (!fp4moe_is_linear(&layer->desc)) {
    require(fp4moe_layer_forward_c(layer, FP4MOE_PRECISION_F32, batch), "reference");
    return;
  }
  require(fp4moe_layer_c_plan(layer, FP4MOE_PRECISION_F32, &plan), "reference");
  const fp4moe_plan *own = fp4moe_layer_plan(layer);
  layer->plan = &plan;
  size_t bytes = trial_workspace_bytes(s, &own_library, layer);
  void *workspace = allocate(bytes, 1);
  require(trial_run(s, &own_library, layer, batch, workspace, bytes), "reference");
  layer->plan = own;
  free(workspace);
}

/* y: the whole call's, FP32, by a layer of the same weights as `layer`; overwritten. */
static difference compare_sampled(const trial *t, fp4moe_layer *layer, float *y) {
  size_t token_floats = t->y_rows * t->hidden, token[SAMPLES];
  float *ref = allocate(SAMPLES * token_floats, sizeof *ref);
  trial s;
  sample(t, &s, token);
  fp4moe_batch sampled = f32_batch(&s, ref, NULL);
  reference(&s, layer, &sampled);
  for (size_t i = 0; i < s.tokens; i++)
    memmove(y + i * token_floats, y + token[i] * token_floats, token_floats * sizeof *y);
  difference d = compare(y, ref, s.tokens * token_floats);
  trial_free(&s);
  free(ref);
  return d;
}

difference trial_check(const trial *t, fp4moe_layer *layer, void *workspace, size_t workspace_bytes,
                       char *kernels, size_t cap) {
  fp4moe_stats stats = {.struct_size = sizeof stats,
                        .expert_rows = allocate(t->experts, sizeof(uint32_t))};
  float *y = allocate(t->tokens * t->y_rows * t->hidden, sizeof *y);
  fp4moe_batch batch = f32_batch(t, y, &stats);
  require(trial_run(t, &own_library, layer, &batch, workspace, workspace_bytes), "forward");
  difference d = compare_sampled(t, layer, y);
  if (cap) fp4moe_layer_kernel_names(layer, stats.expert_rows, kernels, cap);
  free(stats.expert_rows);
  free(y);
  return d;
}

difference trial_check_other(const trial *t, const library *lib, fp4moe_layer *other,
                             fp4moe_layer *layer, void *workspace, size_t workspace_bytes) {
  float *y = allocate(t->tokens * t->y_rows * t->hidden, sizeof *y);
  fp4moe_batch batch = f32_batch(t, y, NULL);
  library_require(lib, trial_run(t, lib, other, &batch, workspace, workspace_bytes), "forward");
  difference d = compare_sampled(t, layer, y);
  free(y);
  return d;
}
