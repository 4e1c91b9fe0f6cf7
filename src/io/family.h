/* family.h - how each checkpoint family spells its expert tensors, as data.
 *
 *   numbered  <prefix>.<e>.<projection><part>   one tensor per expert, projection and part
 *   stacked   <prefix>.<projection><part>       all experts on the first axis
 *   GGUF      likewise, prefix blk.<layer>, projection ffn_..._exps
 *
 * A family that has gate and up in one tensor names that tensor for both. */
#ifndef FP4MOE_IO_FAMILY_H
#define FP4MOE_IO_FAMILY_H

#include "fp4moe_io.h"

enum { IO_GATE, IO_UP, IO_DOWN, IO_PROJECTIONS };
enum { IO_CODES, IO_SCALES, IO_GLOBAL, IO_INPUT, IO_BIAS, IO_PARTS };

/* How the codes and scales of one projection lie on disk: N outputs, K inputs, groups of G inputs.
 *   ROWS      codes [N][K/2], scales [N][K/G]
 *   BLOCKS    codes [N][K/G][G/2], scales [N][K/G]
 *   ORIENTED  as ROWS, or both with their axes swapped: [K/2][N], [K/G][N]. The shapes tell
 *   GGML      codes and scales in one tensor of blocks (ggml.h); globals, biases may be absent */
enum io_layout { IO_ROWS, IO_BLOCKS, IO_ORIENTED, IO_GGML };

/* Where the outputs of gate and up are: in tensors of their own, or in one as g0 u0 g1 u1 ..., or
 * as all of gate, then all of up. */
enum io_fusion { IO_APART, IO_INTERLEAVED, IO_HALVES };

struct io_family {
  const char *name;
  fp4moe_format format;
  int stacked;
  enum io_layout layout;
  enum io_fusion fusion;
  int reciprocal;                      /* globals on disk are 1/multiplier */
  const char *parent;                  /* segment before "experts"; NULL: any */
  const char *const *projection;       /* [IO_PROJECTIONS] names; NULL: none (ungated) */
  const char *const *part;             /* [IO_PARTS] endings; NULL: the family has none */
  int signature;                       /* the part that, beside codes, tells the family */
  const fp4moe_activation *activation; /* unless prefix or config.json say otherwise */
  int router_weight_on_input;
};

/* As gpt-oss has it: alpha 1.702, beta 1, limit 7. */
extern const fp4moe_activation fp4moe_io_swiglu_oai;

/* The experts of one layer: set entries [info.first_tensor, + info.tensor_count), each named
 * <info.prefix>.something. */
struct io_layer {
  fp4moe_checkpoint_layer info;
  const struct io_family *family;       /* NULL: not FP4, or packed */
  int transposed;                       /* ORIENTED: which way, once bound */
  const struct io_packed_layer *packed; /* of a packed file: what its head says; else NULL */
  char *prefix, *reason;                /* owned; info points to them */
};

/* Length of the layer's prefix at the head of an expert tensor's name: "<...>.experts", or GGUF's
 * "blk.<layer>". 0: no expert tensor. */
size_t fp4moe_io_expert_prefix(const char *name);

/* The first family that the layer's names and code dtypes fit; NULL: none. */
const struct io_family *fp4moe_io_family_match(const fp4moe_tensors *tensors,
                                               const struct io_layer *layer);

/* Splits "<prefix>.12.rest" into 12 and "rest". 0: not a number in canonical form and a dot. An
 * expert beyond `most` reads as most + 1. */
int fp4moe_io_expert_number(const struct io_layer *layer, const char *name, size_t most,
                            size_t *expert, const char **rest);

/* The tensor of (expert, projection, part) or NULL; its name is left in `name`, which has room for
 * the prefix and IO_NAME_ROOM bytes more. The family must have the part. */
#define IO_NAME_ROOM 96
const fp4moe_tensor *fp4moe_io_layer_tensor(const fp4moe_tensors *tensors,
                                            const struct io_layer *layer, size_t expert,
                                            int projection, int part, char *name);

/* Elements of a scale group. */
size_t fp4moe_io_group(const struct io_layer *layer);

/* Index of (expert, projection) in a tensor of globals: one for all, one an expert, or of a fused
 * tensor [E, 2] gate's and up's. */
size_t fp4moe_io_global_index(const fp4moe_tensor *tensor, size_t expert, int projection);

/* "U8" and "I8": the dtypes under which bytes of two codes are stored. */
int fp4moe_io_is_byte(const char *dtype);

#endif
