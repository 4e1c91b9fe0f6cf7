/* combine_avx512.c - combine and store in AVX-512: 16 columns a step, the bits of combine_c.c.
 *
 * A NaN of combine may differ from the specification's in sign and payload, which is why store
 * leaves one kind only. */
#include <immintrin.h>

#include "kernel.h"
#include "quant_avx512.h"

/* One row. The bias is a branch outside of the loop over columns. */
static inline void combine_row(const fp4moe_combine_args *a, size_t r, int biased) {
  const __m512 scale = _mm512_set1_ps(a->scale), weight = _mm512_set1_ps(a->weight[r]);
  const float *acc = a->acc + r * a->acc_stride;
  float *y = a->y + a->index[r] * a->y_stride;
  for (size_t c = 0; c < a->panels * FP4MOE_PANEL; c += 16) {
    __m512 v = _mm512_load_ps(acc + c);
    v = biased ? _mm512_fmadd_ps(v, scale, _mm512_load_ps(a->bias + c)) : _mm512_mul_ps(v, scale);
    _mm512_store_ps(y + c, _mm512_fmadd_ps(weight, v, _mm512_load_ps(y + c)));
  }
}

void fp4moe_combine_avx512(const fp4moe_combine_args *a) {
  for (size_t r = 0; r < a->m; r++)
    if (a->bias)
      combine_row(a, r, 1);
    else
      combine_row(a, r, 0);
}

static inline void store16(__m512 x, fp4moe_dtype dtype, void *y, size_t i) {
  const __m512 nan = _mm512_castsi512_ps(_mm512_set1_epi32(0x7fc00000));
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

void fp4moe_store_avx512(size_t n, size_t parts, const float *partials, size_t stride,
                         fp4moe_dtype dtype, int accumulate, void *y) {
  for (size_t i = 0; i < n; i += 16) {
    __m512 sum = _mm512_load_ps(partials + i);
    for (size_t p = 1; p < parts; p++)
      sum = _mm512_add_ps(sum, _mm512_load_ps(partials + p * stride + i));
    const __m512 old = accumulate ? fp4_load_avx512(y, dtype, i) : _mm512_setzero_ps();
    store16(_mm512_add_ps(old, sum), dtype, y, i);
  }
}
