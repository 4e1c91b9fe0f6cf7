/* gemm_dotprod.c - many int8 rows against panels of form s8, SDOT by element. */
#include "gemm_i8_neon.h"

#define MX_S8(t, at, m) fp4_pass_s8(t, at, FP4_MX_GROUP, m, fp4_sums_sdot)
#define NV_S8(t, at, m) fp4_pass_s8(t, at, FP4_NV_GROUP, m, fp4_sums_sdot)

FP4_GEMM_VARIANT(mx_s8, dotprod, MX_S8)
FP4_GEMM_VARIANT(nv_s8, dotprod, NV_S8)
