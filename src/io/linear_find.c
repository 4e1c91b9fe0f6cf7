/* linear_find.c - which tensors are dense FP4 matrices (see linear.h).
 *
 * A tensor of bytes whose name ends as codes do is one when scales of one byte stand beside it; in
 * GGUF files the type alone tells. What then does not fit is the matrix's own verdict, for a model
 * may have many that nobody asks for. */
#include <stdlib.h>
#include <string.h>

#include "io/family.h"
#include "io/linear.h"
#include "io/tensors.h"
#include "layout.h"
#include "status.h"

static const struct naming {
  const char *family, *codes, *scales, *global, *input; /* endings; NULL: none */
  fp4moe_format format;
  int reciprocal;
} namings[] = {
    {"NVFP4 (compressed-tensors)", ".weight_packed", ".weight_scale", ".weight_global_scale",
     ".input_global_scale", FP4MOE_NVFP4, 1},
    {"MXFP4 (compressed-tensors)", ".weight_packed", ".weight_scale", NULL, NULL, FP4MOE_MXFP4, 0},
    {"NVFP4 (ModelOpt)", ".weight", ".weight_scale", ".weight_scale_2", ".input_scale",
     FP4MOE_NVFP4, 0},
    {"MXFP4 (DeepSeek-V4)", ".weight", ".scale", NULL, NULL, FP4MOE_MXFP4, 0},
    {"NVFP4 (GGUF)", ".weight", NULL, ".scale", ".input_scale", FP4MOE_NVFP4, 0},
    {"MXFP4 (GGUF)", ".weight", NULL, NULL, NULL, FP4MOE_MXFP4, 0},
};

/* Whether the codes are of the dtype that the naming has. */
static int codes_fit(const struct naming *n, const fp4moe_tensor *codes) {
  if (n->scales) return fp4moe_io_is_byte(codes->dtype);
  return strcmp(codes->dtype, n->format == FP4MOE_NVFP4 ? "NVFP4" : "MXFP4") == 0;
}

/* What stands beside the codes, under this naming. */
static fp4moe_status bind(const fp4moe_tensors *tensors, const struct naming *n, size_t stem,
                          struct io_linear *l) {
  const struct {
    const char *ending;
    const fp4moe_tensor **tensor;
  } parts[] = {
      {n->scales, &l->scales}, {n->global, &l->global}, {n->input, &l->input}, {".bias", &l->bias}};
  fp4moe_status status = FP4MOE_OK;
  for (size_t i = 0; status == FP4MOE_OK && i < sizeof parts / sizeof *parts; i++)
    status =
        fp4moe_io_tensors_beside(tensors, l->codes->name, stem, parts[i].ending, parts[i].tensor);
  l->reciprocal = n->reciprocal;
  l->info.family = n->family;
  l->info.desc.format = n->format;
  return status;
}

/* Bytes without a dtype of their own are NVFP4's when it has its global, else MXFP4's. */
static int scales_fit(const struct naming *n, const struct io_linear *l) {
  if (!n->scales) return 1;
  if (!l->scales) return 0;
  if (strcmp(l->scales->dtype, n->format == FP4MOE_NVFP4 ? "F8_E4M3" : "F8_E8M0") == 0) return 1;
  return fp4moe_io_is_byte(l->scales->dtype) && (n->format == FP4MOE_MXFP4 || l->global);
}

/* ---- What must hold ---- */

static fp4moe_status check_shape(const fp4moe_tensor *tensor, size_t rank, size_t n, size_t k) {
  const size_t shape[] = {n, k};
  char have[IO_SHAPE_TEXT], want[IO_SHAPE_TEXT];
  if (tensor->rank == rank && memcmp(tensor->shape, shape, rank * sizeof *shape) == 0)
    return FP4MOE_OK;
  return fp4moe_fail(FP4MOE_INVALID, "%s: tensor '%.160s' has shape %s, expected %s", tensor->file,
                     tensor->name, fp4moe_io_shape_text(tensor->rank, tensor->shape, have),
                     fp4moe_io_shape_text(rank, shape, want));
}

