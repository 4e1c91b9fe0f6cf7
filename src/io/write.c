/* write.c - writing a safetensors file, whole or not at all.
 *
 * Everything is checked and the header made before a file is touched (newfile.h). */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/newfile.h"
#include "io/tensors.h"
#include "status.h"

struct item {
  const fp4moe_tensor_data *data;
  size_t bits, bytes, index;
};

static fp4moe_status check_item(const char *path, struct item *item) {
  const fp4moe_tensor_data *data = item->data;
  const char *constant;
  if (!data->name || !data->dtype)
    return fp4moe_fail(FP4MOE_INVALID, "%s: tensor %zu has no %s", path, item->index,
                       data->name ? "dtype" : "name");
  if (strcmp(data->name, "__metadata__") == 0)
    return fp4moe_fail(FP4MOE_INVALID, "%s: '__metadata__' is no tensor name", path);
  item->bits = fp4moe_io_dtype_bits(data->dtype, &constant);
  if (!item->bits)
    return fp4moe_fail(FP4MOE_INVALID, "%s: tensor '%.200s': unknown dtype '%.60s'", path,
                       data->name, data->dtype);
  if (data->rank > FP4MOE_TENSOR_RANK || (data->rank && !data->shape) ||
      !fp4moe_io_shape_bytes(item->bits, data->rank, data->shape, &item->bytes))
    return fp4moe_fail(FP4MOE_INVALID, "%s: tensor '%.200s': rank %zu, a shape without bytes", path,
                       data->name, data->rank);
  if (item->bytes && !data->data)
    return fp4moe_fail(FP4MOE_INVALID, "%s: tensor '%.200s': no data for %zu bytes", path,
                       data->name, item->bytes);
  return FP4MOE_OK;
}

static int by_width(const void *a, const void *b) {
  const struct item *x = a, *y = b;
  if (x->bits != y->bits) return x->bits > y->bits ? -1 : 1;
  return x->index < y->index ? -1 : 1;
}

static fp4moe_status make_items(const char *path, const fp4moe_tensor_data *list, size_t n,
                                struct item **items) {
  *items = calloc(n ? n : 1, sizeof **items);
  if (!*items) return fp4moe_fail(FP4MOE_NO_MEMORY, "%s: %zu tensors", path, n);
  for (size_t i = 0; i < n; i++) {
    (*items)[i] = (struct item){.data = &list[i], .index = i};
    fp4moe_status status = check_item(path, &(*items)[i]);
    if (status != FP4MOE_OK) return status;
  }
  qsort(*items, n, sizeof **items, by_width);
  return FP4MOE_OK;
}

/* {"dtype": ..., "shape": [...], "data_offsets": [begin, end]}; NULL: no memory. */
static json_t *make_entry(const struct item *item, size_t begin) {
  json_t *shape = json_array();
  int failed = !shape;
  for (size_t i = 0; !failed && i < item->data->rank; i++)
    failed = json_array_append_new(shape, json_integer((json_int_t)item->data->shape[i]));
  if (!failed)
    return json_pack("{s:s, s:o, s:[I,I]}", "dtype", item->data->dtype, "shape", shape,
                     "data_offsets", (json_int_t)begin, (json_int_t)(begin + item->bytes));
  json_decref(shape);
  return NULL;
}

static fp4moe_status add_entries(const char *path, json_t *root, const struct item *items,
                                 size_t n) {
  size_t at = 0;
  for (size_t i = 0; i < n; i++) {
    const char *name = items[i].data->name;
    if (json_object_get(root, name))
      return fp4moe_fail(FP4MOE_INVALID, "%s: two tensors are called '%.200s'", path, name);
    if (!fp4moe_io_is_utf8(name, strlen(name)) || !fp4moe_io_is_plain(name))
      return fp4moe_fail(FP4MOE_INVALID, "%s: the name of tensor %zu is not plain UTF-8", path,
                         items[i].index);
    if (json_object_set_new(root, name, make_entry(&items[i], at)) != 0)
      return fp4moe_fail(FP4MOE_NO_MEMORY, "%s: header", path);
    if (__builtin_add_overflow(at, items[i].bytes, &at))
      return fp4moe_fail(FP4MOE_INVALID, "%s: tensor '%.200s': file too large", path, name);
  }
  return FP4MOE_OK;
}

