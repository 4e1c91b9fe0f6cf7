/* check_class.c - the quantised classes: int8, mxfp8, and nvfp4 with each policy of its global.
 *
 * Generated layers against double precision with the same quantisers, the promises about bits and
 * about NaN, what is refused, and mutants: layers that quantise by a wrong rule, which the very
 * comparison that the right ones pass must fail. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fp4.h"
#include "layer_fixture.h"
#include "quant.h"

/* Those that quantise, of class_words. */
enum { FIRST = CLASS_INT8_MX, VARIANTS = CLASS_WORDS - FIRST };
static const class_word *const variants = class_words + FIRST;

static const fp4moe_activation activations[] = {{.kind = FP4MOE_SILU, .gated = 1},
                                                {FP4MOE_SWIGLU_OAI, 1, 1.702f, 1, 7},
                                                {.kind = FP4MOE_RELU2},
                                                {.kind = FP4MOE_SILU}};
enum { ACTIVATIONS = sizeof activations / sizeof *activations };

static fp4moe_layer_desc desc_of(const class_word *v, size_t hidden, size_t intermediate,
                                 size_t experts, int activation) {
  fp4moe_layer_desc d = class_desc(v, hidden, intermediate, experts);
  d.activation = activations[activation];
  return d;
}

/* ---- Against double precision ---- */

static void compare(const class_word *v, const fp4moe_layer_desc *d, fp4moe_context *ctx,
                    size_t tokens, size_t top_k) {
  random_layer *m = random_layer_new(d, 1, NULL);
  fp4moe_layer *layer = layer_of(m, ctx);
  problem p = draw(d, tokens, top_k, 1);
  fp4moe_batch b = batch_of(&p);
  CHECK(!run(layer, &b), "%s", fp4moe_error_detail());
  closeness c = error_of(m, &p);
  CHECK(is_close(c), "%s, %zux%zu, M %zu: rel_l2 %g, %zu ties of %zu", v->name, d->hidden,
        d->intermediate, tokens, c.rel_l2, c.ties, c.elements);
  fp4moe_layer_destroy(layer);
  drop(&p);
  random_layer_free(m);
}

static void against_double(void) {
  static const size_t mx[][2] = {{32, 32}, {96, 160}, {64, 288}, {352, 96}};
  static const size_t nv[][2] = {{16, 16}, {80, 48}, {112, 208}, {272, 80}};
  static const size_t tokens[] = {70, 1, 9, 2};
  fp4moe_context *ctx = context_of(2);
  for (int i = 0; i < VARIANTS; i++)
    for (int s = 0; s < 4; s++)
      for (int a = 0; a < ACTIVATIONS; a++) {
        const size_t *size = variants[i].format == FP4MOE_MXFP4 ? mx[s] : nv[s];
        fp4moe_layer_desc d = desc_of(&variants[i], size[0], size[1], 3, a);
        compare(&variants[i], &d, ctx, tokens[(s + a) % 4], 2);
        d.router_weight_on_input = 1;
        compare(&variants[i], &d, ctx, tokens[(s + a) % 4], 1);
      }
  fp4moe_context_destroy(ctx);
}

/* ---- Bits ---- */

/* The call in the least workspace, on `threads` threads. */
static void run_small(fp4moe_layer *layer, fp4moe_batch b, size_t threads) {
  fp4moe_limits l = {sizeof l, b.tokens, b.top_k, threads};
  size_t bytes = fp4moe_workspace_min_bytes(layer, &l);
  void *workspace = check_buffer(bytes, CHECK_AFTER);
  b.threads = threads;
  CHECK(!fp4moe_layer_forward(layer, &b, workspace, bytes), "%s", fp4moe_error_detail());
  CHECK_RELEASE();
}

static void same_bits(const class_word *v, size_t tokens) {
  fp4moe_context *ctx[2] = {context_of(7), context_with((fp4moe_context_desc){
                                               .max_threads = 7, .parallel_for = backwards})};
  fp4moe_layer_desc d = desc_of(v, 96, 224, 6, 0);
  random_layer *m = random_layer_new(&d, 1, NULL);
  problem p = draw(&d, tokens, 3, 1);
  size_t floats = tokens * p.hidden;
  float *want = NULL;
  for (int c = 0; c < 2; c++) {
    fp4moe_layer *layer = layer_of(m, ctx[c]);
    fp4moe_batch b = batch_of(&p);
    b.threads = 1;
    if (!c) want = outputs(layer, &b);
    for (; b.threads <= 7; b.threads++) gives(layer, &b, want, v->name);
    memset(p.y, 0xff, floats * sizeof *p.y);
    run_small(layer, b, 3);
    CHECK_SAME(p.y, want, floats, sizeof *want, "in the least workspace");
    fp4moe_layer_destroy(layer);
  }
  free(want);
  drop(&p);
  random_layer_free(m);
  fp4moe_context_destroy(ctx[0]);
  fp4moe_context_destroy(ctx[1]);
}

static void threads_and_pieces(void) {
  static const size_t tokens[] = {1, 7, 13, 90};
  for (int i = 0; i < VARIANTS; i++)
    for (int t = 0; t < 4; t++) same_bits(&variants[i], tokens[t]);
}

