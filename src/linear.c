/* linear.c - FP4 matrices without a layer around them: begin, set_expert, finish (fp4moe.h).
 *
 * A linear is a layer of second matrices only (fp4moe_is_linear): the same records, oracle, recipes
 * and phases, with N for the layer's hidden and K for its intermediate. Its calls are in rows.c. */
#include "layer.h"
#include "status.h"

static fp4moe_status check_sizes(const fp4moe_linear_desc *d) {
  size_t group = fp4_group(d->format), most = (size_t)1 << 20;
  if (!d->n || d->n > most)
    return fp4moe_fail(FP4MOE_INVALID, "n is %zu, expected 1..%zu", d->n, most);
  if (!d->k || d->k % group || d->k > most)
    return fp4moe_fail(FP4MOE_INVALID, "k is %zu, expected a multiple of %zu up to %zu", d->k,
                       group, most);
  if (!d->experts || d->experts > 65536)
    return fp4moe_fail(FP4MOE_INVALID, "experts is %zu, expected 1..65536", d->experts);
  return fp4moe_shards_check(d->shards);
}

/* As a layer; both input scales are the one, of which the second is read. */
static fp4moe_layer_desc layer_of(const fp4moe_linear_desc *d) {
  return (fp4moe_layer_desc){.struct_size = sizeof(fp4moe_layer_desc),
                             .hidden = d->n,
                             .intermediate = d->k,
                             .experts = d->experts,
                             .format = d->format,
                             .precision = d->precision,
                             .activation = {.kind = (fp4moe_activation_kind)FP4MOE_LINEAR},
                             .input_global = d->input_global,
                             .input_scale_gate_up = d->input_scale,
                             .input_scale_down = d->input_scale,
                             .shards = d->shards};
}

fp4moe_status fp4moe_linear_begin(fp4moe_context *ctx, const fp4moe_linear_desc *desc,
                                  fp4moe_linear **out) {
  fp4moe_linear_desc d;
  fp4moe_layer *layer;
  fp4moe_status status = fp4moe_take_struct(&d, sizeof d, desc, "fp4moe_linear_desc");
  if (status) return status;
  if (!ctx || !out) return fp4moe_fail(FP4MOE_INVALID, "context or linear: NULL");
  fp4moe_layer_desc as_layer = layer_of(&d);
  if (d.format == FP4MOE_NVFP4 && fp4moe_reads_layer_scales(&as_layer) &&
      !fp4moe_is_input_scale(d.input_scale))
    return fp4moe_fail(FP4MOE_INVALID, "input_scale is %g, expected 2^-100..2^100",
                       (double)d.input_scale);
  if ((status = fp4moe_format_check(&as_layer)) || (status = check_sizes(&d)) ||
      (status = fp4moe_layer_make(ctx, &as_layer, &layer)))
    return status;
  *out = (fp4moe_linear *)(void *)layer;
  return FP4MOE_OK;
}

fp4moe_status fp4moe_linear_set_expert(fp4moe_linear *linear, size_t e,
                                       const fp4moe_projection *matrix) {
  fp4moe_expert_weights w = {.struct_size = sizeof w};
  if (!matrix) return fp4moe_fail(FP4MOE_INVALID, "matrix: NULL");
  w.down = *matrix;
  w.up.input_scale = matrix->input_scale; /* a record has two, of which the second is read */
  return fp4moe_layer_set_expert(&linear->layer, e, &w);
}

fp4moe_status fp4moe_linear_finish(fp4moe_linear *linear) {
  return fp4moe_layer_finish(&linear->layer);
}

fp4moe_status fp4moe_linear_replan(fp4moe_linear *linear) {
  return fp4moe_layer_replan(&linear->layer);
}

void fp4moe_linear_destroy(fp4moe_linear *linear) {
  if (linear) fp4moe_layer_destroy(&linear->layer);
}

size_t fp4moe_linear_bytes(const fp4moe_linear *linear) {
  return fp4moe_layer_bytes(&linear->layer);
}

size_t fp4moe_linear_workspace_bytes(const fp4moe_linear *linear, const fp4moe_limits *limits) {
  return fp4moe_workspace_bytes(linear ? &linear->layer : NULL, limits);
}

size_t fp4moe_linear_workspace_min_bytes(const fp4moe_linear *linear, const fp4moe_limits *limits) {
  return fp4moe_workspace_min_bytes(linear ? &linear->layer : NULL, limits);
}

fp4moe_status fp4moe_linear_nodes(const fp4moe_linear *linear, fp4moe_node_bytes *nodes, size_t cap,
                                  size_t *count) {
  return fp4moe_layer_nodes(linear ? &linear->layer : NULL, nodes, cap, count);
}

fp4moe_status fp4moe_linear_explain(fp4moe_linear *linear, const fp4moe_problem *problem, char *buf,
                                    size_t cap, size_t *needed) {
  return fp4moe_layer_explain(&linear->layer, problem, buf, cap, needed);
}
