/* gemv_fixed_avxvnni.c - class bf16, one row, in fixed point by VEX VPDPBUSD (gemv_fixed_avx2.h).
 */
#include "gemv_fixed_avx2.h"

FP4_INLINE __m256i dot(__m256i acc, __m256i u8, __m256i s8) {
  return _mm256_dpbusd_avx_epi32(acc, u8, s8);
}

FP4_FIXED_VARIANT(mx, FP4_MX_GROUP, avxvnni, dot)
FP4_FIXED_VARIANT(nv, FP4_NV_GROUP, avxvnni, dot)
