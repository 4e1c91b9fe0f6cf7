/* gemv_dotprod.c - few int8 rows against FP4 panels, SDOT by element on decoded nibbles. */
#include "gemv_neon.h"

#define MX_I8(m) fp4_gemv_i8(t, FP4_MX_GROUP, m, fp4_sums_sdot)
#define NV_I8(m) fp4_gemv_i8(t, FP4_NV_GROUP, m, fp4_sums_sdot)

FP4_GEMV_VARIANT(mx_i8, dotprod, MX_I8)
FP4_GEMV_VARIANT(nv_i8, dotprod, NV_I8)
