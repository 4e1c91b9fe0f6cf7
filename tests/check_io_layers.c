/* check_io_layers.c - the MoE layers of checkpoints: found, refused, loaded.
 *
 * Broken layers are real ones with one thing changed. Loading is judged by results: a layer read
 * the wrong way round (interleaved rows, reciprocals, gate for up) cannot give the reference
 * output. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check_io.h"

/* ---- What is found ---- */

/* clang-format off */
static const struct expected_file {
  const char *file;
  size_t layer;
  const char *prefix, *family;
  fp4moe_status status;
  size_t hidden, intermediate, experts, tensors;
  fp4moe_format format;
  fp4moe_activation activation;
  const char *io; /* inputs and reference output; NULL: no such activation here */
} files[] = {
    {"gptoss_mxfp4", 0, "model.layers.0.mlp.experts", "MXFP4 (gpt-oss)", FP4MOE_OK, 128, 96, 4, 6,
     FP4MOE_MXFP4, {FP4MOE_SWIGLU_OAI, 1, 1.702f, 1, 7, 0}, "gptoss_mxfp4.io"},
    {"gptoss_mxfp4", 0, "model.layers.0.mlp.experts", "MXFP4 (gpt-oss)", FP4MOE_OK, 128, 96, 4, 6,
     FP4MOE_MXFP4, {FP4MOE_SWIGLU_OAI, 1, 1.702f, 1, 7, 0}, "gptoss_mxfp4.ep.io"},
    {"dsv4_mxfp4", 5, "layers.5.ffn.experts", "MXFP4 (DeepSeek-V4)", FP4MOE_OK, 64, 96, 4, 24,
     FP4MOE_MXFP4, {FP4MOE_SILU, 1, 0, 0, 10, 0}, "dsv4_mxfp4.io"},
    {"qwen3_nvfp4_modelopt", 3, "model.layers.3.mlp.experts", "NVFP4 (ModelOpt)", FP4MOE_OK, 96, 80,
     6, 72, FP4MOE_NVFP4, {FP4MOE_SILU, 1, 0, 0, 0, 0}, "qwen3_nvfp4.io"},
    {"qwen3_w4a16_modelopt", 3, "model.layers.3.mlp.experts", "NVFP4 (ModelOpt)", FP4MOE_OK, 96, 80,
     6, 54, FP4MOE_NVFP4, {FP4MOE_SILU, 1, 0, 0, 0, 0}, "qwen3_nvfp4.ep.io"},
    {"qwen3_nvfp4_ct", 3, "model.layers.3.mlp.experts", "NVFP4 (compressed-tensors)", FP4MOE_OK, 96,
     80, 6, 72, FP4MOE_NVFP4, {FP4MOE_SILU, 1, 0, 0, 0, 0}, "qwen3_nvfp4.io"},
    {"nemotron_nvfp4_modelopt", 1, "backbone.layers.1.mixer.experts", "NVFP4 (Nemotron)", FP4MOE_OK,
     64, 112, 5, 40, FP4MOE_NVFP4, {FP4MOE_RELU2, 0, 0, 0, 0, 0}, "nemotron_nvfp4.io"},
    {"gemma4_nvfp4_modelopt", 2, "model.language_model.layers.2.experts", "NVFP4 (ModelOpt)",
     FP4MOE_OK, 80, 48, 4, 48, FP4MOE_NVFP4, {FP4MOE_GELU_TANH, 1, 0, 0, 0, 0},
     "gemma4_nvfp4.io"},
    {"llama4_nvfp4_modelopt", 0, "language_model.model.layers.0.feed_forward.experts",
     "NVFP4 (Llama-4, fused)", FP4MOE_OK, 64, 48, 2, 8, FP4MOE_NVFP4, {FP4MOE_SILU, 1, 0, 0, 0, 0},
     "llama4_nvfp4.io"},
};
/* clang-format on */
enum { FILES = sizeof files / sizeof *files };

