/* checkpoint.h - an open checkpoint, and the test that makes a layer loadable. */
#ifndef FP4MOE_IO_CHECKPOINT_H
#define FP4MOE_IO_CHECKPOINT_H

#include "io/config.h"

struct fp4moe_checkpoint {
  fp4moe_tensors *tensors;
  struct io_config config;
  struct io_layer *layers;
  size_t count;
};

/* Binds every tensor of a layer whose family is known, and takes its sizes from them: afterwards
 * each (expert, projection, part) is there with its dtype and shape, and nothing else is. INVALID
 * by tensor name. Writes info.desc (sizes and format). */
fp4moe_status fp4moe_io_layer_bind(const fp4moe_tensors *tensors, struct io_layer *layer);

#endif
