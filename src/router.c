/* router.c - the router's calls (fp4moe.h): presets, what a descriptor must be, the rows of a call.
 *
 * Apart from the layer on purpose: an engine may route by itself and give ids and weights. All is
 * checked before the first row is written; what happens to one token is route.c. */
#include <math.h>
#include <string.h>

#include "call.h"
#include "context.h"
#include "cpu.h"
#include "route.h"
#include "status.h"
#include "verbose.h"

/* ---- Presets ---- */

static const struct {
  const char *name;
  fp4moe_router router;
} presets[] = {
    {"gpt-oss", {.scoring = FP4MOE_SOFTMAX, .topk_first = 1, .scale = 1}},
    {"qwen3", {.scoring = FP4MOE_SOFTMAX, .renormalize = 1, .scale = 1}},
    {"deepseek-v3",
     {.scoring = FP4MOE_SIGMOID, .renormalize = 1, .scale = 2.5f, .groups = 8, .top_groups = 4}},
    {"deepseek-v4", {.scoring = FP4MOE_SQRT_SOFTPLUS, .renormalize = 1}},
    {"llama-4", {.scoring = FP4MOE_SIGMOID, .topk_first = 1, .scale = 1}},
};

fp4moe_status fp4moe_router_preset(const char *name, size_t experts, size_t top_k,
                                   fp4moe_router *router) {
  if (!name || !router) return fp4moe_fail(FP4MOE_INVALID, "fp4moe_router_preset: NULL argument");
  for (size_t i = 0; i < sizeof presets / sizeof *presets; i++)
    if (!strcmp(presets[i].name, name)) {
      *router = presets[i].router;
      router->struct_size = sizeof *router;
      router->experts = experts;
      router->top_k = top_k;
      return FP4MOE_OK;
    }
  return fp4moe_fail(FP4MOE_INVALID,
                     "router preset '%.60s' is not gpt-oss, qwen3, deepseek-v3, deepseek-v4 or "
                     "llama-4",
                     name);
}

/* ---- Checks ---- */

static fp4moe_status check_range(const char *field, size_t value, size_t least, size_t most) {
  if (value >= least && value <= most) return FP4MOE_OK;
  return fp4moe_fail(FP4MOE_INVALID, "%s is %zu, expected %zu..%zu", field, value, least, most);
}

static fp4moe_status check_groups(const fp4moe_router *r) {
  fp4moe_status s;
  if (r->groups <= 1) return check_range("router.top_groups", r->top_groups, 0, r->groups);
  if ((s = check_range("router.groups", r->groups, 0, FP4MOE_ROUTER_GROUPS)) ||
      (s = check_range("router.top_groups", r->top_groups, 1, r->groups)))
    return s;
  if (r->experts % r->groups || r->experts / r->groups < 2)
    return fp4moe_fail(FP4MOE_INVALID,
                       "router.groups is %zu, expected a divisor of %zu experts with at least two "
                       "each",
                       r->groups, r->experts);
  return check_range("router.top_k", r->top_k, 1, r->experts / r->groups * r->top_groups);
}

static fp4moe_status check_router(const fp4moe_router *r) {
  fp4moe_status s;
  if ((s = check_range("router.experts", r->experts, 1, 65536)) ||
      (s = check_range("router.top_k", r->top_k, 1, r->experts)) ||
      (s = check_range("router.scoring", (size_t)r->scoring, 0, FP4MOE_SQRT_SOFTPLUS)) ||
      (s = check_range("router.topk_first", (size_t)r->topk_first, 0, 1)) ||
      (s = check_range("router.renormalize", (size_t)r->renormalize, 0,
                       !(r->topk_first && r->scoring == FP4MOE_SOFTMAX))))
    return s;
  if (!(r->scale > 0) || !isfinite(r->scale))
    return fp4moe_fail(FP4MOE_INVALID, "router.scale is %g, expected finite and above 0",
                       (double)r->scale);
  for (size_t e = 0; r->bias && e < r->experts; e++)
    if (!isfinite(r->bias[e]))
      return fp4moe_fail(FP4MOE_INVALID, "router.bias[%zu] is %g, expected finite", e,
                         (double)r->bias[e]);
  return check_groups(r);
}

static fp4moe_status check_stride(const char *field, size_t *stride, size_t row, size_t multiple) {
  if (!*stride) *stride = row;
  if (*stride >= row && *stride % multiple == 0) return FP4MOE_OK;
  return fp4moe_fail(FP4MOE_INVALID, "%s is %zu, expected from %zu bytes, a multiple of %zu", field,
                     *stride, row, multiple);
}

