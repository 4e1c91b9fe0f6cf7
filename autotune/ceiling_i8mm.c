/* ceiling_i8mm.c - SMMLA, 32 int8 multiply-adds each. */
#include "ceiling_neon.h"

CEILING_DOT(ceiling_int8_i8mm, int32x4_t, vdupq_n_s32, int8x16_t, vdupq_n_s8(1), vmmlaq_s32,
            vaddq_s32, vaddvq_s32)
