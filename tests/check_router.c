/* check_router.c - routing against double precision, by hand, and together with a layer.
 *
 * The reference follows the comments of fp4moe.h literally: all keys, the group scores, the largest
 * keys one by one. Its ids are the only right ones, but where keys are sums or scores of arbitrary
 * logits: there two that differ by no more than FP32 rounds may change places. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "call.h"
#include "fp4.h"
#include "layer_fixture.h"
#include "team.h"

/* ---- The reference ---- */

enum { EXPERTS = 65536 };
static double keys[EXPERTS];
static uint8_t open_to[EXPERTS]; /* of a chosen group and not taken */
static size_t want[EXPERTS];

static double score(fp4moe_scoring scoring, double x, double max) {
  if (scoring == FP4MOE_SIGMOID) return 1 / (1 + exp(-x));
  if (scoring == FP4MOE_SQRT_SOFTPLUS) return sqrt(x > 0 ? x + log1p(exp(-x)) : log1p(exp(x)));
  return exp(x - max);
}

static size_t largest(const double *x, const uint8_t *admitted, size_t n) {
  size_t best = n;
  for (size_t i = 0; i < n; i++)
    if (admitted[i] && (best == n || x[i] > x[best])) best = i;
  return best;
}

static double softmax_sum(const double *logits, size_t n, double *max) {
  double sum = 0;
  *max = -INFINITY;
  for (size_t i = 0; i < n; i++) *max = fmax(*max, logits[i]);
  for (size_t i = 0; i < n; i++) sum += exp(logits[i] - *max);
  return sum;
}

/* Opens the experts of the best groups. 0: FP32 may see it otherwise, for one of them is as good as
 * one left out, and not from the same two keys. */
static int open_groups(const fp4moe_router *r) {
  size_t groups = r->groups, size = r->experts / groups;
  double sums[256], bests[256];
  uint8_t left[256], all[EXPERTS];
  memset(left, 1, sizeof left);
  memset(all, 1, r->experts);
  memset(open_to, 0, r->experts);
  for (size_t g = 0; g < groups; g++) {
    size_t first = g * size, best = first + largest(keys + first, all + first, size);
    all[best] = 0;
    bests[g] = keys[best];
    sums[g] = keys[best] + keys[first + largest(keys + first, all + first, size)];
  }
  for (size_t n = 0; n < r->top_groups; n++) {
    size_t g = largest(sums, left, groups);
    left[g] = 0;
    memset(open_to + g * size, 1, size);
  }
  for (size_t in = 0; in < groups; in++)
    for (size_t out = 0; out < groups; out++)
      if (!left[in] && left[out] && sums[in] - sums[out] < 1e-5 &&
          (sums[in] != sums[out] || bests[in] != bests[out]))
        return 0;
  return 1;
}

static int expect_ids(const fp4moe_router *r, const double *logits) {
  int sure = 1;
  double max = 0, sum = 1;
  if (r->scoring == FP4MOE_SOFTMAX) sum = softmax_sum(logits, r->experts, &max);
  for (size_t e = 0; e < r->experts; e++) {
    int by_logit = r->topk_first || (!r->bias && r->groups <= 1);
    keys[e] = by_logit ? logits[e] : score(r->scoring, logits[e], max) / sum;
    if (r->bias) keys[e] += (double)r->bias[e];
  }
  memset(open_to, 1, r->experts);
  if (r->groups > 1) sure = open_groups(r);
  for (size_t i = 0; i < r->top_k; i++) {
    want[i] = largest(keys, open_to, r->experts);
    open_to[want[i]] = 0;
  }
  return sure;
}

