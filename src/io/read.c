/* read.c - one expert of a bound layer from disk (see read.h).
 *
 * One buffer holds one expert; what lies on disk with swapped axes or in blocks passes through a
 * strip of 2 MiB on its way there. The shapes were checked when the checkpoint was opened, so sizes
 * here are facts; the values of globals are not, and are tested as they are read. */
#include "io/read.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/ggml.h"
#include "io/tensors.h"
#include "io/transpose.h"
#include "status.h"

static const int bulk_parts[] = {IO_CODES, IO_SCALES, IO_BIAS};
enum { BULK_PARTS = sizeof bulk_parts / sizeof *bulk_parts };

/* Gate of a fused family is read together with up. */
static int is_read(const struct io_family *family, int projection) {
  return family->projection[projection] && !(family->fusion != IO_APART && projection == IO_GATE);
}

const fp4moe_tensor *fp4moe_io_reader_find(const struct io_reader *r, size_t expert, int projection,
                                           int part) {
  if (!r->layer->family->part[part]) return NULL;
  return fp4moe_io_layer_tensor(r->tensors, r->layer, expert, projection, part, r->name);
}

/* ---- Memory ---- */

/* Bytes of one expert within the tensor, and the room it takes in the buffer. */
static size_t slice_bytes(const struct io_reader *r, const fp4moe_tensor *tensor) {
  return r->layer->family->stacked ? tensor->bytes / r->layer->info.desc.experts : tensor->bytes;
}

static size_t slice_room(size_t bytes) { return (bytes + 63) & ~(size_t)63; }

/* Whether a part passes through the strip. */
static int is_rearranged(const struct io_layer *layer, int part) {
  return part != IO_BIAS && (layer->transposed || layer->family->layout == IO_GGML);
}

/* Rows that a strip has of a tensor of `columns` bytes a row. */
static size_t strip_rows(size_t rows, size_t columns) {
  size_t fit = ((size_t)2 << 20) / columns & ~(size_t)63;
  if (fit < 64) fit = 64;
  return fit < rows ? fit : rows;
}

/* All experts of a layer have the same shapes: expert 0 tells. */
static size_t buffer_bytes(const struct io_reader *r, size_t *strip) {
  size_t bytes = 0;
  *strip = 0;
  for (int p = 0; p < IO_PROJECTIONS; p++)
    for (int i = 0; is_read(r->layer->family, p) && i < BULK_PARTS; i++) {
      const fp4moe_tensor *tensor = fp4moe_io_reader_find(r, 0, p, bulk_parts[i]);
      if (!tensor) continue;
      bytes += slice_room(slice_bytes(r, tensor));
      if (!is_rearranged(r->layer, bulk_parts[i])) continue;
      size_t columns = slice_bytes(r, tensor) / tensor->shape[1];
      size_t need = strip_rows(tensor->shape[1], columns) * columns;
      if (need > *strip) *strip = need;
    }
  return bytes;
}

fp4moe_status fp4moe_io_reader_open(const fp4moe_tensors *tensors, const struct io_layer *layer,
                                    struct io_reader *r) {
  size_t strip = 0;
  *r = (struct io_reader){.tensors = tensors, .layer = layer};
  r->name = malloc(strlen(layer->prefix) + IO_NAME_ROOM);
  if (r->name) r->buffer = aligned_alloc(64, buffer_bytes(r, &strip));
  if (strip) r->strip = malloc(strip);
  if (r->buffer && (r->strip || !strip)) return FP4MOE_OK;
  fp4moe_io_reader_close(r);
  return fp4moe_fail(FP4MOE_NO_MEMORY, "%.200s: buffer of one expert", layer->prefix);
}

void fp4moe_io_reader_close(struct io_reader *r) {
  free(r->strip);
  free(r->buffer);
  free(r->name);
}

/* ---- One part of one projection ---- */

/* One strip of n rows, from row `at` of those of the expert, to where it belongs in `to`. */
static void put_strip(const struct io_reader *r, const fp4moe_tensor *tensor, size_t at, size_t n,
                      const fp4moe_projection *to, char *data) {
  size_t rows = tensor->shape[1], k = tensor->shape[2];
  if (r->layer->transposed)
    fp4moe_io_transpose(n, k, r->strip, data + at, rows);
  else
    fp4moe_io_ggml_unblock(r->layer->family->format, n * k, r->strip,
                           (uint8_t *)data + at * to->codes_stride,
                           (uint8_t *)data + rows * to->codes_stride + at * to->scales_stride);
}

/* The slice at `offset` of a tensor, strip by strip; unblocked codes are followed by scales. */
static fp4moe_status read_strips(const struct io_reader *r, const fp4moe_tensor *tensor,
                                 size_t offset, const fp4moe_projection *to, char *data) {
  size_t rows = tensor->shape[1], columns = slice_bytes(r, tensor) / rows;
  size_t most = strip_rows(rows, columns);
  for (size_t at = 0, n; at < rows; at += n) {
    n = rows - at < most ? rows - at : most;
    fp4moe_status status =
        fp4moe_tensors_read(r->tensors, tensor, offset + at * columns, n * columns, r->strip);
    if (status != FP4MOE_OK) return status;
    put_strip(r, tensor, at, n, to, data);
  }
  return FP4MOE_OK;
}

