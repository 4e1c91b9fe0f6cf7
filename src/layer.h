/* layer.h - a layer inside: shape, packed records, plan. */
#ifndef FP4MOE_LAYER_H
#define FP4MOE_LAYER_H

#include <stdatomic.h>

#include "context.h"
#include "input_scale.h"

/* Geometry of records, of a whole layer or of one shard; all experts have the same. Offsets in
 * bytes (layout.h). */
typedef struct fp4moe_shape {
  size_t hidden, intermediate, group; /* of the layer */
  int gated;
  uint32_t shard, shards;   /* which of how many; 0, 1: the whole */
  size_t panels13, panels2; /* gate and up together; down */
  size_t w13, w2, s13, s2;  /* panels and scales */
  size_t globals, b13, b2, bytes;
} fp4moe_shape;

/* Of the whole layer; offsets and bytes from the rest. */
void fp4moe_shape_of(const fp4moe_layer_desc *desc, fp4moe_shape *shape);
void fp4moe_shape_lay_out(fp4moe_shape *shape);

enum { FP4MOE_MAX_SHARDS = 16 };

/* A part of every expert, by output rows, in an arena of its own. */
typedef struct fp4moe_shard {
  fp4moe_shape shape;
  size_t first13, first2; /* its first panels, among the layer's */
  uint8_t *records;       /* [experts] of shape.bytes; never written where they are mapped */
  int node;               /* memory node that the arena was asked for, -1: none */
} fp4moe_shard;

struct fp4moe_layer {
  fp4moe_context *ctx;
  fp4moe_layer_desc desc;
  fp4moe_shape shape; /* the whole */
  size_t shards;
  fp4moe_shard shard[FP4MOE_MAX_SHARDS];
  atomic_uchar *state;   /* [experts]: 0 unset, 1 being packed, 2 packed */
  fp4moe_records mapped; /* the caller's, read in place; data NULL: records are our own */
  int finished;
  _Atomic(const fp4moe_plan *) plan; /* what a call takes when it begins; NULL: not finished */
  struct fp4moe_kept_plan *kept;     /* every plan there was, until destroy: a call may run by it */
  pthread_mutex_t plan_lock;         /* of kept, and of changing plan */
};

struct fp4moe_linear {
  fp4moe_layer layer; /* of fp4moe_is_linear */
};

/* The plan of a call: immutable, there as long as the layer. */
static inline const fp4moe_plan *fp4moe_layer_plan(const fp4moe_layer *layer) {
  return atomic_load_explicit(&layer->plan, memory_order_acquire);
}

static inline uint8_t *fp4moe_layer_record(const fp4moe_layer *layer, size_t shard, size_t e) {
  return layer->shard[shard].records + e * layer->shard[shard].shape.bytes;
}

/* The globals of an expert, which each shard has. */
static inline const float *fp4moe_layer_globals(const fp4moe_layer *layer, size_t e) {
  return (const float *)(void *)(fp4moe_layer_record(layer, 0, e) + layer->shard[0].shape.globals);
}

/* Cuts a layer into shards without records (shard.c): each has whole 32-column groups of h and
 * whole output panels, as equal as these allow; some may have none. */
void fp4moe_shards_cut(const fp4moe_shape *whole, size_t shards, fp4moe_shard *shard);

/* INVALID: a desc asks for more than there may be. */
fp4moe_status fp4moe_shards_check(size_t shards);

/* Cuts a new layer as its desc wants, 0 being one shard per node of the context; an arena for each
 * on its node. NO_MEMORY. */
fp4moe_status fp4moe_shards_make(fp4moe_layer *layer);
void fp4moe_shards_release(fp4moe_layer *layer);

/* Expert e into all shards, from weights or from a verified whole record. */
fp4moe_status fp4moe_shards_pack(fp4moe_layer *layer, size_t e,
                                 const fp4moe_expert_weights *weights);
