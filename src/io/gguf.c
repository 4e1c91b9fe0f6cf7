/* gguf.c - the header of one GGUF file.
 *
 *   "GGUF" | u32 version 3 | u64 tensors | u64 keys | keys: string, u32 type, value
 *          | tensors: string name, u32 n, u64 dims[n] (fastest first), u32 type, u64 offset | data
 *
 * All numbers are little-endian, a string is a u64 length and its bytes. The header has no length
 * of its own, so it is read through a window, and every count and length is held against the bytes
 * that are left before anything is made of it. Memory: the window, one entry for each tensor that
 * was really there, and one JSON value for each key; bulk values (vocabularies) are stepped over.
 */
#include "io/gguf.h"

#include <endian.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "io/ggml.h"
#include "status.h"

enum { WINDOW = 1 << 16, TEXT_KEPT = 256 };

enum { U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64, VALUE_TYPES };
static const unsigned char value_bytes[VALUE_TYPES] = {
    [U8] = 1,  [I8] = 1,   [U16] = 2, [I16] = 2, [U32] = 4, [I32] = 4,
    [F32] = 4, [BOOL] = 1, [U64] = 8, [I64] = 8, [F64] = 8};

struct reader {
  const struct io_file *file;
  uint64_t at, window_at;
  size_t window_bytes;
  char *window, *text; /* text: the string last read, IO_GGUF_KEY_BYTES + 1 */
};

/* ---- Bytes ---- */

static uint64_t left(const struct reader *r) { return r->file->bytes - r->at; }

/* `count` items of at least `bytes` each must still fit. */
static fp4moe_status need(const struct reader *r, uint64_t count, uint64_t bytes,
                          const char *what) {
  if (count <= left(r) / bytes) return FP4MOE_OK;
  return fp4moe_fail(FP4MOE_INVALID, "%s: %llu %s wanted at byte %llu, but the file has %llu bytes",
                     r->file->path, (unsigned long long)count, what, (unsigned long long)r->at,
                     (unsigned long long)r->file->bytes);
}

static fp4moe_status fill(struct reader *r) {
  r->window_at = r->at;
  r->window_bytes = left(r) < WINDOW ? (size_t)left(r) : WINDOW;
  return fp4moe_io_file_read(r->file, r->at, r->window_bytes, r->window);
}

static fp4moe_status take(struct reader *r, void *to, uint64_t bytes) {
  fp4moe_status status = need(r, bytes, 1, "bytes");
  while (status == FP4MOE_OK && bytes) {
    uint64_t in = r->at - r->window_at;
    if (r->at < r->window_at || in >= r->window_bytes) {
      status = fill(r);
      continue;
    }
    size_t n = r->window_bytes - (size_t)in < bytes ? r->window_bytes - (size_t)in : (size_t)bytes;
    memcpy(to, r->window + in, n);
    to = (char *)to + n;
    r->at += n;
    bytes -= n;
  }
  return status;
}

static fp4moe_status take_u32(struct reader *r, uint32_t *value) {
  fp4moe_status status = take(r, value, sizeof *value);
  *value = le32toh(*value);
  return status;
}

static fp4moe_status take_u64(struct reader *r, uint64_t *value) {
  fp4moe_status status = take(r, value, sizeof *value);
  *value = le64toh(*value);
  return status;
}

static fp4moe_status skip(struct reader *r, uint64_t count, uint64_t bytes, const char *what) {
  fp4moe_status status = need(r, count, bytes, what);
  if (status == FP4MOE_OK) r->at += count * bytes;
  return status;
}

/* A name into r->text: 1 to `most` bytes of UTF-8 without control characters. */
static fp4moe_status take_name(struct reader *r, uint64_t most, const char *what) {
  uint64_t length = 0;
  fp4moe_status status = take_u64(r, &length);
  if (status != FP4MOE_OK) return status;
  if (length == 0 || length > most)
    return fp4moe_fail(FP4MOE_INVALID, "%s: %s of %llu bytes at byte %llu, at most %llu",
                       r->file->path, what, (unsigned long long)length, (unsigned long long)r->at,
                       (unsigned long long)most);
  status = take(r, r->text, length);
  if (status != FP4MOE_OK) return status;
  r->text[length] = 0;
  if (fp4moe_io_is_utf8(r->text, (size_t)length) && !memchr(r->text, 0, (size_t)length) &&
      fp4moe_io_is_plain(r->text))
    return FP4MOE_OK;
  return fp4moe_fail(FP4MOE_INVALID, "%s: %s before byte %llu is not plain UTF-8", r->file->path,
                     what, (unsigned long long)r->at);
}

/* ---- Metadata ---- */

