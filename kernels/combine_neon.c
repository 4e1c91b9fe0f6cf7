/* combine_neon.c - combine and store in NEON: four columns a step, the bits of combine_c.c
 * (combine_vector.h). */
#include "kernel.h"
#include "neon.h"
#include "quant_neon.h"
#include "vector_neon.h"

FP4_INLINE void put(vec x, fp4moe_dtype dtype, void *y, size_t i) {
  const vec nan = vreinterpretq_f32_u32(vdupq_n_u32(0x7fc00000));
  x = vbslq_f32(vceqq_f32(x, x), x, nan);
  switch (dtype) {
  case FP4MOE_F16:
    vst1_u16((uint16_t *)y + i, vreinterpret_u16_f16(vcvt_f16_f32(x)));
    break;
  case FP4MOE_BF16:
    vst1_u16((uint16_t *)y + i, vmovn_u32(fp4_to_bf16_neon(x)));
    break;
  default:
    vst1q_f32((float *)y + i, x);
  }
}

#include "combine_vector.h"

COMBINE_ROWS(neon)
