/* read.h - one expert of a bound layer, from disk into the form that fp4moe_layer_set_expert takes.
 *
 * Whatever the family, an expert comes out as gate, up and down with codes [N][K/2] and scales
 * [N][K/G] by stride, globals and input scales as multipliers, biases by stride. */
#ifndef FP4MOE_IO_READ_H
#define FP4MOE_IO_READ_H

#include "io/family.h"

struct io_reader {
  const fp4moe_tensors *tensors;
  const struct io_layer *layer;
  char *name;   /* of the tensor last looked for */
  char *buffer; /* one expert */
  char *strip;  /* part of a tensor that is to be rearranged; NULL: none is */
  size_t used;  /* bytes of the buffer filled */
};

/* Memory for one expert and at most 2 MiB (or 64 rows of a tensor) beside it. NO_MEMORY. */
fp4moe_status fp4moe_io_reader_open(const fp4moe_tensors *tensors, const struct io_layer *layer,
                                    struct io_reader *reader);
void fp4moe_io_reader_close(struct io_reader *reader);

/* All strides are set. Pointers live until the next read. INVALID: a global is not finite (tensor
 * and index by name). SYSTEM. */
fp4moe_status fp4moe_io_reader_expert(struct io_reader *reader, size_t expert,
                                      fp4moe_expert_weights *weights);

/* The input scale of an expert's projection as a multiplier; 0: there is none that is one. */
fp4moe_status fp4moe_io_reader_input_scale(const struct io_reader *reader, size_t expert,
                                           int projection, float *scale);

/* What the static policies of class NVFP4 read from the checkpoint. GLOBAL_LAYER: the input scales
 * of desc that are 0 become the maxima over all experts of the layer. GLOBAL_EXPERT: only looks.
 * UNSUPPORTED: an expert has none; INVALID: it is none. Both name the tensor. */
fp4moe_status fp4moe_io_input_scales(const fp4moe_tensors *tensors, const struct io_layer *layer,
                                     fp4moe_layer_desc *desc);

/* The tensor of a part, or NULL: the family has no such part, or it was optional. */
const fp4moe_tensor *fp4moe_io_reader_find(const struct io_reader *reader, size_t expert,
                                           int projection, int part);

/* Rows first, first + step, ... of a projection. */
fp4moe_projection fp4moe_io_take_rows(const fp4moe_projection *all, size_t first, size_t step);

#endif
