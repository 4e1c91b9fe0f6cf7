/* transpose.c - bytes of a matrix, axes swapped (see transpose.h).
 *
 * Tile by tile of 64 x 64: each tile is first copied whole lines at a time, because rows that lie a
 * power of two apart would push each other out of the cache while its columns are gathered. */
#include <string.h>

#include "io/transpose.h"

enum { TILE = 64 };

static void transpose_tile(size_t rows, size_t columns, const unsigned char *from, size_t stride,
                           unsigned char *to, size_t to_stride) {
  unsigned char tile[TILE][TILE];
  for (size_t r = 0; r < rows; r++) memcpy(tile[r], from + r * stride, columns);
  for (size_t c = 0; c < columns; c++)
    for (size_t r = 0; r < rows; r++) to[c * to_stride + r] = tile[r][c];
}

void fp4moe_io_transpose(size_t rows, size_t columns, const void *from, void *to,
                         size_t to_stride) {
  const unsigned char *source = from;
  unsigned char *target = to;
  for (size_t r = 0; r < rows; r += TILE)
    for (size_t c = 0; c < columns; c += TILE)
      transpose_tile(rows - r < TILE ? rows - r : TILE, columns - c < TILE ? columns - c : TILE,
                     source + r * columns + c, columns, target + c * to_stride + r, to_stride);
}
