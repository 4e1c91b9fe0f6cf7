/* evex_avx512vnni.c - the bodies of the AVX-VNNI rows, expanded with the EVEX form of VPDPBUSD: the
 * same arithmetic, so that they are tested on CPUs that have AVX-512 VNNI and no AVX-VNNI. These
 * are no rows of kernels.inc: where they run, wider ones do. */
#include "check.h"
#include "gemm_i8_avx2.h"
#include "gemv_i8_avx2.h"

FP4_INLINE __m256i dot(__m256i acc, __m256i u8, __m256i s8) {
  return _mm256_dpbusd_epi32(acc, u8, s8);
}

fp4moe_matmul_fn fp4moe_gemv_mx_i8_8x16_evex, fp4moe_gemv_nv_i8_8x16_evex;
fp4moe_matmul_fn fp4moe_gemm_mx_i8_6x16_evex, fp4moe_gemm_nv_i8_6x16_evex;

FP4_GEMV_VARIANT(mx, FP4_MX_GROUP, evex, dot)
FP4_GEMV_VARIANT(nv, FP4_NV_GROUP, evex, dot)

FP4_GEMM_TILES(mx, FP4_MX_GROUP, evex, dot, plain, 0)
FP4_GEMM_TILES(nv, FP4_NV_GROUP, evex, dot, plain, 0)

FP4_GEMM_VARIANT(mx, 6, evex)
FP4_GEMM_VARIANT(nv, 6, evex)

#define ROW(text, the_op, w, rows, joined, function)                                               \
  {                                                                                                \
    .name = text, .op = the_op, .isa = FP4MOE_ISA_avx512vnni, .format = w, .act = FP4MOE_ACT_I8,   \
    .form = joined, .kind = FP4MOE_ANY, .gated = FP4MOE_ANY, .mr = rows, .nr = 16, .revision = 1,  \
    .fn.matmul = function                                                                          \
  }
const fp4moe_kernel check_evex_rows[CHECK_EVEX_ROWS] = {
    ROW("gemv_mx_i8_8x16_evex", FP4MOE_OP_GEMV, FP4MOE_MXFP4, 8, FP4MOE_ANY,
        fp4moe_gemv_mx_i8_8x16_evex),
    ROW("gemv_nv_i8_8x16_evex", FP4MOE_OP_GEMV, FP4MOE_NVFP4, 8, FP4MOE_ANY,
        fp4moe_gemv_nv_i8_8x16_evex),
    ROW("gemm_mx_i8_6x16_evex", FP4MOE_OP_GEMM, FP4MOE_MXFP4, 6, FP4MOE_FORM_i8,
        fp4moe_gemm_mx_i8_6x16_evex),
    ROW("gemm_nv_i8_6x16_evex", FP4MOE_OP_GEMM, FP4MOE_NVFP4, 6, FP4MOE_FORM_i8,
        fp4moe_gemm_nv_i8_6x16_evex),
};
