/* packed.c - a packed file's head is checked, its layers are mapped (packed.h).
 *
 * The head is believed only after every field held: the counts against the file's size before any
 * memory is asked for, each entry against what this library makes of its sizes, and the offsets
 * against the one place where each layer can lie. A map of a file that is truncated later is
 * SIGBUS, so its size is tested again when a layer is mapped. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checksum.h"
#include "io/packed.h"
#include "io/tensors.h"
#include "input_scale.h"
#include "status.h"

typedef unsigned long long ull;

/* ---- What reader and writer share ---- */

fp4moe_layer_desc fp4moe_io_packed_desc(const struct io_packed_layer *e) {
  return (fp4moe_layer_desc){.struct_size = sizeof(fp4moe_layer_desc),
                             .hidden = (size_t)e->hidden,
                             .intermediate = (size_t)e->intermediate,
                             .experts = (size_t)e->experts,
                             .format = (fp4moe_format)e->format,
                             .precision = FP4MOE_PRECISION_BF16,
                             .activation = {(fp4moe_activation_kind)e->kind, (int)e->gated,
                                            e->alpha, e->beta, e->limit, e->linear_beta},
                             .router_weight_on_input = (int)e->router_weight_on_input};
}

int fp4moe_io_packed_align(uint64_t end, uint64_t *offset) {
  if (__builtin_add_overflow(end, (uint64_t)(IO_PACKED_ALIGN - 1), offset)) return 0;
  *offset &= ~(uint64_t)(IO_PACKED_ALIGN - 1);
  return *offset <= INT64_MAX;
}

/* All before the first panel: the header and the bytes that align what follows. */
enum { RECORD_HEAD = (sizeof(fp4moe_record) + FP4MOE_ALIGN - 1) / FP4MOE_ALIGN * FP4MOE_ALIGN };

uint64_t fp4moe_io_packed_chain(uint64_t sum, const void *record) {
  struct {
    uint64_t sum[4];
    uint8_t head[RECORD_HEAD];
  } link = {.sum = {sum}};
  memcpy(link.head, record, sizeof link.head);
  return fp4moe_checksum(&link, sizeof link);
}

uint64_t fp4moe_io_packed_identity(const struct io_packed_head *head) {
  return fp4moe_checksum(head + 1, head->layers * sizeof(struct io_packed_layer));
}

/* The head's fields before `checksum` and after it, then the entries. */
uint64_t fp4moe_io_packed_checksum(const struct io_packed_head *head) {
  struct io_packed_head copy = *head;
  copy.checksum = 0;
  uint64_t link[4] = {fp4moe_checksum(&copy, sizeof copy), fp4moe_io_packed_identity(head)};
  return fp4moe_checksum(link, sizeof link);
}

/* ---- The head ---- */

static fp4moe_status differ(const struct io_packed *p, const char *field, uint64_t have,
                            uint64_t expected) {
  return fp4moe_fail(FP4MOE_INVALID, "%s: packed file: %s is %llu, expected %llu", p->file.path,
                     field, (ull)have, (ull)expected);
}

struct expected {
  const char *field;
  uint64_t have, expected;
};

static fp4moe_status check_fields(const struct io_packed *p, const struct expected *fields,
                                  size_t n) {
  for (size_t i = 0; i < n; i++)
    if (fields[i].have != fields[i].expected)
      return differ(p, fields[i].field, fields[i].have, fields[i].expected);
  return FP4MOE_OK;
}

/* What decides whether the rest can be read at all. */
static fp4moe_status check_head(const struct io_packed *p, const struct io_packed_head *h) {
  const struct expected fields[] = {
      {"version", h->version, IO_PACKED_VERSION},
      {"layout", h->layout, FP4MOE_LAYOUT_ID},
      {"record version", h->record_version, FP4MOE_RECORD_VERSION},
      {"file_bytes", h->file_bytes, p->file.bytes},
      {"head_bytes", h->head_bytes, sizeof *h + h->layers * sizeof(struct io_packed_layer)},
      {"a reserved field", h->reserved, 0},
  };
  fp4moe_status status = check_fields(p, fields, sizeof fields / sizeof *fields);
  if (status == FP4MOE_OK && (h->layers == 0 || h->layers > IO_PACKED_LAYERS))
    status = fp4moe_fail(FP4MOE_INVALID, "%s: packed file: %u layers, expected 1 to %d",
                         p->file.path, h->layers, (int)IO_PACKED_LAYERS);
  if (status == FP4MOE_OK && h->head_bytes > p->file.bytes)
    status = differ(p, "head_bytes", h->head_bytes, p->file.bytes);
  return status;
}

