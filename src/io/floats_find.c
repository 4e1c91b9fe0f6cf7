/* floats_find.c - what belongs to an FP4 tensor, and how it lies (see floats.h).
 *
 * Each naming spells codes, scales and global from one stem. The first whose codes ending fits and
 * whose scales exist is it; from then on nothing may be missing. The format follows from the
 * global, else from the scale group that the shapes have. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/floats.h"
#include "io/tensors.h"
#include "status.h"

static const struct naming {
  const char *codes, *scales, *global, *plain; /* endings; global NULL: none */
  int reciprocal;
} namings[] = {
    {"_blocks", "_scales", NULL, "", 0},
    {".weight_packed", ".weight_scale", ".weight_global_scale", ".weight", 1},
    {".weight", ".weight_scale", ".weight_scale_2", ".weight", 0},
    {".weight", ".scale", NULL, ".weight", 0},
    {"", "_weight_scale", "_weight_scale_2", "", 0},
};
enum { NAMINGS = sizeof namings / sizeof *namings };

/* "<stem><ending>", or NULL; owned by the caller. */
static char *join(const char *name, size_t stem, const char *ending) {
  char *text;
  return asprintf(&text, "%.*s%s", (int)stem, name, ending) < 0 ? NULL : text;
}

/* No naming's scales are there: says which were looked for. */
static fp4moe_status no_scales(const fp4moe_tensor *codes) {
  char list[300] = "";
  size_t at = 0;
  for (int i = 0; i < NAMINGS && at < sizeof list; i++) {
    size_t stem = fp4moe_io_stem(codes->name, namings[i].codes);
    if (stem && (*namings[i].codes || !at))
      at += (size_t)snprintf(list + at, sizeof list - at, "%s'%.*s%s'", at ? " nor " : "",
                             (int)(stem < 100 ? stem : 100), codes->name, namings[i].scales);
  }
  return fp4moe_fail(FP4MOE_INVALID, "%s: tensor '%.120s' has no block scales: no tensor %s",
                     codes->file, codes->name, list);
}

/* ---- Shapes ---- */

static fp4moe_status shape_fail(const struct io_fp4 *f, const fp4moe_tensor *tensor) {
  char codes[IO_SHAPE_TEXT], shape[IO_SHAPE_TEXT];
  return fp4moe_fail(
      FP4MOE_INVALID, "%s: tensor '%.120s' has shape %s, which does not fit the codes %s",
      tensor->file, tensor->name, fp4moe_io_shape_text(tensor->rank, tensor->shape, shape),
      fp4moe_io_shape_text(f->codes->rank, f->codes->shape, codes));
}

/* Whether the scales are one per `group` codes along the columns, or along the rows. */
static int scales_fit(const struct io_fp4 *f, size_t group, int transposed) {
  const size_t *s = f->scales->shape + f->scales->rank - 2, ratio = group / 2;
  size_t rows = transposed ? s[0] * ratio : s[0], columns = transposed ? s[1] : s[1] * ratio;
  return rows == f->rows && columns == f->columns;
}

static fp4moe_status find_matrix(struct io_fp4 *f) {
  const fp4moe_tensor *c = f->codes, *s = f->scales;
  int blocks = c->rank == s->rank + 1;
  size_t rank = s->rank;
  if (rank < 2 || rank > 3 || (c->rank != rank && !blocks) || !c->bytes ||
      (blocks && c->shape[rank] != 16) || (rank == 3 && c->shape[0] != s->shape[0]))
    return shape_fail(f, s);
  f->slices = rank == 3 ? c->shape[0] : 1;
  f->rows = c->shape[rank - 2];
  f->columns = c->shape[rank - 1] * (blocks ? 16 : 1);
  f->rank = rank;
  for (size_t i = 0; i + 2 < rank; i++) f->shape[i] = c->shape[i];
  return FP4MOE_OK;
}

/* Format, orientation, shape of the floats. */
static fp4moe_status find_layout(struct io_fp4 *f, const char *wanted_global) {
  fp4moe_status status = find_matrix(f);
  if (status != FP4MOE_OK) return status;
  f->format = f->global ? FP4MOE_NVFP4 : FP4MOE_MXFP4;
  size_t group = f->global ? 16 : 32;
  if (!f->global && wanted_global && (scales_fit(f, 16, 0) || scales_fit(f, 16, 1)))
    return fp4moe_fail(FP4MOE_INVALID, "%s: tensor '%.120s' has no global: '%.160s' is missing",
                       f->codes->file, f->codes->name, wanted_global);
  f->transposed = !scales_fit(f, group, 0);
  if (f->transposed && (f->codes->rank != f->scales->rank || !scales_fit(f, group, 1)))
    return shape_fail(f, f->scales);
  f->shape[f->rank - 2] = f->rows * (f->transposed ? 2 : 1);
  f->shape[f->rank - 1] = f->columns * (f->transposed ? 1 : 2);
  return FP4MOE_OK;
}

static fp4moe_status check_dtype(const fp4moe_tensor *tensor, int byte, const char *own) {
  if (strcmp(tensor->dtype, own) == 0 || (byte && fp4moe_io_is_byte(tensor->dtype)))
    return FP4MOE_OK;
  return fp4moe_fail(FP4MOE_INVALID, "%s: tensor '%.160s' has dtype %s, expected %s", tensor->file,
                     tensor->name, tensor->dtype, own);
}

