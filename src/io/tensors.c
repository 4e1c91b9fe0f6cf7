/* tensors.c - opening a file or a model directory as one set of tensors.
 *
 * All shards of a model are opened, and stay open: the set is what was checked, even when files
 * are replaced meanwhile. Shards may hold tensors that the index does not list; nothing may be
 * listed that is not there, and no name may occur twice. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/gguf.h"
#include "io/json.h"
#include "io/tensors.h"
#include "status.h"

fp4moe_status fp4moe_io_tensors_file(fp4moe_tensors *set, const char *path) {
  struct io_file *files = realloc(set->files, (set->files_count + 1) * sizeof *files);
  if (!files) return fp4moe_fail(FP4MOE_NO_MEMORY, "%s: file list", path);
  set->files = files;
  fp4moe_status status = fp4moe_io_file_open(path, &files[set->files_count]);
  if (status == FP4MOE_OK) set->files_count++;
  return status;
}

fp4moe_status fp4moe_io_tensors_add(fp4moe_tensors *set, const char *name,
                                    struct io_entry **entry) {
  if (set->count == set->capacity) {
    size_t capacity = set->capacity ? 2 * set->capacity : 64;
    struct io_entry *entries = realloc(set->entries, capacity * sizeof *entries);
    if (!entries) return fp4moe_fail(FP4MOE_NO_MEMORY, "%zu tensors", capacity);
    set->entries = entries;
    set->capacity = capacity;
  }
  char *copy = strdup(name);
  if (!copy) return fp4moe_fail(FP4MOE_NO_MEMORY, "tensor '%.200s': name", name);
  *entry = &set->entries[set->count++];
  **entry = (struct io_entry){.tensor.name = copy, .file = set->files_count - 1};
  return FP4MOE_OK;
}

static int by_name(const void *a, const void *b) {
  const fp4moe_tensor *x = a, *y = b;
  return strcmp(x->name, y->name);
}

static fp4moe_status sort_names(fp4moe_tensors *set) {
  if (set->count) qsort(set->entries, set->count, sizeof *set->entries, by_name);
  for (size_t i = 1; i < set->count; i++) {
    const fp4moe_tensor *a = &set->entries[i - 1].tensor, *b = &set->entries[i].tensor;
    if (strcmp(a->name, b->name) != 0) continue;
    if (set->entries[i - 1].file == set->entries[i].file)
      return fp4moe_fail(FP4MOE_INVALID, "%s: two tensors are called '%.200s'", a->file, a->name);
    return fp4moe_fail(FP4MOE_INVALID, "tensor '%.200s' is in two files: %s and %s", a->name,
                       a->file, b->file);
  }
  return FP4MOE_OK;
}

static const char *file_name(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

/* A shard lies beside its index: its name never leads elsewhere. */
static int is_shard_name(const char *name) {
  return name && *name && fp4moe_io_is_plain(name) && !strchr(name, '/') && !strstr(name, "..");
}

static fp4moe_status append_shard(fp4moe_tensors *set, const char *dir, const char *shard) {
  char *path = fp4moe_io_path_join(dir, shard);
  if (!path) return FP4MOE_NO_MEMORY;
  fp4moe_status status = fp4moe_io_safetensors_append(set, path);
  free(path);
  return status;
}

/* Opens each distinct shard once. seen: an object whose keys are the shards so far. */
static fp4moe_status append_shards(fp4moe_tensors *set, const char *dir, const char *index,
                                   json_t *map, json_t *seen) {
  const char *name;
  json_t *value;
  json_object_foreach(map, name, value) {
    const char *shard = json_string_value(value);
    if (!is_shard_name(shard))
      return fp4moe_fail(
          FP4MOE_INVALID, "%s: weight_map '%.200s': '%.100s' is no file name in this directory",
          index, fp4moe_io_plain(name), shard ? fp4moe_io_plain(shard) : "(not a string)");
    if (json_object_get(seen, shard)) continue;
    if (json_object_set(seen, shard, value) != 0)
      return fp4moe_fail(FP4MOE_NO_MEMORY, "%s: shard list", index);
    fp4moe_status status = append_shard(set, dir, shard);
    if (status != FP4MOE_OK) return status;
  }
  return FP4MOE_OK;
}

static fp4moe_status check_index(const fp4moe_tensors *set, const char *index, json_t *map) {
  const char *name;
  json_t *value;
  json_object_foreach(map, name, value) {
    const char *shard = json_string_value(value);
    const fp4moe_tensor *tensor = fp4moe_tensors_find(set, name);
    if (!tensor || strcmp(file_name(tensor->file), shard) != 0)
      return fp4moe_fail(FP4MOE_INVALID, "%s: tensor '%.200s' is not in its shard '%.100s'%s%s",
                         index, fp4moe_io_plain(name), shard, tensor ? " but in " : "",
                         tensor ? tensor->file : "");
  }
  return FP4MOE_OK;
}

