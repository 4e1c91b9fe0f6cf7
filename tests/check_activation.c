/* check_activation.c - each activation as part of a layer: behind every matmul kernel and in every
 * class against double precision, and that a wrong one would be seen.
 *
 * The mutants test the tests: the reference gets one thing wrong, such as gate for up, and must
 * then be farther from the layer than its class admits. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "activation.h"
#include "check.h"
#include "oracle.h"
#include "random_layer.h"

/* Against a reference with the same quantisers (see check_layer.c). */
static const double class_bound[] = {
    [FP4MOE_PRECISION_F32] = 1e-5, [FP4MOE_PRECISION_BF16] = 1e-3, [FP4MOE_PRECISION_INT8] = 2e-3};

/* Tokens x, one expert each, and their result y. */
typedef struct {
  size_t tokens;
  float *x, *y, *weights;
  int32_t *ids;
} call;

static call draw(const fp4moe_layer_desc *d, size_t tokens) {
  const size_t n = tokens * d->hidden;
  call c = {tokens, malloc(n * sizeof *c.x), malloc(n * sizeof *c.y),
            malloc(tokens * sizeof *c.weights), malloc(tokens * sizeof *c.ids)};
  for (size_t i = 0; i < n; i++) c.x[i] = check_uniform(-1, 1);
  for (size_t i = 0; i < tokens; i++) {
    c.weights[i] = check_uniform(0.1f, 1);
    c.ids[i] = (int32_t)check_below(d->experts);
  }
  return c;
}

static void drop(call *c) {
  free(c->x);
  free(c->y);
  free(c->weights);
  free(c->ids);
}

/* row: the call must use it; NULL: any. */
static void forward(const random_layer *m, fp4moe_context *ctx, const fp4moe_kernel *row, call *c) {
  fp4moe_batch b = {.struct_size = sizeof b,
                    .tokens = c->tokens,
                    .top_k = 1,
                    .x = c->x,
                    .x_dtype = FP4MOE_F32,
                    .y = c->y,
                    .y_dtype = FP4MOE_F32,
                    .topk_ids = c->ids,
                    .ids_dtype = FP4MOE_I32,
                    .topk_weights = c->weights};
  fp4moe_limits limits = {sizeof limits, c->tokens, 1, 0};
  fp4moe_layer *layer = NULL;
  if (!CHECK(!random_layer_open(m, ctx, &layer), "%s", fp4moe_error_detail())) return;
  size_t bytes = fp4moe_workspace_bytes(layer, &limits);
  void *workspace = malloc(bytes);
  CHECK(!fp4moe_layer_forward(layer, &b, workspace, bytes), "%s", fp4moe_error_detail());
  free(workspace);
  const uint32_t rows = (uint32_t)c->tokens;
  char names[1024];
  fp4moe_layer_kernel_names(layer, &rows, names, sizeof names);
  CHECK(!row || strstr(names, row->name), "ran with %s", names);
  fp4moe_layer_destroy(layer);
}

/* How far the result is from the reference with this fault. */
static double error_of(random_layer *m, const call *c, random_fault fault) {
  double *want = malloc(c->tokens * m->desc.hidden * sizeof *want);
  m->fault = fault;
  random_layer_forward(m, c->tokens, 1, c->x, c->ids, c->weights, want);
  double err = rel_l2(c->tokens * m->desc.hidden, c->y, want);
  free(want);
  return err;
}

/* ---- Every kind behind every matmul kernel ---- */

