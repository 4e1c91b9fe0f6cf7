/* gemm_i8_avx2.c - class i8, many rows, by VPMADDUBSW (gemm_i8_avx2.h). */
#include "gemm_i8_avx2.h"

FP4_GEMM_TILES(mx, FP4_MX_GROUP, avx2, NULL, plain, 0)
FP4_GEMM_TILES(nv, FP4_NV_GROUP, avx2, NULL, quick, 1)
FP4_GEMM_TILES(nv, FP4_NV_GROUP, avx2, NULL, plain, 0)

FP4_GEMM_VARIANT(mx, 6, avx2)
FP4_GEMM_VARIANT(nv, 6, avx2)

/* Quick where it may be: fewer products of the scales' own, for a look at all scales. */
void fp4moe_gemm_nv_i8_4x16_avx2(const fp4moe_matmul *t) {
  gemm_tiles(t, fp4_i8_quick(t) ? tiles_nv_quick : tiles_nv_plain, 4, 16);
}
