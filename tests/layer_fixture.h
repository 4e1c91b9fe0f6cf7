/* layer_fixture.h - a layer in a context with a call of it, and the forms of that call: what a test
 * of one layer works on. */
#ifndef FP4MOE_LAYER_FIXTURE_H
#define FP4MOE_LAYER_FIXTURE_H

#include "layer_call.h"

typedef struct fixture {
  fp4moe_context *ctx;
  random_layer *m;
  fp4moe_layer *layer;
  problem p;
} fixture;

/* As context_of, random_layer_new, layer_of and draw make them. tokens 0: no call of its own. */
fixture set_up(size_t threads, const fp4moe_layer_desc *d, int biases, size_t tokens, size_t top_k,
               int with_gaps);
void tear_down(fixture *f);

/* run() of layer_call.h by fp4moe_prepare, fp4moe_experts and fp4moe_finalize. */
fp4moe_status run_in_three(fp4moe_layer *layer, const fp4moe_batch *b);

/* y [tokens][H] of a call that must succeed, in FP32; freed by the caller. */
float *outputs(fp4moe_layer *layer, const fp4moe_batch *b);

/* The call succeeds, and its y, poisoned before, has the bits of `want`. */
int gives(fp4moe_layer *layer, const fp4moe_batch *b, const float *want, const char *what);

/* One call by a team: the team_fn (team.h) of a forward_call. */
typedef struct forward_call {
  fp4moe_layer *layer;
  fp4moe_batch batch;
  void *workspace;
  size_t bytes;
} forward_call;
fp4moe_status forward_in_team(void *call, const fp4moe_team *team);

/* The other half of suite "layer" (check_layer_bits.c). */
void check_layer_bits(CU_pSuite suite);

#endif