static const fp4moe_activation kinds[] = {
    {FP4MOE_SILU, 1, 0, 0, 0, 0},      {FP4MOE_SILU, 1, 0, 0, 0.5f, 0},
    {FP4MOE_SILU, 0, 0, 0, 0, 0},      {FP4MOE_SWIGLU_OAI, 1, 1.702f, 1, 0.5f, 0},
    {FP4MOE_RELU2, 0, 0, 0, 0, 0},     {FP4MOE_SWIGLUSTEP, 1, 0, 0, 0.5f, 0},
    {FP4MOE_GELU, 1, 0, 0, 0, 0},      {FP4MOE_GELU, 0, 0, 0, 0, 0},
    {FP4MOE_GELU_TANH, 1, 0, 0, 0, 0}, {FP4MOE_GELU_TANH, 0, 0, 0, 0, 0},
    {FP4MOE_SITU, 1, 0, 0.5f, 0, 0},   {FP4MOE_SITU, 1, 0, 4, 0, 25},
};

/* Does the row take part in layers of this format and class? */
static int serves(const fp4moe_kernel *row, int format, int precision) {
  return (row->format == FP4MOE_ANY || row->format == format) &&
         row->act == (int)fp4moe_act_class_of((fp4moe_precision)precision);
}

static void compare(const fp4moe_kernel *row, fp4moe_context *ctx, const fp4moe_layer_desc *d) {
  random_layer *m = random_layer_new(d, 1, NULL);
  call c = draw(d, row->op == FP4MOE_OP_GEMM ? 40 : 3); /* 17 rows and more are a gemm's */
  forward(m, ctx, row, &c);
  double err = error_of(m, &c, FAULT_NONE);
  CHECK(err <= class_bound[d->precision], "format %d, class %d, kind %d gated %d: rel_l2 %g",
        (int)d->format, (int)d->precision, (int)d->activation.kind, d->activation.gated, err);
  drop(&c);
  random_layer_free(m);
}

static void test_matmul(const fp4moe_kernel *row) {
  char globs[256]; /* a gemm in C is taken beside no other gemv than one in C */
  snprintf(globs, sizeof globs, "%s%s", row->name,
           row->isa == FP4MOE_ISA_c && row->op == FP4MOE_OP_GEMM ? ",fp4moe_gemv_*_c" : "");
  fp4moe_context_desc cd = {.struct_size = sizeof cd, .kernels = globs, .max_threads = 1};
  fp4moe_context *ctx = NULL;
  if (!CHECK(!fp4moe_context_create(&cd, &ctx), "%s", fp4moe_error_detail())) return;
  for (int format = 0; format < 2; format++)
    for (int precision = 0; precision <= FP4MOE_PRECISION_INT8; precision++) {
      if (!serves(row, format, precision)) continue;
      for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        fp4moe_layer_desc d = {.struct_size = sizeof d,
                               .hidden = 64,
                               .intermediate = 96,
                               .experts = 1, /* all tokens are rows of one matmul */
                               .format = (fp4moe_format)format,
                               .precision = (fp4moe_precision)precision,
                               .activation = kinds[k]};
        compare(row, ctx, &d);
      }
    }
  fp4moe_context_destroy(ctx);
}

/* ---- Mutants ---- */

