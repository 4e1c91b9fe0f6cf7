/* check_io_gguf.c - GGUF files, written here byte by byte.
 *
 * Good ones hold random weights, or those of a real layer, in blocks as ggml.h draws them, and must
 * give the bits of the same weights handed to the core. Bad ones are good ones with a count,
 * length, type or offset changed: each is refused by a text that names it, and nothing faults. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check_io.h"
#include "fp4.h"
#include "io/floats.h"
#include "random_layer.h"

/* ---- Writing ---- */

static struct {
  uint8_t *bytes;
  size_t n, room;
} out;

static void put(const void *data, size_t bytes) {
  if (out.n + bytes > out.room) {
    out.room = 2 * (out.n + bytes);
    out.bytes = realloc(out.bytes, out.room);
    if (!out.bytes) abort();
  }
  memcpy(out.bytes + out.n, data, bytes);
  out.n += bytes;
}

static void put_le(uint64_t value, size_t bytes) {
  for (size_t i = 0; i < bytes; i++) put(&(uint8_t){(uint8_t)(value >> 8 * i)}, 1);
}

static void put_text(const char *text) {
  put_le(strlen(text), 8);
  put(text, strlen(text));
}

static void put_zeros(size_t bytes) {
  while (bytes--) put(&(uint8_t){0}, 1);
}

static void put_key_text(const char *key, const char *value) {
  put_text(key);
  put_le(8, 4);
  put_text(value);
}

static void put_key_u32(const char *key, uint32_t value) {
  put_text(key);
  put_le(4, 4);
  put_le(value, 4);
}

typedef struct gguf_tensor {
  char name[64];
  uint64_t dims[4]; /* fastest first */
  uint32_t rank, type;
  size_t bytes;
  uint8_t *data;
} gguf_tensor;

enum { F32 = 0, MXFP4 = 39, NVFP4 = 40, ALIGNMENT = 64, MOST = 24 };

static gguf_tensor tensors[MOST];
static size_t tensor_count;

