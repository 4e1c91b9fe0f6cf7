/* checkpoint.h - an open checkpoint, and the test that makes a layer loadable. */
#ifndef FP4MOE_IO_CHECKPOINT_H
#define FP4MOE_IO_CHECKPOINT_H

#include "io/config.h"
#include "io/linear.h"

struct fp4moe_checkpoint {
  char *path;
  fp4moe_tensors *tensors;  /* of a packed file: an empty set */
  struct io_packed *packed; /* NULL: tensors are the source */
  struct io_config config;
  struct io_layer *layers;
  size_t count;
  struct io_linear *linears;
  size_t linears_count;
};

/* Binds every tensor of a layer whose family is known, and takes its sizes from them: afterwards
 * each (expert, projection, part) is there with its dtype and shape, and nothing else is. INVALID
 * by tensor name. Writes info.desc (sizes and format). */
fp4moe_status fp4moe_io_layer_bind(const fp4moe_tensors *tensors, struct io_layer *layer);

/* What of a layer is loaded. */
struct io_part {
  fp4moe_layer_desc desc;
  fp4moe_split split;
  size_t rank, first; /* first: expert, or of I */
};

/* From the caller's words about the whole; desc, slice: NULL = the layer's own, all of it. */
fp4moe_status fp4moe_io_choose_part(const struct io_layer *from, const fp4moe_layer_desc *desc,
                                    const fp4moe_slice *slice, struct io_part *part);

/* Reads the part's experts in ascending order, one at a time into one buffer, and hands each to
 * `take` under its number in the part; a failure there ends it. A broken value is INVALID by
 * tensor name. */
typedef fp4moe_status fp4moe_io_expert_fn(void *arg, size_t e,
                                          const fp4moe_expert_weights *weights);
fp4moe_status fp4moe_io_each_expert(const fp4moe_tensors *tensors, const struct io_layer *from,
                                    const struct io_part *part, fp4moe_io_expert_fn *take,
                                    void *arg);

#endif
