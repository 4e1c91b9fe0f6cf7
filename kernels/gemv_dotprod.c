/* gemv_dotprod.c - few int8 rows against FP4 panels, SDOT by element on decoded nibbles. */
#include "gemv_neon.h"

FP4_INLINE void stretch(const fp4moe_matmul *t, const fp4_stretch *at, size_t group, size_t m) {
  fp4_gemv_i8(t, at, group, m, fp4_sums_sdot);
}

#define MX_I8(t, m) fp4_gemv_stretches(t, FP4_MX_GROUP, m, stretch)
#define NV_I8(t, m) fp4_gemv_stretches(t, FP4_NV_GROUP, m, stretch)

FP4_GEMV_VARIANT(mx_i8, dotprod, MX_I8)
FP4_GEMV_VARIANT(nv_i8, dotprod, NV_I8)
