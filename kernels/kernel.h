/* kernel.h - the contract of each op, above its function type, and the row that names a variant.
 *
 * Kernels are pure: they read and write what their arguments point to, allocate nothing, keep
 * nothing, call libc's mem* and math at most. They run in the canonical floating-point mode (round
 * to nearest, no flush to zero), which the caller sets. Pointers are aligned to 64 bytes unless
 * said otherwise. Nothing is read or written outside the stated extents.
 *
 * Adding a variant: write fp4moe_<op>_..._<isa> in kernels/<op>_<isa>.c, add its row to
 * kernels.inc. The build, the tests, the bench and the tuner find it there. A new instruction set
 * is a row of isas.inc too, a new form of panels one of forms.inc. */
#ifndef FP4MOE_KERNEL_H
#define FP4MOE_KERNEL_H

#include <stddef.h>
#include <stdint.h>

#include "fp4moe.h"
#include "layout.h"

/* ---- Activation rows: what quant writes and matmuls read ----
 *
 *   f32   float[K]
 *   bf16  uint16_t[K], each 8 k in the order of fp4_bf16_order
 *   i8    int8_t q[K]; float d[ceil(K/32)]; int32_t sum[ceil(K/32)]; int32_t half[K/16];
 *         int16_t pair[K/16][2]; each part 64-byte aligned (fp4_i8_d, _sum, _half, _pair). sum =
 *         -12 * (sum of q over 32 k), half the same over 16 k, pair the same over the 8 of these k
 *         with k % 4 < 2 and the 8 others; where K % 32 == 16 the last block is one of 16.
 *
 * mxfp8 and nvfp4 name quantisers only: what they write is exact in BF16, so their rows have the
 * form bf16 and the bf16 matmuls read them.
 */
typedef enum fp4moe_act_class {
#define CLASS(word, NAME, weights) FP4MOE_ACT_##NAME,
#include "forms.inc"
} fp4moe_act_class;

/* The class whose rows and matmuls these are. */
static inline fp4moe_act_class fp4_row_form(fp4moe_act_class act) {
  return act >= FP4MOE_ACT_MXFP8 ? FP4MOE_ACT_BF16 : act;
}

/* Columns that are quantised together; 16 is the granularity of K. */
static inline size_t fp4_quant_group(fp4moe_act_class act) {
  return act == FP4MOE_ACT_I8 || act == FP4MOE_ACT_MXFP8 ? 32 : 16;
}

static inline size_t fp4_blocks32(size_t k) { return (k + 31) / 32; }
static inline size_t fp4_i8_d(size_t k) { return fp4_align(k); }
static inline size_t fp4_i8_sum(size_t k) { return fp4_i8_d(k) + fp4_align(4 * fp4_blocks32(k)); }
static inline size_t fp4_i8_half(size_t k) {
  return fp4_i8_sum(k) + fp4_align(4 * fp4_blocks32(k));
}
static inline size_t fp4_i8_pair(size_t k) { return fp4_i8_half(k) + fp4_align(4 * (k / 16)); }

/* Bytes of one activation row, a multiple of 64. */
static inline size_t fp4_row_bytes(fp4moe_act_class act, size_t k) {
  switch (fp4_row_form(act)) {
  case FP4MOE_ACT_F32:
    return fp4_align(4 * k);
  case FP4MOE_ACT_BF16:
    return fp4_align(2 * k);
  default:
    return fp4_i8_pair(k) + fp4_align(4 * (k / 16));
  }
}

