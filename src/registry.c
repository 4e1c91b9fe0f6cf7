/* registry.c - kernels.inc as data (fp4moe_kernels, kernel.h). */
#include "kernel.h"

enum { mx = FP4MOE_MXFP4, nv = FP4MOE_NVFP4 };
/* Classes, and the class of each form. */
enum { f32 = FP4MOE_ACT_F32, bf16 = FP4MOE_ACT_BF16, i8 = FP4MOE_ACT_I8 };
enum { mxfp8 = FP4MOE_ACT_MXFP8, nvfp4 = FP4MOE_ACT_NVFP4 };
enum { bf16x4 = bf16, s8 = i8, s8x8 = i8 };
enum { none = FP4MOE_ANY };

/* The weights that go with a class's activations. */
enum {
  weights_of_f32 = none,
  weights_of_bf16 = none,
  weights_of_i8 = none,
  weights_of_mxfp8 = mx,
  weights_of_nvfp4 = nv
};

#define ROW(id, op, isa, format, act, form, kind, gated, mr, nr, err, rev, member)                 \
  {#id, op, FP4MOE_ISA_##isa, format, act, form, kind, gated, mr, nr, err, rev, {.member = id}},

#define UNPACK(w, a, isa, rev)                                                                     \
  ROW(fp4moe_unpack_##w##_##a##_##isa, FP4MOE_OP_UNPACK, isa, w, a, FP4MOE_FORM_##a, none, none,   \
      0, 0, 0, rev, unpack)
#define QUANT(a, isa, rev)                                                                         \
  ROW(fp4moe_quant_##a##_##isa, FP4MOE_OP_QUANT, isa, weights_of_##a, a, none, none, none, 0, 0,   \
      0, rev, quant)
#define GEMV(w, a, mr, nr, isa, err, rev)                                                          \
  ROW(fp4moe_gemv_##w##_##a##_##mr##x##nr##_##isa, FP4MOE_OP_GEMV, isa, w, a, none, none, none,    \
      mr, nr, err, rev, matmul)
#define GEMM(a, mr, nr, isa, err, rev)                                                             \
  ROW(fp4moe_gemm_##a##_##mr##x##nr##_##isa, FP4MOE_OP_GEMM, isa, none, a, FP4MOE_FORM_##a, none,  \
      none, mr, nr, err, rev, matmul)
#define GEMM_OF(w, a, mr, nr, isa, err, rev)                                                       \
  ROW(fp4moe_gemm_##w##_##a##_##mr##x##nr##_##isa, FP4MOE_OP_GEMM, isa, w, a, FP4MOE_FORM_##a,     \
      none, none, mr, nr, err, rev, matmul)
#define ACT(word, kind, gated, isa, rev)                                                           \
  ROW(fp4moe_act_##word##_##isa, FP4MOE_OP_ACT, isa, none, none, none, kind, gated, 0, 0, 0, rev,  \
      act)
#define COMBINE(isa, rev)                                                                          \
  ROW(fp4moe_combine_##isa, FP4MOE_OP_COMBINE, isa, none, none, none, none, none, 0, 0, 0, rev,    \
      combine)
#define STORE(isa, rev)                                                                            \
  ROW(fp4moe_store_##isa, FP4MOE_OP_STORE, isa, none, none, none, none, none, 0, 0, 0, rev, store)

const fp4moe_kernel fp4moe_kernels[] = {
#include "kernels.inc"
};
const size_t fp4moe_kernel_count = sizeof fp4moe_kernels / sizeof *fp4moe_kernels;