/* Weight of each of the ids. */
static void expect_weights(const fp4moe_router *r, const double *logits, const size_t *ids,
                           double *weights) {
  double max = 0, sum = 1, chosen = 0;
  if (r->scoring == FP4MOE_SOFTMAX) sum = softmax_sum(logits, r->experts, &max);
  for (size_t i = 0; i < r->top_k; i++) {
    weights[i] = score(r->scoring, logits[ids[i]], max) / sum;
    chosen += weights[i];
  }
  int sum_to_one = r->renormalize || (r->topk_first && r->scoring == FP4MOE_SOFTMAX);
  for (size_t i = 0; i < r->top_k; i++)
    weights[i] *= (double)r->scale / (sum_to_one && chosen > 0 ? chosen : 1);
}

/* ---- A call and its rows ---- */

typedef struct call {
  fp4moe_router router;
  fp4moe_routing io;
  uint8_t *logits;
  int ties; /* logits of few values: keys are equal, or far apart */
} call;

static void put(call *c, size_t token, size_t e, float x) {
  uint8_t *at =
      c->logits + token * c->io.logits_stride + e * fp4moe_dtype_bytes(c->io.logits_dtype);
  uint16_t half = c->io.logits_dtype == FP4MOE_F16 ? fp4_to_f16(x) : fp4_to_bf16(x);
  memcpy(at, c->io.logits_dtype == FP4MOE_F32 ? (const void *)&x : &half,
         fp4moe_dtype_bytes(c->io.logits_dtype));
}

static double logit(const call *c, size_t token, size_t e) {
  const uint8_t *at =
      c->logits + token * c->io.logits_stride + e * fp4moe_dtype_bytes(c->io.logits_dtype);
  float x;
  uint16_t half;
  memcpy(&half, at, 2);
  if (c->io.logits_dtype == FP4MOE_F32)
    memcpy(&x, at, 4);
  else
    x = c->io.logits_dtype == FP4MOE_F16 ? fp4_from_f16(half) : fp4_from_bf16(half);
  return (double)x;
}

static int64_t id_at(const call *c, size_t token, size_t i) {
  const uint8_t *row = (const uint8_t *)c->io.topk_ids + token * c->io.ids_stride;
  int64_t wide;
  int32_t narrow;
  if (c->io.ids_dtype == FP4MOE_I64) return memcpy(&wide, row + 8 * i, 8), wide;
  return memcpy(&narrow, row + 4 * i, 4), narrow;
}

static float weight_at(const call *c, size_t token, size_t i) {
  float w;
  memcpy(&w, (const uint8_t *)c->io.topk_weights + token * c->io.weights_stride + 4 * i, 4);
  return w;
}

/* Rows with guard pages behind and gaps between them. */
static call make_call(const fp4moe_router *r, size_t tokens, fp4moe_dtype logits,
                      fp4moe_dtype ids) {
  call c = {.router = *r, .io = {.struct_size = sizeof c.io, .tokens = tokens}};
  size_t size = fp4moe_dtype_bytes(logits), before = tokens - 1;
  c.io.logits_dtype = logits;
  c.io.ids_dtype = ids;
  c.io.logits_stride = (r->experts + check_below(3)) * size;
  c.io.ids_stride = r->top_k * fp4moe_dtype_bytes(ids) + check_below(5);
  c.io.weights_stride = r->top_k * 4 + check_below(5);
  c.logits = check_buffer(before * c.io.logits_stride + r->experts * size, CHECK_AFTER);
  c.io.logits = c.logits;
  c.io.topk_ids =
      check_buffer(before * c.io.ids_stride + r->top_k * fp4moe_dtype_bytes(ids), CHECK_AFTER);
  c.io.topk_weights = check_buffer(before * c.io.weights_stride + r->top_k * 4, CHECK_AFTER);
  return c;
}

