/* check_io_class.c - layers of real formats in the quantised classes, and their input scales.
 *
 * Outputs are compared with those of independent code that has the same quantisers (y_mxfp8,
 * y_w4a4), and every layer in every class that takes it with double precision. Mutants of both
 * comparisons must fail them. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check_io.h"
#include "fp4.h"
#include "quant.h"

enum { MX = 1, NV = 2, SCALES = 4 };

static const struct sample {
  const char *file, *io;
  int has;
} samples[] = {
    {"gptoss_mxfp4", "gptoss_mxfp4.io", MX},
    {"gptoss_mxfp4", "gptoss_mxfp4.ep.io", MX},
    {"dsv4_mxfp4", "dsv4_mxfp4.io", MX},
    {"qwen3_nvfp4_modelopt", "qwen3_nvfp4.io", NV | SCALES},
    {"qwen3_nvfp4_modelopt", "qwen3_nvfp4.ep.io", NV | SCALES},
    {"qwen3_nvfp4_ct", "qwen3_nvfp4.io", NV | SCALES},
    {"qwen3_w4a16_modelopt", "qwen3_nvfp4.io", NV},
    {"nemotron_nvfp4_modelopt", "nemotron_nvfp4.io", NV | SCALES},
    {"llama4_nvfp4_modelopt", "llama4_nvfp4.io", NV | SCALES},
    {"gemma4_nvfp4_modelopt", "gemma4_nvfp4.io", NV | SCALES},
};
enum { SAMPLES = sizeof samples / sizeof *samples };

static const struct variant {
  const char *name;
  fp4moe_precision precision;
  fp4moe_input_global input_global;
  int needs;
  const char *reference; /* NULL: no file has one */
} variants[] = {
    {"int8", FP4MOE_PRECISION_INT8, FP4MOE_GLOBAL_LAYER, 0, NULL},
    {"mxfp8", FP4MOE_PRECISION_MXFP8, FP4MOE_GLOBAL_LAYER, MX, "y_mxfp8"},
    {"nvfp4", FP4MOE_PRECISION_NVFP4, FP4MOE_GLOBAL_LAYER, NV | SCALES, "y_w4a4"},
    {"nvfp4 expert", FP4MOE_PRECISION_NVFP4, FP4MOE_GLOBAL_EXPERT, NV | SCALES, NULL},
    {"nvfp4 token", FP4MOE_PRECISION_NVFP4, FP4MOE_GLOBAL_TOKEN, NV, NULL},
};
enum { VARIANTS = sizeof variants / sizeof *variants, MXFP8 = 1, NVFP4 = 2 };

/* Off a file's reference, which is double: both quantise alike, as no element of these files is so
 * near a rounding tie that FP32 takes it to the other side, and what is left is FP32 sums of up to
 * 128 products. All rows are 4e-8 to 6e-8 off. */
static const double off_file = 1e-6;

/* ---- Inputs ---- */

/* NULL: the file has none. */
static const fp4moe_tensor_data *find(const bundle *io, const char *name) {
  for (size_t i = 0; i < io->n; i++)
    if (!strcmp(io->list[i].name, name)) return &io->list[i];
  return NULL;
}

/* The file's tokens, repeated to `tokens`; 0: as they are. */
static problem problem_of(bundle *io, size_t tokens) {
  fp4moe_batch b = io_batch(io, tokens);
  problem p = {.tokens = b.tokens, .top_k = b.top_k, .hidden = bundle_find(io, "x")->shape[1]};
  p.x = malloc(p.tokens * p.hidden * sizeof *p.x);
  p.y = malloc(p.tokens * p.hidden * sizeof *p.y);
  for (size_t i = 0; i < p.tokens * p.hidden; i++) p.x[i] = fp4_load(b.x, b.x_dtype, i);
  p.weights = (float *)(uintptr_t)b.topk_weights;
  p.ids = (int32_t *)(uintptr_t)b.topk_ids;
  free((void *)(uintptr_t)b.x);
  return p;
}

static fp4moe_layer_desc desc_of(const fp4moe_checkpoint *ckpt, const struct variant *v) {
  fp4moe_layer_desc d = fp4moe_checkpoint_at(ckpt, 0)->desc;
  d.precision = v->precision;
  d.input_global = v->input_global;
  return d;
}