static fp4moe_status read_slice(struct io_reader *r, size_t expert, const fp4moe_tensor *tensor,
                                int part, fp4moe_projection *to) {
  const void **const fields[IO_PARTS] = {
      [IO_CODES] = &to->codes, [IO_SCALES] = &to->scales, [IO_BIAS] = &to->bias};
  size_t bytes = slice_bytes(r, tensor), offset = r->layer->family->stacked ? expert * bytes : 0;
  char *data = r->buffer + r->used;
  r->used += slice_room(bytes);
  *fields[part] = data;
  if (part == IO_CODES && r->layer->family->layout == IO_GGML)
    to->scales = data + tensor->shape[1] * to->codes_stride;
  if (is_rearranged(r->layer, part)) return read_strips(r, tensor, offset, to, data);
  return fp4moe_tensors_read(r->tensors, tensor, offset, bytes, data);
}

static fp4moe_status read_bulk(struct io_reader *r, size_t expert, int projection,
                               fp4moe_projection *to) {
  const fp4moe_layer_desc *desc = &r->layer->info.desc;
  const fp4moe_tensor *bias = fp4moe_io_reader_find(r, expert, projection, IO_BIAS);
  size_t k = projection == IO_DOWN ? desc->intermediate : desc->hidden;
  fp4moe_status status = FP4MOE_OK;
  *to = (fp4moe_projection){.codes_stride = k / 2, .scales_stride = k / fp4moe_io_group(r->layer)};
  if (bias) to->bias_dtype = fp4moe_io_float_dtype(bias->dtype);
  if (bias) to->bias_stride = to->bias_dtype == FP4MOE_F32 ? 4 : 2;
  for (int i = 0; status == FP4MOE_OK && i < BULK_PARTS; i++) {
    const fp4moe_tensor *tensor = fp4moe_io_reader_find(r, expert, projection, bulk_parts[i]);
    if (tensor) status = read_slice(r, expert, tensor, bulk_parts[i], to);
  }
  return status;
}

/* The multiplier, finite and not made from nothing: a reciprocal of 0 or Inf has no meaning. */
static fp4moe_status read_global(const struct io_reader *r, size_t expert, int projection,
                                 float *global) {
  const fp4moe_tensor *tensor = fp4moe_io_reader_find(r, expert, projection, IO_GLOBAL);
  float value;
  *global = 1;
  if (!tensor) return FP4MOE_OK;
  size_t i = fp4moe_io_global_index(tensor, expert, projection);
  fp4moe_status status =
      fp4moe_tensors_read(r->tensors, tensor, i * sizeof value, sizeof value, &value);
  if (status != FP4MOE_OK) return status;
  *global = r->layer->family->reciprocal ? 1.0f / value : value;
  if (isfinite(value) && isfinite(*global)) return FP4MOE_OK;
  if (tensor->bytes == sizeof value)
    return fp4moe_fail(FP4MOE_INVALID, "%s: tensor '%.200s' is %g: the global would be %g",
                       tensor->file, tensor->name, (double)value, (double)*global);
  return fp4moe_fail(FP4MOE_INVALID, "%s: tensor '%.200s' is %g at index %zu: no global of one",
                     tensor->file, tensor->name, (double)value, i);
}

/* ---- The expert ---- */

fp4moe_projection fp4moe_io_take_rows(const fp4moe_projection *all, size_t first, size_t step) {
  fp4moe_projection some = *all;
  some.codes = (const char *)all->codes + first * all->codes_stride;
  some.scales = (const char *)all->scales + first * all->scales_stride;
  if (all->bias) some.bias = (const char *)all->bias + first * all->bias_stride;
  some.codes_stride *= step;
  some.scales_stride *= step;
  some.bias_stride *= step;
  return some;
}

static void split_fused(const struct io_layer *layer, fp4moe_expert_weights *weights) {
  const fp4moe_projection both = weights->up;
  int halves = layer->family->fusion == IO_HALVES;
  size_t step = halves ? 1 : 2, up = halves ? layer->info.desc.intermediate : 1;
  weights->gate = fp4moe_io_take_rows(&both, 0, step);
  weights->up = fp4moe_io_take_rows(&both, up, step);
}

fp4moe_status fp4moe_io_reader_expert(struct io_reader *r, size_t expert,
                                      fp4moe_expert_weights *weights) {
  fp4moe_projection *const to[] = {&weights->gate, &weights->up, &weights->down};
  const struct io_family *family = r->layer->family;
  fp4moe_status status = FP4MOE_OK;
  *weights = (fp4moe_expert_weights){.struct_size = sizeof *weights};
  r->used = 0;
  for (int p = 0; status == FP4MOE_OK && p < IO_PROJECTIONS; p++)
    if (is_read(family, p)) status = read_bulk(r, expert, p, to[p]);
  if (status == FP4MOE_OK && family->fusion != IO_APART) split_fused(r->layer, weights);
  for (int p = 0; status == FP4MOE_OK && p < IO_PROJECTIONS; p++) {
    if (!family->projection[p]) continue;
    status = read_global(r, expert, p, &to[p]->global);
    if (status == FP4MOE_OK)
      status = fp4moe_io_reader_input_scale(r, expert, p, &to[p]->input_scale);
  }
  return status;
}