static void check_token(const call *c, size_t token) {
  const fp4moe_router *r = &c->router;
  static double logits[EXPERTS], weights[EXPERTS];
  static size_t ids[EXPERTS];
  int exact = c->ties || (!r->bias && (r->topk_first || r->groups <= 1));
  for (size_t e = 0; e < r->experts; e++) logits[e] = logit(c, token, e);
  if (!expect_ids(r, logits)) return;
  for (size_t i = 0; i < r->top_k; i++) {
    ids[i] = (size_t)id_at(c, token, i);
    if (!CHECK(ids[i] < r->experts, "token %zu: id %zu", token, ids[i])) return;
    double slip = fabs(keys[ids[i]] - keys[want[i]]);
    CHECK(ids[i] == want[i] || (!exact && slip < 1e-5),
          "E %zu k %zu, token %zu, rank %zu: id %zu of key %.9g, expected %zu of %.9g", r->experts,
          r->top_k, token, i, ids[i], keys[ids[i]], want[i], keys[want[i]]);
  }
  expect_weights(r, logits, ids, weights);
  for (size_t i = 0; i < r->top_k; i++) {
    double w = (double)weight_at(c, token, i);
    CHECK(fabs(w - weights[i]) <= 4e-6 * weights[i] + 1e-36,
          "scoring %d, E %zu k %zu, token %zu, rank %zu: weight %.9g, expected %.9g",
          (int)r->scoring, r->experts, r->top_k, token, i, w, weights[i]);
  }
}

static void check_gaps(const call *c) {
  const uint8_t *ids = c->io.topk_ids, *weights = (const uint8_t *)c->io.topk_weights;
  size_t row = c->router.top_k * fp4moe_dtype_bytes(c->io.ids_dtype);
  for (size_t t = 0; t + 1 < c->io.tokens; t++) {
    for (size_t i = row; i < c->io.ids_stride; i++)
      CHECK(ids[t * c->io.ids_stride + i] == 0xff, "a byte behind the ids of token %zu", t);
    for (size_t i = c->router.top_k * 4; i < c->io.weights_stride; i++)
      CHECK(weights[t * c->io.weights_stride + i] == 0xff, "a byte behind the weights of %zu", t);
  }
}

static void check_call(call *c) {
  check_readonly(c->logits);
  if (CHECK(!fp4moe_route(&c->router, &c->io), "%s", fp4moe_error_detail()))
    for (size_t t = 0; t < c->io.tokens; t++) check_token(c, t);
  check_gaps(c);
}

/* ---- Random descriptors ---- */

/* Continuous, or few values and many ties; some experts are out (-Inf). */
static void fill(call *c) {
  int holes = !check_below(4);
  c->ties = (int)check_below(2);
  for (size_t t = 0; t < c->io.tokens; t++)
    for (size_t e = 0; e < c->router.experts; e++) {
      float x = c->ties ? 0.5f * (float)check_below(7) - 1.5f : check_uniform(-8, 8);
      put(c, t, e, e % 3 && holes && !check_below(8) ? -INFINITY : x);
    }
}

static fp4moe_router draw_router(float *bias) {
  static const size_t sizes[] = {1, 2, 3, 8, 16, 31, 32, 33, 64, 100, 128, 256, 384, 512, 1000};
  fp4moe_router r = {.struct_size = sizeof r, .experts = sizes[check_below(15)]};
  r.scoring = (fp4moe_scoring)check_below(3);
  r.topk_first = (int)check_below(2);
  r.renormalize = !(r.topk_first && r.scoring == FP4MOE_SOFTMAX) && check_below(2);
  r.scale = check_below(2) ? 1 : check_uniform(0.5f, 3);
  for (size_t e = 0; e < r.experts; e++) bias[e] = 0.0625f * (float)check_below(4);
  if (check_below(2)) r.bias = bias;
  size_t groups = 1 + check_below(12), most = r.experts;
  if (groups > 1 && r.experts % groups == 0 && r.experts / groups > 1) {
    r.groups = groups;
    r.top_groups = 1 + check_below(groups);
    most = r.experts / groups * r.top_groups;
  }
  r.top_k = 1 + check_below(check_below(8) && most > 10 ? 10 : most);
  return r;
}

static void random_routers(void) {
  static float bias[1000];
  for (int i = 0; i < 1500; i++) {
    fp4moe_router r = draw_router(bias);
    call c = make_call(&r, 1 + check_below(6), (fp4moe_dtype)check_below(3),
                       check_below(2) ? FP4MOE_I64 : FP4MOE_I32);
    fill(&c);
    check_call(&c);
    CHECK_RELEASE();
  }
}

