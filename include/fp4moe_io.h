/* fp4moe_io.h - FP4 checkpoints on disk: safetensors and GGUF files, and the MoE layers inside.
 *
 * libfp4moe_io is a library of its own (it needs a JSON parser), used beside libfp4moe:
 *
 *   fp4moe_checkpoint_open -> fp4moe_checkpoint_layers / _at -> fp4moe_checkpoint_load_layer
 *                                                            or fp4moe_checkpoint_load_slice
 *
 * The rules of fp4moe.h hold here too: a call that fails changes nothing and leaves one line in
 * fp4moe_error_detail(), which names the file, the tensor or field, and both values. Files are
 * hostile until checked: sizes, offsets, names and shapes are all tested before any use.
 *
 * Threads: an open set or checkpoint is read-only, any number of threads may use it at once;
 * closing it is the exception. Pointers handed out live until it is closed. */
#ifndef FP4MOE_IO_H
#define FP4MOE_IO_H

#include "fp4moe.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Tensors --------------------------------------------------------------------------------- */

#define FP4MOE_TENSOR_RANK 8 /* most dimensions of a tensor */

/* One tensor of a set: row-major, dense, little-endian. */
typedef struct fp4moe_tensor {
  const char *name;                 /* UTF-8 */
  const char *dtype;                /* as on disk: "U8", "I8", "F8_E4M3", "F8_E8M0", "BF16", ...;
                                       GGUF: "MXFP4", "Q8_0", ... of blocks, "GGML?" = unknown */
  size_t rank;                      /* 0 (a scalar) to FP4MOE_TENSOR_RANK */
  size_t shape[FP4MOE_TENSOR_RANK]; /* elements, slowest first; a dimension may be 0 */
  size_t bytes;
  const char *file;     /* path of the file that holds it */
  uint64_t file_offset; /* bytes from the start of that file */
} fp4moe_tensor;

/* The tensors of one .safetensors or GGUF file, or of all shards of a model. Data stay on disk. */
typedef struct fp4moe_tensors fp4moe_tensors;

/* path: a .safetensors file, a GGUF file (told by its content; of a split model the first file,
 * -00001-of-000NN.gguf, stands for all), or a model directory: one with
 * model.safetensors.index.json (its shards make one set), else with model.safetensors. SYSTEM: a
 * file cannot be read. INVALID: a header or index breaks a rule, a tensor of the index is not in
 * its shard, or two shards hold the same tensor. UNSUPPORTED: a GGUF file not of version 3.
 * NO_MEMORY. */
FP4MOE_API fp4moe_status fp4moe_tensors_open(const char *path, fp4moe_tensors **tensors);
FP4MOE_API void fp4moe_tensors_close(fp4moe_tensors *tensors); /* NULL: nothing */

FP4MOE_API size_t fp4moe_tensors_count(const fp4moe_tensors *tensors);

/* Tensor i in ascending byte order of the names; NULL: i >= count. Owned by the set. */
FP4MOE_API const fp4moe_tensor *fp4moe_tensors_at(const fp4moe_tensors *tensors, size_t i);

/* NULL: no tensor has this name. */
FP4MOE_API const fp4moe_tensor *fp4moe_tensors_find(const fp4moe_tensors *tensors,
                                                    const char *name);

/* Copies bytes [offset, offset + bytes) of a tensor of this set to dst. INVALID: beyond the
 * tensor, or the file has become shorter. SYSTEM: the read failed. */
FP4MOE_API fp4moe_status fp4moe_tensors_read(const fp4moe_tensors *tensors,
                                             const fp4moe_tensor *tensor, size_t offset,
                                             size_t bytes, void *dst);

/* One tensor to write. */
typedef struct fp4moe_tensor_data {
  const char *name;    /* UTF-8, unique in the file, not "__metadata__" */
  const char *dtype;   /* a safetensors dtype */
  size_t rank;         /* at most FP4MOE_TENSOR_RANK */
  const size_t *shape; /* [rank]; may be NULL when rank is 0 */
  const void *data;    /* dense, as many bytes as dtype and shape say; NULL only for none */
} fp4moe_tensor_data;

