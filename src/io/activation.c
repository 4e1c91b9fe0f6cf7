/* activation.c - the activation of a layer: from config.json, else from the names of its tensors.
 *
 * A field of the config that changes the function is taken over or makes the activation
 * unsupported; none is dropped. gpt-oss is the one model whose hidden_act ("silu") does not tell
 * what it computes: its model_type or family does. Where neither config nor names tell, the
 * activation stays unknown and the caller must say: never a guess. */
#include "activation.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/config.h"
#include "io/tensors.h"
#include "status.h"

/* ---- From the names ---- */

/* The segment of the prefix before "experts", "" where there is none. */
static void parent_of(const struct io_layer *layer, char parent[32]) {
  const char *end = strrchr(layer->prefix, '.'), *at = end;
  while (at && at > layer->prefix && at[-1] != '.') at--;
  snprintf(parent, 32, "%.*s", at ? (int)(end - at) : 0, at ? at : "");
}

/* Experts right in the decoder layer are Gemma-4's, or Mistral's where they are w1, w2 and w3. In
 * a block_sparse_moe they may be of Mixtral and MiniMax-M2 (silu), MiniMax-M3 (swiglu_oai) or
 * Kimi-K3 (situ); in a moe of Step-3.5, silu or swiglustep by the layer. */
static fp4moe_activation from_names(const struct io_layer *layer) {
  fp4moe_activation activation = *layer->family->activation;
  char parent[32];
  parent_of(layer, parent);
  if (!strcmp(parent, "block_sparse_moe") || !strcmp(parent, "moe"))
    activation = (fp4moe_activation){.kind = FP4MOE_ACTIVATION_UNKNOWN, .gated = activation.gated};
  else if (*parent && !parent[strspn(parent, "0123456789")] && activation.gated &&
           strcmp(layer->family->projection[IO_DOWN], "w2"))
    activation = (fp4moe_activation){.kind = FP4MOE_GELU_TANH, .gated = 1};
  return activation;
}

/* ---- From config.json ---- */

static const struct {
  const char *word;
  fp4moe_activation_kind kind;
} words[] = {
    {"silu", FP4MOE_SILU},
    {"swish", FP4MOE_SILU},
    {"gelu", FP4MOE_GELU},
    {"gelu_pytorch_tanh", FP4MOE_GELU_TANH},
    {"gelu_tanh", FP4MOE_GELU_TANH},
    {"gelu_new", FP4MOE_GELU_TANH},
    {"relu2", FP4MOE_RELU2},
    {"swigluoai", FP4MOE_SWIGLU_OAI},
    {"swiglu_oai", FP4MOE_SWIGLU_OAI},
    {"swiglustep", FP4MOE_SWIGLUSTEP},
    {"situ", FP4MOE_SITU},
};
enum { WORDS = sizeof words / sizeof *words };

static const char *find_word(const struct io_config *config, const char **key) {
  static const char *const keys[] = {"mlp_hidden_act", "hidden_activation", "hidden_act"};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    json_t *value = fp4moe_io_config_get(config, *key = keys[i]);
    if (value) return json_is_string(value) ? json_string_value(value) : "(not a string)";
  }
  return NULL;
}

static fp4moe_status unknown_word(const struct io_config *config, const char *key,
                                  const char *word) {
  return fp4moe_fail(FP4MOE_UNSUPPORTED, "%s: no such activation: %s '%.60s'", config->path, key,
                     fp4moe_io_plain(word));
}

/* The kind that the config names, if it does. What the names told keeps its numbers; swiglu_oai has
 * numbers of its own, all others only those of the config. */
static fp4moe_status set_kind(const struct io_config *config, fp4moe_activation *activation) {
  const char *key, *word = find_word(config, &key);
  int i = 0;
  if (!word) return FP4MOE_OK;
  while (i < WORDS && strcmp(words[i].word, word)) i++;
  if (i == WORDS) return unknown_word(config, key, word);
  int oai_as_silu = activation->kind == FP4MOE_SWIGLU_OAI && words[i].kind == FP4MOE_SILU;
  if (oai_as_silu || words[i].kind == activation->kind) return FP4MOE_OK;
  int gated = activation->gated;
  *activation = (fp4moe_activation){.kind = words[i].kind, .gated = gated};
  if (words[i].kind == FP4MOE_SWIGLU_OAI) *activation = fp4moe_io_swiglu_oai;
  activation->gated = gated;
  return FP4MOE_OK;
}

static int has_limit(const fp4moe_activation *a) {
  return a->kind == FP4MOE_SWIGLU_OAI || a->kind == FP4MOE_SWIGLUSTEP ||
         (a->kind == FP4MOE_SILU && a->gated);
}