void fp4moe_shards_copy(fp4moe_layer *layer, size_t e, const uint8_t *record);

/* The shard that a worker on `node` begins with: one of the node's, else any; workers of a node
 * spread over its shards. */
size_t fp4moe_shards_home(const fp4moe_layer *layer, int node, size_t worker);

/* One line about a layer's shards and nodes. NO_MEMORY. */
fp4moe_status fp4moe_shards_text(const fp4moe_layer *layer, fp4moe_text *t);

/* A layer without records, in one shard. */
fp4moe_status fp4moe_layer_new(fp4moe_context *ctx, const fp4moe_layer_desc *desc,
                               fp4moe_layer **layer);

/* Expert e goes from unset to being packed: INVALID where it is not there or not unset. */
fp4moe_status fp4moe_layer_claim(fp4moe_layer *layer, size_t e);

/* Packs one expert into a record; INVALID names projection, row and block. */
fp4moe_status fp4moe_record_pack(const fp4moe_layer_desc *desc, const fp4moe_shape *shape,
                                 const fp4moe_expert_weights *weights, uint8_t *record);

/* The shard's part of a whole record. */
void fp4moe_record_split(const fp4moe_layer_desc *desc, const fp4moe_shape *whole,
                         const uint8_t *record, const fp4moe_shard *shard, uint8_t *out);

/* The whole record [shape.bytes] of an expert again, from its shards. */
void fp4moe_layer_whole_record(const fp4moe_layer *layer, size_t e, uint8_t *out);

/* The checkpoint's bytes again, of a whole record: codes [N][K/2], scales [N][K/group] of a
 * projection (0 gate, 1 up, 2 down), densely. */
void fp4moe_record_restore(const fp4moe_shape *shape, const uint8_t *record, int projection,
                           uint8_t *codes, uint8_t *scales);

/* INVALID where the header does not fit the layer, with both values. */
fp4moe_status fp4moe_record_check(const fp4moe_layer_desc *desc, const fp4moe_shape *shape,
                                  const uint8_t *record);

/* As check, and where the checksum does not fit the data. */
fp4moe_status fp4moe_record_verify(const fp4moe_layer_desc *desc, const fp4moe_shape *shape,
                                   const uint8_t *record);

/* Checks a desc's fields; only format, precision and what belongs to them. */
fp4moe_status fp4moe_layer_desc_check(const fp4moe_layer_desc *desc);
fp4moe_status fp4moe_format_check(const fp4moe_layer_desc *desc);

/* fp4moe_layer_begin of a desc that was checked. */
fp4moe_status fp4moe_layer_make(fp4moe_context *ctx, const fp4moe_layer_desc *desc,
                                fp4moe_layer **layer);

/* forward with a plan of one's own: for the tuner, the bench and tests. */
fp4moe_status fp4moe_layer_forward_plan(fp4moe_layer *layer, const fp4moe_plan *plan,
                                        const fp4moe_batch *batch, void *workspace,
                                        size_t workspace_bytes);
size_t fp4moe_plan_workspace_bytes(const fp4moe_layer *layer, const fp4moe_plan *plan,
                                   size_t tokens, size_t top_k, size_t threads, size_t piece);

/* The plan of a class by its C rows, whatever the context forces: the specification. */
fp4moe_status fp4moe_layer_c_plan(const fp4moe_layer *layer, fp4moe_precision precision,
                                  fp4moe_plan *plan);

/* The batch by the C rows of a class, in a workspace of its own: the reference for measured err. */
fp4moe_status fp4moe_layer_forward_c(fp4moe_layer *layer, fp4moe_precision precision,
                                     const fp4moe_batch *batch);

/* Distinct names of the kernels that serve a call with these rows per expert [experts],
 * comma-separated; written like snprintf, returns the full size. */
size_t fp4moe_layer_kernel_names(const fp4moe_layer *layer, const uint32_t *expert_rows, char *buf,
                                 size_t cap);

#endif
