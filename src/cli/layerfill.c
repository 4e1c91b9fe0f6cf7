/* layerfill.c - random experts (layerfill.h): every code byte is as likely, block scales vary over
 * some octaves around the one that keeps a sum over K near 1. Experts are drawn and packed by
 * several threads, each with one expert in memory; an expert's bytes depend on the layer's seed and
 * its own number alone. */
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "layer.h"
#include "layerfill.h"

#define PROJECTIONS 3 /* gate, up, down */

typedef struct filling {
  const library *lib;
  const problem *problem;
  fp4moe_layer *layer;
  uint64_t seed;
  atomic_size_t next, failed; /* experts; experts that failed */
  fp4moe_status status;       /* of the first that failed, with its detail */
  char detail[256];
} filling;

void random_scales(measure_rng *rng, fp4moe_format format, size_t k, uint8_t *scales, size_t n) {
  int centre = 127 - (int)lround(log2(3 * sqrt((double)k)));
  measure_random_bytes(rng, scales, n);
  for (size_t i = 0; i < n; i++)
    scales[i] = (uint8_t)(format == FP4MOE_MXFP4 ? centre - 2 + scales[i] % 4 /* 2^-2 .. 2^1 */
                                                 : 0x28 + scales[i] % 32);    /* 1/4 .. 3.75 */
}

/* One thread's copy of a projection [n][k], drawn anew for every expert. */
typedef struct buffer {
  size_t n, k, code_bytes, scale_bytes;
  uint8_t *codes, *scales;
  uint16_t *bias; /* NULL: none */
} buffer;

static buffer make_buffer(const preset *s, size_t n, size_t k) {
  buffer b = {.n = n, .k = k, .code_bytes = n * (k / 2)};
  b.scale_bytes = n * (k / fp4_group(s->format));
  b.codes = allocate(b.code_bytes, 1);
  b.scales = allocate(b.scale_bytes, 1);
  b.bias = s->biases ? allocate(n, sizeof *b.bias) : NULL;
  return b;
}

static fp4moe_projection draw(measure_rng *rng, const problem *p, const buffer *b) {
  const preset *s = &p->shape;
  measure_random_bytes(rng, b->codes, b->code_bytes);
  random_scales(rng, s->format, b->k, b->scales, b->scale_bytes);
  if (b->bias) measure_random_bf16(rng, b->bias, b->n);
  return (fp4moe_projection){
      .codes = b->codes,
      .scales = b->scales,
      .global = s->format == FP4MOE_MXFP4 ? 1 : 1 / (5 * sqrtf((float)b->k)),
      .bias = b->bias,
      .bias_dtype = FP4MOE_BF16,
      .input_scale = p->input_global == FP4MOE_GLOBAL_EXPERT ? PROBLEM_INPUT_SCALE : 0,
  };
}

static void set_expert(filling *f, size_t e, const buffer b[PROJECTIONS]) {
  const problem *p = f->problem;
  int linear = problem_is_linear(p);
  measure_rng rng = {f->seed << 32 | e};
  fp4moe_expert_weights w = {.struct_size = sizeof w};
  if (p->shape.activation.gated) w.gate = draw(&rng, p, &b[0]);
  if (!linear) w.up = draw(&rng, p, &b[1]);
  w.down = draw(&rng, p, &b[2]);
  fp4moe_status status =
      linear ? f->lib->linear_set_expert((fp4moe_linear *)(void *)f->layer, e, &w.down)
             : f->lib->layer_set_expert(f->layer, e, &w);
  if (!status || atomic_fetch_add(&f->failed, 1)) return;
  f->status = status;
  snprintf(f->detail, sizeof f->detail, "%s", f->lib->error_detail());
}

static void fill(void *arg, size_t thread) {
  filling *f = arg;
  const preset *s = &f->problem->shape;
  size_t first_n = problem_is_linear(f->problem) ? 0 : s->intermediate;
  buffer b[PROJECTIONS] = {make_buffer(s, first_n, s->hidden), make_buffer(s, first_n, s->hidden),
                           make_buffer(s, s->hidden, s->intermediate)};
  for (size_t e; (e = atomic_fetch_add(&f->next, 1)) < s->experts && !f->failed;) {
    set_expert(f, e, b);
    if (!thread) progress("packing random experts", e, s->experts);
  }
  for (int i = 0; i < PROJECTIONS; i++) {
    free(b[i].codes);
    free(b[i].scales);
    free(b[i].bias);
  }
}

static fp4moe_status begin(const library *lib, fp4moe_context *context, const problem *p,
                           fp4moe_layer **layer) {
  fp4moe_layer_desc d = problem_desc(p);
  if (!problem_is_linear(p)) return lib->layer_begin(context, &d, layer);
  fp4moe_linear_desc desc = {.struct_size = sizeof desc,
                             .n = d.hidden,
                             .k = d.intermediate,
                             .experts = d.experts,
                             .format = d.format,
                             .precision = d.precision,
                             .input_global = d.input_global,
                             .input_scale = d.input_scale_down};
  fp4moe_linear *linear = NULL;
  fp4moe_status status = lib->linear_begin(context, &desc, &linear);
  *layer = (fp4moe_layer *)(void *)linear;
  return status;
}

static fp4moe_status finish(const filling *f) {
  return problem_is_linear(f->problem) ? f->lib->linear_finish((fp4moe_linear *)(void *)f->layer)
                                       : f->lib->layer_finish(f->layer);
}

fp4moe_layer *random_layer_of(const library *lib, fp4moe_context *context, const problem *p,
                              uint64_t seed) {
  filling f = {.lib = lib, .problem = p, .seed = seed};
  size_t threads = lib->context_threads(context);
  fp4moe_pool *pool = fp4moe_pool_create(threads, NULL, 1);
  if (!pool) die("no memory for threads");
  library_require(lib, begin(lib, context, p, &f.layer), p->name);
  fp4moe_pool_run(pool, threads, fill, &f);
  fp4moe_pool_destroy(pool);
  if (f.failed)
    die("%s: %s: %s", lib->path ? lib->path : p->name, lib->status_name(f.status), f.detail);
  library_require(lib, finish(&f), p->name);
  return f.layer;
}

fp4moe_layer *random_layer(fp4moe_context *context, const problem *p, uint64_t seed) {
  return random_layer_of(&own_library, context, p, seed);
}