/* quant: columns [k0, k0 + k) of an activation row of row_k columns, from x[0..k) of dtype F32,
 * F16 or BF16 (any alignment of the element). k0 and k are multiples of 16; in class i8 of 32,
 * unless k0 + k == row_k; in class mxfp8 of 32. inverse: nvfp4's G = 1/a, a the activation global,
 * 2^-100 <= G <= 2^100; the other classes do not read it.
 *   bf16   nearest-even, |x| < 2^-126 to a signed zero, NaN to 0x7fc0
 *   i8     per 32: d = amax/127, q = rne(x/d) clamped to +-127; d < 2^-126: q = 0, d = 0; a block
 *          with NaN or Inf: q = 0, d = NaN
 *   mxfp8  per 32: s = clamp(ceil(log2(max(amax, 2^-126) / 448)) + 127, 0, 254), ceil exact; q =
 *          e4m3(x * 2^(127 - s)), nearest-even, saturating; writes bf16(q * 2^(s - 127)), which
 *          rounds only what is below 2^-126 (to 0) or 2^128 (to Inf)
 *   nvfp4  per 16: SF = e4m3(G * (amax * (1/6))), nearest-even, saturating; o = SF == 0 ? 0 : G/SF;
 *          q = e2m1(clamp(x * o, -6, 6)), nearest, ties to even codes; writes q * SF. The
 * activation is that divided by G, which is left to the epilogue: q * SF is exact in BF16 and at
 * most 2688, q * SF / G is neither. Steps in parentheses are rounded to FP32, divisions are
 * divisions. An mxfp8 or nvfp4 block with NaN or Inf is 0x7fc0 throughout, so that all outputs of
 * its token are NaN. */
typedef void fp4moe_quant_fn(const void *x, fp4moe_dtype dtype, size_t k, void *row, size_t k0,
                             size_t row_k, float inverse);

/* ---- Weights ---- */

/* The form of an unpacked panel. unpack writes one and gemm reads one: a recipe joins two rows of
 * the same form. Forms of one class hold the same weights in the same number of bytes.
 *   f32     float[k][16]
 *   bf16    uint16_t[k/2][16][2]: the pairs of layout.h, 16 rows of each
 *   bf16x4  uint16_t[k/4][16][4]: two such pairs of a row together, for BFMMLA
 *   i8      per group: uint8_t[group/4][16][4] = 2*e2m1 + 12, k ascending; then scales, float[16]
 *   s8      per group: int8_t[group/4][16][4] = 2*e2m1, k ascending; then the scales
 *   s8x8    per group: int8_t[group/8][16][8] = 2*e2m1, k ascending; then the scales: for SMMLA
 * Those of class i8 differ per format in the group's length only. */
typedef enum fp4moe_form {
#define FORM(word, class, side, offset) FP4MOE_FORM_##word,
#include "forms.inc"
  FP4MOE_FORMS
} fp4moe_form;

/* unpack: k columns of one panel, from its nibbles (8k bytes) and scales ([k/group][16]). k is a
 * multiple of the group. Exact, any scale byte: NaN scales give NaN (zero codes too), |w| >= 2^128
 * gives +-Inf. */
typedef void fp4moe_unpack_fn(const uint8_t *nibbles, const uint8_t *scales, size_t k, void *panel);

/* Bytes of k columns of one unpacked panel. */
static inline size_t fp4_unpacked_bytes(fp4moe_act_class act, size_t k, size_t group) {
  switch (fp4_row_form(act)) {
  case FP4MOE_ACT_F32:
    return 64 * k;
  case FP4MOE_ACT_BF16:
    return 32 * k;
  default:
    return 16 * k + 64 * (k / group);
  }
}

/* ---- Matmuls ----
 *
 * acc[r][16p + j] (+)= sum over k0 <= k < k0 + k of row r [k] * weight of row j of panel p [k]
 *
 * k0 and k are multiples of 32, except that k0 + k may end at row_k. FP32 sums; each row of
 * kernels.inc states its bound, and one order of summation for any m, so a row's bits do not depend
 * on its neighbours. With resume the sums go on from acc (K blocking resumes the chain). The global
 * scale is not applied, and class i8 is 2x: codes are 2*e2m1 (the epilogue has 0.5).
 * i8 has one canonical chain: acc = fmaf(B, d * s, acc) per 32 k of MXFP4, B the exact block sum;
 * NVFP4: t = fmaf(B1, s1, B0 * s0), acc = fmaf(t, d, acc), a tail of 16: t = B0 * s0. */
