/* act_c.c - the specification of act: from the sums of phase 1 to the rows of phase 2.
 *
 * Formulas as in NUMERICS, evaluated left to right in FP32. A limit is applied by comparison, so a
 * NaN passes through it: every function of a NaN is NaN. */
#include "act.h"
#include "kernel.h"

static inline float at_most(float x, float limit) { return x > limit ? limit : x; }

static inline float at_least(float x, float limit) { return x < limit ? limit : x; }

/* Sum (r, panel p of acc, column j) with its scale and bias. */
static inline float input(const fp4moe_act_args *a, float scale, size_t r, size_t p, size_t j) {
  float sum = a->acc[r * a->acc_stride + p * FP4MOE_PANEL + j];
  return a->bias ? fmaf(sum, scale, a->bias[p * FP4MOE_PANEL + j]) : sum * scale;
}

static inline float silu(const fp4moe_act_args *a, float g, float u) {
  g = at_most(g, a->limit);
  u = at_least(at_most(u, a->limit), -a->limit);
  return g * fp4_sigmoidf(g) * u;
}

static inline float swiglu_oai(const fp4moe_act_args *a, float g, float u) {
  g = at_most(g, a->limit);
  u = at_least(at_most(u, a->limit), -a->limit);
  return (u + a->beta) * g * fp4_sigmoidf(a->alpha * g);
}

static inline float silu_unary(const fp4moe_act_args *a, float x) {
  x = at_most(x, a->limit);
  return x * fp4_sigmoidf(x);
}

static inline float relu2(const fp4moe_act_args *a, float x) {
  (void)a;
  x = at_least(x, 0);
  return x * x;
}

static inline void gated(const fp4moe_act_args *a,
                         float (*f)(const fp4moe_act_args *, float, float)) {
  for (size_t r = 0; r < a->m; r++)
    for (size_t p = 0; p < a->panels; p++)
      for (size_t j = 0; j < FP4MOE_PANEL; j++)
        a->h[r * a->h_stride + p * FP4MOE_PANEL + j] =
            f(a, input(a, a->gate_scale, r, 2 * p, j), input(a, a->up_scale, r, 2 * p + 1, j));
}

static inline void ungated(const fp4moe_act_args *a, float (*f)(const fp4moe_act_args *, float)) {
  for (size_t r = 0; r < a->m; r++)
    for (size_t p = 0; p < a->panels; p++)
      for (size_t j = 0; j < FP4MOE_PANEL; j++)
        a->h[r * a->h_stride + p * FP4MOE_PANEL + j] = f(a, input(a, a->up_scale, r, p, j));
}

void fp4moe_act_silu_c(const fp4moe_act_args *a) { gated(a, silu); }

void fp4moe_act_swiglu_oai_c(const fp4moe_act_args *a) { gated(a, swiglu_oai); }

void fp4moe_act_silu_unary_c(const fp4moe_act_args *a) { ungated(a, silu_unary); }

void fp4moe_act_relu2_c(const fp4moe_act_args *a) { ungated(a, relu2); }
