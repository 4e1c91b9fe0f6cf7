/* target.c - calls on the tuner's layer, and the proof against the C rows (target.h). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/layerfill.h"
#include "cli/trial.h"
#include "layer.h"
#include "measure.h"
#include "target.h"

enum {
  CACHES = 4,
  SPARE = 8,
  SPARE_LINEARS = 2,
  PROOF_ROWS = 9,
  ROUTED_TOKENS = 2048,
  CALL_ROWS = 256,
  WORKER_UNITS = 16
};

/* ---- The layer ---- */

static void choose_experts(target *t, const problem *p) {
  fp4moe_layer_desc desc = problem_desc(p);
  fp4moe_shape shape;
  fp4moe_shape_of(&desc, &shape);
  t->problem = *p;
  size_t enough = 2 * CACHES * t->context->host.llc_bytes / shape.bytes;
  enough += fp4moe_is_linear(&desc) ? SPARE_LINEARS : SPARE;
  if (t->problem.shape.experts > enough) t->problem.shape.experts = enough;
  size_t experts = t->problem.shape.experts;
  t->active = p->shape.top_k < experts ? p->shape.top_k : experts;
}

static void draw_inputs(target *t) {
  measure_rng rng = {1};
  size_t slots = t->most_tokens * t->active, h = t->layer->desc.hidden;
  size_t columns = fp4moe_x_columns(&t->layer->desc);
  t->x = allocate(t->most_tokens * columns, sizeof *t->x);
  t->y = allocate(t->most_tokens * h, sizeof *t->y);
  t->ids = allocate(slots, sizeof *t->ids);
  t->routed = allocate(slots, sizeof *t->routed);
  t->weights = allocate(slots, sizeof *t->weights);
  measure_random_bf16(&rng, t->x, t->most_tokens * columns);
  measure_random_routing(&rng, t->most_tokens, t->active, t->layer->desc.experts, t->routed,
                         t->weights);
}

void target_close(target *t) {
  fp4moe_layer_destroy(t->layer);
  free(t->x);
  free(t->y);
  free(t->ids);
  free(t->routed);
  free(t->weights);
  free(t->workspace);
  free(t->want);
  free(t->got);
}

/* ---- Calls ---- */

static fp4moe_batch batch_of(const target *t, size_t tokens, fp4moe_stats *stats) {
  return (fp4moe_batch){.struct_size = sizeof(fp4moe_batch),
                        .tokens = tokens,
                        .top_k = t->active,
                        .x = t->x,
                        .x_dtype = FP4MOE_BF16,
                        .y = t->y,
                        .y_dtype = FP4MOE_BF16,
                        .topk_ids = t->ids,
                        .ids_dtype = FP4MOE_I32,
                        .topk_weights = t->weights,
                        .stats = stats};
}

/* A linear's call runs by the plan that it finds in its layer. */
static fp4moe_status run(target *t, const fp4moe_batch *batch) {
  if (!fp4moe_is_linear(&t->layer->desc))
    return fp4moe_layer_forward_plan(t->layer, &t->plan, batch, t->workspace, t->workspace_bytes);
  t->layer->plan = &t->plan;
  return linear_run(&own_library, t->layer, batch, t->workspace, t->workspace_bytes);
}

/* Room for the call, its pages there: no call that is timed meets them first. */
static void reserve(target *t, const fp4moe_batch *batch) {
  size_t threads = fp4moe_context_threads(t->context);
  size_t bytes = fp4moe_plan_workspace_bytes(t->layer, &t->plan, batch->tokens, batch->top_k,
                                             threads, batch->tokens);
  if (bytes <= t->workspace_bytes) return;
  free(t->workspace);
  t->workspace = allocate_workspace(bytes);
  t->workspace_bytes = bytes;
  memset(t->workspace, 0, bytes);
}

static void forward(target *t, const fp4moe_batch *batch) {
  reserve(t, batch);
  require(run(t, batch), t->problem.name);
}

static void step_on(target *t) { t->next = (t->next + t->active) % t->layer->desc.experts; }

static void uniform_ids(target *t, size_t tokens) {
  size_t experts = t->layer->desc.experts;
  for (size_t i = 0; i < tokens; i++)
    for (size_t s = 0; s < t->active; s++)
      t->ids[i * t->active + s] = (int32_t)((t->next + s) % experts);
  step_on(t);
}

/* A call's length tells no more when it has CALL_ROWS rows and units for all workers. */
static size_t uniform_experts(const target *t, size_t rows) {
  size_t units = t->layer->desc.intermediate / FP4MOE_PANEL + 1;
  size_t workers = fp4moe_context_threads(t->context);
  size_t for_rows = (CALL_ROWS + rows - 1) / rows;
  size_t for_workers = (WORKER_UNITS * workers + units - 1) / units;
  size_t enough = for_rows > for_workers ? for_rows : for_workers;
  return t->active < enough ? t->active : enough;
}