typedef struct fp4moe_matmul {
  size_t m;      /* rows; gemv: 1..mr, gemm: any >= 1 */
  size_t panels; /* >= 1 */
  size_t k0, k, row_k;
  const void *const *rows; /* [m] activation rows of row_k columns */
  const uint8_t *weights;  /* gemv: nibbles; gemm: unpacked; at column k0 of the first panel */
  size_t weights_stride;   /* bytes from panel to panel, a multiple of 64 */
  const uint8_t *scales;   /* gemv: at column k0 of the first panel, 16-byte aligned; gemm: NULL */
  size_t scales_stride;    /* bytes from panel to panel, a multiple of 16 */
  float *acc;              /* [m][16 * panels] */
  size_t acc_stride;       /* floats, a multiple of 16 */
  int resume;              /* 0: start from zero, acc is not read */
  size_t prefetch;         /* gemv: bytes ahead in the weight stream; 0: none */
  const uint8_t *next;     /* gemm: the nibbles read after this call, to be prefetched meanwhile */
  size_t next_bytes;       /* 0: none */
} fp4moe_matmul;

/* gemv: weights are nibbles, decoded in registers; one weight read serves all m <= mr rows.
 * gemm: weights are unpacked panels. */
typedef void fp4moe_matmul_fn(const fp4moe_matmul *t);

/* ---- Epilogues ---- */

/* act: h[r][16p + j] = f(gate, up) from the sums of phase 1. Gated: the gate of h panel p is panel
 * 2p of acc, the up 2p + 1; ungated: up is panel p. gate = fmaf(acc, gate_scale, bias), up alike.
 * bias: [panels of acc * 16], in the order of acc, NULL = none (then gate = acc * scale).
 * f is the row's kind, of fp4moe_activation_kind, in the order of operations of act.h and act_c.c:
 * a NaN in gives NaN. */
typedef struct fp4moe_act_args {
  size_t m, panels; /* rows; panels of h */
  const float *acc;
  size_t acc_stride; /* floats */
  const float *bias;
  float gate_scale, up_scale;
  float alpha, beta, limit, linear_beta; /* limit: +Inf = none; linear_beta: 0 = none */
  float *h;
  size_t h_stride; /* floats */
} fp4moe_act_args;
typedef void fp4moe_act_fn(const fp4moe_act_args *a);

/* combine: y[index[r]][c] = fmaf(weight[r], v, y[index[r]][c]), v = fmaf(acc[r][c], scale, bias[c])
 * (bias NULL: acc * scale), for c < 16 * panels, rows in order. index may repeat. */
typedef struct fp4moe_combine_args {
  size_t m, panels;
  const float *acc;
  size_t acc_stride; /* floats */
  float scale;
  const float *bias;
  const float *weight;   /* [m], 4-byte aligned */
  const uint32_t *index; /* [m], 4-byte aligned */
  float *y;
  size_t y_stride; /* floats */
} fp4moe_combine_args;
typedef void fp4moe_combine_fn(const fp4moe_combine_args *a);

/* store: y[0..n) = round(0 + ((p0 + p1) + ...)), accumulate: round(y + (...)), where p_i = partials
 * + i * stride floats. n is a multiple of 16; y has any alignment of its element. BF16 and F16
 * round to nearest-even; BF16 takes |x| < 2^-126 to zero; a NaN is 0x7fc00000, 0x7e00 or 0x7fc0.
 * Without accumulate y is not read. */
typedef void fp4moe_store_fn(size_t n, size_t parts, const float *partials, size_t stride,
                             fp4moe_dtype dtype, int accumulate, void *y);

/* ---- Rows of kernels.inc ---- */

typedef enum fp4moe_op {
  FP4MOE_OP_UNPACK = 0,
  FP4MOE_OP_QUANT,
  FP4MOE_OP_GEMV,
  FP4MOE_OP_GEMM,
  FP4MOE_OP_ACT,
  FP4MOE_OP_COMBINE,
  FP4MOE_OP_STORE,
  FP4MOE_OPS
} fp4moe_op;

/* In the order of FP4MOE_CPU: a cap admits what is at or before it. */
typedef enum fp4moe_isa {
#define ISA(suffix, arch, bits) FP4MOE_ISA_##suffix,
#include "isas.inc"
  FP4MOE_ISAS
} fp4moe_isa;

enum { FP4MOE_ANY = -1 }; /* a row that serves every format, class or kind */