/* A finite number from 0 of the config; *number is left alone where the key is absent. */
static fp4moe_status get_number(const struct io_config *config, const char *key, json_t *value,
                                float *number) {
  if (!value) return FP4MOE_OK;
  double x = json_number_value(value);
  if (!json_is_number(value) || !isfinite((float)x) || x < 0)
    return fp4moe_fail(FP4MOE_INVALID, "%s: %s is no finite number from 0", config->path, key);
  *number = (float)x;
  return FP4MOE_OK;
}

/* The numbers of the config; a kind without the field admits only 0, which says nothing. */
static fp4moe_status set_fields(const struct io_config *config, fp4moe_activation *a) {
  const int oai = a->kind == FP4MOE_SWIGLU_OAI, situ = a->kind == FP4MOE_SITU;
  const struct {
    const char *key;
    int has;
    float *field;
  } fields[] = {{"swiglu_alpha", oai, &a->alpha},
                {"swiglu_beta", oai, &a->beta},
                {"swiglu_limit", has_limit(a), &a->limit},
                {"activation_situ_beta", situ, &a->beta},
                {"activation_situ_linear_beta", situ, &a->linear_beta}};
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
    const char *key = fields[i].key;
    float number = fields[i].has ? *fields[i].field : 0;
    fp4moe_status status = get_number(config, key, fp4moe_io_config_get(config, key), &number);
    if (status != FP4MOE_OK) return status;
    if (!fields[i].has && number != 0)
      return fp4moe_fail(FP4MOE_UNSUPPORTED, "%s: %s is %g, but %s has none", config->path, key,
                         (double)number, fp4moe_activation_name(a->kind));
    if (fields[i].has) *fields[i].field = number;
  }
  return FP4MOE_OK;
}

static int is_model(const struct io_config *config, const char *type) {
  const char *name = json_string_value(fp4moe_io_config_get(config, "model_type"));
  return name && strncmp(name, type, strlen(type)) == 0;
}

/* Step-3.5: one limit a layer; where it is not 0, silu is swiglustep. */
static fp4moe_status set_layer_limit(const struct io_config *config, size_t layer,
                                     fp4moe_activation *a) {
  json_t *limits = fp4moe_io_config_get(config, "swiglu_limits");
  float limit = 0;
  if (!limits) return FP4MOE_OK;
  if (!json_is_array(limits) || !is_model(config, "step3") || a->kind != FP4MOE_SILU || !a->gated)
    return fp4moe_fail(FP4MOE_UNSUPPORTED, "%s: swiglu_limits, which only the silu of step3 has",
                       config->path);
  json_t *own = json_array_get(limits, layer);
  fp4moe_status status =
      get_number(config, "swiglu_limits", json_is_null(own) ? NULL : own, &limit);
  if (status == FP4MOE_OK && limit > 0)
    *a = (fp4moe_activation){.kind = FP4MOE_SWIGLUSTEP, .gated = 1, .limit = limit};
  return status;
}

/* What came of both must be a function: its reason, behind what says so. */
static fp4moe_status check(const struct io_config *config, const struct io_layer *layer,
                           const fp4moe_activation *a) {
  const char *key, *word = find_word(config, &key);
  char reason[200];
  if (a->kind == FP4MOE_ACTIVATION_UNKNOWN)
    return fp4moe_fail(FP4MOE_UNSUPPORTED,
                       "%.200s: its names do not tell the activation, nor does a config.json",
                       layer->prefix);
  if (fp4moe_activation_check(a) == FP4MOE_OK) return FP4MOE_OK;
  snprintf(reason, sizeof reason, "%s", fp4moe_error_detail());
  return fp4moe_fail(FP4MOE_UNSUPPORTED, "%s: %s '%.60s': %s", config->path, word ? key : "",
                     word ? fp4moe_io_plain(word) : "", reason);
}

fp4moe_status fp4moe_io_config_activation(const struct io_config *config, struct io_layer *layer) {
  fp4moe_layer_desc *desc = &layer->info.desc;
  fp4moe_activation a = from_names(layer);
  desc->activation = (fp4moe_activation){.kind = FP4MOE_ACTIVATION_UNKNOWN, .gated = a.gated};
  desc->router_weight_on_input =
      layer->family->router_weight_on_input || is_model(config, "llama4");
  if (a.gated && is_model(config, "gpt_oss")) a = fp4moe_io_swiglu_oai;
  fp4moe_status status = set_kind(config, &a);
  if (status == FP4MOE_OK) status = set_layer_limit(config, layer->info.layer, &a);
  if (status == FP4MOE_OK) status = set_fields(config, &a);
  if (status == FP4MOE_OK) status = check(config, layer, &a);
  if (status == FP4MOE_OK) desc->activation = a;
  return status;
}