static void many_experts(void) {
  static float bias[EXPERTS];
  for (size_t e = 0; e < EXPERTS; e++) bias[e] = check_uniform(0, 1);
  for (int scoring = 0; scoring < 3; scoring++) {
    fp4moe_router r = {.struct_size = sizeof r,
                       .experts = EXPERTS,
                       .top_k = scoring ? 22 : 300,
                       .scoring = (fp4moe_scoring)scoring,
                       .scale = 1,
                       .bias = scoring == FP4MOE_SIGMOID ? bias : NULL,
                       .groups = scoring == FP4MOE_SIGMOID ? 256 : 0,
                       .top_groups = scoring == FP4MOE_SIGMOID ? 7 : 0};
    call c = make_call(&r, 2, FP4MOE_F32, FP4MOE_I32);
    fill(&c);
    check_call(&c);
    CHECK_RELEASE();
  }
}

/* ---- By hand ---- */

/* Dense F32 logits, ids in 32 bits. */
static fp4moe_routing routing_of(size_t tokens, const float *logits, int32_t *ids, float *weights) {
  return (fp4moe_routing){.struct_size = sizeof(fp4moe_routing),
                          .tokens = tokens,
                          .logits = logits,
                          .topk_ids = ids,
                          .ids_dtype = FP4MOE_I32,
                          .topk_weights = weights};
}

/* Routes one token; ids and weights as expected to 1e-6. */
static void by_hand(const char *name, const fp4moe_router *r, const float *logits,
                    const int32_t *ids, const double *weights) {
  int32_t got[8];
  float w[8];
  fp4moe_routing io = routing_of(1, logits, got, w);
  if (!CHECK(!fp4moe_route(r, &io), "%s: %s", name, fp4moe_error_detail())) return;
  for (size_t i = 0; i < r->top_k; i++)
    CHECK(got[i] == ids[i] && fabs((double)w[i] - weights[i]) < 1e-6,
          "%s, rank %zu: id %d weight %.8g, expected %d %.8g", name, i, got[i], (double)w[i],
          ids[i], weights[i]);
}

static fp4moe_router preset(const char *name, size_t experts, size_t top_k) {
  fp4moe_router r = {0};
  CHECK(!fp4moe_router_preset(name, experts, top_k, &r), "%s", fp4moe_error_detail());
  return r;
}

static void presets(void) {
  static const float four[] = {1, 3, 2, 3};
  static const float bias[] = {0, 0, 0.5f, 0};
  fp4moe_router r = preset("gpt-oss", 4, 3); /* e^0, e^0, e^-1 over their sum */
  by_hand("gpt-oss", &r, four, (int32_t[]){1, 3, 2},
          (double[]){0.42231880, 0.42231880, 0.15536240});
  r = preset("qwen3", 4, 2);
  by_hand("qwen3", &r, four, (int32_t[]){1, 3}, (double[]){0.5, 0.5});
  r = preset("llama-4", 4, 1);
  by_hand("llama-4", &r, four, (int32_t[]){1}, (double[]){0.95257413});
  r = preset("deepseek-v4", 4, 2);
  r.scale = 1.5f;
  r.bias = bias; /* sqrt(ln(1 + e^l)) is 1.4583991 for 2 and 1.7460204 for 3 */
  by_hand("deepseek-v4", &r, four, (int32_t[]){2, 1}, (double[]){0.68268173, 0.81731827});
}

/* Groups of two; expert 0 has the best key, but its group the worst sum. */
static void groups_by_hand(void) {
  static const float logits[16] = {2, -9, 1, 1, 1, 0, 0.5f, 1, 1, 0.5f, -1, -1, -1, -1, -1, -1};
  static const float bias[16] = {0, -1, 0, 0.5f};
  fp4moe_router r = preset("deepseek-v3", 16, 3);
  double s = 0.73105858; /* sigmoid(1): of all three, whatever the bias */
  r.bias = bias;
  by_hand("deepseek-v3", &r, logits, (int32_t[]){3, 2, 4},
          (double[]){2.5 / 3 * s / s, 2.5 / 3, 2.5 / 3});
}

