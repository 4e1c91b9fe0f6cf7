/* act_c.c - the specification of act: from the sums of phase 1 to the rows of phase 2.
 *
 * Formulas as in fp4moe.h, evaluated left to right in FP32. A limit is applied by comparison, so a
 * NaN passes through it: every function of a NaN is NaN. */
#include "act.h"
#include "kernel.h"

static inline float at_most(float x, float limit) { return x > limit ? limit : x; }

static inline float at_least(float x, float limit) { return x < limit ? limit : x; }

static inline float clamp(float x, float limit) { return at_least(at_most(x, limit), -limit); }

/* Sum (r, panel p of acc, column j) with its scale and bias. */
static inline float input(const fp4moe_act_args *a, float scale, size_t r, size_t p, size_t j) {
  float sum = a->acc[r * a->acc_stride + p * FP4MOE_PANEL + j];
  return a->bias ? fmaf(sum, scale, a->bias[p * FP4MOE_PANEL + j]) : sum * scale;
}

static inline float silu(const fp4moe_act_args *a, float g, float u) {
  g = at_most(g, a->limit);
  return g * fp4_sigmoidf(g) * clamp(u, a->limit);
}

static inline float swiglu_oai(const fp4moe_act_args *a, float g, float u) {
  g = at_most(g, a->limit);
  return (clamp(u, a->limit) + a->beta) * g * fp4_sigmoidf(a->alpha * g);
}

static inline float swiglustep(const fp4moe_act_args *a, float g, float u) {
  g = at_most(g * fp4_sigmoidf(g), a->limit);
  return g * clamp(u, a->limit);
}

static inline float soft_cap(float x, float cap) { return cap * fp4_tanhf(x / cap); }

static inline float situ(const fp4moe_act_args *a, float g, float u) {
  g = soft_cap(g, a->beta) * fp4_sigmoidf(g);
  return g * (a->linear_beta > 0 ? soft_cap(u, a->linear_beta) : u);
}

static inline float gelu(const fp4moe_act_args *a, float g, float u) {
  (void)a;
  return fp4_geluf(g) * u;
}

static inline float gelu_tanh(const fp4moe_act_args *a, float g, float u) {
  (void)a;
  return fp4_gelu_tanhf(g) * u;
}

static inline float silu_unary(float x) { return x * fp4_sigmoidf(x); }

static inline float relu2(float x) { return at_least(x, 0) * at_least(x, 0); }

static inline void gated(const fp4moe_act_args *a,
                         float (*f)(const fp4moe_act_args *, float, float)) {
  for (size_t r = 0; r < a->m; r++)
    for (size_t p = 0; p < a->panels; p++)
      for (size_t j = 0; j < FP4MOE_PANEL; j++)
        a->h[r * a->h_stride + p * FP4MOE_PANEL + j] =
            f(a, input(a, a->gate_scale, r, 2 * p, j), input(a, a->up_scale, r, 2 * p + 1, j));
}

static inline void ungated(const fp4moe_act_args *a, float (*f)(float)) {
  for (size_t r = 0; r < a->m; r++)
    for (size_t p = 0; p < a->panels; p++)
      for (size_t j = 0; j < FP4MOE_PANEL; j++)
        a->h[r * a->h_stride + p * FP4MOE_PANEL + j] = f(input(a, a->up_scale, r, p, j));
}

void fp4moe_act_silu_c(const fp4moe_act_args *a) { gated(a, silu); }

void fp4moe_act_swiglu_oai_c(const fp4moe_act_args *a) { gated(a, swiglu_oai); }

void fp4moe_act_swiglustep_c(const fp4moe_act_args *a) { gated(a, swiglustep); }

void fp4moe_act_situ_c(const fp4moe_act_args *a) { gated(a, situ); }

void fp4moe_act_gelu_c(const fp4moe_act_args *a) { gated(a, gelu); }

void fp4moe_act_gelu_tanh_c(const fp4moe_act_args *a) { gated(a, gelu_tanh); }

void fp4moe_act_silu_unary_c(const fp4moe_act_args *a) { ungated(a, silu_unary); }

void fp4moe_act_gelu_unary_c(const fp4moe_act_args *a) { ungated(a, fp4_geluf); }

void fp4moe_act_gelu_tanh_unary_c(const fp4moe_act_args *a) { ungated(a, fp4_gelu_tanhf); }

void fp4moe_act_relu2_c(const fp4moe_act_args *a) { ungated(a, relu2); }
