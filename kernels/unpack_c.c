/* unpack_c.c - the specification of unpack: weights of one panel, exact in every class.
 *
 * f32 and bf16 form e2m1 * scale, whose at most 6 significant bits FP32 holds for every scale byte:
 * a subnormal scale stays exact, a NaN scale makes every weight NaN, 2^128 and beyond is infinite.
 * bf16 is the upper half of that FP32, in the pairs of layout.h; a subnormal is kept, not flushed:
 * unpack does not round. The forms of class i8 leave the scales beside the codes, which form i8
 * shifts to unsigned by +12. */
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

/* `together` columns of a row side by side. */
static inline void unpack_bf16(fp4moe_format format, const uint8_t *nibbles, const uint8_t *scales,
                               size_t columns, size_t together, uint16_t *panel) {
  for (size_t at = 0; at < columns; at++) {
    size_t k = at / 8 * 8 + fp4_bf16_order[at % 8];
    for (size_t row = 0; row < FP4MOE_PANEL; row++) {
      uint32_t bits = fp4_f32_bits(weight(format, nibbles, scales, k, row));
      panel[(at / together * FP4MOE_PANEL + row) * together + at % together] =
          (uint16_t)(bits >> 16);
    }
  }
}

static inline void unpack_i8(fp4moe_format format, const uint8_t *nibbles, const uint8_t *scales,
                             size_t columns, size_t together, int offset, uint8_t *panel) {
  const size_t group = fp4_group(format);
  for (size_t k0 = 0; k0 < columns; k0 += group) {
    for (size_t k = 0; k < group; k++)
      for (size_t row = 0; row < FP4MOE_PANEL; row++)
        panel[(k / together * FP4MOE_PANEL + row) * together + k % together] =
            (uint8_t)(fp4_e2m1_x2(fp4_panel_code(nibbles, k0 + k, row)) + offset);
    panel += group * FP4MOE_PANEL;
    for (size_t row = 0; row < FP4MOE_PANEL; row++) {
      float s = fp4_scale(format, scales[k0 / group * FP4MOE_PANEL + row]);
      memcpy(panel, &s, sizeof s);
      panel += sizeof s;
    }
  }
}

#define VARIANT(w, form, ...)                                                                      \
  void fp4moe_unpack_##w##_##form##_c(const uint8_t *nibbles, const uint8_t *scales, size_t k,     \
                                      void *panel) {                                               \
    __VA_ARGS__;                                                                                   \
  }
#define BOTH(VARIANT) VARIANT(mx, FP4MOE_MXFP4) VARIANT(nv, FP4MOE_NVFP4)
#define F32(w, f)     VARIANT(w, f32, unpack_f32(f, nibbles, scales, k, panel))
#define BF16(w, f)    VARIANT(w, bf16, unpack_bf16(f, nibbles, scales, k, 2, panel))
#define BF16X4(w, f)  VARIANT(w, bf16x4, unpack_bf16(f, nibbles, scales, k, 4, panel))
#define I8(w, f)      VARIANT(w, i8, unpack_i8(f, nibbles, scales, k, 4, 12, panel))
#define S8(w, f)      VARIANT(w, s8, unpack_i8(f, nibbles, scales, k, 4, 0, panel))
#define S8X8(w, f)    VARIANT(w, s8x8, unpack_i8(f, nibbles, scales, k, 8, 0, panel))

BOTH(F32)
BOTH(BF16)
BOTH(BF16X4)
BOTH(I8)
BOTH(S8)
BOTH(S8X8)
