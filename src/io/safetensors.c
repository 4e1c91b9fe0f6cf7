/* safetensors.c - the header of one safetensors file.
 *
 *   8 bytes little-endian N | N bytes JSON {"name": {dtype, shape, data_offsets}, ...} | data
 *
 * The header is believed only after every rule held: N within its cap and the file, an object
 * from its first byte (spaces may follow it), known dtypes, sizes that are the product of the
 * shape, and offsets that cover the data from 0 to the file's end without hole or overlap. */
#include <stdlib.h>
#include <string.h>

#include "io/json.h"
#include "io/tensors.h"
#include "status.h"

struct header {
  const char *path;
  json_t *json;
  uint64_t data_start, data_bytes;
};

static fp4moe_status read_length(const struct io_file *file, uint64_t *length) {
  unsigned char raw[8];
  if (file->bytes < sizeof raw)
    return fp4moe_fail(FP4MOE_INVALID, "%s: %llu bytes, a safetensors file has at least 8",
                       file->path, (unsigned long long)file->bytes);
  fp4moe_status status = fp4moe_io_file_read(file, 0, sizeof raw, raw);
  if (status != FP4MOE_OK) return status;
  if (memcmp(raw, "GGUF", 4) == 0)
    return fp4moe_fail(FP4MOE_UNSUPPORTED, "%s: a GGUF file: open it by its own path", file->path);
  uint64_t n = 0;
  for (size_t i = sizeof raw; i-- > 0;) n = n << 8 | raw[i];
  if (n > IO_HEADER_BYTES_MAX)
    return fp4moe_fail(FP4MOE_INVALID, "%s: header length %llu, at most %zu", file->path,
                       (unsigned long long)n, IO_HEADER_BYTES_MAX);
  if (n > file->bytes - sizeof raw)
    return fp4moe_fail(FP4MOE_INVALID, "%s: header length %llu, but the file has %llu bytes",
                       file->path, (unsigned long long)n, (unsigned long long)file->bytes);
  *length = n;
  return FP4MOE_OK;
}

static fp4moe_status read_header(const struct io_file *file, struct header *header) {
  uint64_t length = 0;
  fp4moe_status status = read_length(file, &length);
  if (status != FP4MOE_OK) return status;
  char *text = malloc((size_t)length + 1);
  if (!text)
    return fp4moe_fail(FP4MOE_NO_MEMORY, "%s: header of %llu bytes", file->path,
                       (unsigned long long)length);
  status = fp4moe_io_file_read(file, 8, (size_t)length, text);
  if (status == FP4MOE_OK && (length == 0 || text[0] != '{'))
    status = fp4moe_fail(FP4MOE_INVALID, "%s: header does not begin with '{'", file->path);
  if (status == FP4MOE_OK)
    status = fp4moe_io_json_parse(file->path, text, (size_t)length, &header->json);
  free(text);
  header->path = file->path;
  header->data_start = 8 + length;
  header->data_bytes = file->bytes - header->data_start;
  return status;
}

static fp4moe_status check_metadata(const struct header *header, json_t *metadata) {
  const char *key;
  json_t *value;
  if (!json_is_object(metadata))
    return fp4moe_fail(FP4MOE_INVALID, "%s: __metadata__ is not an object", header->path);
  json_object_foreach(metadata, key, value) {
    if (!json_is_string(value))
      return fp4moe_fail(FP4MOE_INVALID, "%s: __metadata__ '%.200s' is not a string", header->path,
                         fp4moe_io_plain(key));
  }
  return FP4MOE_OK;
}

static fp4moe_status tensor_fail(const struct header *header, const char *name, const char *what) {
  return fp4moe_fail(FP4MOE_INVALID, "%s: tensor '%.200s': %s", header->path, name, what);
}

static fp4moe_status check_fields(const struct header *header, const char *name, json_t *value) {
  if (!fp4moe_io_is_plain(name))
    return fp4moe_fail(FP4MOE_INVALID, "%s: a tensor name has a control character", header->path);
  if (!json_is_object(value)) return tensor_fail(header, name, "is not an object");
  const char *key;
  json_t *field;
  json_object_foreach(value, key, field) {
    if (strcmp(key, "dtype") && strcmp(key, "shape") && strcmp(key, "data_offsets"))
      return fp4moe_fail(FP4MOE_INVALID, "%s: tensor '%.200s': unknown field '%.60s'", header->path,
                         name, fp4moe_io_plain(key));
  }
  return FP4MOE_OK;
}

static fp4moe_status take_dtype(const struct header *header, json_t *value, fp4moe_tensor *tensor,
                                size_t *bits) {
  const char *dtype = json_string_value(json_object_get(value, "dtype"));
  if (!dtype) return tensor_fail(header, tensor->name, "dtype is missing or no string");
  *bits = fp4moe_io_dtype_bits(dtype, &tensor->dtype);
  if (*bits) return FP4MOE_OK;
  return fp4moe_fail(FP4MOE_INVALID, "%s: tensor '%.200s': unknown dtype '%.60s'", header->path,
                     tensor->name, fp4moe_io_plain(dtype));
}

