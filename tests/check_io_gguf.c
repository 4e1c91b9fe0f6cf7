/* check_io_gguf.c - layers in GGUF files (gguf_file.h).
 *
 * Good files hold random weights, or those of a real layer, and must give the bits of the same
 * weights handed to the core. Bad ones have a tensor changed: each is refused by a text that names
 * it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fp4.h"
#include "gguf_file.h"
#include "io/floats.h"

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
  scratch_open();
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    random_layer *m = gguf_layer(cases[i].format, cases[i].hidden, cases[i].intermediate,
                                 cases[i].biases, cases[i].gated, 3);
    gguf_add_layer(m);
    gguf_put_all(cases[i].gated ? "qwen3moe" : "nemotron_h_moe", 3);
    gguf_write(scratch_at("a.gguf"));
    io_same_layer(m, scratch_at("a.gguf"), cases[i].family);
    gguf_free();
    random_layer_free(m);
  }
  scratch_close();
}

/* The tensors of a layer as floats: each code times its scale and global, rounded once. */
static void compare_floats(const random_layer *m, size_t p) {
  static const char *const names[] = {"gate", "up", "down"};
  const size_t rows = m->n[p], k = m->k[p], e = m->desc.experts;
  fp4moe_tensors *set = NULL;
  struct io_fp4 found;
  char name[64];
  snprintf(name, sizeof name, "blk.4.ffn_%s_exps.weight", names[p]);
  CHECK(!fp4moe_tensors_open(scratch_at("a.gguf"), &set), "%s", fp4moe_error_detail());
  CHECK(!fp4moe_io_fp4_find(set, name, &found), "%s", fp4moe_error_detail());
  float *got = calloc(e * rows * k, sizeof *got);
  CHECK(fp4moe_io_fp4_count(&found) == e * rows * k && found.rank == 3 && found.shape[0] == e &&
            found.shape[1] == rows && found.shape[2] == k,
        "%s: %zu floats", name, fp4moe_io_fp4_count(&found));
  CHECK(!fp4moe_io_fp4_read(set, &found, FP4MOE_F32, got), "%s", fp4moe_error_detail());
  for (size_t i = 0; i < e * rows * k; i++) {
    uint8_t scale = m->scales[p][i / m->group];
    double value = (double)fp4_e2m1(gguf_code(m->codes[p] + i / k * (k / 2), i % k));
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
  scratch_open();
  for (int format = FP4MOE_MXFP4; format <= (int)FP4MOE_NVFP4; format++) {
    random_layer *m = gguf_layer((fp4moe_format)format, 64, 128, 0, 1, 3);
    gguf_add_layer(m);
    gguf_put_all("qwen3moe", 3);
    gguf_write(scratch_at("a.gguf"));
    for (size_t p = 0; p < 3; p++) compare_floats(m, p);
    gguf_free();
    random_layer_free(m);
  }
  scratch_close();
}

/* The real gpt-oss layer, its rows sorted into gate and up. */
static random_layer *read_gptoss(void) {
  static bundle m;
  bundle_read(&m, io_data_path("gptoss_mxfp4"));
  random_layer *to = gguf_layer(FP4MOE_MXFP4, 128, 96, 1, 1, 4);
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
  scratch_open();
  random_layer *m = read_gptoss();
  m->desc.activation = (fp4moe_activation){FP4MOE_SWIGLU_OAI, 1, 1.702f, 1, 7, 0};
  gguf_add_layer(m);
  gguf_put_all("gpt-oss", 4);
  gguf_write(scratch_at("a.gguf"));
  io_same_layer(m, io_data_path("gptoss_mxfp4"), "MXFP4 (gpt-oss)");
  io_same_layer(m, scratch_at("a.gguf"), "MXFP4 (GGUF)");
  fp4moe_checkpoint *ckpt = io_open_checkpoint(scratch_at("a.gguf"));
  const fp4moe_checkpoint_layer *l = fp4moe_checkpoint_at(ckpt, 0);
  CHECK(l->layer == 4 && !strcmp(l->prefix, "blk.4") && l->status == FP4MOE_OK, "%s", l->reason);
  CHECK(l->top_k == 2 && l->desc.activation.kind == FP4MOE_SWIGLU_OAI &&
            l->desc.activation.alpha == 1.702f && l->desc.activation.limit == 7,
        "top_k %zu, activation %d", l->top_k, (int)l->desc.activation.kind);
  fp4moe_checkpoint_close(ckpt);
  gguf_free();
  random_layer_free(m);
  scratch_close();
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
  random_layer *m = gguf_layer(FP4MOE_MXFP4, 32, 32, 0, 1, 3);
  scratch_open();
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    gguf_add_layer(m);
    gguf_put_all(cases[i].name, 3);
    gguf_write(scratch_at("a.gguf"));
    fp4moe_checkpoint *ckpt = io_open_checkpoint(scratch_at("a.gguf"));
    const fp4moe_checkpoint_layer *l = fp4moe_checkpoint_at(ckpt, 0);
    io_says(l->status, cases[i].status, l->reason, cases[i].says, cases[i].name);
    CHECK(l->fp4 && l->desc.router_weight_on_input == cases[i].on_input &&
              l->desc.activation.kind == cases[i].activation.kind &&
              l->desc.activation.limit == cases[i].activation.limit,
          "%s: fp4 %d, activation %d", cases[i].name, l->fp4, (int)l->desc.activation.kind);
    fp4moe_checkpoint_close(ckpt);
    gguf_free();
  }
  scratch_close();
  random_layer_free(m);
}