static size_t aligned(size_t n) { return (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

static gguf_tensor *add_tensor(const char *name, uint32_t type, size_t bytes, uint64_t d0,
                               uint64_t d1, uint64_t d2) {
  gguf_tensor *t = &tensors[tensor_count++];
  if (tensor_count > MOST) abort();
  *t = (gguf_tensor){.dims = {d0, d1, d2},
                     .rank = d2   ? 3
                             : d1 ? 2
                                  : 1,
                     .type = type,
                     .bytes = bytes,
                     .data = calloc(1, bytes + 1)};
  snprintf(t->name, sizeof t->name, "%s", name);
  return t;
}

static void free_tensors(void) {
  while (tensor_count) free(tensors[--tensor_count].data);
}

/* Metadata: architecture, alignment, some that the reader steps over, and top-k. */
static void put_keys(const char *architecture, size_t experts) {
  static const struct {
    int type;
    size_t bytes;
  } others[] = {{0, 1}, {1, 1}, {2, 2}, {3, 2}, {5, 4}, {6, 4}, {10, 8}, {11, 8}, {12, 8}};
  char key[80];
  put_key_text("general.architecture", architecture);
  put_key_u32("general.alignment", ALIGNMENT);
  put_text("tokenizer.ggml.tokens");
  put_le(9, 4), put_le(8, 4), put_le(3, 8);
  put_text("a"), put_text(""), put_text("\xff\xfe");
  put_text("tokenizer.ggml.scores");
  put_le(9, 4), put_le(6, 4), put_le(3, 8), put_zeros(12);
  put_text("some.flag");
  put_le(7, 4), put_le(1, 1);
  for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
    snprintf(key, sizeof key, "some.type_%d", others[i].type);
    put_text(key);
    put_le((uint64_t)others[i].type, 4), put_le(0xfedcba9876543210, others[i].bytes);
  }
  snprintf(key, sizeof key, "%s.expert_used_count", architecture);
  put_key_u32(key, 2);
  snprintf(key, sizeof key, "%s.expert_count", architecture);
  put_key_u32(key, (uint32_t)experts);
}
enum { KEYS = 16 };

static void put_info(const gguf_tensor *t, size_t offset) {
  put_text(t->name);
  put_le(t->rank, 4);
  for (size_t i = 0; i < t->rank; i++) put_le(t->dims[i], 8);
  put_le(t->type, 4);
  put_le(offset, 8);
}

/* All tensors as one file in `out`. */
static void put_gguf(const char *architecture, size_t experts) {
  size_t offset = 0;
  out.n = 0;
  put("GGUF", 4);
  put_le(3, 4), put_le(tensor_count, 8), put_le(KEYS, 8);
  put_keys(architecture, experts);
  for (size_t i = 0; i < tensor_count; offset += aligned(tensors[i++].bytes))
    put_info(&tensors[i], offset);
  put_zeros(aligned(out.n) - out.n);
  for (size_t i = 0; i < tensor_count; i++) {
    put(tensors[i].data, tensors[i].bytes);
    put_zeros(aligned(tensors[i].bytes) - tensors[i].bytes);
  }
}

static void write_out(const char *path) {
  FILE *f = fopen(path, "wb");
  if (!f || fwrite(out.bytes, 1, out.n, f) != out.n || fclose(f)) abort();
}

/* ---- A layer as GGUF tensors ---- */

static uint8_t code_at(const uint8_t *codes, size_t k) {
  return k % 2 ? codes[k / 2] >> 4 : codes[k / 2] & 15;
}

/* Rows of checkpoint codes and scales as blocks: value k of a group is in byte k % half. */
static void put_blocks(const random_layer *m, size_t p, uint8_t *to) {
  const size_t groups = m->group == 32 ? 1 : 4, half = m->group / 2, k = m->k[p];
  for (size_t row = 0; row < m->desc.experts * m->n[p]; row++)
    for (size_t b = 0; b < k / (groups * m->group); b++, to += groups * (1 + half))
      for (size_t g = 0; g < groups; g++) {
        size_t group = b * groups + g;
        to[g] = m->scales[p][row * (k / m->group) + group];
        for (size_t i = 0; i < m->group; i++)
          to[groups + g * half + i % half] |=
              (uint8_t)(code_at(m->codes[p] + row * k / 2, group * m->group + i)
                        << (i < half ? 0 : 4));
      }
}

static void add_layer(const random_layer *m) {
  static const char *const names[] = {"gate", "up", "down"};
  const size_t e = m->desc.experts;
  char name[64];
  add_tensor("blk.4.ffn_gate_inp.weight", F32, 4 * e * m->desc.hidden, m->desc.hidden, e, 0);
  add_tensor("blk.4.ffn_norm.weight", F32, 4 * m->desc.hidden, m->desc.hidden, 0, 0);
  for (size_t p = m->desc.activation.gated ? 0 : 1; p < 3; p++) {
    const size_t values = e * m->n[p] * m->k[p];
    snprintf(name, sizeof name, "blk.4.ffn_%s_exps.weight", names[p]);
    put_blocks(m, p,
               add_tensor(name, m->group == 32 ? MXFP4 : NVFP4,
                          m->group == 32 ? values / 32 * 17 : values / 64 * 36, m->k[p], m->n[p], e)
                   ->data);
    snprintf(name, sizeof name, "blk.4.ffn_%s_exps.scale", names[p]);
    if (m->group == 16) memcpy(add_tensor(name, F32, 4 * e, e, 0, 0)->data, m->global[p], 4 * e);
    snprintf(name, sizeof name, "blk.4.ffn_%s_exps.bias", names[p]);
    if (m->biases)
      memcpy(add_tensor(name, F32, 4 * e * m->n[p], m->n[p], e, 0)->data, m->bias[p],
             4 * e * m->n[p]);
  }
}

static random_layer *new_layer(fp4moe_format format, size_t hidden, size_t intermediate, int biases,
                               int gated, size_t experts) {
  fp4moe_layer_desc desc = {
      .struct_size = sizeof desc,
      .hidden = hidden,
      .intermediate = intermediate,
      .experts = experts,
      .format = format,
      .precision = FP4MOE_PRECISION_BF16,
      .activation = {.kind = gated ? FP4MOE_SILU : FP4MOE_RELU2, .gated = gated}};
  return random_layer_new(&desc, biases, NULL);
}

void io_put_gguf(const char *path) {
  random_layer *m = new_layer(FP4MOE_NVFP4, 64, 128, 0, 1, 3);
  add_layer(m);
  put_gguf("deepseek4", 3);
  write_out(path);
  free_tensors();
  random_layer_free(m);
}

void io_put_gguf_matrix(const char *path, const random_layer *m, const char *name) {
  char full[64];
  snprintf(full, sizeof full, "%s.weight", name);
  put_blocks(m, 1, add_tensor(full, MXFP4, m->n[1] * m->k[1] / 32 * 17, m->k[1], m->n[1], 0)->data);
  put_gguf("qwen3moe", m->desc.experts);
  write_out(path);
  free_tensors();
}

/* ---- Good files ---- */

static void test_layers(void) {
  static const struct {
    fp4moe_format format;
    size_t hidden, intermediate;
    int biases, gated;
    const char *family;
  } cases[] = {
      {FP4MOE_MXFP4, 96, 64, 1, 1, "MXFP4 (GGUF)"},
      {FP4MOE_MXFP4, 64, 160, 0, 0, "MXFP4 (GGUF, no gate)"},
      {FP4MOE_NVFP4, 64, 192, 0, 1, "NVFP4 (GGUF)"},
      {FP4MOE_NVFP4, 128, 64, 1, 0, "NVFP4 (GGUF, no gate)"},
      {FP4MOE_MXFP4, 2048, 2080, 0, 1, "MXFP4 (GGUF)"}, /* strips */
  };
  io_scratch_open();
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    random_layer *m = new_layer(cases[i].format, cases[i].hidden, cases[i].intermediate,
                                cases[i].biases, cases[i].gated, 3);
    add_layer(m);
    put_gguf(cases[i].gated ? "qwen3moe" : "nemotron_h_moe", 3);
    write_out(io_at("a.gguf"));
    io_same_layer(m, io_at("a.gguf"), cases[i].family);
    free_tensors();
    random_layer_free(m);
  }
  io_scratch_close();
}

