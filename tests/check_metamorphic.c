/* check_metamorphic.c - whole layers and linears against themselves: what changes of the input must
 * do to the bits of the output, whatever these are.
 *
 * Tokens in another order, slots in another order, experts under other numbers; rows of zeros;
 * powers of two on weights, scales and router weights; 1 to 16 threads; tokens that are not there.
 * In every class. Nothing here has a tolerance. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fp4.h"
#include "layer_fixture.h"

enum { EXPERTS = 6 };

static fp4moe_layer_desc desc_of(const class_word *w) {
  return class_desc(w, 96, w->format == FP4MOE_MXFP4 ? 160 : 144, EXPERTS);
}

/* ---- A layer, a call, and the same call changed ---- */

typedef struct relation {
  const class_word *word;
  fixture f; /* its y: of the layer as it is */
} relation;

static void call(const relation *r, fp4moe_layer *layer, const problem *p) {
  const fp4moe_batch b = batch_of(p);
  memset(p->y, 0xff, p->tokens * p->hidden * sizeof *p->y);
  CHECK(!run(layer, &b), "%s: %s", r->word->name, fp4moe_error_detail());
}

static relation open_relation(const class_word *w, fp4moe_layer_desc d, int biases, size_t tokens,
                              size_t top_k) {
  relation r = {w, set_up(2, &d, biases, tokens, top_k, 1)};
  call(&r, r.f.layer, &r.f.p);
  return r;
}

/* A copy of the call that can be changed. */
static problem copy_of(const problem *p) {
  problem c = *p;
  const size_t floats = p->tokens * p->hidden, slots = p->tokens * p->top_k;
  c.x = memcpy(malloc(floats * sizeof *c.x), p->x, floats * sizeof *c.x);
  c.y = malloc(floats * sizeof *c.y);
  c.ids = memcpy(malloc(slots * sizeof *c.ids), p->ids, slots * sizeof *c.ids);
  c.weights = memcpy(malloc(slots * sizeof *c.weights), p->weights, slots * sizeof *c.weights);
  return c;
}

static void same_token(const relation *r, const float *got, const float *want, const char *what,
                       size_t t) {
  char text[96];
  snprintf(text, sizeof text, "%s: %s, token %zu", r->word->name, what, t);
  CHECK_SAME(got, want, r->f.p.hidden, sizeof *want, text);
}

static void same_tokens(const relation *r, const problem *got, float factor, const char *what) {
  for (size_t t = 0; t < r->f.p.tokens; t++) {
    float *want = malloc(r->f.p.hidden * sizeof *want);
    for (size_t i = 0; i < r->f.p.hidden; i++) want[i] = r->f.p.y[t * r->f.p.hidden + i] * factor;
    same_token(r, got->y + t * r->f.p.hidden, want, what, t);
    free(want);
  }
}

typedef void relation_fn(relation *r);

static const size_t tokens_of[] = {1, 7, 40};

static void every_class(size_t top_k, int biases, relation_fn *test) {
  for (const class_word *w = class_words; w < class_words + CLASS_WORDS; w++)
    for (size_t i = 0; i < 3; i++) {
      relation r = open_relation(w, desc_of(w), biases, tokens_of[i], top_k);
      test(&r);
      tear_down(&r.f);
    }
}

/* ---- Permutations ---- */

static void permutation(size_t n, size_t *to) {
  for (size_t i = 0; i < n; i++) {
    const size_t j = check_below(i + 1);
    to[i] = to[j];
    to[j] = i;
  }
}

static void permute_tokens(relation *r) {
  problem c = copy_of(&r->f.p);
  size_t to[64], h = r->f.p.hidden, k = r->f.p.top_k;
  permutation(r->f.p.tokens, to);
  for (size_t t = 0; t < r->f.p.tokens; t++) {
    memcpy(c.x + to[t] * h, r->f.p.x + t * h, h * sizeof *c.x);
    memcpy(c.ids + to[t] * k, r->f.p.ids + t * k, k * sizeof *c.ids);
    memcpy(c.weights + to[t] * k, r->f.p.weights + t * k, k * sizeof *c.weights);
  }
  call(r, r->f.layer, &c);
  for (size_t t = 0; t < r->f.p.tokens; t++)
    same_token(r, c.y + to[t] * h, r->f.p.y + t * h, "tokens permuted", t);
  drop(&c);
}