fp4moe_stats target_call_uniform(target *t, size_t rows) {
  fp4moe_stats stats = {.struct_size = sizeof stats};
  uniform_ids(t, rows);
  fp4moe_batch batch = batch_of(t, rows, &stats);
  batch.ids_stride = t->active * sizeof *t->ids;
  batch.weights_stride = t->active * sizeof *t->weights;
  batch.top_k = uniform_experts(t, rows);
  forward(t, &batch);
  return stats;
}

size_t target_routed_tokens(const target *t, size_t rows) {
  int linear = fp4moe_is_linear(&t->layer->desc);
  size_t tokens = linear ? rows : rows * t->layer->desc.experts / t->active;
  if (!tokens) tokens = 1;
  return tokens < t->most_tokens ? tokens : t->most_tokens;
}

double target_call_routed(target *t, size_t rows) {
  int linear = fp4moe_is_linear(&t->layer->desc);
  size_t experts = t->layer->desc.experts, tokens = target_routed_tokens(t, rows);
  if (linear) uniform_ids(t, tokens);
  for (size_t i = 0; !linear && i < tokens * t->active; i++)
    t->ids[i] = (int32_t)(((size_t)t->routed[i] + t->next) % experts);
  if (!linear) step_on(t);
  fp4moe_batch batch = batch_of(t, tokens, NULL);
  reserve(t, &batch);
  uint64_t start = fp4moe_now_ns();
  forward(t, &batch);
  return (double)(fp4moe_now_ns() - start);
}

/* ---- Proof ---- */

/* rel_l2 of the class against its C rows, which sum in another order; class int8 has one result. */
static double class_bound(fp4moe_precision precision) {
  return precision == FP4MOE_PRECISION_F32 ? 1e-5 : precision == FP4MOE_PRECISION_INT8 ? 0 : 1e-3;
}

/* Rows of expert 0 only. */
static fp4moe_batch proof_batch(target *t, float *y) {
  t->next = 0;
  uniform_ids(t, PROOF_ROWS);
  fp4moe_batch batch = batch_of(t, PROOF_ROWS, NULL);
  batch.top_k = 1;
  batch.ids_stride = t->active * sizeof *t->ids; /* of a linear: one id anyway */
  batch.weights_stride = t->active * sizeof *t->weights;
  batch.y = y;
  batch.y_dtype = FP4MOE_F32;
  return batch;
}

static void make_proof(target *t) {
  size_t floats = PROOF_ROWS * t->layer->desc.hidden;
  t->want = allocate(floats, sizeof *t->want);
  t->got = allocate(floats, sizeof *t->got);
  fp4moe_batch batch = proof_batch(t, t->want);
  const fp4moe_plan plan = t->plan;
  require(fp4moe_layer_c_plan(t->layer, t->problem.precision, &t->plan), "C rows");
  forward(t, &batch);
  t->plan = plan;
}

/* The call that proves candidate i. */
static fp4moe_batch set_candidate(const target_candidates *c, size_t i) {
  for (int b = 0; b < FP4MOE_BUCKETS; b++) c->target->plan.recipe[c->phase][b] = c->recipe[i];
  return proof_batch(c->target, c->target->got);
}

void target_reserve(const target_candidates *c, size_t n) {
  const fp4moe_plan plan = c->target->plan;
  const size_t next = c->target->next;
  for (size_t i = 0; i < n; i++) {
    fp4moe_batch batch = set_candidate(c, i);
    reserve(c->target, &batch);
  }
  c->target->plan = plan;
  c->target->next = next;
}

int target_holds(void *candidates, size_t i, char reason[PROVE_REASON]) {
  const target_candidates *c = candidates;
  target *t = c->target;
  double d = 0, n = 0, bound = class_bound(t->problem.precision);
  fp4moe_batch batch = set_candidate(c, i);
  forward(t, &batch);
  for (size_t j = 0; j < PROOF_ROWS * t->layer->desc.hidden; j++) {
    d += pow((double)t->got[j] - (double)t->want[j], 2);
    n += pow((double)t->want[j], 2);
  }
  double error = sqrt(d / n);
  if (error <= bound) return 1;
  snprintf(reason, PROVE_REASON, "rel_l2 %.2e over %.0e", error, bound);
  return 0;
}

/* ---- Open ---- */

void target_open(target *t, fp4moe_context *context, const problem *p) {
  *t = (target){.context = context};
  choose_experts(t, p);
  t->layer = random_layer(context, &t->problem, 1);
  t->selector = (fp4moe_selector){&context->host, &context->request, NULL};
  require(fp4moe_select(&t->selector, &t->layer->desc, &t->plan), p->name);
  t->most_tokens = ROUTED_TOKENS;
  draw_inputs(t);
  make_proof(t);
}
