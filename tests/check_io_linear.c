/* check_io_linear.c - dense FP4 matrices of checkpoints: found by their tensors' names and shapes,
 * loaded, and multiplied with the bits of the same matrix handed to the core. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gguf_file.h"

enum { ROWS = 3 };

static void multiply(fp4moe_linear *linear, const fp4moe_linear_desc *d, float *y) {
  float *x = malloc(ROWS * d->k * sizeof *x);
  for (size_t i = 0; i < ROWS * d->k; i++) x[i] = (float)(int)(i * 37 % 101) / 50 - 1;
  CHECK(!run_rows(linear, ROWS, x, y), "%s", fp4moe_error_detail());
  free(x);
}

/* ---- One matrix, the up projection of a random layer, under several names ---- */

static const struct spelling {
  const char *name, *codes, *scales, *global, *bias, *family;
  const char *codes_dtype, *scales_dtype;
  fp4moe_format format;
  int reciprocal;
} spellings[] = {
    {"lm_head", ".weight", ".weight_scale", ".weight_scale_2", NULL, "NVFP4 (ModelOpt)", "U8",
     "F8_E4M3", FP4MOE_NVFP4, 0},
    {"model.layers.1.mlp.shared_experts.up_proj", ".weight_packed", ".weight_scale",
     ".weight_global_scale", ".bias", "NVFP4 (compressed-tensors)", "U8", "U8", FP4MOE_NVFP4, 1},
    {"model.layers.1.mlp.shared_experts.w1", ".weight_packed", ".weight_scale", NULL, NULL,
     "MXFP4 (compressed-tensors)", "U8", "U8", FP4MOE_MXFP4, 0},
    {"layers.5.ffn.shared_experts.w1", ".weight", ".scale", NULL, ".bias", "MXFP4 (DeepSeek-V4)",
     "I8", "F8_E8M0", FP4MOE_MXFP4, 0},
};

static random_layer *new_layer(fp4moe_format format) {
  const fp4moe_layer_desc desc = {.struct_size = sizeof desc,
                                  .hidden = 96,
                                  .intermediate = 64,
                                  .experts = 1,
                                  .format = format,
                                  .activation = {.kind = FP4MOE_SILU, .gated = 1}};
  return random_layer_new(&desc, 1, NULL);
}

static char names[5][100];

static const char *name_of(const struct spelling *s, size_t i, const char *ending) {
  snprintf(names[i], sizeof names[i], "%s%s", s->name, ending);
  return names[i];
}

/* global: what the file has. */
static void write_matrix(const struct spelling *s, const random_layer *m, const float *global) {
  const size_t group = s->format == FP4MOE_MXFP4 ? 32 : 16;
  const size_t codes[] = {64, 48}, scales[] = {64, 96 / group}, bias[] = {64}, input[] = {2, 4};
  fp4moe_tensor_data list[6] = {
      {name_of(s, 0, s->codes), s->codes_dtype, 2, codes, m->codes[1]},
      {name_of(s, 1, s->scales), s->scales_dtype, 2, scales, m->scales[1]},
      {"model.norm.weight", "U8", 2, input, m->codes[0]}};
  size_t n = 3;
  if (s->global) list[n++] = (fp4moe_tensor_data){name_of(s, 2, s->global), "F32", 0, NULL, global};
  if (s->bias) list[n++] = (fp4moe_tensor_data){name_of(s, 3, s->bias), "F32", 1, bias, m->bias[1]};
  CHECK(!fp4moe_tensors_write(scratch_at(MODEL_FILE), list, n), "%s", fp4moe_error_detail());
}