/* Experts are summed by number, not by slot; slots with the same one stay in order. */
static void permute_slots(relation *r) {
  problem c = copy_of(&r->f.p);
  for (size_t t = 0; t < r->f.p.tokens; t++)
    for (size_t k = r->f.p.top_k; k-- > 1;) {
      const size_t a = t * r->f.p.top_k + k, b = t * r->f.p.top_k + check_below(k);
      const int32_t id = c.ids[a];
      const float weight = c.weights[a];
      c.ids[a] = c.ids[b], c.weights[a] = c.weights[b];
      c.ids[b] = id, c.weights[b] = weight;
    }
  call(r, r->f.layer, &c);
  for (size_t t = 0; t < r->f.p.tokens; t++) {
    int repeats = 0;
    for (size_t i = 0; i < r->f.p.top_k; i++)
      for (size_t j = 0; j < i; j++)
        repeats |= r->f.p.ids[t * r->f.p.top_k + i] == r->f.p.ids[t * r->f.p.top_k + j];
    const size_t at = t * r->f.p.hidden;
    if (!repeats) same_token(r, c.y + at, r->f.p.y + at, "slots permuted", t);
  }
  drop(&c);
}

/* Expert e becomes expert to[e], with its weights. One expert a token: of more, the sum's order is
 * that of their numbers. */
static void permute_experts(relation *r) {
  problem c = copy_of(&r->f.p);
  fp4moe_layer *layer = NULL;
  size_t to[EXPERTS];
  permutation(EXPERTS, to);
  fp4moe_status status = fp4moe_layer_begin(r->f.ctx, &r->f.m->desc, &layer);
  for (size_t e = 0; e < EXPERTS && !status; e++) {
    fp4moe_expert_weights w = random_layer_expert(r->f.m, e);
    status = fp4moe_layer_set_expert(layer, to[e], &w);
  }
  if (!CHECK(!status && !fp4moe_layer_finish(layer), "%s", fp4moe_error_detail())) return;
  for (size_t i = 0; i < c.tokens * c.top_k; i++)
    if (c.ids[i] >= 0) c.ids[i] = (int32_t)to[c.ids[i]];
  call(r, layer, &c);
  same_tokens(r, &c, 1, "experts permuted");
  fp4moe_layer_destroy(layer);
  drop(&c);
}

static void tokens_permuted(void) { every_class(3, 1, permute_tokens); }
static void slots_permuted(void) { every_class(3, 1, permute_slots); }
static void experts_permuted(void) { every_class(1, 1, permute_experts); }

/* ---- Zeros ---- */

static int is_zero(const float *y, size_t n) {
  for (size_t i = 0; i < n; i++)
    if (fp4_f32_bits(y[i]) != 0) return 0;
  return 1;
}

/* Without biases a token of zeros, of weights of zero, or of no expert is +0; no other sees it. */
static void zero_tokens(relation *r) {
  problem c = copy_of(&r->f.p);
  const size_t h = r->f.p.hidden, k = r->f.p.top_k;
  for (size_t t = 0; t < c.tokens; t += 3) { /* -0 is a zero too */
    for (size_t i = 0; i < h && t % 2 == 0; i++) c.x[t * h + i] = i % 5 ? 0 : -0.0f;
    for (size_t i = 0; i < k && t % 2 == 1; i++) c.weights[t * k + i] = 0;
  }
  call(r, r->f.layer, &c);
  for (size_t t = 0; t < c.tokens; t++)
    if (t % 3)
      same_token(r, c.y + t * h, r->f.p.y + t * h, "beside zeros", t);
    else
      CHECK(is_zero(c.y + t * h, h), "%s: token %zu of zeros is not 0", r->word->name, t);
  drop(&c);
}

static void zero_rows(void) { every_class(2, 0, zero_tokens); }