static void calls_in_three(void) {
  for (int i = 0; i < VARIANTS; i++) {
    fp4moe_layer_desc d = desc_of(&variants[i], 96, 64, 5, 0);
    fixture f = set_up(2, &d, 1, 23, 3, 1);
    fp4moe_batch b = batch_of(&f.p);
    CHECK(!run_in_three(f.layer, &b), "%s", fp4moe_error_detail());
    closeness c = error_of(f.m, &f.p);
    CHECK(is_close(c), "%s: rel_l2 %g, %zu ties", variants[i].name, c.rel_l2, c.ties);
    tear_down(&f);
  }
}

/* ---- NaN and infinities ---- */

/* All outputs of the token are NaN, and no other's. */
static void bad_token(const class_word *v, int activation, float bad, size_t tokens) {
  fp4moe_layer_desc d = desc_of(v, 64, 96, 3, activation);
  fixture f = set_up(2, &d, 0, tokens, 2, 0);
  fp4moe_batch b = batch_of(&f.p);
  size_t token = tokens / 2;
  f.p.x[token * 64 + 37] = bad;
  CHECK(!run(f.layer, &b), "%s", fp4moe_error_detail());
  for (size_t i = 0; i < tokens * 64; i++)
    CHECK(!isnan(f.p.y[i]) == (i / 64 != token), "%s, activation %d, x %g: y[%zu][%zu] %g", v->name,
          activation, (double)bad, i / 64, i % 64, (double)f.p.y[i]);
  tear_down(&f);
}

static void not_finite(void) {
  static const float bad[] = {NAN, INFINITY, -INFINITY};
  for (int i = 0; i < VARIANTS; i++)
    for (int a = 0; a < ACTIVATIONS; a++)
      for (int b = 0; b < 3; b++) bad_token(&variants[i], a, bad[b], b ? 40 : 3);
}

/* ---- Refusals ---- */

static void refused_descs(void) {
  fp4moe_context *ctx = context_of(1);
  fp4moe_layer *layer = NULL;
  fp4moe_layer_desc good = desc_of(&class_words[CLASS_NVFP4], 64, 96, 2, 0), d;
  good.input_scale_gate_up = good.input_scale_down = 1;
  d = good, d.format = FP4MOE_MXFP4;
  REFUSED(fp4moe_layer_begin(ctx, &d, &layer), FP4MOE_UNSUPPORTED, "NVFP4 with format MXFP4");
  d = desc_of(&class_words[CLASS_MXFP8], 64, 96, 2, 0), d.format = FP4MOE_NVFP4;
  REFUSED(fp4moe_layer_begin(ctx, &d, &layer), FP4MOE_UNSUPPORTED, "MXFP8 with format NVFP4");
  static const float bad[] = {0, -1, NAN, INFINITY, 0x1p-101f, 0x1p101f};
  for (int i = 0; i < 6; i++) {
    d = good, d.input_scale_gate_up = bad[i];
    REFUSED(fp4moe_layer_begin(ctx, &d, &layer), FP4MOE_INVALID, "input_scale_gate_up is");
    d = good, d.input_scale_down = bad[i];
    REFUSED(fp4moe_layer_begin(ctx, &d, &layer), FP4MOE_INVALID, "input_scale_down is");
  }
  d = good, d.input_global = (fp4moe_input_global)3;
  REFUSED(fp4moe_layer_begin(ctx, &d, &layer), FP4MOE_INVALID, "input_global is 3");
  d = good, d.input_global = FP4MOE_GLOBAL_TOKEN;
  REFUSED(fp4moe_layer_begin(ctx, &d, &layer), FP4MOE_INVALID, "with EXPERT or TOKEN has none");
  d = good, d.precision = FP4MOE_PRECISION_BF16;
  REFUSED(fp4moe_layer_begin(ctx, &d, &layer), FP4MOE_INVALID, "precision BF16 has none");
  CHECK(!fp4moe_explain(
            ctx, &good,
            &(fp4moe_problem){.struct_size = sizeof(fp4moe_problem), .tokens = 1, .top_k = 1}, NULL,
            0, NULL),
        "%s", fp4moe_error_detail());
  fp4moe_context_destroy(ctx);
}

