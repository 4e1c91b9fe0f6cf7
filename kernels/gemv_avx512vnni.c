/* gemv_avx512vnni.c - class i8, few rows: codes looked up by VPSHUFB. */
#include "gemv_i8_avx512.h"

FP4_GEMV_VARIANT(mx, FP4_MX_GROUP, avx512vnni, fp4_codes_shuffled)
FP4_GEMV_VARIANT(nv, FP4_NV_GROUP, avx512vnni, fp4_codes_shuffled)