static void check_info(const struct expected_file *f, const fp4moe_checkpoint_layer *l) {
  const fp4moe_layer_desc *d = &l->desc;
  CHECK(l->layer == f->layer && !strcmp(l->prefix, f->prefix), "%s: layer %zu '%s'", f->file,
        l->layer, l->prefix);
  CHECK(!strcmp(l->family, f->family) && l->status == f->status && l->fp4 == !f->status,
        "%s: '%s' %s '%s'", f->file, l->family, fp4moe_status_name(l->status), l->reason);
  CHECK((f->status == FP4MOE_OK) == !*l->reason, "%s: reason '%s'", f->file, l->reason);
  CHECK(d->hidden == f->hidden && d->intermediate == f->intermediate && d->experts == f->experts &&
            d->format == f->format && d->struct_size == sizeof *d,
        "%s: H %zu I %zu E %zu", f->file, d->hidden, d->intermediate, d->experts);
  CHECK(io_same_activation(&d->activation, &f->activation) &&
            d->router_weight_on_input == !strncmp(f->file, "llama4", 6),
        "%s: activation %d", f->file, (int)d->activation.kind);
  CHECK(l->tensor_count == f->tensors && l->first_tensor == 0 && l->top_k == 0, "%s: %zu tensors",
        f->file, l->tensor_count);
}

static void test_files(void) {
  for (size_t i = 0; i < FILES; i++) {
    fp4moe_checkpoint *ckpt = io_open_checkpoint(io_data_path(files[i].file));
    if (!ckpt) continue;
    const fp4moe_tensors *set = fp4moe_checkpoint_tensors(ckpt);
    uint64_t bytes = 0;
    for (size_t t = 0; t < fp4moe_tensors_count(set); t++)
      bytes += fp4moe_tensors_at(set, t)->bytes;
    if (CHECK(fp4moe_checkpoint_layers(ckpt) == 1, "%s", files[i].file)) {
      check_info(&files[i], fp4moe_checkpoint_at(ckpt, 0));
      CHECK(fp4moe_checkpoint_at(ckpt, 0)->bytes == bytes, "%s: bytes", files[i].file);
    }
    CHECK(!fp4moe_checkpoint_at(ckpt, 1), "no layer 1");
    fp4moe_checkpoint_close(ckpt);
  }
  fp4moe_checkpoint *none = io_open_checkpoint(io_data_path("qwen3_nvfp4.io"));
  CHECK(none && fp4moe_checkpoint_layers(none) == 0, "a file without experts has no layer");
  fp4moe_checkpoint_close(none);
}

/* ---- One change of a real layer ---- */

enum change { DROP, DROP_ALL, RENAME, DTYPE, SHAPE, FIRST_FLOAT, FIRST_BYTE };

static void drop_tensor(bundle *m, size_t i) { m->list[i] = m->list[--m->n]; }

/* "64,48" */
static void set_shape(fp4moe_tensor_data *t, const char *text) {
  size_t *shape = (size_t *)(uintptr_t)t->shape;
  for (t->rank = 0; *text; text += *text == ',') {
    char *end;
    shape[t->rank++] = strtoul(text, &end, 10);
    text = end;
  }
}

/* RENAME replaces the ending; DROP_ALL drops what has `ending` anywhere in its name. */
static void bundle_change(bundle *m, enum change change, const char *ending, const char *to) {
  if (change == DROP_ALL) {
    for (size_t i = m->n; i-- > 0;)
      if (strstr(m->list[i].name, ending)) drop_tensor(m, i);
    return;
  }
  fp4moe_tensor_data *t = bundle_find(m, ending);
  void *data = (void *)(uintptr_t)t->data;
  const float value = strtof(to, NULL);
  static char name[200];
  if (change == DROP) drop_tensor(m, (size_t)(t - m->list));
  if (change == DTYPE) t->dtype = to;
  if (change == SHAPE) set_shape(t, to);
  if (change == FIRST_FLOAT) memcpy(data, &value, sizeof value);
  if (change == FIRST_BYTE) *(unsigned char *)data = (unsigned char)value;
  if (change != RENAME) return;
  snprintf(name, sizeof name, "%.*s%s", (int)(strlen(t->name) - strlen(ending)), t->name, to);
  t->name = name;
}

/* ---- Refused layers ---- */

enum { LISTED, LOADED }; /* where the refusal comes: as the layer's status, or when it is loaded */

