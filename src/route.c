/* route.c - one token through a router (route.h).
 *
 * The logits are read in blocks, as often as it takes: the sum of a softmax, the scores of the
 * groups, the keys that compete. The top_k best so far stand in order in the rows of the results
 * themselves, keys where weights will be, so a token needs no memory beside them. Keys are offered
 * by ascending id, hence an equal one never displaces an earlier one. top_k is taken to be small: a
 * key that enters moves those below it. */
#include <math.h>
#include <string.h>

#include "quant.h"
#include "route.h"
#include "scores.h"

enum { BLOCK = FP4MOE_SCORES, LANES = 8 };

struct token {
  const fp4moe_router *router;
  const uint8_t *logits;
  fp4moe_dtype dtype;
  float max, sum;      /* SOFTMAX of all: the largest logit, the sum of e^(l - max) */
  int by_score;        /* keys are scores, not logits */
  int poisoned;        /* a key was NaN */
  uint8_t *ids, *keys; /* the best so far: uint32_t and float, of any alignment */
  size_t held;
};

/* ---- Logits and keys ---- */

/* Logits [first, first + n), n <= BLOCK; -Inf behind them. */
static void load(const struct token *t, size_t first, size_t n, float x[BLOCK]) {
  if (t->dtype == FP4MOE_F32)
    memcpy(x, t->logits + 4 * first, 4 * n);
  else
    for (size_t i = 0; i < n; i++) x[i] = fp4_load(t->logits + 2 * first, t->dtype, i);
  for (size_t i = n; i < BLOCK; i++) x[i] = -INFINITY;
}

static void score(const struct token *t, float x[BLOCK]) {
  if (t->router->scoring == FP4MOE_SIGMOID)
    fp4moe_sigmoid_block(x);
  else if (t->router->scoring == FP4MOE_SQRT_SOFTPLUS)
    fp4moe_sqrt_softplus_block(x);
  else
    fp4moe_exp_block(t->max, x);
}

static size_t block_at(size_t first, size_t end) {
  return end - first < BLOCK ? end - first : BLOCK;
}

static float largest(const float x[BLOCK]) {
  float lane[LANES], max;
  memcpy(lane, x, sizeof lane);
  for (int i = LANES; i < BLOCK; i += LANES)
    for (int j = 0; j < LANES; j++) lane[j] = x[i + j] > lane[j] ? x[i + j] : lane[j];
  max = lane[0];
  for (int j = 1; j < LANES; j++) max = lane[j] > max ? lane[j] : max;
  return max;
}

static float add_up(const float x[BLOCK]) {
  float lane[LANES], sum = 0;
  memcpy(lane, x, sizeof lane);
  for (int i = LANES; i < BLOCK; i += LANES)
    for (int j = 0; j < LANES; j++) lane[j] += x[i + j];
  for (int j = 0; j < LANES; j++) sum += lane[j];
  return sum;
}

/* The softmax of all logits is wanted, be it as key or as weight. */
static void find_sum(struct token *t) {
  size_t experts = t->router->experts;
  float x[BLOCK];
  double sum = 0;
  t->max = -INFINITY;
  for (size_t e = 0; e < experts; e += BLOCK) {
    load(t, e, block_at(e, experts), x);
    float max = largest(x);
    t->max = max > t->max ? max : t->max;
  }
  for (size_t e = 0; e < experts; e += BLOCK) {
    load(t, e, block_at(e, experts), x);
    fp4moe_exp_block(t->max, x);
    sum += (double)add_up(x);
  }
  t->sum = (float)sum;
}