/* Writes a .safetensors file, wider dtypes first so that data are aligned. The file appears whole
 * or not at all: a temporary file beside it, fsync, rename. On failure the temporary file is gone
 * and what was at path is as before. A symbolic link at path is replaced, not followed.
 * INVALID (the tensor by name), NO_MEMORY, SYSTEM. */
FP4MOE_API fp4moe_status fp4moe_tensors_write(const char *path, const fp4moe_tensor_data *list,
                                              size_t n);

/* ---- Checkpoints ----------------------------------------------------------------------------- */

typedef struct fp4moe_checkpoint fp4moe_checkpoint;

/* One MoE layer of a checkpoint: everything called <prefix>.*, where prefix ends in ".experts"; of
 * a GGUF file everything called <prefix>.ffn_*_exps.*, where prefix is "blk.<layer>".
 *
 *   status       fp4  what it means
 *   OK            1   desc is complete, the layer can be loaded and run
 *   UNSUPPORTED   1   loads once the caller sets desc.activation (its kind is
 *                     FP4MOE_ACTIVATION_UNKNOWN): the one that config.json names does not exist in
 *                     this library, or neither config.json nor the tensors' names tell one
 *   UNSUPPORTED   0   the experts are not FP4, or of a family that is known but not read yet: a
 *                     program may skip the layer, saying so
 *   INVALID       0   FP4, but broken: a tensor is missing, unknown or of a wrong dtype or shape,
 *                     or config.json disagrees. Not to be skipped in silence */
typedef struct fp4moe_checkpoint_layer {
  size_t layer;       /* the last number in the prefix; 0 where there is none */
  const char *prefix; /* "model.layers.3.mlp.experts" */
  const char *family; /* "NVFP4 (ModelOpt)", ...; "" = not FP4 */
  int fp4;
  fp4moe_status status;
  const char *reason; /* one line; "" = status is OK */
  /* Sizes and format from the tensors (0 where fp4 is 0), activation and router_weight_on_input
   * from config.json, else as the models of such names have it. precision is BF16: the caller's to
   * change. */
  fp4moe_layer_desc desc;
  size_t top_k; /* from config.json; 0 = not known */
  /* Its tensors are [first_tensor, first_tensor + tensor_count) of the set; in GGUF files the
   * router and norms of the block may lie between them. */
  size_t first_tensor, tensor_count;
  uint64_t bytes; /* their bytes on disk */
} fp4moe_checkpoint_layer;

/* path: as fp4moe_tensors_open, or a packed file or a directory with one (see below). config.json
 * in the same directory is read when it is there; a GGUF file has metadata in its place, and its
 * architecture tells the activation. A layer that cannot be used does not fail the call: see its
 * status. A checkpoint without any MoE layer is fine and has 0 layers. Errors: as
 * fp4moe_tensors_open, and INVALID for config.json and for a packed file that breaks a rule. */
FP4MOE_API fp4moe_status fp4moe_checkpoint_open(const char *path, fp4moe_checkpoint **checkpoint);

/* How layers of a packed file are loaded; without effect on others. */
typedef struct fp4moe_open_options {
  size_t struct_size;
  int verify; /* 1: loading a layer reads all its records and tests their checksums */
  /* 1: a layer is a copy in memory of its own, in huge pages, its checksums always tested.
   * 0: it reads a map of the file: there at once (a gpt-oss-20b layer, 424 MB: 0.01 s, a copy
   * 0.4 s), shared by processes, and memory that the system may drop and read again. Small pages
   * cost up to a tenth at one token (1.55 ms against 1.43 ms on 2 cores of a Zen 4). A map must
   * not be truncated while in use: that is SIGBUS. Packing again replaces the file and leaves the
   * map as it was. */
  int copy;
} fp4moe_open_options;

/* options: NULL = all 0. */
FP4MOE_API fp4moe_status fp4moe_checkpoint_open_with(const char *path,
                                                     const fp4moe_open_options *options,
                                                     fp4moe_checkpoint **checkpoint);
FP4MOE_API void fp4moe_checkpoint_close(fp4moe_checkpoint *checkpoint); /* NULL: nothing */

