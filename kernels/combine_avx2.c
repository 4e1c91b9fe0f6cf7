/* combine_avx2.c - combine and store in AVX2: 8 columns a step, the bits of combine_c.c
 * (combine_vector.h). */
#include "kernel.h"
#include "quant_avx2.h"
#include "vector_avx2.h"

static inline void put(vec x, fp4moe_dtype dtype, void *y, size_t i) {
  const vec nan = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fc00000));
  x = _mm256_blendv_ps(x, nan, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  switch (dtype) {
  case FP4MOE_F16:
    _mm_storeu_si128((void *)((uint16_t *)y + i), _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
    break;
  case FP4MOE_BF16:
    _mm_storeu_si128((void *)((uint16_t *)y + i), fp4_to_bf16_avx2(x));
    break;
  default:
    _mm256_storeu_ps((float *)y + i, x);
  }
}

#include "combine_vector.h"

COMBINE_ROWS(avx2)
