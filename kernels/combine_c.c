/* combine_c.c - the specification of combine and store: from the sums of phase 2 to the output.
 *
 * Both add in the order of the rows or partials. store leaves no NaN but the quiet one without
 * sign or payload (0x7fc00000, F16 0x7e00): which NaN an operation yields differs between ISAs and
 * compilers, and what leaves the library does not. */
#include <math.h>

#include "fp4.h"
#include "kernel.h"
#include "quant.h"

void fp4moe_combine_c(const fp4moe_combine_args *a) {
  for (size_t r = 0; r < a->m; r++) {
    const float *acc = a->acc + r * a->acc_stride;
    float *y = a->y + a->index[r] * a->y_stride;
    for (size_t c = 0; c < a->panels * FP4MOE_PANEL; c++) {
      float v = a->bias ? fmaf(acc[c], a->scale, a->bias[c]) : acc[c] * a->scale;
      y[c] = fmaf(a->weight[r], v, y[c]);
    }
  }
}

static inline void round_to(fp4moe_dtype dtype, float x, void *y, size_t i) {
  if (x != x) x = fp4_f32_from_bits(0x7fc00000);
  switch (dtype) {
  case FP4MOE_F16:
    ((uint16_t *)y)[i] = fp4_to_f16(x);
    break;
  case FP4MOE_BF16:
    ((uint16_t *)y)[i] = fp4_to_bf16(x);
    break;
  default:
    ((float *)y)[i] = x;
  }
}

void fp4moe_store_c(size_t n, size_t parts, const float *partials, size_t stride,
                    fp4moe_dtype dtype, int accumulate, void *y) {
  for (size_t i = 0; i < n; i++) {
    float sum = partials[i];
    for (size_t p = 1; p < parts; p++) sum += partials[p * stride + i];
    round_to(dtype, (accumulate ? fp4_load(y, dtype, i) : 0) + sum, y, i);
  }
}
