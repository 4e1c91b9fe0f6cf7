/* pack_c.c - one panel from checkpoint rows, and the checkpoint's bytes from a panel.
 *
 * A checkpoint row holds column 2j in the low and 2j+1 in the high nibble of byte j. Eight columns
 * of a row are four bytes on both sides: on disk x = k0 | k1<<4 | ... | k7<<28, in a lane of the
 * panel byte i is k_i | k_(i+4)<<4. Both machines we serve are little-endian, so a 32-bit word of
 * either side is that number. */
#include "kernel.h"

#include <string.h>

/* Nibbles n3 n2 n1 n0 of a 16-bit word, one into the low half of each byte; and back. */
static inline uint32_t spread(uint32_t x) {
  x = (x | x << 8) & 0x00ff00ff;
  return (x | x << 4) & 0x0f0f0f0f;
}

static inline uint32_t gather(uint32_t x) {
  x = (x | x >> 4) & 0x00ff00ff;
  return (x | x >> 8) & 0xffff;
}

static inline uint32_t to_lane(uint32_t disk) {
  return spread(disk & 0xffff) | spread(disk >> 16) << 4;
}

static inline uint32_t from_lane(uint32_t lane) {
  return gather(lane & 0x0f0f0f0f) | gather(lane >> 4 & 0x0f0f0f0f) << 16;
}

void fp4moe_pack_panel_c(const uint8_t *codes, size_t codes_stride, const uint8_t *scales,
                         size_t scales_stride, size_t rows, size_t k, size_t group, uint8_t pad,
                         uint8_t *nibbles, uint8_t *panel_scales) {
  for (size_t i = 0; i < k / 8; i++)
    for (size_t row = 0; row < FP4MOE_PANEL; row++) {
      uint32_t x = 0;
      if (row < rows) memcpy(&x, codes + row * codes_stride + 4 * i, sizeof x);
      x = to_lane(x);
      memcpy(nibbles + (i * FP4MOE_PANEL + row) * sizeof x, &x, sizeof x);
    }
  for (size_t i = 0; i < k / group; i++)
    for (size_t row = 0; row < FP4MOE_PANEL; row++)
      panel_scales[i * FP4MOE_PANEL + row] = row < rows ? scales[row * scales_stride + i] : pad;
}

void fp4moe_restore_panel_c(const uint8_t *nibbles, const uint8_t *panel_scales, size_t rows,
                            size_t k, size_t group, uint8_t *codes, size_t codes_stride,
                            uint8_t *scales, size_t scales_stride) {
  for (size_t i = 0; i < k / 8; i++)
    for (size_t row = 0; row < rows; row++) {
      uint32_t x;
      memcpy(&x, nibbles + (i * FP4MOE_PANEL + row) * sizeof x, sizeof x);
      x = from_lane(x);
      memcpy(codes + row * codes_stride + 4 * i, &x, sizeof x);
    }
  for (size_t i = 0; i < k / group; i++)
    for (size_t row = 0; row < rows; row++)
      scales[row * scales_stride + i] = panel_scales[i * FP4MOE_PANEL + row];
}
