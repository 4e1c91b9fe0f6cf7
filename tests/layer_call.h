/* layer_call.h - random layers in contexts, and random calls of them with their buffers: what tests
 * of layers share. */
#ifndef FP4MOE_LAYER_CALL_H
#define FP4MOE_LAYER_CALL_H

#include "check.h"
#include "random_layer.h"

typedef struct problem {
  size_t tokens, top_k, hidden;
  float *x, *y, *weights; /* x has values of BF16 */
  int32_t *ids;
} problem;

/* with_gaps: a quarter of the ids are -1. */
problem draw(const fp4moe_layer_desc *d, size_t tokens, size_t top_k, int with_gaps);
void drop(problem *p);

fp4moe_batch batch_of(const problem *p);

/* How far the call's y is from what double precision makes of these weights. */
closeness error_of(const random_layer *m, const problem *p);

/* Every class with each of its formats and policies, by name. */
typedef struct class_word {
  const char *name;
  fp4moe_format format;
  fp4moe_precision precision;
  fp4moe_input_global input_global;
} class_word;
enum {
  CLASS_F32_MX,
  CLASS_F32_NV,
  CLASS_BF16_MX,
  CLASS_BF16_NV,
  CLASS_INT8_MX,
  CLASS_INT8_NV,
  CLASS_MXFP8,
  CLASS_NVFP4, /* the layer's global */
  CLASS_NVFP4_EXPERT,
  CLASS_NVFP4_TOKEN,
  CLASS_WORDS
};
extern const class_word class_words[CLASS_WORDS];

/* A layer of the class: silu, gated. */
fp4moe_layer_desc class_desc(const class_word *w, size_t hidden, size_t intermediate,
                             size_t experts);

/* Within the bound of all classes: FP32 sums, and no more ties than chance has. */
int is_close(closeness c);

/* ---- Contexts and layers: what cannot be had fails the test ---- */

fp4moe_context *context_of(size_t threads);          /* 0: as many as the machine has */
fp4moe_context *context_with(fp4moe_context_desc d); /* struct_size is set */

/* The same weights as a layer of the context, finished. */
fp4moe_layer *layer_of(const random_layer *m, fp4moe_context *ctx);

/* A linear of these matrices [d.experts], finished; struct_size is set. */
fp4moe_linear *linear_of(fp4moe_context *ctx, fp4moe_linear_desc d, const fp4moe_projection *w);

/* y [rows][N] from x [rows][K] by a linear of one matrix. */
fp4moe_status run_rows(fp4moe_linear *linear, size_t rows, const float *x, float *y);

/* One call in a workspace of its own, whose contents are rubbish. */
fp4moe_status run(fp4moe_layer *layer, const fp4moe_batch *b);

/* mxfp8 by the floor rule, a wrong one: 2^floor(log2(amax)) stands at 256, and what is above 448
 * saturates. For mutants. */
fp4moe_quant_fn quant_floor;

/* A provider of threads that has one, and does what comes last first. */
fp4moe_parallel_for backwards;

/* The whole records [E][shape.bytes] of a layer, whatever its shards; freed by the caller. */
uint8_t *whole_records(const fp4moe_layer *layer);

/* The call fails with this status, and a detail that has the text. */
#define REFUSED(call, status, text)                                                                \
  do {                                                                                             \
    fp4moe_status got = (call);                                                                    \
    CHECK(got == (status) && strstr(fp4moe_error_detail(), text),                                  \
          "%s: %s: \"%s\", expected %s "                                                           \
          "with \"%s\"",                                                                           \
          #call, fp4moe_status_name(got), fp4moe_error_detail(), fp4moe_status_name(status),       \
          text);                                                                                   \
  } while (0)

#endif
