/* unpack_avx512vbmi.c - FP4 panels to u8 panels, codes looked up by VPERMB. */
#include "unpack_i8_avx512.h"

void fp4moe_unpack_mx_i8_avx512vbmi(const uint8_t *nibbles, const uint8_t *scales, size_t k,
                                    void *panel) {
  fp4_unpack_i8(nibbles, scales, k, panel, FP4_MX_GROUP, fp4_codes_permuted);
}

void fp4moe_unpack_nv_i8_avx512vbmi(const uint8_t *nibbles, const uint8_t *scales, size_t k,
                                    void *panel) {
  fp4_unpack_i8(nibbles, scales, k, panel, FP4_NV_GROUP, fp4_codes_permuted);
}
