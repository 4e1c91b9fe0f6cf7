/* config.h - what a model's config.json says about its MoE layers.
 *
 * Keys are looked up in text_config first (models that also see images nest them there), then at
 * the top; null counts as absent. Sizes only confirm what the tensors say. The activation is taken
 * from here, and every field that would change it is honoured or makes it unsupported. */
#ifndef FP4MOE_IO_CONFIG_H
#define FP4MOE_IO_CONFIG_H

#include <jansson.h>

#include "io/family.h"

struct io_config {
  char *path;          /* NULL: there is no config.json */
  json_t *root, *text; /* text: borrowed from root, or NULL */
};

/* No config.json in dir is fine: all lookups then find nothing. */
fp4moe_status fp4moe_io_config_open(const char *dir, struct io_config *config);

/* The metadata of a GGUF file as such a file; takes a reference. */
fp4moe_status fp4moe_io_config_take(const char *path, json_t *root, struct io_config *config);
void fp4moe_io_config_close(struct io_config *config);

/* NULL: absent or null. */
json_t *fp4moe_io_config_get(const struct io_config *config, const char *key);

/* Sizes of a checked layer against the config, and top_k from it. INVALID: field, both values. */
fp4moe_status fp4moe_io_config_sizes(const struct io_config *config, struct io_layer *layer);

/* Fills activation and router_weight_on_input. UNSUPPORTED: an activation the library lacks, or
 * none is told; the desc then has FP4MOE_ACTIVATION_UNKNOWN, gated or not. */
fp4moe_status fp4moe_io_config_activation(const struct io_config *config, struct io_layer *layer);

#endif
