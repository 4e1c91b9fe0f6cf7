/* combine_avx512.c - combine and store in AVX-512: 16 columns a step, the bits of combine_c.c
 * (combine_vector.h). */
#include "kernel.h"
#include "quant_avx512.h"
#include "vector_avx512.h"

static inline void put(vec x, fp4moe_dtype dtype, void *y, size_t i) {
  const vec nan = _mm512_castsi512_ps(_mm512_set1_epi32(0x7fc00000));
  x = _mm512_mask_mov_ps(x, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), nan);
  switch (dtype) {
  case FP4MOE_F16:
    _mm256_storeu_si256((void *)((uint16_t *)y + i), _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
    break;
  case FP4MOE_BF16:
    _mm256_storeu_si256((void *)((uint16_t *)y + i), fp4_to_bf16_avx512(x));
    break;
  default:
    _mm512_storeu_ps((float *)y + i, x);
  }
}

#include "combine_vector.h"

COMBINE_ROWS(avx512)