/* All tensors of the checkpoint, owned by it; a packed file has none. */
FP4MOE_API const fp4moe_tensors *fp4moe_checkpoint_tensors(const fp4moe_checkpoint *checkpoint);

/* MoE layers: those that have routed experts, whether they can be run or not. */
FP4MOE_API size_t fp4moe_checkpoint_layers(const fp4moe_checkpoint *checkpoint);

/* Layer i, ascending by number and then prefix (a draft layer may repeat a number); NULL: i is out
 * of range. Owned by the checkpoint. */
FP4MOE_API const fp4moe_checkpoint_layer *fp4moe_checkpoint_at(const fp4moe_checkpoint *checkpoint,
                                                               size_t i);

/* Builds layer i, finished and ready for calls: experts are read one at a time into one buffer, so
 * memory peaks at the packed layer and one expert. desc: the layer's own with precision,
 * activation (not whether it is gated), router_weight_on_input or the fields of class NVFP4
 * changed; NULL: unchanged. Class NVFP4 with GLOBAL_LAYER: an input scale of 0 in desc stands for
 * the largest of all experts of the checkpoint's layer; a checkpoint without input scales is
 * UNSUPPORTED with GLOBAL_LAYER and GLOBAL_EXPERT, one that is zero, negative or not finite INVALID
 * (the tensor by name). Other classes do not mind them. Several threads may load at once. Errors:
 * the layer's status and reason; INVALID: desc contradicts the tensors, a global or block scale is
 * not finite (the tensor by name); SYSTEM; and those of fp4moe_layer_begin and _finish. */
FP4MOE_API fp4moe_status fp4moe_checkpoint_load_layer(const fp4moe_checkpoint *checkpoint, size_t i,
                                                      fp4moe_context *context,
                                                      const fp4moe_layer_desc *desc,
                                                      fp4moe_layer **layer);

/* ---- One rank of several --------------------------------------------------------------------- */

/* What the ranks divide among them. Their outputs add up to the layer's.
 *   EXPERTS       rank r has experts [r*E/ranks, (r+1)*E/ranks), whole
 *   INTERMEDIATE  rank r has [r*I/ranks, (r+1)*I/ranks) of every expert: rows of gate and up,
 *                 columns of down; the bias of down goes to rank 0 alone */
typedef enum fp4moe_split {
  FP4MOE_SPLIT_NONE = 0,
  FP4MOE_SPLIT_EXPERTS,
  FP4MOE_SPLIT_INTERMEDIATE
} fp4moe_split;

typedef struct fp4moe_slice {
  size_t struct_size;
  fp4moe_split split;
  size_t rank, ranks; /* 0 <= rank < ranks; NONE: both are ignored */
} fp4moe_slice;

/* The desc of the rank's part of a layer: `whole` with fewer experts or a smaller intermediate
 * size. *first (NULL = not wanted): its first expert, or where its part of I begins. INVALID, with
 * the numbers: no such rank, fewer experts than ranks, I that ranks do not divide, or a part of I
 * that cuts a group of scales (32 MXFP4, 16 NVFP4). */
FP4MOE_API fp4moe_status fp4moe_slice_desc(const fp4moe_slice *slice,
                                           const fp4moe_layer_desc *whole, fp4moe_layer_desc *part,
                                           size_t *first);

/* The expert_map of batches whose ids count the experts of the whole layer: map[whole->experts]
 * gets the rank's own number of each expert, -1 for those of other ranks. INVALID: as above. */
FP4MOE_API fp4moe_status fp4moe_slice_expert_map(const fp4moe_slice *slice,
                                                 const fp4moe_layer_desc *whole, int32_t *map);

/* fp4moe_checkpoint_load_layer of a rank's part. desc: the whole layer's, as there; slice NULL:
 * all of it. Errors: as there and those of fp4moe_slice_desc; UNSUPPORTED: a part of the
 * intermediate size of a packed file (pack the part). */
FP4MOE_API fp4moe_status fp4moe_checkpoint_load_slice(const fp4moe_checkpoint *checkpoint, size_t i,
                                                      fp4moe_context *context,
                                                      const fp4moe_layer_desc *desc,
                                                      const fp4moe_slice *slice,
                                                      fp4moe_layer **layer);