/* The tensors of a layer as floats: each code times its scale and global, rounded once. */
static void compare_floats(const random_layer *m, size_t p) {
  static const char *const names[] = {"gate", "up", "down"};
  const size_t rows = m->n[p], k = m->k[p], e = m->desc.experts;
  fp4moe_tensors *set = NULL;
  struct io_fp4 found;
  char name[64];
  snprintf(name, sizeof name, "blk.4.ffn_%s_exps.weight", names[p]);
  CHECK(!fp4moe_tensors_open(io_at("a.gguf"), &set), "%s", fp4moe_error_detail());
  CHECK(!fp4moe_io_fp4_find(set, name, &found), "%s", fp4moe_error_detail());
  float *got = calloc(e * rows * k, sizeof *got);
  CHECK(fp4moe_io_fp4_count(&found) == e * rows * k && found.rank == 3 && found.shape[0] == e &&
            found.shape[1] == rows && found.shape[2] == k,
        "%s: %zu floats", name, fp4moe_io_fp4_count(&found));
  CHECK(!fp4moe_io_fp4_read(set, &found, FP4MOE_F32, got), "%s", fp4moe_error_detail());
  for (size_t i = 0; i < e * rows * k; i++) {
    uint8_t scale = m->scales[p][i / m->group];
    double value = (double)fp4_e2m1(code_at(m->codes[p] + i / k * (k / 2), i % k));
    value *= (double)(m->group == 32 ? fp4_e8m0(scale) : fp4_e4m3(scale));
    if (m->group == 16) value *= (double)m->global[p][i / (rows * k)];
    if (!CHECK(got[i] == (float)value, "%s [%zu] is %g, not %g", name, i, (double)got[i], value))
      break;
  }
  free(got);
  fp4moe_io_fp4_release(&found);
  fp4moe_tensors_close(set);
}

static void test_floats(void) {
  io_scratch_open();
  for (int format = FP4MOE_MXFP4; format <= (int)FP4MOE_NVFP4; format++) {
    random_layer *m = new_layer((fp4moe_format)format, 64, 128, 0, 1, 3);
    add_layer(m);
    put_gguf("qwen3moe", 3);
    write_out(io_at("a.gguf"));
    for (size_t p = 0; p < 3; p++) compare_floats(m, p);
    free_tensors();
    random_layer_free(m);
  }
  io_scratch_close();
}