static const struct mutant {
  random_fault fault;
  fp4moe_activation activation;
} mutants[] = {
    {FAULT_SWAPPED, {FP4MOE_SILU, 1, 0, 0, 0, 0}},
    {FAULT_SWAPPED, {FP4MOE_SWIGLU_OAI, 1, 1.702f, 1, 7, 0}},
    {FAULT_SWAPPED, {FP4MOE_SWIGLUSTEP, 1, 0, 0, 0.5f, 0}},
    {FAULT_SWAPPED, {FP4MOE_GELU, 1, 0, 0, 0, 0}},
    {FAULT_SWAPPED, {FP4MOE_GELU_TANH, 1, 0, 0, 0, 0}},
    {FAULT_SWAPPED, {FP4MOE_SITU, 1, 0, 4, 0, 25}},
    {FAULT_CLAMPED_FIRST, {FP4MOE_SWIGLUSTEP, 1, 0, 0, 0.5f, 0}},
    {FAULT_CLAMPED_FIRST, {FP4MOE_SILU, 1, 0, 0, 0.5f, 0}},
    {FAULT_BOTH_SIDES, {FP4MOE_SILU, 1, 0, 0, 0.5f, 0}},
    {FAULT_BOTH_SIDES, {FP4MOE_SWIGLU_OAI, 1, 1.702f, 1, 0.5f, 0}},
    {FAULT_BOTH_SIDES, {FP4MOE_SWIGLUSTEP, 1, 0, 0, 0.5f, 0}},
    {FAULT_NO_LIMIT, {FP4MOE_SILU, 1, 0, 0, 0.5f, 0}},
    {FAULT_NO_LIMIT, {FP4MOE_SWIGLU_OAI, 1, 1.702f, 1, 0.5f, 0}},
    {FAULT_NO_LIMIT, {FP4MOE_SWIGLUSTEP, 1, 0, 0, 0.5f, 0}},
    {FAULT_NO_ALPHA, {FP4MOE_SWIGLU_OAI, 1, 1.702f, 1, 7, 0}},
    {FAULT_NO_BETA, {FP4MOE_SWIGLU_OAI, 1, 1.702f, 1, 7, 0}},
    {FAULT_NO_BETA, {FP4MOE_SITU, 1, 0, 0.5f, 0, 0}},
    {FAULT_NO_LINEAR_BETA, {FP4MOE_SITU, 1, 0, 4, 0, 0.5f}},
    {FAULT_OTHER_GELU, {FP4MOE_GELU, 1, 0, 0, 0, 0}},
    {FAULT_OTHER_GELU, {FP4MOE_GELU_TANH, 1, 0, 0, 0, 0}},
    {FAULT_OTHER_GELU, {FP4MOE_GELU, 0, 0, 0, 0, 0}},
    {FAULT_OTHER_GELU, {FP4MOE_GELU_TANH, 0, 0, 0, 0, 0}},
    {FAULT_GATED, {FP4MOE_SILU, 0, 0, 0, 0, 0}},
    {FAULT_GATED, {FP4MOE_RELU2, 0, 0, 0, 0, 0}},
};

static void check_mutant(const struct mutant *x, fp4moe_context *ctx, fp4moe_precision precision) {
  fp4moe_layer_desc d = {.struct_size = sizeof d,
                         .hidden = 96,
                         .intermediate = 64,
                         .experts = 2,
                         .format = FP4MOE_NVFP4,
                         .precision = precision,
                         .activation = x->activation};
  random_layer *m = random_layer_new(&d, 1, NULL);
  call c = draw(&d, 4);
  forward(m, ctx, NULL, &c);
  double right = error_of(m, &c, FAULT_NONE), wrong = error_of(m, &c, x->fault);
  CHECK(right <= class_bound[precision] && wrong > 2 * class_bound[precision],
        "fault %d, kind %d gated %d, class %d: rel_l2 %g with it, %g without", (int)x->fault,
        (int)x->activation.kind, x->activation.gated, (int)precision, wrong, right);
  drop(&c);
  random_layer_free(m);
}

static void test_mutants(void) {
  fp4moe_context_desc cd = {.struct_size = sizeof cd, .max_threads = 1};
  fp4moe_context *ctx = NULL;
  CHECK(!fp4moe_context_create(&cd, &ctx), "%s", fp4moe_error_detail());
  for (size_t i = 0; i < sizeof mutants / sizeof *mutants; i++)
    for (int precision = 0; precision <= FP4MOE_PRECISION_INT8; precision++)
      /* The two gelus are so close that only class f32 tells them apart. */
      if (mutants[i].fault != FAULT_OTHER_GELU || precision == FP4MOE_PRECISION_F32)
        check_mutant(&mutants[i], ctx, (fp4moe_precision)precision);
  fp4moe_context_destroy(ctx);
}

/* ---- Fields ---- */

