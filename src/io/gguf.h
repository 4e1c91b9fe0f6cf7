/* gguf.h - GGUF files (version 3) as sets of tensors.
 *
 * A GGUF file is its own config.json: what its metadata say about the experts is kept with the set,
 * under the words of config.h. */
#ifndef FP4MOE_IO_GGUF_H
#define FP4MOE_IO_GGUF_H

#include <jansson.h>

#include "io/tensors.h"

#define IO_GGUF_KEYS       ((uint64_t)1 << 16)
#define IO_GGUF_TENSORS    ((uint64_t)1 << 20)
#define IO_GGUF_KEY_BYTES  ((uint64_t)65535) /* as the format's own definition has it */
#define IO_GGUF_NAME_BYTES ((uint64_t)255)
#define IO_GGUF_ALIGNMENT  ((uint64_t)1 << 20) /* at most */

/* Whether the file begins as GGUF does. SYSTEM: it cannot be read. */
fp4moe_status fp4moe_io_is_gguf(const struct io_file *file, int *is);

/* Takes the file last opened into the set. *metadata: every key of it, with the value of numbers,
 * booleans and short strings, null for all else; and for an array of equal floats that float. */
fp4moe_status fp4moe_io_gguf_take(fp4moe_tensors *set, json_t **metadata);

/* Opens a GGUF file, and when it is the first of several, those beside it. */
fp4moe_status fp4moe_io_gguf_open(fp4moe_tensors *set, const char *path);

#endif
