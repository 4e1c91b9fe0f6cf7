/* bind.c - which tensor is which weight, and whether all of them fit together.
 *
 * Sizes come from expert 0's up projection; from then on every tensor of the layer has exactly one
 * dtype class and one shape that is right, so gate, up and down agree or one of them is named. What
 * is left over once all are bound is an error too: an unknown tensor is weight that we would drop.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/checkpoint.h"
#include "io/tensors.h"
#include "status.h"

#define EXPERTS_MAX 65536

struct binder {
  const fp4moe_tensors *tensors;
  struct io_layer *layer;
  char *name;           /* of the tensor last looked for */
  unsigned char *bound; /* [info.tensor_count] */
};

static const char *const legal_dtypes[IO_PARTS][5] = {
    [IO_CODES] = {"U8", "I8"}, [IO_SCALES] = {"U8", "I8"}, /* and the format's own */
    [IO_GLOBAL] = {"F32"},     [IO_INPUT] = {"F32"},       [IO_BIAS] = {"BF16", "F16", "F32"},
};

static fp4moe_status tensor_fail(const fp4moe_tensor *tensor, const char *what, const char *have,
                                 const char *expected) {
  return fp4moe_fail(FP4MOE_INVALID, "%s: tensor '%.160s' has %s %s, expected %s", tensor->file,
                     tensor->name, what, have, expected);
}

static fp4moe_status shape_fail(const fp4moe_tensor *tensor, const char *expected) {
  char shape[IO_SHAPE_TEXT];
  return tensor_fail(tensor, "shape", fp4moe_io_shape_text(tensor->rank, tensor->shape, shape),
                     expected);
}

static fp4moe_status check_dtype(const struct io_layer *layer, const fp4moe_tensor *tensor,
                                 int part) {
  if (part == IO_CODES && layer->family->layout == IO_GGML) {
    const char *type = layer->family->format == FP4MOE_MXFP4 ? "MXFP4" : "NVFP4";
    return strcmp(tensor->dtype, type) == 0 ? FP4MOE_OK
                                            : tensor_fail(tensor, "dtype", tensor->dtype, type);
  }
  const char *own = layer->family->format == FP4MOE_MXFP4 ? "F8_E8M0" : "F8_E4M3";
  if (part == IO_SCALES && strcmp(tensor->dtype, own) == 0) return FP4MOE_OK;
  for (size_t i = 0; legal_dtypes[part][i]; i++)
    if (strcmp(tensor->dtype, legal_dtypes[part][i]) == 0) return FP4MOE_OK;
  return tensor_fail(tensor, "dtype", tensor->dtype,
                     part == IO_SCALES ? own : legal_dtypes[part][0]);
}

/* Outputs of a tensor: twice those of a projection where it has gate and up. */
static size_t tensor_rows(const struct io_layer *layer, int projection) {
  const fp4moe_layer_desc *desc = &layer->info.desc;
  if (projection == IO_DOWN) return desc->hidden;
  return layer->family->fusion == IO_APART ? desc->intermediate : 2 * desc->intermediate;
}

/* The one right shape of codes, scales or a bias. */
static size_t expected_shape(const struct io_layer *layer, int projection, int part,
                             size_t shape[FP4MOE_TENSOR_RANK]) {
  const fp4moe_layer_desc *desc = &layer->info.desc;
  size_t n = tensor_rows(layer, projection), group = fp4moe_io_group(layer), rank = 0;
  size_t k = projection == IO_DOWN ? desc->intermediate : desc->hidden;
  int blocks = part == IO_CODES && layer->family->layout == IO_BLOCKS;
  size_t columns = part == IO_CODES && !blocks ? k / 2 : k / group;
  if (layer->family->layout == IO_GGML) columns = k;
  if (layer->family->stacked) shape[rank++] = desc->experts;
  if (part != IO_BIAS && layer->transposed) shape[rank++] = columns;
  shape[rank++] = n;
  if (part != IO_BIAS && !layer->transposed) shape[rank++] = columns;
  if (blocks) shape[rank++] = group / 2;
  return rank;
}