static fp4moe_status check_scalar(const fp4moe_tensor *tensor) {
  if (!tensor || (strcmp(tensor->dtype, "F32") == 0 && tensor->bytes == sizeof(float)))
    return FP4MOE_OK;
  return fp4moe_fail(FP4MOE_INVALID, "%s: tensor '%.160s' is %zu bytes of %s, expected one F32",
                     tensor->file, tensor->name, tensor->bytes, tensor->dtype);
}

static fp4moe_status check_bias(const fp4moe_tensor *tensor, size_t n) {
  if (!tensor) return FP4MOE_OK;
  if (strcmp(tensor->dtype, "BF16") && strcmp(tensor->dtype, "F16") && strcmp(tensor->dtype, "F32"))
    return fp4moe_fail(FP4MOE_INVALID, "%s: tensor '%.160s' has dtype %s, expected BF16",
                       tensor->file, tensor->name, tensor->dtype);
  return check_shape(tensor, 1, n, 0);
}

static fp4moe_status check(struct io_linear *l) {
  const fp4moe_tensor *codes = l->codes;
  fp4moe_linear_desc *desc = &l->info.desc;
  const size_t group = fp4_group(desc->format);
  if (codes->rank != 2 || !codes->bytes || (l->scales && codes->shape[1] % (group / 2)))
    return fp4moe_fail(FP4MOE_INVALID, "%s: tensor '%.160s' is no matrix of whole groups of %zu",
                       codes->file, codes->name, group);
  desc->n = codes->shape[0];
  desc->k = l->scales ? 2 * codes->shape[1] : codes->shape[1];
  if (l->scales && desc->format == FP4MOE_NVFP4 && !l->global)
    return fp4moe_fail(FP4MOE_INVALID, "%s: tensor '%.160s' has no global beside it", codes->file,
                       codes->name);
  fp4moe_status status = FP4MOE_OK;
  if (l->scales) status = check_shape(l->scales, 2, desc->n, desc->k / group);
  if (status == FP4MOE_OK) status = check_scalar(l->global);
  if (status == FP4MOE_OK) status = check_scalar(l->input);
  return status == FP4MOE_OK ? check_bias(l->bias, desc->n) : status;
}

static fp4moe_status keep_verdict(struct io_linear *l) {
  const fp4moe_tensor *const parts[] = {l->codes, l->scales, l->global, l->input, l->bias};
  for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
    if (parts[i]) l->info.bytes += parts[i]->bytes;
  l->info.name = l->name;
  l->info.reason = "";
  l->info.status = check(l);
  if (l->info.status == FP4MOE_OK) return FP4MOE_OK;
  l->info.reason = l->reason = strdup(fp4moe_error_detail());
  return l->reason ? FP4MOE_OK : fp4moe_fail(FP4MOE_NO_MEMORY, "%.160s: reason", l->name);
}

fp4moe_status fp4moe_io_linear_find(const fp4moe_tensors *tensors, const fp4moe_tensor *codes,
                                    struct io_linear *l, int *found) {
  *l = (struct io_linear){.codes = codes,
                          .info.desc = {.struct_size = sizeof(fp4moe_linear_desc),
                                        .experts = 1,
                                        .precision = FP4MOE_PRECISION_BF16}};
  *found = 0;
  if (fp4moe_io_expert_prefix(codes->name)) return FP4MOE_OK;
  for (size_t i = 0; i < sizeof namings / sizeof *namings && !*found; i++) {
    const struct naming *n = &namings[i];
    size_t stem = fp4moe_io_stem(codes->name, n->codes);
    if (!stem || !codes_fit(n, codes)) continue;
    fp4moe_status status = bind(tensors, n, stem, l);
    if (status != FP4MOE_OK) return status;
    if (!scales_fit(n, l)) continue;
    *found = 1;
    l->name = strndup(codes->name, stem);
    if (!l->name) return fp4moe_fail(FP4MOE_NO_MEMORY, "%.160s: name", codes->name);
  }
  return *found ? keep_verdict(l) : FP4MOE_OK;
}

void fp4moe_io_linear_release(struct io_linear *l) {
  free(l->name);
  free(l->reason);
}