static fp4moe_layer *load(const char *file, const struct variant *v, fp4moe_context *ctx) {
  fp4moe_checkpoint *ckpt = io_open_checkpoint(io_data_path(file));
  fp4moe_layer_desc d = desc_of(ckpt, v);
  fp4moe_layer *layer = NULL;
  CHECK(!fp4moe_checkpoint_load_layer(ckpt, 0, ctx, &d, &layer), "%s", fp4moe_error_detail());
  fp4moe_checkpoint_close(ckpt);
  return layer;
}

/* ---- References ---- */

static void check_call(const struct sample *s, const struct variant *v, fp4moe_layer *layer,
                       bundle *io, size_t tokens) {
  const fp4moe_tensor_data *y = v->reference ? find(io, v->reference) : NULL;
  problem p = problem_of(io, tokens);
  size_t floats = p.tokens * p.hidden;
  float *want = malloc(floats * sizeof *want);
  fp4moe_batch b = batch_of(&p);
  for (b.threads = 1; b.threads <= 7; b.threads += b.threads < 3 ? 1 : 4) {
    CHECK(!run(layer, &b), "%s", fp4moe_error_detail());
    if (b.threads == 1) memcpy(want, p.y, floats * sizeof *want);
    CHECK_SAME(p.y, want, floats, sizeof *want, s->file);
  }
  if (y) {
    double err = io_error(y, p.tokens, p.y);
    CHECK(err <= off_file, "%s, %s, M %zu: rel_l2 %g off %s", s->file, v->name, p.tokens, err,
          v->reference);
  }
  random_layer *m = random_layer_restore(layer);
  closeness c = random_layer_compare(m, p.tokens, p.top_k, p.x, p.ids, p.weights, p.y);
  CHECK(is_close(c), "%s, %s, M %zu: rel_l2 %g, %zu ties of %zu", s->file, v->name, p.tokens,
        c.rel_l2, c.ties, c.elements);
  random_layer_free(m);
  free(want);
  drop(&p);
}

static void references(void) {
  fp4moe_context *ctx = context_of(7);
  size_t own = 0;
  for (int i = 0; i < SAMPLES; i++)
    for (int k = 0; k < VARIANTS; k++) {
      const struct sample *s = &samples[i];
      const struct variant *v = &variants[k];
      static bundle io;
      if ((s->has & v->needs) != v->needs) continue;
      fp4moe_layer *layer = load(s->file, v, ctx);
      bundle_read(&io, io_data_path(s->io));
      own += v->reference && find(&io, v->reference);
      for (size_t tokens = 0; layer && tokens <= 41; tokens += tokens < 2 ? 1 : 39)
        check_call(s, v, layer, &io, tokens);
      bundle_free(&io);
      fp4moe_layer_destroy(layer);
    }
  CHECK(own >= 3, "%zu own references", own);
  fp4moe_context_destroy(ctx);
}

/* ---- Mutants ---- */

/* rel_l2 off the class's reference with other input scales. */
static double with_scales(const char *file, float gate_up, float down) {
  static bundle io;
  fp4moe_context *ctx = context_of(1);
  fp4moe_checkpoint *ckpt = io_open_checkpoint(io_data_path(file));
  fp4moe_layer_desc d = desc_of(ckpt, &variants[NVFP4]);
  fp4moe_layer *layer = NULL;
  d.input_scale_gate_up = gate_up;
  d.input_scale_down = down;
  bundle_read(&io, io_data_path("qwen3_nvfp4.io"));
  problem p = problem_of(&io, 0);
  fp4moe_batch b = batch_of(&p);
  CHECK(!fp4moe_checkpoint_load_layer(ckpt, 0, ctx, &d, &layer) && !run(layer, &b), "%s",
        fp4moe_error_detail());
  double err = io_error(find(&io, "y_w4a4"), p.tokens, p.y);
  drop(&p);
  bundle_free(&io);
  fp4moe_layer_destroy(layer);
  fp4moe_checkpoint_close(ckpt);
  fp4moe_context_destroy(ctx);
  return err;
}

