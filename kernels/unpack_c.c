/* unpack_c.c - the specification of unpack: weights of one panel, exact in every class.
 *
 * f32 and bf16 form e2m1 * scale, whose at most 6 significant bits FP32 holds for every scale byte:
 * a subnormal scale stays exact, a NaN scale makes every weight NaN, 2^128 and beyond is infinite.
 * bf16 is the upper half of that FP32, in the pairs of layout.h; a subnormal is kept, not flushed:
 * unpack does not round. i8 leaves the scale beside the codes, shifted to unsigned by +12. */
#include "kernel.h"
#include "panel.h"

static inline float weight(fp4moe_format format, const uint8_t *nibbles, const uint8_t *scales,
                           size_t k, size_t row) {
  uint8_t s = scales[k / fp4_group(format) * FP4MOE_PANEL + row];
  return fp4_e2m1(fp4_panel_code(nibbles, k, row)) * fp4_scale(format, s);
}

static inline void unpack_f32(fp4moe_format format, const uint8_t *nibbles, const uint8_t *scales,
                              size_t columns, float *panel) {
  for (size_t k = 0; k < columns; k++)
    for (size_t row = 0; row < FP4MOE_PANEL; row++)
      panel[k * FP4MOE_PANEL + row] = weight(format, nibbles, scales, k, row);
}

static inline void unpack_bf16(fp4moe_format format, const uint8_t *nibbles, const uint8_t *scales,
                               size_t columns, uint16_t *panel) {
  for (size_t at = 0; at < columns; at++) {
    size_t k = at / 8 * 8 + fp4_bf16_order[at % 8];
    for (size_t row = 0; row < FP4MOE_PANEL; row++) {
      uint32_t bits = fp4_f32_bits(weight(format, nibbles, scales, k, row));
      panel[(at / 2 * FP4MOE_PANEL + row) * 2 + at % 2] = (uint16_t)(bits >> 16);
    }
  }
}

static inline void unpack_i8(fp4moe_format format, const uint8_t *nibbles, const uint8_t *scales,
                             size_t columns, uint8_t *panel) {
  const size_t group = fp4_group(format);
  for (size_t k0 = 0; k0 < columns; k0 += group) {
    for (size_t k = 0; k < group; k++)
      for (size_t row = 0; row < FP4MOE_PANEL; row++)
        panel[(k / 4 * FP4MOE_PANEL + row) * 4 + k % 4] =
            (uint8_t)(fp4_e2m1_x2(fp4_panel_code(nibbles, k0 + k, row)) + 12);
    panel += group * FP4MOE_PANEL;
    for (size_t row = 0; row < FP4MOE_PANEL; row++) {
      float s = fp4_scale(format, scales[k0 / group * FP4MOE_PANEL + row]);
      memcpy(panel, &s, sizeof s);
      panel += sizeof s;
    }
  }
}

void fp4moe_unpack_mx_f32_c(const uint8_t *nibbles, const uint8_t *scales, size_t k, void *panel) {
  unpack_f32(FP4MOE_MXFP4, nibbles, scales, k, panel);
}

void fp4moe_unpack_nv_f32_c(const uint8_t *nibbles, const uint8_t *scales, size_t k, void *panel) {
  unpack_f32(FP4MOE_NVFP4, nibbles, scales, k, panel);
}

void fp4moe_unpack_mx_bf16_c(const uint8_t *nibbles, const uint8_t *scales, size_t k, void *panel) {
  unpack_bf16(FP4MOE_MXFP4, nibbles, scales, k, panel);
}

void fp4moe_unpack_nv_bf16_c(const uint8_t *nibbles, const uint8_t *scales, size_t k, void *panel) {
  unpack_bf16(FP4MOE_NVFP4, nibbles, scales, k, panel);
}

void fp4moe_unpack_mx_i8_c(const uint8_t *nibbles, const uint8_t *scales, size_t k, void *panel) {
  unpack_i8(FP4MOE_MXFP4, nibbles, scales, k, panel);
}

void fp4moe_unpack_nv_i8_c(const uint8_t *nibbles, const uint8_t *scales, size_t k, void *panel) {
  unpack_i8(FP4MOE_NVFP4, nibbles, scales, k, panel);
}
