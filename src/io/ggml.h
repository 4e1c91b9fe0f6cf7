/* ggml.h - the tensor types of GGUF files: their blocks, and FP4 blocks brought into the form of
 * the other checkpoints.
 *
 *   MXFP4  32 values: 1 byte E8M0, 16 bytes; byte j has k j (low nibble) and k j + 16
 *   NVFP4  64 values: 4 bytes E4M3, 4 x 8 bytes; in each 8, byte j has k j (low) and k j + 8 */
#ifndef FP4MOE_IO_GGML_H
#define FP4MOE_IO_GGML_H

#include <stddef.h>
#include <stdint.h>

#include "fp4moe.h"

struct io_ggml_type {
  const char *name;
  uint16_t elements, bytes; /* of a block */
};

/* NULL: unknown. */
const struct io_ggml_type *fp4moe_io_ggml_type(uint32_t type);

/* Blocks of the format's type, `elements` in all, to codes, two a byte with even k low, and scales,
 * one a group. Both in the order of k. */
void fp4moe_io_ggml_unblock(fp4moe_format format, size_t elements, const void *from, uint8_t *codes,
                            uint8_t *scales);

#endif