static void not_numbers(void) {
  enum { M = 3, E = 40, K = 4 };
  static float logits[M][E], weights[M][K], alone[K];
  static int64_t ids[M][K], ids_alone[K];
  for (int scoring = 0; scoring < 3; scoring++) {
    fp4moe_router r = preset("qwen3", E, K);
    fp4moe_routing io = {.struct_size = sizeof io, .tokens = M, .logits = logits};
    io.topk_ids = ids, io.ids_dtype = FP4MOE_I64, io.topk_weights = &weights[0][0];
    r.scoring = (fp4moe_scoring)scoring;
    for (int i = 0; i < M * E; i++) logits[i / E][i % E] = check_uniform(-2, 2);
    logits[1][check_below(E)] = NAN;
    CHECK(!fp4moe_route(&r, &io), "%s", fp4moe_error_detail());
    for (int i = 0; i < K; i++)
      CHECK(ids[1][i] == i && weights[1][i] != weights[1][i], "NaN, rank %d: id %lld weight %g", i,
            (long long)ids[1][i], (double)weights[1][i]);
    io = (fp4moe_routing){.struct_size = sizeof io, .tokens = 1, .logits = logits[2]};
    io.topk_ids = ids_alone, io.ids_dtype = FP4MOE_I64, io.topk_weights = alone;
    CHECK(!fp4moe_route(&r, &io), "%s", fp4moe_error_detail());
    CHECK_SAME(ids[2], ids_alone, K, 8, "ids beside a NaN");
    CHECK_SAME(weights[2], alone, K, 4, "weights beside a NaN");
    logits[2][7] = INFINITY;
    CHECK(!fp4moe_route(&r, &io), "%s", fp4moe_error_detail());
    CHECK(ids_alone[0] == 7, "+Inf is chosen first, not %lld", (long long)ids_alone[0]);
    CHECK((alone[0] == alone[0]) == (scoring == FP4MOE_SIGMOID), "the weight of +Inf: %g",
          (double)alone[0]);
  }
}

/* Scores so low that they are 0: their sum divides nothing. */
static void zero_sum(void) {
  static const float logits[] = {-200, -300, -400};
  fp4moe_router r = {sizeof r, 3, 2, FP4MOE_SIGMOID, 0, 1, 1, NULL, 0, 0};
  by_hand("zero sum", &r, logits, (int32_t[]){0, 1}, (double[]){0, 0});
}

/* ---- Refusals ---- */

static void refused(const fp4moe_router *r, const fp4moe_routing *io, const char *word) {
  fp4moe_status status = fp4moe_route(r, io);
  CHECK(status == FP4MOE_INVALID && strstr(fp4moe_error_detail(), word), "%s: %s, '%s'", word,
        fp4moe_status_name(status), fp4moe_error_detail());
}

/* The good call with one field changed. */
#define REFUSED_WITH(field, value, word)                                                           \
  do {                                                                                             \
    fp4moe_router r = good;                                                                        \
    fp4moe_routing io = good_io;                                                                   \
    field = value;                                                                                 \
    refused(&r, &io, word);                                                                        \
  } while (0)

