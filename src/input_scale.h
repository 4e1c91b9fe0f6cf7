/* input_scale.h - the input scales of class NVFP4 (fp4moe_input_global): which are read, which are
 * good. libfp4moe_io asks the same, so the answers stand apart from the layer. */
#ifndef FP4MOE_INPUT_SCALE_H
#define FP4MOE_INPUT_SCALE_H

#include "fp4moe.h"

/* A multiplier that class NVFP4 takes: neither it nor its reciprocal leaves the normal numbers. */
static inline int fp4moe_is_input_scale(float scale) {
  return scale >= 0x1p-100f && scale <= 0x1p100f;
}

/* Does the class read the input scales of the layer, or of experts? */
static inline int fp4moe_reads_layer_scales(const fp4moe_layer_desc *desc) {
  return desc->precision == FP4MOE_PRECISION_NVFP4 && desc->input_global == FP4MOE_GLOBAL_LAYER;
}
static inline int fp4moe_reads_expert_scales(const fp4moe_layer_desc *desc) {
  return desc->precision == FP4MOE_PRECISION_NVFP4 && desc->input_global == FP4MOE_GLOBAL_EXPERT;
}

#endif
