/* ggml.c - tensor types of GGUF files (see ggml.h). The numbers are those of ggml's enum; gaps are
 * types that it has withdrawn. */
#include "io/ggml.h"

#include <string.h>

static const struct io_ggml_type types[] = {
    [0] = {"F32", 1, 4},         [1] = {"F16", 1, 2},         [2] = {"Q4_0", 32, 18},
    [3] = {"Q4_1", 32, 20},      [6] = {"Q5_0", 32, 22},      [7] = {"Q5_1", 32, 24},
    [8] = {"Q8_0", 32, 34},      [9] = {"Q8_1", 32, 36},      [10] = {"Q2_K", 256, 84},
    [11] = {"Q3_K", 256, 110},   [12] = {"Q4_K", 256, 144},   [13] = {"Q5_K", 256, 176},
    [14] = {"Q6_K", 256, 210},   [15] = {"Q8_K", 256, 292},   [16] = {"IQ2_XXS", 256, 66},
    [17] = {"IQ2_XS", 256, 74},  [18] = {"IQ3_XXS", 256, 98}, [19] = {"IQ1_S", 256, 50},
    [20] = {"IQ4_NL", 32, 18},   [21] = {"IQ3_S", 256, 110},  [22] = {"IQ2_S", 256, 82},
    [23] = {"IQ4_XS", 256, 136}, [24] = {"I8", 1, 1},         [25] = {"I16", 1, 2},
    [26] = {"I32", 1, 4},        [27] = {"I64", 1, 8},        [28] = {"F64", 1, 8},
    [29] = {"IQ1_M", 256, 56},   [30] = {"BF16", 1, 2},       [34] = {"TQ1_0", 256, 54},
    [35] = {"TQ2_0", 256, 66},   [39] = {"MXFP4", 32, 17},    [40] = {"NVFP4", 64, 36},
};

const struct io_ggml_type *fp4moe_io_ggml_type(uint32_t type) {
  return type < sizeof types / sizeof *types && types[type].name ? &types[type] : NULL;
}

/* One group: byte j of `half` has k j and k j + half. */
static void unblock_group(size_t half, const uint8_t *from, uint8_t *codes) {
  for (size_t i = 0; i < half / 2; i++) {
    uint8_t even = from[2 * i], odd = from[2 * i + 1];
    codes[i] = (uint8_t)((even & 0x0f) | odd << 4);
    codes[half / 2 + i] = (uint8_t)(even >> 4 | (odd & 0xf0));
  }
}

void fp4moe_io_ggml_unblock(fp4moe_format format, size_t elements, const void *from, uint8_t *codes,
                            uint8_t *scales) {
  const size_t groups = format == FP4MOE_MXFP4 ? 1 : 4, half = format == FP4MOE_MXFP4 ? 16 : 8;
  const uint8_t *block = from;
  for (size_t b = 0; b < elements / (groups * 2 * half); b++, block += groups * (1 + half)) {
    memcpy(scales + b * groups, block, groups);
    for (size_t g = 0; g < groups; g++)
      unblock_group(half, block + groups + g * half, codes + (b * groups + g) * half);
  }
}