static fp4moe_status read_head(struct io_packed *p) {
  struct io_packed_head head;
  fp4moe_status status = fp4moe_io_file_read(&p->file, 0, sizeof head, &head);
  if (status == FP4MOE_OK) status = check_head(p, &head);
  if (status != FP4MOE_OK) return status;
  p->head = malloc((size_t)head.head_bytes);
  if (!p->head)
    return fp4moe_fail(FP4MOE_NO_MEMORY, "%s: head of %llu bytes", p->file.path,
                       (ull)head.head_bytes);
  status = fp4moe_io_file_read(&p->file, 0, (size_t)head.head_bytes, p->head);
  if (status != FP4MOE_OK) return status;
  if (memcmp(p->head, &head, sizeof head) != 0)
    return fp4moe_fail(FP4MOE_INVALID, "%s: packed file: changed while it was read", p->file.path);
  p->layers = (const void *)(p->head + 1);
  const struct expected sums[] = {
      {"checksum", head.checksum, fp4moe_io_packed_checksum(p->head)},
      {"identity", head.identity, fp4moe_io_packed_identity(p->head)},
  };
  return check_fields(p, sums, 2);
}

/* ---- The entries ---- */

/* Ends in 0, has nothing behind it, and can be shown. */
static int is_text(const char *text, size_t room) {
  const char *end = memchr(text, 0, room);
  if (!end || !fp4moe_io_is_plain(text)) return 0;
  while (end < text + room && !*end) end++;
  return end == text + room;
}

static int is_reserved(const struct io_packed_layer *e) {
  for (size_t i = 0; i < sizeof e->reserved / sizeof *e->reserved; i++)
    if (e->reserved[i]) return 0;
  return 1;
}

static fp4moe_status check_texts(const struct io_packed *p) {
  int ok = is_text(p->head->source, sizeof p->head->source);
  for (size_t i = 0; i < p->head->layers && ok; i++)
    ok = is_text(p->layers[i].family, sizeof p->layers[i].family) &&
         is_text(p->layers[i].prefix, sizeof p->layers[i].prefix) && is_reserved(&p->layers[i]);
  if (ok) return FP4MOE_OK;
  return fp4moe_fail(FP4MOE_INVALID, "%s: packed file: a text is not plain or not ended",
                     p->file.path);
}

static int is_scale_or_none(float scale) { return scale == 0 || fp4moe_is_input_scale(scale); }

/* One entry, whose records can lie at `offset` only. *end: where they end. */
static fp4moe_status check_entry(const struct io_packed *p, const struct io_packed_layer *e,
                                 uint64_t offset, uint64_t *end) {
  if (e->hidden > SIZE_MAX || e->intermediate > SIZE_MAX || e->experts > SIZE_MAX ||
      e->format > INT32_MAX || e->gated > 1 || e->kind > INT32_MAX ||
      e->router_weight_on_input > 1 || !is_scale_or_none(e->input_scale_gate_up) ||
      !is_scale_or_none(e->input_scale_down))
    return fp4moe_fail(FP4MOE_INVALID, "%s: packed file: layer %llu: a field is out of range",
                       p->file.path, (ull)e->layer);
  fp4moe_layer_desc desc = fp4moe_io_packed_desc(e);
  size_t record = fp4moe_record_bytes(&desc), bytes = 0;
  if (!record || __builtin_mul_overflow(record, desc.experts, &bytes) ||
      __builtin_add_overflow(offset, bytes, end)) {
    fp4moe_fail_in("%s: packed file: layer %llu", p->file.path, (ull)e->layer);
    return FP4MOE_INVALID;
  }
  const struct expected fields[] = {
      {"offset of a layer", e->offset, offset},
      {"record_bytes of a layer", e->record_bytes, record},
      {"bytes of a layer", e->bytes, bytes},
  };
  fp4moe_status status = check_fields(p, fields, sizeof fields / sizeof *fields);
  if (status == FP4MOE_OK && e->top_k > e->experts)
    status = differ(p, "top_k of a layer", e->top_k, e->experts);
  return status;
}

static fp4moe_status check_entries(const struct io_packed *p) {
  uint64_t end = p->head->head_bytes, offset;
  for (size_t i = 0; i < p->head->layers; i++) {
    if (!fp4moe_io_packed_align(end, &offset)) return differ(p, "offset", end, INT64_MAX);
    fp4moe_status status = check_entry(p, &p->layers[i], offset, &end);
    if (status != FP4MOE_OK) return status;
  }
  return end == p->file.bytes ? FP4MOE_OK : differ(p, "file_bytes", p->file.bytes, end);
}

