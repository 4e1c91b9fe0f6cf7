/* gemv_fixed_avx2.c - class bf16, one row, in fixed point by VPMADDUBSW (gemv_fixed_avx2.h). */
#include "gemv_fixed_avx2.h"

FP4_FIXED_VARIANT(mx, FP4_MX_GROUP, avx2, NULL)
FP4_FIXED_VARIANT(nv, FP4_NV_GROUP, avx2, NULL)
