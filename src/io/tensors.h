/* tensors.h - a set of tensors from one or more open files, and what the readers and the writer
 * share: the rules for dtypes, names and shapes. */
#ifndef FP4MOE_IO_TENSORS_H
#define FP4MOE_IO_TENSORS_H

#include "fp4moe_io.h"
#include "io/file.h"

#define IO_HEADER_BYTES_MAX ((size_t)100000000)

struct io_entry {
  fp4moe_tensor tensor; /* first: a tensor that was handed out leads back to its entry */
  size_t file;
};

struct fp4moe_tensors {
  struct io_file *files;
  size_t files_count;
  struct io_entry *entries; /* sorted by name once open */
  size_t count, capacity;
  struct json_t *config; /* GGUF: what its metadata say (gguf.h); NULL: no GGUF file */
};

/* Opens a file as the last of the set; a tensor of that file, nameless fields zero. On failure what
 * was appended stays, for fp4moe_tensors_close. */
fp4moe_status fp4moe_io_tensors_file(fp4moe_tensors *set, const char *path);
fp4moe_status fp4moe_io_tensors_add(fp4moe_tensors *set, const char *name, struct io_entry **entry);

/* Opens a safetensors file and appends it and its tensors, in no order. On failure what was
 * appended stays, for fp4moe_tensors_close. */
fp4moe_status fp4moe_io_safetensors_append(fp4moe_tensors *set, const char *path);

/* The tensor "<stem bytes of name><ending>"; *tensor NULL: there is none, or ending is NULL.
 * NO_MEMORY. */
fp4moe_status fp4moe_io_tensors_beside(const fp4moe_tensors *set, const char *name, size_t stem,
                                       const char *ending, const fp4moe_tensor **tensor);

/* Bytes of a name before its ending; 0: it ends otherwise, or is nothing more. */
size_t fp4moe_io_stem(const char *name, const char *ending);

/* Bits of an element of a safetensors dtype and the constant string for it; 0: unknown. */
size_t fp4moe_io_dtype_bits(const char *dtype, const char **constant);

/* The library's word for "F32", "F16" or "BF16". */
fp4moe_dtype fp4moe_io_float_dtype(const char *dtype);

/* 1: well-formed UTF-8: shortest forms, no surrogates, at most U+10FFFF. */
int fp4moe_io_is_utf8(const char *text, size_t bytes);

/* 0: the text holds a control character. Names end up in one-line texts and on terminals. */
int fp4moe_io_is_plain(const char *text);

/* The text, or a stand-in for one that is not plain. */
const char *fp4moe_io_plain(const char *text);

/* Bytes of a dense tensor; 0: does not fit size_t, or is no whole number of bytes. */
int fp4moe_io_shape_bytes(size_t bits, size_t rank, const size_t *shape, size_t *bytes);

#define IO_SHAPE_TEXT 200
/* "[4, 128, 3, 16]" */
const char *fp4moe_io_shape_text(size_t rank, const size_t *shape, char text[IO_SHAPE_TEXT]);

#endif
