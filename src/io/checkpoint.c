/* checkpoint.c - the MoE layers of a checkpoint, and its dense FP4 matrices.
 *
 * Sorted names put all that begin with one "<prefix>.experts." side by side, so one pass finds the
 * layers; in GGUF files the other tensors of a block may lie between. Each is then matched with a
 * family, bound and compared with config.json; what goes wrong there is kept as the layer's status
 * and reason, for a checkpoint may well have layers (draft, unquantised) that nobody asks for. */
#include <stdlib.h>
#include <string.h>

#include "cpu.h"
#include "io/checkpoint.h"
#include "io/file.h"
#include "io/packed.h"
#include "io/tensors.h"
#include "status.h"

/* The last dot-separated segment that is all digits, or 0. */
static size_t layer_number(const char *prefix) {
  size_t number = 0;
  for (const char *at = prefix; at; at = strchr(at, '.')) {
    at += *at == '.';
    size_t digits = strspn(at, "0123456789");
    if (digits && (at[digits] == '.' || !at[digits])) number = strtoul(at, NULL, 10);
  }
  return number;
}

static fp4moe_status new_layer(fp4moe_checkpoint *c, const char *name, size_t length, size_t first,
                               struct io_layer **layer) {
  struct io_layer *layers = realloc(c->layers, (c->count + 1) * sizeof *layers);
  if (layers) c->layers = layers;
  char *prefix = layers ? strndup(name, length) : NULL;
  if (!prefix) return fp4moe_fail(FP4MOE_NO_MEMORY, "%zu layers", c->count + 1);
  *layer = &c->layers[c->count++];
  **layer = (struct io_layer){.prefix = prefix,
                              .info = {.layer = layer_number(prefix),
                                       .prefix = prefix,
                                       .family = "",
                                       .reason = "",
                                       .first_tensor = first,
                                       .desc = {.struct_size = sizeof(fp4moe_layer_desc)}}};
  return FP4MOE_OK;
}

static fp4moe_status list_layers(fp4moe_checkpoint *c) {
  struct io_layer *layer = NULL;
  for (size_t i = 0; i < fp4moe_tensors_count(c->tensors); i++) {
    const fp4moe_tensor *tensor = fp4moe_tensors_at(c->tensors, i);
    size_t length = fp4moe_io_expert_prefix(tensor->name);
    if (!length) continue;
    if (!layer || strlen(layer->prefix) != length ||
        strncmp(layer->prefix, tensor->name, length) != 0) {
      fp4moe_status status = new_layer(c, tensor->name, length, i, &layer);
      if (status != FP4MOE_OK) return status;
    }
    layer->info.tensor_count = i + 1 - layer->info.first_tensor;
    layer->info.bytes += tensor->bytes;
  }
  return FP4MOE_OK;
}

/* The largest tensor tells what the layer is made of. */
static fp4moe_status not_fp4(const fp4moe_checkpoint *c, const struct io_layer *layer) {
  const fp4moe_tensor *most = fp4moe_tensors_at(c->tensors, layer->info.first_tensor);
  for (size_t i = 1; i < layer->info.tensor_count; i++) {
    const fp4moe_tensor *tensor = fp4moe_tensors_at(c->tensors, layer->info.first_tensor + i);
    if (tensor->bytes > most->bytes) most = tensor;
  }
  return fp4moe_fail(FP4MOE_UNSUPPORTED,
                     "%s: not FP4 of a known family: tensor '%.200s' has dtype %s", most->file,
                     most->name, most->dtype);
}

/* In GGUF files nothing but the absence of a gate tells that a layer has none. */
static fp4moe_status check_gate(const struct io_layer *layer) {
  const fp4moe_activation *activation = &layer->info.desc.activation;
  if (layer->family->layout != IO_GGML || activation->gated || activation->kind == FP4MOE_RELU2)
    return FP4MOE_OK;
  return fp4moe_fail(FP4MOE_INVALID, "%.160s: tensor '%.160s.ffn_gate_exps.weight' is missing",
                     layer->prefix, layer->prefix);
}

