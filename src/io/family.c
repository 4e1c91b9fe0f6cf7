/* family.c - the checkpoint families and how a layer is told to be of one (see family.h).
 *
 * Order matters: the first row that fits wins, so a row with one more tensor (a global, a bias, a
 * known parent) stands before the row without it. */
#include <stdio.h>
#include <string.h>

#include "io/family.h"
#include "layout.h"

static const char *const gate_up_down[] = {"gate_proj", "up_proj", "down_proj"};
static const char *const up_down[] = {NULL, "up_proj", "down_proj"};
static const char *const w1_w3_w2[] = {"w1", "w3", "w2"};
static const char *const gguf[] = {"ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"};
static const char *const gguf_ungated[] = {NULL, "ffn_up_exps", "ffn_down_exps"};
static const char *const fused[] = {"gate_up_proj", "gate_up_proj", "down_proj"};

/* Codes, scales, global, input global, bias. */
static const char *const gpt_oss[] = {"_blocks", "_scales", NULL, NULL, "_bias"};
static const char *const deepseek[] = {".weight", ".scale", NULL, NULL, NULL};
static const char *const modelopt[] = {".weight", ".weight_scale", ".weight_scale_2",
                                       ".input_scale", NULL};
static const char *const modelopt_fused[] = {"", "_weight_scale", "_weight_scale_2", "_input_scale",
                                             NULL};
static const char *const modelopt_fused_bias[] = {"", "_weight_scale", "_weight_scale_2",
                                                  "_input_scale", "_bias"};
static const char *const compressed[] = {".weight_packed", ".weight_scale", ".weight_global_scale",
                                         ".input_global_scale", NULL};
static const char *const compressed_mx[] = {".weight_packed", ".weight_scale", NULL, NULL, NULL};
static const char *const ggml_mx[] = {".weight", NULL, NULL, NULL, ".bias"};
static const char *const ggml_nv[] = {".weight", NULL, ".scale", ".input_scale", ".bias"};

const fp4moe_activation fp4moe_io_swiglu_oai = {FP4MOE_SWIGLU_OAI, 1, 1.702f, 1.0f, 7.0f, 0};
static const fp4moe_activation silu = {.kind = FP4MOE_SILU, .gated = 1};
static const fp4moe_activation silu_limit_10 = {.kind = FP4MOE_SILU, .gated = 1, .limit = 10.0f};
static const fp4moe_activation relu2 = {.kind = FP4MOE_RELU2};