/* Keys [first, first + n), -Inf behind them. */
static void find_keys(struct token *t, size_t first, size_t n, float x[BLOCK]) {
  const fp4moe_router *r = t->router;
  int nan = 0;
  load(t, first, n, x);
  if (t->by_score) score(t, x);
  if (t->by_score && r->scoring == FP4MOE_SOFTMAX)
    for (int i = 0; i < BLOCK; i++) x[i] /= t->sum;
  if (r->bias) {
    float bias[BLOCK] = {0};
    memcpy(bias, r->bias + first, n * sizeof *bias);
    for (int i = 0; i < BLOCK; i++) x[i] += bias[i];
  }
  for (size_t i = n; i < BLOCK; i++) x[i] = -INFINITY;
  for (int i = 0; i < BLOCK; i++) nan |= x[i] != x[i];
  t->poisoned |= nan;
}

/* ---- Groups ---- */

/* Sum of the two largest keys, which are looked for in each lane. */
static float group_score(struct token *t, size_t first, size_t end) {
  float best[LANES], second[LANES], x[BLOCK];
  for (int j = 0; j < LANES; j++) best[j] = second[j] = -INFINITY;
  for (size_t e = first; e < end; e += BLOCK) {
    find_keys(t, e, block_at(e, end), x);
    for (int i = 0; i < BLOCK; i += LANES)
      for (int j = 0; j < LANES; j++) {
        float lesser = x[i + j] > best[j] ? best[j] : x[i + j];
        best[j] = x[i + j] > best[j] ? x[i + j] : best[j];
        second[j] = lesser > second[j] ? lesser : second[j];
      }
  }
  for (int j = 1; j < LANES; j++) {
    float lesser = best[j] > best[0] ? best[0] : best[j];
    best[0] = best[j] > best[0] ? best[j] : best[0];
    lesser = second[j] > lesser ? second[j] : lesser;
    second[0] = lesser > second[0] ? lesser : second[0];
  }
  return best[0] + second[0];
}

static void choose_groups(struct token *t, uint8_t chosen[FP4MOE_ROUTER_GROUPS]) {
  const fp4moe_router *r = t->router;
  size_t size = r->experts / r->groups;
  float scores[FP4MOE_ROUTER_GROUPS];
  memset(chosen, 0, r->groups);
  for (size_t g = 0; g < r->groups; g++) scores[g] = group_score(t, g * size, (g + 1) * size);
  for (size_t n = 0; n < r->top_groups; n++) {
    size_t best = r->groups;
    for (size_t g = 0; g < r->groups; g++)
      if (!chosen[g] && (best == r->groups || scores[g] > scores[best])) best = g;
    chosen[best] = 1;
  }
}

/* ---- The best ---- */

static float key_at(const struct token *t, size_t i) {
  float key;
  memcpy(&key, t->keys + 4 * i, sizeof key);
  return key;
}

static uint32_t id_at(const struct token *t, size_t i) {
  uint32_t id;
  memcpy(&id, t->ids + 4 * i, sizeof id);
  return id;
}

static void set(struct token *t, size_t i, float key, uint32_t id) {
  memcpy(t->keys + 4 * i, &key, sizeof key);
  memcpy(t->ids + 4 * i, &id, sizeof id);
}

/* Behind all keys that are not less; the last makes room when top_k are held. */
static void insert(struct token *t, float key, uint32_t id) {
  size_t i = t->held < t->router->top_k ? t->held++ : t->held - 1;
  for (float other; i && (other = key_at(t, i - 1)) < key; i--) set(t, i, other, id_at(t, i - 1));
  set(t, i, key, id);
}

/* Bit i: x[i] is larger. Lane j gathers the bits of x[j], x[j + LANES], ... */
static uint32_t larger(const float x[BLOCK], float than) {
  uint32_t lane[LANES] = {0}, bits = 0;
  for (int i = BLOCK - LANES; i >= 0; i -= LANES)
    for (int j = 0; j < LANES; j++) lane[j] = lane[j] << LANES | (x[i + j] > than);
  for (int j = 0; j < LANES; j++) bits |= lane[j] << j;
  return bits;
}

