/* gguf_open.c - a GGUF model of one file or several, and what its metadata say as config.json
 * would.
 *
 * A split model names its files <base>-00001-of-000NN.gguf and counts them in split.count; the
 * first has the metadata. The activation follows from the architecture, as it does in the programs
 * that wrote the file: an architecture that is not listed here is one whose activation is not
 * known. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/gguf.h"
#include "status.h"

static const struct {
  const char *name, *model_type, *hidden_act;
  double limit;
} architectures[] = {
    {"gpt-oss", "gpt_oss", "silu", 0},
    {"gptoss", "gpt_oss", "silu", 0},
    {"llama4", "llama4", "silu", 0},
    {"deepseek4", "deepseek_v4", "silu", 10},
    {"gemma4", "gemma4", "gelu_pytorch_tanh", 0},
    {"nemotron_h_moe", "nemotron_h", "relu2", 0},
    {"grok", "grok", "gelu", 0},
};

/* Those whose experts are down(silu(gate) * up). */
static const char *const silu_architectures[] = {
    "llama",      "arctic",      "dbrx",         "qwen2moe",    "qwen3moe",      "qwen3vlmoe",
    "qwen3next",  "qwen35moe",   "phimoe",       "olmoe",       "deepseek",      "deepseek2",
    "deepseek32", "glm4moe",     "glm-dsa",      "granitemoe",  "granitehybrid", "dots1",
    "bailingmoe", "bailingmoe2", "ernie4_5-moe", "hunyuan-moe", "jamba",         "lfm2moe",
    "minimax-m2", "mimo2",       "mistral4",     "kimi-linear", "exaone-moe",    "afmoe",
    "llada-moe",
};

static int is_silu(const char *name) {
  for (size_t i = 0; i < sizeof silu_architectures / sizeof *silu_architectures; i++)
    if (strcmp(silu_architectures[i], name) == 0) return 1;
  return 0;
}

/* hidden_act and what else the architecture says; 0: no memory. */
static int add_architecture(json_t *config, const char *name) {
  char text[IO_GGUF_NAME_BYTES + 40];
  for (size_t i = 0; i < sizeof architectures / sizeof *architectures; i++) {
    if (strcmp(architectures[i].name, name) != 0) continue;
    int failed =
        json_object_set_new(config, "model_type", json_string(architectures[i].model_type));
    failed |= json_object_set_new(config, "hidden_act", json_string(architectures[i].hidden_act));
    if (architectures[i].limit > 0)
      failed |= json_object_set_new(config, "swiglu_limit", json_real(architectures[i].limit));
    return !failed;
  }
  snprintf(text, sizeof text, "%s%s", is_silu(name) ? "" : "that of architecture ",
           is_silu(name) ? "silu" : name);
  return json_object_set_new(config, "hidden_act", json_string(text)) == 0;
}

/* "<architecture>.<word>" of the metadata, borrowed; NULL: absent. */
static json_t *lookup(json_t *metadata, const char *architecture, const char *word) {
  char key[IO_GGUF_NAME_BYTES + 64];
  snprintf(key, sizeof key, "%s.%s", architecture, word);
  return json_object_get(metadata, key);
}

/* A clamp of the experts is the limit of DeepSeek-V4, and elsewhere a function of its own. */
static int add_clamp(json_t *config, json_t *clamp) {
  int is_limit = json_object_get(config, "swiglu_limit") && json_is_number(clamp);
  if (!clamp || (json_is_number(clamp) && json_number_value(clamp) == 0 && !is_limit)) return 1;
  return json_object_set(config, is_limit ? "swiglu_limit" : "swiglu_limits",
                         json_is_null(clamp) ? json_true() : clamp) == 0;
}

/* The metadata that bear on the experts: general.architecture as model_type, hidden_act and limit,
 * sizes under their GGUF name without the architecture. NULL: no memory. */