static void refusals(void) {
  static float logits[17], bias[16], weights[4];
  static int32_t ids[4];
  fp4moe_router good = preset("deepseek-v3", 16, 4);
  fp4moe_routing good_io = routing_of(1, logits, ids, weights);
  good.bias = bias;
  CHECK(!fp4moe_route(&good, &good_io), "%s", fp4moe_error_detail());
  memset(ids, 0x55, sizeof ids);
  refused(NULL, &good_io, "fp4moe_router");
  refused(&good, NULL, "fp4moe_routing");
  REFUSED_WITH(r.struct_size, 0, "struct_size");
  REFUSED_WITH(r.experts, 0, "router.experts");
  REFUSED_WITH(r.experts, 65537, "router.experts");
  REFUSED_WITH(r.top_k, 0, "router.top_k");
  REFUSED_WITH(r.top_k, 17, "router.top_k");
  REFUSED_WITH(r.top_k, 9, "router.top_k is 9, expected 1..8");
  REFUSED_WITH(r.scoring, (fp4moe_scoring)3, "router.scoring");
  REFUSED_WITH(r.topk_first, 2, "router.topk_first");
  REFUSED_WITH(r.renormalize, -1, "router.renormalize");
  REFUSED_WITH(*(r.scoring = FP4MOE_SOFTMAX, &r.topk_first), 1, "router.renormalize");
  REFUSED_WITH(r.scale, 0, "router.scale");
  REFUSED_WITH(r.scale, INFINITY, "router.scale");
  REFUSED_WITH(r.scale, NAN, "router.scale");
  REFUSED_WITH(r.groups, 5, "router.groups");
  REFUSED_WITH(r.groups, 16, "router.groups");
  REFUSED_WITH(r.groups, 257, "router.groups");
  REFUSED_WITH(r.groups, 0, "router.top_groups");
  REFUSED_WITH(r.top_groups, 0, "router.top_groups");
  REFUSED_WITH(r.top_groups, 9, "router.top_groups");
  REFUSED_WITH(io.logits, NULL, "routing.logits");
  REFUSED_WITH(io.logits, (char *)logits + 1, "routing.logits is not aligned");
  REFUSED_WITH(io.logits_dtype, FP4MOE_I32, "routing.logits_dtype");
  REFUSED_WITH(io.logits_stride, 60, "routing.logits_stride");
  REFUSED_WITH(io.logits_stride, 66, "routing.logits_stride");
  REFUSED_WITH(io.topk_ids, NULL, "routing.topk_ids");
  REFUSED_WITH(io.ids_dtype, FP4MOE_F32, "routing.ids_dtype");
  REFUSED_WITH(io.ids_stride, 15, "routing.ids_stride");
  REFUSED_WITH(io.topk_weights, NULL, "routing.topk_weights");
  REFUSED_WITH(io.weights_stride, 15, "routing.weights_stride");
  bias[3] = NAN;
  refused(&good, &good_io, "router.bias[3]");
  bias[3] = -INFINITY;
  refused(&good, &good_io, "router.bias[3]");
  for (int i = 0; i < 4; i++) CHECK(ids[i] == 0x55555555, "a refusal wrote ids[%d]", i);
  fp4moe_router r = good;
  CHECK(fp4moe_router_preset("deepseek-v5", 8, 2, &r) == FP4MOE_INVALID &&
            strstr(fp4moe_error_detail(), "deepseek-v5"),
        "%s", fp4moe_error_detail());
  r = preset("deepseek-v4", 16, 4);
  refused(&r, &good_io, "router.scale");
}

static void no_tokens(void) {
  fp4moe_router r = preset("qwen3", 8, 2);
  fp4moe_routing io = {.struct_size = sizeof io, .ids_dtype = FP4MOE_I32};
  CHECK(!fp4moe_route(&r, &io), "%s", fp4moe_error_detail());
}

/* ---- With a layer ---- */

enum { HIDDEN = 64, LAYER_EXPERTS = 6, TOP_K = 3, MOST = 70 };

typedef struct routed {
  fp4moe_layer *layer;
  fp4moe_router router;
  fp4moe_routing io;
  fp4moe_batch batch;
  void *workspace;
  size_t bytes;
} routed;

static fp4moe_status forward_routed(void *arg, const fp4moe_team *team) {
  const routed *d = arg;
  fp4moe_batch b = d->batch;
  b.team = team;
  return fp4moe_layer_forward_routed(d->layer, &d->router, &d->io, &b, d->workspace, d->bytes);
}

