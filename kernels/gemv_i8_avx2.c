/* gemv_i8_avx2.c - class i8, few rows, by VPMADDUBSW (gemv_i8_avx2.h). */
#include "gemv_i8_avx2.h"

FP4_GEMV_VARIANT(mx, FP4_MX_GROUP, avx2, NULL)
FP4_GEMV_VARIANT(nv, FP4_NV_GROUP, avx2, NULL)
