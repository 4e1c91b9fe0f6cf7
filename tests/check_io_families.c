/* check_io_families.c - families of which no real file is at hand, written here.
 *
 * Random weights are written the way a family has them, by code that shares nothing with the
 * loader, and loaded. The result must have the bits of the same weights handed to the core. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check_io.h"

/* ---- A file in the making ---- */

static bundle file;

static void file_begin(void) { file.n = file.kept_count = 0; }

static void *file_keep(size_t bytes) {
  if (file.kept_count == BUNDLE_KEPT) abort();
  return file.kept[file.kept_count++] = calloc(1, bytes + 1);
}

/* A tensor of zeros to fill. */
static void *file_add(const char *dtype, const size_t *shape, size_t rank, const char *name, ...) {
  size_t element = strcmp(dtype, "F32") == 0 ? 4 : strcmp(dtype, "BF16") == 0 ? 2 : 1;
  size_t bytes = element;
  for (size_t i = 0; i < rank; i++) bytes *= shape[i];
  char *full = file_keep(160);
  va_list args;
  va_start(args, name);
  vsnprintf(full, 160, name, args);
  va_end(args);
  void *data = file_keep(bytes);
  if (file.n == BUNDLE_TENSORS) abort();
  file.list[file.n++] = (fp4moe_tensor_data){
      full, dtype, rank, memcpy(file_keep(rank * sizeof *shape), shape, rank * sizeof *shape),
      data};
  return data;
}

/* ---- Loading and comparing ---- */

enum { TOKENS = 5, TOP_K = 2 };

static void forward(fp4moe_layer *layer, const fp4moe_layer_desc *desc, float *y) {
  float *x = malloc(TOKENS * desc->hidden * sizeof *x), weights[TOKENS * TOP_K];
  int32_t ids[TOKENS * TOP_K];
  uint64_t noise = 1;
  for (size_t i = 0; i < TOKENS * desc->hidden; i++) {
    noise = noise * 6364136223846793005u + 1442695040888963407u;
    x[i] = (float)(noise >> 40) * 0x1p-23f - 1;
  }
  for (size_t i = 0; i < TOKENS * TOP_K; i++) {
    ids[i] = (int32_t)(i % desc->experts);
    weights[i] = 0.25f * (float)(1 + i);
  }
  const problem p = {TOKENS, TOP_K, desc->hidden, x, y, weights, ids};
  const fp4moe_batch b = batch_of(&p);
  CHECK(!run(layer, &b), "%s", fp4moe_error_detail());
  free(x);
}

void io_same_layer(const random_layer *m, const char *path, const char *family) {
  fp4moe_context *ctx = context_of(0);
  fp4moe_layer *want = layer_of(m, ctx), *got = NULL;
  size_t n = TOKENS * m->desc.hidden;
  float *a = malloc(n * sizeof *a), *b = calloc(n, sizeof *b);
  forward(want, &m->desc, a);
  fp4moe_checkpoint *ckpt = io_open_checkpoint(path);
  const fp4moe_checkpoint_layer *info = ckpt ? fp4moe_checkpoint_at(ckpt, 0) : NULL;
  if (info &&
      CHECK(!strcmp(info->family, family) && info->fp4, "'%s' '%s', want '%s'", info->family,
            info->reason, family) &&
      CHECK(!fp4moe_checkpoint_load_layer(ckpt, 0, ctx, &m->desc, &got), "%s: %s", family,
            fp4moe_error_detail())) {
    forward(got, &m->desc, b);
    CHECK_SAME(b, a, n, sizeof *a, family);
  }
  fp4moe_checkpoint_close(ckpt);
  fp4moe_layer_destroy(got);
  fp4moe_layer_destroy(want);
  fp4moe_context_destroy(ctx);
  free(a);
  free(b);
}

static random_layer *new_layer(fp4moe_format format, size_t hidden, size_t intermediate,
                               size_t experts, int biases) {
  fp4moe_layer_desc desc = {.struct_size = sizeof desc,
                            .hidden = hidden,
                            .intermediate = intermediate,
                            .experts = experts,
                            .format = format,
                            .precision = FP4MOE_PRECISION_BF16,
                            .activation = {.kind = FP4MOE_SILU, .gated = 1}};
  return random_layer_new(&desc, biases, NULL);
}

/* ---- One tensor an expert: compressed-tensors ---- */

static void test_compressed_mx(void) {
  static const char *const words[2][3] = {{"w1", "w3", "w2"},
                                          {"gate_proj", "up_proj", "down_proj"}};
  static const char *const families[] = {"MXFP4 (compressed-tensors, w1 w2 w3)",
                                         "MXFP4 (compressed-tensors)"};
  random_layer *m = new_layer(FP4MOE_MXFP4, 64, 96, 3, 0);
  scratch_open();
  for (size_t w = 0; w < 2; w++) {
    file_begin();
    for (size_t e = 0; e < 3; e++)
      for (size_t p = 0; p < 3; p++) {
        size_t n = m->n[p], k = m->k[p];
        memcpy(file_add("U8", (size_t[]){n, k / 2}, 2, "model.layers.7.mlp.experts.%zu.%s.%s", e,
                        words[w][p], "weight_packed"),
               m->codes[p] + e * n * k / 2, n * k / 2);
        memcpy(file_add(w ? "F8_E8M0" : "U8", (size_t[]){n, k / 32}, 2,
                        "model.layers.7.mlp.experts.%zu.%s.%s", e, words[w][p], "weight_scale"),
               m->scales[p] + e * n * k / 32, n * k / 32);
      }
    bundle_write(&file, scratch_at(MODEL_FILE));
    bundle_free(&file);
    io_same_layer(m, scratch_at(MODEL_FILE), families[w]);
  }
  scratch_close();
  random_layer_free(m);
}

