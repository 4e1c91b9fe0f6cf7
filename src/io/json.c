/* json.c - bounded JSON parsing (see json.h). */
#include <stdlib.h>
#include <string.h>

#include "io/file.h"
#include "io/json.h"
#include "status.h"

/* ---- Bounds ---- */

/* Ends of a token outside of a string, and of the bytes that jansson keeps of it. */
static int is_between(char c) { return c && strchr("{}[],: \t\r\n", c); }

/* Counts what could become a value (one per opener or comma) and the nesting, strings skipped.
 * Exact for well-formed text, which is all that matters: the rest is jansson's to refuse. *longest
 * token, in bytes, a string with its quotes. */
static fp4moe_status check_bounds(const char *path, const char *text, size_t bytes,
                                  size_t *longest) {
  size_t depth = 0, values = 0, token = 0;
  int quoted = 0, escaped = 0;
  *longest = 0;
  for (size_t i = 0; i < bytes; i++) {
    char c = text[i];
    if (!quoted && is_between(c)) token = 0;
    if (++token > *longest) *longest = token;
    if (quoted) {
      if (c == '"' && !escaped) quoted = 0, token = 0;
      escaped = c == '\\' && !escaped;
      continue;
    }
    quoted = c == '"';
    if (quoted) token = 1;
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

/* ---- What jansson reads: ["<filler>",<text>] ---- */

/* jansson keeps the token it reads in a buffer that doubles from 16 bytes, and where that fails it
 * goes on without the byte, out of the buffer's end in the worst case. The filler is longer than
 * any token of the text, so that the buffer has grown when the text begins; and an escape stands
 * across each place where it grows, which is broken without that byte and ends the parse safely. */
typedef struct source {
  const char *text;
  size_t bytes, filler, at; /* filler: with its quotes */
} source;

enum { GROWS_FROM = 16, BEFORE = 3 }; /* bytes of the escape before the buffer is full */

static size_t filler_bytes(size_t longest) {
  size_t full = GROWS_FROM;
  while (2 * full < longest + 4) full *= 2;
  return full + 8;
}

static char filler_byte(size_t i, size_t bytes) {
  static const char escape[] = "\\u0041";
  if (i == 0 || i + 1 == bytes) return '"';
  for (size_t k = 0; k < sizeof escape - 1; k++) {
    size_t full = i + BEFORE - k;
    if (full >= GROWS_FROM && !(full & (full - 1))) return escape[k];
  }
  return '.'; /* no hexadecimal digit */
}

static size_t text_begins(const source *s) { return s->filler + 2; }

static char byte_of(const source *s, size_t i) {
  if (i == 0) return '[';
  if (i <= s->filler) return filler_byte(i - 1, s->filler);
  if (i < text_begins(s)) return ',';
  i -= text_begins(s);
  return i < s->bytes ? s->text[i] : ']';
}

static size_t give(void *buffer, size_t cap, void *arg) {
  source *s = arg;
  size_t n = 0, all = text_begins(s) + s->bytes + 1;
  while (n < cap && s->at < all) ((char *)buffer)[n++] = byte_of(s, s->at++);
  return n;
}

/* ---- Parsing ---- */

/* 1: no memory, in one of jansson's words for it: none; its own code; an error within the filler; a
 * whole string that is no token. */
static int is_memory(const source *s, const json_error_t *error) {
  size_t at = (size_t)error->position;
  if (!*error->text || json_error_code(error) == json_error_out_of_memory) return 1;
  if (at < text_begins(s)) return 1;
  if (at > text_begins(s) + s->bytes || byte_of(s, at - 1) != '"') return 0;
  return !strncmp(error->text, "invalid token", 13) || !strncmp(error->text, "string or '}'", 13);
}

static fp4moe_status fail(const char *path, const source *s, const json_error_t *error) {
  size_t before = error->line == 1 ? text_begins(s) : 0;
  if (is_memory(s, error))
    return fp4moe_fail(FP4MOE_NO_MEMORY, "%s: JSON of %zu bytes", path, s->bytes);
  return fp4moe_fail(FP4MOE_INVALID, "%s: JSON, line %d, column %zu: %s", path, error->line,
                     (size_t)error->column - before, error->text);
}

fp4moe_status fp4moe_io_json_parse(const char *path, const char *text, size_t bytes,
                                   json_t **root) {
  json_error_t error;
  size_t longest;
  fp4moe_status status = check_bounds(path, text, bytes, &longest);
  if (status != FP4MOE_OK) return status;
  source s = {text, bytes, filler_bytes(longest), 0};
  json_t *both = json_load_callback(give, &s, JSON_REJECT_DUPLICATES, &error);
  if (!both) return fail(path, &s, &error);
  json_t *json = json_array_size(both) == 2 ? json_incref(json_array_get(both, 1)) : NULL;
  json_decref(both);
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
