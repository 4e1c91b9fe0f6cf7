/* json.h - JSON text of a file that is not trusted.
 *
 * jansson does the parsing (UTF-8 checked, duplicate keys refused, no NUL in strings). Before it
 * runs, depth and number of values are bounded, so that memory stays within some hundred bytes a
 * value however the text is made. jansson (2.14) is not safe where an allocation fails: json.c
 * keeps it from that and tells what it takes for broken text, so a failed allocation is NO_MEMORY.
 */
#ifndef FP4MOE_IO_JSON_H
#define FP4MOE_IO_JSON_H

#include <jansson.h>

#include "fp4moe.h"

#define IO_JSON_DEPTH  64
#define IO_JSON_VALUES ((size_t)8 << 20)
#define IO_JSON_BYTES  ((size_t)100 << 20) /* of a file */

/* The root object; INVALID otherwise, with path and place. Release with json_decref. */
fp4moe_status fp4moe_io_json_parse(const char *path, const char *text, size_t bytes, json_t **root);
fp4moe_status fp4moe_io_json_file(const char *path, json_t **root);

/* A non-negative integer (never a real such as 1.0 or 1e3); 0: it is something else. */
int fp4moe_io_json_size(const json_t *value, size_t *size);

#endif
