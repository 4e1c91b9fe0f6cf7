/* layer_fixture.c - layers set up for a test, and their calls (layer_fixture.h). */
#include <stdlib.h>
#include <string.h>

#include "layer_fixture.h"

fixture set_up(size_t threads, const fp4moe_layer_desc *d, int biases, size_t tokens, size_t top_k,
               int with_gaps) {
  fixture f = {.ctx = context_of(threads), .m = random_layer_new(d, biases, NULL)};
  f.layer = layer_of(f.m, f.ctx);
  f.p = draw(d, tokens, top_k, with_gaps);
  return f;
}

void tear_down(fixture *f) {
  fp4moe_layer_destroy(f->layer);
  drop(&f->p);
  random_layer_free(f->m);
  fp4moe_context_destroy(f->ctx);
}

fp4moe_status run_in_three(fp4moe_layer *layer, const fp4moe_batch *b) {
  const size_t pairs = b->tokens * b->top_k, floats = pairs * layer->desc.hidden;
  float *x = malloc(2 * floats * sizeof *x);
  int64_t *row_pair = malloc(pairs * sizeof *row_pair);
  int64_t *offsets = malloc((layer->desc.experts + 1) * sizeof *offsets);
  fp4moe_rows in = {.struct_size = sizeof in, .rows = pairs, .data = x, .expert_offsets = offsets};
  fp4moe_status status = fp4moe_prepare(layer, b, &in, row_pair);
  fp4moe_rows out = in;
  out.data = x + floats;
  const fp4moe_limits l = {sizeof l, in.rows, 1, 0};
  const size_t bytes = fp4moe_workspace_bytes(layer, &l);
  void *workspace = memset(malloc(bytes), 0xa5, bytes);
  if (!status) status = fp4moe_experts(layer, &in, &out, NULL, workspace, bytes);
  if (!status) status = fp4moe_finalize(layer, b, &out, row_pair);
  free(workspace);
  free(x);
  free(row_pair);
  free(offsets);
  return status;
}

float *outputs(fp4moe_layer *layer, const fp4moe_batch *b) {
  fp4moe_batch own = *b;
  float *y = own.y = malloc(b->tokens * layer->desc.hidden * sizeof *y);
  CHECK(!run(layer, &own), "%s", fp4moe_error_detail());
  return y;
}

int gives(fp4moe_layer *layer, const fp4moe_batch *b, const float *want, const char *what) {
  const size_t floats = b->tokens * layer->desc.hidden;
  memset(b->y, 0xff, floats * sizeof *want);
  return CHECK(!run(layer, b), "%s: %s", what, fp4moe_error_detail()) &&
         CHECK_SAME(b->y, want, floats, sizeof *want, what);
}

fp4moe_status forward_in_team(void *call, const fp4moe_team *team) {
  const forward_call *c = call;
  fp4moe_batch b = c->batch;
  b.team = team;
  return fp4moe_layer_forward(c->layer, &b, c->workspace, c->bytes);
}