/* One for all; stacked also [E], [E, 1], and [E, 2] where gate and up share the tensor. */
static fp4moe_status check_global_shape(const struct io_layer *layer, const fp4moe_tensor *tensor,
                                        int projection) {
  int fused = layer->family->fusion != IO_APART && projection != IO_DOWN;
  size_t experts = layer->info.desc.experts;
  char expected[100];
  if (tensor->bytes == sizeof(float)) return FP4MOE_OK;
  if (!layer->family->stacked) return shape_fail(tensor, "one element");
  if (tensor->rank >= 1 && tensor->rank <= 2 && tensor->shape[0] == experts &&
      (tensor->rank == 1 || tensor->shape[1] == 1 || (fused && tensor->shape[1] == 2)))
    return FP4MOE_OK;
  snprintf(expected, sizeof expected, "[], [1], [%zu]%s [%zu, 1]", experts, fused ? "," : " or",
           experts);
  if (fused)
    snprintf(expected + strlen(expected), sizeof expected - strlen(expected), " or [%zu, 2]",
             experts);
  return shape_fail(tensor, expected);
}

static fp4moe_status check_shape(const struct io_layer *layer, const fp4moe_tensor *tensor,
                                 int projection, int part) {
  size_t shape[FP4MOE_TENSOR_RANK];
  char text[IO_SHAPE_TEXT], expected[IO_SHAPE_TEXT + 60];
  if (part == IO_GLOBAL || part == IO_INPUT) return check_global_shape(layer, tensor, projection);
  size_t rank = expected_shape(layer, projection, part, shape);
  if (tensor->rank == rank && memcmp(tensor->shape, shape, rank * sizeof *shape) == 0)
    return FP4MOE_OK;
  snprintf(expected, sizeof expected, "%s (hidden %zu, intermediate %zu)",
           fp4moe_io_shape_text(rank, shape, text), layer->info.desc.hidden,
           layer->info.desc.intermediate);
  return shape_fail(tensor, expected);
}

/* Whether any tensor of this expert is there. */
static int has_expert(const struct binder *b, size_t expert) {
  for (int p = 0; p < IO_PROJECTIONS; p++)
    for (int part = 0; b->layer->family->projection[p] && part < IO_PARTS; part++)
      if (b->layer->family->part[part] &&
          fp4moe_io_layer_tensor(b->tensors, b->layer, expert, p, part, b->name))
        return 1;
  return 0;
}

/* Names the missing tensor, or the expert when all of it is missing. */
static fp4moe_status missing(const struct binder *b, size_t expert, int projection, int part) {
  const char *file = fp4moe_tensors_at(b->tensors, b->layer->info.first_tensor)->file;
  int hole = !has_expert(b, expert);
  fp4moe_io_layer_tensor(b->tensors, b->layer, expert, projection, part, b->name);
  if (hole)
    return fp4moe_fail(FP4MOE_INVALID,
                       "%s: expert %zu of 0 to %zu is missing: no tensor '%.200s' nor others of it",
                       file, expert, b->layer->info.desc.experts - 1, b->name);
  return fp4moe_fail(FP4MOE_INVALID, "%s: tensor '%.200s' is missing", file, b->name);
}

/* A part that no projection of the layer needs to have, and this one alone has not. */
static int is_optional(const struct binder *b, size_t expert, int part) {
  const struct io_family *family = b->layer->family;
  if (part == IO_INPUT) return 1; /* weight-only */
  if (family->layout != IO_GGML || part == IO_CODES) return 0;
  for (int p = 0; p < IO_PROJECTIONS; p++)
    if (family->projection[p] &&
        fp4moe_io_layer_tensor(b->tensors, b->layer, expert, p, part, b->name))
      return 0;
  return 1;
}

static fp4moe_status bind_tensor(const struct binder *b, size_t expert, int projection, int part) {
  const struct io_layer *layer = b->layer;
  const fp4moe_tensor *tensor =
      fp4moe_io_layer_tensor(b->tensors, layer, expert, projection, part, b->name);
  if (!tensor && is_optional(b, expert, part)) return FP4MOE_OK;
  if (!tensor) return missing(b, expert, projection, part);
  size_t i = (size_t)((const struct io_entry *)tensor - b->tensors->entries);
  b->bound[i - layer->info.first_tensor] = 1;
  fp4moe_status status = check_dtype(layer, tensor, part);
  return status == FP4MOE_OK ? check_shape(layer, tensor, projection, part) : status;
}