static void test_fields(void) {
  static const struct {
    fp4moe_activation activation;
    fp4moe_status status;
    const char *says;
  } cases[] = {
      {{FP4MOE_ACTIVATION_UNKNOWN, 1, 0, 0, 0, 0}, FP4MOE_UNSUPPORTED, "activation.kind is -1"},
      {{(fp4moe_activation_kind)7, 1, 0, 0, 0, 0}, FP4MOE_UNSUPPORTED, "activation.kind is 7"},
      {{FP4MOE_SILU, 2, 0, 0, 0, 0}, FP4MOE_UNSUPPORTED, "activation.gated is 2"},
      {{FP4MOE_RELU2, 1, 0, 0, 0, 0}, FP4MOE_UNSUPPORTED, "activation.gated is 1"},
      {{FP4MOE_SWIGLU_OAI, 0, 1, 1, 7, 0}, FP4MOE_UNSUPPORTED, "activation.gated is 0"},
      {{FP4MOE_SWIGLUSTEP, 0, 0, 0, 7, 0}, FP4MOE_UNSUPPORTED, "activation.gated is 0"},
      {{FP4MOE_SITU, 0, 0, 4, 0, 25}, FP4MOE_UNSUPPORTED, "activation.gated is 0"},
      {{FP4MOE_SILU, 1, 1, 0, 0, 0}, FP4MOE_INVALID, "activation.alpha is 1, but silu needs 0"},
      {{FP4MOE_SILU, 1, 0, 0, -1, 0}, FP4MOE_INVALID, "activation.limit is -1"},
      {{FP4MOE_SILU, 1, 0, 0, INFINITY, 0}, FP4MOE_INVALID, "activation.limit is inf"},
      {{FP4MOE_SILU, 0, 0, 0, 7, 0}, FP4MOE_INVALID, "activation.limit is 7, but silu ungated"},
      {{FP4MOE_SWIGLU_OAI, 1, 0, 1, 7, 0}, FP4MOE_INVALID, "activation.alpha is 0"},
      {{FP4MOE_SWIGLU_OAI, 1, 1, NAN, 7, 0}, FP4MOE_INVALID, "activation.beta is"},
      {{FP4MOE_SWIGLU_OAI, 1, 1, 1, 7, 1}, FP4MOE_INVALID, "activation.linear_beta is 1"},
      {{FP4MOE_SWIGLUSTEP, 1, 0, 0, 0, 0}, FP4MOE_INVALID, "activation.limit is 0"},
      {{FP4MOE_GELU, 1, 0, 0, 7, 0}, FP4MOE_INVALID, "activation.limit is 7, but gelu"},
      {{FP4MOE_GELU_TANH, 1, 0, 1, 0, 0}, FP4MOE_INVALID, "activation.beta is 1"},
      {{FP4MOE_SITU, 1, 0, 0, 0, 25}, FP4MOE_INVALID, "activation.beta is 0"},
      {{FP4MOE_SITU, 1, 0, 4, 7, 25}, FP4MOE_INVALID, "activation.limit is 7"},
      {{FP4MOE_SITU, 1, 0, 4, 0, -1}, FP4MOE_INVALID, "activation.linear_beta is -1"},
      {{FP4MOE_RELU2, 0, 0, 0, 0, 2}, FP4MOE_INVALID, "activation.linear_beta is 2, but relu2"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    fp4moe_status status = fp4moe_activation_check(&cases[i].activation);
    CHECK(status == cases[i].status && strstr(fp4moe_error_detail(), cases[i].says),
          "%s: \"%s\", expected \"%s\"", fp4moe_status_name(status), fp4moe_error_detail(),
          cases[i].says);
  }
}

void check_activation(void) {
  CU_pSuite suite = check_suite("activation");
  check_test(suite, "fields", test_fields);
  check_test(suite, "mutants", test_mutants);
  check_rows(suite, "layer with", FP4MOE_OP_GEMV, test_matmul);
  check_rows(suite, "layer with", FP4MOE_OP_GEMM, test_matmul);
}
