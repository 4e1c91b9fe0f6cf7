/* gemm_avxvnni.c - class i8, many rows, by VEX VPDPBUSD (gemm_i8_avx2.h). Its integer sums have 32
 * bits and NV's quick form wants 16: always plain. */
#include "gemm_i8_avx2.h"

FP4_INLINE __m256i dot(__m256i acc, __m256i u8, __m256i s8) {
  return _mm256_dpbusd_avx_epi32(acc, u8, s8);
}

FP4_GEMM_TILES(mx, FP4_MX_GROUP, avxvnni, dot, plain, 0)
FP4_GEMM_TILES(nv, FP4_NV_GROUP, avxvnni, dot, plain, 0)

FP4_GEMM_VARIANT(mx, 6, avxvnni)
FP4_GEMM_VARIANT(nv, 6, avxvnni)