/* clang-format off */
static const struct layer_case {
  const char *file;
  enum change change;
  const char *ending, *to;
  int when;
  fp4moe_status status;
  const char *says;
} layer_cases[] = {
    {"qwen3_nvfp4_modelopt", DROP, ".2.up_proj.weight", "", LISTED, FP4MOE_INVALID,
     "experts.2.up_proj.weight' is missing"},
    {"qwen3_nvfp4_modelopt", DROP, ".0.gate_proj.weight_scale_2", "", LISTED, FP4MOE_INVALID,
     "experts.0.gate_proj.weight_scale_2' is missing"},
    {"qwen3_nvfp4_modelopt", DROP, ".5.down_proj.weight_scale", "", LISTED, FP4MOE_INVALID,
     "experts.5.down_proj.weight_scale' is missing"},
    {"qwen3_nvfp4_modelopt", DROP, ".1.up_proj.input_scale", "", LISTED, FP4MOE_OK, ""},
    {"qwen3_nvfp4_modelopt", DROP_ALL, "experts.3.", "", LISTED, FP4MOE_INVALID,
     "expert 3 of 0 to 5 is missing"},
    {"qwen3_nvfp4_modelopt", DROP_ALL, "experts.0.", "", LISTED, FP4MOE_INVALID,
     "expert 0 of 0 to 5 is missing"},
    {"qwen3_nvfp4_modelopt", RENAME, ".1.up_proj.input_scale", ".1.up_proj.bias", LISTED,
     FP4MOE_INVALID, "experts.1.up_proj.bias'"},
    {"qwen3_nvfp4_modelopt", RENAME, "experts.1.up_proj.input_scale", "experts.scale", LISTED,
     FP4MOE_INVALID, "experts.scale'"},
    {"qwen3_nvfp4_modelopt", RENAME, ".1.up_proj.input_scale", ".01.up_proj.input_scale", LISTED,
     FP4MOE_INVALID, "experts.01.up_proj.input_scale'"},
    {"qwen3_nvfp4_modelopt", RENAME, ".1.up_proj.input_scale", ".65536.up_proj.input_scale",
     LISTED, FP4MOE_INVALID, "above 65535"},
    {"qwen3_nvfp4_modelopt", RENAME, ".1.up_proj.input_scale",
     ".99999999999999999999.up_proj.input_scale", LISTED, FP4MOE_INVALID, "above 65535"},
    {"qwen3_nvfp4_modelopt", RENAME, ".experts.1.up_proj.input_scale", ".router.weight", LISTED,
     FP4MOE_OK, ""},
    {"qwen3_nvfp4_modelopt", DTYPE, ".1.up_proj.weight", "I8", LISTED, FP4MOE_OK, ""},
    {"qwen3_nvfp4_modelopt", DTYPE, ".1.up_proj.weight", "F8_E4M3", LISTED, FP4MOE_INVALID,
     "experts.1.up_proj.weight' has dtype F8_E4M3"},
    {"qwen3_nvfp4_modelopt", DTYPE, ".1.up_proj.weight_scale", "U8", LISTED, FP4MOE_OK, ""},
    {"qwen3_nvfp4_modelopt", DTYPE, ".1.up_proj.weight_scale", "F8_E8M0", LISTED, FP4MOE_INVALID,
     "has dtype F8_E8M0, expected F8_E4M3"},
    {"qwen3_nvfp4_modelopt", DTYPE, ".1.up_proj.weight_scale_2", "I32", LISTED, FP4MOE_INVALID,
     "has dtype I32, expected F32"},
    {"qwen3_nvfp4_modelopt", DTYPE, ".1.up_proj.input_scale", "I32", LISTED, FP4MOE_INVALID,
     "experts.1.up_proj.input_scale' has dtype I32"},
    {"qwen3_nvfp4_modelopt", SHAPE, ".1.up_proj.weight_scale_2", "1,1", LISTED, FP4MOE_OK, ""},
    {"qwen3_nvfp4_modelopt", SHAPE, ".1.up_proj.weight", "48,80", LISTED, FP4MOE_INVALID,
     "has shape [48, 80], expected [80, 48]"},
    {"qwen3_nvfp4_modelopt", SHAPE, ".0.up_proj.weight", "160,24", LISTED, FP4MOE_INVALID,
     "has shape [80, 48], expected [160, 24]"},
    {"qwen3_nvfp4_modelopt", SHAPE, ".0.up_proj.weight", "480,8", LISTED, FP4MOE_INVALID,
     "experts.0.gate_proj.weight' has shape"},
    {"qwen3_nvfp4_modelopt", SHAPE, ".0.up_proj.weight", "960,4", LISTED, FP4MOE_INVALID,
     "hidden 8 and intermediate 960"},
    {"qwen3_nvfp4_modelopt", SHAPE, ".0.up_proj.weight", "3840", LISTED, FP4MOE_INVALID, "rank 2"},
    {"qwen3_nvfp4_modelopt", SHAPE, ".4.down_proj.weight_scale", "5,96", LISTED, FP4MOE_INVALID,
     "has shape [5, 96], expected [96, 5]"},
    {"qwen3_nvfp4_modelopt", FIRST_BYTE, ".4.down_proj.weight_scale", "255", LOADED,
     FP4MOE_INVALID, "experts.4.down_proj.weight_scale'"},
    {"qwen3_nvfp4_modelopt", FIRST_FLOAT, ".4.up_proj.weight_scale_2", "nan", LOADED,
     FP4MOE_INVALID, "experts.4.up_proj.weight_scale_2'"},
    {"qwen3_nvfp4_modelopt", FIRST_FLOAT, ".4.up_proj.input_scale", "nan", LOADED, FP4MOE_OK, ""},
    {"qwen3_nvfp4_ct", FIRST_FLOAT, ".4.up_proj.weight_global_scale", "inf", LOADED,
     FP4MOE_INVALID, "experts.4.up_proj.weight_global_scale' is inf"},
    {"qwen3_nvfp4_ct", FIRST_FLOAT, ".4.up_proj.weight_global_scale", "0", LOADED, FP4MOE_INVALID,
     "experts.4.up_proj.weight_global_scale' is 0"},
    {"qwen3_nvfp4_ct", FIRST_FLOAT, ".4.up_proj.weight_global_scale", "nan", LOADED,
     FP4MOE_INVALID, "experts.4.up_proj.weight_global_scale'"},
    {"qwen3_nvfp4_ct", FIRST_FLOAT, ".4.up_proj.weight_global_scale", "1e-40", LOADED,
     FP4MOE_INVALID, "experts.4.up_proj.weight_global_scale'"},
    {"qwen3_nvfp4_ct", DROP_ALL, "input_global_scale", "", LOADED, FP4MOE_OK, ""},
    {"qwen3_nvfp4_ct", DROP_ALL, "global_scale", "", LISTED, FP4MOE_INVALID,
     "weight_scale' has dtype F8_E4M3, expected F8_E8M0"},
    {"qwen3_nvfp4_ct", DROP, ".0.up_proj.weight_packed", "", LISTED, FP4MOE_INVALID,
     "experts.0.up_proj.weight_packed' is missing"},
    {"dsv4_mxfp4", DROP, ".3.w3.scale", "", LISTED, FP4MOE_INVALID,
     "experts.3.w3.scale' is missing"},
    {"dsv4_mxfp4", DTYPE, ".3.w3.scale", "U8", LISTED, FP4MOE_OK, ""},
    {"dsv4_mxfp4", DTYPE, ".3.w3.scale", "F8_E4M3", LISTED, FP4MOE_INVALID, "expected F8_E8M0"},
    {"dsv4_mxfp4", DTYPE, ".3.w3.weight", "U8", LISTED, FP4MOE_OK, ""},
    {"dsv4_mxfp4", FIRST_BYTE, ".3.w1.scale", "255", LOADED, FP4MOE_INVALID, "experts.3.w1.scale'"},
    {"nemotron_nvfp4_modelopt", DROP, ".2.down_proj.weight", "", LISTED, FP4MOE_INVALID,
     "experts.2.down_proj.weight' is missing"},
    {"nemotron_nvfp4_modelopt", RENAME, ".2.down_proj.input_scale", ".2.gate_proj.input_scale",
     LISTED, FP4MOE_INVALID, "experts.2.gate_proj.input_scale'"},
    {"gptoss_mxfp4", DROP, "gate_up_proj_bias", "", LISTED, FP4MOE_INVALID,
     "gate_up_proj_bias' is missing"},
    {"gptoss_mxfp4", DROP, "down_proj_blocks", "", LISTED, FP4MOE_INVALID,
     "down_proj_blocks' is missing"},
    {"gptoss_mxfp4", DROP, "gate_up_proj_blocks", "", LISTED, FP4MOE_INVALID,
     "gate_up_proj_blocks' is missing"},
    {"gptoss_mxfp4", SHAPE, "down_proj_blocks", "4,128,48", LISTED, FP4MOE_INVALID,
     "has shape [4, 128, 48], expected [4, 128, 3, 16]"},
    {"gptoss_mxfp4", SHAPE, "gate_up_proj_blocks", "2,384,4,16", LISTED, FP4MOE_INVALID,
     "expected [2, 384, 4]"},
    {"gptoss_mxfp4", SHAPE, "gate_up_proj_blocks", "4,192,64", LISTED, FP4MOE_INVALID,
     "has shape [4, 192, 64]"},
    {"gptoss_mxfp4", DTYPE, "down_proj_bias", "F16", LISTED, FP4MOE_OK, ""},
    {"gptoss_mxfp4", DTYPE, "down_proj_bias", "I16", LISTED, FP4MOE_INVALID, "has dtype I16"},
    {"gptoss_mxfp4", FIRST_BYTE, "gate_up_proj_scales", "255", LOADED, FP4MOE_INVALID,
     "gate_up_proj_scales'"},
    {"gptoss_mxfp4", RENAME, "down_proj_bias", "router_bias", LISTED, FP4MOE_INVALID,
     "down_proj_bias' is missing"},
    {"llama4_nvfp4_modelopt", RENAME, "gate_up_proj_input_scale", "gate_up_proj_bias", LISTED,
     FP4MOE_INVALID, "gate_up_proj_bias' has shape [], expected [2, 96]"},
    {"llama4_nvfp4_modelopt", DROP_ALL, "weight_scale_2", "", LISTED, FP4MOE_UNSUPPORTED,
     "not FP4"},
    {"qwen3_nvfp4_modelopt", DROP_ALL, "scale", "", LISTED, FP4MOE_UNSUPPORTED,
     "not FP4 of a known family: tensor 'model.layers.3.mlp.experts.0.down_proj.weight'"},
};
/* clang-format on */

