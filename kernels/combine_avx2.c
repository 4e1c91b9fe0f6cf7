/* combine_avx2.c - combine and store in AVX2: 8 columns a step, the bits of combine_c.c.
 *
 * A NaN of combine may differ from the specification's in sign and payload, which is why store
 * leaves one kind only. */
#include <immintrin.h>

#include "kernel.h"
#include "quant_avx2.h"

/* One row. The bias is a branch outside of the loop over columns. */
static inline void combine_row(const fp4moe_combine_args *a, size_t r, int biased) {
  const __m256 scale = _mm256_set1_ps(a->scale), weight = _mm256_set1_ps(a->weight[r]);
  const float *acc = a->acc + r * a->acc_stride;
  float *y = a->y + a->index[r] * a->y_stride;
  for (size_t c = 0; c < a->panels * FP4MOE_PANEL; c += 8) {
    __m256 v = _mm256_load_ps(acc + c);
    v = biased ? _mm256_fmadd_ps(v, scale, _mm256_load_ps(a->bias + c)) : _mm256_mul_ps(v, scale);
    _mm256_store_ps(y + c, _mm256_fmadd_ps(weight, v, _mm256_load_ps(y + c)));
  }
}

void fp4moe_combine_avx2(const fp4moe_combine_args *a) {
  for (size_t r = 0; r < a->m; r++)
    if (a->bias)
      combine_row(a, r, 1);
    else
      combine_row(a, r, 0);
}

static inline void store8(__m256 x, fp4moe_dtype dtype, void *y, size_t i) {
  const __m256 nan = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fc00000));
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

void fp4moe_store_avx2(size_t n, size_t parts, const float *partials, size_t stride,
                       fp4moe_dtype dtype, int accumulate, void *y) {
  for (size_t i = 0; i < n; i += 8) {
    __m256 sum = _mm256_load_ps(partials + i);
    for (size_t p = 1; p < parts; p++)
      sum = _mm256_add_ps(sum, _mm256_load_ps(partials + p * stride + i));
    const __m256 old = accumulate ? fp4_load_avx2(y, dtype, i) : _mm256_setzero_ps();
    store8(_mm256_add_ps(old, sum), dtype, y, i);
  }
}