/* The real gpt-oss layer, its rows sorted into gate and up. */
static random_layer *read_gptoss(void) {
  static bundle m;
  bundle_read(&m, io_data_path("gptoss_mxfp4"));
  random_layer *to = new_layer(FP4MOE_MXFP4, 128, 96, 1, 1, 4);
  const fp4moe_tensor_data *codes[] = {bundle_find(&m, "gate_up_proj_blocks"),
                                       bundle_find(&m, "down_proj_blocks")};
  const fp4moe_tensor_data *scales[] = {bundle_find(&m, "gate_up_proj_scales"),
                                        bundle_find(&m, "down_proj_scales")};
  const fp4moe_tensor_data *bias[] = {bundle_find(&m, "gate_up_proj_bias"),
                                      bundle_find(&m, "down_proj_bias")};
  for (size_t p = 0; p < 3; p++)
    for (size_t row = 0; row < 4 * to->n[p]; row++) {
      size_t from = p == 2 ? row : 2 * row + p, k = to->k[p], d = p / 2;
      memcpy(to->codes[p] + row * k / 2, (const uint8_t *)codes[d]->data + from * k / 2, k / 2);
      memcpy(to->scales[p] + row * k / 32, (const uint8_t *)scales[d]->data + from * k / 32,
             k / 32);
      uint32_t bits = (uint32_t)((const uint16_t *)bias[d]->data)[from] << 16;
      memcpy(&to->bias[p][row], &bits, 4);
    }
  bundle_free(&m);
  return to;
}

/* In both forms, under the real activation: the same bits. */
static void test_gptoss(void) {
  io_scratch_open();
  random_layer *m = read_gptoss();
  m->desc.activation = (fp4moe_activation){FP4MOE_SWIGLU_OAI, 1, 1.702f, 1, 7, 0};
  add_layer(m);
  put_gguf("gpt-oss", 4);
  write_out(io_at("a.gguf"));
  io_same_layer(m, io_data_path("gptoss_mxfp4"), "MXFP4 (gpt-oss)");
  io_same_layer(m, io_at("a.gguf"), "MXFP4 (GGUF)");
  fp4moe_checkpoint *ckpt = io_open_checkpoint(io_at("a.gguf"));
  const fp4moe_checkpoint_layer *l = fp4moe_checkpoint_at(ckpt, 0);
  CHECK(l->layer == 4 && !strcmp(l->prefix, "blk.4") && l->status == FP4MOE_OK, "%s", l->reason);
  CHECK(l->top_k == 2 && l->desc.activation.kind == FP4MOE_SWIGLU_OAI &&
            l->desc.activation.alpha == 1.702f && l->desc.activation.limit == 7,
        "top_k %zu, activation %d", l->top_k, (int)l->desc.activation.kind);
  fp4moe_checkpoint_close(ckpt);
  free_tensors();
  random_layer_free(m);
  io_scratch_close();
}

/* ---- What the architecture says ---- */

static void test_architectures(void) {
  static const struct {
    const char *name;
    fp4moe_status status;
    fp4moe_activation activation;
    int on_input;
    const char *says;
  } cases[] = {
      {"qwen3moe", FP4MOE_OK, {FP4MOE_SILU, 1, 0, 0, 0, 0}, 0, ""},
      {"gptoss", FP4MOE_OK, {FP4MOE_SWIGLU_OAI, 1, 1.702f, 1, 7, 0}, 0, ""},
      {"llama4", FP4MOE_OK, {FP4MOE_SILU, 1, 0, 0, 0, 0}, 1, ""},
      {"deepseek4", FP4MOE_OK, {FP4MOE_SILU, 1, 0, 0, 10, 0}, 0, ""},
      {"never-heard",
       FP4MOE_UNSUPPORTED,
       {FP4MOE_ACTIVATION_UNKNOWN, 1, 0, 0, 0, 0},
       0,
       "architecture never-heard"},
  };
  random_layer *m = new_layer(FP4MOE_MXFP4, 32, 32, 0, 1, 3);
  io_scratch_open();
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    add_layer(m);
    put_gguf(cases[i].name, 3);
    write_out(io_at("a.gguf"));
    fp4moe_checkpoint *ckpt = io_open_checkpoint(io_at("a.gguf"));
    const fp4moe_checkpoint_layer *l = fp4moe_checkpoint_at(ckpt, 0);
    io_says(l->status, cases[i].status, l->reason, cases[i].says, cases[i].name);
    CHECK(l->fp4 && l->desc.router_weight_on_input == cases[i].on_input &&
              l->desc.activation.kind == cases[i].activation.kind &&
              l->desc.activation.limit == cases[i].activation.limit,
          "%s: fp4 %d, activation %d", cases[i].name, l->fp4, (int)l->desc.activation.kind);
    fp4moe_checkpoint_close(ckpt);
    free_tensors();
  }
  io_scratch_close();
  random_layer_free(m);
}

/* ---- Layers that are refused ---- */

static gguf_tensor *find(const char *ending) {
  for (size_t i = 0; i < tensor_count; i++) {
    size_t length = strlen(tensors[i].name), tail = strlen(ending);
    if (length >= tail && strcmp(tensors[i].name + length - tail, ending) == 0) return &tensors[i];
  }
  abort();
}