/* A value that is to be kept; NULL: no memory for it. */
static fp4moe_status keep(const struct reader *r, json_t *json, json_t **value) {
  *value = json;
  return json ? FP4MOE_OK : fp4moe_fail(FP4MOE_NO_MEMORY, "%s: metadata", r->file->path);
}

/* A string value; kept when it is short and well-formed. */
static fp4moe_status take_string(struct reader *r, json_t **value) {
  char text[TEXT_KEPT];
  uint64_t length = 0;
  fp4moe_status status = take_u64(r, &length);
  if (status != FP4MOE_OK) return status;
  if (length > sizeof text) return skip(r, length, 1, "bytes of text");
  status = take(r, text, length);
  if (status != FP4MOE_OK || !value || !fp4moe_io_is_utf8(text, (size_t)length)) return status;
  return keep(r, json_stringn(text, (size_t)length), value);
}

static json_t *real(double x) { return isfinite(x) ? json_real(x) : json_null(); }

/* null: NaN, Inf, too large. NULL: no memory. */
static json_t *number(uint32_t type, uint64_t raw) {
  uint32_t low = (uint32_t)raw;
  float f;
  double d;
  memcpy(&f, &low, sizeof f);
  memcpy(&d, &raw, sizeof d);
  switch (type) {
  case I8:
    return json_integer((int8_t)raw);
  case I16:
    return json_integer((int16_t)raw);
  case I32:
    return json_integer((int32_t)raw);
  case F32:
    return real((double)f);
  case F64:
    return real(d);
  case BOOL:
    return json_boolean(raw);
  default:
    return raw > INT64_MAX ? json_null() : json_integer((json_int_t)raw);
  }
}

static fp4moe_status take_number(struct reader *r, uint32_t type, json_t **value) {
  uint64_t raw = 0;
  fp4moe_status status = take(r, &raw, value_bytes[type]);
  return status == FP4MOE_OK ? keep(r, number(type, le64toh(raw)), value) : status;
}

/* Floats that are all the same are one float; any others are stepped over. */
static fp4moe_status take_floats(struct reader *r, uint64_t count, json_t **value) {
  fp4moe_status status = need(r, count, sizeof(float), "floats");
  uint32_t first = 0, next;
  int equal = count > 0;
  for (uint64_t i = 0; status == FP4MOE_OK && i < count; i++) {
    status = take_u32(r, &next);
    if (i == 0) first = next;
    equal = equal && next == first;
  }
  return status == FP4MOE_OK && equal ? keep(r, number(F32, first), value) : status;
}

static fp4moe_status take_array(struct reader *r, json_t **value) {
  uint32_t type = 0;
  uint64_t count = 0;
  fp4moe_status status = take_u32(r, &type);
  if (status == FP4MOE_OK) status = take_u64(r, &count);
  if (status != FP4MOE_OK) return status;
  if (type >= VALUE_TYPES || type == ARRAY)
    return fp4moe_fail(FP4MOE_INVALID, "%s: key '%.100s': array of type %u", r->file->path, r->text,
                       type);
  if (type == F32) return take_floats(r, count, value);
  if (type != STRING) return skip(r, count, value_bytes[type], "values");
  status = need(r, count, sizeof(uint64_t), "strings");
  for (uint64_t i = 0; status == FP4MOE_OK && i < count; i++) status = take_string(r, NULL);
  return status;
}

static fp4moe_status take_key(struct reader *r, json_t *metadata) {
  uint32_t type = 0;
  json_t *value = NULL;
  fp4moe_status status = take_name(r, IO_GGUF_KEY_BYTES, "key");
  if (status == FP4MOE_OK) status = take_u32(r, &type);
  if (status != FP4MOE_OK) return status;
  if (json_object_get(metadata, r->text))
    return fp4moe_fail(FP4MOE_INVALID, "%s: duplicate key '%.100s'", r->file->path, r->text);
  if (type >= VALUE_TYPES)
    return fp4moe_fail(FP4MOE_INVALID, "%s: key '%.100s' has type %u", r->file->path, r->text,
                       type);
  if (type == STRING)
    status = take_string(r, &value);
  else if (type == ARRAY)
    status = take_array(r, &value);
  else
    status = take_number(r, type, &value);
  if (status != FP4MOE_OK) {
    json_decref(value);
    return status;
  }
  if (json_object_set_new(metadata, r->text, value ? value : json_null()) == 0) return FP4MOE_OK;
  return fp4moe_fail(FP4MOE_NO_MEMORY, "%s: metadata", r->file->path);
}

static fp4moe_status take_alignment(const struct reader *r, json_t *metadata, uint64_t *alignment) {
  json_t *value = json_object_get(metadata, "general.alignment");
  json_int_t n = value ? json_integer_value(value) : 32;
  *alignment = (uint64_t)n;
  if (n > 0 && *alignment <= IO_GGUF_ALIGNMENT && !(*alignment & (*alignment - 1)))
    return FP4MOE_OK;
  return fp4moe_fail(FP4MOE_INVALID, "%s: general.alignment %lld is no power of two from 1 to %llu",
                     r->file->path, (long long)n, (unsigned long long)IO_GGUF_ALIGNMENT);
}