static fp4moe_status judge(const fp4moe_checkpoint *c, struct io_layer *layer) {
  layer->family = fp4moe_io_family_match(c->tensors, layer);
  if (!layer->family) return not_fp4(c, layer);
  layer->info.family = layer->family->name;
  fp4moe_status status = fp4moe_io_layer_bind(c->tensors, layer);
  if (status == FP4MOE_OK) status = fp4moe_io_config_sizes(&c->config, layer);
  if (status != FP4MOE_OK) return status;
  layer->info.desc.precision = FP4MOE_PRECISION_BF16;
  layer->info.fp4 = 1;
  status = fp4moe_io_config_activation(&c->config, layer);
  if (status == FP4MOE_OK) status = check_gate(layer);
  if (status == FP4MOE_INVALID) layer->info.fp4 = 0;
  return status;
}

/* Keeps the verdict; only lack of memory fails the checkpoint. */
static fp4moe_status keep_verdict(const fp4moe_checkpoint *c, struct io_layer *layer) {
  fp4moe_status status = judge(c, layer);
  if (status == FP4MOE_OK || status == FP4MOE_NO_MEMORY) return status;
  layer->info.status = status;
  layer->info.reason = layer->reason = strdup(fp4moe_error_detail());
  if (!layer->reason) return fp4moe_fail(FP4MOE_NO_MEMORY, "%.200s: reason", layer->prefix);
  if (!layer->info.fp4)
    layer->info.desc = (fp4moe_layer_desc){.struct_size = sizeof layer->info.desc};
  return FP4MOE_OK;
}

static int by_number(const void *a, const void *b) {
  const struct io_layer *x = a, *y = b;
  if (x->info.layer != y->info.layer) return x->info.layer < y->info.layer ? -1 : 1;
  return strcmp(x->info.prefix, y->info.prefix);
}

/* In the order of their names, which is the tensors'. */
static fp4moe_status list_linears(fp4moe_checkpoint *c) {
  for (size_t i = 0, capacity = 0; i < fp4moe_tensors_count(c->tensors); i++) {
    struct io_linear linear;
    int found;
    fp4moe_status status =
        fp4moe_io_linear_find(c->tensors, fp4moe_tensors_at(c->tensors, i), &linear, &found);
    if (status == FP4MOE_OK && found && c->linears_count == capacity) {
      capacity = capacity ? 2 * capacity : 16;
      struct io_linear *list = realloc(c->linears, capacity * sizeof *list);
      if (list)
        c->linears = list;
      else
        status = fp4moe_fail(FP4MOE_NO_MEMORY, "%zu dense matrices", capacity);
    }
    if (status == FP4MOE_OK && found)
      c->linears[c->linears_count++] = linear;
    else
      fp4moe_io_linear_release(&linear);
    if (status != FP4MOE_OK) return status;
  }
  return FP4MOE_OK;
}

static fp4moe_status open_config(fp4moe_checkpoint *c, const char *path) {
  if (c->tensors->config) return fp4moe_io_config_take(path, c->tensors->config, &c->config);
  if (fp4moe_io_is_directory(path)) return fp4moe_io_config_open(path, &c->config);
  char *dir = fp4moe_io_path_parent(path);
  if (!dir) return FP4MOE_NO_MEMORY;
  fp4moe_status status = fp4moe_io_config_open(dir, &c->config);
  free(dir);
  return status;
}

static fp4moe_status open_tensors(fp4moe_checkpoint *c) {
  fp4moe_status status = fp4moe_tensors_open(c->path, &c->tensors);
  if (status == FP4MOE_OK) status = open_config(c, c->path);
  if (status == FP4MOE_OK) status = list_layers(c);
  if (status == FP4MOE_OK) status = list_linears(c);
  for (size_t i = 0; status == FP4MOE_OK && i < c->count; i++)
    status = keep_verdict(c, &c->layers[i]);
  return status;
}