static const struct io_family families[] = {
    {.name = "MXFP4 (gpt-oss)",
     .format = FP4MOE_MXFP4,
     .stacked = 1,
     .layout = IO_BLOCKS,
     .fusion = IO_INTERLEAVED,
     .projection = fused,
     .part = gpt_oss,
     .signature = IO_CODES,
     .activation = &fp4moe_io_swiglu_oai},
    {.name = "MXFP4 (DeepSeek-V4)",
     .format = FP4MOE_MXFP4,
     .projection = w1_w3_w2,
     .part = deepseek,
     .signature = IO_SCALES,
     .activation = &silu_limit_10},
    {.name = "NVFP4 (Nemotron)",
     .format = FP4MOE_NVFP4,
     .parent = "mixer",
     .projection = up_down,
     .part = modelopt,
     .signature = IO_GLOBAL,
     .activation = &relu2},
    {.name = "NVFP4 (ModelOpt)",
     .format = FP4MOE_NVFP4,
     .projection = gate_up_down,
     .part = modelopt,
     .signature = IO_GLOBAL,
     .activation = &silu},
    {.name = "NVFP4 (ModelOpt, w1 w2 w3)",
     .format = FP4MOE_NVFP4,
     .projection = w1_w3_w2,
     .part = modelopt,
     .signature = IO_GLOBAL,
     .activation = &silu},
    {.name = "NVFP4 (compressed-tensors)",
     .format = FP4MOE_NVFP4,
     .reciprocal = 1,
     .projection = gate_up_down,
     .part = compressed,
     .signature = IO_GLOBAL,
     .activation = &silu},
    {.name = "NVFP4 (compressed-tensors, w1 w2 w3)",
     .format = FP4MOE_NVFP4,
     .reciprocal = 1,
     .projection = w1_w3_w2,
     .part = compressed,
     .signature = IO_GLOBAL,
     .activation = &silu},
    {.name = "MXFP4 (compressed-tensors)",
     .format = FP4MOE_MXFP4,
     .projection = gate_up_down,
     .part = compressed_mx,
     .signature = IO_SCALES,
     .activation = &silu},
    {.name = "MXFP4 (compressed-tensors, w1 w2 w3)",
     .format = FP4MOE_MXFP4,
     .projection = w1_w3_w2,
     .part = compressed_mx,
     .signature = IO_SCALES,
     .activation = &silu},
    {.name = "NVFP4 (gpt-oss, ModelOpt)",
     .format = FP4MOE_NVFP4,
     .stacked = 1,
     .layout = IO_ORIENTED,
     .fusion = IO_INTERLEAVED,
     .projection = fused,
     .part = modelopt_fused_bias,
     .signature = IO_BIAS,
     .activation = &fp4moe_io_swiglu_oai},
    {.name = "NVFP4 (Llama-4, fused)",
     .format = FP4MOE_NVFP4,
     .stacked = 1,
     .layout = IO_ORIENTED,
     .fusion = IO_HALVES,
     .parent = "feed_forward",
     .projection = fused,
     .part = modelopt_fused,
     .signature = IO_GLOBAL,
     .activation = &silu,
     .router_weight_on_input = 1},
    {.name = "MXFP4 (GGUF)",
     .format = FP4MOE_MXFP4,
     .stacked = 1,
     .layout = IO_GGML,
     .projection = gguf,
     .part = ggml_mx,
     .signature = IO_CODES,
     .activation = &silu},
    {.name = "MXFP4 (GGUF, no gate)",
     .format = FP4MOE_MXFP4,
     .stacked = 1,
     .layout = IO_GGML,
     .projection = gguf_ungated,
     .part = ggml_mx,
     .signature = IO_CODES,
     .activation = &relu2},
    {.name = "NVFP4 (GGUF)",
     .format = FP4MOE_NVFP4,
     .stacked = 1,
     .layout = IO_GGML,
     .projection = gguf,
     .part = ggml_nv,
     .signature = IO_CODES,
     .activation = &silu},
    {.name = "NVFP4 (GGUF, no gate)",
     .format = FP4MOE_NVFP4,
     .stacked = 1,
     .layout = IO_GGML,
     .projection = gguf_ungated,
     .part = ggml_nv,
     .signature = IO_CODES,
     .activation = &relu2},
};

size_t fp4moe_io_group(const struct io_layer *layer) { return fp4_group(layer->family->format); }

size_t fp4moe_io_global_index(const fp4moe_tensor *tensor, size_t expert, int projection) {
  if (tensor->bytes == sizeof(float)) return 0;
  return tensor->rank == 2 && tensor->shape[1] == 2 ? 2 * expert + (projection == IO_UP) : expert;
}

int fp4moe_io_is_byte(const char *dtype) {
  return strcmp(dtype, "U8") == 0 || strcmp(dtype, "I8") == 0;
}

int fp4moe_io_expert_number(const struct io_layer *layer, const char *name, size_t most,
                            size_t *expert, const char **rest) {
  const char *at = name + strlen(layer->prefix) + 1, *first = at;
  size_t n = 0;
  for (; *at >= '0' && *at <= '9'; at++)
    if (n <= most) n = n * 10 + (size_t)(*at - '0');
  if (at == first || *at != '.' || (*first == '0' && at > first + 1)) return 0;
  *expert = n <= most ? n : most + 1;
  *rest = at + 1;
  return 1;
}