static void test_layers(void) {
  static bundle m;
  scratch_open();
  for (size_t i = 0; i < sizeof layer_cases / sizeof *layer_cases; i++) {
    const struct layer_case *c = &layer_cases[i];
    bundle_read(&m, io_data_path(c->file));
    bundle_change(&m, c->change, c->ending, c->to);
    fp4moe_checkpoint *ckpt = bundle_open(&m);
    const fp4moe_checkpoint_layer *info = ckpt ? fp4moe_checkpoint_at(ckpt, 0) : NULL;
    if (info) {
      fp4moe_status listed = c->when == LISTED ? c->status : FP4MOE_OK;
      io_says(info->status, listed, info->reason, c->when == LISTED ? c->says : "", c->ending);
      io_says(io_load(ckpt), c->status, c->status ? fp4moe_error_detail() : "", c->says, c->ending);
    }
    fp4moe_checkpoint_close(ckpt);
    bundle_free(&m);
  }
  scratch_close();
}

/* Layers that are not FP4 are listed beside those that are, by number. */
static void test_mixed(void) {
  static const size_t shape[] = {2, 4};
  static const char data[16];
  static bundle m;
  scratch_open();
  bundle_read(&m, io_data_path("qwen3_nvfp4_modelopt"));
  const char *names[] = {"model.layers.12.mlp.experts.0.gate_proj.weight",
                         "model.layers.2.mlp.gate_proj.weight",
                         "model.layers.3.mlp.shared_experts.up_proj.weight",
                         "model.layers.4.mlp.experts.gate_up_proj"};
  for (size_t i = 0; i < 4; i++)
    m.list[m.n++] = (fp4moe_tensor_data){names[i], "BF16", 2, shape, data};
  bundle_write(&m, scratch_at(MODEL_FILE));
  fp4moe_checkpoint *ckpt = io_open_checkpoint(scratch); /* by its directory */
  if (ckpt && CHECK(fp4moe_checkpoint_layers(ckpt) == 3, "%zu", fp4moe_checkpoint_layers(ckpt))) {
    const fp4moe_checkpoint_layer *l = fp4moe_checkpoint_at(ckpt, 0);
    CHECK(l->layer == 3 && l->fp4 && l->tensor_count == 72, "layer %zu %s", l->layer, l->reason);
    l = fp4moe_checkpoint_at(ckpt, 1);
    CHECK(l->layer == 4 && !l->fp4 && !*l->family, "layer %zu", l->layer);
    io_says(l->status, FP4MOE_UNSUPPORTED, l->reason, "experts.gate_up_proj' has dtype BF16",
            "BF16");
    l = fp4moe_checkpoint_at(ckpt, 2);
    CHECK(l->layer == 12, "layer %zu", l->layer);
    io_says(l->status, FP4MOE_UNSUPPORTED, l->reason, names[0], "BF16");
  }
  fp4moe_checkpoint_close(ckpt);
  bundle_free(&m);
  scratch_close();
}

