/* ceiling_bf16neon.c - BFMMLA, 16 BF16 multiply-adds each. The factors are 0.3, for GCC 12 takes
 * rounder ones for F16, which these CPU bits are without. */
#include "ceiling_neon.h"

CEILING_DOT(ceiling_bf16_bf16neon, float32x4_t, vdupq_n_f32, bfloat16x8_t,
            vreinterpretq_bf16_u16(vdupq_n_u16(0x3e99)), vbfmmlaq_f32, vaddq_f32, vaddvq_f32)