/* Whether `rest` is one of the family's projections followed by this part. */
static int names_part(const struct io_family *family, const char *rest, int part) {
  for (int p = 0; p < IO_PROJECTIONS; p++) {
    const char *projection = family->projection[p];
    size_t length = projection ? strlen(projection) : 0;
    if (projection && strncmp(rest, projection, length) == 0 &&
        strcmp(rest + length, family->part[part]) == 0)
      return 1;
  }
  return 0;
}

/* "blk.<layer>" of "blk.<layer>.ffn_<...>_exps.<...>" */
static size_t gguf_prefix(const char *name) {
  if (strncmp(name, "blk.", 4) != 0) return 0;
  size_t length = 4 + strspn(name + 4, "0123456789");
  return strncmp(name + length, ".ffn_", 5) == 0 && strstr(name + length, "_exps.") ? length : 0;
}

size_t fp4moe_io_expert_prefix(const char *name) {
  static const char word[] = ".experts";
  const size_t length = sizeof word - 1;
  if (strncmp(name, "experts.", length) == 0) return length - 1;
  const char *at = strstr(name, ".experts.");
  return at ? (size_t)(at - name) + length : gguf_prefix(name);
}

static int has_parent(const struct io_layer *layer, const char *parent) {
  static const char experts[] = ".experts";
  size_t prefix = strlen(layer->prefix), length = strlen(parent), tail = sizeof experts - 1;
  if (prefix < length + tail) return 0;
  const char *at = layer->prefix + prefix - tail - length;
  return strncmp(at, parent, length) == 0 && (at == layer->prefix || at[-1] == '.');
}

static int is_codes_dtype(const struct io_family *family, const char *dtype) {
  if (family->layout != IO_GGML) return fp4moe_io_is_byte(dtype);
  return strcmp(dtype, family->format == FP4MOE_MXFP4 ? "MXFP4" : "NVFP4") == 0;
}

static int family_fits(const struct io_family *family, const fp4moe_tensors *tensors,
                       const struct io_layer *layer) {
  int codes = 0, signature = 0, gate = 0;
  if (family->parent && !has_parent(layer, family->parent)) return 0;
  for (size_t i = 0; i < layer->info.tensor_count; i++) {
    const fp4moe_tensor *tensor = fp4moe_tensors_at(tensors, layer->info.first_tensor + i);
    const char *rest = tensor->name + strlen(layer->prefix) + 1;
    size_t expert;
    int numbered = fp4moe_io_expert_number(layer, tensor->name, 0, &expert, &rest);
    if (numbered == family->stacked) continue;
    codes |= is_codes_dtype(family, tensor->dtype) && names_part(family, rest, IO_CODES);
    signature |= names_part(family, rest, family->signature);
    gate |= strncmp(rest, gguf[IO_GATE], strlen(gguf[IO_GATE])) == 0;
  }
  if (family->layout == IO_GGML && gate != (family->projection[IO_GATE] != NULL)) return 0;
  return codes && signature;
}

const struct io_family *fp4moe_io_family_match(const fp4moe_tensors *tensors,
                                               const struct io_layer *layer) {
  for (size_t i = 0; i < sizeof families / sizeof *families; i++)
    if (family_fits(&families[i], tensors, layer)) return &families[i];
  return NULL;
}

const fp4moe_tensor *fp4moe_io_layer_tensor(const fp4moe_tensors *tensors,
                                            const struct io_layer *layer, size_t expert,
                                            int projection, int part, char *name) {
  const struct io_family *family = layer->family;
  char number[24] = "";
  if (!family->stacked) snprintf(number, sizeof number, "%zu.", expert);
  snprintf(name, strlen(layer->prefix) + IO_NAME_ROOM, "%s.%s%s%s", layer->prefix, number,
           family->projection[projection], family->part[part]);
  return fp4moe_tensors_find(tensors, name);
}
