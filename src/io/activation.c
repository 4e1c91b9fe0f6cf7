/* activation.c - the activation of a layer: from config.json, else the family's own.
 *
 * A field of the config that changes the function is taken over or makes the activation
 * unsupported; none is dropped. gpt-oss is the one model whose hidden_act ("silu") does not tell
 * what it computes: its model_type or family does. */
#include <math.h>
#include <string.h>

#include "io/config.h"
#include "io/tensors.h"
#include "status.h"

static const struct {
  const char *word;
  fp4moe_activation_kind kind;
} words[] = {
    {"silu", FP4MOE_SILU},
    {"swish", FP4MOE_SILU},
    {"swigluoai", FP4MOE_SWIGLU_OAI},
    {"swiglu_oai", FP4MOE_SWIGLU_OAI},
    {"relu2", FP4MOE_RELU2},
};

static const char *find_word(const struct io_config *config, const char **key) {
  static const char *const keys[] = {"mlp_hidden_act", "hidden_activation", "hidden_act"};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    json_t *value = fp4moe_io_config_get(config, *key = keys[i]);
    if (value) return json_is_string(value) ? json_string_value(value) : "(not a string)";
  }
  return NULL;
}

/* The kind with its usual constants, which single fields of the config may then change. */
static fp4moe_status set_kind(const struct io_config *config, fp4moe_activation *activation) {
  const char *key, *word = find_word(config, &key);
  size_t i = 0, n = sizeof words / sizeof *words;
  if (!word || activation->kind == FP4MOE_SWIGLU_OAI) return FP4MOE_OK;
  while (i < n && strcmp(words[i].word, word)) i++;
  if (i == n || (words[i].kind == FP4MOE_RELU2 && activation->gated) ||
      (words[i].kind == FP4MOE_SWIGLU_OAI && !activation->gated))
    return fp4moe_fail(FP4MOE_UNSUPPORTED, "%s: not supported yet: %s '%.60s'%s", config->path, key,
                       fp4moe_io_plain(word), activation->gated ? ", gated" : ", ungated");
  if (words[i].kind == FP4MOE_SWIGLU_OAI)
    *activation = fp4moe_io_swiglu_oai;
  else if (words[i].kind != activation->kind)
    *activation = (fp4moe_activation){.kind = words[i].kind, .gated = activation->gated};
  return FP4MOE_OK;
}

/* One number of the config; a kind without the field admits only 0, which says nothing. */
static fp4moe_status set_field(const struct io_config *config, const char *key, int has,
                               float *field) {
  json_t *value = fp4moe_io_config_get(config, key);
  if (!value) return FP4MOE_OK;
  double number = json_number_value(value);
  if (!json_is_number(value) || !isfinite((float)number) || number < 0)
    return fp4moe_fail(FP4MOE_INVALID, "%s: %s is no finite number from 0", config->path, key);
  if (!has && number != 0)
    return fp4moe_fail(FP4MOE_UNSUPPORTED, "%s: not supported yet: %s %g with this activation",
                       config->path, key, number);
  if (has) *field = (float)number;
  return FP4MOE_OK;
}

static fp4moe_status set_fields(const struct io_config *config, fp4moe_activation *activation) {
  int oai = activation->kind == FP4MOE_SWIGLU_OAI;
  if (fp4moe_io_config_get(config, "swiglu_limits"))
    return fp4moe_fail(FP4MOE_UNSUPPORTED, "%s: not supported yet: swiglu_limits", config->path);
  fp4moe_status status = set_field(config, "swiglu_alpha", oai, &activation->alpha);
  if (status == FP4MOE_OK) status = set_field(config, "swiglu_beta", oai, &activation->beta);
  if (status == FP4MOE_OK)
    status =
        set_field(config, "swiglu_limit", activation->kind != FP4MOE_RELU2, &activation->limit);
  return status;
}

static int is_model(const struct io_config *config, const char *type, size_t length) {
  const char *name = json_string_value(fp4moe_io_config_get(config, "model_type"));
  return name && strncmp(name, type, length) == 0;
}

fp4moe_status fp4moe_io_config_activation(const struct io_config *config, struct io_layer *layer) {
  fp4moe_layer_desc *desc = &layer->info.desc;
  fp4moe_activation activation = *layer->family->activation;
  desc->activation = activation;
  desc->router_weight_on_input =
      layer->family->router_weight_on_input || is_model(config, "llama4", 6);
  if (activation.gated && is_model(config, "gpt_oss", sizeof "gpt_oss"))
    activation = fp4moe_io_swiglu_oai;
  fp4moe_status status = set_kind(config, &activation);
  if (status == FP4MOE_OK) status = set_fields(config, &activation);
  if (status == FP4MOE_OK) desc->activation = activation;
  return status;
}
