/* gemv_avx512vbmi.c - class i8, few rows: codes looked up by VPERMB. */
#include "gemv_i8_avx512.h"

FP4_GEMV_VARIANT(mx, FP4_MX_GROUP, avx512vbmi, fp4_codes_permuted)
FP4_GEMV_VARIANT(nv, FP4_NV_GROUP, avx512vbmi, fp4_codes_permuted)
