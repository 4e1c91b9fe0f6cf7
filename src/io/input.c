/* input.c - input scales of a layer: the globals of activations, which class NVFP4 alone reads.
 *
 * On disk they stand beside the weights' globals, as multipliers or (compressed-tensors) as
 * reciprocals. Weight-only checkpoints have none, and experts that calibration never reached have
 * ones that are no scale; a class that does not read them must not mind, a policy that does names
 * the tensor. */
#include <stdlib.h>
#include <string.h>

#include "io/read.h"
#include "io/tensors.h"
#include "input_scale.h"
#include "status.h"

/* The multiplier as it stands there, whatever it is. */
static fp4moe_status read_multiplier(const struct io_reader *r, const fp4moe_tensor *tensor,
                                     size_t expert, int projection, float *scale) {
  size_t i = fp4moe_io_global_index(tensor, expert, projection);
  fp4moe_status status =
      fp4moe_tensors_read(r->tensors, tensor, i * sizeof *scale, sizeof *scale, scale);
  if (r->layer->family->reciprocal) *scale = 1.0f / *scale;
  return status;
}

fp4moe_status fp4moe_io_reader_input_scale(const struct io_reader *r, size_t expert, int projection,
                                           float *scale) {
  const fp4moe_tensor *tensor = fp4moe_io_reader_find(r, expert, projection, IO_INPUT);
  *scale = 0;
  if (!tensor) return FP4MOE_OK;
  fp4moe_status status = read_multiplier(r, tensor, expert, projection, scale);
  if (!fp4moe_is_input_scale(*scale)) *scale = 0;
  return status;
}

static const char *policy(const fp4moe_layer_desc *desc) {
  return desc->input_global == FP4MOE_GLOBAL_LAYER ? "class NVFP4 with the layer's global"
                                                   : "class NVFP4 with globals of experts";
}

static fp4moe_status require_scale(const struct io_reader *r, const fp4moe_layer_desc *desc,
                                   size_t expert, int projection, float *scale) {
  const fp4moe_tensor *tensor = fp4moe_io_reader_find(r, expert, projection, IO_INPUT);
  const char *file = fp4moe_tensors_at(r->tensors, r->layer->info.first_tensor)->file;
  if (!tensor)
    return fp4moe_fail(FP4MOE_UNSUPPORTED, "%s: tensor '%.200s' is missing, which %s reads", file,
                       r->name, policy(desc));
  fp4moe_status status = read_multiplier(r, tensor, expert, projection, scale);
  if (status != FP4MOE_OK || fp4moe_is_input_scale(*scale)) return status;
  return fp4moe_fail(
      FP4MOE_INVALID,
      "%s: tensor '%.200s', expert %zu: the input scale is %g, %s wants 2^-100..2^100", file,
      tensor->name, expert, (double)*scale, policy(desc));
}

static fp4moe_status find_maxima(const struct io_reader *r, const fp4moe_layer_desc *desc,
                                 float most[IO_PROJECTIONS]) {
  for (size_t e = 0; e < r->layer->info.desc.experts; e++)
    for (int p = 0; p < IO_PROJECTIONS; p++) {
      float scale;
      if (!r->layer->family->projection[p]) continue;
      fp4moe_status status = require_scale(r, desc, e, p, &scale);
      if (status != FP4MOE_OK) return status;
      if (scale > most[p]) most[p] = scale;
    }
  return FP4MOE_OK;
}

fp4moe_status fp4moe_io_input_scales(const fp4moe_tensors *tensors, const struct io_layer *layer,
                                     fp4moe_layer_desc *desc) {
  int of_layer = desc->input_global == FP4MOE_GLOBAL_LAYER;
  if (desc->precision != FP4MOE_PRECISION_NVFP4 || layer->info.desc.format != FP4MOE_NVFP4 ||
      desc->input_global == FP4MOE_GLOBAL_TOKEN ||
      (of_layer && desc->input_scale_gate_up != 0 && desc->input_scale_down != 0))
    return FP4MOE_OK;
  struct io_reader r = {.tensors = tensors, .layer = layer};
  float most[IO_PROJECTIONS] = {0};
  if (!(r.name = malloc(strlen(layer->prefix) + IO_NAME_ROOM)))
    return fp4moe_fail(FP4MOE_NO_MEMORY, "%.200s: tensor names", layer->prefix);
  fp4moe_status status = find_maxima(&r, desc, most);
  float gate_up = most[IO_GATE] > most[IO_UP] ? most[IO_GATE] : most[IO_UP];
  if (of_layer && desc->input_scale_gate_up == 0) desc->input_scale_gate_up = gate_up;
  if (of_layer && desc->input_scale_down == 0) desc->input_scale_down = most[IO_DOWN];
  free(r.name);
  return status;
}
