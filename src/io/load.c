/* load.c - one layer from disk into packed memory, expert by expert.
 *
 * One buffer holds one expert as it lies on disk; fp4moe_layer_set_expert packs from there. The
 * shapes were checked when the checkpoint was opened, so sizes here are facts; the values of
 * globals are not, and are tested as they are read. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/checkpoint.h"
#include "io/tensors.h"
#include "status.h"

struct loader {
  const fp4moe_tensors *tensors;
  const struct io_layer *layer;
  char *name;
  char *buffer;
  size_t used; /* bytes of the buffer filled by this expert */
};

static const int bulk_parts[] = {IO_CODES, IO_SCALES, IO_BIAS};
enum { BULK_PARTS = sizeof bulk_parts / sizeof *bulk_parts };

/* gate of an interleaved family is read together with up. */
static int is_read(const struct io_family *family, int projection) {
  return family->projection[projection] && !(family->interleaved && projection == IO_GATE);
}

static const fp4moe_tensor *find(const struct loader *l, size_t expert, int projection, int part) {
  if (!l->layer->family->part[part]) return NULL;
  return fp4moe_io_layer_tensor(l->tensors, l->layer, expert, projection, part, l->name);
}

/* Bytes of one expert within the tensor, and the room it takes in the buffer. */
static size_t slice_bytes(const struct loader *l, const fp4moe_tensor *tensor) {
  return l->layer->family->stacked ? tensor->bytes / l->layer->info.desc.experts : tensor->bytes;
}

static size_t slice_room(size_t bytes) { return (bytes + 63) & ~(size_t)63; }

/* All experts of a layer have the same shapes: expert 0 tells. */
static size_t buffer_bytes(const struct loader *l) {
  size_t bytes = 0;
  for (int p = 0; p < IO_PROJECTIONS; p++)
    for (int i = 0; is_read(l->layer->family, p) && i < BULK_PARTS; i++) {
      const fp4moe_tensor *tensor = find(l, 0, p, bulk_parts[i]);
      if (tensor) bytes += slice_room(slice_bytes(l, tensor));
    }
  return bytes;
}

static fp4moe_status read_slice(struct loader *l, size_t expert, const fp4moe_tensor *tensor,
                                const void **data) {
  size_t bytes = slice_bytes(l, tensor);
  char *to = l->buffer + l->used;
  l->used += slice_room(bytes);
  *data = to;
  return fp4moe_tensors_read(l->tensors, tensor, l->layer->family->stacked ? expert * bytes : 0,
                             bytes, to);
}

static fp4moe_dtype bias_dtype(const fp4moe_tensor *tensor) {
  return strcmp(tensor->dtype, "BF16") == 0  ? FP4MOE_BF16
         : strcmp(tensor->dtype, "F16") == 0 ? FP4MOE_F16
                                             : FP4MOE_F32;
}

/* The multiplier, finite and not made from nothing: a reciprocal of 0 or Inf has no meaning. */
static fp4moe_status read_global(const struct loader *l, const fp4moe_tensor *tensor,
                                 float *global) {
  float value;
  fp4moe_status status = fp4moe_tensors_read(l->tensors, tensor, 0, sizeof value, &value);
  if (status != FP4MOE_OK) return status;
  *global = l->layer->family->reciprocal ? 1.0f / value : value;
  if (isfinite(value) && isfinite(*global)) return FP4MOE_OK;
  return fp4moe_fail(FP4MOE_INVALID, "%s: tensor '%.200s' is %g: the global would be %g",
                     tensor->file, tensor->name, (double)value, (double)*global);
}

static fp4moe_status read_projection(struct loader *l, size_t expert, int projection,
                                     fp4moe_projection *to) {
  const fp4moe_tensor *tensor = find(l, expert, projection, IO_BIAS);
  const void **const data[BULK_PARTS] = {&to->codes, &to->scales, &to->bias};
  fp4moe_status status = FP4MOE_OK;
  *to = (fp4moe_projection){.global = 1.0f};
  if (tensor) to->bias_dtype = bias_dtype(tensor);
  for (int i = 0; status == FP4MOE_OK && i < BULK_PARTS; i++) {
    tensor = find(l, expert, projection, bulk_parts[i]);
    if (tensor) status = read_slice(l, expert, tensor, data[i]);
  }
  tensor = status == FP4MOE_OK ? find(l, expert, projection, IO_GLOBAL) : NULL;
  return tensor ? read_global(l, tensor, &to->global) : status;
}

/* Rows first, first + 2, ... of a projection of 2N rows that was read whole. */
static fp4moe_projection every_other_row(const struct loader *l, const fp4moe_projection *both,
                                         size_t first) {
  size_t codes = l->layer->info.desc.hidden / 2, scales = l->layer->info.desc.hidden / 32;
  size_t bias = both->bias_dtype == FP4MOE_F32 ? 4 : 2;
  fp4moe_projection half = *both;
  half.codes = (const char *)both->codes + first * codes;
  half.scales = (const char *)both->scales + first * scales;
  half.bias = both->bias ? (const char *)both->bias + first * bias : NULL;
  half.codes_stride = 2 * codes;
  half.scales_stride = 2 * scales;
  half.bias_stride = both->bias ? 2 * bias : 0;
  return half;
}

