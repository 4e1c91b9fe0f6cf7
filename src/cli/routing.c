/* routing.c - draws of --routing (routing.h). */
#include <math.h>

#include "routing.h"

routing parse_routing(const char *text) {
  static const word words[] = {{"router", ROUTING_ROUTER}, {"even", ROUTING_EVEN},
                               {"one", ROUTING_ONE},       {"most", ROUTING_MOST},
                               {"none", ROUTING_NONE},     {NULL, 0}};
  return (routing)parse_word("--routing", text, words);
}

static void only(size_t token, size_t top_k, size_t expert, int32_t *ids, float *weights) {
  for (size_t j = token * top_k; j < (token + 1) * top_k; j++) {
    ids[j] = -1;
    weights[j] = 0;
  }
  ids[token * top_k] = (int32_t)expert;
  weights[token * top_k] = 1;
}

void routing_deal(size_t tokens, size_t top_k, size_t first, size_t count, size_t experts,
                  int32_t *ids, float *weights) {
  for (size_t t = 0; t < tokens; t++) only(t, top_k, (first + t % count) % experts, ids, weights);
}

static void deal_slots(size_t slots, size_t top_k, size_t first, size_t experts, int32_t *ids,
                       float *weights) {
  for (size_t j = 0; j < slots; j++) {
    ids[j] = (int32_t)((first + j) % experts);
    weights[j] = 1 / (float)top_k;
  }
}

/* Every tenth token to the others, in turn. */
static void move_tenths(size_t tokens, size_t top_k, size_t first, size_t experts, int32_t *ids,
                        float *weights) {
  size_t others = experts > 1 ? experts - 1 : 1;
  for (size_t i = 0; i < routing_others(tokens); i++)
    only(10 * i + 9, top_k, (first + 1 + i % others) % experts, ids, weights);
}

void routing_draw(routing r, measure_rng *rng, size_t tokens, size_t top_k, size_t experts,
                  int32_t *ids, float *weights) {
  if (r == ROUTING_ROUTER) {
    measure_random_routing(rng, tokens, top_k, experts, ids, weights);
    return;
  }
  size_t first = (size_t)measure_random(rng) % experts;
  if (r == ROUTING_EVEN) deal_slots(tokens * top_k, top_k, first, experts, ids, weights);
  if (routing_is_skewed(r)) routing_deal(tokens, top_k, first, 1, experts, ids, weights);
  if (r == ROUTING_MOST) move_tenths(tokens, top_k, first, experts, ids, weights);
  if (r == ROUTING_NONE)
    for (size_t j = 0; j < tokens * top_k; j++) ids[j] = -1;
}

size_t routing_rows(routing r, size_t tokens, size_t top_k) {
  return r == ROUTING_NONE ? 0 : routing_is_skewed(r) ? tokens : tokens * top_k;
}

double routing_experts(routing r, size_t tokens, size_t top_k, size_t experts) {
  double e = (double)experts, rows = (double)routing_rows(r, tokens, top_k);
  if (r == ROUTING_ROUTER) return e * (1 - pow(1 - (double)top_k / e, (double)tokens));
  if (r == ROUTING_ONE) return 1;
  return fmin(e, r == ROUTING_MOST ? 1 + (double)routing_others(tokens) : rows);
}