static fp4moe_status load(const char *path) {
  fp4moe_checkpoint *ckpt = NULL;
  fp4moe_context *ctx;
  fp4moe_layer *layer = NULL;
  fp4moe_status status = fp4moe_checkpoint_open(path, &ckpt);
  if (status) return status;
  CHECK(!fp4moe_context_create(NULL, &ctx), "%s", fp4moe_error_detail());
  status = fp4moe_checkpoint_load_layer(ckpt, 0, ctx, NULL, &layer);
  fp4moe_layer_destroy(layer);
  fp4moe_context_destroy(ctx);
  fp4moe_checkpoint_close(ckpt);
  return status;
}

static void refuse(fp4moe_status status, const char *words) {
  put_gguf("qwen3moe", 3);
  write_out(io_at("a.gguf"));
  io_says(load(io_at("a.gguf")), status, fp4moe_error_detail(), words, words);
  free_tensors();
}

static void test_refused(void) {
  random_layer *mx = new_layer(FP4MOE_MXFP4, 64, 32, 1, 1, 3);
  random_layer *nv = new_layer(FP4MOE_NVFP4, 64, 64, 0, 1, 3);
  random_layer *bare = new_layer(FP4MOE_MXFP4, 64, 32, 0, 0, 3);
  const float inf = 1.0f / 0.0f;
  io_scratch_open();
  add_layer(mx);
  snprintf(find("up_exps.bias")->name, 64, "blk.4.ffn_up.bias");
  refuse(FP4MOE_INVALID, "'blk.4.ffn_up_exps.bias' is missing");
  add_layer(mx);
  snprintf(find("up_exps.bias")->name, 64, "blk.4.ffn_gate_up_exps.bias");
  refuse(FP4MOE_INVALID, "'blk.4.ffn_up_exps.bias' is missing");
  add_layer(mx);
  snprintf(find("norm.weight")->name, 64, "blk.4.ffn_gate_up_exps.bias");
  refuse(FP4MOE_INVALID, "'blk.4.ffn_gate_up_exps.bias'");
  add_layer(mx);
  free(find("gate_exps.weight")->data);
  *find("gate_exps.weight") =
      (gguf_tensor){"blk.4.ffn_gate_exps.weight", {64, 32, 3},           3, 8,
                    64 * 32 * 3 / 32 * 34,        calloc(64 * 32 * 3, 2)};
  refuse(FP4MOE_INVALID, "'blk.4.ffn_gate_exps.weight' has dtype Q8_0, expected MXFP4");
  add_layer(mx);
  find("down_exps.weight")->dims[0] = 64;
  find("down_exps.weight")->dims[1] = 32;
  refuse(FP4MOE_INVALID, "[3, 32, 64], expected [3, 64, 32]");
  add_layer(mx);
  find("gate_exps.weight")->data[17 * 4] = 255;
  refuse(FP4MOE_INVALID, "'blk.4.ffn_gate_exps.weight': expert 0: gate scale [2][0]");
  add_layer(nv);
  memcpy(find("down_exps.scale")->data + 4, &inf, 4);
  refuse(FP4MOE_INVALID, "'blk.4.ffn_down_exps.scale' is inf at index 1");
  add_layer(nv);
  snprintf(find("down_exps.scale")->name, 64, "other");
  refuse(FP4MOE_INVALID, "'blk.4.ffn_down_exps.scale' is missing");
  add_layer(bare);
  refuse(FP4MOE_INVALID, "'blk.4.ffn_gate_exps.weight' is missing");
  add_layer(mx);
  put_gguf("qwen3moe", 4);
  write_out(io_at("a.gguf"));
  io_says(load(io_at("a.gguf")), FP4MOE_INVALID, fp4moe_error_detail(), "expert_count is 4",
          "expert_count");
  free_tensors();
  io_scratch_close();
  random_layer_free(mx);
  random_layer_free(nv);
  random_layer_free(bare);
}

/* ---- Broken headers ---- */

/* A header by hand: magic, version, counts; then the parts. */
static void begin(uint32_t version, uint64_t count, uint64_t keys) {
  out.n = 0;
  put("GGUF", 4);
  put_le(version, 4), put_le(count, 8), put_le(keys, 8);
}

static void info(const char *name, uint32_t rank, uint64_t dim, uint32_t type, uint64_t offset) {
  put_text(name);
  put_le(rank, 4);
  for (uint32_t i = 0; i < rank && i < 8; i++) put_le(i ? 1 : dim, 8);
  put_le(type, 4), put_le(offset, 8);
}