/* Text that grows, because jansson's own loses what a failed allocation has no room for. */
struct text {
  char *at;
  size_t bytes, cap;
  int lost;
};

static int append(const char *part, size_t bytes, void *arg) {
  struct text *t = arg;
  if (t->bytes + bytes > t->cap) {
    size_t cap = 2 * (t->bytes + bytes);
    char *at = realloc(t->at, cap);
    if (!at) return t->lost = -1;
    t->at = at;
    t->cap = cap;
  }
  memcpy(t->at + t->bytes, part, bytes);
  t->bytes += bytes;
  return 0;
}

/* The JSON padded with spaces so that data begin at a multiple of 8. */
static fp4moe_status make_header(const char *path, const struct item *items, size_t n, char **text,
                                 size_t *bytes) {
  json_t *root = json_object();
  struct text t = {0};
  if (!root) return fp4moe_fail(FP4MOE_NO_MEMORY, "%s: header", path);
  fp4moe_status status = add_entries(path, root, items, n);
  int failed = status == FP4MOE_OK && (json_dump_callback(root, append, &t, JSON_COMPACT) ||
                                       append("       ", 7 & -t.bytes, &t));
  json_decref(root);
  *text = t.at;
  *bytes = t.bytes;
  if (status != FP4MOE_OK) return status;
  if (failed || t.lost) return fp4moe_fail(FP4MOE_NO_MEMORY, "%s: header", path);
  if (*bytes > IO_HEADER_BYTES_MAX)
    return fp4moe_fail(FP4MOE_INVALID, "%s: header of %zu bytes, at most %zu", path, *bytes,
                       IO_HEADER_BYTES_MAX);
  return FP4MOE_OK;
}

static fp4moe_status write_content(const struct io_newfile *file, const char *header,
                                   size_t header_bytes, const struct item *items, size_t n) {
  unsigned char length[8];
  uint64_t at = sizeof length + header_bytes;
  for (size_t i = 0; i < sizeof length; i++) length[i] = (unsigned char)(header_bytes >> 8 * i);
  fp4moe_status status = fp4moe_io_newfile_write(file, 0, length, sizeof length);
  if (status == FP4MOE_OK)
    status = fp4moe_io_newfile_write(file, sizeof length, header, header_bytes);
  for (size_t i = 0; status == FP4MOE_OK && i < n; at += items[i++].bytes)
    status = fp4moe_io_newfile_write(file, at, items[i].data->data, items[i].bytes);
  return status;
}

static fp4moe_status write_file(const char *path, const char *header, size_t header_bytes,
                                const struct item *items, size_t n) {
  struct io_newfile file;
  fp4moe_status status = fp4moe_io_newfile_open(path, &file);
  if (status != FP4MOE_OK) return status;
  status = write_content(&file, header, header_bytes, items, n);
  if (status == FP4MOE_OK) return fp4moe_io_newfile_commit(&file);
  fp4moe_io_newfile_abandon(&file);
  return status;
}

fp4moe_status fp4moe_tensors_write(const char *path, const fp4moe_tensor_data *list, size_t n) {
  struct item *items = NULL;
  char *header = NULL;
  size_t header_bytes = 0;
  if (!path || (n && !list))
    return fp4moe_fail(FP4MOE_INVALID, "fp4moe_tensors_write: NULL argument");
  fp4moe_status status = make_items(path, list, n, &items);
  if (status == FP4MOE_OK) status = make_header(path, items, n, &header, &header_bytes);
  if (status == FP4MOE_OK) status = write_file(path, header, header_bytes, items, n);
  free(header);
  free(items);
  return status;
}