static void wrong_globals(void) {
  fp4moe_context *ctx = context_of(1);
  fp4moe_layer *layer = load("qwen3_nvfp4_ct", &variants[NVFP4], ctx);
  float a1 = layer->desc.input_scale_gate_up, a2 = layer->desc.input_scale_down;
  CHECK(a1 > 0 && a2 > 0 && a1 != a2, "input scales %g, %g", (double)a1, (double)a2);
  fp4moe_layer_destroy(layer);
  fp4moe_context_destroy(ctx);
  double err = with_scales("qwen3_nvfp4_ct", a1, a2);
  CHECK(err <= off_file, "the checkpoint's own: %g", err);
  err = with_scales("qwen3_nvfp4_ct", a2, a1);
  CHECK(err > 3e-3, "swapped, and %g off", err);
  err = with_scales("qwen3_nvfp4_ct", 1 / a1, 1 / a2);
  CHECK(err > 3e-3, "reciprocals not taken, and %g off", err);
}

static void floor_rule(void) {
  static bundle io;
  fp4moe_context *ctx = context_of(2);
  fp4moe_layer *layer = load("gptoss_mxfp4", &variants[MXFP8], ctx);
  fp4moe_plan plan = *fp4moe_layer_plan(layer);
  fp4moe_kernel mutant = *plan.quant;
  bundle_read(&io, io_data_path("gptoss_mxfp4.io"));
  problem p = problem_of(&io, 0);
  fp4moe_batch b = batch_of(&p);
  mutant.fn.quant = quant_floor;
  plan.quant = &mutant;
  layer->plan = &plan;
  CHECK(!run(layer, &b), "%s", fp4moe_error_detail());
  double err = io_error(find(&io, "y_mxfp8"), p.tokens, p.y);
  CHECK(err > 5e-4, "the floor rule, and %g off", err);
  drop(&p);
  bundle_free(&io);
  fp4moe_layer_destroy(layer);
  fp4moe_context_destroy(ctx);
}

/* ---- Input scales of checkpoints ---- */

/* clang-format off */
static const struct scale_case {
  const char *file, *ending, *value; /* value: of the tensor; "": it is dropped */
  int variant;
  fp4moe_status status;
  const char *says;
} scale_cases[] = {
    {"qwen3_nvfp4_modelopt", ".4.up_proj.input_scale", "", 2, FP4MOE_UNSUPPORTED,
     "experts.4.up_proj.input_scale' is missing, which class NVFP4 with the layer's global reads"},
    {"qwen3_nvfp4_modelopt", ".4.up_proj.input_scale", "", 3, FP4MOE_UNSUPPORTED,
     "experts.4.up_proj.input_scale' is missing, which class NVFP4 with globals of experts reads"},
    {"qwen3_nvfp4_modelopt", ".4.up_proj.input_scale", "", 4, FP4MOE_OK, ""},
    {"qwen3_nvfp4_modelopt", ".4.up_proj.input_scale", "", 0, FP4MOE_OK, ""},
    {"qwen3_nvfp4_modelopt", ".5.down_proj.input_scale", "0", 2, FP4MOE_INVALID,
     "experts.5.down_proj.input_scale', expert 5: the input scale is 0"},
    {"qwen3_nvfp4_modelopt", ".5.down_proj.input_scale", "-0.5", 2, FP4MOE_INVALID,
     "experts.5.down_proj.input_scale', expert 5: the input scale is -0.5"},
    {"qwen3_nvfp4_modelopt", ".0.gate_proj.input_scale", "nan", 3, FP4MOE_INVALID,
     "experts.0.gate_proj.input_scale', expert 0: the input scale is"},
    {"qwen3_nvfp4_modelopt", ".0.gate_proj.input_scale", "inf", 2, FP4MOE_INVALID,
     "experts.0.gate_proj.input_scale', expert 0: the input scale is inf"},
    {"qwen3_nvfp4_modelopt", ".0.gate_proj.input_scale", "nan", 4, FP4MOE_OK, ""},
    {"qwen3_nvfp4_modelopt", ".0.gate_proj.input_scale", "-1", 0, FP4MOE_OK, ""},
    {"qwen3_nvfp4_ct", ".3.up_proj.input_global_scale", "0", 2, FP4MOE_INVALID,
     "experts.3.up_proj.input_global_scale', expert 3: the input scale is inf"},
    {"qwen3_nvfp4_ct", ".3.up_proj.input_global_scale", "inf", 3, FP4MOE_INVALID,
     "experts.3.up_proj.input_global_scale', expert 3: the input scale is 0"},
    {"qwen3_nvfp4_ct", ".3.up_proj.input_global_scale", "0", 0, FP4MOE_OK, ""},
    {"qwen3_nvfp4_ct", ".3.up_proj.input_global_scale", "1", 1, FP4MOE_UNSUPPORTED,
     "precision MXFP8 with format NVFP4"},
    {"gptoss_mxfp4", "down_proj_bias", NULL, 2, FP4MOE_UNSUPPORTED,
     "precision NVFP4 with format MXFP4"},
};
/* clang-format on */