static fp4moe_status take_shape(const struct header *header, json_t *value, fp4moe_tensor *tensor) {
  json_t *shape = json_object_get(value, "shape");
  if (!json_is_array(shape))
    return tensor_fail(header, tensor->name, "shape is missing or no array");
  tensor->rank = json_array_size(shape);
  if (tensor->rank > FP4MOE_TENSOR_RANK)
    return fp4moe_fail(FP4MOE_INVALID, "%s: tensor '%.200s': rank %zu, at most %d", header->path,
                       tensor->name, tensor->rank, FP4MOE_TENSOR_RANK);
  for (size_t i = 0; i < tensor->rank; i++)
    if (!fp4moe_io_json_size(json_array_get(shape, i), &tensor->shape[i]))
      return fp4moe_fail(FP4MOE_INVALID,
                         "%s: tensor '%.200s': dimension %zu of shape is no non-negative integer",
                         header->path, tensor->name, i);
  return FP4MOE_OK;
}

/* Begin and end in the data, against each other, the data and the shape. */
static fp4moe_status take_offsets(const struct header *header, json_t *value, size_t bits,
                                  fp4moe_tensor *tensor) {
  json_t *offsets = json_object_get(value, "data_offsets");
  size_t begin, end;
  char shape[IO_SHAPE_TEXT];
  if (json_array_size(offsets) != 2 || !fp4moe_io_json_size(json_array_get(offsets, 0), &begin) ||
      !fp4moe_io_json_size(json_array_get(offsets, 1), &end))
    return tensor_fail(header, tensor->name, "data_offsets are no two non-negative integers");
  if (begin > end || end > header->data_bytes)
    return fp4moe_fail(FP4MOE_INVALID,
                       "%s: tensor '%.200s': data_offsets %zu to %zu, but the file has %llu bytes "
                       "of data",
                       header->path, tensor->name, begin, end,
                       (unsigned long long)header->data_bytes);
  fp4moe_io_shape_text(tensor->rank, tensor->shape, shape);
  if (!fp4moe_io_shape_bytes(bits, tensor->rank, tensor->shape, &tensor->bytes))
    return fp4moe_fail(FP4MOE_INVALID,
                       "%s: tensor '%.200s': %s %s overflows or is no whole number of bytes",
                       header->path, tensor->name, tensor->dtype, shape);
  if (tensor->bytes != end - begin)
    return fp4moe_fail(
        FP4MOE_INVALID, "%s: tensor '%.200s': %s %s is %zu bytes, but data_offsets say %zu",
        header->path, tensor->name, tensor->dtype, shape, tensor->bytes, end - begin);
  tensor->file_offset = header->data_start + begin;
  return FP4MOE_OK;
}

static fp4moe_status take_tensor(fp4moe_tensors *set, const struct header *header, const char *name,
                                 json_t *value) {
  struct io_entry *entry = NULL;
  size_t bits = 0;
  fp4moe_status status = check_fields(header, name, value);
  if (status == FP4MOE_OK) status = fp4moe_io_tensors_add(set, name, &entry);
  if (status == FP4MOE_OK) {
    entry->tensor.file = header->path;
    status = take_dtype(header, value, &entry->tensor, &bits);
  }
  if (status == FP4MOE_OK) status = take_shape(header, value, &entry->tensor);
  if (status == FP4MOE_OK) status = take_offsets(header, value, bits, &entry->tensor);
  return status;
}

/* By begin, then end: an empty tensor comes before the one that begins where it lies. */
static int by_offset(const void *a, const void *b) {
  const fp4moe_tensor *x = a, *y = b;
  if (x->file_offset != y->file_offset) return x->file_offset < y->file_offset ? -1 : 1;
  return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

static fp4moe_status check_cover(const struct header *header, const fp4moe_tensors *set,
                                 size_t first) {
  uint64_t at = header->data_start, end = header->data_start + header->data_bytes;
  if (first < set->count)
    qsort(&set->entries[first], set->count - first, sizeof *set->entries, by_offset);
  for (size_t i = first; i < set->count; i++) {
    const fp4moe_tensor *tensor = &set->entries[i].tensor;
    if (tensor->file_offset != at)
      return fp4moe_fail(FP4MOE_INVALID,
                         "%s: tensor '%.200s': data begin at %llu, but those before it end at "
                         "%llu: a hole or an overlap",
                         header->path, tensor->name,
                         (unsigned long long)(tensor->file_offset - header->data_start),
                         (unsigned long long)(at - header->data_start));
    at += tensor->bytes;
  }
  if (at == end) return FP4MOE_OK;
  return fp4moe_fail(FP4MOE_INVALID, "%s: the tensors have %llu bytes, but the file has %llu",
                     header->path, (unsigned long long)(at - header->data_start),
                     (unsigned long long)header->data_bytes);
}

static fp4moe_status take_header(fp4moe_tensors *set, const struct header *header) {
  size_t first = set->count;
  const char *name;
  json_t *value;
  json_object_foreach(header->json, name, value) {
    fp4moe_status status = strcmp(name, "__metadata__") == 0
                               ? check_metadata(header, value)
                               : take_tensor(set, header, name, value);
    if (status != FP4MOE_OK) return status;
  }
  return check_cover(header, set, first);
}

fp4moe_status fp4moe_io_safetensors_append(fp4moe_tensors *set, const char *path) {
  struct header header = {0};
  fp4moe_status status = fp4moe_io_tensors_file(set, path);
  if (status != FP4MOE_OK) return status;
  status = read_header(&set->files[set->files_count - 1], &header);
  if (status == FP4MOE_OK) status = take_header(set, &header);
  json_decref(header.json);
  return status;
}
