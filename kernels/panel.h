/* panel.h - one element of a panel, as the specification rows read it.
 *
 * A row of kernels.inc that names a format calls a body with that format as a constant; the two
 * formats differ in the length of the scale group and in what a scale byte means, which is here. */
#ifndef FP4MOE_PANEL_H
#define FP4MOE_PANEL_H

#include "fp4.h"
#include "fp4moe.h"
#include "layout.h"

static inline float fp4_scale(fp4moe_format format, uint8_t s) {
  return format == FP4MOE_MXFP4 ? fp4_e8m0(s) : fp4_e4m3(s);
}

/* Code of column k of panel row `row`. */
static inline unsigned fp4_panel_code(const uint8_t *nibbles, size_t k, size_t row) {
  unsigned byte = nibbles[k / 8 * 64 + 4 * row + k % 4];
  return k % 8 < 4 ? byte & 15 : byte >> 4;
}

#endif
