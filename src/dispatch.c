/* dispatch.c - prepare and finalize as calls of their own, for dispatchers (fp4moe.h).
 *
 * prepare copies tokens into rows grouped by expert; finalize adds expert rows into tokens. Both
 * take the checks and the id rules of the fused call (call.c); experts, between them, is in rows.c.
 */
#include <stdlib.h>
#include <string.h>

#include "call.h"
#include "quant.h"
#include "status.h"

typedef struct {
  fp4moe_call call;
  fp4moe_rows rows;
  const int64_t *row_pair;
  size_t *row_of_pair; /* finalize: row + 1 of each (token, slot), 0 = none */
  float *scratch;      /* [workers][2][H] */
} dispatch;

/* Runs fn over the workers of the call, in the canonical floating-point mode. */
static void for_workers(dispatch *d, void (*fn)(void *arg, size_t worker)) {
  const fp4moe_context_desc *ctx = &d->call.layer->ctx->desc;
  if (d->call.workers == 1)
    fn(d, 0);
  else
    ctx->parallel_for(ctx->pool, d->call.workers, fn, d);
}

/* prepare writes offsets, finalize does not read them. */
static fp4moe_status check_rows(const fp4moe_layer *layer, fp4moe_rows *rows,
                                const int64_t *row_pair, int wants_offsets) {
  if ((unsigned)rows->dtype > FP4MOE_BF16)
    return fp4moe_fail(FP4MOE_INVALID, "rows.dtype is %d, expected F32, F16 or BF16",
                       (int)rows->dtype);
  if (rows->expert_counts || rows->max_rows)
    return fp4moe_fail(FP4MOE_INVALID, "rows.%s is set: prepare and finalize take grouped rows",
                       rows->expert_counts ? "expert_counts" : "max_rows");
  const char *null = rows->rows && !rows->data                ? "rows.data"
                     : wants_offsets && !rows->expert_offsets ? "rows.expert_offsets"
                     : !row_pair                              ? "row_pair"
                                                              : NULL;
  if (null) return fp4moe_fail(FP4MOE_INVALID, "%s is NULL", null);
  size_t bytes = layer->desc.hidden * fp4moe_dtype_bytes(rows->dtype);
  if (!rows->stride) rows->stride = bytes;
  if (rows->stride >= bytes) return FP4MOE_OK;
  return fp4moe_fail(FP4MOE_INVALID, "rows.stride is %zu, a row has %zu bytes", rows->stride,
                     bytes);
}

static fp4moe_status begin(dispatch *d, fp4moe_layer *layer, const fp4moe_batch *batch,
                           const fp4moe_rows *rows, const int64_t *row_pair, int wants_y) {
  fp4moe_batch b;
  memset(d, 0, sizeof *d);
  fp4moe_status status = fp4moe_take_struct(&b, sizeof b, batch, "fp4moe_batch");
  if (!status) status = fp4moe_take_struct(&d->rows, sizeof d->rows, rows, "fp4moe_rows");
  if (status) return status;
  if (!layer || !layer->finished) return fp4moe_fail(FP4MOE_INVALID, "the layer is not finished");
  if (wants_y && !b.y && b.tokens) return fp4moe_fail(FP4MOE_INVALID, "batch.y is NULL");
  if (wants_y)
    b.x = b.y, b.x_dtype = FP4MOE_F32, b.x_stride = 0; /* x is not read */
  else
    b.y = (void *)(uintptr_t)b.x, b.y_dtype = FP4MOE_F32, b.y_stride = 0;
  b.stats = NULL;
  b.team = NULL;
  if ((status = fp4moe_call_init(&d->call, layer, fp4moe_layer_plan(layer), &b, NULL)) ||
      (status = check_rows(layer, &d->rows, row_pair, !wants_y)))
    return status;
  d->row_pair = row_pair;
  d->scratch = malloc(d->call.workers * 2 * layer->desc.hidden * sizeof *d->scratch + 64);
  return d->scratch ? FP4MOE_OK : fp4moe_fail(FP4MOE_NO_MEMORY, "rows in FP32");
}

static float *scratch_of(const dispatch *d, size_t worker) {
  float *aligned = (float *)(void *)fp4_align((size_t)d->scratch);
  return aligned + worker * 2 * d->call.layer->desc.hidden;
}

/* ---- prepare ---- */

static void copy_rows(void *arg, size_t worker) {
  dispatch *d = arg;
  const fp4moe_call *c = &d->call;
  const fp4moe_batch *b = &c->batch;
  size_t h = c->layer->desc.hidden, rows = d->rows.rows, workers = c->workers;
  uint64_t mode = fp4moe_fp_enter();
  float *x = scratch_of(d, worker);
  for (size_t r = rows * worker / workers; r < rows * (worker + 1) / workers; r++) {
    size_t pair = (size_t)d->row_pair[r], token = pair / b->top_k;
    const uint8_t *from = (const uint8_t *)b->x + token * b->x_stride;
    uint8_t *to = (uint8_t *)d->rows.data + r * d->rows.stride;
    int weighted = c->layer->desc.router_weight_on_input;
    if (!weighted && d->rows.dtype == b->x_dtype) {
      memcpy(to, from, h * fp4moe_dtype_bytes(b->x_dtype));
      continue;
    }
    float w = weighted ? fp4moe_call_weight(c, token, 0) : 1;
    for (size_t i = 0; i < h; i++) x[i] = fp4_load(from, b->x_dtype, i) * w;
    c->plan->store->fn.store(h, 1, x, 0, d->rows.dtype, 0, to);
  }
  fp4moe_fp_leave(mode);
}