static fp4moe_status bind_expert(const struct binder *b, size_t expert) {
  const struct io_family *family = b->layer->family;
  for (int p = 0; p < IO_PROJECTIONS; p++)
    for (int part = 0; family->projection[p] && part < IO_PARTS; part++) {
      if (!family->part[part]) continue;
      fp4moe_status status = bind_tensor(b, expert, p, part);
      if (status != FP4MOE_OK) return status;
    }
  return FP4MOE_OK;
}

/* Numbered: the highest number + 1. Names without a proper number stay unbound, for later. */
static fp4moe_status count_numbered(const struct binder *b) {
  struct io_layer *layer = b->layer;
  size_t experts = 0, e;
  const char *rest;
  for (size_t i = 0; i < layer->info.tensor_count; i++) {
    const fp4moe_tensor *tensor = fp4moe_tensors_at(b->tensors, layer->info.first_tensor + i);
    if (!fp4moe_io_expert_number(layer, tensor->name, EXPERTS_MAX - 1, &e, &rest)) continue;
    if (e >= EXPERTS_MAX)
      return fp4moe_fail(FP4MOE_INVALID, "%s: tensor '%.200s': expert number above %d",
                         tensor->file, tensor->name, EXPERTS_MAX - 1);
    if (e >= experts) experts = e + 1;
  }
  layer->info.desc.experts = experts;
  return FP4MOE_OK;
}

static fp4moe_status sizes_numbered(const struct binder *b, const fp4moe_tensor *up) {
  if (up->rank != 2) return shape_fail(up, "rank 2");
  b->layer->info.desc.intermediate = up->shape[0];
  b->layer->info.desc.hidden = 2 * up->shape[1];
  return FP4MOE_OK;
}

static fp4moe_status sizes_blocks(const struct binder *b, const fp4moe_tensor *up) {
  fp4moe_layer_desc *desc = &b->layer->info.desc;
  if (up->rank != 4 || up->shape[1] % 2 || up->shape[3] != fp4moe_io_group(b->layer) / 2)
    return shape_fail(up, "[experts, 2 x intermediate, hidden / 32, 16]");
  desc->experts = up->shape[0];
  desc->intermediate = up->shape[1] / 2;
  desc->hidden = up->shape[2] * fp4moe_io_group(b->layer);
  return FP4MOE_OK;
}

/* [E, 2I, H/2] with scales [E, 2I, H/16], or [E, H/2, 2I] with [E, H/16, 2I]: one of the two. */
static fp4moe_status sizes_oriented(const struct binder *b, const fp4moe_tensor *up) {
  struct io_layer *layer = b->layer;
  const fp4moe_tensor *scales =
      fp4moe_io_layer_tensor(b->tensors, layer, 0, IO_UP, IO_SCALES, b->name);
  const size_t *c = up->shape, ratio = fp4moe_io_group(layer) / 2;
  char expected[2 * IO_SHAPE_TEXT], one[IO_SHAPE_TEXT];
  if (!scales) return missing(b, 0, IO_UP, IO_SCALES);
  const size_t *s = scales->shape;
  int ranks = up->rank == 3 && scales->rank == 3 && c[0] == s[0];
  int rows = ranks && c[1] % 2 == 0 && s[1] == c[1] && c[2] / ratio == s[2] && c[2] % ratio == 0;
  int swapped = ranks && c[2] % 2 == 0 && s[2] == c[2] && c[1] / ratio == s[1] && c[1] % ratio == 0;
  if (rows == swapped) {
    snprintf(expected, sizeof expected,
             "one way only to read it and the scales %s as [E, 2N, K/2] and [E, 2N, K/%zu] or as "
             "[E, K/2, 2N] and [E, K/%zu, 2N]",
             fp4moe_io_shape_text(scales->rank, s, one), 2 * ratio, 2 * ratio);
    return shape_fail(up, expected);
  }
  layer->transposed = swapped;
  layer->info.desc.experts = c[0];
  layer->info.desc.intermediate = c[swapped ? 2 : 1] / 2;
  layer->info.desc.hidden = 2 * c[swapped ? 1 : 2];
  return FP4MOE_OK;
}

static fp4moe_status sizes_ggml(const struct binder *b, const fp4moe_tensor *up) {
  fp4moe_layer_desc *desc = &b->layer->info.desc;
  if (up->rank != 3) return shape_fail(up, "[experts, intermediate, hidden]");
  desc->experts = up->shape[0];
  desc->intermediate = up->shape[1];
  desc->hidden = up->shape[2];
  return FP4MOE_OK;
}