typedef struct fp4moe_kernel {
  const char *name;
  fp4moe_op op;
  fp4moe_isa isa;
  int format; /* fp4moe_format or ANY */
  int act;    /* fp4moe_act_class or ANY */
  int form;   /* unpack, gemm: fp4moe_form of the panels; else ANY */
  int kind;   /* act: fp4moe_activation_kind and gated; else ANY */
  int gated;
  uint32_t mr;       /* gemv: most rows; gemm: rows of the register tile; else 0 */
  uint32_t nr;       /* columns of the register tile; else 0 */
  uint32_t err;      /* 0: same bits as the _c row. Else a matmul's bound, per 32 k: see below */
  uint32_t revision; /* counts changes of speed or bits: table entries of another one are dropped */
  union {
    fp4moe_unpack_fn *unpack;
    fp4moe_quant_fn *quant;
    fp4moe_matmul_fn *matmul;
    fp4moe_act_fn *act;
    fp4moe_combine_fn *combine;
    fp4moe_store_fn *store;
  } fn;
} fp4moe_kernel;

/* Float bound of a matmul row against exact arithmetic on the row's own inputs:
 *   |acc - exact| <= (err * K/32 + 4) * 2^-24 * sum|a*w| + 2K * 2^-126 * max(1, largest scale)
 * (the last term: VDPBF16PS takes subnormal products and sums to zero). err * K/32 + 4 is at least
 * the most roundings that one product's part of the sum goes through, by the row's order of
 * summation (tests/check_order.c reads it off); where sums round to odd, each counts twice.
 * "Same bits" of an FP32 result means: NaN where the C row has NaN, else its bits; which NaN an
 * operation yields differs from compiler to compiler. quant, unpack and store fix theirs. */

/* A row is a function under its own name, whatever the compiler could make of it: not inlined,
 * cloned or folded into another of the same code. */
#if defined(__clang__)
#define FP4_ROW __attribute__((noinline))
#else
#define FP4_ROW __attribute__((noipa))
#endif

/* Prototypes of every variant, from the list. */
#define UNPACK(w, a, isa, rev) FP4_ROW fp4moe_unpack_fn fp4moe_unpack_##w##_##a##_##isa;
#define QUANT(a, isa, rev)     FP4_ROW fp4moe_quant_fn fp4moe_quant_##a##_##isa;
#define GEMV(w, a, mr, nr, isa, err, rev)                                                          \
  FP4_ROW fp4moe_matmul_fn fp4moe_gemv_##w##_##a##_##mr##x##nr##_##isa;
#define GEMM(a, mr, nr, isa, err, rev)                                                             \
  FP4_ROW fp4moe_matmul_fn fp4moe_gemm_##a##_##mr##x##nr##_##isa;
#define GEMM_OF(w, a, mr, nr, isa, err, rev)                                                       \
  FP4_ROW fp4moe_matmul_fn fp4moe_gemm_##w##_##a##_##mr##x##nr##_##isa;
#define ACT(word, kind, gated, isa, rev) FP4_ROW fp4moe_act_fn fp4moe_act_##word##_##isa;
#define COMBINE(isa, rev)                FP4_ROW fp4moe_combine_fn fp4moe_combine_##isa;
#define STORE(isa, rev)                  FP4_ROW fp4moe_store_fn fp4moe_store_##isa;
#include "kernels.inc"

/* The rows, in the order of kernels.inc: the static order of preference within an op. */
extern const fp4moe_kernel fp4moe_kernels[];
extern const size_t fp4moe_kernel_count;

/* ---- pack, route: C only ---- */

/* One panel from up to 16 checkpoint rows: rows < 16 pads with code 0 (scale byte `pad`). */
void fp4moe_pack_panel_c(const uint8_t *codes, size_t codes_stride, const uint8_t *scales,
                         size_t scales_stride, size_t rows, size_t k, size_t group, uint8_t pad,
                         uint8_t *nibbles, uint8_t *panel_scales);

/* The inverse: the checkpoint's bytes again. */
void fp4moe_restore_panel_c(const uint8_t *nibbles, const uint8_t *panel_scales, size_t rows,
                            size_t k, size_t group, uint8_t *codes, size_t codes_stride,
                            uint8_t *scales, size_t scales_stride);

#endif