static void data(size_t bytes) {
  put_zeros((out.n + 31) / 32 * 32 - out.n);
  put_zeros(bytes);
}

static void opens(fp4moe_status want, const char *words) {
  fp4moe_tensors *set = NULL;
  write_out(io_at("a.gguf"));
  fp4moe_status status = fp4moe_tensors_open(io_at("a.gguf"), &set);
  io_says(status, want, status ? fp4moe_error_detail() : "", words, words);
  fp4moe_tensors_close(set);
}

static void test_counts(void) {
  const uint64_t huge = UINT64_MAX;
  io_scratch_open();
  begin(3, 0, 0), opens(FP4MOE_OK, "");
  out.n = 20, opens(FP4MOE_INVALID, "wanted at byte 16");
  out.n = 4, opens(FP4MOE_INVALID, "wanted at byte 4");
  begin(2, 0, 0), opens(FP4MOE_UNSUPPORTED, "version 2");
  begin(3, huge, 0), opens(FP4MOE_INVALID, "18446744073709551615 tensors wanted");
  begin(3, 0, huge), opens(FP4MOE_INVALID, "18446744073709551615 keys wanted");
  begin(3, 2, 0), put_zeros(49), opens(FP4MOE_INVALID, "2 tensors wanted");
  begin(3, 0, 70000), put_zeros(70000 * 14), opens(FP4MOE_INVALID, "at most 1048576 and 65536");
  begin(3, 0, 1), put_le(huge, 8), put_zeros(20), opens(FP4MOE_INVALID, "key of 1844674407370");
  begin(3, 0, 1), put_le(0, 8), put_zeros(20), opens(FP4MOE_INVALID, "key of 0 bytes");
  begin(3, 0, 1), put_le(65535, 8), put_zeros(20), opens(FP4MOE_INVALID, "65535 bytes wanted");
  begin(3, 0, 1), put_text("\xff"), put_zeros(20), opens(FP4MOE_INVALID, "plain UTF-8");
  begin(3, 0, 1), put_text("a\n"), put_zeros(20), opens(FP4MOE_INVALID, "plain UTF-8");
  begin(3, 0, 1), put_text("k"), put_le(13, 4), put_le(0, 8), opens(FP4MOE_INVALID, "type 13");
  begin(3, 0, 1), put_text("k"), put_le(8, 4), put_le(huge, 8), opens(FP4MOE_INVALID, "of text");
  begin(3, 0, 1), put_text("k"), put_le(9, 4), put_le(9, 4), put_le(1, 8);
  opens(FP4MOE_INVALID, "array of type 9");
  begin(3, 0, 1), put_text("k"), put_le(9, 4), put_le(8, 4), put_le(huge, 8);
  opens(FP4MOE_INVALID, "strings wanted");
  begin(3, 0, 1), put_text("k"), put_le(9, 4), put_le(6, 4), put_le(huge / 4 + 1, 8);
  opens(FP4MOE_INVALID, "floats wanted");
  begin(3, 0, 1), put_text("k"), put_le(9, 4), put_le(12, 4), put_le(huge / 8 + 1, 8);
  opens(FP4MOE_INVALID, "values wanted");
  begin(3, 0, 2), put_key_u32("k", 1), put_key_u32("k", 1);
  opens(FP4MOE_INVALID, "duplicate key 'k'");
  io_scratch_close();
}

static void test_alignment(void) {
  static const uint32_t bad[] = {0, 3, 48, 1 << 21, UINT32_MAX};
  char words[64];
  io_scratch_open();
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    snprintf(words, sizeof words, "general.alignment %u", bad[i]);
    begin(3, 0, 1), put_key_u32("general.alignment", bad[i]), opens(FP4MOE_INVALID, words);
  }
  begin(3, 0, 1), put_key_text("general.alignment", "32");
  opens(FP4MOE_INVALID, "general.alignment 0");
  begin(3, 1, 1), put_key_u32("general.alignment", 1), info("a", 1, 3, 24, 0), put_zeros(3);
  opens(FP4MOE_OK, "");
  io_scratch_close();
}

