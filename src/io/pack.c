/* pack.c - writes a packed file (packed.h): expert by expert, never a layer in memory.
 *
 * Two passes over the layers: sizes and offsets first, so that what cannot be packed is refused
 * before a file is touched; then the records, each as its expert was read. The head goes in last,
 * when its sums are known, and the file appears whole or not at all (newfile.h). Packing the same
 * weights again gives the same bytes. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "checksum.h"
#include "cpu.h"
#include "io/newfile.h"
#include "io/packed.h"
#include "io/tensors.h"
#include "status.h"

struct packer {
  const fp4moe_checkpoint *checkpoint;
  fp4moe_pack_options options;
  struct io_packed_head *head;
  struct io_packed_layer *entries; /* behind the head */
  const struct io_layer **sources; /* [head->layers] */
  struct io_part *parts;           /* [head->layers] what of them is packed */
  uint8_t *record;
  size_t record_bytes; /* the largest */
  struct io_newfile file;
  struct io_packed_layer *entry; /* being written */
  size_t done, experts;
};

/* ---- What is packed ---- */

/* A layer that is not FP4 stays behind; one that is and cannot be packed is an error. */
static fp4moe_status choose_layers(struct packer *k) {
  const fp4moe_checkpoint *c = k->checkpoint;
  k->sources = calloc(c->count ? c->count : 1, sizeof *k->sources);
  k->parts = calloc(c->count ? c->count : 1, sizeof *k->parts);
  if (!k->sources || !k->parts) return fp4moe_fail(FP4MOE_NO_MEMORY, "%zu layers", c->count);
  size_t n = 0;
  for (size_t i = 0; i < c->count; i++) {
    const fp4moe_checkpoint_layer *info = &c->layers[i].info;
    if (info->status == FP4MOE_UNSUPPORTED && !info->fp4) continue;
    if (info->status != FP4MOE_OK) return fp4moe_fail(info->status, "%s", info->reason);
    fp4moe_status status =
        fp4moe_io_choose_part(&c->layers[i], NULL, k->options.slice, &k->parts[n]);
    if (status != FP4MOE_OK) {
      fp4moe_fail_in("%.200s", info->prefix);
      return status;
    }
    k->sources[n++] = &c->layers[i];
    k->experts += info->desc.experts;
  }
  if (n == 0 || n > IO_PACKED_LAYERS)
    return fp4moe_fail(FP4MOE_INVALID, "%zu FP4 layers to pack, expected 1 to %d", n,
                       (int)IO_PACKED_LAYERS);
  size_t bytes = sizeof *k->head + n * sizeof *k->entries;
  k->head = calloc(1, bytes);
  if (!k->head) return fp4moe_fail(FP4MOE_NO_MEMORY, "a head of %zu bytes", bytes);
  k->entries = (void *)(k->head + 1);
  *k->head = (struct io_packed_head){.magic = IO_PACKED_MAGIC,
                                     .version = IO_PACKED_VERSION,
                                     .layout = FP4MOE_LAYOUT_ID,
                                     .record_version = FP4MOE_RECORD_VERSION,
                                     .layers = (uint32_t)n,
                                     .head_bytes = bytes};
  return FP4MOE_OK;
}

static fp4moe_status fill_entry(struct packer *k, size_t i) {
  const fp4moe_checkpoint_layer *info = &k->sources[i]->info;
  const fp4moe_layer_desc *d = &k->parts[i].desc;
  struct io_packed_layer *e = &k->entries[i];
  *e = (struct io_packed_layer){.layer = info->layer,
                                .hidden = d->hidden,
                                .intermediate = d->intermediate,
                                .experts = d->experts,
                                .top_k = info->top_k,
                                .record_bytes = fp4moe_record_bytes(d),
                                .source_bytes = info->bytes,
                                .format = (uint32_t)d->format,
                                .gated = (uint32_t)d->activation.gated,
                                .kind = (uint32_t)d->activation.kind,
                                .router_weight_on_input = (uint32_t)d->router_weight_on_input,
                                .alpha = d->activation.alpha,
                                .beta = d->activation.beta,
                                .limit = d->activation.limit,
                                .linear_beta = d->activation.linear_beta};
  if (!e->record_bytes) {
    fp4moe_fail_in("%.200s", info->prefix);
    return FP4MOE_INVALID;
  }
  if (strlen(info->prefix) >= sizeof e->prefix || strlen(info->family) >= sizeof e->family)
    return fp4moe_fail(FP4MOE_INVALID, "'%.100s...': %zu bytes, at most %zu are kept", info->prefix,
                       strlen(info->prefix), sizeof e->prefix - 1);
  memcpy(e->prefix, info->prefix, strlen(info->prefix));
  memcpy(e->family, info->family, strlen(info->family));
  if (e->record_bytes > k->record_bytes) k->record_bytes = (size_t)e->record_bytes;
  return FP4MOE_OK;
}