/* One for all, one a slice, or [E, 2] for gate and up. */
static fp4moe_status check_global(const struct io_fp4 *f) {
  const fp4moe_tensor *g = f->global;
  size_t count = g->bytes / sizeof(float);
  int pairs = g->rank == 2 && g->shape[1] == 2 && count == 2 * f->slices;
  size_t outputs = f->transposed ? f->columns : f->rows;
  if (count == 1 || count == f->slices || (pairs && outputs % 2 == 0)) return FP4MOE_OK;
  return shape_fail(f, g);
}

/* ---- One tensor ---- */

static fp4moe_status bind(const fp4moe_tensors *tensors, const struct naming *n, size_t stem,
                          struct io_fp4 *f) {
  const char *name = f->codes->name;
  const fp4moe_tensor *bias;
  fp4moe_status status = fp4moe_io_tensors_beside(tensors, name, stem, n->global, &f->global);
  if (status == FP4MOE_OK) status = fp4moe_io_tensors_beside(tensors, name, stem, "_bias", &bias);
  if (status != FP4MOE_OK) return status;
  f->reciprocal = n->reciprocal;
  f->name = join(name, stem, n->plain);
  char *global = n->global ? join(name, stem, n->global) : NULL;
  if (!f->name || (n->global && !global))
    status = fp4moe_fail(FP4MOE_NO_MEMORY, "%.160s: tensor names", name);
  if (status == FP4MOE_OK) status = find_layout(f, global);
  free(global);
  if (status == FP4MOE_OK)
    status = check_dtype(f->scales, 1, f->format == FP4MOE_MXFP4 ? "F8_E8M0" : "F8_E4M3");
  if (status == FP4MOE_OK && f->global) status = check_dtype(f->global, 0, "F32");
  if (status == FP4MOE_OK && f->global) status = check_global(f);
  if (status != FP4MOE_OK || !f->global || f->global->bytes != f->slices * 2 * sizeof(float))
    return status;
  /* As the families have it: gpt-oss, which has biases, interleaves; Llama-4 does not. */
  f->fusion = bias ? IO_INTERLEAVED : IO_HALVES;
  return status;
}

/* A tensor of a GGUF file: blocks of codes and scales, [slices][rows][K]. The global, where there
 * is one, is named beside it: one for all or one a slice. */
static fp4moe_status bind_blocks(const fp4moe_tensors *tensors, struct io_fp4 *f) {
  const fp4moe_tensor *c = f->codes;
  size_t rank = c->rank, stem = fp4moe_io_stem(c->name, ".weight");
  f->format = strcmp(c->dtype, "MXFP4") ? FP4MOE_NVFP4 : FP4MOE_MXFP4;
  if (rank < 2 || rank > 3 || !c->bytes)
    return fp4moe_fail(FP4MOE_INVALID, "%s: tensor '%.160s' has rank %zu, expected 2 or 3", c->file,
                       c->name, rank);
  f->rank = rank;
  memcpy(f->shape, c->shape, rank * sizeof *c->shape);
  f->slices = rank == 3 ? c->shape[0] : 1;
  f->rows = c->shape[rank - 2];
  f->columns = c->shape[rank - 1] / 2;
  f->name = strdup(c->name);
  if (!f->name) return fp4moe_fail(FP4MOE_NO_MEMORY, "%.160s: tensor names", c->name);
  fp4moe_status status = FP4MOE_OK;
  if (f->format == FP4MOE_NVFP4 && stem)
    status = fp4moe_io_tensors_beside(tensors, c->name, stem, ".scale", &f->global);
  if (status == FP4MOE_OK && f->global) status = check_dtype(f->global, 0, "F32");
  return status || !f->global ? status : check_global(f);
}

static int is_blocks(const fp4moe_tensor *tensor) {
  return strcmp(tensor->dtype, "MXFP4") == 0 || strcmp(tensor->dtype, "NVFP4") == 0;
}

fp4moe_status fp4moe_io_fp4_find(const fp4moe_tensors *tensors, const char *name,
                                 struct io_fp4 *f) {
  fp4moe_status status;
  *f = (struct io_fp4){.codes = fp4moe_tensors_find(tensors, name)};
  if (!f->codes) return fp4moe_fail(FP4MOE_INVALID, "no tensor '%.200s'", fp4moe_io_plain(name));
  if (is_blocks(f->codes)) {
    status = bind_blocks(tensors, f);
    if (status != FP4MOE_OK) fp4moe_io_fp4_release(f);
    return status;
  }
  if (!fp4moe_io_is_byte(f->codes->dtype))
    return fp4moe_fail(FP4MOE_INVALID, "%s: tensor '%.160s' has dtype %s: not FP4 codes (U8 or I8)",
                       f->codes->file, name, f->codes->dtype);
  for (int i = 0; i < NAMINGS; i++) {
    size_t stem = fp4moe_io_stem(name, namings[i].codes);
    if (!stem) continue;
    status = fp4moe_io_tensors_beside(tensors, name, stem, namings[i].scales, &f->scales);
    if (status != FP4MOE_OK) return status;
    if (!f->scales) continue;
    status = bind(tensors, &namings[i], stem, f);
    if (status != FP4MOE_OK) fp4moe_io_fp4_release(f);
    return status;
  }
  return no_scales(f->codes);
}

void fp4moe_io_fp4_release(struct io_fp4 *f) { free(f->name); }

size_t fp4moe_io_fp4_count(const struct io_fp4 *f) { return 2 * f->slices * f->rows * f->columns; }