/* ---- Opening ---- */

/* Whether the file begins like a packed one; whatever is wrong otherwise is for others to say. */
static fp4moe_status has_magic(const struct io_file *file, int *has) {
  uint64_t magic = 0;
  *has = 0;
  if (file->bytes < sizeof magic) return FP4MOE_OK;
  fp4moe_status status = fp4moe_io_file_read(file, 0, sizeof magic, &magic);
  *has = magic == IO_PACKED_MAGIC;
  return status;
}

static fp4moe_status open_file(struct io_packed *p, const char *path, int *is_packed) {
  fp4moe_status status = fp4moe_io_file_open(path, &p->file);
  if (status == FP4MOE_OK) status = has_magic(&p->file, is_packed);
  if (status != FP4MOE_OK || !*is_packed) return status;
  status = read_head(p);
  if (status == FP4MOE_OK) status = check_texts(p);
  return status == FP4MOE_OK ? check_entries(p) : status;
}

/* The packed file of a directory, or NULL in *path; never beside the tensors it may be made of. */
static fp4moe_status find_file(const char *dir, char **path) {
  static const char *const others[] = {"model.safetensors.index.json", "model.safetensors"};
  *path = fp4moe_io_path_join(dir, FP4MOE_PACKED_FILE);
  if (!*path) return FP4MOE_NO_MEMORY;
  if (!fp4moe_io_exists(*path)) {
    free(*path);
    *path = NULL;
    return FP4MOE_OK;
  }
  for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
    char *other = fp4moe_io_path_join(dir, others[i]);
    int both = other && fp4moe_io_exists(other);
    free(other);
    if (!both && other) continue;
    free(*path);
    if (!other) return FP4MOE_NO_MEMORY;
    return fp4moe_fail(FP4MOE_INVALID, "%s: has both %s and %s: name the file that is meant", dir,
                       FP4MOE_PACKED_FILE, others[i]);
  }
  return FP4MOE_OK;
}

fp4moe_status fp4moe_io_packed_open(const char *path, const fp4moe_open_options *options,
                                    struct io_packed **packed) {
  char *inside = NULL;
  int is_packed = 1;
  *packed = NULL;
  if (fp4moe_io_is_directory(path)) {
    fp4moe_status status = find_file(path, &inside);
    if (status != FP4MOE_OK || !inside) return status;
  }
  struct io_packed *p = calloc(1, sizeof *p);
  fp4moe_status status = FP4MOE_NO_MEMORY;
  if (p) {
    *p = (struct io_packed){.file.fd = -1, .verify = options->verify, .copy = options->copy};
    status = open_file(p, inside ? inside : path, &is_packed);
  } else {
    fp4moe_fail(status, "%s: packed file", path);
  }
  if (status == FP4MOE_OK && inside && !is_packed)
    status = fp4moe_fail(FP4MOE_INVALID, "%s: is no packed file", inside);
  free(inside);
  if (status == FP4MOE_OK && is_packed)
    *packed = p;
  else
    fp4moe_io_packed_close(p);
  return status;
}

void fp4moe_io_packed_close(struct io_packed *p) {
  if (!p) return;
  fp4moe_io_file_close(&p->file);
  free(p->head);
  free(p);
}

/* ---- Loading ---- */

static fp4moe_status check_size(const struct io_packed *p) {
  struct stat st;
  if (fstat(p->file.fd, &st) != 0)
    return fp4moe_fail(FP4MOE_SYSTEM, "%s: stat: %s", p->file.path, strerror(errno));
  if ((uint64_t)st.st_size == p->file.bytes) return FP4MOE_OK;
  return fp4moe_fail(FP4MOE_INVALID, "%s: %llu bytes now, %llu when it was opened", p->file.path,
                     (ull)st.st_size, (ull)p->file.bytes);
}

/* The entry's sum over the headers of all its records, whatever part is wanted. */
static fp4moe_status check_headers(const struct io_packed *p, const struct io_packed_layer *e) {
  uint8_t head[RECORD_HEAD];
  uint64_t sum = 0;
  for (size_t i = 0; i < e->experts; i++) {
    fp4moe_status status =
        fp4moe_io_file_read(&p->file, e->offset + i * e->record_bytes, sizeof head, head);
    if (status != FP4MOE_OK) return status;
    sum = fp4moe_io_packed_chain(sum, head);
  }
  if (sum == e->headers_sum) return FP4MOE_OK;
  return fp4moe_fail(FP4MOE_INVALID, "the records' headers give %016llx, expected %016llx",
                     (ull)sum, (ull)e->headers_sum);
}

