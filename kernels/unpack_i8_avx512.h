/* unpack_i8_avx512.h - FP4 panels to the u8 panels of class i8 (kernel.h): one body, and a way of
 * looking codes up for each ISA that expands it. */
#ifndef FP4MOE_UNPACK_I8_AVX512_H
#define FP4MOE_UNPACK_I8_AVX512_H

#include "i8_avx512.h"

FP4_INLINE void fp4_unpack_i8(const uint8_t *nibbles, const uint8_t *scales, size_t k, void *panel,
                              size_t group, fp4_codes_fn *codes) {
  char *out = panel;
  for (size_t k0 = 0; k0 < k; k0 += group, out += 16 * group + 64) {
    FP4_UNROLL for (size_t v = 0; v < group / 8; v++) {
      const fp4_codes c = codes(_mm512_load_si512(nibbles + 8 * k0 + 64 * v));
      _mm512_store_si512(out + 128 * v, c.lo);
      _mm512_store_si512(out + 128 * v + 64, c.hi);
    }
    _mm512_store_ps(out + 16 * group, fp4_group_scales(scales + k0 / group * 16, group));
  }
}

#endif