static void change(bundle *m, const struct scale_case *c) {
  fp4moe_tensor_data *t = bundle_find(m, c->ending);
  float value = c->value ? strtof(c->value, NULL) : 0;
  if (c->value && !*c->value)
    *t = m->list[--m->n];
  else if (c->value)
    memcpy((void *)(uintptr_t)t->data, &value, sizeof value);
}

static void input_scales(void) {
  static bundle m;
  fp4moe_context *ctx = context_of(1);
  scratch_open();
  for (size_t i = 0; i < sizeof scale_cases / sizeof *scale_cases; i++) {
    const struct scale_case *c = &scale_cases[i];
    fp4moe_layer *layer = NULL;
    bundle_read(&m, io_data_path(c->file));
    change(&m, c);
    fp4moe_checkpoint *ckpt = bundle_open(&m);
    fp4moe_layer_desc d = desc_of(ckpt, &variants[c->variant]);
    fp4moe_status got = fp4moe_checkpoint_load_layer(ckpt, 0, ctx, &d, &layer);
    io_says(got, c->status, got ? fp4moe_error_detail() : "", c->says, c->ending);
    fp4moe_layer_destroy(layer);
    fp4moe_checkpoint_close(ckpt);
    bundle_free(&m);
  }
  scratch_close();
  fp4moe_context_destroy(ctx);
}

/* A rank that holds some of the experts takes the maxima over all, and no scale of the caller's is
 * overridden. */
static void maxima_of_all(void) {
  fp4moe_context *ctx = context_of(1);
  fp4moe_checkpoint *ckpt = io_open_checkpoint(io_data_path("qwen3_nvfp4_modelopt"));
  fp4moe_layer_desc d = desc_of(ckpt, &variants[NVFP4]);
  float all[2] = {0, 0};
  for (size_t rank = 0; rank < 6; rank++) {
    fp4moe_slice slice = {sizeof slice, FP4MOE_SPLIT_EXPERTS, rank, 6};
    fp4moe_layer *layer = NULL;
    CHECK(!fp4moe_checkpoint_load_slice(ckpt, 0, ctx, &d, &slice, &layer), "%s",
          fp4moe_error_detail());
    if (!rank) all[0] = layer->desc.input_scale_gate_up, all[1] = layer->desc.input_scale_down;
    CHECK(layer->desc.experts == 1 && layer->desc.input_scale_gate_up == all[0] &&
              layer->desc.input_scale_down == all[1],
          "rank %zu: %g, %g", rank, (double)layer->desc.input_scale_gate_up,
          (double)layer->desc.input_scale_down);
    fp4moe_layer_destroy(layer);
  }
  d.input_scale_down = 0.25f;
  fp4moe_layer *layer = NULL;
  CHECK(!fp4moe_checkpoint_load_layer(ckpt, 0, ctx, &d, &layer) &&
            layer->desc.input_scale_gate_up == all[0] && layer->desc.input_scale_down == 0.25f,
        "%s", fp4moe_error_detail());
  fp4moe_layer_destroy(layer);
  fp4moe_checkpoint_close(ckpt);
  fp4moe_context_destroy(ctx);
}

void check_io_class(void) {
  CU_pSuite s = check_suite("data classes");
  check_test(s, "real formats in quantised classes", references);
  check_test(s, "wrong globals of real layers", wrong_globals);
  check_test(s, "the floor rule on a real layer", floor_rule);
  check_test(s, "input scales of checkpoints", input_scales);
  check_test(s, "maxima over all experts", maxima_of_all);
}