static fp4moe_status open_index(fp4moe_tensors *set, const char *dir, const char *index) {
  json_t *root;
  fp4moe_status status = fp4moe_io_json_file(index, &root);
  if (status != FP4MOE_OK) return status;
  json_t *map = json_object_get(root, "weight_map");
  json_t *seen = json_object();
  if (!json_is_object(map))
    status = fp4moe_fail(FP4MOE_INVALID, "%s: weight_map is missing or no object", index);
  else if (!seen)
    status = fp4moe_fail(FP4MOE_NO_MEMORY, "%s: shard list", index);
  else
    status = append_shards(set, dir, index, map, seen);
  if (status == FP4MOE_OK) status = sort_names(set);
  if (status == FP4MOE_OK) status = check_index(set, index, map);
  json_decref(seen);
  json_decref(root);
  return status;
}

static fp4moe_status open_directory(fp4moe_tensors *set, const char *dir) {
  char *index = fp4moe_io_path_join(dir, "model.safetensors.index.json");
  if (!index) return FP4MOE_NO_MEMORY;
  fp4moe_status status;
  if (fp4moe_io_exists(index)) {
    status = open_index(set, dir, index);
  } else {
    status = append_shard(set, dir, "model.safetensors");
    if (status == FP4MOE_OK) status = sort_names(set);
  }
  free(index);
  return status;
}

static fp4moe_status open_single(fp4moe_tensors *set, const char *path) {
  struct io_file file;
  fp4moe_status status = fp4moe_io_file_open(path, &file);
  if (status != FP4MOE_OK) return status;
  int is_gguf = 0;
  status = fp4moe_io_is_gguf(&file, &is_gguf);
  fp4moe_io_file_close(&file);
  if (status != FP4MOE_OK) return status;
  status = is_gguf ? fp4moe_io_gguf_open(set, path) : fp4moe_io_safetensors_append(set, path);
  return status == FP4MOE_OK ? sort_names(set) : status;
}

fp4moe_status fp4moe_tensors_open(const char *path, fp4moe_tensors **tensors) {
  if (!path || !tensors) return fp4moe_fail(FP4MOE_INVALID, "fp4moe_tensors_open: NULL argument");
  fp4moe_tensors *set = calloc(1, sizeof *set);
  if (!set) return fp4moe_fail(FP4MOE_NO_MEMORY, "%s: tensor set", path);
  fp4moe_status status =
      fp4moe_io_is_directory(path) ? open_directory(set, path) : open_single(set, path);
  if (status != FP4MOE_OK)
    fp4moe_tensors_close(set);
  else
    *tensors = set;
  return status;
}

void fp4moe_tensors_close(fp4moe_tensors *set) {
  if (!set) return;
  for (size_t i = 0; i < set->count; i++) free((char *)(uintptr_t)set->entries[i].tensor.name);
  for (size_t i = 0; i < set->files_count; i++) fp4moe_io_file_close(&set->files[i]);
  free(set->entries);
  free(set->files);
  json_decref(set->config);
  free(set);
}

size_t fp4moe_tensors_count(const fp4moe_tensors *set) { return set->count; }

const fp4moe_tensor *fp4moe_tensors_at(const fp4moe_tensors *set, size_t i) {
  return i < set->count ? &set->entries[i].tensor : NULL;
}

const fp4moe_tensor *fp4moe_tensors_find(const fp4moe_tensors *set, const char *name) {
  const fp4moe_tensor key = {.name = name};
  if (!set->count) return NULL;
  const struct io_entry *entry =
      bsearch(&key, set->entries, set->count, sizeof *set->entries, by_name);
  return entry ? &entry->tensor : NULL;
}

fp4moe_status fp4moe_io_tensors_beside(const fp4moe_tensors *set, const char *name, size_t stem,
                                       const char *ending, const fp4moe_tensor **tensor) {
  char *other;
  *tensor = NULL;
  if (!ending) return FP4MOE_OK;
  if (asprintf(&other, "%.*s%s", (int)stem, name, ending) < 0)
    return fp4moe_fail(FP4MOE_NO_MEMORY, "%.160s: tensor names", name);
  *tensor = fp4moe_tensors_find(set, other);
  free(other);
  return FP4MOE_OK;
}

size_t fp4moe_io_stem(const char *name, const char *ending) {
  size_t length = strlen(name), tail = strlen(ending);
  return length > tail && strcmp(name + length - tail, ending) == 0 ? length - tail : 0;
}

fp4moe_status fp4moe_tensors_read(const fp4moe_tensors *set, const fp4moe_tensor *tensor,
                                  size_t offset, size_t bytes, void *dst) {
  const struct io_entry *entry = (const struct io_entry *)tensor;
  if (offset > tensor->bytes || bytes > tensor->bytes - offset)
    return fp4moe_fail(FP4MOE_INVALID,
                       "%s: tensor '%.200s': %zu bytes wanted at %zu, but it has %zu", tensor->file,
                       tensor->name, bytes, offset, tensor->bytes);
  return fp4moe_io_file_read(&set->files[entry->file], tensor->file_offset + offset, bytes, dst);
}