/* ---- Gate and up in one tensor, all experts in one ---- */

enum { GLOBAL_SCALAR, GLOBAL_1, GLOBAL_E, GLOBAL_E1, GLOBAL_E2 };

struct fused {
  const char *prefix;
  int transposed, interleaved, global;
};

/* Output i of gate (p 0) or up (1), as a row of the fused tensor. */
static size_t fused_row(const struct fused *f, const random_layer *m, size_t p, size_t i) {
  if (p == 2) return i;
  return f->interleaved ? 2 * i + p : p * m->n[0] + i;
}

/* One byte of codes or scales: row r, column c of expert e of [E][rows][columns]. */
static uint8_t *fused_byte(const struct fused *f, uint8_t *data, size_t rows, size_t columns,
                           size_t e, size_t r, size_t c) {
  return data + e * rows * columns + (f->transposed ? c * rows + r : r * columns + c);
}

static void put_matrix(const struct fused *f, const random_layer *m, const char *name, size_t first,
                       int scales) {
  size_t rows = first == 2 ? m->n[2] : 2 * m->n[0], last = first == 2 ? 2 : 1;
  size_t columns = m->k[first] / (scales ? 16 : 2), experts = m->desc.experts;
  size_t shape[] = {experts, f->transposed ? columns : rows, f->transposed ? rows : columns};
  uint8_t *to = file_add(scales ? "F8_E4M3" : "U8", shape, 3, "%s.%s%s", f->prefix, name,
                         scales ? "_weight_scale" : "");
  for (size_t e = 0; e < experts; e++)
    for (size_t p = first; p <= last; p++)
      for (size_t i = 0; i < m->n[p]; i++)
        for (size_t c = 0; c < columns; c++)
          *fused_byte(f, to, rows, columns, e, fused_row(f, m, p, i), c) =
              (scales ? m->scales : m->codes)[p][(e * m->n[p] + i) * columns + c];
}

static void put_global(const struct fused *f, const random_layer *m, const char *name, size_t p,
                       const char *part) {
  size_t e = m->desc.experts, columns = p == 0 && f->global == GLOBAL_E2 ? 2 : 1;
  size_t shape[2] = {f->global == GLOBAL_1 ? 1 : e, columns};
  size_t rank = f->global == GLOBAL_SCALAR ? 0 : f->global <= GLOBAL_E ? 1 : 2;
  float *to = file_add("F32", shape, rank, "%s.%s%s", f->prefix, name, part);
  for (size_t i = 0; i < (f->global <= GLOBAL_1 ? 1 : e); i++) {
    to[i * columns] = m->global[p][i];
    if (columns == 2) to[2 * i + 1] = m->global[1][i];
  }
}

static void put_bias(const struct fused *f, const random_layer *m, const char *name, size_t first) {
  size_t rows = first == 2 ? m->n[2] : 2 * m->n[0], last = first == 2 ? 2 : 1;
  float *to = file_add("F32", (size_t[]){m->desc.experts, rows}, 2, "%s.%s_bias", f->prefix, name);
  for (size_t e = 0; e < m->desc.experts; e++)
    for (size_t p = first; p <= last; p++)
      for (size_t i = 0; i < m->n[p]; i++)
        to[e * rows + fused_row(f, m, p, i)] = m->bias[p][e * m->n[p] + i];
}

static void put_fused(const struct fused *f, const random_layer *m) {
  static const char *const names[] = {"gate_up_proj", NULL, "down_proj"};
  file_begin();
  for (size_t p = 0; p < 3; p += 2) {
    put_matrix(f, m, names[p], p, 0);
    put_matrix(f, m, names[p], p, 1);
    put_global(f, m, names[p], p, "_weight_scale_2");
    put_global(f, m, names[p], p, "_input_scale");
    if (m->biases) put_bias(f, m, names[p], p);
  }
  bundle_write(&file, scratch_at(MODEL_FILE));
}

/* As many different globals as the tensor can hold. */
static void share_globals(random_layer *m, int global) {
  for (size_t e = 0; e < m->desc.experts && global < GLOBAL_E2; e++) {
    size_t from = global <= GLOBAL_1 ? 0 : e;
    m->global[0][e] = m->global[1][e] = m->global[0][from];
    m->global[2][e] = m->global[2][from];
  }
}

