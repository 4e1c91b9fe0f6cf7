/* layer.c - a layer's life: begin, set_expert, finish, replan, destroy (fp4moe.h), and what its
 * desc may be. Records are record.c's and shard.c's business, calls forward.c's. */
#include <stdlib.h>
#include <string.h>

#include "activation.h"
#include "layer.h"
#include "probes.h"
#include "status.h"

static fp4moe_status check_sizes(const fp4moe_layer_desc *d) {
  size_t group = fp4_group(d->format);
  const struct {
    const char *name;
    size_t value;
  } sizes[] = {{"hidden", d->hidden}, {"intermediate", d->intermediate}};
  for (int i = 0; i < 2; i++)
    if (!sizes[i].value || sizes[i].value % group || sizes[i].value > (size_t)1 << 20)
      return fp4moe_fail(FP4MOE_INVALID, "%s is %zu, expected a multiple of %zu up to %zu",
                         sizes[i].name, sizes[i].value, group, (size_t)1 << 20);
  if (!d->experts || d->experts > 65536)
    return fp4moe_fail(FP4MOE_INVALID, "experts is %zu, expected 1..65536", d->experts);
  return fp4moe_shards_check(d->shards);
}

static fp4moe_status check_input_scale(const char *name, float scale) {
  if (fp4moe_is_input_scale(scale)) return FP4MOE_OK;
  return fp4moe_fail(FP4MOE_INVALID, "%s is %g, expected 2^-100..2^100", name, (double)scale);
}

static fp4moe_status check_precision(const fp4moe_layer_desc *d) {
  static const char *const names[] = {"F32", "BF16", "INT8", "MXFP8", "NVFP4"};
  int mxfp8 = d->precision == FP4MOE_PRECISION_MXFP8,
      nvfp4 = d->precision == FP4MOE_PRECISION_NVFP4;
  if ((unsigned)d->precision > FP4MOE_PRECISION_NVFP4)
    return fp4moe_fail(FP4MOE_UNSUPPORTED,
                       "precision is %d, expected F32, BF16, INT8, MXFP8 or NVFP4",
                       (int)d->precision);
  if ((mxfp8 && d->format != FP4MOE_MXFP4) || (nvfp4 && d->format != FP4MOE_NVFP4))
    return fp4moe_fail(FP4MOE_UNSUPPORTED, "precision %s with format %s: its weights are %s",
                       names[d->precision], d->format == FP4MOE_MXFP4 ? "MXFP4" : "NVFP4",
                       mxfp8 ? "MXFP4" : "NVFP4");
  if ((unsigned)d->input_global > FP4MOE_GLOBAL_TOKEN)
    return fp4moe_fail(FP4MOE_INVALID, "input_global is %d, expected LAYER, EXPERT or TOKEN",
                       (int)d->input_global);
  if (fp4moe_reads_layer_scales(d)) {
    fp4moe_status status = check_input_scale("input_scale_gate_up", d->input_scale_gate_up);
    return status ? status : check_input_scale("input_scale_down", d->input_scale_down);
  }
  if ((!nvfp4 && d->input_global) || d->input_scale_gate_up != 0 || d->input_scale_down != 0)
    return fp4moe_fail(
        FP4MOE_INVALID, "input_global %d, input scales %g and %g: precision %s%s has none",
        (int)d->input_global, (double)d->input_scale_gate_up, (double)d->input_scale_down,
        names[d->precision], nvfp4 ? " with EXPERT or TOKEN" : "");
  return FP4MOE_OK;
}

fp4moe_status fp4moe_format_check(const fp4moe_layer_desc *d) {
  if ((unsigned)d->format > FP4MOE_NVFP4)
    return fp4moe_fail(FP4MOE_INVALID, "format is %d, expected MXFP4 or NVFP4", (int)d->format);
  return check_precision(d);
}

fp4moe_status fp4moe_layer_desc_check(const fp4moe_layer_desc *d) {
  fp4moe_status status = fp4moe_format_check(d);
  if (!status) status = check_sizes(d);
  return status ? status : fp4moe_activation_check(&d->activation);
}

/* A layer without records, of a desc that was checked. */
static fp4moe_status make_empty(fp4moe_context *ctx, const fp4moe_layer_desc *d,
                                fp4moe_layer **out) {
  fp4moe_layer *layer = calloc(1, sizeof *layer);
  if (!layer) return fp4moe_fail(FP4MOE_NO_MEMORY, "a layer of %zu bytes", sizeof *layer);
  pthread_mutex_init(&layer->plan_lock, NULL);
  layer->ctx = ctx;
  layer->desc = *d;
  fp4moe_shape_of(d, &layer->shape);
  layer->shards = 1;
  fp4moe_shards_cut(&layer->shape, 1, layer->shard);
  layer->state = calloc(d->experts, sizeof *layer->state);
  if (!layer->state) {
    fp4moe_layer_destroy(layer);
    return fp4moe_fail(FP4MOE_NO_MEMORY, "the states of %zu experts", d->experts);
  }
  *out = layer;
  return FP4MOE_OK;
}

