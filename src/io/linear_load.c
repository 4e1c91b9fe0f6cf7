/* linear_load.c - a dense FP4 matrix from disk into a linear of the library (fp4moe_io.h). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu.h"
#include "io/checkpoint.h"
#include "io/ggml.h"
#include "io/linear.h"
#include "io/tensors.h"
#include "input_scale.h"
#include "layout.h"
#include "status.h"

/* A float that may be absent, as a multiplier. */
static fp4moe_status read_scalar(const fp4moe_tensors *tensors, const struct io_linear *l,
                                 const fp4moe_tensor *tensor, float *value) {
  if (!tensor) return FP4MOE_OK;
  fp4moe_status status = fp4moe_tensors_read(tensors, tensor, 0, sizeof *value, value);
  if (l->reciprocal) *value = 1.0f / *value;
  return status;
}

static fp4moe_status read_scalars(const fp4moe_tensors *tensors, const struct io_linear *l,
                                  fp4moe_projection *to) {
  to->global = 1;
  fp4moe_status status = read_scalar(tensors, l, l->global, &to->global);
  if (status == FP4MOE_OK) status = read_scalar(tensors, l, l->input, &to->input_scale);
  if (!fp4moe_is_input_scale(to->input_scale)) to->input_scale = 0;
  if (status != FP4MOE_OK || (isfinite(to->global) && !(l->reciprocal && to->global == 0)))
    return status;
  return fp4moe_fail(FP4MOE_INVALID, "%s: tensor '%.200s': the global would be %g", l->global->file,
                     l->global->name, (double)to->global);
}

/* Blocks to codes and the scales behind them, some rows at a time. */
static fp4moe_status read_blocks(const fp4moe_tensors *tensors, const struct io_linear *l,
                                 uint8_t *codes, uint8_t *scales) {
  const fp4moe_linear_desc *desc = &l->info.desc;
  const size_t row = l->codes->bytes / desc->n, codes_row = desc->k / 2;
  const size_t scales_row = row - codes_row, most = ((size_t)2 << 20) / row + 1;
  char *strip = malloc(most * row);
  fp4moe_status status = FP4MOE_OK;
  if (!strip) return fp4moe_fail(FP4MOE_NO_MEMORY, "%.200s: %zu rows", l->name, most);
  for (size_t at = 0, n; status == FP4MOE_OK && at < desc->n; at += n) {
    n = desc->n - at < most ? desc->n - at : most;
    status = fp4moe_tensors_read(tensors, l->codes, at * row, n * row, strip);
    if (status == FP4MOE_OK)
      fp4moe_io_ggml_unblock(desc->format, n * desc->k, strip, codes + at * codes_row,
                             scales + at * scales_row);
  }
  free(strip);
  return status;
}

/* Everything into one allocation; *memory is the caller's to free. */
static fp4moe_status read_matrix(const fp4moe_tensors *tensors, const struct io_linear *l,
                                 fp4moe_projection *to, char **memory) {
  const fp4moe_linear_desc *desc = &l->info.desc;
  const size_t codes = desc->n * (desc->k / 2), bias = l->bias ? l->bias->bytes : 0;
  const size_t scales = desc->n * (desc->k / fp4_group(desc->format));
  char *data = *memory = malloc(bias + codes + scales);
  if (!data) return fp4moe_fail(FP4MOE_NO_MEMORY, "%.200s: %zu bytes", l->name, codes + scales);
  *to = (fp4moe_projection){.codes = data + bias, .scales = data + bias + codes};
  if (bias) {
    to->bias = data;
    to->bias_dtype = fp4moe_io_float_dtype(l->bias->dtype);
  }
  fp4moe_status status = read_scalars(tensors, l, to);
  if (status == FP4MOE_OK && bias) status = fp4moe_tensors_read(tensors, l->bias, 0, bias, data);
  if (status == FP4MOE_OK && !l->scales)
    return read_blocks(tensors, l, (uint8_t *)data + bias, (uint8_t *)data + bias + codes);
  if (status == FP4MOE_OK) status = fp4moe_tensors_read(tensors, l->codes, 0, codes, data + bias);
  if (status == FP4MOE_OK)
    status = fp4moe_tensors_read(tensors, l->scales, 0, scales, data + bias + codes);
  return status;
}

