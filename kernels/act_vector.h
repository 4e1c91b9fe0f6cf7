/* act_vector.h - act in vectors: the operations of act.h and act_c.c in their order, for whichever
 * instruction set includes this; where those branch, both sides are computed and blended.
 *
 * The including file defines the type vec of LANES floats and set load store add sub mul quotient
 * fmadd fmsub fnmadd minus magnitude at_most at_least below with_sign scale: each is one operation
 * of the specification, with its rounding. */
#ifndef FP4MOE_ACT_VECTOR_H
#define FP4MOE_ACT_VECTOR_H

static inline vec clamp(vec x, float limit) { return at_least(at_most(x, limit), -limit); }

static inline vec poly(vec x, const float *c, int degree) {
  vec y = set(c[degree]);
  for (int i = degree; i-- > 0;) y = fmadd(y, x, set(c[i]));
  return y;
}

static inline vec expm1_small(vec r) {
  vec q = fmadd(r, set(FP4_EXP_C6), set(FP4_EXP_C5));
  q = fmadd(q, r, set(FP4_EXP_C4));
  q = fmadd(q, r, set(FP4_EXP_C3));
  q = fmadd(q, r, set(FP4_EXP_C2));
  return fmadd(mul(r, r), q, r);
}

/* n of x = n ln2 + r, and r. */
static inline vec reduce(vec x, vec *r) {
  const vec round = set(FP4_EXP_ROUND);
  vec n = sub(fmadd(x, set(FP4_LOG2E), round), round);
  *r = fmadd(n, set(-FP4_LN2_LOW), fmadd(n, set(-FP4_LN2_HIGH), x));
  return n;
}

static inline vec expv(vec x) {
  vec r, n = reduce(at_least(at_most(x, FP4_EXP_HIGH), FP4_EXP_LOW), &r);
  return scale(add(set(1), expm1_small(r)), n);
}

static inline vec sigmoid(vec x) { return quotient(set(1), add(set(1), expv(minus(x)))); }

static inline vec tanhv(vec x) {
  vec a = at_most(magnitude(x), FP4_TANH_ONE), s = mul(a, a);
  vec near = fmadd(mul(a, s), poly(s, fp4_tanh_near, FP4_TANH_DEGREE), a);
  vec far = sub(set(1), quotient(set(2), add(expv(add(a, a)), set(1))));
  return with_sign(below(a, FP4_TANH_NEAR, near, far), x);
}

static inline vec gelu_near(vec a) {
  vec p = poly(mul(a, a), fp4_gelu_near, FP4_GELU_NEAR_DEGREE);
  vec half = fnmadd(a, p, set(0.5f)), half_low = fnmadd(a, p, sub(set(0.5f), half));
  return fmadd(a, half, mul(a, half_low));
}

static inline vec gelu_far(vec a) {
  vec d = add(a, set(2)), b = sub(d, a), d_low = add(sub(a, sub(d, b)), sub(set(2), b));
  vec v = quotient(a, d);
  vec v_low = mul(fnmadd(v, d_low, fnmadd(v, d, a)), fmadd(set(-0.5f), v, set(0.5f)));
  vec t = sub(v, set(FP4_GELU_CENTRE)), k = poly(t, fp4_gelu_far, FP4_GELU_FAR_DEGREE);
  vec q = fmadd(k, t, set(FP4_GELU_FAR_0));
  vec q_low = fmadd(k, v_low, fmadd(k, t, sub(set(FP4_GELU_FAR_0), q)));
  vec f = mul(v, q), f_low = add(fmsub(v, q, f), fmadd(v_low, q, mul(v, q_low)));
  vec s = mul(a, a), x = mul(set(-0.5f), s), x_low = mul(set(-0.5f), fmsub(a, a, s));
  vec r, n = reduce(x, &r), e = expm1_small(add(r, x_low));
  return scale(add(f, fmadd(f, e, fmadd(f_low, e, f_low))), n);
}

static inline vec geluv(vec x) {
  vec a = at_most(magnitude(x), FP4_GELU_ZERO);
  return sub(at_least(x, 0), below(a, FP4_GELU_NEAR, gelu_near(a), gelu_far(a)));
}

static inline vec gelu_tanhv(vec x) {
  vec z = fmadd(mul(x, x), set(FP4_GELU_TANH_3), set(FP4_GELU_TANH_1));
  return mul(x, sigmoid(mul(x, z)));
}