/* ---- Tensors ---- */

static fp4moe_status take_shape(struct reader *r, fp4moe_tensor *tensor) {
  uint32_t rank = 0;
  fp4moe_status status = take_u32(r, &rank);
  if (status == FP4MOE_OK && rank > 4)
    return fp4moe_fail(FP4MOE_INVALID, "%s: tensor '%.200s': %u dimensions, at most 4",
                       r->file->path, tensor->name, rank);
  tensor->rank = rank;
  for (size_t i = rank; status == FP4MOE_OK && i-- > 0;) {
    uint64_t n = 0;
    status = take_u64(r, &n);
    if (status == FP4MOE_OK && n > INT64_MAX)
      return fp4moe_fail(FP4MOE_INVALID, "%s: tensor '%.200s': dimension %zu is %llu",
                         r->file->path, tensor->name, rank - 1 - i, (unsigned long long)n);
    tensor->shape[i] = (size_t)n;
  }
  return status;
}

/* 0: does not fit, or rows are no whole number of blocks. */
static int tensor_bytes(const struct io_ggml_type *type, const fp4moe_tensor *tensor,
                        size_t *bytes) {
  size_t rank = tensor->rank, k = rank ? tensor->shape[rank - 1] : 1, rest;
  if (!fp4moe_io_shape_bytes(8, rank ? rank - 1 : 0, tensor->shape, &rest)) return 0;
  return k % type->elements == 0 &&
         !__builtin_mul_overflow(k / type->elements, (size_t)type->bytes, bytes) &&
         !__builtin_mul_overflow(*bytes, rest, bytes) && *bytes <= INT64_MAX;
}

/* Bytes of a type that is known; of another, SIZE_MAX until its neighbours tell. */
static fp4moe_status take_type(struct reader *r, fp4moe_tensor *tensor) {
  char shape[IO_SHAPE_TEXT];
  uint32_t type = 0;
  fp4moe_status status = take_u32(r, &type);
  if (status != FP4MOE_OK) return status;
  const struct io_ggml_type *known = fp4moe_io_ggml_type(type);
  tensor->dtype = known ? known->name : "GGML?";
  tensor->bytes = SIZE_MAX;
  if (!known || tensor_bytes(known, tensor, &tensor->bytes)) return FP4MOE_OK;
  return fp4moe_fail(FP4MOE_INVALID,
                     "%s: tensor '%.200s': %s %s overflows or is no whole number of blocks of %u",
                     r->file->path, tensor->name, tensor->dtype,
                     fp4moe_io_shape_text(tensor->rank, tensor->shape, shape), known->elements);
}

static fp4moe_status take_tensor(struct reader *r, fp4moe_tensors *set, uint64_t alignment) {
  struct io_entry *entry = NULL;
  fp4moe_status status = take_name(r, IO_GGUF_NAME_BYTES, "tensor name");
  if (status == FP4MOE_OK) status = fp4moe_io_tensors_add(set, r->text, &entry);
  if (status != FP4MOE_OK) return status;
  fp4moe_tensor *tensor = &entry->tensor;
  tensor->file = r->file->path;
  status = take_shape(r, tensor);
  if (status == FP4MOE_OK) status = take_type(r, tensor);
  if (status == FP4MOE_OK) status = take_u64(r, &tensor->file_offset);
  if (status == FP4MOE_OK && tensor->file_offset % alignment)
    return fp4moe_fail(FP4MOE_INVALID, "%s: tensor '%.200s': offset %llu is no multiple of %llu",
                       r->file->path, tensor->name, (unsigned long long)tensor->file_offset,
                       (unsigned long long)alignment);
  return status;
}

/* ---- Extents ---- */