/* The caller's desc may change how the matrix is used, never what it is; the input scale is the
 * checkpoint's where the class wants one and none is given. */
static fp4moe_status choose_desc(const struct io_linear *l, const fp4moe_linear_desc *asked,
                                 const fp4moe_projection *matrix, fp4moe_linear_desc *desc) {
  const fp4moe_linear_desc *own = &l->info.desc;
  fp4moe_status status =
      fp4moe_take_struct(desc, sizeof *desc, asked ? asked : own, "fp4moe_linear_desc");
  if (status != FP4MOE_OK) return status;
  const struct {
    const char *field;
    size_t asked, have;
  } fields[] = {{"n", desc->n, own->n},
                {"k", desc->k, own->k},
                {"experts", desc->experts, own->experts},
                {"format", (size_t)desc->format, (size_t)own->format}};
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
    if (fields[i].asked != fields[i].have)
      return fp4moe_fail(FP4MOE_INVALID, "%.200s: desc.%s is %zu, but the tensors have %zu",
                         l->name, fields[i].field, fields[i].asked, fields[i].have);
  if (desc->precision == FP4MOE_PRECISION_NVFP4 && desc->input_global == FP4MOE_GLOBAL_LAYER &&
      desc->input_scale == 0)
    desc->input_scale = matrix->input_scale;
  return FP4MOE_OK;
}

static fp4moe_status make(fp4moe_context *context, const struct io_linear *l,
                          const fp4moe_linear_desc *desc, const fp4moe_projection *matrix,
                          fp4moe_linear **linear) {
  char text[256];
  fp4moe_linear *made;
  fp4moe_status status = fp4moe_linear_begin(context, desc, &made);
  if (status != FP4MOE_OK) return status;
  status = fp4moe_linear_set_expert(made, 0, matrix);
  if (status == FP4MOE_OK) status = fp4moe_linear_finish(made);
  if (status == FP4MOE_OK) {
    *linear = made;
    return status;
  }
  snprintf(text, sizeof text, "%s", fp4moe_error_detail());
  fp4moe_linear_destroy(made);
  return fp4moe_fail(status, "%s: tensor '%.160s': %s", l->codes->file,
                     (l->scales ? l->scales : l->codes)->name, text);
}

fp4moe_status fp4moe_checkpoint_load_linear(const fp4moe_checkpoint *checkpoint, const char *name,
                                            fp4moe_context *context, const fp4moe_linear_desc *desc,
                                            fp4moe_linear **linear) {
  if (!checkpoint || !name || !context || !linear)
    return fp4moe_fail(FP4MOE_INVALID, "fp4moe_checkpoint_load_linear: NULL argument");
  const struct io_linear *l = NULL;
  for (size_t i = 0; i < checkpoint->linears_count && !l; i++)
    if (strcmp(checkpoint->linears[i].name, name) == 0) l = &checkpoint->linears[i];
  if (!l)
    return fp4moe_fail(FP4MOE_INVALID, "no dense FP4 matrix '%.200s' among the %zu of the model",
                       name, checkpoint->linears_count);
  if (l->info.status != FP4MOE_OK) return fp4moe_fail(l->info.status, "%s", l->info.reason);
  fp4moe_projection matrix;
  fp4moe_linear_desc own;
  char *memory = NULL;
  uint64_t mode = fp4moe_fp_enter();
  fp4moe_status status = read_matrix(checkpoint->tensors, l, &matrix, &memory);
  if (status == FP4MOE_OK) status = choose_desc(l, desc, &matrix, &own);
  if (status == FP4MOE_OK) status = make(context, l, &own, &matrix, linear);
  fp4moe_fp_leave(mode);
  free(memory);
  return status;
}