/* The sums of one vector of columns of acc, with their scale and bias. */
static inline vec input(const fp4moe_act_args *a, float factor, size_t r, size_t column) {
  const vec sum = load(a->acc + r * a->acc_stride + column);
  if (!a->bias) return mul(sum, set(factor));
  return fmadd(sum, set(factor), load(a->bias + column));
}

static inline vec silu(const fp4moe_act_args *a, vec g, vec u) {
  g = at_most(g, a->limit);
  return mul(mul(g, sigmoid(g)), clamp(u, a->limit));
}

static inline vec swiglu_oai(const fp4moe_act_args *a, vec g, vec u) {
  g = at_most(g, a->limit);
  u = mul(add(clamp(u, a->limit), set(a->beta)), g);
  return mul(u, sigmoid(mul(set(a->alpha), g)));
}

static inline vec swiglustep(const fp4moe_act_args *a, vec g, vec u) {
  return mul(at_most(mul(g, sigmoid(g)), a->limit), clamp(u, a->limit));
}

/* cap * tanh(x / cap) */
static inline vec soft_cap(vec x, float cap) { return mul(set(cap), tanhv(quotient(x, set(cap)))); }

static inline vec situ(const fp4moe_act_args *a, vec g, vec u) {
  g = mul(soft_cap(g, a->beta), sigmoid(g));
  return mul(g, a->linear_beta > 0 ? soft_cap(u, a->linear_beta) : u);
}

static inline vec gelu(const fp4moe_act_args *a, vec g, vec u) {
  (void)a;
  return mul(geluv(g), u);
}

static inline vec gelu_tanh(const fp4moe_act_args *a, vec g, vec u) {
  (void)a;
  return mul(gelu_tanhv(g), u);
}

static inline vec silu_unary(vec x) { return mul(x, sigmoid(x)); }

static inline vec relu2(vec x) { return mul(at_least(x, 0), at_least(x, 0)); }

/* Columns [c, c + LANES) of h; acc has two panels, gate and up, for each of h. */
static inline void gated(const fp4moe_act_args *a, vec (*f)(const fp4moe_act_args *, vec, vec)) {
  for (size_t r = 0; r < a->m; r++)
    for (size_t c = 0; c < a->panels * FP4MOE_PANEL; c += LANES) {
      const size_t gate = c / FP4MOE_PANEL * FP4MOE_PANEL + c, up = gate + FP4MOE_PANEL;
      store(a->h + r * a->h_stride + c,
            f(a, input(a, a->gate_scale, r, gate), input(a, a->up_scale, r, up)));
    }
}

static inline void ungated(const fp4moe_act_args *a, vec (*f)(vec)) {
  for (size_t r = 0; r < a->m; r++)
    for (size_t c = 0; c < a->panels * FP4MOE_PANEL; c += LANES)
      store(a->h + r * a->h_stride + c, f(input(a, a->up_scale, r, c)));
}

/* The rows of one instruction set. */
#define ACT_ROWS(isa)                                                                              \
  void fp4moe_act_silu_##isa(const fp4moe_act_args *a) { gated(a, silu); }                         \
  void fp4moe_act_swiglu_oai_##isa(const fp4moe_act_args *a) { gated(a, swiglu_oai); }             \
  void fp4moe_act_swiglustep_##isa(const fp4moe_act_args *a) { gated(a, swiglustep); }             \
  void fp4moe_act_situ_##isa(const fp4moe_act_args *a) { gated(a, situ); }                         \
  void fp4moe_act_gelu_##isa(const fp4moe_act_args *a) { gated(a, gelu); }                         \
  void fp4moe_act_gelu_tanh_##isa(const fp4moe_act_args *a) { gated(a, gelu_tanh); }               \
  void fp4moe_act_silu_unary_##isa(const fp4moe_act_args *a) { ungated(a, silu_unary); }           \
  void fp4moe_act_gelu_unary_##isa(const fp4moe_act_args *a) { ungated(a, geluv); }                \
  void fp4moe_act_gelu_tanh_unary_##isa(const fp4moe_act_args *a) { ungated(a, gelu_tanhv); }      \
  void fp4moe_act_relu2_##isa(const fp4moe_act_args *a) { ungated(a, relu2); }

#endif