/* ---- Packed files ----------------------------------------------------------------------------
 *
 * All FP4 layers of a checkpoint in the form in which they are computed, made once and then mapped
 * by every process. The file says of itself what it is: version, layout, sizes, activation, where
 * it came from; one that differs in anything is refused. It opens like a checkpoint. */

#define FP4MOE_PACKED_FILE "model.fp4moe" /* its name in a directory */

typedef struct fp4moe_pack_options {
  size_t struct_size;
  /* Called after each expert, by the calling thread, with those done so far and all there are.
   * NULL: not wanted. */
  void (*progress)(void *user, size_t done, size_t total);
  void *user;
  /* One rank's part of the intermediate size; NULL: all of it. A part by experts is INVALID here:
   * fp4moe_checkpoint_load_slice maps it out of the whole file. */
  const fp4moe_slice *slice;
} fp4moe_pack_options;

/* Writes the packed file `path` of all layers that are FP4, one expert in memory at a time. Like
 * fp4moe_tensors_write it appears whole or not at all. The same weights give the same bytes.
 * options: NULL = none. Errors: the status of a layer that is FP4 and cannot be loaded; INVALID: no
 * FP4 layer, or the checkpoint is packed itself; those of loading; SYSTEM, NO_MEMORY. */
FP4MOE_API fp4moe_status fp4moe_checkpoint_pack(const fp4moe_checkpoint *checkpoint,
                                                const char *path,
                                                const fp4moe_pack_options *options);

typedef struct fp4moe_packed_info {
  const char *source; /* path of the checkpoint as it was packed; owned by the open one */
  uint64_t identity;  /* of the packed weights: equal ones, equal number */
  uint64_t bytes;     /* of the file */
} fp4moe_packed_info;

/* 1 and fills *info (NULL: not wanted) where the checkpoint is a packed file, else 0. */
FP4MOE_API int fp4moe_checkpoint_packed(const fp4moe_checkpoint *checkpoint,
                                        fp4moe_packed_info *info);

/* ---- Dense matrices -------------------------------------------------------------------------- */

/* One dense FP4 matrix: LM head, a projection of a shared expert, attention. Named by what its
 * tensors have in common: "lm_head" of lm_head.weight, lm_head.weight_scale,
 * lm_head.weight_scale_2; of a GGUF file "output" of output.weight. */
typedef struct fp4moe_checkpoint_linear {
  const char *name;
  const char *family;   /* "NVFP4 (ModelOpt)", ... */
  fp4moe_status status; /* INVALID: a tensor is missing or of a wrong dtype or shape */
  const char *reason;   /* one line; "" = status is OK */
  /* n, k and format from the tensors, experts 1. precision is BF16: the caller's to change. */
  fp4moe_linear_desc desc;
  uint64_t bytes; /* of its tensors on disk */
} fp4moe_checkpoint_linear;

/* All of a checkpoint, ascending by name; routed experts are not among them. NULL: i is out of
 * range. Owned by the checkpoint. */
FP4MOE_API size_t fp4moe_checkpoint_linears(const fp4moe_checkpoint *checkpoint);
FP4MOE_API const fp4moe_checkpoint_linear *fp4moe_checkpoint_linear_at(
    const fp4moe_checkpoint *checkpoint, size_t i);

/* Builds the matrix of this name, finished and ready for calls. desc: its own with precision or
 * input_global changed; NULL: unchanged. input_scale 0 with GLOBAL_LAYER: the checkpoint's. Memory
 * peaks at the matrix packed and unpacked. Several threads may load at once. Errors: INVALID (no
 * such matrix, its own verdict, desc contradicts the tensors, a global or block scale that is not
 * finite), SYSTEM, and those of fp4moe_linear_begin and _finish. */
FP4MOE_API fp4moe_status fp4moe_checkpoint_load_linear(const fp4moe_checkpoint *checkpoint,
                                                       const char *name, fp4moe_context *context,
                                                       const fp4moe_linear_desc *desc,
                                                       fp4moe_linear **linear);

#ifdef __cplusplus
}
#endif
#endif
