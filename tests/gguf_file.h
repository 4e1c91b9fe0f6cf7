/* gguf_file.h - GGUF files made in memory, byte by byte or out of tensors, as ggml.h draws their
 * blocks; by code that shares nothing with the reader. */
#ifndef FP4MOE_GGUF_FILE_H
#define FP4MOE_GGUF_FILE_H

#include "check_io.h"

/* ---- Bytes ---- */

/* The file in the making: n of `room` bytes. A test may change them, and cut them off by n. */
typedef struct gguf_bytes {
  uint8_t *bytes;
  size_t n, room;
} gguf_bytes;
extern gguf_bytes gguf;

/* Types of values in the metadata; of tensors. */
enum { GGUF_U32 = 4, GGUF_FLOAT = 6, GGUF_BOOL, GGUF_STRING, GGUF_ARRAY, GGUF_DOUBLE = 12 };
enum { GGUF_F32 = 0, GGUF_I8 = 24, GGUF_MXFP4 = 39, GGUF_NVFP4 = 40 };

void gguf_put(const void *data, size_t bytes);
void gguf_le(uint64_t value, size_t bytes); /* little-endian */
void gguf_zeros(size_t bytes);
void gguf_text(const char *text); /* its length, then its bytes */
void gguf_key_text(const char *key, const char *value);
void gguf_key_u32(const char *key, uint32_t value);
void gguf_write(const char *path);

/* ---- Tensors ---- */

typedef struct gguf_tensor {
  char name[64];
  uint64_t dims[4]; /* fastest first */
  uint32_t rank, type;
  size_t bytes;
  uint8_t *data; /* zeros to fill */
} gguf_tensor;

enum { GGUF_ALIGNMENT = 64, GGUF_MOST = 24 };
extern gguf_tensor gguf_tensors[GGUF_MOST];
extern size_t gguf_count;

/* d1, d2: 0 = there is none. */
gguf_tensor *gguf_add(const char *name, uint32_t type, size_t bytes, uint64_t d0, uint64_t d1,
                      uint64_t d2);
size_t gguf_aligned(size_t n);

/* All tensors as one file in `gguf`, which does not forget them: gguf_free does. */
void gguf_put_all(const char *architecture, size_t experts);
void gguf_free(void);

/* ---- Layers ---- */

/* Element k of a row of codes. */
uint8_t gguf_code(const uint8_t *codes, size_t k);

/* Gated SiLU or ungated relu2, class bf16. */
random_layer *gguf_layer(fp4moe_format format, size_t hidden, size_t intermediate, int biases,
                         int gated, size_t experts);

/* The tensors of layer 4, and two beside its experts. */
void gguf_add_layer(const random_layer *m);

/* A file of a layer of 3 experts, in NVFP4 with globals. */
void gguf_write_layer(const char *path);
/* The layer's up projection alone, in MXFP4, as the matrix `name`. */
void gguf_write_matrix(const char *path, const random_layer *m, const char *name);

#endif
