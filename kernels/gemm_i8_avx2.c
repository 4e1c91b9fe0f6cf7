/* gemm_i8_avx2.c - class i8, many rows, by VPMADDUBSW (gemm_i8_avx2.h). */
#include "gemm_i8_avx2.h"

FP4_GEMM_TILES(mx, FP4_MX_GROUP, avx2, NULL, quick, 1)
FP4_GEMM_TILES(mx, FP4_MX_GROUP, avx2, NULL, plain, 0)
FP4_GEMM_TILES(nv, FP4_NV_GROUP, avx2, NULL, quick, 1)
FP4_GEMM_TILES(nv, FP4_NV_GROUP, avx2, NULL, plain, 0)

FP4_GEMM_VARIANT(mx, FP4_MX_GROUP, 6, avx2)
FP4_GEMM_VARIANT(nv, FP4_NV_GROUP, 4, avx2)