static fp4moe_status check_routing(const fp4moe_router *r, fp4moe_routing *io) {
  fp4moe_status s;
  if ((unsigned)io->logits_dtype > FP4MOE_BF16)
    return fp4moe_fail(FP4MOE_INVALID, "routing.logits_dtype is %d, expected F32, F16 or BF16",
                       (int)io->logits_dtype);
  if (io->ids_dtype != FP4MOE_I32 && io->ids_dtype != FP4MOE_I64)
    return fp4moe_fail(FP4MOE_INVALID, "routing.ids_dtype is %d, expected I32 or I64",
                       (int)io->ids_dtype);
  size_t logit = fp4moe_dtype_bytes(io->logits_dtype);
  if ((s = check_stride("routing.logits_stride", &io->logits_stride, r->experts * logit, logit)) ||
      (s = check_stride("routing.ids_stride", &io->ids_stride,
                        r->top_k * fp4moe_dtype_bytes(io->ids_dtype), 1)) ||
      (s = check_stride("routing.weights_stride", &io->weights_stride, r->top_k * sizeof(float),
                        1)))
    return s;
  const char *null = !io->logits         ? "logits"
                     : !io->topk_ids     ? "topk_ids"
                     : !io->topk_weights ? "topk_weights"
                                         : NULL;
  if (io->tokens && null) return fp4moe_fail(FP4MOE_INVALID, "routing.%s is NULL", null);
  if ((uintptr_t)io->logits % logit)
    return fp4moe_fail(FP4MOE_INVALID, "routing.logits is not aligned to its elements of %zu bytes",
                       logit);
  return FP4MOE_OK;
}

/* ---- Rows ---- */

struct job {
  fp4moe_router router;
  fp4moe_routing io;
  size_t parts;
};

static fp4moe_status take_job(struct job *j, const fp4moe_router *router,
                              const fp4moe_routing *routing) {
  fp4moe_status s = fp4moe_take_struct(&j->router, sizeof j->router, router, "fp4moe_router");
  if (!s) s = fp4moe_take_struct(&j->io, sizeof j->io, routing, "fp4moe_routing");
  if (!s) s = check_router(&j->router);
  return s ? s : check_routing(&j->router, &j->io);
}

/* Part i of the tokens. */
static void route_part(void *arg, size_t i) {
  const struct job *j = arg;
  const fp4moe_routing *io = &j->io;
  uint64_t mode = fp4moe_fp_enter();
  for (size_t t = io->tokens * i / j->parts; t < io->tokens * (i + 1) / j->parts; t++)
    fp4moe_route_token(&j->router, (const uint8_t *)io->logits + t * io->logits_stride,
                       io->logits_dtype, (uint8_t *)io->topk_ids + t * io->ids_stride,
                       io->ids_dtype, (uint8_t *)io->topk_weights + t * io->weights_stride);
  fp4moe_fp_leave(mode);
}

fp4moe_status fp4moe_route(const fp4moe_router *router, const fp4moe_routing *routing) {
  struct job j = {.parts = 1};
  fp4moe_status status = take_job(&j, router, routing);
  if (!status) route_part(&j, 0);
  return status;
}

/* ---- With the layer ---- */

/* The threads that the batch may use, a few tokens at least for each. */
static void route_all(struct job *j, const fp4moe_layer *layer, const fp4moe_batch *b) {
  enum { TOKENS = 16 };
  const fp4moe_context_desc *ctx = &layer->ctx->desc;
  size_t threads = b->threads ? b->threads : fp4moe_context_threads(layer->ctx);
  j->parts = (j->io.tokens + TOKENS - 1) / TOKENS;
  if (b->team) {
    j->parts = b->team->nth;
    route_part(j, b->team->ith);
    b->team->barrier(b->team->arg);
    return;
  }
  if (j->parts > threads) j->parts = threads;
  if (j->parts > 1)
    ctx->parallel_for(ctx->pool, j->parts, route_part, j);
  else if (j->parts)
    route_part(j, 0);
}

fp4moe_status fp4moe_layer_forward_routed(fp4moe_layer *layer, const fp4moe_router *router,
                                          const fp4moe_routing *routing, const fp4moe_batch *batch,
                                          void *workspace, size_t workspace_bytes) {
  struct job j;
  fp4moe_call call;
  fp4moe_batch b;
  if (!layer || !layer->finished) return fp4moe_fail(FP4MOE_INVALID, "the layer is not finished");
  fp4moe_status status = fp4moe_take_struct(&b, sizeof b, batch, "fp4moe_batch");
  if (!status) status = take_job(&j, router, routing);
  if (status) return status;
  b.tokens = j.io.tokens;
  b.top_k = j.router.top_k;
  b.topk_ids = j.io.topk_ids;
  b.ids_dtype = j.io.ids_dtype;
  b.ids_stride = j.io.ids_stride;
  b.topk_weights = j.io.topk_weights;
  b.weights_stride = j.io.weights_stride;
  size_t ids = b.expert_map ? b.expert_map_count : layer->desc.experts;
  if (j.router.experts != ids)
    return fp4moe_fail(FP4MOE_INVALID, "router.experts is %zu, the %s %zu", j.router.experts,
                       b.expert_map ? "expert_map covers" : "layer has", ids);
  status = fp4moe_call_init(&call, layer, fp4moe_layer_plan(layer), &b, NULL);
  if (status) return status;
  int lines = fp4moe_is_verbose(layer->ctx);
  uint64_t start = lines ? fp4moe_now_ns() : 0;
  route_all(&j, layer, &b);
  call.routed = 1;
  call.route_ns = lines ? fp4moe_now_ns() - start : 0;
  return fp4moe_call_run(&call, workspace, workspace_bytes);
}