/* ---- Layers that are refused ---- */

/* The tensor whose name ends so. */
static gguf_tensor *find(const char *ending) {
  for (size_t i = 0; i < gguf_count; i++) {
    size_t length = strlen(gguf_tensors[i].name), tail = strlen(ending);
    if (length >= tail && strcmp(gguf_tensors[i].name + length - tail, ending) == 0)
      return &gguf_tensors[i];
  }
  abort();
}

static fp4moe_status load(const char *path) {
  fp4moe_checkpoint *ckpt = NULL;
  fp4moe_status status = fp4moe_checkpoint_open(path, &ckpt);
  if (!status) status = io_load(ckpt);
  fp4moe_checkpoint_close(ckpt);
  return status;
}

static void refuse(fp4moe_status status, const char *words) {
  gguf_put_all("qwen3moe", 3);
  gguf_write(scratch_at("a.gguf"));
  io_says(load(scratch_at("a.gguf")), status, fp4moe_error_detail(), words, words);
  gguf_free();
}

static void test_refused(void) {
  random_layer *mx = gguf_layer(FP4MOE_MXFP4, 64, 32, 1, 1, 3);
  random_layer *nv = gguf_layer(FP4MOE_NVFP4, 64, 64, 0, 1, 3);
  random_layer *bare = gguf_layer(FP4MOE_MXFP4, 64, 32, 0, 0, 3);
  const float inf = 1.0f / 0.0f;
  scratch_open();
  gguf_add_layer(mx);
  snprintf(find("up_exps.bias")->name, 64, "blk.4.ffn_up.bias");
  refuse(FP4MOE_INVALID, "'blk.4.ffn_up_exps.bias' is missing");
  gguf_add_layer(mx);
  snprintf(find("up_exps.bias")->name, 64, "blk.4.ffn_gate_up_exps.bias");
  refuse(FP4MOE_INVALID, "'blk.4.ffn_up_exps.bias' is missing");
  gguf_add_layer(mx);
  snprintf(find("norm.weight")->name, 64, "blk.4.ffn_gate_up_exps.bias");
  refuse(FP4MOE_INVALID, "'blk.4.ffn_gate_up_exps.bias'");
  gguf_add_layer(mx);
  free(find("gate_exps.weight")->data);
  *find("gate_exps.weight") =
      (gguf_tensor){"blk.4.ffn_gate_exps.weight", {64, 32, 3},           3, 8,
                    64 * 32 * 3 / 32 * 34,        calloc(64 * 32 * 3, 2)};
  refuse(FP4MOE_INVALID, "'blk.4.ffn_gate_exps.weight' has dtype Q8_0, expected MXFP4");
  gguf_add_layer(mx);
  find("down_exps.weight")->dims[0] = 64;
  find("down_exps.weight")->dims[1] = 32;
  refuse(FP4MOE_INVALID, "[3, 32, 64], expected [3, 64, 32]");
  gguf_add_layer(mx);
  find("gate_exps.weight")->data[17 * 4] = 255;
  refuse(FP4MOE_INVALID, "'blk.4.ffn_gate_exps.weight': expert 0: gate scale [2][0]");
  gguf_add_layer(nv);
  memcpy(find("down_exps.scale")->data + 4, &inf, 4);
  refuse(FP4MOE_INVALID, "'blk.4.ffn_down_exps.scale' is inf at index 1");
  gguf_add_layer(nv);
  snprintf(find("down_exps.scale")->name, 64, "other");
  refuse(FP4MOE_INVALID, "'blk.4.ffn_down_exps.scale' is missing");
  gguf_add_layer(bare);
  refuse(FP4MOE_INVALID, "'blk.4.ffn_gate_exps.weight' is missing");
  gguf_add_layer(mx);
  gguf_put_all("qwen3moe", 4);
  gguf_write(scratch_at("a.gguf"));
  io_says(load(scratch_at("a.gguf")), FP4MOE_INVALID, fp4moe_error_detail(), "expert_count is 4",
          "expert_count");
  gguf_free();
  scratch_close();
  random_layer_free(mx);
  random_layer_free(nv);
  random_layer_free(bare);
}