static fp4moe_status sizes_of(const struct binder *b, const fp4moe_tensor *up) {
  const struct io_family *family = b->layer->family;
  if (!family->stacked) return sizes_numbered(b, up);
  fp4moe_status status = family->layout == IO_BLOCKS ? sizes_blocks(b, up)
                         : family->layout == IO_GGML ? sizes_ggml(b, up)
                                                     : sizes_oriented(b, up);
  if (status == FP4MOE_OK && up->shape[0] > EXPERTS_MAX)
    return shape_fail(up, "at most 65536 experts");
  return status;
}

/* Tells one format's codes from another's before sizes are made of them. */
static fp4moe_status check_scales_dtype(const struct binder *b) {
  if (!b->layer->family->part[IO_SCALES]) return FP4MOE_OK;
  const fp4moe_tensor *scales =
      fp4moe_io_layer_tensor(b->tensors, b->layer, 0, IO_UP, IO_SCALES, b->name);
  return scales ? check_dtype(b->layer, scales, IO_SCALES) : FP4MOE_OK;
}

static fp4moe_status find_sizes(const struct binder *b) {
  struct io_layer *layer = b->layer;
  fp4moe_status status = layer->family->stacked ? FP4MOE_OK : count_numbered(b);
  if (status != FP4MOE_OK) return status;
  const fp4moe_tensor *up = fp4moe_io_layer_tensor(b->tensors, layer, 0, IO_UP, IO_CODES, b->name);
  if (!up) return missing(b, 0, IO_UP, IO_CODES);
  status = check_dtype(layer, up, IO_CODES);
  if (status == FP4MOE_OK) status = check_scales_dtype(b);
  if (status != FP4MOE_OK) return status;
  if (up->bytes == 0) return shape_fail(up, "one that is not empty");
  status = sizes_of(b, up);
  const fp4moe_layer_desc *desc = &layer->info.desc;
  size_t group = fp4moe_io_group(layer);
  if (status != FP4MOE_OK || (desc->hidden % group | desc->intermediate % group) == 0)
    return status;
  return fp4moe_fail(FP4MOE_INVALID,
                     "%s: tensor '%.160s': hidden %zu and intermediate %zu are not both multiples "
                     "of %zu",
                     up->file, up->name, desc->hidden, desc->intermediate, group);
}

/* Names as many unbound tensors as the detail has room for. */
static fp4moe_status check_all_bound(const struct binder *b) {
  const fp4moe_checkpoint_layer *info = &b->layer->info;
  char list[256] = "";
  size_t unbound = 0, at = 0;
  for (size_t i = 0; i < info->tensor_count; i++) {
    const fp4moe_tensor *tensor = fp4moe_tensors_at(b->tensors, info->first_tensor + i);
    if (b->bound[i] || !fp4moe_io_expert_prefix(tensor->name)) continue;
    if (at < sizeof list)
      at += (size_t)snprintf(list + at, sizeof list - at, "%s'%.200s'", unbound ? ", " : "",
                             tensor->name);
    unbound++;
  }
  if (!unbound) return FP4MOE_OK;
  return fp4moe_fail(FP4MOE_INVALID, "%s: %zu expert tensors that %s does not have: %s",
                     fp4moe_tensors_at(b->tensors, info->first_tensor)->file, unbound, info->family,
                     list);
}

fp4moe_status fp4moe_io_layer_bind(const fp4moe_tensors *tensors, struct io_layer *layer) {
  struct binder b = {tensors, layer, malloc(strlen(layer->prefix) + IO_NAME_ROOM),
                     calloc(layer->info.tensor_count, 1)};
  fp4moe_status status = FP4MOE_OK;
  layer->info.desc.format = layer->family->format;
  if (!b.name || !b.bound)
    status = fp4moe_fail(FP4MOE_NO_MEMORY, "%.200s: tensor names", layer->prefix);
  if (status == FP4MOE_OK) status = find_sizes(&b);
  for (size_t e = 0; status == FP4MOE_OK && e < layer->info.desc.experts; e++)
    if (e == 0 || !layer->family->stacked) status = bind_expert(&b, e);
  if (status == FP4MOE_OK) status = check_all_bound(&b);
  free(b.name);
  free(b.bound);
  return status;
}
