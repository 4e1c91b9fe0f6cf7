/* presets.h - the shapes of real models, by name. */
#ifndef FP4MOE_PRESETS_H
#define FP4MOE_PRESETS_H

#include "fp4moe.h"

typedef struct preset {
  const char *name;
  size_t hidden, intermediate, experts, top_k;
  fp4moe_format format;
  fp4moe_activation activation;
  int biases;
  int router_weight_on_input;
} preset;

extern const preset presets[];
extern const size_t preset_count;

const preset *preset_find(const char *name); /* NULL: no such preset */

#endif
