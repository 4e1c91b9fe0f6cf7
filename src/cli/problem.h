/* problem.h - the problem flags that bench and explain share: a shape, a class, calls. */
#ifndef FP4MOE_PROBLEM_H
#define FP4MOE_PROBLEM_H

#include "cli.h"
#include "plan.h"
#include "presets.h"
#include "routing.h"

enum { MAX_CALLS = 32 };

typedef struct problem {
  preset shape; /* a copy, or what the flags say */
  activation_flags activation;
  char name[96];
  fp4moe_precision precision;
  int any_precision; /* --op without --precision: every class */
  size_t tokens[MAX_CALLS], calls;
  size_t layers;                    /* --layers, 1 without */
  fp4moe_input_global input_global; /* class nvfp4 */
  size_t threads;                   /* 0 = the context's */
  size_t shards;                    /* 0 = as the context says */
  const char *kernels;              /* NULL = any */
  int batch_invariant;
  const char *op;           /* --op, NULL = a layer */
  const char *routing_word; /* --routing, NULL = as the router would */
  routing routing;
  const char *against; /* --against, NULL = none */
  int json;
} problem;

/* For usage texts. */
#define PROBLEM_USAGE                                                                              \
  "  --model PRESET       a model's shape: see the list below; or instead\n"                       \
  "    --hidden H --intermediate I --experts E --topk K --format mxfp4|nvfp4\n"                    \
  "    --activation NAME  silu (default), swiglu_oai, swiglustep, gelu, gelu_tanh, situ, relu2\n"  \
  "    --alpha A --beta B --limit L --linear-beta C --ungated   in place of its usual numbers\n"   \
  "    --biases --weight-on-input   projections have biases; x times router weight goes in\n"      \
  "  --precision P        f32, bf16, int8, mxfp8 (MXFP4) or nvfp4 (NVFP4)\n"                       \
  "  --input-global G     class nvfp4: layer (default), expert or token\n"                         \
  "  --tokens LIST        tokens of each call, such as 1,16,256\n"                                 \
  "  --threads N          default: one per allowed core\n"                                         \
  "  --kernel GLOB        constrain the kernels (comma-separated globs)\n"                         \
  "  --batch-invariant    only kernels of one summation order: bits do not depend on the batch\n"  \
  "  --json               JSON instead of text\n"                                                  \
  "  --help               this text\n"

/* Class nvfp4: random x and h are within 64, so that none is clamped, and blocks down to 64 / 28672
 * have a normal E4M3 for their scale. */
#define PROBLEM_INPUT_SCALE (64.0f / 2688)

/* Reads the flags. for_bench: --layers and what follows it are among them. --help prints `usage`
 * and the presets. */
void problem_parse(int argc, char **argv, const char *usage, int for_bench, problem *p);

fp4moe_layer_desc problem_desc(const problem *p);

static inline int problem_is_linear(const problem *p) {
  return (int)p->shape.activation.kind == FP4MOE_LINEAR;
}

/* A context as the flags have it, but for the kernels: NULL = any. */
fp4moe_context *problem_context(const problem *p, const char *kernels);

#endif