/* ---- Loading ---- */

/* rel_l2 of a layer loaded in FP32. */
static double layer_error(const fp4moe_checkpoint *ckpt, fp4moe_context *ctx, bundle *io) {
  fp4moe_layer_desc desc = fp4moe_checkpoint_at(ckpt, 0)->desc;
  fp4moe_layer *layer = NULL;
  desc.precision = FP4MOE_PRECISION_F32;
  fp4moe_status status = fp4moe_checkpoint_load_layer(ckpt, 0, ctx, &desc, &layer);
  if (!CHECK(!status, "%s", fp4moe_error_detail())) return INFINITY;
  CHECK(fp4moe_layer_bytes(layer) > 0, "bytes");
  const fp4moe_tensor_data *reference = bundle_find(io, "y");
  CHECK(reference->shape[1] == desc.hidden, "hidden %zu", desc.hidden);
  fp4moe_batch b = io_batch(io, 0);
  float *y = calloc(b.tokens * desc.hidden, sizeof *y);
  b.y = y;
  CHECK(!run(layer, &b), "%s", fp4moe_error_detail());
  double error = io_error(reference, b.tokens, y);
  free(y);
  io_batch_free(&b);
  fp4moe_layer_destroy(layer);
  return error;
}

static void test_load(void) {
  static bundle io;
  fp4moe_context *ctx = context_of(0);
  for (size_t i = 0; i < FILES; i++) {
    if (!files[i].io) continue;
    fp4moe_checkpoint *ckpt = io_open_checkpoint(io_data_path(files[i].file));
    bundle_read(&io, io_data_path(files[i].io));
    double error = ckpt ? layer_error(ckpt, ctx, &io) : INFINITY;
    CHECK(error < 1e-5, "%s with %s: error %g", files[i].file, files[i].io, error);
    bundle_free(&io);
    fp4moe_checkpoint_close(ckpt);
  }
  fp4moe_context_destroy(ctx);
}