static void test_tensors(void) {
  io_scratch_open();
  begin(3, 1, 0), info("a", 1, 5, 24, 0), data(5), opens(FP4MOE_OK, "");
  begin(3, 1, 0), info("a", 1, 5, 24, 0), data(32), opens(FP4MOE_OK, "");
  begin(3, 1, 0), info("a", 0, 0, F32, 0), data(4), opens(FP4MOE_OK, "");
  begin(3, 1, 0), info("a", 1, 0, F32, 0), data(0), opens(FP4MOE_OK, "");
  begin(3, 1, 0), info("a", 1, 5, 24, 0), data(4), opens(FP4MOE_INVALID, "file has 4 of data");
  begin(3, 1, 0), info("a", 1, 5, 24, 0), data(6), opens(FP4MOE_INVALID, "but the file has 6");
  begin(3, 1, 0), info("a", 1, 5, 24, 0), data(33), opens(FP4MOE_INVALID, "but the file has 33");
  begin(3, 0, 0), data(40), opens(FP4MOE_INVALID, "0 bytes, but the file has 40");
  begin(3, 1, 0), info("a", 5, 1, 24, 0), data(1), opens(FP4MOE_INVALID, "5 dimensions");
  begin(3, 1, 0), info("a", UINT32_MAX, 1, 24, 0), data(1), opens(FP4MOE_INVALID, "dimensions");
  begin(3, 1, 0), info("a", 1, 40, MXFP4, 0), data(34), opens(FP4MOE_INVALID, "blocks of 32");
  begin(3, 1, 0), info("a", 1, 32, NVFP4, 0), data(18), opens(FP4MOE_INVALID, "blocks of 64");
  begin(3, 1, 0), info("a", 1, INT64_MAX, F32, 0), data(4), opens(FP4MOE_INVALID, "overflows");
  begin(3, 1, 0), info("a", 1, UINT64_MAX, 24, 0), data(4), opens(FP4MOE_INVALID, "dimension 0");
  begin(3, 1, 0), put_text("a"), put_le(3, 4);
  for (int i = 0; i < 3; i++) put_le((uint64_t)1 << 32, 8);
  put_le(24, 4), put_le(0, 8), data(0), opens(FP4MOE_INVALID, "overflows");
  begin(3, 1, 0), info("a", 1, 1, 24, 1), data(2), opens(FP4MOE_INVALID, "multiple of 32");
  begin(3, 1, 0), info("a", 1, 1, 24, 32), data(33), opens(FP4MOE_INVALID, "a hole");
  begin(3, 1, 0), info("a", 1, 1, 24, (uint64_t)1 << 63), data(1), opens(FP4MOE_INVALID, "a hole");
  begin(3, 2, 0), info("a", 1, 1, 24, 0), info("b", 1, 1, 24, 0), data(64);
  opens(FP4MOE_INVALID, "overlap");
  begin(3, 2, 0), info("a", 1, 33, 24, 0), info("b", 1, 1, 24, 32), data(64);
  opens(FP4MOE_INVALID, "overlap");
  begin(3, 2, 0), info("a", 1, 1, 24, 0), info("a", 1, 1, 24, 32), data(33);
  opens(FP4MOE_INVALID, "two tensors are called 'a'");
  begin(3, 1, 0), info("", 1, 1, 24, 0), data(1), opens(FP4MOE_INVALID, "tensor name of 0 bytes");
  begin(3, 1, 0), put_le(256, 8), put_zeros(300), opens(FP4MOE_INVALID, "name of 256 bytes");
  begin(3, 1, 0), info("a\xc0\xaf", 1, 1, 24, 0), data(1), opens(FP4MOE_INVALID, "plain UTF-8");
  io_scratch_close();
}

/* A type that is not known is listed with the room it has; only its use is refused. */
static void test_unknown_type(void) {
  fp4moe_tensors *set = NULL;
  io_scratch_open();
  begin(3, 3, 0), info("b", 1, 7, 24, 64), info("a", 2, 7, 77, 0), info("c", 1, 9, 4, 96),
      data(101);
  write_out(io_at("a.gguf"));
  if (CHECK(!fp4moe_tensors_open(io_at("a.gguf"), &set), "%s", fp4moe_error_detail())) {
    const fp4moe_tensor *a = fp4moe_tensors_find(set, "a"), *c = fp4moe_tensors_find(set, "c");
    CHECK(a->bytes == 64 && !strcmp(a->dtype, "GGML?") && a->rank == 2 && a->shape[1] == 7,
          "%zu bytes of %s", a->bytes, a->dtype);
    CHECK(c->bytes == 5 && fp4moe_tensors_find(set, "b")->bytes == 7, "%zu bytes", c->bytes);
  }
  fp4moe_tensors_close(set);
  io_scratch_close();
}