/* Class NVFP4 with the layer's global: what the caller left open is in the entry. */
static fp4moe_status take_input_scales(const struct io_packed_layer *e, fp4moe_layer_desc *desc) {
  if (!fp4moe_reads_layer_scales(desc)) return FP4MOE_OK;
  if (desc->input_scale_gate_up == 0) desc->input_scale_gate_up = e->input_scale_gate_up;
  if (desc->input_scale_down == 0) desc->input_scale_down = e->input_scale_down;
  if (desc->input_scale_gate_up != 0 && desc->input_scale_down != 0) return FP4MOE_OK;
  return fp4moe_fail(
      FP4MOE_UNSUPPORTED,
      "an expert has no input scale, which class NVFP4 with the layer's global reads");
}

/* Bytes from the page's begin, where a map begins, to the records. */
static size_t page_offset(uint64_t at) { return (size_t)at % (size_t)sysconf(_SC_PAGESIZE); }

static void unmap(void *user, const void *data, size_t bytes) {
  (void)user;
  size_t before = page_offset((uintptr_t)data);
  munmap((char *)(uintptr_t)data - before, before + bytes);
}

static fp4moe_status map_layer(const struct io_packed *p, uint64_t offset,
                               const struct io_part *part, size_t record, fp4moe_context *context,
                               fp4moe_layer **layer) {
  fp4moe_records records = {.struct_size = sizeof records,
                            .bytes = part->desc.experts * record,
                            .verify = p->verify,
                            .release = unmap};
  size_t before = page_offset(offset), all = before + records.bytes;
  const char *map = mmap(NULL, all, PROT_READ, MAP_SHARED, p->file.fd, (off_t)(offset - before));
  if (map == MAP_FAILED)
    return fp4moe_fail(FP4MOE_SYSTEM, "map of %zu bytes: %s", all, strerror(errno));
  records.data = map + before;
  fp4moe_status status = fp4moe_layer_map(context, &part->desc, &records, layer);
  if (status != FP4MOE_OK) unmap(NULL, records.data, records.bytes);
  return status;
}

static fp4moe_status copy_records(const struct io_packed *p, uint64_t offset, size_t experts,
                                  size_t bytes, void *record, fp4moe_layer *layer) {
  for (size_t e = 0; e < experts; e++) {
    fp4moe_status status = fp4moe_io_file_read(&p->file, offset + e * bytes, bytes, record);
    if (status == FP4MOE_OK) status = fp4moe_layer_set_record(layer, e, record);
    if (status != FP4MOE_OK) {
      fp4moe_fail_in("expert %zu", e);
      return status;
    }
  }
  return fp4moe_layer_finish(layer);
}

static fp4moe_status copy_layer(const struct io_packed *p, uint64_t offset,
                                const struct io_part *part, size_t bytes, fp4moe_context *context,
                                fp4moe_layer **layer) {
  fp4moe_layer *made = NULL;
  void *record = aligned_alloc(FP4MOE_ALIGN, bytes);
  if (!record) return fp4moe_fail(FP4MOE_NO_MEMORY, "a record of %zu bytes", bytes);
  fp4moe_status status = fp4moe_layer_begin(context, &part->desc, &made);
  if (status == FP4MOE_OK)
    status = copy_records(p, offset, part->desc.experts, bytes, record, made);
  free(record);
  if (status == FP4MOE_OK)
    *layer = made;
  else
    fp4moe_layer_destroy(made);
  return status;
}

fp4moe_status fp4moe_io_packed_load(const struct io_packed *p, const struct io_packed_layer *e,
                                    const struct io_part *part, fp4moe_context *context,
                                    fp4moe_layer **layer) {
  size_t bytes = (size_t)e->record_bytes;
  size_t first = part->split == FP4MOE_SPLIT_EXPERTS ? part->first : 0;
  struct io_part own = *part;
  fp4moe_status status = check_size(p);
  if (status != FP4MOE_OK) return status;
  if (part->split == FP4MOE_SPLIT_INTERMEDIATE)
    status = fp4moe_fail(FP4MOE_UNSUPPORTED, "packed whole: pack the rank's part itself");
  if (status == FP4MOE_OK) status = take_input_scales(e, &own.desc);
  if (status == FP4MOE_OK) status = check_headers(p, e);
  if (status == FP4MOE_OK)
    status = (p->copy ? copy_layer : map_layer)(p, e->offset + first * bytes, &own, bytes, context,
                                                layer);
  if (status != FP4MOE_OK) fp4moe_fail_in("%s: layer %llu", p->file.path, (ull)e->layer);
  return status;
}