/* By offset; an empty tensor comes before the one that begins where it lies. */
static int by_offset(const void *a, const void *b) {
  const fp4moe_tensor *x = a, *y = b;
  if (x->file_offset != y->file_offset) return x->file_offset < y->file_offset ? -1 : 1;
  return (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

/* Offsets from the start of the data: each tensor begins where the one before it ends, aligned, and
 * the last ends with the file, aligned or not. One of unknown type reaches up to the next. */
static fp4moe_status check_extents(const struct reader *r, fp4moe_tensors *set, size_t first,
                                   uint64_t data, uint64_t alignment) {
  uint64_t bytes = data < r->file->bytes ? r->file->bytes - data : 0, at = 0, end = 0;
  if (first < set->count)
    qsort(&set->entries[first], set->count - first, sizeof *set->entries, by_offset);
  for (size_t i = first; i < set->count; i++) {
    fp4moe_tensor *tensor = &set->entries[i].tensor;
    if (tensor->file_offset != at || at > bytes)
      return fp4moe_fail(FP4MOE_INVALID,
                         "%s: tensor '%.200s': data begin at %llu of %llu, but those before it end "
                         "at %llu: a hole or an overlap",
                         r->file->path, tensor->name, (unsigned long long)tensor->file_offset,
                         (unsigned long long)bytes, (unsigned long long)at);
    uint64_t next = i + 1 < set->count ? set->entries[i + 1].tensor.file_offset : bytes;
    if (tensor->bytes == SIZE_MAX) tensor->bytes = next < at ? 0 : (size_t)(next - at);
    if (tensor->bytes > bytes - at)
      return fp4moe_fail(FP4MOE_INVALID,
                         "%s: tensor '%.200s': %zu bytes at %llu, but the file has %llu of data",
                         r->file->path, tensor->name, tensor->bytes, (unsigned long long)at,
                         (unsigned long long)bytes);
    end = at + tensor->bytes;
    at = (end + alignment - 1) & ~(alignment - 1);
    tensor->file_offset += data;
  }
  if (end == bytes || at == bytes) return FP4MOE_OK;
  return fp4moe_fail(FP4MOE_INVALID, "%s: the tensors have %llu bytes, but the file has %llu",
                     r->file->path, (unsigned long long)end, (unsigned long long)bytes);
}

/* ---- The file ---- */

fp4moe_status fp4moe_io_is_gguf(const struct io_file *file, int *is) {
  char magic[4] = "";
  fp4moe_status status = FP4MOE_OK;
  if (file->bytes >= sizeof magic) status = fp4moe_io_file_read(file, 0, sizeof magic, magic);
  *is = memcmp(magic, "GGUF", sizeof magic) == 0;
  return status;
}

static fp4moe_status take_counts(struct reader *r, uint64_t *tensors, uint64_t *keys) {
  enum { KEY_LEAST = 8 + 1 + 4 + 1, TENSOR_LEAST = 8 + 1 + 4 + 4 + 8 };
  uint32_t version = 0;
  r->at = 4;
  fp4moe_status status = take_u32(r, &version);
  if (status == FP4MOE_OK && version != 3)
    return fp4moe_fail(FP4MOE_UNSUPPORTED, "%s: GGUF version %u, only 3 is read", r->file->path,
                       version);
  if (status == FP4MOE_OK) status = take_u64(r, tensors);
  if (status == FP4MOE_OK) status = take_u64(r, keys);
  if (status == FP4MOE_OK) status = need(r, *tensors, TENSOR_LEAST, "tensors");
  if (status == FP4MOE_OK) status = need(r, *keys, KEY_LEAST, "keys");
  if (status != FP4MOE_OK || (*tensors <= IO_GGUF_TENSORS && *keys <= IO_GGUF_KEYS)) return status;
  return fp4moe_fail(FP4MOE_INVALID, "%s: %llu tensors and %llu keys, at most %llu and %llu",
                     r->file->path, (unsigned long long)*tensors, (unsigned long long)*keys,
                     (unsigned long long)IO_GGUF_TENSORS, (unsigned long long)IO_GGUF_KEYS);
}

static fp4moe_status take_header(struct reader *r, fp4moe_tensors *set, json_t *metadata) {
  uint64_t tensors = 0, keys = 0, alignment = 0;
  size_t first = set->count;
  fp4moe_status status = take_counts(r, &tensors, &keys);
  for (uint64_t i = 0; status == FP4MOE_OK && i < keys; i++) status = take_key(r, metadata);
  if (status == FP4MOE_OK) status = take_alignment(r, metadata, &alignment);
  for (uint64_t i = 0; status == FP4MOE_OK && i < tensors; i++)
    status = take_tensor(r, set, alignment);
  if (status != FP4MOE_OK) return status;
  return check_extents(r, set, first, (r->at + alignment - 1) & ~(alignment - 1), alignment);
}

fp4moe_status fp4moe_io_gguf_take(fp4moe_tensors *set, json_t **metadata) {
  struct reader r = {.file = &set->files[set->files_count - 1]};
  fp4moe_status status;
  r.window = malloc(WINDOW);
  r.text = malloc(IO_GGUF_KEY_BYTES + 1);
  *metadata = json_object();
  if (!r.window || !r.text || !*metadata)
    status = fp4moe_fail(FP4MOE_NO_MEMORY, "%s: header", r.file->path);
  else
    status = take_header(&r, set, *metadata);
  if (status != FP4MOE_OK) {
    json_decref(*metadata);
    *metadata = NULL;
  }
  free(r.window);
  free(r.text);
  return status;
}