static fp4moe_status read_expert(struct loader *l, size_t expert, fp4moe_expert_weights *weights) {
  fp4moe_projection *const to[] = {&weights->gate, &weights->up, &weights->down};
  fp4moe_status status = FP4MOE_OK;
  *weights = (fp4moe_expert_weights){.struct_size = sizeof *weights};
  l->used = 0;
  for (int p = 0; status == FP4MOE_OK && p < IO_PROJECTIONS; p++)
    if (is_read(l->layer->family, p)) status = read_projection(l, expert, p, to[p]);
  if (status == FP4MOE_OK && l->layer->family->interleaved) {
    fp4moe_projection both = weights->up;
    weights->gate = every_other_row(l, &both, 0);
    weights->up = every_other_row(l, &both, 1);
  }
  return status;
}

/* The core's detail begins with the projection, "up scale [3][1] is NaN"; the tensor goes first. */
static fp4moe_status name_scales(const struct loader *l, size_t expert, fp4moe_status status) {
  static const char *const words[IO_PROJECTIONS] = {"gate ", "up ", "down "};
  char text[256];
  snprintf(text, sizeof text, "%s", fp4moe_error_detail());
  for (int p = 0; p < IO_PROJECTIONS; p++) {
    if (strncmp(text, words[p], strlen(words[p])) != 0) continue;
    const fp4moe_tensor *tensor = find(l, expert, p, IO_SCALES);
    return fp4moe_fail(status, "%s: tensor '%.160s': expert %zu: %s", tensor->file, tensor->name,
                       expert, text);
  }
  return status;
}

static fp4moe_status load_experts(struct loader *l, fp4moe_layer *layer) {
  for (size_t e = 0; e < l->layer->info.desc.experts; e++) {
    fp4moe_expert_weights weights;
    fp4moe_status status = read_expert(l, e, &weights);
    if (status != FP4MOE_OK) return status;
    status = fp4moe_layer_set_expert(layer, e, &weights);
    if (status != FP4MOE_OK) return name_scales(l, e, status);
  }
  return fp4moe_layer_finish(layer);
}

static fp4moe_status load(const fp4moe_tensors *tensors, const struct io_layer *from,
                          fp4moe_layer *layer) {
  struct loader l = {.tensors = tensors, .layer = from};
  fp4moe_status status;
  l.name = malloc(strlen(from->prefix) + IO_NAME_ROOM);
  if (l.name) l.buffer = aligned_alloc(64, buffer_bytes(&l));
  if (!l.buffer)
    status = fp4moe_fail(FP4MOE_NO_MEMORY, "%.200s: buffer of one expert", from->prefix);
  else
    status = load_experts(&l, layer);
  free(l.buffer);
  free(l.name);
  return status;
}

/* The caller's desc may change how the layer is run, never what it is. */
static fp4moe_status check_desc(const struct io_layer *layer, const fp4moe_layer_desc *desc) {
  const fp4moe_layer_desc *own = &layer->info.desc;
  const struct {
    const char *field;
    size_t asked, have;
  } fields[] = {
      {"hidden", desc->hidden, own->hidden},
      {"intermediate", desc->intermediate, own->intermediate},
      {"experts", desc->experts, own->experts},
      {"format", (size_t)desc->format, (size_t)own->format},
      {"activation.gated", (size_t)desc->activation.gated, (size_t)own->activation.gated},
  };
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
    if (fields[i].asked != fields[i].have)
      return fp4moe_fail(FP4MOE_INVALID, "%.200s: desc.%s is %zu, but the tensors have %zu",
                         layer->prefix, fields[i].field, fields[i].asked, fields[i].have);
  return FP4MOE_OK;
}

fp4moe_status fp4moe_checkpoint_load_layer(const fp4moe_checkpoint *checkpoint, size_t i,
                                           fp4moe_context *context, const fp4moe_layer_desc *desc,
                                           fp4moe_layer **layer) {
  if (!checkpoint || !context || !layer)
    return fp4moe_fail(FP4MOE_INVALID, "fp4moe_checkpoint_load_layer: NULL argument");
  if (i >= checkpoint->count)
    return fp4moe_fail(FP4MOE_INVALID, "layer index %zu, but the checkpoint has %zu", i,
                       checkpoint->count);
  const struct io_layer *from = &checkpoint->layers[i];
  if (!from->info.fp4 || (!desc && from->info.status != FP4MOE_OK))
    return fp4moe_fail(from->info.status, "%s", from->info.reason);
  fp4moe_layer_desc own;
  fp4moe_layer *made;
  fp4moe_status status =
      fp4moe_take_struct(&own, sizeof own, desc ? desc : &from->info.desc, "fp4moe_layer_desc");
  if (status == FP4MOE_OK) status = check_desc(from, &own);
  if (status == FP4MOE_OK) status = fp4moe_layer_begin(context, &own, &made);
  if (status != FP4MOE_OK) return status;
  status = load(checkpoint->tensors, from, made);
  if (status == FP4MOE_OK)
    *layer = made;
  else
    fp4moe_layer_destroy(made);
  return status;
}
