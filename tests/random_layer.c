/* random_layer.c - random layers and their double-precision reference (random_layer.h). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "fp4.h"
#include "random_layer.h"

static uint8_t moderate_scale(const random_layer *m, int projection, size_t block) {
  (void)projection, (void)block;
  if (m->group == 32) return (uint8_t)(118 + check_below(6));
  uint8_t s = (uint8_t)check_below(256); /* any sign and size but NaN */
  return (s & 0x7f) == 0x7f ? 0x30 : s;
}

static int has_projection(const random_layer *m, int p) { return p || m->desc.activation.gated; }

random_layer *random_layer_new(const fp4moe_layer_desc *desc, int biases, random_scale_fn *scale) {
  random_layer *m = calloc(1, sizeof *m);
  size_t e = desc->experts;
  m->desc = *desc;
  m->biases = biases;
  m->group = desc->format == FP4MOE_MXFP4 ? 32 : 16;
  if (!scale) scale = moderate_scale;
  for (int p = 0; p < 3; p++) {
    size_t n = m->n[p] = p == 2 ? desc->hidden : desc->intermediate;
    size_t k = m->k[p] = p == 2 ? desc->intermediate : desc->hidden, blocks = k / m->group;
    m->codes[p] = malloc(e * n * k / 2);
    m->scales[p] = malloc(e * n * blocks);
    m->global[p] = malloc(e * sizeof(float));
    m->bias[p] = malloc(e * n * sizeof(float));
    for (size_t i = 0; i < e * n * k / 2; i++) m->codes[p][i] = (uint8_t)check_random();
    for (size_t i = 0; i < e * n * blocks; i++) m->scales[p][i] = scale(m, p, i % blocks);
    for (size_t i = 0; i < e; i++)
      m->global[p][i] = desc->format == FP4MOE_MXFP4 ? 1 : check_uniform(1e-4f, 1e-3f);
    for (size_t i = 0; i < e * n; i++) m->bias[p][i] = biases ? check_uniform(-0.5f, 0.5f) : 0;
  }
  return m;
}

void random_layer_free(random_layer *m) {
  for (int p = 0; p < 3; p++) {
    free(m->codes[p]);
    free(m->scales[p]);
    free(m->global[p]);
    free(m->bias[p]);
  }
  free(m);
}

fp4moe_expert_weights random_layer_expert(const random_layer *m, size_t e) {
  fp4moe_expert_weights w = {.struct_size = sizeof w};
  fp4moe_projection *to[3] = {&w.gate, &w.up, &w.down};
  for (int p = 0; p < 3; p++) {
    if (!has_projection(m, p)) continue;
    to[p]->codes = m->codes[p] + e * m->n[p] * m->k[p] / 2;
    to[p]->scales = m->scales[p] + e * m->n[p] * (m->k[p] / m->group);
    to[p]->global = m->global[p][e];
    to[p]->bias = m->biases ? m->bias[p] + e * m->n[p] : NULL;
    to[p]->bias_dtype = FP4MOE_F32;
  }
  return w;
}

fp4moe_status random_layer_open(const random_layer *m, fp4moe_context *ctx, fp4moe_layer **layer) {
  fp4moe_status status = fp4moe_layer_begin(ctx, &m->desc, layer);
  for (size_t e = 0; !status && e < m->desc.experts; e++) {
    fp4moe_expert_weights w = random_layer_expert(m, e);
    status = fp4moe_layer_set_expert(*layer, e, &w);
  }
  return status ? status : fp4moe_layer_finish(*layer);
}

/* ---- Reference ---- */

static double row_dot(const random_layer *m, int p, size_t e, size_t n, const double *x) {
  size_t k = m->k[p], row = e * m->n[p] + n, blocks = k / m->group;
  const uint8_t *codes = m->codes[p] + row * k / 2, *scales = m->scales[p] + row * blocks;
  double sum = 0;
  for (size_t b = 0; b < blocks; b++) {
    double block = 0, s = m->group == 32 ? ldexp(1, scales[b] - 127) : (double)fp4_e4m3(scales[b]);
    for (size_t i = b * m->group; i < (b + 1) * m->group; i++)
      block += 0.5 * fp4_e2m1_x2(fp4_code(codes, i)) * x[i];
    sum += block * s;
  }
  return sum * (double)m->global[p][e] + (double)m->bias[p][row];
}

static double silu(double x) { return x / (1 + exp(-x)); }

static double gelu(double x) { return x * erfc(-x / sqrt(2)) / 2; }

static double gelu_tanh(double x) {
  return x / 2 * (1 + tanh(sqrt(2 / acos(-1)) * (x + 0.044715 * x * x * x)));
}

static double soft_cap(double x, double cap) { return cap > 0 ? cap * tanh(x / cap) : x; }

static double clamp(double x, double limit) { return fmax(fmin(x, limit), -limit); }

