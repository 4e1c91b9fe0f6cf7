/* json.c - bounded JSON parsing (see json.h). */
#include <stdlib.h>

#include "io/file.h"
#include "io/json.h"
#include "status.h"

/* Counts what could become a value (one per opener or comma) and the nesting, strings skipped.
 * Exact for well-formed text, which is all that matters: the rest is jansson's to refuse. */
static fp4moe_status check_bounds(const char *path, const char *text, size_t bytes) {
  size_t depth = 0, values = 0;
  int quoted = 0;
  for (size_t i = 0; i < bytes; i++) {
    char c = text[i];
    if (quoted) {
      if (c == '\\')
        i++;
      else if (c == '"')
        quoted = 0;
      continue;
    }
    quoted = c == '"';
    if (c == '{' || c == '[') depth++;
    if ((c == '}' || c == ']') && depth) depth--;
    values += c == '{' || c == '[' || c == ',';
    if (depth > IO_JSON_DEPTH)
      return fp4moe_fail(FP4MOE_INVALID, "%s: JSON nested deeper than %d at byte %zu", path,
                         IO_JSON_DEPTH, i);
    if (values > IO_JSON_VALUES)
      return fp4moe_fail(FP4MOE_INVALID, "%s: JSON with more than %zu values", path,
                         IO_JSON_VALUES);
  }
  return FP4MOE_OK;
}

fp4moe_status fp4moe_io_json_parse(const char *path, const char *text, size_t bytes,
                                   json_t **root) {
  json_error_t error;
  fp4moe_status status = check_bounds(path, text, bytes);
  if (status != FP4MOE_OK) return status;
  json_t *json = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
  if (!json && (!*error.text || json_error_code(&error) == json_error_out_of_memory))
    return fp4moe_fail(FP4MOE_NO_MEMORY, "%s: JSON of %zu bytes", path, bytes);
  if (!json)
    return fp4moe_fail(FP4MOE_INVALID, "%s: JSON, line %d, column %d: %s", path, error.line,
                       error.column, error.text);
  if (!json_is_object(json)) {
    json_decref(json);
    return fp4moe_fail(FP4MOE_INVALID, "%s: JSON is not an object", path);
  }
  *root = json;
  return FP4MOE_OK;
}

fp4moe_status fp4moe_io_json_file(const char *path, json_t **root) {
  char *text;
  size_t bytes;
  fp4moe_status status = fp4moe_io_file_text(path, IO_JSON_BYTES, &text, &bytes);
  if (status != FP4MOE_OK) return status;
  status = fp4moe_io_json_parse(path, text, bytes, root);
  free(text);
  return status;
}

int fp4moe_io_json_size(const json_t *value, size_t *size) {
  if (!json_is_integer(value) || json_integer_value(value) < 0) return 0;
  *size = (size_t)json_integer_value(value);
  return 1;
}