static fp4moe_status lay_out(struct packer *k) {
  uint64_t end = k->head->head_bytes;
  for (size_t i = 0; i < k->head->layers; i++) {
    struct io_packed_layer *e = &k->entries[i];
    fp4moe_status status = fill_entry(k, i);
    if (status != FP4MOE_OK) return status;
    if (__builtin_mul_overflow(e->record_bytes, e->experts, &e->bytes) ||
        !fp4moe_io_packed_align(end, &e->offset) ||
        __builtin_add_overflow(e->offset, e->bytes, &end) || end > INT64_MAX)
      return fp4moe_fail(FP4MOE_INVALID, "%.200s: the packed file would be too large",
                         k->sources[i]->info.prefix);
  }
  k->head->file_bytes = end;
  k->record = aligned_alloc(FP4MOE_ALIGN, k->record_bytes);
  if (k->record) return FP4MOE_OK;
  return fp4moe_fail(FP4MOE_NO_MEMORY, "a record of %zu bytes", k->record_bytes);
}

/* ---- Writing ---- */

/* The largest so far; from the first expert without one on: none. */
static void keep_input_scale(float *most, float scale, size_t e) {
  int none = scale == 0 || (e > 0 && *most == 0);
  *most = none ? 0 : fmaxf(*most, scale);
}

static void keep_input_scales(struct io_packed_layer *entry, const uint8_t *record, size_t e) {
  fp4moe_record header;
  float scales[2];
  memcpy(&header, record, sizeof header);
  memcpy(scales, record + header.globals + FP4MOE_INPUT_SCALES * sizeof *scales, sizeof scales);
  keep_input_scale(&entry->input_scale_gate_up, scales[0], e);
  keep_input_scale(&entry->input_scale_down, scales[1], e);
}

static fp4moe_status write_expert(void *arg, size_t e, const fp4moe_expert_weights *weights) {
  struct packer *k = arg;
  fp4moe_layer_desc desc = fp4moe_io_packed_desc(k->entry);
  fp4moe_status status = fp4moe_record_write(&desc, weights, k->record);
  if (status != FP4MOE_OK) return status;
  keep_input_scales(k->entry, k->record, e);
  k->entry->headers_sum = fp4moe_io_packed_chain(k->entry->headers_sum, k->record);
  status = fp4moe_io_newfile_write(&k->file, k->entry->offset + e * k->entry->record_bytes,
                                   k->record, (size_t)k->entry->record_bytes);
  if (status == FP4MOE_OK && k->options.progress)
    k->options.progress(k->options.user, ++k->done, k->experts);
  return status;
}

static fp4moe_status write_layers(struct packer *k) {
  for (size_t i = 0; i < k->head->layers; i++) {
    k->entry = &k->entries[i];
    fp4moe_status status =
        fp4moe_io_each_expert(k->checkpoint->tensors, k->sources[i], &k->parts[i], write_expert, k);
    if (status != FP4MOE_OK) return status;
  }
  k->head->identity = fp4moe_io_packed_identity(k->head);
  k->head->checksum = fp4moe_io_packed_checksum(k->head);
  return fp4moe_io_newfile_write(&k->file, 0, k->head, (size_t)k->head->head_bytes);
}

static fp4moe_status write_file(struct packer *k, const char *path) {
  fp4moe_status status = fp4moe_io_newfile_open(path, &k->file);
  if (status != FP4MOE_OK) return status;
  status = write_layers(k);
  if (status == FP4MOE_OK) return fp4moe_io_newfile_commit(&k->file);
  fp4moe_io_newfile_abandon(&k->file);
  return status;
}

/* The end of a path that is too long tells more than its beginning. Only plain text is kept. */
static void name_source(struct packer *k) {
  const char *path = k->checkpoint->path;
  size_t length = strlen(path), most = sizeof k->head->source - 1;
  if (length > most) path += length - most, length = most;
  if (fp4moe_io_is_plain(path)) memcpy(k->head->source, path, length);
}

fp4moe_status fp4moe_checkpoint_pack(const fp4moe_checkpoint *checkpoint, const char *path,
                                     const fp4moe_pack_options *options) {
  static const fp4moe_pack_options none = {.struct_size = sizeof none};
  struct packer k = {.checkpoint = checkpoint};
  if (!checkpoint || !path)
    return fp4moe_fail(FP4MOE_INVALID, "fp4moe_checkpoint_pack: NULL argument");
  fp4moe_status status = fp4moe_take_struct(&k.options, sizeof k.options, options ? options : &none,
                                            "fp4moe_pack_options");
  if (status == FP4MOE_OK && checkpoint->packed)
    status = fp4moe_fail(FP4MOE_INVALID, "%s: is packed already", checkpoint->path);
  if (status == FP4MOE_OK && k.options.slice && k.options.slice->split == FP4MOE_SPLIT_EXPERTS)
    status = fp4moe_fail(FP4MOE_INVALID, "a split by experts is for loading, not for packing");
  uint64_t mode = fp4moe_fp_enter();
  if (status == FP4MOE_OK) status = choose_layers(&k);
  if (status == FP4MOE_OK) status = lay_out(&k);
  if (status == FP4MOE_OK) {
    name_source(&k);
    status = write_file(&k, path);
  }
  fp4moe_fp_leave(mode);
  free(k.sources);
  free(k.parts);
  free(k.head);
  free(k.record);
  return status;
}