/* ---- Files that are broken anywhere ---- */

/* Every cut of a good file is refused, and random changes give any answer but a fault. */
static void test_fuzz(void) {
  random_layer *m = gguf_layer(FP4MOE_NVFP4, 64, 64, 1, 1, 3);
  scratch_open();
  gguf_add_layer(m);
  gguf_put_all("qwen3moe", 3);
  const size_t whole = gguf.n;
  size_t header = whole;
  for (size_t i = 0; i < gguf_count; i++) header -= gguf_aligned(gguf_tensors[i].bytes);
  uint8_t *good = memcpy(malloc(whole), gguf.bytes, whole);
  for (size_t n = 4; n < whole - GGUF_ALIGNMENT; n += n < header ? 3 : 997) {
    gguf.n = n;
    gguf_write(scratch_at("a.gguf"));
    CHECK(load(scratch_at("a.gguf")) == FP4MOE_INVALID, "cut at %zu", n);
  }
  for (size_t round = 0; round < 400; round++) {
    memcpy(gguf.bytes, good, gguf.n = whole);
    for (size_t i = 0, n = 1 + check_below(3); i < n; i++)
      gguf.bytes[4 + check_below(header - 4)] = (uint8_t)(check_below(2) ? 255 : check_random());
    gguf_write(scratch_at("a.gguf"));
    fp4moe_checkpoint *ckpt = NULL;
    fp4moe_status status = fp4moe_checkpoint_open(scratch_at("a.gguf"), &ckpt);
    CHECK((status == FP4MOE_OK) == (ckpt != NULL), "round %zu", round);
    fp4moe_checkpoint_close(ckpt);
  }
  free(good);
  gguf_free();
  random_layer_free(m);
  scratch_close();
}

void check_io_gguf(CU_pSuite suite) {
  check_test(suite, "gguf layers", test_layers);
  check_test(suite, "gguf floats", test_floats);
  check_test(suite, "gguf gpt-oss", test_gptoss);
  check_test(suite, "gguf architectures", test_architectures);
  check_test(suite, "gguf refused", test_refused);
  check_test(suite, "gguf fuzz", test_fuzz);
}