static void refused_experts(void) {
  fp4moe_context *ctx = context_of(1);
  fp4moe_layer *layer = NULL;
  fp4moe_layer_desc d = desc_of(&class_words[CLASS_NVFP4_EXPERT], 64, 96, 1, 0);
  random_layer *m = random_layer_new(&d, 0, NULL);
  fp4moe_expert_weights w = random_layer_expert(m, 0);
  CHECK(!fp4moe_layer_begin(ctx, &d, &layer), "%s", fp4moe_error_detail());
  w.gate.input_scale = 0;
  REFUSED(fp4moe_layer_set_expert(layer, 0, &w), FP4MOE_INVALID, "gate.input_scale is 0");
  w = random_layer_expert(m, 0), w.down.input_scale = NAN;
  REFUSED(fp4moe_layer_set_expert(layer, 0, &w), FP4MOE_INVALID, "down.input_scale is");
  w = random_layer_expert(m, 0);
  CHECK(!fp4moe_layer_set_expert(layer, 0, &w), "%s", fp4moe_error_detail());
  float *globals = (float *)(uintptr_t)fp4moe_layer_globals(layer, 0);
  globals[FP4MOE_INPUT_SCALES + 1] = 0; /* as a record that was packed without */
  REFUSED(fp4moe_layer_finish(layer), FP4MOE_INVALID, "expert 0 has no input scale of down");
  fp4moe_layer_destroy(layer);
  random_layer_free(m);
  d = desc_of(&class_words[CLASS_INT8_NV], 64, 96, 1, 0); /* does not read them, does not mind */
  m = random_layer_new(&d, 0, NULL);
  w = random_layer_expert(m, 0), w.up.input_scale = NAN;
  CHECK(!fp4moe_layer_begin(ctx, &d, &layer) && !fp4moe_layer_set_expert(layer, 0, &w) &&
            !fp4moe_layer_finish(layer),
        "%s", fp4moe_error_detail());
  fp4moe_layer_destroy(layer);
  random_layer_free(m);
  fp4moe_context_destroy(ctx);
}

/* ---- Mutants ---- */

/* int8 with one scale for all columns that come at once, for x the whole token. */
static void quant_token(const void *x, fp4moe_dtype dtype, size_t k, void *row, size_t k0,
                        size_t row_k, float inverse) {
  const fp4_i8_row to = fp4_i8_row_at(row, row_k, k0);
  float top = 0;
  check_c_quant(FP4MOE_ACT_I8)->fn.quant(x, dtype, k, row, k0, row_k, inverse);
  for (size_t i = 0; i < k; i++) top = fmaxf(top, fabsf(fp4_load(x, dtype, i)));
  for (size_t at = 0; at < k; at += 32) {
    const size_t n = k - at < 32 ? k - at : 32;
    for (size_t i = 0; i < n; i++)
      to.q[at + i] = (int8_t)nearbyintf(fp4_load(x, dtype, at + i) / (top / 127));
    to.d[at / 32] = top / 127;
  }
}

/* How close a layer comes with its quantiser replaced. */
static closeness with_quantiser(const class_word *v, fp4moe_quant_fn *quant) {
  fp4moe_layer_desc d = desc_of(v, 96, 160, 3, 0);
  fixture f = set_up(2, &d, 0, 9, 2, 0);
  fp4moe_batch b = batch_of(&f.p);
  fp4moe_plan plan = *fp4moe_layer_plan(f.layer);
  fp4moe_kernel mutant = *plan.quant;
  if (quant) mutant.fn.quant = quant;
  plan.quant = &mutant;
  f.layer->plan = &plan;
  CHECK(!run(f.layer, &b), "%s", fp4moe_error_detail());
  closeness c = error_of(f.m, &f.p);
  tear_down(&f);
  return c;
}

/* GEMM 1 with the global of GEMM 2 and the other way round. */
static closeness with_swapped_globals(void) {
  fp4moe_layer_desc d = desc_of(&class_words[CLASS_NVFP4], 96, 160, 3, 0);
  fixture f = set_up(2, &d, 0, 9, 2, 0);
  fp4moe_batch b = batch_of(&f.p);
  random_layer swapped = *f.m;
  swapped.desc.input_scale_gate_up = f.m->desc.input_scale_down;
  swapped.desc.input_scale_down = f.m->desc.input_scale_gate_up;
  fp4moe_layer *layer = layer_of(&swapped, f.ctx);
  CHECK(!run(layer, &b), "%s", fp4moe_error_detail());
  closeness c = error_of(f.m, &f.p);
  fp4moe_layer_destroy(layer);
  tear_down(&f);
  return c;
}

static void mutants(void) {
  static const struct {
    int word;
    fp4moe_quant_fn *wrong;
  } cases[] = {{CLASS_INT8_MX, quant_token}, {CLASS_MXFP8, quant_floor}};
  for (int i = 0; i < 2; i++) {
    const class_word *w = &class_words[cases[i].word];
    closeness c = with_quantiser(w, NULL);
    CHECK(is_close(c), "%s: rel_l2 %g", w->name, c.rel_l2);
    c = with_quantiser(w, cases[i].wrong);
    CHECK(c.rel_l2 > 5e-4, "%s: a mutant with rel_l2 %g", w->name, c.rel_l2);
  }
  closeness c = with_swapped_globals();
  CHECK(c.rel_l2 > 3e-3, "nvfp4: swapped globals with rel_l2 %g", c.rel_l2);
}

void check_class(void) {
  CU_pSuite s = check_suite("class");
  check_test(s, "classes against double precision", against_double);
  check_test(s, "same bits for threads and pieces", threads_and_pieces);
  check_test(s, "classes in three calls", calls_in_three);
  check_test(s, "NaN and Inf stay in their token", not_finite);
  check_test(s, "refused classes", refused_descs);
  check_test(s, "refused input scales", refused_experts);
  check_test(s, "mutants of quantisers", mutants);
}