/* Two calls are the reference; then one, by a team, and with other numbers of threads. */
static void same_bits(routed *d, size_t tokens) {
  static float x[MOST * HIDDEN], logits[MOST * 2 * LAYER_EXPERTS], y[2][MOST * HIDDEN];
  static float weights[2][MOST * TOP_K];
  static int32_t ids[2][MOST * TOP_K];
  for (size_t i = 0; i < tokens * HIDDEN; i++) x[i] = check_uniform(-1, 1);
  for (size_t i = 0; i < tokens * d->router.experts; i++) logits[i] = check_uniform(-3, 3);
  d->io = routing_of(tokens, logits, ids[0], weights[0]);
  CHECK(!fp4moe_route(&d->router, &d->io), "%s", fp4moe_error_detail());
  fp4moe_batch b = d->batch;
  b.tokens = tokens, b.top_k = TOP_K, b.x = x, b.y = y[0];
  b.topk_ids = ids[0], b.ids_dtype = FP4MOE_I32, b.topk_weights = weights[0];
  CHECK(!run(d->layer, &b), "%s", fp4moe_error_detail());
  d->batch.x = x, d->batch.y = y[1];
  d->io.topk_ids = ids[1], d->io.topk_weights = weights[1];
  for (size_t threads = 0; threads < 4; threads++) { /* 0: a team of two */
    memset(y[1], 0xff, sizeof y[1]);
    memset(ids[1], 0xff, sizeof ids[1]);
    memset(weights[1], 0xff, sizeof weights[1]);
    d->batch.threads = threads;
    if (threads)
      CHECK(!forward_routed(d, NULL), "%s", fp4moe_error_detail());
    else
      team_run(2, forward_routed, d, FP4MOE_OK);
    CHECK_SAME(y[1], y[0], tokens * HIDDEN, 4, "y");
    CHECK_SAME(ids[1], ids[0], tokens * TOP_K, 4, "ids");
    CHECK_SAME(weights[1], weights[0], tokens * TOP_K, 4, "weights");
  }
  d->batch.threads = 0;
}

static void with_layer(void) {
  static const size_t tokens[] = {0, 1, 5, MOST};
  static const int32_t map[2 * LAYER_EXPERTS] = {-1, 0, -1, 1, 2, -1, 3, -1, 4, 5, -1, -1};
  fp4moe_layer_desc desc = class_desc(&class_words[CLASS_INT8_MX], HIDDEN, 96, LAYER_EXPERTS);
  fixture f = set_up(3, &desc, 0, 0, 0, 0);
  fp4moe_limits l = {sizeof l, MOST, TOP_K, 0};
  routed d = {.layer = f.layer,
              .router = preset("qwen3", LAYER_EXPERTS, TOP_K),
              .batch = {.struct_size = sizeof d.batch},
              .bytes = fp4moe_workspace_bytes(f.layer, &l)};
  d.workspace = malloc(d.bytes);
  for (int i = 0; i < 4; i++) same_bits(&d, tokens[i]);

  d.router.experts = 2 * LAYER_EXPERTS;
  REFUSED(forward_routed(&d, NULL), FP4MOE_INVALID, "router.experts is 12");
  d.batch.expert_map = map;
  d.batch.expert_map_count = 2 * LAYER_EXPERTS;
  same_bits(&d, 9);
  free(d.workspace);
  tear_down(&f);
}

void check_router(void) {
  CU_pSuite s = check_suite("router");
  check_test(s, "router, random descriptors", random_routers);
  check_test(s, "router, many experts", many_experts);
  check_test(s, "router, presets by hand", presets);
  check_test(s, "router, groups by hand", groups_by_hand);
  check_test(s, "router, NaN and Inf", not_numbers);
  check_test(s, "router, scores of 0", zero_sum);
  check_test(s, "router, refusals", refusals);
  check_test(s, "router, no tokens", no_tokens);
  check_test(s, "router, with a layer", with_layer);
}
