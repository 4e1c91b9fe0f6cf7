/* random_layer.c - random layers and their double-precision reference (random_layer.h). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "fp4.h"
#include "oracle.h"
#include "quantiser.h"
#include "random_layer.h"
#include "ties.h"

static uint8_t moderate_scale(const random_layer *m, int projection, size_t block) {
  (void)projection, (void)block;
  if (m->group == 32) return (uint8_t)(118 + check_below(6));
  uint8_t s = (uint8_t)check_below(256); /* any sign and size but NaN */
  return (s & 0x7f) == 0x7f ? 0x30 : s;
}

static int has_projection(const random_layer *m, int p) { return p || m->desc.activation.gated; }

/* Room for the weights of a desc. */
static random_layer *new_layer(const fp4moe_layer_desc *desc) {
  random_layer *m = calloc(1, sizeof *m);
  size_t e = desc->experts;
  m->desc = *desc;
  m->group = desc->format == FP4MOE_MXFP4 ? 32 : 16;
  for (int p = 0; p < 3; p++) {
    size_t n = m->n[p] = p == 2 ? desc->hidden : desc->intermediate;
    size_t k = m->k[p] = p == 2 ? desc->intermediate : desc->hidden;
    m->codes[p] = malloc(e * n * k / 2);
    m->scales[p] = malloc(e * n * (k / m->group));
    m->global[p] = malloc(e * sizeof(float));
    m->bias[p] = calloc(e * n, sizeof(float));
    m->input_scale[p] = calloc(e, sizeof(float));
  }
  return m;
}

/* Some blocks of x and h then saturate, some do not. */
static void draw_input_scales(random_layer *m) {
  fp4moe_layer_desc *d = &m->desc;
  for (int p = 0; p < 3; p++)
    for (size_t e = 0; e < d->experts; e++) {
      float *largest = p == 2 ? &d->input_scale_down : &d->input_scale_gate_up;
      m->input_scale[p][e] = check_uniform(0.2f, 2) / 2688;
      if (fp4moe_reads_layer_scales(d)) *largest = fmaxf(*largest, m->input_scale[p][e]);
    }
}

random_layer *random_layer_new(const fp4moe_layer_desc *desc, int biases, random_scale_fn *scale) {
  random_layer *m = new_layer(desc);
  size_t e = desc->experts;
  m->biases = biases;
  if (!scale) scale = moderate_scale;
  for (int p = 0; p < 3; p++) {
    size_t n = m->n[p], k = m->k[p], blocks = k / m->group;
    for (size_t i = 0; i < e * n * k / 2; i++) m->codes[p][i] = (uint8_t)check_random();
    for (size_t i = 0; i < e * n * blocks; i++) m->scales[p][i] = scale(m, p, i % blocks);
    for (size_t i = 0; i < e; i++)
      m->global[p][i] = desc->format == FP4MOE_MXFP4 ? 1 : check_uniform(1e-4f, 1e-3f);
    for (size_t i = 0; i < e * n; i++) m->bias[p][i] = biases ? check_uniform(-0.5f, 0.5f) : 0;
  }
  if (desc->precision == FP4MOE_PRECISION_NVFP4) draw_input_scales(m);
  return m;
}