/* The layers as the head of a packed file has them; all can be loaded. */
static fp4moe_status list_packed(fp4moe_checkpoint *c) {
  size_t n = c->packed->head->layers;
  c->tensors = calloc(1, sizeof *c->tensors);
  c->layers = calloc(n, sizeof *c->layers);
  if (!c->tensors || !c->layers) return fp4moe_fail(FP4MOE_NO_MEMORY, "%s: %zu layers", c->path, n);
  c->count = n;
  for (size_t i = 0; i < n; i++) {
    const struct io_packed_layer *entry = &c->packed->layers[i];
    c->layers[i] = (struct io_layer){.packed = entry,
                                     .info = {.layer = (size_t)entry->layer,
                                              .prefix = entry->prefix,
                                              .family = entry->family,
                                              .reason = "",
                                              .fp4 = 1,
                                              .desc = fp4moe_io_packed_desc(entry),
                                              .top_k = (size_t)entry->top_k,
                                              .bytes = entry->bytes}};
  }
  return FP4MOE_OK;
}

static fp4moe_status open_any(fp4moe_checkpoint *c, const fp4moe_open_options *options) {
  fp4moe_status status = fp4moe_io_packed_open(c->path, options, &c->packed);
  if (status != FP4MOE_OK) return status;
  return c->packed ? list_packed(c) : open_tensors(c);
}

fp4moe_status fp4moe_checkpoint_open_with(const char *path, const fp4moe_open_options *options,
                                          fp4moe_checkpoint **checkpoint) {
  static const fp4moe_open_options none = {.struct_size = sizeof none};
  fp4moe_open_options o;
  if (!path || !checkpoint)
    return fp4moe_fail(FP4MOE_INVALID, "fp4moe_checkpoint_open: NULL argument");
  fp4moe_status status =
      fp4moe_take_struct(&o, sizeof o, options ? options : &none, "fp4moe_open_options");
  if (status != FP4MOE_OK) return status;
  fp4moe_checkpoint *c = calloc(1, sizeof *c);
  if (!c || !(c->path = strdup(path)))
    status = fp4moe_fail(FP4MOE_NO_MEMORY, "%s: checkpoint", path);
  uint64_t mode = fp4moe_fp_enter();
  if (status == FP4MOE_OK) status = open_any(c, &o);
  fp4moe_fp_leave(mode);
  if (status != FP4MOE_OK) {
    fp4moe_checkpoint_close(c);
    return status;
  }
  if (c->count) qsort(c->layers, c->count, sizeof *c->layers, by_number);
  *checkpoint = c;
  return FP4MOE_OK;
}

fp4moe_status fp4moe_checkpoint_open(const char *path, fp4moe_checkpoint **checkpoint) {
  return fp4moe_checkpoint_open_with(path, NULL, checkpoint);
}

void fp4moe_checkpoint_close(fp4moe_checkpoint *c) {
  if (!c) return;
  for (size_t i = 0; i < c->count; i++) {
    free(c->layers[i].prefix);
    free(c->layers[i].reason);
  }
  for (size_t i = 0; i < c->linears_count; i++) fp4moe_io_linear_release(&c->linears[i]);
  free(c->linears);
  free(c->layers);
  fp4moe_io_config_close(&c->config);
  fp4moe_tensors_close(c->tensors);
  fp4moe_io_packed_close(c->packed);
  free(c->path);
  free(c);
}

const fp4moe_tensors *fp4moe_checkpoint_tensors(const fp4moe_checkpoint *c) { return c->tensors; }

size_t fp4moe_checkpoint_layers(const fp4moe_checkpoint *c) { return c->count; }

const fp4moe_checkpoint_layer *fp4moe_checkpoint_at(const fp4moe_checkpoint *c, size_t i) {
  return i < c->count ? &c->layers[i].info : NULL;
}

int fp4moe_checkpoint_packed(const fp4moe_checkpoint *c, fp4moe_packed_info *info) {
  if (!c->packed) return 0;
  if (info)
    *info = (fp4moe_packed_info){.source = c->packed->head->source,
                                 .identity = c->packed->head->identity,
                                 .bytes = c->packed->head->file_bytes};
  return 1;
}

size_t fp4moe_checkpoint_linears(const fp4moe_checkpoint *c) { return c->linears_count; }

const fp4moe_checkpoint_linear *fp4moe_checkpoint_linear_at(const fp4moe_checkpoint *c, size_t i) {
  return i < c->linears_count ? &c->linears[i].info : NULL;
}