static void compare(const char *path, const struct spelling *s, const random_layer *m, float global,
                    fp4moe_context *ctx) {
  fp4moe_linear *want = NULL, *got = NULL;
  fp4moe_projection matrix = random_layer_expert(m, 0).up;
  float a[ROWS * 64], b[ROWS * 64] = {0};
  fp4moe_checkpoint *ckpt = io_open_checkpoint(path);
  const fp4moe_checkpoint_linear *l = fp4moe_checkpoint_linear_at(ckpt, 0);
  CHECK(fp4moe_checkpoint_linears(ckpt) == 1 && !fp4moe_checkpoint_linear_at(ckpt, 1), "%zu found",
        fp4moe_checkpoint_linears(ckpt));
  if (CHECK(l && !strcmp(l->name, s->name) && !strcmp(l->family, s->family) && !l->status,
            "%s: '%s'", s->name, l ? l->reason : "not found")) {
    CHECK(l->desc.n == 64 && l->desc.k == 96 && l->desc.format == s->format, "%s: %zu x %zu",
          s->name, l->desc.n, l->desc.k);
    matrix.global = global;
    if (!s->bias) matrix.bias = NULL;
    want = linear_of(ctx, l->desc, &matrix);
    multiply(want, &l->desc, a);
    if (CHECK(!fp4moe_checkpoint_load_linear(ckpt, s->name, ctx, NULL, &got), "%s",
              fp4moe_error_detail())) {
      multiply(got, &l->desc, b);
      CHECK_SAME(b, a, ROWS * 64, sizeof *a, s->name);
    }
  }
  fp4moe_linear_destroy(got);
  fp4moe_linear_destroy(want);
  fp4moe_checkpoint_close(ckpt);
}

static void test_linears(void) {
  fp4moe_context *ctx = context_of(0);
  scratch_open();
  for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++) {
    const struct spelling *s = &spellings[i];
    random_layer *m = new_layer(s->format);
    const float stored = s->reciprocal ? 1300.0f : m->global[1][0];
    write_matrix(s, m, &stored);
    compare(scratch_at(MODEL_FILE), s, m, s->reciprocal ? 1.0f / stored : stored, ctx);
    random_layer_free(m);
  }
  const struct spelling blocks = {
      .name = "output", .family = "MXFP4 (GGUF)", .format = FP4MOE_MXFP4};
  random_layer *m = new_layer(FP4MOE_MXFP4);
  gguf_write_matrix(scratch_at("a.gguf"), m, blocks.name);
  compare(scratch_at("a.gguf"), &blocks, m, 1, ctx);
  random_layer_free(m);
  fp4moe_context_destroy(ctx);
  scratch_close();
}

/* ---- Refused ---- */

static void refuse(const struct spelling *s, random_layer *m, float global, const char *words) {
  fp4moe_context *ctx = context_of(0);
  fp4moe_linear *linear = NULL;
  write_matrix(s, m, &global);
  fp4moe_checkpoint *ckpt = io_open_checkpoint(scratch_at(MODEL_FILE));
  io_says(fp4moe_checkpoint_load_linear(ckpt, s->name, ctx, NULL, &linear), FP4MOE_INVALID,
          fp4moe_error_detail(), words, words);
  io_says(fp4moe_checkpoint_load_linear(ckpt, "absent", ctx, NULL, &linear), FP4MOE_INVALID,
          fp4moe_error_detail(), "'absent'", "no such matrix");
  fp4moe_checkpoint_close(ckpt);
  fp4moe_context_destroy(ctx);
}

static void test_refused(void) {
  random_layer *m = new_layer(FP4MOE_NVFP4);
  struct spelling s = spellings[0];
  scratch_open();
  refuse(&s, m, 1.0f / 0.0f, "'lm_head.weight_scale_2': the global would be inf");
  refuse(&spellings[1], m, 0, "up_proj.weight_global_scale': the global would be inf");
  refuse(&spellings[1], m, 1.0f / 0.0f, "up_proj.weight_global_scale': the global would be 0");
  s.bias = ".weight_scale_2_of_old";
  s.global = NULL;
  refuse(&s, m, 1, "'lm_head.weight' has no global");
  s = spellings[0];
  s.scales_dtype = "F8_E8M0";
  refuse(&s, m, 1, "no dense FP4 matrix 'lm_head'");
  m->scales[1][7] = 0x7f;
  refuse(&spellings[0], m, 1, "tensor 'lm_head.weight_scale'");
  scratch_close();
  random_layer_free(m);
}

void check_io_linear(CU_pSuite suite) {
  check_test(suite, "dense matrices", test_linears);
  check_test(suite, "dense refused", test_refused);
}