/* Rows of zero codes, whatever their scales, give their bias times the router weight, once. */
static void zero_outputs(relation *r) {
  const size_t h = r->f.p.hidden, bytes = r->f.m->k[2] / 2;
  for (size_t e = 0; e < EXPERTS; e++)
    for (size_t n = 0; n < h; n += 5)
      memset(r->f.m->codes[2] + (e * h + n) * bytes, n % 2 ? 0x08 : 0x80, bytes); /* +0 and -0 */
  fp4moe_layer *layer = layer_of(r->f.m, r->f.ctx);
  problem c = copy_of(&r->f.p);
  call(r, layer, &c);
  for (size_t t = 0; t < c.tokens; t++)
    for (size_t n = 0; n < h; n++) {
      const int32_t e = c.ids[t];
      float want = e < 0 ? 0 : c.weights[t] * r->f.m->bias[2][(size_t)e * h + n];
      if (n % 5) want = r->f.p.y[t * h + n];
      if (!CHECK(fp4_f32_bits(c.y[t * h + n]) == fp4_f32_bits(want),
                 "%s: zero weights, y[%zu][%zu] is %g, expected %g", r->word->name, t, n,
                 (double)c.y[t * h + n], (double)want))
        break;
    }
  fp4moe_layer_destroy(layer);
  drop(&c);
}

static void zero_weights(void) { every_class(1, 1, zero_outputs); }

/* ---- Powers of two ---- */

/* On the router weights, on the globals of down, on its block scales. */
static void scale_outputs(relation *r) {
  problem c = copy_of(&r->f.p);
  for (size_t i = 0; i < c.tokens * c.top_k; i++) c.weights[i] *= 0x1p-7f;
  call(r, r->f.layer, &c);
  same_tokens(r, &c, 0x1p-7f, "router weights / 128");
  memcpy(c.weights, r->f.p.weights, c.tokens * c.top_k * sizeof *c.weights);
  if (r->f.m->desc.format == FP4MOE_NVFP4)
    for (size_t e = 0; e < EXPERTS; e++) r->f.m->global[2][e] *= 0x1p9f;
  else
    for (size_t i = 0; i < EXPERTS * r->f.m->n[2] * (r->f.m->k[2] / 32); i++)
      r->f.m->scales[2][i] += 9;
  fp4moe_layer *layer = layer_of(r->f.m, r->f.ctx);
  call(r, layer, &c);
  same_tokens(r, &c, 0x1p9f, "scales of down x 512");
  fp4moe_layer_destroy(layer);
  drop(&c);
}

static void outputs_scaled(void) { every_class(3, 0, scale_outputs); }

/* x times 2 through relu2, which is homogeneous: y times 4. Class nvfp4 with a global of its own
 * takes x the same; with a fixed one a scale may leave E4M3's range, so globals go along. */
static void scale_inputs(relation *r) {
  problem c = copy_of(&r->f.p);
  random_layer *m = r->f.m;
  for (size_t i = 0; i < c.tokens * c.hidden; i++) c.x[i] *= 2;
  m->desc.input_scale_gate_up *= 2, m->desc.input_scale_down *= 4;
  for (size_t e = 0; e < EXPERTS; e++) m->input_scale[1][e] *= 2, m->input_scale[2][e] *= 4;
  fp4moe_layer *layer = layer_of(m, r->f.ctx);
  call(r, layer, &c);
  same_tokens(r, &c, 4, "x doubled");
  fp4moe_layer_destroy(layer);
  drop(&c);
}

static void inputs_scaled(void) {
  for (const class_word *w = class_words; w < class_words + CLASS_WORDS; w++)
    for (size_t i = 0; i < 3; i++) {
      fp4moe_layer_desc d = desc_of(w);
      d.activation = (fp4moe_activation){.kind = FP4MOE_RELU2};
      relation r = open_relation(w, d, 0, tokens_of[i], 2);
      scale_inputs(&r);
      tear_down(&r.f);
    }
}

/* ---- Threads ---- */

static void sixteen_threads(void) {
  enum { MOST = 16 };
  fp4moe_context *many = context_of(MOST);
  for (const class_word *w = class_words; w < class_words + CLASS_WORDS; w++)
    for (size_t i = 0; i < 3; i++) {
      relation r = open_relation(w, desc_of(w), 1, tokens_of[i], 3);
      problem c = copy_of(&r.f.p);
      fp4moe_layer *layer = layer_of(r.f.m, many);
      fp4moe_batch b = batch_of(&c);
      for (b.threads = 1; b.threads <= MOST; b.threads++) {
        memset(c.y, 0xff, c.tokens * c.hidden * sizeof *c.y);
        CHECK(!run(layer, &b), "%s", fp4moe_error_detail());
        same_tokens(&r, &c, 1, "1 to 16 threads");
      }
      fp4moe_layer_destroy(layer);
      drop(&c);
      tear_down(&r.f);
    }
  fp4moe_context_destroy(many);
}

