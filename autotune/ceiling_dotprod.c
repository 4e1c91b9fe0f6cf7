/* ceiling_dotprod.c - SDOT, 16 int8 multiply-adds each. */
#include "ceiling_neon.h"

CEILING_DOT(ceiling_int8_dotprod, int32x4_t, vdupq_n_s32, int8x16_t, vdupq_n_s8(1), vdotq_s32,
            vaddq_s32, vaddvq_s32)
