/* checksum.c - see checksum.h. */
#include "checksum.h"

#include <string.h>

uint64_t fp4moe_checksum(const void *data, size_t bytes) {
  const uint8_t *from = data;
  uint64_t h[4] = {1, 2, 3, 4}, w[4];
  for (size_t i = 0; i + 32 <= bytes; i += 32) {
    memcpy(w, from + i, 32);
    for (int j = 0; j < 4; j++) {
      h[j] = (h[j] ^ w[j]) * UINT64_C(0x9e3779b97f4a7c15);
      h[j] ^= h[j] >> 29;
    }
  }
  return h[0] ^ (h[1] << 1 | h[1] >> 63) ^ (h[2] << 2 | h[2] >> 62) ^ (h[3] << 3 | h[3] >> 61);
}
