/* bench_even.c - what a skewed call would take if skew cost nothing (bench.h).
 *
 * The even case at equal rows per expert is a top-1 call in which several experts have as many rows
 * as the one expert of the skewed call: its time over their number is what that expert should take.
 * The tenth of MOST that goes elsewhere is a call of its own, with the same rows on the same number
 * of experts. even_ms is the sum, even_share = even_ms / ms: with the limits of the same round this
 * is the skewed call's efficiency over that of the even case. */
#include <stdlib.h>

#include "bench.h"

enum { MOST_ROWS = 2048 }; /* of an even call, unless two experts have more */

/* tokens dealt out to `experts`; the time of `weighs` experts of them counts. */
typedef struct even_call {
  size_t tokens, experts, weighs;
} even_call;

size_t even_calls(routing r) { return r == ROUTING_MOST ? 2 : r == ROUTING_ONE ? 1 : 0; }

static even_call call_of(const problem *p, size_t tokens, size_t i) {
  size_t others = p->routing == ROUTING_MOST ? routing_others(tokens) : 0;
  size_t rows = tokens - others, most = p->shape.experts, n = MOST_ROWS / rows;
  if (i) return (even_call){others, most > 1 ? most - 1 : 1, most > 1 ? most - 1 : 1};
  if (n < 2) n = 2;
  if (n > most) n = most;
  return (even_call){rows * n, n, 1};
}

void even_open(bench *b) {
  const problem *p = &b->problem;
  fp4moe_layer_desc desc = problem_desc(p);
  size_t most = 0;
  for (size_t i = 0; i < p->calls; i++) {
    size_t tokens = call_of(p, p->tokens[i], 0).tokens;
    if (tokens > most) most = tokens;
  }
  trial_init(&b->even, &desc, most, p->shape.top_k, 1);
  bench_reserve(&b->own, &b->even);
}

void even_sample(bench *b, bench_case *c) {
  const problem *p = &b->problem;
  trial *t = &b->even;
  double ns = 0;
  for (size_t i = 0; i < even_calls(p->routing); i++) {
    even_call call = call_of(p, c->tokens, i);
    size_t first = (size_t)measure_random(&t->rng) % t->experts;
    t->tokens = call.tokens;
    routing_deal(t->tokens, t->top_k, first, call.experts, t->experts, t->ids, t->weights);
    ns += bench_run(b, OWN, t, 1).ns * (double)call.weighs / (double)call.experts;
  }
  c->even_ms[b->rounds] = ns * 1e-6;
}
