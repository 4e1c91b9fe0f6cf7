/* routing.h - where the rows of a bench's calls go (--routing). */
#ifndef FP4MOE_ROUTING_H
#define FP4MOE_ROUTING_H

#include "cli.h"
#include "measure.h"

/* Of M tokens with k slots and E experts
 *   ROUTER  each token's k experts at random
 *   EVEN    M k rows dealt out to the experts in turn
 *   ONE     top-1, all M rows to one expert: the other slots are -1
 *   MOST    the same for nine tokens of ten; the tenths are dealt out to the other experts
 *   NONE    every slot is -1 */
typedef enum routing {
  ROUTING_ROUTER = 0,
  ROUTING_EVEN,
  ROUTING_ONE,
  ROUTING_MOST,
  ROUTING_NONE
} routing;

routing parse_routing(const char *text);

/* Is one expert given more rows than the others? */
static inline int routing_is_skewed(routing r) { return r == ROUTING_ONE || r == ROUTING_MOST; }

/* The call's first expert is drawn, and all of it for ROUTER. ids, weights: [tokens][top_k]. */
void routing_draw(routing r, measure_rng *rng, size_t tokens, size_t top_k, size_t experts,
                  int32_t *ids, float *weights);

/* Top-1: tokens dealt out to `count` of the experts in turn, beginning with `first`. */
void routing_deal(size_t tokens, size_t top_k, size_t first, size_t count, size_t experts,
                  int32_t *ids, float *weights);

/* Rows of a call, and the distinct experts that it expects. */
size_t routing_rows(routing r, size_t tokens, size_t top_k);
double routing_experts(routing r, size_t tokens, size_t top_k, size_t experts);

/* Of MOST: the rows that the one expert does not get. */
static inline size_t routing_others(size_t tokens) { return tokens / 10; }

#endif
