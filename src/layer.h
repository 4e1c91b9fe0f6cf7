/* layer.h - a layer inside: shape, packed records, plan. */
#ifndef FP4MOE_LAYER_H
#define FP4MOE_LAYER_H

#include <stdatomic.h>

#include "context.h"

/* Geometry of a layer's records; all experts have the same. Offsets in bytes (layout.h). */
typedef struct fp4moe_shape {
  size_t hidden, intermediate, group;
  int gated;
  size_t panels13, panels2; /* gate and up together; down */
  size_t w13, w2, s13, s2;  /* panels and scales */
  size_t globals, b13, b2, bytes;
} fp4moe_shape;

void fp4moe_shape_of(const fp4moe_layer_desc *desc, fp4moe_shape *shape);

struct fp4moe_layer {
  fp4moe_context *ctx;
  fp4moe_layer_desc desc;
  fp4moe_shape shape;
  uint8_t *records;      /* [experts] of shape.bytes; never written where they are mapped */
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

/* Selects from the context's present table and makes that the layer's plan. */
fp4moe_status fp4moe_layer_select(fp4moe_layer *layer);

static inline uint8_t *fp4moe_layer_record(const fp4moe_layer *layer, size_t e) {
  return layer->records + e * layer->shape.bytes;
}

/* A layer without records. */
fp4moe_status fp4moe_layer_new(fp4moe_context *ctx, const fp4moe_layer_desc *desc,
                               fp4moe_layer **layer);

/* Expert e goes from unset to being packed: INVALID where it is not there or not unset. */
fp4moe_status fp4moe_layer_claim(fp4moe_layer *layer, size_t e);

/* Packs one expert into a record; INVALID names projection, row and block. */
fp4moe_status fp4moe_record_pack(const fp4moe_layer_desc *desc, const fp4moe_shape *shape,
                                 const fp4moe_expert_weights *weights, uint8_t *record);

/* The checkpoint's bytes again: codes [N][K/2], scales [N][K/group] of a projection (0 gate, 1 up,
 * 2 down), densely. */
void fp4moe_record_restore(const fp4moe_shape *shape, const uint8_t *record, int projection,
                           uint8_t *codes, uint8_t *scales);

/* INVALID where the header does not fit the layer, with both values. */
fp4moe_status fp4moe_record_check(const fp4moe_layer_desc *desc, const fp4moe_shape *shape,
                                  const uint8_t *record);

/* As check, and where the checksum does not fit the data. */
fp4moe_status fp4moe_record_verify(const fp4moe_layer_desc *desc, const fp4moe_shape *shape,
                                   const uint8_t *record);

/* A multiplier that class NVFP4 takes: neither it nor its reciprocal leaves the normal numbers. */
static inline int fp4moe_is_input_scale(float scale) {
  return scale >= 0x1p-100f && scale <= 0x1p100f;
}

/* Does the class read the input scales of the layer, or of experts? */
static inline int fp4moe_reads_layer_scales(const fp4moe_layer_desc *desc) {
  return desc->precision == FP4MOE_PRECISION_NVFP4 && desc->input_global == FP4MOE_GLOBAL_LAYER;
}
static inline int fp4moe_reads_input_scales(const fp4moe_layer_desc *desc) {
  return desc->precision == FP4MOE_PRECISION_NVFP4 && desc->input_global == FP4MOE_GLOBAL_EXPERT;
}

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

/* The batch by the C rows of a class, in a workspace of its own: the reference for measured err. */
fp4moe_status fp4moe_layer_forward_c(fp4moe_layer *layer, fp4moe_precision precision,
                                     const fp4moe_batch *batch);

/* Distinct names of the kernels that serve a call with these rows per expert [experts],
 * comma-separated; written like snprintf, returns the full size. */
size_t fp4moe_layer_kernel_names(const fp4moe_layer *layer, const uint32_t *expert_rows, char *buf,
                                 size_t cap);

#endif
