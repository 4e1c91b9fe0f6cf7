/* load.c - one layer from disk into packed memory, expert by expert: read.c brings an expert,
 * fp4moe_layer_set_expert packs it. What the core finds wrong is told by the tensor's name. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/checkpoint.h"
#include "io/read.h"
#include "io/tensors.h"
#include "status.h"

/* The core's detail begins with the projection, "up scale [3][1] is NaN"; the tensor goes first. */
static fp4moe_status name_scales(const struct io_reader *r, size_t expert, fp4moe_status status) {
  static const char *const words[IO_PROJECTIONS] = {"gate ", "up ", "down "};
  char text[256];
  snprintf(text, sizeof text, "%s", fp4moe_error_detail());
  for (int p = 0; p < IO_PROJECTIONS; p++) {
    if (strncmp(text, words[p], strlen(words[p])) != 0) continue;
    const fp4moe_tensor *tensor = fp4moe_io_reader_find(r, expert, p, IO_SCALES);
    return fp4moe_fail(status, "%s: tensor '%.160s': expert %zu: %s", tensor->file, tensor->name,
                       expert, text);
  }
  return status;
}

static fp4moe_status load_experts(struct io_reader *r, fp4moe_layer *layer) {
  for (size_t e = 0; e < r->layer->info.desc.experts; e++) {
    fp4moe_expert_weights weights;
    fp4moe_status status = fp4moe_io_reader_expert(r, e, &weights);
    if (status != FP4MOE_OK) return status;
    status = fp4moe_layer_set_expert(layer, e, &weights);
    if (status != FP4MOE_OK) return name_scales(r, e, status);
  }
  return fp4moe_layer_finish(layer);
}

static fp4moe_status load(const fp4moe_tensors *tensors, const struct io_layer *from,
                          fp4moe_layer *layer) {
  struct io_reader reader;
  fp4moe_status status = fp4moe_io_reader_open(tensors, from, &reader);
  if (status != FP4MOE_OK) return status;
  status = load_experts(&reader, layer);
  fp4moe_io_reader_close(&reader);
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