/* What the caller may change, and what not. */
static void test_load_desc(void) {
  fp4moe_context *ctx = context_of(0);
  fp4moe_layer *layer = NULL;
  fp4moe_checkpoint *ckpt = io_open_checkpoint(io_data_path("qwen3_nvfp4_modelopt"));
  const fp4moe_layer_desc own = fp4moe_checkpoint_at(ckpt, 0)->desc;
  fp4moe_layer_desc wrong[5] = {own, own, own, own, own};
  static const char *const words[] = {"hidden", "intermediate", "experts", "format", "gated"};
  wrong[0].hidden = 112;
  wrong[1].intermediate = 16;
  wrong[2].experts = 5;
  wrong[3].format = FP4MOE_MXFP4;
  wrong[4].activation.gated = 0;
  for (size_t i = 0; i < 5; i++)
    io_says(fp4moe_checkpoint_load_layer(ckpt, 0, ctx, &wrong[i], &layer), FP4MOE_INVALID,
            fp4moe_error_detail(), words[i], words[i]);
  io_says(fp4moe_checkpoint_load_layer(ckpt, 1, ctx, NULL, &layer), FP4MOE_INVALID,
          fp4moe_error_detail(), "index 1", "no layer 1");
  fp4moe_layer_desc other = own;
  other.activation = (fp4moe_activation){FP4MOE_SWIGLU_OAI, 1, 1, 0, 3, 0};
  other.router_weight_on_input = 1;
  CHECK(!fp4moe_checkpoint_load_layer(ckpt, 0, ctx, &other, &layer), "%s", fp4moe_error_detail());
  fp4moe_layer_destroy(layer);
  fp4moe_checkpoint_close(ckpt);
  fp4moe_context_destroy(ctx);
}

void check_io_layers(CU_pSuite suite) {
  check_test(suite, "files", test_files);
  check_test(suite, "layers", test_layers);
  check_test(suite, "mixed", test_mixed);
  check_test(suite, "load", test_load);
  check_test(suite, "load desc", test_load_desc);
}
