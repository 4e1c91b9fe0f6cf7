/* floats_read.c - the floats of an FP4 tensor (see floats.h).
 *
 * There are 16 codes and 256 scales, so a global has 4096 possible weights: they are formed once,
 * in double precision where the product is exact, rounded to the dtype, and then only looked up. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cpu.h"
#include "fp4.h"
#include "io/floats.h"
#include "io/ggml.h"
#include "status.h"

enum { SCALES = 256, CODES = 16 };

struct decoder {
  const struct io_fp4 *f;
  fp4moe_dtype dtype;
  uint32_t weights[2][SCALES][CODES]; /* bits of the dtype; [1]: up, where it has its own global */
  uint8_t *codes, *scales, *blocks;   /* one slice; blocks: of GGUF, NULL where there are none */
};

/* To nearest even in one step: FP32 rounded to odd on the way keeps what the second one needs.
 * Subnormals stay, unlike in activations. */
static uint32_t to_bf16(double x) {
  float f = (float)x;
  uint32_t bits = fp4_f32_bits(f);
  if ((double)f != x && !(bits & 1)) bits += fabs(x) > fabs((double)f) ? 1 : UINT32_MAX;
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

static void form_weights(struct decoder *d, float global, uint32_t weights[SCALES][CODES]) {
  for (unsigned s = 0; s < SCALES; s++) {
    float scale = d->f->format == FP4MOE_MXFP4 ? fp4_e8m0((uint8_t)s) : fp4_e4m3((uint8_t)s);
    for (unsigned c = 0; c < CODES; c++) {
      double x = (double)fp4_e2m1(c) * (double)scale * (double)global;
      weights[s][c] = d->dtype == FP4MOE_BF16 ? to_bf16(x) : fp4_f32_bits((float)x);
    }
  }
}

static fp4moe_status form_global(struct decoder *d, const fp4moe_tensors *tensors, size_t index,
                                 uint32_t weights[SCALES][CODES]) {
  const fp4moe_tensor *g = d->f->global;
  float value = 1;
  fp4moe_status status = FP4MOE_OK;
  if (g) status = fp4moe_tensors_read(tensors, g, index * sizeof value, sizeof value, &value);
  if (status != FP4MOE_OK) return status;
  float global = d->f->reciprocal ? 1.0f / value : value;
  if (!isfinite(value) || !isfinite(global))
    return fp4moe_fail(FP4MOE_INVALID, "%s: tensor '%.200s' is %g at index %zu: no global of one",
                       g->file, g->name, (double)value, index);
  form_weights(d, global, weights);
  return FP4MOE_OK;
}

/* The tables of a slice: that of the one before it serves where there is one global for all. */
static fp4moe_status form_slice(struct decoder *d, const fp4moe_tensors *tensors, size_t slice) {
  const struct io_fp4 *f = d->f;
  size_t globals = f->global ? f->global->bytes / sizeof(float) : 1;
  if (globals == 1) return slice ? FP4MOE_OK : form_global(d, tensors, 0, d->weights[0]);
  if (f->fusion == IO_APART) return form_global(d, tensors, slice, d->weights[0]);
  fp4moe_status status = form_global(d, tensors, 2 * slice, d->weights[0]);
  return status ? status : form_global(d, tensors, 2 * slice + 1, d->weights[1]);
}

static fp4moe_status check_scales(const struct decoder *d, size_t slice, size_t bytes) {
  const struct io_fp4 *f = d->f;
  const fp4moe_tensor *from = f->scales ? f->scales : f->codes;
  for (size_t i = 0; i < bytes; i++)
    if (f->format == FP4MOE_MXFP4 ? d->scales[i] == 0xff : (d->scales[i] & 0x7f) == 0x7f)
      return fp4moe_fail(FP4MOE_INVALID, "%s: tensor '%.160s' is NaN at index %zu (byte %#x)",
                         from->file, from->name, slice * bytes + i, d->scales[i]);
  return FP4MOE_OK;
}

/* Whether an output row belongs to up, in a tensor that has a global for each. */
static int is_up(const struct io_fp4 *f, size_t row, size_t rows) {
  if (f->fusion == IO_INTERLEAVED) return row % 2;
  return f->fusion == IO_HALVES && row >= rows / 2;
}

static void put(const struct decoder *d, void *out, size_t i, uint32_t bits) {
  if (d->dtype == FP4MOE_BF16)
    ((uint16_t *)out)[i] = (uint16_t)bits;
  else
    ((uint32_t *)out)[i] = bits;
}

static void decode_slice(const struct decoder *d, void *out) {
  const struct io_fp4 *f = d->f;
  size_t ratio = f->format == FP4MOE_MXFP4 ? 16 : 8, columns = f->columns;
  for (size_t r = 0; r < f->rows; r++)
    for (size_t c = 0; c < columns; c++) {
      uint8_t byte = d->codes[r * columns + c];
      size_t scale = f->transposed ? r / ratio * columns + c : (r * columns + c) / ratio;
      int up = f->transposed ? is_up(f, c, columns) : is_up(f, r, f->rows);
      const uint32_t *weights = d->weights[up][d->scales[scale]];
      size_t even = f->transposed ? 2 * r * columns + c : 2 * (r * columns + c);
      put(d, out, even, weights[byte & 15]);
      put(d, out, even + (f->transposed ? columns : 1), weights[byte >> 4]);
    }
}

static size_t slice_codes(const struct io_fp4 *f) { return f->rows * f->columns; }
static size_t slice_scales(const struct io_fp4 *f) {
  return slice_codes(f) / (f->format == FP4MOE_MXFP4 ? 16 : 8);
}

/* Codes and scales of a slice, each in its own order. */
static fp4moe_status read_slice(const struct decoder *d, const fp4moe_tensors *tensors, size_t s) {
  const struct io_fp4 *f = d->f;
  size_t codes = slice_codes(f), scales = slice_scales(f), bytes = f->codes->bytes / f->slices;
  fp4moe_status status;
  if (f->scales) {
    status = fp4moe_tensors_read(tensors, f->codes, s * codes, codes, d->codes);
    return status ? status : fp4moe_tensors_read(tensors, f->scales, s * scales, scales, d->scales);
  }
  status = fp4moe_tensors_read(tensors, f->codes, s * bytes, bytes, d->blocks);
  if (!status) fp4moe_io_ggml_unblock(f->format, 2 * codes, d->blocks, d->codes, d->scales);
  return status;
}

static fp4moe_status read_slices(struct decoder *d, const fp4moe_tensors *tensors, void *out) {
  const struct io_fp4 *f = d->f;
  size_t element = d->dtype == FP4MOE_BF16 ? 2 : 4;
  fp4moe_status status = FP4MOE_OK;
  for (size_t s = 0; status == FP4MOE_OK && s < f->slices; s++) {
    status = read_slice(d, tensors, s);
    if (!status) status = check_scales(d, s, slice_scales(f));
    if (!status) status = form_slice(d, tensors, s);
    if (!status) decode_slice(d, (char *)out + s * 2 * slice_codes(f) * element);
  }
  return status;
}

fp4moe_status fp4moe_io_fp4_read(const fp4moe_tensors *tensors, const struct io_fp4 *f,
                                 fp4moe_dtype dtype, void *out) {
  fp4moe_status status;
  uint64_t mode = fp4moe_fp_enter();
  struct decoder *d = malloc(sizeof *d);
  if (d)
    *d = (struct decoder){.f = f,
                          .dtype = dtype,
                          .codes = malloc(slice_codes(f)),
                          .scales = malloc(slice_scales(f)),
                          .blocks = f->scales ? NULL : malloc(f->codes->bytes / f->slices)};
  if (d && d->codes && d->scales && (f->scales || d->blocks))
    status = read_slices(d, tensors, out);
  else
    status = fp4moe_fail(FP4MOE_NO_MEMORY, "%.160s: one slice", f->codes->name);
  if (d) free(d->codes);
  if (d) free(d->scales);
  if (d) free(d->blocks);
  free(d);
  fp4moe_fp_leave(mode);
  return status;
}