/* Every cut of a good file is refused, and random changes give any answer but a fault. */
static void test_fuzz(void) {
  random_layer *m = new_layer(FP4MOE_NVFP4, 64, 64, 1, 1, 3);
  io_scratch_open();
  add_layer(m);
  put_gguf("qwen3moe", 3);
  const size_t whole = out.n;
  size_t header = whole;
  for (size_t i = 0; i < tensor_count; i++) header -= aligned(tensors[i].bytes);
  uint8_t *good = memcpy(malloc(whole), out.bytes, whole);
  for (size_t n = 4; n < whole - ALIGNMENT; n += n < header ? 3 : 997) {
    out.n = n;
    write_out(io_at("a.gguf"));
    CHECK(load(io_at("a.gguf")) == FP4MOE_INVALID, "cut at %zu", n);
  }
  for (size_t round = 0; round < 400; round++) {
    memcpy(out.bytes, good, out.n = whole);
    for (size_t i = 0, n = 1 + check_below(3); i < n; i++)
      out.bytes[4 + check_below(header - 4)] = (uint8_t)(check_below(2) ? 255 : check_random());
    write_out(io_at("a.gguf"));
    fp4moe_checkpoint *ckpt = NULL;
    fp4moe_status status = fp4moe_checkpoint_open(io_at("a.gguf"), &ckpt);
    CHECK((status == FP4MOE_OK) == (ckpt != NULL), "round %zu", round);
    fp4moe_checkpoint_close(ckpt);
  }
  free(good);
  free_tensors();
  random_layer_free(m);
  io_scratch_close();
}

/* ---- Models of several files ---- */

static void put_shard(const char *name, size_t no, size_t count, size_t total, const char *tensor) {
  begin(3, 1, 4);
  put_key_text("general.architecture", "qwen3moe");
  put_key_u32("split.no", (uint32_t)no), put_key_u32("split.count", (uint32_t)count);
  put_key_u32("split.tensors.count", (uint32_t)total);
  info(tensor, 1, 8, 24, 0), data(8);
  write_out(io_at(name));
}

static void try_shards(fp4moe_status want, const char *name, const char *words) {
  fp4moe_tensors *set = NULL;
  fp4moe_status status = fp4moe_tensors_open(io_at(name), &set);
  io_says(status, want, status ? fp4moe_error_detail() : "", words, words);
  CHECK(status || fp4moe_tensors_count(set) == 2, "%zu tensors", fp4moe_tensors_count(set));
  fp4moe_tensors_close(set);
}

static void test_split(void) {
  static const char one[] = "m-00001-of-00002.gguf", two[] = "m-00002-of-00002.gguf";
  io_scratch_open();
  put_shard(one, 0, 2, 2, "a");
  try_shards(FP4MOE_SYSTEM, one, two);
  put_shard(two, 1, 2, 2, "b");
  try_shards(FP4MOE_OK, one, "");
  try_shards(FP4MOE_INVALID, two, "open the first, *-00001-of-00002.gguf");
  put_shard(two, 1, 2, 2, "a");
  try_shards(FP4MOE_INVALID, one, "'a' is in two files");
  put_shard(two, 0, 2, 2, "b");
  try_shards(FP4MOE_INVALID, one, "split.no 0");
  put_shard(two, 1, 2, 2, "b");
  put_shard(one, 0, 2, 3, "a");
  try_shards(FP4MOE_INVALID, one, "split.tensors.count is 3");
  put_shard("other.gguf", 0, 2, 2, "a");
  try_shards(FP4MOE_INVALID, "other.gguf", "open the first");
  put_shard(one, 0, UINT32_MAX, 2, "a");
  try_shards(FP4MOE_INVALID, one, "of 4294967295");
  io_scratch_close();
}

void check_io_gguf(CU_pSuite suite) {
  static const struct {
    const char *name;
    void (*test)(void);
  } tests[] = {
      {"gguf layers", test_layers},
      {"gguf floats", test_floats},
      {"gguf gpt-oss", test_gptoss},
      {"gguf architectures", test_architectures},
      {"gguf refused", test_refused},
      {"gguf counts", test_counts},
      {"gguf alignment", test_alignment},
      {"gguf tensors", test_tensors},
      {"gguf unknown type", test_unknown_type},
      {"gguf fuzz", test_fuzz},
      {"gguf split", test_split},
  };
  for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
    check_test(suite, tests[i].name, tests[i].test);
}