/* Rows that the batch has; INVALID before anything is written. */
static fp4moe_status count(dispatch *d, size_t *rows) {
  const fp4moe_call *c = &d->call;
  *rows = 0;
  for (size_t t = 0; t < c->batch.tokens; t++)
    for (size_t s = 0; s < c->batch.top_k; s++) {
      fp4moe_status status = fp4moe_call_check_id(c, t, s);
      if (status) return status;
      *rows += fp4moe_call_expert(c, t, s) >= 0;
    }
  if (*rows > d->rows.rows)
    return fp4moe_fail(FP4MOE_INVALID, "rows.rows is %zu, the batch has %zu", d->rows.rows, *rows);
  return FP4MOE_OK;
}

/* row_pair in expert order, tokens ascending; offsets. */
static void place(const dispatch *d, int64_t *row_pair) {
  const fp4moe_call *c = &d->call;
  size_t experts = c->layer->desc.experts, k = c->batch.top_k, pairs = c->batch.tokens * k;
  int64_t *offsets = d->rows.expert_offsets, e;
  memset(offsets, 0, (experts + 1) * sizeof *offsets);
  for (size_t p = 0; p < pairs; p++)
    if ((e = fp4moe_call_expert(c, p / k, p % k)) >= 0) offsets[e + 1]++;
  for (size_t i = 0; i < experts; i++) offsets[i + 1] += offsets[i];
  for (size_t p = 0; p < pairs; p++)
    if ((e = fp4moe_call_expert(c, p / k, p % k)) >= 0) row_pair[offsets[e]++] = (int64_t)p;
  memmove(offsets + 1, offsets, experts * sizeof *offsets); /* offsets[e] had become e's end */
  offsets[0] = 0;
}

fp4moe_status fp4moe_prepare(fp4moe_layer *layer, const fp4moe_batch *batch, fp4moe_rows *rows,
                             int64_t *row_pair) {
  dispatch d;
  fp4moe_status status = begin(&d, layer, batch, rows, row_pair, 0);
  size_t used = 0;
  if (!status) status = count(&d, &used);
  if (!status) {
    rows->rows = d.rows.rows = used;
    place(&d, row_pair);
    for_workers(&d, copy_rows);
  }
  free(d.scratch);
  return status;
}

/* ---- finalize ---- */

/* Rows of a token in row order, which is ascending in experts; adds them into sum. */
static void add_rows(const dispatch *d, size_t token, float *row, float *sum) {
  const fp4moe_call *c = &d->call;
  size_t h = c->layer->desc.hidden, k = c->batch.top_k, last = 0;
  static const uint32_t zero = 0;
  memset(sum, 0, h * sizeof *sum);
  for (size_t n = 0; n < k; n++) {
    size_t next = 0, slot = 0;
    for (size_t s = 0; s < k; s++) {
      size_t r = d->row_of_pair[token * k + s];
      if (r > last && (!next || r < next)) next = r, slot = s;
    }
    if (!next) return;
    last = next;
    const uint8_t *from = (const uint8_t *)d->rows.data + (next - 1) * d->rows.stride;
    for (size_t i = 0; i < h; i++) row[i] = fp4_load(from, d->rows.dtype, i);
    float w = c->layer->desc.router_weight_on_input ? 1 : fp4moe_call_weight(c, token, slot);
    fp4moe_combine_args args = {.m = 1,
                                .panels = h / FP4MOE_PANEL,
                                .acc = row,
                                .acc_stride = h,
                                .scale = 1,
                                .weight = &w,
                                .index = &zero,
                                .y = sum,
                                .y_stride = h};
    c->plan->combine->fn.combine(&args);
  }
}

static void add_tokens(void *arg, size_t worker) {
  dispatch *d = arg;
  const fp4moe_call *c = &d->call;
  const fp4moe_batch *b = &c->batch;
  size_t h = c->layer->desc.hidden;
  uint64_t mode = fp4moe_fp_enter();
  float *row = scratch_of(d, worker), *sum = row + h;
  for (size_t t = b->tokens * worker / c->workers; t < b->tokens * (worker + 1) / c->workers; t++) {
    add_rows(d, t, row, sum);
    c->plan->store->fn.store(h, 1, sum, 0, b->y_dtype, b->accumulate,
                             (uint8_t *)b->y + t * b->y_stride);
  }
  fp4moe_fp_leave(mode);
}

/* Each slot's row. Two rows of one slot would lose one of them. */
static fp4moe_status index_rows(dispatch *d) {
  size_t pairs = d->call.batch.tokens * d->call.batch.top_k;
  d->row_of_pair = calloc(pairs + 1, sizeof *d->row_of_pair);
  if (!d->row_of_pair) return fp4moe_fail(FP4MOE_NO_MEMORY, "%zu slots", pairs);
  for (size_t r = 0; r < d->rows.rows; r++) {
    int64_t pair = d->row_pair[r];
    if (pair < 0 || (uint64_t)pair >= pairs)
      return fp4moe_fail(FP4MOE_INVALID, "row_pair[%zu] is %lld, the batch has %zu slots", r,
                         (long long)pair, pairs);
    if (d->row_of_pair[pair])
      return fp4moe_fail(FP4MOE_INVALID, "row_pair[%zu] is %lld, as is row_pair[%zu]", r,
                         (long long)pair, d->row_of_pair[pair] - 1);
    d->row_of_pair[pair] = r + 1;
  }
  return FP4MOE_OK;
}

fp4moe_status fp4moe_finalize(fp4moe_layer *layer, const fp4moe_batch *batch,
                              const fp4moe_rows *rows, const int64_t *row_pair) {
  dispatch d;
  fp4moe_status status = begin(&d, layer, batch, rows, row_pair, 1);
  if (!status) status = index_rows(&d);
  if (!status) for_workers(&d, add_tokens);
  free(d.row_of_pair);
  free(d.scratch);
  return status;
}
