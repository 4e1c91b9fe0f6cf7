/* presets.c - one row per model (presets.h): H, I, E, top-k, format, activation, extras. Only what
 * an expert layer depends on: routers and shared experts are not its business. */
#include <string.h>

#include "presets.h"

#define SILU                                                                                       \
  { .kind = FP4MOE_SILU, .gated = 1 }
#define SILU_10                                                                                    \
  { .kind = FP4MOE_SILU, .gated = 1, .limit = 10 }
#define SWIGLU_OAI                                                                                 \
  { .kind = FP4MOE_SWIGLU_OAI, .gated = 1, .alpha = 1.702f, .beta = 1, .limit = 7 }
#define RELU2                                                                                      \
  { .kind = FP4MOE_RELU2 }
#define GELU_TANH                                                                                  \
  { .kind = FP4MOE_GELU_TANH, .gated = 1 }
#define PLAIN    .biases = 0
#define BIASES   .biases = 1
#define ON_INPUT .router_weight_on_input = 1
#define MX       FP4MOE_MXFP4
#define NV       FP4MOE_NVFP4

/* clang-format off */
const preset presets[] = {
  /* name                  H     I    E   k  format activation  extras */
  {"gpt-oss-20b",       2880, 2880,  32,  4, MX, SWIGLU_OAI, BIASES},
  {"gpt-oss-120b",      2880, 2880, 128,  4, MX, SWIGLU_OAI, BIASES},
  {"deepseek-v4-flash", 4096, 2048, 256,  6, MX, SILU_10, PLAIN},
  {"deepseek-r1",       7168, 2048, 256,  8, NV, SILU, PLAIN},
  {"kimi-k2",           7168, 2048, 384,  8, NV, SILU, PLAIN},
  {"qwen3-30b-a3b",     2048,  768, 128,  8, NV, SILU, PLAIN},
  {"qwen3-235b-a22b",   4096, 1536, 128,  8, NV, SILU, PLAIN},
  {"qwen3.5-35b-a3b",   2048,  512, 256,  8, NV, SILU, PLAIN},
  {"qwen3.5-397b-a17b", 4096, 1024, 512, 10, NV, SILU, PLAIN},
  {"nemotron-3-nano",   2688, 1856, 128,  6, NV, RELU2, PLAIN},
  {"nemotron-3-super",  1024, 2688, 512, 22, NV, RELU2, PLAIN},
  {"llama-4-scout",     5120, 8192,  16,  1, NV, SILU, ON_INPUT},
  {"glm-5",             6144, 2048, 256,  8, NV, SILU, PLAIN},
  {"minimax-m3",        6144, 3072, 128,  4, NV, SWIGLU_OAI, PLAIN},
  {"gemma-4-26b-a4b",   2816,  704, 128,  8, NV, GELU_TANH, PLAIN},
  {"mistral-large-3",   7168, 4096, 128,  4, NV, SILU, PLAIN},
};
/* clang-format on */
const size_t preset_count = sizeof presets / sizeof *presets;

const preset *preset_find(const char *name) {
  for (size_t i = 0; i < preset_count; i++)
    if (!strcmp(presets[i].name, name)) return &presets[i];
  return NULL;
}
