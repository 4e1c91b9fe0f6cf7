/* floats.h - one FP4 tensor of a set, found with its scales by name, as floats.
 *
 * Any tensor will do, be it of an expert or of a dense layer: names and shapes say what belongs to
 * it and how it lies; a GGUF tensor brings its block scales along. Axes stay as stored: fused
 * experts that are transposed, or interleave gate and up, come out so. */
#ifndef FP4MOE_IO_FLOATS_H
#define FP4MOE_IO_FLOATS_H

#include "io/family.h"

struct io_fp4 {
  const fp4moe_tensor *codes,
      *scales;                 /* scales NULL: in the blocks of a GGUF file, with the codes */
  const fp4moe_tensor *global; /* NULL: MXFP4 */
  int reciprocal;              /* the global on disk is 1/multiplier */
  fp4moe_format format;
  char *name; /* of the floats: the codes' without what the format added. Owned */
  size_t rank, shape[FP4MOE_TENSOR_RANK];
  size_t slices, rows, columns; /* code bytes as [slices][rows][columns] */
  int transposed;               /* pairs of codes along the rows, not the columns */
  enum io_fusion fusion;        /* INTERLEAVED, HALVES: one global for gate, one for up */
};

/* name: the tensor of the codes. INVALID: no such tensor, it is not FP4, a tensor that belongs to
 * it is missing (by name), a dtype or shape that does not fit. NO_MEMORY. */
fp4moe_status fp4moe_io_fp4_find(const fp4moe_tensors *tensors, const char *name,
                                 struct io_fp4 *found);
void fp4moe_io_fp4_release(struct io_fp4 *found);

/* Elements of the floats. */
size_t fp4moe_io_fp4_count(const struct io_fp4 *found);

/* All floats to out: F32 or BF16, each e2m1 * scale * global, the exact product, rounded once to
 * nearest even; it may be subnormal or infinite. The global of a reciprocal tensor is 1/value in
 * FP32, as layers have it. INVALID: a NaN scale or a global that is not finite (tensor and index).
 * NO_MEMORY, SYSTEM. */
fp4moe_status fp4moe_io_fp4_read(const fp4moe_tensors *tensors, const struct io_fp4 *found,
                                 fp4moe_dtype dtype, void *out);

#endif