static json_t *config_of(json_t *metadata) {
  static const char *const words[] = {"embedding_length", "expert_feed_forward_length",
                                      "expert_count", "expert_used_count", "moe_latent_size"};
  const char *name = json_string_value(json_object_get(metadata, "general.architecture"));
  json_t *config = json_object();
  int ok = config != NULL;
  if (!ok || !name) return config;
  ok = add_architecture(config, name);
  for (size_t i = 0; ok && i < sizeof words / sizeof *words; i++) {
    json_t *value = lookup(metadata, name, words[i]);
    if (value) ok = json_object_set(config, words[i], value) == 0;
  }
  if (ok) ok = add_clamp(config, lookup(metadata, name, "swiglu_clamp_exp"));
  if (ok) return config;
  json_decref(config);
  return NULL;
}

/* ---- Files ---- */

static fp4moe_status append(fp4moe_tensors *set, const char *path, json_t **metadata) {
  fp4moe_status status = fp4moe_io_tensors_file(set, path);
  int is_gguf = 0;
  if (status == FP4MOE_OK) status = fp4moe_io_is_gguf(&set->files[set->files_count - 1], &is_gguf);
  if (status != FP4MOE_OK) return status;
  if (!is_gguf) return fp4moe_fail(FP4MOE_INVALID, "%s: does not begin with 'GGUF'", path);
  return fp4moe_io_gguf_take(set, metadata);
}

static size_t split_value(json_t *metadata, const char *key) {
  json_t *value = json_object_get(metadata, key);
  return json_is_integer(value) && json_integer_value(value) >= 0
             ? (size_t)json_integer_value(value)
             : 0;
}

/* File i of count, whose path ends like that of the first. */
static fp4moe_status append_shard(fp4moe_tensors *set, const char *first, size_t i, size_t count) {
  enum { TAIL = sizeof "-00001-of-00002.gguf" - 1 };
  json_t *metadata = NULL;
  char *path = NULL;
  if (asprintf(&path, "%.*s-%05zu-of-%05zu.gguf", (int)(strlen(first) - TAIL), first, i + 1,
               count) < 0)
    return fp4moe_fail(FP4MOE_NO_MEMORY, "%s: path", first);
  fp4moe_status status = append(set, path, &metadata);
  size_t no = split_value(metadata, "split.no"), of = split_value(metadata, "split.count");
  if (status == FP4MOE_OK && (no != i || of != count))
    status =
        fp4moe_fail(FP4MOE_INVALID, "%s: split.no %zu and split.count %zu, expected %zu and %zu",
                    path, no, of, i, count);
  json_decref(metadata);
  free(path);
  return status;
}

/* The other files of a model whose first one was taken. */
static fp4moe_status append_shards(fp4moe_tensors *set, const char *path, json_t *metadata) {
  size_t count = split_value(metadata, "split.count"), no = split_value(metadata, "split.no");
  size_t tensors = split_value(metadata, "split.tensors.count");
  char tail[64];
  if (count <= 1) return FP4MOE_OK;
  snprintf(tail, sizeof tail, "-%05d-of-%05zu.gguf", 1, count);
  size_t length = strlen(path), ending = strlen(tail);
  if (no != 0 || count > 99999 || length < ending || strcmp(path + length - ending, tail) != 0)
    return fp4moe_fail(FP4MOE_INVALID, "%s: file %zu of %zu of a split model; open the first, *%s",
                       path, no + 1, count, tail);
  fp4moe_status status = FP4MOE_OK;
  for (size_t i = 1; status == FP4MOE_OK && i < count; i++)
    status = append_shard(set, path, i, count);
  if (status != FP4MOE_OK || !tensors || tensors == set->count) return status;
  return fp4moe_fail(FP4MOE_INVALID, "%s: split.tensors.count is %zu, but the files have %zu", path,
                     tensors, set->count);
}

fp4moe_status fp4moe_io_gguf_open(fp4moe_tensors *set, const char *path) {
  json_t *metadata = NULL;
  fp4moe_status status = append(set, path, &metadata);
  if (status == FP4MOE_OK) status = append_shards(set, path, metadata);
  if (status == FP4MOE_OK && !(set->config = config_of(metadata)))
    status = fp4moe_fail(FP4MOE_NO_MEMORY, "%s: metadata", path);
  json_decref(metadata);
  return status;
}
