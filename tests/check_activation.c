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
#include "layer_call.h"
#include "oracle.h"

/* Tokens with one expert each; x is not rounded to anything. */
static problem draw_tokens(const fp4moe_layer_desc *d, size_t tokens) {
  problem p = draw(d, tokens, 1, 0);
  for (size_t i = 0; i < tokens * d->hidden; i++) p.x[i] = check_uniform(-1, 1);
  return p;
}

/* row: the call must use it; NULL: any. */
static void forward(const random_layer *m, fp4moe_context *ctx, const fp4moe_kernel *row,
                    problem *p) {
  const fp4moe_batch b = batch_of(p);
  fp4moe_layer *layer = layer_of(m, ctx);
  if (!layer) return;
  CHECK(!run(layer, &b), "%s", fp4moe_error_detail());
  char names[1024];
  uint32_t *rows = calloc(m->desc.experts, sizeof *rows);
  for (size_t t = 0; t < p->tokens; t++) rows[p->ids[t]]++;
  fp4moe_layer_kernel_names(layer, rows, names, sizeof names);
  free(rows);
  CHECK(!row || strstr(names, row->name), "ran with %s", names);
  fp4moe_layer_destroy(layer);
}

/* How far the result is from the reference with this fault. */
static closeness error_with(random_layer *m, const problem *p, random_fault fault) {
  m->fault = fault;
  return error_of(m, p);
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

/* Does the row take part in layers of this class? */
static int serves(const fp4moe_kernel *row, const class_word *w) {
  return (row->format == FP4MOE_ANY || row->format == (int)w->format) &&
         row->act == (int)fp4moe_act_class_of(w->precision);
}

static void compare(const fp4moe_kernel *row, fp4moe_context *ctx, const fp4moe_layer_desc *d,
                    const char *class) {
  random_layer *m = random_layer_new(d, 1, NULL);
  problem p = draw_tokens(d, row->op == FP4MOE_OP_GEMM ? 40 : 3); /* 17 rows and more: a gemm's */
  forward(m, ctx, row, &p);
  closeness c = error_with(m, &p, FAULT_NONE);
  CHECK(is_close(c), "%s, kind %d gated %d: rel_l2 %g, %zu ties of %zu", class,
        (int)d->activation.kind, d->activation.gated, c.rel_l2, c.ties, c.elements);
  drop(&p);
  random_layer_free(m);
}

static void test_matmul(const fp4moe_kernel *row) {
  char globs[256]; /* a gemm in C is taken beside no other gemv than one in C */
  snprintf(globs, sizeof globs, "%s%s", row->name,
           row->isa == FP4MOE_ISA_c && row->op == FP4MOE_OP_GEMM ? ",fp4moe_gemv_*_c" : "");
  fp4moe_context *ctx = context_with((fp4moe_context_desc){.kernels = globs, .max_threads = 1});
  if (!ctx) return;
  for (const class_word *w = class_words; w < class_words + CLASS_WORDS; w++)
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds && serves(row, w); k++) {
      fp4moe_layer_desc d = class_desc(w, 64, 96, 1); /* all tokens are rows of one matmul */
      d.activation = kinds[k];
      compare(row, ctx, &d, w->name);
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

static void check_mutant(const struct mutant *x, fp4moe_context *ctx, const class_word *w) {
  const double least = w->precision == FP4MOE_PRECISION_F32 ? 2e-5 : 4e-3;
  fp4moe_layer_desc d = class_desc(w, 96, 64, 2);
  d.activation = x->activation;
  random_layer *m = random_layer_new(&d, 1, NULL);
  problem p = draw_tokens(&d, 16);
  forward(m, ctx, NULL, &p);
  closeness right = error_with(m, &p, FAULT_NONE), wrong = error_with(m, &p, x->fault);
  CHECK(is_close(right) && wrong.rel_l2 > least,
        "fault %d, kind %d gated %d, %s: rel_l2 %g with it, %g without, %zu ties", (int)x->fault,
        (int)x->activation.kind, x->activation.gated, w->name, wrong.rel_l2, right.rel_l2,
        right.ties);
  drop(&p);
  random_layer_free(m);
}

static void test_mutants(void) {
  fp4moe_context *ctx = context_of(1);
  for (size_t i = 0; i < sizeof mutants / sizeof *mutants; i++)
    for (const class_word *w = class_words; w < class_words + CLASS_WORDS; w++)
      /* The two gelus are so close that only class f32 tells them apart. */
      if (mutants[i].fault != FAULT_OTHER_GELU || w->precision == FP4MOE_PRECISION_F32)
        check_mutant(&mutants[i], ctx, w);
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