fp4moe_status fp4moe_layer_make(fp4moe_context *ctx, const fp4moe_layer_desc *d,
                                fp4moe_layer **out) {
  fp4moe_layer *layer;
  fp4moe_status status = make_empty(ctx, d, &layer);
  if (!status && (status = fp4moe_shards_make(layer))) fp4moe_layer_destroy(layer);
  if (!status) *out = layer;
  return status;
}

static fp4moe_status take_desc(const fp4moe_context *ctx, const fp4moe_layer_desc *desc,
                               fp4moe_layer *const *out, fp4moe_layer_desc *d) {
  fp4moe_status status = fp4moe_take_struct(d, sizeof *d, desc, "fp4moe_layer_desc");
  if (!ctx || !out) return fp4moe_fail(FP4MOE_INVALID, "context or layer: NULL");
  return status ? status : fp4moe_layer_desc_check(d);
}

fp4moe_status fp4moe_layer_new(fp4moe_context *ctx, const fp4moe_layer_desc *desc,
                               fp4moe_layer **out) {
  fp4moe_layer_desc d;
  fp4moe_status status = take_desc(ctx, desc, out, &d);
  return status ? status : make_empty(ctx, &d, out);
}

fp4moe_status fp4moe_layer_begin(fp4moe_context *ctx, const fp4moe_layer_desc *desc,
                                 fp4moe_layer **out) {
  fp4moe_layer_desc d;
  fp4moe_status status = take_desc(ctx, desc, out, &d);
  return status ? status : fp4moe_layer_make(ctx, &d, out);
}

/* ---- Plans: each distinct one is kept, so that replanning needs no news of running calls ---- */

struct fp4moe_kept_plan {
  struct fp4moe_kept_plan *next;
  fp4moe_plan plan;
};

static void free_plans(struct fp4moe_kept_plan *kept) {
  while (kept) {
    struct fp4moe_kept_plan *next = kept->next;
    free(kept);
    kept = next;
  }
}

static fp4moe_status publish(fp4moe_layer *layer, const fp4moe_plan *plan) {
  struct fp4moe_kept_plan *k = layer->kept;
  while (k && (!fp4moe_plan_same(&k->plan, plan) ||
               memcmp(k->plan.source, plan->source, sizeof plan->source) != 0))
    k = k->next;
  if (!k) {
    if (!(k = malloc(sizeof *k)))
      return fp4moe_fail(FP4MOE_NO_MEMORY, "a plan of %zu bytes", sizeof *k);
    k->plan = *plan;
    k->next = layer->kept;
    layer->kept = k;
  }
  atomic_store_explicit(&layer->plan, &k->plan, memory_order_release);
  return FP4MOE_OK;
}

/* Selects from the context's present table and makes that the layer's plan. */
static fp4moe_status choose_plan(fp4moe_layer *layer) {
  fp4moe_plan plan;
  pthread_mutex_lock(&layer->plan_lock);
  fp4moe_status status = fp4moe_context_select(layer->ctx, &layer->desc, &plan);
  if (!status) status = publish(layer, &plan);
  if (!status) fp4moe_probe_choices(&layer->desc, &plan);
  pthread_mutex_unlock(&layer->plan_lock);
  return status;
}

void fp4moe_layer_destroy(fp4moe_layer *layer) {
  if (!layer) return;
  if (layer->mapped.data) {
    if (layer->mapped.release)
      layer->mapped.release(layer->mapped.user, layer->mapped.data, layer->mapped.bytes);
  } else {
    fp4moe_shards_release(layer);
  }
  free_plans(layer->kept);
  pthread_mutex_destroy(&layer->plan_lock);
  free(layer->state);
  free(layer);
}

fp4moe_status fp4moe_layer_claim(fp4moe_layer *layer, size_t e) {
  if (e >= layer->desc.experts)
    return fp4moe_fail(FP4MOE_INVALID, "expert %zu of a layer with %zu", e, layer->desc.experts);
  unsigned char unset = 0;
  if (!atomic_compare_exchange_strong(&layer->state[e], &unset, 1))
    return fp4moe_fail(FP4MOE_INVALID, "expert %zu is already set", e);
  return FP4MOE_OK;
}

