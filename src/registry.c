/* registry.c - kernels.inc as data (fp4moe_kernels, kernel.h). */
#include "kernel.h"

enum { mx = FP4MOE_MXFP4, nv = FP4MOE_NVFP4, none = FP4MOE_ANY };

/* A class's activations, the weights that go with them; the class of each form. */
enum {
#define CLASS(word, NAME, weights)      class_##word = FP4MOE_ACT_##NAME, weights_of_##word = weights,
#define FORM(word, class, side, offset) class_of_##word = class_##class,
#include "forms.inc"
};

#define ROW(id, op, isa, format, act, form, kind, gated, mr, nr, err, rev, member)                 \
  {#id, op, FP4MOE_ISA_##isa, format, act, form, kind, gated, mr, nr, err, rev, {.member = id}},

#define UNPACK(w, a, isa, rev)                                                                     \
  ROW(fp4moe_unpack_##w##_##a##_##isa, FP4MOE_OP_UNPACK, isa, w, class_of_##a, FP4MOE_FORM_##a,    \
      none, none, 0, 0, 0, rev, unpack)
#define QUANT(a, isa, rev)                                                                         \
  ROW(fp4moe_quant_##a##_##isa, FP4MOE_OP_QUANT, isa, weights_of_##a, class_##a, none, none, none, \
      0, 0, 0, rev, quant)
#define GEMV(w, a, mr, nr, isa, err, rev)                                                          \
  ROW(fp4moe_gemv_##w##_##a##_##mr##x##nr##_##isa, FP4MOE_OP_GEMV, isa, w, class_##a, none, none,  \
      none, mr, nr, err, rev, matmul)
#define GEMM(a, mr, nr, isa, err, rev)                                                             \
  ROW(fp4moe_gemm_##a##_##mr##x##nr##_##isa, FP4MOE_OP_GEMM, isa, none, class_of_##a,              \
      FP4MOE_FORM_##a, none, none, mr, nr, err, rev, matmul)
#define GEMM_OF(w, a, mr, nr, isa, err, rev)                                                       \
  ROW(fp4moe_gemm_##w##_##a##_##mr##x##nr##_##isa, FP4MOE_OP_GEMM, isa, w, class_of_##a,           \
      FP4MOE_FORM_##a, none, none, mr, nr, err, rev, matmul)
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
