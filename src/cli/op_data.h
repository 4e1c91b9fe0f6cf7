/* op_data.h - what the kernels of one op work on, and a call of one as forward makes it. */
#ifndef FP4MOE_OP_DATA_H
#define FP4MOE_OP_DATA_H

#include "kernel.h"

/* What to make room for. */
typedef struct op_shape {
  fp4moe_op op;
  fp4moe_layer_desc desc; /* columns: hidden; the class: precision */
  size_t rows, panels;    /* most of a call */
  size_t cache_bytes;     /* that the inputs of successive calls take up, where a call needs less */
} op_shape;

/* One thread's inputs, random, and its output. What an op does not use is NULL. */
typedef struct op_data {
  op_shape shape;
  size_t k, group;
  uint16_t *x;       /* BF16 [x_rows][k] */
  uint8_t *row_data; /* activation rows of x */
  const void **row;  /* [shape.rows] */
  size_t x_rows, all_panels;
  uint8_t *nibbles, *scales;       /* [all_panels] */
  uint8_t *unpacked[FP4MOE_FORMS]; /* the same panels in each form of the class, for gemm */
  size_t unpacked_stride;
  float *sums; /* for act, combine and store */
  size_t all_sums;
  float *bias, *weight;
  uint32_t *index;
  void *out;
  size_t out_bytes;
} op_data;

/* What one call reads of its input, computes, and leaves at the start of `out`. Panels that gemm
 * reads do not count: unpack has just put them into the cache. */
typedef struct op_work {
  double bytes, operations;
  size_t out_bytes;
} op_work;

/* Memory of the calling thread; the same seed gives the same data. */
void op_data_make(op_data *d, const op_shape *shape, uint64_t seed);
void op_data_free(op_data *d);

/* Panels of a call of this kernel: whole register tiles. */
size_t op_panels(const fp4moe_kernel *kernel);

/* Call number `turn`: m rows and `panels` panels of the inputs that are next. */
op_work op_call(op_data *d, const fp4moe_kernel *kernel, size_t m, size_t panels, size_t turn);

/* The C row of an op and form (ANY: the first) for a layer, which specifies the others. */
const fp4moe_kernel *op_c_row(fp4moe_op op, int form, const fp4moe_layer_desc *desc);

/* Rows that op_same_bits and op_worst_error look at, from the first. */
enum { OP_CHECKED_ROWS = 64 };

/* Does a call leave the bits that the C row leaves? */
int op_same_bits(op_data *d, const fp4moe_kernel *kernel, size_t m, size_t panels);

/* Worst |y - exact| of a matmul of class f32 or bf16 against sums in double, in the unit of the
 * bound in kernel.h: 2^-24 * sum|a*w|, per 32 k. */
double op_worst_error(op_data *d, const fp4moe_kernel *kernel, size_t m, size_t panels);

#endif