void random_layer_free(random_layer *m) {
  for (int p = 0; p < 3; p++) {
    free(m->codes[p]);
    free(m->scales[p]);
    free(m->global[p]);
    free(m->bias[p]);
    free(m->input_scale[p]);
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
    to[p]->input_scale = m->input_scale[p][e];
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

static void restore_expert(random_layer *m, const fp4moe_layer *layer, size_t e) {
  uint8_t *record = aligned_alloc(64, layer->shape.bytes);
  fp4moe_layer_whole_record(layer, e, record);
  const float *globals = (const void *)(record + layer->shape.globals);
  for (int p = 0; p < 3; p++) {
    if (!has_projection(m, p)) continue;
    const float *bias = (const void *)(record + (p == 2 ? layer->shape.b2 : layer->shape.b13));
    size_t gated = p != 2 && m->desc.activation.gated;
    fp4moe_record_restore(&layer->shape, record, p, m->codes[p] + e * m->n[p] * m->k[p] / 2,
                          m->scales[p] + e * m->n[p] * (m->k[p] / m->group));
    m->global[p][e] = globals[p];
    m->input_scale[p][e] = globals[FP4MOE_INPUT_SCALES + (p == 2)];
    for (size_t i = 0; i < m->n[p]; i++) {
      size_t panel = i / 16 * (1 + gated) + (gated && p == 1);
      m->bias[p][e * m->n[p] + i] = bias[panel * 16 + i % 16];
    }
  }
  free(record);
}

random_layer *random_layer_restore(const fp4moe_layer *layer) {
  random_layer *m = new_layer(&layer->desc);
  m->biases = 1;
  for (size_t e = 0; e < m->desc.experts; e++) restore_expert(m, layer, e);
  return m;
}

/* ---- Reference ---- */

/* Without the bias. */
static double row_sum(const random_layer *m, int p, size_t e, size_t n, const double *x) {
  size_t k = m->k[p], row = e * m->n[p] + n, blocks = k / m->group;
  const uint8_t *codes = m->codes[p] + row * k / 2, *scales = m->scales[p] + row * blocks;
  double sum = 0;
  for (size_t b = 0; b < blocks; b++) {
    double block = 0, s = m->group == 32 ? ldexp(1, scales[b] - 127) : (double)fp4_e4m3(scales[b]);
    for (size_t i = b * m->group; i < (b + 1) * m->group; i++)
      block += 0.5 * fp4_e2m1_x2(fp4_code(codes, i)) * x[i];
    sum += block * s;
  }
  return sum * (double)m->global[p][e];
}

static double row_dot(const random_layer *m, int p, size_t e, size_t n, const double *x) {
  return row_sum(m, p, e, n, x) + (double)m->bias[p][e * m->n[p] + n];
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

/* G of what enters the projections of expert e; 1 where the class has none. */
static float inverse_of(const random_layer *m, size_t e, int down, size_t n, const double *x) {
  const fp4moe_layer_desc *d = &m->desc;
  if (d->precision != FP4MOE_PRECISION_NVFP4) return 1;
  if (d->input_global == FP4MOE_GLOBAL_TOKEN) return reference_dynamic_inverse(n, x);
  if (d->input_global == FP4MOE_GLOBAL_LAYER)
    return 1 / (down ? d->input_scale_down : d->input_scale_gate_up);
  float gate = d->activation.gated ? m->input_scale[0][e] : 0;
  return 1 / (down ? m->input_scale[2][e] : fmaxf(gate, m->input_scale[1][e]));
}

/* What enters a matmul of the class instead of x (fp4moe.h). */
static void quantise(const random_layer *m, size_t e, int down, const double *x, nudge by,
                     double *to) {
  size_t n = down ? m->desc.intermediate : m->desc.hidden;
  float inverse = inverse_of(m, e, down, n, x);
  reference_quantise(fp4moe_quant_class_of(m->desc.precision), inverse, n, x, by, to);
  for (size_t i = 0; i < n && inverse != 1; i++) to[i] /= (double)inverse;
}

/* Columns [at, at + n) of h could as well be those of `other`. */
static void add_tie(const random_layer *m, size_t e, double weight, const double *h,
                    const double *other, size_t at, size_t n, tie_list *ties) {
  double *difference = calloc(m->desc.intermediate, sizeof *difference), *way = tie_add(ties);
  for (size_t i = at; i < at + n; i++) difference[i] = other[i] - h[i];
  for (size_t i = 0; i < m->desc.hidden; i++) way[i] = weight * row_sum(m, 2, e, i, difference);
  free(difference);
}

static int differ(size_t n, const double *a, const double *b) {
  for (size_t i = 0; i < n; i++)
    if (a[i] != b[i]) return 1;
  return 0;
}

/* h [I] as it is and quantised: its ties of elements one by one, those of scales by blocks. */
static void find_ties(const random_layer *m, size_t e, double weight, const double *h,
                      const double *rounded, tie_list *ties) {
  static const nudge nudges[] = {
      {TIE_WINDOW, 0}, {-TIE_WINDOW, 0}, {0, TIE_WINDOW}, {0, -TIE_WINDOW}};
  size_t all = m->desc.intermediate, group;
  double *other = malloc(all * sizeof *other);
  for (int w = 0; w < 4; w++) {
    quantise(m, e, 1, h, nudges[w], other);
    group = w < 2 ? 1 : fp4_quant_group(fp4moe_quant_class_of(m->desc.precision));
    for (size_t at = 0, n; at < all; at += n) {
      n = all - at < group ? all - at : group;
      if (differ(n, other + at, rounded + at)) add_tie(m, e, weight, rounded, other, at, n, ties);
    }
  }
  free(other);
}

/* Adds the expert's part to y, and its ties to the list. */
static void add_expert(const random_layer *m, size_t e, const double *x, double weight, double *y,
                       tie_list *ties) {
  size_t all = m->desc.intermediate;
  double *in = malloc(m->desc.hidden * sizeof *in), *h = malloc(2 * all * sizeof *h);
  quantise(m, e, 0, x, (nudge){0, 0}, in);
  for (size_t i = 0; i < all; i++) {
    double g = has_projection(m, 0) ? row_dot(m, 0, e, i, in) : 0;
    h[i] = activate(m, g, row_dot(m, 1, e, i, in));
  }
  quantise(m, e, 1, h, (nudge){0, 0}, h + all);
  if (m->desc.precision != FP4MOE_PRECISION_F32) find_ties(m, e, weight, h, h + all, ties);
  for (size_t i = 0; i < m->desc.hidden; i++) y[i] += weight * row_dot(m, 2, e, i, h + all);
  free(in);
  free(h);
}

/* y [H] of one token, with the class's quantisers before both matmuls; id -1 adds nothing. Returns
 * how many experts it has. */
static size_t add_token(const random_layer *m, size_t top_k, const float *x, const int32_t *ids,
                        const float *weights, double *y, tie_list *ties) {
  size_t hidden = m->desc.hidden, experts = 0;
  int on_input = m->desc.router_weight_on_input;
  double *in = malloc(hidden * sizeof *in);
  memset(y, 0, hidden * sizeof *y);
  for (size_t s = 0; s < top_k; s++) {
    if (ids[s] < 0) continue;
    for (size_t i = 0; i < hidden; i++) in[i] = (double)x[i] * (on_input ? (double)weights[s] : 1);
    add_expert(m, (size_t)ids[s], in, on_input ? 1 : (double)weights[s], y, ties);
    experts++;
  }
  free(in);
  return experts;
}

closeness random_layer_compare(const random_layer *m, size_t tokens, size_t top_k, const float *x,
                               const int32_t *ids, const float *weights, const float *y) {
  size_t hidden = m->desc.hidden;
  double *want = malloc(hidden * sizeof *want), off = 0, norm = 0;
  tie_list ties = {.n = hidden};
  closeness c = {0, 0, 0};
  for (size_t t = 0; t < tokens; t++) {
    c.elements += m->desc.intermediate * add_token(m, top_k, x + t * hidden, ids + t * top_k,
                                                   weights + t * top_k, want, &ties);
    c.ties += ties.count;
    for (size_t i = 0; i < hidden; i++) {
      norm += want[i] * want[i];
      want[i] = (double)y[t * hidden + i] - want[i];
    }
    tie_settle(&ties, want);
    for (size_t i = 0; i < hidden; i++) off += want[i] * want[i];
  }
  c.rel_l2 = norm > 0 ? sqrt(off / norm) : sqrt(off);
  free(ties.way);
  free(want);
  return c;
}

void random_layer_project(const random_layer *m, int projection, size_t e, const float *x,
                          double *y) {
  size_t k = m->k[projection];
  double *in = malloc(k * sizeof *in);
  for (size_t i = 0; i < k; i++) in[i] = (double)x[i];
  quantise(m, e, projection == 2, in, (nudge){0, 0}, in);
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