static void offer_range(struct token *t, size_t first, size_t end) {
  const size_t last = t->router->top_k - 1;
  float x[BLOCK];
  for (size_t e = first; e < end; e += BLOCK) {
    size_t n = block_at(e, end), i = 0;
    find_keys(t, e, n, x);
    for (; i < n && t->held <= last; i++) insert(t, x[i], (uint32_t)(e + i));
    if (i == n) continue;
    for (uint32_t bits = larger(x, key_at(t, last)) >> i << i; bits; bits &= bits - 1) {
      i = (size_t)__builtin_ctz(bits);
      if (x[i] > key_at(t, last)) insert(t, x[i], (uint32_t)(e + i));
    }
  }
}

/* ---- Weights ---- */

/* Scores of entries [first, first + n) by their logits; 0 behind them. */
static void score_chosen(const struct token *t, size_t first, size_t n, float x[BLOCK]) {
  for (size_t i = 0; i < n; i++) x[i] = fp4_load(t->logits, t->dtype, id_at(t, first + i));
  for (size_t i = n; i < BLOCK; i++) x[i] = -INFINITY;
  score(t, x);
  for (size_t i = n; i < BLOCK; i++) x[i] = 0;
}

/* What the scores are divided by; SOFTMAX has no divisor yet. */
static float find_divisor(struct token *t) {
  const fp4moe_router *r = t->router;
  int softmax = r->scoring == FP4MOE_SOFTMAX;
  float x[BLOCK];
  double sum = 0;
  if (!r->renormalize && !(softmax && r->topk_first)) return softmax ? t->sum : 1;
  t->max = -INFINITY; /* of the chosen: any will do, this one loses nothing */
  for (size_t i = 0; softmax && i < r->top_k; i++) {
    float logit = fp4_load(t->logits, t->dtype, id_at(t, i));
    t->max = logit > t->max ? logit : t->max;
  }
  for (size_t i = 0; i < r->top_k; i += BLOCK) {
    score_chosen(t, i, block_at(i, r->top_k), x);
    sum += (double)add_up(x);
  }
  return sum == 0 ? 1 : (float)sum;
}

static void find_weights(struct token *t) {
  const fp4moe_router *r = t->router;
  float divisor = find_divisor(t), x[BLOCK];
  for (size_t i = 0; i < r->top_k; i += BLOCK) {
    size_t n = block_at(i, r->top_k);
    score_chosen(t, i, n, x);
    for (int j = 0; j < BLOCK; j++) x[j] = x[j] / divisor * r->scale;
    memcpy(t->keys + 4 * i, x, 4 * n);
  }
}

static void poison(struct token *t) {
  for (size_t i = 0; i < t->router->top_k; i++)
    set(t, i, fp4_f32_from_bits(0x7fc00000), (uint32_t)i);
}

/* From uint32_t in place, from the back. */
static void widen_ids(struct token *t) {
  for (size_t i = t->router->top_k; i-- > 0;) {
    int64_t id = id_at(t, i);
    memcpy(t->ids + 8 * i, &id, sizeof id);
  }
}

void fp4moe_route_token(const fp4moe_router *r, const void *logits, fp4moe_dtype logits_dtype,
                        void *ids, fp4moe_dtype ids_dtype, void *weights) {
  struct token t = {
      .router = r, .logits = logits, .dtype = logits_dtype, .ids = ids, .keys = weights};
  int grouped = r->groups > 1;
  uint8_t chosen[FP4MOE_ROUTER_GROUPS];
  t.by_score = !r->topk_first && (r->bias || grouped);
  if (r->scoring == FP4MOE_SOFTMAX && !r->topk_first && (t.by_score || !r->renormalize))
    find_sum(&t);
  if (grouped) choose_groups(&t, chosen);
  size_t groups = grouped ? r->groups : 1, size = r->experts / groups;
  for (size_t g = 0; g < groups; g++)
    if (!grouped || chosen[g]) offer_range(&t, g * size, (g + 1) * size);
  if (t.poisoned)
    poison(&t);
  else
    find_weights(&t);
  if (ids_dtype == FP4MOE_I64) widen_ids(&t);
}
