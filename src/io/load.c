/* load.c - one layer from disk, expert by expert, into packed memory or to whoever wants it: read.c
 * brings an expert, fp4moe_layer_set_expert packs it. What the core finds wrong is told by the
 * tensor's name. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu.h"
#include "io/checkpoint.h"
#include "io/packed.h"
#include "io/read.h"
#include "io/tensors.h"
#include "layout.h"
#include "status.h"

/* The rank's share of I: rows of gate and up, columns of down. */
static void cut_intermediate(const struct io_part *part, fp4moe_expert_weights *w) {
  fp4moe_projection *down = &w->down;
  size_t group = fp4_group(part->desc.format);
  if (part->desc.activation.gated) w->gate = fp4moe_io_take_rows(&w->gate, part->first, 1);
  w->up = fp4moe_io_take_rows(&w->up, part->first, 1);
  down->codes = (const char *)down->codes + part->first / 2;
  down->scales = (const char *)down->scales + part->first / group;
  if (part->rank) down->bias = NULL;
}

/* The core's detail begins with the projection, "up scale [3][1] is NaN"; the tensor goes first. */
static fp4moe_status name_scales(const struct io_reader *r, const struct io_part *part,
                                 size_t expert, fp4moe_status status) {
  static const char *const words[IO_PROJECTIONS] = {"gate ", "up ", "down "};
  char text[256], from[60] = "";
  snprintf(text, sizeof text, "%s", fp4moe_error_detail());
  if (part->split == FP4MOE_SPLIT_INTERMEDIATE)
    snprintf(from, sizeof from, ", intermediate from %zu", part->first);
  for (int p = 0; p < IO_PROJECTIONS; p++) {
    if (strncmp(text, words[p], strlen(words[p])) != 0) continue;
    int of_scales = r->layer->family->part[IO_SCALES] ? IO_SCALES : IO_CODES;
    const fp4moe_tensor *tensor = fp4moe_io_reader_find(r, expert, p, of_scales);
    return fp4moe_fail(status, "%s: tensor '%.160s': expert %zu%s: %s", tensor->file, tensor->name,
                       expert, from, text);
  }
  return status;
}

static fp4moe_status each_expert(struct io_reader *r, const struct io_part *part,
                                 fp4moe_io_expert_fn *take, void *arg) {
  size_t first = part->split == FP4MOE_SPLIT_EXPERTS ? part->first : 0;
  for (size_t e = 0; e < part->desc.experts; e++) {
    fp4moe_expert_weights weights;
    fp4moe_status status = fp4moe_io_reader_expert(r, first + e, &weights);
    if (status != FP4MOE_OK) return status;
    if (part->split == FP4MOE_SPLIT_INTERMEDIATE) cut_intermediate(part, &weights);
    status = take(arg, e, &weights);
    if (status != FP4MOE_OK) return name_scales(r, part, first + e, status);
  }
  return FP4MOE_OK;
}

fp4moe_status fp4moe_io_each_expert(const fp4moe_tensors *tensors, const struct io_layer *from,
                                    const struct io_part *part, fp4moe_io_expert_fn *take,
                                    void *arg) {
  struct io_reader reader;
  fp4moe_status status = fp4moe_io_reader_open(tensors, from, &reader);
  if (status != FP4MOE_OK) return status;
  status = each_expert(&reader, part, take, arg);
  fp4moe_io_reader_close(&reader);
  return status;
}

static fp4moe_status set_expert(void *layer, size_t e, const fp4moe_expert_weights *weights) {
  return fp4moe_layer_set_expert(layer, e, weights);
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
                         layer->info.prefix, fields[i].field, fields[i].asked, fields[i].have);
  return FP4MOE_OK;
}

fp4moe_status fp4moe_io_choose_part(const struct io_layer *from, const fp4moe_layer_desc *desc,
                                    const fp4moe_slice *slice, struct io_part *part) {
  static const fp4moe_slice all = {.struct_size = sizeof all};
  fp4moe_layer_desc own;
  if (!slice) slice = &all;
  fp4moe_status status =
      fp4moe_take_struct(&own, sizeof own, desc ? desc : &from->info.desc, "fp4moe_layer_desc");
  if (status == FP4MOE_OK) status = check_desc(from, &own);
  if (status == FP4MOE_OK && own.activation.kind == FP4MOE_ACTIVATION_UNKNOWN && *from->info.reason)
    return fp4moe_fail(from->info.status, "%s", from->info.reason);
  if (status == FP4MOE_OK) status = fp4moe_slice_desc(slice, &own, &part->desc, &part->first);
  if (status != FP4MOE_OK) return status;
  part->split = slice->split;
  part->rank = slice->rank;
  return FP4MOE_OK;
}

static fp4moe_status load_slice(const fp4moe_checkpoint *checkpoint, size_t i,
                                fp4moe_context *context, const fp4moe_layer_desc *desc,
                                const fp4moe_slice *slice, fp4moe_layer **layer) {
  if (!checkpoint || !context || !layer)
    return fp4moe_fail(FP4MOE_INVALID, "fp4moe_checkpoint_load_layer: NULL argument");
  if (i >= checkpoint->count)
    return fp4moe_fail(FP4MOE_INVALID, "layer index %zu, but the checkpoint has %zu", i,
                       checkpoint->count);
  const struct io_layer *from = &checkpoint->layers[i];
  if (!from->info.fp4) return fp4moe_fail(from->info.status, "%s", from->info.reason);
  struct io_part part;
  fp4moe_layer *made;
  fp4moe_status status = fp4moe_io_choose_part(from, desc, slice, &part);
  if (status == FP4MOE_OK && checkpoint->packed)
    return fp4moe_io_packed_load(checkpoint->packed, from->packed, &part, context, layer);
  if (status == FP4MOE_OK) status = fp4moe_io_input_scales(checkpoint->tensors, from, &part.desc);
  if (status == FP4MOE_OK) status = fp4moe_layer_begin(context, &part.desc, &made);
  if (status != FP4MOE_OK) return status;
  status = fp4moe_io_each_expert(checkpoint->tensors, from, &part, set_expert, made);
  if (status == FP4MOE_OK) status = fp4moe_layer_finish(made);
  if (status == FP4MOE_OK)
    *layer = made;
  else
    fp4moe_layer_destroy(made);
  return status;
}

fp4moe_status fp4moe_checkpoint_load_slice(const fp4moe_checkpoint *checkpoint, size_t i,
                                           fp4moe_context *context, const fp4moe_layer_desc *desc,
                                           const fp4moe_slice *slice, fp4moe_layer **layer) {
  uint64_t mode = fp4moe_fp_enter();
  fp4moe_status status = load_slice(checkpoint, i, context, desc, slice, layer);
  fp4moe_fp_leave(mode);
  return status;
}

fp4moe_status fp4moe_checkpoint_load_layer(const fp4moe_checkpoint *checkpoint, size_t i,
                                           fp4moe_context *context, const fp4moe_layer_desc *desc,
                                           fp4moe_layer **layer) {
  return fp4moe_checkpoint_load_slice(checkpoint, i, context, desc, NULL, layer);
}