/* Ungated: g is the up projection, u is 1. */
static double function_of(const fp4moe_activation *a, double limit, double g, double u) {
  switch (a->kind) {
  case FP4MOE_SILU:
    return silu(fmin(g, limit)) * clamp(u, limit);
  case FP4MOE_SWIGLU_OAI:
    g = fmin(g, limit);
    return (clamp(u, limit) + (double)a->beta) * g / (1 + exp(-(double)a->alpha * g));
  case FP4MOE_SWIGLUSTEP:
    return fmin(silu(g), limit) * clamp(u, limit);
  case FP4MOE_GELU:
    return gelu(g) * u;
  case FP4MOE_GELU_TANH:
    return gelu_tanh(g) * u;
  case FP4MOE_SITU:
    return soft_cap(g, (double)a->beta) / (1 + exp(-g)) * soft_cap(u, (double)a->linear_beta);
  default:
    return (g > 0 ? g * g : 0) * u;
  }
}

static double activate(const random_layer *m, double g, double u) {
  fp4moe_activation a = m->desc.activation;
  double limit = a.limit > 0 ? (double)a.limit : INFINITY, swap = g;
  if (!a.gated) g = u, u = m->fault == FAULT_GATED ? g : 1;
  if (m->fault == FAULT_SWAPPED) g = u, u = swap;
  if (m->fault == FAULT_CLAMPED_FIRST)
    a.kind = a.kind == FP4MOE_SILU ? FP4MOE_SWIGLUSTEP : FP4MOE_SILU;
  if (m->fault == FAULT_BOTH_SIDES) g = fmax(g, -limit);
  if (m->fault == FAULT_NO_LIMIT) limit = INFINITY;
  if (m->fault == FAULT_NO_ALPHA) a.alpha = 1;
  if (m->fault == FAULT_NO_BETA) a.beta = 0;
  if (m->fault == FAULT_NO_LINEAR_BETA) a.linear_beta = 0;
  if (m->fault == FAULT_OTHER_GELU) a.kind = a.kind == FP4MOE_GELU ? FP4MOE_GELU_TANH : FP4MOE_GELU;
  return function_of(&a, limit, g, u);
}

/* What enters a matmul of the class instead of x (NUMERICS, activation classes). */
static void quantise(fp4moe_precision precision, size_t n, double *x) {
  for (size_t i = 0; i < n && precision == FP4MOE_PRECISION_BF16; i++)
    x[i] = (double)fp4_from_bf16(fp4_to_bf16((float)x[i]));
  for (size_t b = 0; b < n && precision == FP4MOE_PRECISION_INT8; b += 32) {
    size_t end = b + 32 < n ? b + 32 : n;
    float amax = 0;
    for (size_t i = b; i < end; i++) amax = fmaxf(amax, fabsf((float)x[i]));
    float d = amax / 127;
    for (size_t i = b; i < end; i++)
      x[i] = d < 0x1p-126f ? 0 : (double)d * fmin(fmax(rint((double)((float)x[i] / d)), -127), 127);
  }
}

static void add_expert(const random_layer *m, size_t e, const double *x, double weight, double *h,
                       double *y) {
  for (size_t i = 0; i < m->desc.intermediate; i++) {
    double g = has_projection(m, 0) ? row_dot(m, 0, e, i, x) : 0;
    h[i] = activate(m, g, row_dot(m, 1, e, i, x));
  }
  quantise(m->desc.precision, m->desc.intermediate, h);
  for (size_t i = 0; i < m->desc.hidden; i++) y[i] += weight * row_dot(m, 2, e, i, h);
}

void random_layer_forward(const random_layer *m, size_t tokens, size_t top_k, const float *x,
                          const int32_t *ids, const float *weights, double *y) {
  size_t hidden = m->desc.hidden;
  int on_input = m->desc.router_weight_on_input;
  double *h = malloc(m->desc.intermediate * sizeof *h), *in = malloc(hidden * sizeof *in);
  memset(y, 0, tokens * hidden * sizeof *y);
  for (size_t t = 0; t < tokens; t++)
    for (size_t s = 0; s < top_k; s++) {
      size_t p = t * top_k + s;
      if (ids[p] < 0) continue;
      for (size_t i = 0; i < hidden; i++)
        in[i] = (double)x[t * hidden + i] * (on_input ? (double)weights[p] : 1);
      quantise(m->desc.precision, hidden, in);
      add_expert(m, (size_t)ids[p], in, on_input ? 1 : (double)weights[p], h, y + t * hidden);
    }
  free(h);
  free(in);
}

void random_layer_project(const random_layer *m, int projection, size_t e, const float *x,
                          double *y) {
  size_t k = m->k[projection];
  double *in = malloc(k * sizeof *in);
  for (size_t i = 0; i < k; i++) in[i] = (double)x[i];
  quantise(m->desc.precision, k, in);
  for (size_t i = 0; i < m->n[projection]; i++) y[i] = row_dot(m, projection, e, i, in);
  free(in);
}

double rel_l2(size_t n, const float *a, const double *b) {
  double d = 0, s = 0;
  for (size_t i = 0; i < n; i++) {
    d += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    s += b[i] * b[i];
  }
  return s > 0 ? sqrt(d / s) : sqrt(d);
}