static const struct fused fused_files[] = {
    {"model.layers.0.mlp.experts", 0, 1, GLOBAL_SCALAR},
    {"model.layers.0.mlp.experts", 1, 1, GLOBAL_E},
    {"model.layers.0.mlp.experts", 0, 1, GLOBAL_1},
    {"model.layers.0.mlp.experts", 1, 1, GLOBAL_E2},
    {"model.layers.0.feed_forward.experts", 1, 0, GLOBAL_E1},
    {"model.layers.0.feed_forward.experts", 0, 0, GLOBAL_E2},
};

static void try_fused(const struct fused *f, size_t hidden, size_t intermediate, size_t experts) {
  random_layer *m = new_layer(FP4MOE_NVFP4, hidden, intermediate, experts, f->interleaved);
  share_globals(m, f->global);
  put_fused(f, m);
  bundle_free(&file);
  io_same_layer(m, scratch_at(MODEL_FILE),
                f->interleaved ? "NVFP4 (gpt-oss, ModelOpt)" : "NVFP4 (Llama-4, fused)");
  random_layer_free(m);
}

static void test_fused(void) {
  scratch_open();
  for (size_t i = 0; i < sizeof fused_files / sizeof *fused_files; i++) {
    try_fused(&fused_files[i], 64, 48, 3);
    try_fused(&fused_files[i], 304, 112, 2);
  }
  try_fused(&fused_files[4], 1040, 4112, 1); /* several strips of 2 MiB */
  scratch_close();
}

/* ---- Fused layers that are refused ---- */

/* A shape of the same size, or a value at a place, in the tensor with this ending. */
static const struct fused_case {
  size_t file; /* of fused_files */
  const char *ending;
  size_t shape[3]; /* {0}: unchanged */
  size_t at;
  float value; /* F32 tensors; a byte of others */
  fp4moe_status status;
  const char *says;
} fused_cases[] = {
    {4, "gate_up_proj", {3, 96, 32}, 0, 1, FP4MOE_INVALID, "has shape [3, 96, 32]"},
    {4, "gate_up_proj_weight_scale", {3, 96, 4}, 0, 1, FP4MOE_INVALID, "the scales [3, 96, 4]"},
    {4, "gate_up_proj_weight_scale", {3, 8, 48}, 0, 1, FP4MOE_INVALID, "the scales [3, 8, 48]"},
    {4, "down_proj", {3, 64, 24}, 0, 1, FP4MOE_INVALID, "[3, 64, 24], expected [3, 24, 64]"},
    {4, "down_proj_weight_scale", {3, 64, 3}, 0, 1, FP4MOE_INVALID, "expected [3, 3, 64]"},
    {0, "down_proj", {3, 24, 64}, 0, 1, FP4MOE_INVALID, "[3, 24, 64], expected [3, 64, 24]"},
    {3, "gate_up_proj_weight_scale_2", {2, 3, 1}, 0, 1, FP4MOE_INVALID, "or [3, 2]"},
    {3,
     "gate_up_proj_weight_scale_2",
     {0},
     5,
     -1.0f / 0.0f,
     FP4MOE_INVALID,
     "gate_up_proj_weight_scale_2' is -inf at index 5"},
    {1,
     "down_proj_weight_scale_2",
     {0},
     2,
     0.0f / 0.0f,
     FP4MOE_INVALID,
     "down_proj_weight_scale_2' is"},
    {1, "down_proj_input_scale", {0}, 2, 0.0f / 0.0f, FP4MOE_OK, ""},
    {1, "down_proj_weight_scale", {0}, 100, 127, FP4MOE_INVALID, "down_proj_weight_scale'"},
    {4, "gate_up_proj_weight_scale", {0}, 48 + 7, 255, FP4MOE_INVALID, "up scale [7][0]"},
};

static void test_fused_refused(void) {
  scratch_open();
  for (size_t i = 0; i < sizeof fused_cases / sizeof *fused_cases; i++) {
    const struct fused_case *c = &fused_cases[i];
    const struct fused *f = &fused_files[c->file];
    random_layer *m = new_layer(FP4MOE_NVFP4, 64, 48, 3, f->interleaved);
    put_fused(f, m);
    fp4moe_tensor_data *t = bundle_find(&file, c->ending);
    void *data = (void *)(uintptr_t)t->data;
    if (c->shape[0]) {
      t->shape = c->shape;
      t->rank = 3;
    } else if (strcmp(t->dtype, "F32") == 0) {
      memcpy((float *)data + c->at, &c->value, sizeof c->value);
    } else {
      ((uint8_t *)data)[c->at] = (uint8_t)c->value;
    }
    fp4moe_checkpoint *ckpt = bundle_open(&file);
    fp4moe_status status = io_load(ckpt);
    io_says(status, c->status, status ? fp4moe_error_detail() : "", c->says, c->ending);
    fp4moe_checkpoint_close(ckpt);
    bundle_free(&file);
    random_layer_free(m);
  }
  scratch_close();
}

void check_io_families(CU_pSuite suite) {
  check_test(suite, "compressed MXFP4", test_compressed_mx);
  check_test(suite, "fused", test_fused);
  check_test(suite, "fused refused", test_fused_refused);
}