fp4moe_status fp4moe_layer_set_expert(fp4moe_layer *layer, size_t e,
                                      const fp4moe_expert_weights *weights) {
  fp4moe_expert_weights w;
  fp4moe_status status = fp4moe_take_struct(&w, sizeof w, weights, "fp4moe_expert_weights");
  if (!status) status = fp4moe_layer_claim(layer, e);
  if (status) return status;
  status = fp4moe_shards_pack(layer, e, &w);
  atomic_store(&layer->state[e], status ? 0 : 2);
  return status;
}

/* A record that another class has packed may be without. */
static fp4moe_status check_input_scales(const fp4moe_layer *layer) {
  for (size_t e = 0; e < layer->desc.experts && fp4moe_reads_expert_scales(&layer->desc); e++) {
    const float *globals = fp4moe_layer_globals(layer, e);
    for (int i = FP4MOE_INPUT_SCALES; i < FP4MOE_INPUT_SCALES + 2; i++)
      if (!fp4moe_is_input_scale(globals[i]))
        return fp4moe_fail(FP4MOE_INVALID, "expert %zu has no input scale of %s", e,
                           i == FP4MOE_INPUT_SCALES ? "gate and up" : "down");
  }
  return FP4MOE_OK;
}

fp4moe_status fp4moe_layer_finish(fp4moe_layer *layer) {
  if (layer->finished) return fp4moe_fail(FP4MOE_INVALID, "the layer is already finished");
  for (size_t e = 0; e < layer->desc.experts; e++)
    if (atomic_load(&layer->state[e]) != 2)
      return fp4moe_fail(FP4MOE_INVALID, "expert %zu was never set", e);
  fp4moe_status status = check_input_scales(layer);
  if (!status) status = choose_plan(layer);
  if (!status) layer->finished = 1;
  return status;
}

fp4moe_status fp4moe_layer_replan(fp4moe_layer *layer) {
  if (!layer->finished) return fp4moe_fail(FP4MOE_INVALID, "the layer is not finished");
  return choose_plan(layer);
}

fp4moe_status fp4moe_layer_c_plan(const fp4moe_layer *layer, fp4moe_precision precision,
                                  fp4moe_plan *plan) {
  const fp4moe_request request = {.cap = FP4MOE_ISA_c};
  const fp4moe_selector selector = {&layer->ctx->host, &request, NULL};
  fp4moe_layer_desc desc = layer->desc;
  desc.precision = precision;
  return fp4moe_select(&selector, &desc, plan);
}

fp4moe_status fp4moe_layer_forward_c(fp4moe_layer *layer, fp4moe_precision precision,
                                     const fp4moe_batch *batch) {
  fp4moe_plan plan;
  fp4moe_status status = fp4moe_layer_c_plan(layer, precision, &plan);
  if (status) return status;
  size_t threads = batch->threads ? batch->threads : fp4moe_context_threads(layer->ctx);
  size_t bytes = fp4moe_plan_workspace_bytes(layer, &plan, batch->tokens, batch->top_k, threads,
                                             batch->tokens);
  void *workspace = malloc(bytes);
  if (!workspace) return fp4moe_fail(FP4MOE_NO_MEMORY, "a workspace of %zu bytes", bytes);
  status = fp4moe_layer_forward_plan(layer, &plan, batch, workspace, bytes);
  free(workspace);
  return status;
}

static void add_name(char *buf, size_t cap, size_t *used, const fp4moe_kernel *kernel) {
  if (!kernel || strstr(buf, kernel->name)) return;
  size_t n = strlen(kernel->name), comma = *used != 0;
  if (*used + comma + n < cap) {
    if (comma) buf[*used] = ',';
    memcpy(buf + *used + comma, kernel->name, n + 1);
  }
  *used += comma + n;
}

size_t fp4moe_layer_kernel_names(const fp4moe_layer *layer, const uint32_t *expert_rows, char *buf,
                                 size_t cap) {
  const fp4moe_plan *plan = fp4moe_layer_plan(layer);
  size_t used = 0;
  if (cap) buf[0] = 0;
  for (size_t e = 0; e < layer->desc.experts; e++)
    for (int phase = 0; phase < FP4MOE_PHASES && expert_rows[e]; phase++) {
      const fp4moe_record *record = (const void *)fp4moe_layer_record(layer, 0, e);
      const fp4moe_recipe *r = fp4moe_plan_recipe(plan, record, phase, expert_rows[e]);
      add_name(buf, cap, &used, r->gemv);
      add_name(buf, cap, &used, r->unpack);
      add_name(buf, cap, &used, r->gemm);
    }
  const fp4moe_kernel *rest[] = {plan->quant, plan->act, plan->combine, plan->store};
  for (int i = 0; i < 4; i++) add_name(buf, cap, &used, rest[i]);
  return used;
}
