/* config.c - config.json: opening it, looking up keys, sizes (see config.h). The last keys of each
 * list are those of GGUF metadata. */
#include <stdlib.h>
#include <string.h>

#include "io/config.h"
#include "io/file.h"
#include "io/json.h"
#include "status.h"

fp4moe_status fp4moe_io_config_open(const char *dir, struct io_config *config) {
  *config = (struct io_config){0};
  char *path = fp4moe_io_path_join(dir, "config.json");
  if (!path) return FP4MOE_NO_MEMORY;
  if (!fp4moe_io_exists(path)) {
    free(path);
    return FP4MOE_OK;
  }
  fp4moe_status status = fp4moe_io_json_file(path, &config->root);
  if (status != FP4MOE_OK) {
    free(path);
    return status;
  }
  config->path = path;
  config->text = json_object_get(config->root, "text_config");
  return FP4MOE_OK;
}

fp4moe_status fp4moe_io_config_take(const char *path, json_t *root, struct io_config *config) {
  *config = (struct io_config){.path = strdup(path)};
  if (!config->path) return fp4moe_fail(FP4MOE_NO_MEMORY, "%s: path", path);
  config->root = json_incref(root);
  return FP4MOE_OK;
}

void fp4moe_io_config_close(struct io_config *config) {
  json_decref(config->root);
  free(config->path);
}

json_t *fp4moe_io_config_get(const struct io_config *config, const char *key) {
  json_t *value = json_object_get(config->text, key);
  if (!value || json_is_null(value)) value = json_object_get(config->root, key);
  return json_is_null(value) ? NULL : value;
}

/* INVALID when there but no size; *size is left alone when absent. */
static fp4moe_status get_size(const struct io_config *config, const char *key, size_t *size) {
  json_t *value = fp4moe_io_config_get(config, key);
  if (!value || fp4moe_io_json_size(value, size)) return FP4MOE_OK;
  return fp4moe_fail(FP4MOE_INVALID, "%s: %s is no non-negative integer", config->path, key);
}

static fp4moe_status confirm(const struct io_config *config, const char *key, size_t have,
                             const struct io_layer *layer, const char *what) {
  size_t said = have;
  fp4moe_status status = get_size(config, key, &said);
  if (status != FP4MOE_OK || said == have) return status;
  return fp4moe_fail(FP4MOE_INVALID, "%s: %s is %zu, but the tensors of %.160s have %s %zu",
                     config->path, key, said, layer->prefix, what, have);
}

static fp4moe_status find_top_k(const struct io_config *config, struct io_layer *layer) {
  static const char *const keys[] = {
      "num_experts_per_tok", "experts_per_token", "num_experts_per_token",
      "top_k_experts",       "moe_top_k",         "expert_used_count"};
  size_t top_k = 0, experts = layer->info.desc.experts;
  for (size_t i = 0; i < sizeof keys / sizeof *keys && !top_k; i++) {
    fp4moe_status status = get_size(config, keys[i], &top_k);
    if (status != FP4MOE_OK) return status;
    if (top_k > experts)
      return fp4moe_fail(FP4MOE_INVALID, "%s: %s is %zu, but %.160s has %zu experts", config->path,
                         keys[i], top_k, layer->prefix, experts);
  }
  layer->info.top_k = top_k;
  return FP4MOE_OK;
}

/* Experts in a latent space (Nemotron, Kimi-K3) have a hidden size of their own. */
static const char *hidden_key(const struct io_config *config) {
  if (fp4moe_io_config_get(config, "moe_latent_size")) return "moe_latent_size";
  if (fp4moe_io_config_get(config, "routed_expert_hidden_size")) return "routed_expert_hidden_size";
  return fp4moe_io_config_get(config, "embedding_length") ? "embedding_length" : "hidden_size";
}

fp4moe_status fp4moe_io_config_sizes(const struct io_config *config, struct io_layer *layer) {
  const fp4moe_layer_desc *desc = &layer->info.desc;
  const struct {
    const char *key, *what;
    size_t have;
  } fields[] = {
      {hidden_key(config), "hidden size", desc->hidden},
      {"moe_intermediate_size", "intermediate size", desc->intermediate},
      {"num_experts", "experts", desc->experts},
      {"num_local_experts", "experts", desc->experts},
      {"n_routed_experts", "experts", desc->experts},
      {"expert_feed_forward_length", "intermediate size", desc->intermediate},
      {"expert_count", "experts", desc->experts},
  };
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
    fp4moe_status status = confirm(config, fields[i].key, fields[i].have, layer, fields[i].what);
    if (status != FP4MOE_OK) return status;
  }
  return find_top_k(config, layer);
}
