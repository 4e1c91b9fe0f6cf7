/* linear.h - dense FP4 matrices of a checkpoint: LM head, shared experts, attention. */
#ifndef FP4MOE_IO_LINEAR_H
#define FP4MOE_IO_LINEAR_H

#include "fp4moe_io.h"

struct io_linear {
  fp4moe_checkpoint_linear info;
  const fp4moe_tensor *codes, *scales, *global, *input, *bias; /* NULL: has none */
  int reciprocal;      /* globals on disk are 1/multiplier */
  char *name, *reason; /* owned; info points to them */
};

/* Whether this tensor has the codes of a dense FP4 matrix; then *linear is all about it, with its
 * verdict in info.status. Fails for lack of memory only. Release in either case. */
fp4moe_status fp4moe_io_linear_find(const fp4moe_tensors *tensors, const fp4moe_tensor *codes,
                                    struct io_linear *linear, int *found);
void fp4moe_io_linear_release(struct io_linear *linear);

#endif