/* ---- Nothing there ---- */

/* No tokens, tokens without experts, in every form; then one expert for all. */
static void check_empty(relation *r) {
  const size_t floats = r->f.p.tokens * r->f.p.hidden;
  problem c = copy_of(&r->f.p);
  fp4moe_batch b = batch_of(&c);
  for (size_t i = 0; i < c.tokens * c.top_k; i++) c.ids[i] = -1;
  call(r, r->f.layer, &c);
  CHECK(is_zero(c.y, floats), "%s: no expert, and y is not 0", r->word->name);
  int64_t offsets[EXPERTS + 1], row_pair[1];
  float rows_data[1];
  fp4moe_rows rows = {sizeof rows, 0, rows_data, FP4MOE_F32, 0, offsets}, out = rows;
  CHECK(!fp4moe_prepare(r->f.layer, &b, &rows, row_pair), "%s", fp4moe_error_detail());
  CHECK(rows.rows == 0 && offsets[EXPERTS] == 0, "%zu rows of no expert", rows.rows);
  CHECK(!fp4moe_experts(r->f.layer, &rows, &out, NULL, NULL, 0), "%s", fp4moe_error_detail());
  memset(c.y, 0xff, floats * sizeof *c.y);
  CHECK(!fp4moe_finalize(r->f.layer, &b, &out, row_pair), "%s", fp4moe_error_detail());
  CHECK(is_zero(c.y, floats), "%s: finalize of no row is not 0", r->word->name);
  memset(c.y, 0xff, floats * sizeof *c.y);
  b.accumulate = 1;
  c.y[0] = 3;
  CHECK(!run(r->f.layer, &b) && c.y[0] == 3 && isnan(c.y[1]), "accumulating nothing changed y");
  b = (fp4moe_batch){.struct_size = sizeof b, .top_k = 3, .ids_dtype = FP4MOE_I32};
  CHECK(!run(r->f.layer, &b) && !fp4moe_layer_forward(r->f.layer, &b, NULL, 0), "no tokens: %s",
        fp4moe_error_detail());
  drop(&c);
}

static void nothing_there(void) { every_class(3, 1, check_empty); }

/* A layer of one expert is that expert of a larger one. */
static void check_single(relation *r) {
  fp4moe_layer_desc d = r->f.m->desc;
  fp4moe_layer *layer = NULL;
  problem c = copy_of(&r->f.p), all = copy_of(&r->f.p);
  const fp4moe_expert_weights w = random_layer_expert(r->f.m, 4);
  d.experts = 1;
  CHECK(!fp4moe_layer_begin(r->f.ctx, &d, &layer) && !fp4moe_layer_set_expert(layer, 0, &w) &&
            !fp4moe_layer_finish(layer),
        "%s", fp4moe_error_detail());
  for (size_t t = 0; t < c.tokens; t++) c.ids[t] = 0, all.ids[t] = 4;
  call(r, layer, &c);
  call(r, r->f.layer, &all);
  for (size_t t = 0; t < c.tokens; t++)
    same_token(r, c.y + t * c.hidden, all.y + t * c.hidden, "one expert", t);
  fp4moe_layer_destroy(layer);
  drop(&c);
  drop(&all);
}

static void one_expert(void) { every_class(1, 1, check_single); }

void check_metamorphic(void) {
  CU_pSuite s = check_suite("metamorphic");
  check_test(s, "tokens permuted", tokens_permuted);
  check_test(s, "slots permuted", slots_permuted);
  check_test(s, "experts permuted", experts_permuted);
  check_test(s, "zero rows", zero_rows);
  check_test(s, "zero weights", zero_weights);
  check_test(s, "outputs scaled by powers of two", outputs_scaled);
  check_test(s, "inputs scaled by powers of two", inputs_scaled);
  check_test(s, "1 to 16 threads", sixteen_threads);
  check_test(s, "nothing there", nothing_there);
  check_test(s, "one expert", one_expert);
}
