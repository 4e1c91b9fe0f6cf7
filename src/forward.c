/* forward.c - one forward call over a plan (prepare, phase 1, phase 2).
 *
 *   prepare   group rows by expert; bring each token into the class's activation form, once
 *   phase 1   unit (expert, rows, w13 panels): matmul, bias, activation, h in the form of phase 2
 *             (dynamic globals, quantise.c: a phase of its own brings h into that form)
 *   phase 2   unit (run of experts, tokens, output panels): matmul, bias, router weight, added into
 *             the unit's own piece of the run's partial sums; the unit that ends a piece last adds
 *             the runs in ascending order and writes y. Where y has a row for each row (rows.c):
 *             unit (expert, rows, output panels): matmul, bias, store
 *
 * The workers of a phase are threads of a provider, or the caller's own team, which runs the whole
 * call on every thread (SPMD) and meets at barriers; thread 0 then groups and resets counters.
 *
 * Reads the plan and nothing else of the library: no oracle, table or topology. Allocates nothing
 * and cannot fail once the arguments are checked. No unit waits for another. */
#include <math.h>
#include <string.h>

#include "nodes.h"
#include "quantise.h"
#include "status.h"

/* ---- Workers ---- */

/* Takes a run of a shard's units: long ones while many are left, so that a worker streams through
 * memory. */
static size_t take_units(const fp4moe_phase *p, fp4moe_queue *q, size_t *first) {
  size_t at = atomic_load(&q->next), n;
  do {
    if (at >= q->end) return 0;
    n = (q->end - at) * p->shards / (p->call->share * p->call->workers);
    if (n > p->most) n = p->most;
    if (n > q->end - at) n = q->end - at;
    if (!n) n = 1;
  } while (!atomic_compare_exchange_weak(&q->next, &at, at + n));
  *first = at;
  return n;
}

static void work_shard(const fp4moe_phase *p, fp4moe_queue *q, uint8_t *scratch) {
  for (size_t first, n; (n = take_units(p, q, &first)) != 0;)
    for (size_t done = 0; done < n;) done += p->run(p->call, first + done, n - done, scratch);
}

/* The units of the worker's node first, then those that others have left. */
static void work(void *arg, size_t i) {
  fp4moe_phase *p = arg;
  uint8_t *scratch = p->call->scratch + i * p->call->scratch_bytes;
  uint64_t mode = fp4moe_fp_enter();
  size_t home = p->shards > 1 ? fp4moe_shards_home(p->call->layer, fp4moe_numa_here(), i) : 0;
  for (size_t s = 0; s < p->shards; s++) work_shard(p, &p->queue[(home + s) % p->shards], scratch);
  fp4moe_fp_leave(mode);
  if (p->call->batch.stats) {
    atomic_fetch_add(&p->end_ns, fp4moe_now_ns());
    atomic_fetch_add(&p->ended, 1);
  }
}

static uint64_t time_of(const fp4moe_call *c) { return c->batch.stats ? fp4moe_now_ns() : 0; }

/* Runs all units of a phase; adds its time and its workers' waits. */
static void run_phase(const fp4moe_call *c, int which, uint64_t *ns, uint64_t *wait_ns) {
  const fp4moe_context_desc *d = &c->layer->ctx->desc;
  const fp4moe_team *team = c->batch.team;
  fp4moe_phase *p = &c->phase[which];
  uint64_t start = time_of(c);
  if (team) {
    work(p, team->ith);
    team->barrier(team->arg);
  } else if (c->workers == 1 || p->units <= 1) {
    work(p, 0);
  } else {
    d->parallel_for(d->pool, c->workers, work, p);
  }
  uint64_t end = time_of(c);
  *ns += end - start;
  *wait_ns += atomic_load(&p->ended) * end - atomic_load(&p->end_ns);
}

/* ---- Matmul by a recipe ---- */

typedef struct {
  const fp4moe_active *active;
  const fp4moe_shard *shard; /* that has the panels */
  int phase;
  size_t panel, panels;
  size_t k0, k;
  const void *const *rows;
  size_t m;
  float *acc; /* [m][16 * panels], dense */
} product;

static void multiply_gemv(const fp4moe_recipe *r, const product *x, fp4moe_matmul *t) {
  size_t passes = (x->m + r->gemv->mr - 1) / r->gemv->mr;
  t->prefetch = r->prefetch;
  for (size_t i = 0; passes; i += t->m, passes--, t->prefetch = 0) { /* cut evenly */
    t->m = (x->m - i + passes - 1) / passes;
    t->rows = x->rows + i;
    t->acc = x->acc + i * t->acc_stride;
    r->gemv->fn.matmul(t);
  }
}

static void multiply_gemm(const fp4moe_recipe *r, const product *x, fp4moe_matmul *t,
                          fp4moe_act_class act, size_t group, uint8_t *unpacked) {
  const uint8_t *nibbles = t->weights, *scales = t->scales;
  size_t stride = t->weights_stride, block = r->k_block ? r->k_block : x->k;
  t->weights = unpacked;
  t->scales = NULL;
  t->m = x->m;
  for (size_t done = 0; done < x->k; done += block) {
    size_t k = x->k - done < block ? x->k - done : block;
    size_t bytes = fp4_align(fp4_unpacked_bytes(act, k, group));
    for (size_t p = 0; p < x->panels; p++)
      r->unpack->fn.unpack(nibbles + p * stride + 8 * done,
                           scales + p * t->scales_stride + done / group * FP4MOE_PANEL, k,
                           unpacked + p * bytes);
    t->weights_stride = bytes;
    t->k0 = x->k0 + done;
    t->k = k;
    t->resume = done != 0;
    t->next = r->prefetch ? nibbles + x->panels * stride : NULL;
    t->next_bytes = r->prefetch && done + k == x->k ? x->panels * stride : 0;
    r->gemm->fn.matmul(t);
  }
}

/* The shard's record of an expert. */
static const uint8_t *record_of(const fp4moe_shard *s, const fp4moe_active *a) {
  return s->records + a->expert * s->shape.bytes;
}

static void multiply(const fp4moe_call *c, const product *x, uint8_t *unpacked) {
  const fp4moe_shape *s = &x->shard->shape;
  const fp4moe_recipe *r = x->active->recipe[x->phase];
  int down = x->phase == FP4MOE_DOWN;
  size_t k = down ? s->intermediate : s->hidden;
  size_t scale_stride = fp4_panel_scale_bytes(k, s->group);
  size_t panel = x->panel - (down ? x->shard->first2 : x->shard->first13);
  const uint8_t *record = record_of(x->shard, x->active);
  fp4moe_matmul t = {
      .panels = x->panels,
      .k0 = x->k0,
      .k = x->k,
      .row_k = k,
      .rows = x->rows,
      .weights = record + (down ? s->w2 : s->w13) + panel * fp4_panel_bytes(k) + 8 * x->k0,
      .weights_stride = fp4_panel_bytes(k),
      .scales =
          record + (down ? s->s2 : s->s13) + panel * scale_stride + x->k0 / s->group * FP4MOE_PANEL,
      .scales_stride = scale_stride,
      .acc = x->acc,
      .acc_stride = FP4MOE_PANEL * x->panels,
  };
  if (r->gemv)
    multiply_gemv(r, x, &t);
  else
    multiply_gemm(r, x, &t, c->plan->act_class, s->group, unpacked);
}

/* ---- Units ---- */

static size_t unit_gate_up(const fp4moe_call *c, size_t unit, size_t n, uint8_t *scratch) {
  const fp4moe_activation *a = &c->layer->desc.activation;
  fp4moe_unit1 u;
  size_t done = fp4moe_call_unit1(c, FP4MOE_GATE_UP, unit, n, &u);
  const fp4moe_shape *s = &u.shard->shape;
  float *acc = (float *)(void *)(scratch + c->panel_bytes);
  float *h = (float *)(void *)(scratch + c->panel_bytes + c->acc_bytes);
  const uint8_t *at = record_of(u.shard, u.active);
  const fp4moe_record *record = (const void *)at;
  const float *bias =
      (const float *)(const void *)(at + s->b13) + (u.panel - u.shard->first13) * FP4MOE_PANEL;
  product x = {u.active, u.shard,   FP4MOE_GATE_UP,   u.panel, u.panels,
               0,        s->hidden, c->x_row + u.row, u.rows,  acc};
  multiply(c, &x, scratch);
  if (c->x_scale) fp4moe_scale_rows(c, FP4MOE_GATE_UP, u.row, u.rows, FP4MOE_PANEL * u.panels, acc);
  size_t halves = s->gated ? 2 : 1, h_panels = u.panels / halves;
  size_t column = u.panel / halves * FP4MOE_PANEL, columns = h_panels * FP4MOE_PANEL;
  fp4moe_act_args args = {
      .m = u.rows,
      .panels = h_panels,
      .acc = acc,
      .acc_stride = FP4MOE_PANEL * u.panels,
      .bias = record->flags & FP4MOE_RECORD_BIAS_13 ? bias : NULL,
      .gate_scale = fp4moe_sum_scale(c, u.active->globals, FP4MOE_GATE_UP, 0),
      .up_scale = fp4moe_sum_scale(c, u.active->globals, FP4MOE_GATE_UP, 1),
      .alpha = a->alpha,
      .beta = a->beta,
      .limit = a->limit > 0 ? a->limit : INFINITY,
      .linear_beta = a->linear_beta,
      .h = h,
      .h_stride = columns,
  };
  c->plan->act->fn.act(&args);
  fp4moe_quant_h(c, &u, h, column, columns);
  return done;
}

/* Columns [k0, k0 + k) of rows of an expert times output panels: what combine then adds. */
static fp4moe_combine_args multiply_down(const fp4moe_call *c, const fp4moe_unit1 *u, size_t k0,
                                         size_t k, uint8_t *scratch) {
  const uint8_t *at = record_of(u->shard, u->active);
  const fp4moe_record *record = (const void *)at;
  const float *bias = (const float *)(const void *)(at + u->shard->shape.b2) +
                      (u->panel - u->shard->first2) * FP4MOE_PANEL;
  int of_x = fp4moe_is_linear(&c->layer->desc);
  float *acc = (float *)(void *)(scratch + c->panel_bytes);
  product x = {u->active, u->shard, FP4MOE_DOWN, u->panel,
               u->panels, k0,       k,           (of_x ? c->x_row : c->h_row) + u->row,
               u->rows,   acc};
  multiply(c, &x, scratch);
  if (of_x ? c->x_scale : c->h_scale)
    fp4moe_scale_rows(c, FP4MOE_DOWN, u->row, u->rows, FP4MOE_PANEL * u->panels, acc);
  return (fp4moe_combine_args){
      .m = u->rows,
      .panels = u->panels,
      .acc = acc,
      .acc_stride = FP4MOE_PANEL * u->panels,
      .scale = fp4moe_sum_scale(c, u->active->globals, FP4MOE_DOWN, 2),
      .bias = !k0 && record->flags & FP4MOE_RECORD_BIAS_2 ? bias : NULL,
      .weight = c->row_weight + u->row,
  };
}

/* Rows of one segment of a phase-2 unit into the unit's piece of the partial sums. */
static void add_segment(const fp4moe_call *c, const fp4moe_unit2 *u, size_t segment,
                        uint8_t *scratch, float *sum) {
  const fp4moe_active *a = &c->active[segment / c->cut.k_parts];
  size_t part = segment % c->cut.k_parts, parts = c->cut.k_parts, rows;
  size_t k = c->layer->shape.intermediate;
  size_t k0 = k * part / parts / 32 * 32,
         k1 = part + 1 == parts ? k : k * (part + 1) / parts / 32 * 32;
  fp4moe_unit1 x = {.active = a, .shard = u->shard, .panel = u->panel, .panels = u->panels};
  fp4moe_active_rows(c, a, u->token, u->tokens, &x.row, &rows);
  for (; rows; rows -= x.rows, x.row += x.rows) {
    x.rows = rows < FP4MOE_ROW_BLOCK ? rows : FP4MOE_ROW_BLOCK;
    fp4moe_combine_args args = multiply_down(c, &x, k0, k1 - k0, scratch);
    args.index = c->row_token + x.row;
    args.y = sum;
    args.y_stride = c->partial_stride;
    c->plan->combine->fn.combine(&args);
  }
}

/* The runs of a panel are all there: adds them and writes y. */
static void store_panels(const fp4moe_call *c, const fp4moe_unit2 *u, size_t panel, size_t panels) {
  size_t column = panel * FP4MOE_PANEL, run_floats = c->piece * c->partial_stride;
  size_t at = column * fp4moe_dtype_bytes(c->batch.y_dtype);
  for (size_t t = u->token; t < u->token + u->tokens; t++)
    c->plan->store->fn.store(panels * FP4MOE_PANEL, c->cut.runs,
                             c->partial + t * c->partial_stride + column, run_floats,
                             c->batch.y_dtype, c->batch.accumulate,
                             (uint8_t *)c->batch.y + (c->token0 + t) * c->batch.y_stride + at);
}

static size_t unit_down(const fp4moe_call *c, size_t unit, size_t n, uint8_t *scratch) {
  fp4moe_unit2 u;
  size_t units = fp4moe_call_unit2(c, unit, n, &u), end = u.panel + u.panels;
  float *sum = c->partial + u.run * c->piece * c->partial_stride + u.panel * FP4MOE_PANEL;
  for (size_t t = u.token; t < u.token + u.tokens; t++)
    memset(sum + t * c->partial_stride, 0, u.panels * FP4MOE_PANEL * sizeof *sum);
  for (size_t s = c->cut.run_first[u.run]; s < c->cut.run_first[u.run + 1]; s++)
    add_segment(c, &u, s, scratch, sum);
  atomic_uint *done = c->done + u.range * c->layer->shape.panels2;
  for (size_t p = u.panel, ready; p < end; p += ready + 1) {
    for (ready = 0; p + ready < end && atomic_fetch_add(&done[p + ready], 1) + 1 == c->cut.runs;)
      ready++;
    if (ready) store_panels(c, &u, p, ready);
  }
  return units;
}

/* ---- Units of phase 2 whose rows are not added up ---- */

/* Columns of one row of y. A linear's last panel may be wider than its row. */
static void store_row(const fp4moe_call *c, size_t row, size_t column, size_t columns,
                      const float *sum) {
  size_t bytes = fp4moe_dtype_bytes(c->batch.y_dtype), left = c->layer->desc.hidden - column;
  size_t n = columns < left ? columns : left, whole = n / FP4MOE_PANEL * FP4MOE_PANEL;
  uint8_t *y = (uint8_t *)c->y_row[row] + column * bytes;
  float tail[FP4MOE_PANEL];
  if (whole) c->plan->store->fn.store(whole, 1, sum, 0, c->batch.y_dtype, 0, y);
  if (n == whole) return;
  c->plan->store->fn.store(FP4MOE_PANEL, 1, sum + whole, 0, c->batch.y_dtype, 0, tail);
  memcpy(y + whole * bytes, tail, (n - whole) * bytes);
}

static size_t unit_rows(const fp4moe_call *c, size_t unit, size_t n, uint8_t *scratch) {
  static const uint32_t first = 0;
  fp4moe_unit1 u;
  size_t done = fp4moe_call_unit1(c, FP4MOE_DOWN, unit, n, &u);
  size_t columns = u.panels * FP4MOE_PANEL;
  fp4moe_combine_args args = multiply_down(c, &u, 0, c->layer->shape.intermediate, scratch);
  args.m = 1;
  args.index = &first;
  args.y = (float *)(void *)(scratch + c->panel_bytes + c->acc_bytes);
  args.y_stride = columns;
  for (size_t r = 0; r < u.rows; r++, args.acc += args.acc_stride) {
    memset(args.y, 0, columns * sizeof *args.y);
    c->plan->combine->fn.combine(&args);
    store_row(c, u.row + r, u.panel * FP4MOE_PANEL, columns, args.y);
  }
  return done;
}

/* Slots without an expert: their rows of y are 0. */
static void store_idle(const fp4moe_call *c, size_t token0, size_t tokens) {
  size_t bytes = c->layer->desc.hidden * fp4moe_dtype_bytes(c->batch.y_dtype);
  for (size_t t = token0; t < token0 + tokens && !fp4moe_call_by_expert(c); t++)
    for (size_t s = 0; s < c->batch.top_k; s++)
      if (fp4moe_call_expert(c, t, s) < 0) memset(fp4moe_call_y(c, t, s), 0, bytes);
}

/* No expert is active: y = 0, or y as it is. */
static void store_nothing(const fp4moe_call *c) {
  size_t h = c->layer->desc.hidden;
  if (c->form.unreduced) {
    store_idle(c, 0, c->batch.tokens);
    return;
  }
  memset(c->partial, 0, h * sizeof *c->partial);
  for (size_t t = 0; t < c->batch.tokens; t++)
    c->plan->store->fn.store(h, 1, c->partial, 0, c->batch.y_dtype, c->batch.accumulate,
                             (uint8_t *)c->batch.y + t * c->batch.y_stride);
}

/* ---- The call ---- */

static void count_stats(const fp4moe_call *c, fp4moe_stats *stats) {
  stats->active_experts = c->actives;
  stats->weight_bytes = c->actives * fp4moe_layer_bytes(c->layer) / c->layer->desc.experts;
  stats->threads = c->workers;
  if (stats->expert_rows)
    memcpy(stats->expert_rows, c->total, c->layer->desc.experts * sizeof *c->total);
}

/* A phase of units without weights: one queue. */
static void set_phase(fp4moe_call *c, int which, fp4moe_unit_fn *run, size_t units) {
  fp4moe_phase *p = &c->phase[which];
  p->call = c->published;
  p->run = run;
  p->units = p->most = units;
  p->shards = 1;
  atomic_init(&p->queue[0].next, 0);
  p->queue[0].end = units;
  atomic_init(&p->end_ns, 0);
  atomic_init(&p->ended, 0);
}

/* A queue for each shard. */
static void set_matmul_phase(fp4moe_call *c, int which, fp4moe_unit_fn *run, int phase) {
  fp4moe_phase *p = &c->phase[which];
  set_phase(c, which, run, fp4moe_call_units(c, phase));
  p->most = fp4moe_call_most(c, phase);
  p->shards = c->layer->shards;
  for (size_t s = 0; s < p->shards; s++) {
    atomic_init(&p->queue[s].next, fp4moe_call_first_unit(c, phase, s));
    p->queue[s].end = fp4moe_call_first_unit(c, phase, s + 1);
  }
}

/* The piece's rows, units and counters: one thread's work. Few tokens are quantised on the way. */
static void begin_piece(fp4moe_call *c, size_t token0, size_t tokens) {
  fp4moe_call_group(c, token0, tokens);
  if (c->form.unreduced) store_idle(c, token0, tokens);
  size_t x_units = fp4moe_quant_x_units(c), h_units = fp4moe_quant_h_units(c);
  if (x_units == 1) {
    fp4moe_quant_x(c, 0, 1, c->scratch);
    x_units = 0;
  }
  set_phase(c, FP4MOE_QUANT_X_PHASE, fp4moe_quant_x, x_units);
  set_phase(c, FP4MOE_QUANT_H_PHASE, fp4moe_quant_h_rows, h_units);
  set_matmul_phase(c, FP4MOE_GATE_UP_PHASE, unit_gate_up, FP4MOE_GATE_UP);
  set_matmul_phase(c, FP4MOE_DOWN_PHASE, c->form.unreduced ? unit_rows : unit_down, FP4MOE_DOWN);
  *c->published = *c;
}

static void run_piece(fp4moe_call *c, size_t token0, size_t tokens, fp4moe_stats *stats) {
  const fp4moe_team *team = c->batch.team;
  int linear = fp4moe_is_linear(&c->layer->desc);
  uint64_t start = time_of(c), ns = 0, wait = 0;
  if (!team || team->ith == 0) begin_piece(c, token0, tokens);
  if (team) team->barrier(team->arg);
  run_phase(c, FP4MOE_QUANT_X_PHASE, &ns, &wait);
  stats->prepare_ns += time_of(c) - start;
  if (!linear) run_phase(c, FP4MOE_GATE_UP_PHASE, &stats->phase1_ns, &stats->phase1_wait_ns);
  if (!linear && fp4moe_call_dynamic(c))
    run_phase(c, FP4MOE_QUANT_H_PHASE, &stats->phase1_ns, &stats->phase1_wait_ns);
  run_phase(c, FP4MOE_DOWN_PHASE, &stats->phase2_ns, &stats->phase2_wait_ns);
}

/* The largest piece that fits, 0: not even one token. */
static size_t fit_piece(fp4moe_call *c, size_t bytes) {
  size_t lo = 0, hi = c->batch.tokens;
  if (fp4moe_call_layout(c, NULL, hi) <= bytes) return hi;
  while (hi - lo > 1) {
    size_t mid = (lo + hi) / 2;
    if (fp4moe_call_layout(c, NULL, mid) <= bytes)
      lo = mid;
    else
      hi = mid;
  }
  return lo;
}

/* Counts rows; of a team thread 0 does, and all learn how it went and how many are active. */
static fp4moe_status count_rows(fp4moe_call *c) {
  const fp4moe_team *team = c->batch.team;
  if (!team) return fp4moe_call_count(c);
  if (team->ith == 0) {
    c->notice->status = fp4moe_call_count(c);
    strncpy(c->notice->detail, fp4moe_error_detail(), sizeof c->notice->detail - 1);
    c->notice->detail[sizeof c->notice->detail - 1] = 0;
    *c->published = *c;
  }
  team->barrier(team->arg);
  fp4moe_status status = c->notice->status;
  c->actives = c->published->actives;
  if (status && team->ith) fp4moe_fail(status, "%s", c->notice->detail);
  team->barrier(team->arg); /* thread 0 may now publish again */
  return status;
}

static fp4moe_status run_call(fp4moe_call *c, void *workspace, size_t bytes) {
  const fp4moe_team *team = c->batch.team;
  int first = !team || team->ith == 0;
  if (!first) c->batch.stats = NULL;
  fp4moe_stats none = {0}, *stats = c->batch.stats ? c->batch.stats : &none;
  uint64_t start = time_of(c);
  size_t piece = fit_piece(c, bytes);
  if (!piece || !workspace)
    return fp4moe_fail(FP4MOE_WORKSPACE, "the workspace has %zu bytes, this call needs %zu",
                       workspace ? bytes : 0, fp4moe_call_layout(c, NULL, 1));
  fp4moe_call_layout(c, workspace, piece);
  fp4moe_status status = count_rows(c);
  if (status) return status;
  stats->prepare_ns = stats->phase1_ns = stats->phase1_wait_ns = 0;
  stats->phase2_ns = stats->phase2_wait_ns = 0;
  if (first) count_stats(c, stats);
  stats->prepare_ns = time_of(c) - start;
  if (!c->actives && first) store_nothing(c);
  for (size_t t = 0; t < c->batch.tokens && c->actives; t += piece)
    run_piece(c, t, c->batch.tokens - t < piece ? c->batch.tokens - t : piece, stats);
  if (!c->actives && team) team->barrier(team->arg);
  return FP4MOE_OK;
}

fp4moe_status fp4moe_call_do(fp4moe_call *c, void *workspace, size_t bytes) {
  if (!c->batch.tokens) return FP4MOE_OK;
  uint64_t mode = fp4moe_fp_enter();
  fp4moe_status status = run_call(c, workspace, bytes);
  fp4moe_fp_leave(mode);
  return status;
}

fp4moe_status fp4moe_layer_forward_plan(fp4moe_layer *layer, const fp4moe_plan *plan,
                                        const fp4moe_batch *batch, void *workspace, size_t bytes) {
  fp4moe_call call;
  fp4moe_status status = fp4moe_call_init(&call, layer, plan, batch, NULL);
  return status ? status : fp4moe_call_run(&call, workspace, bytes);
}

fp4moe_status fp4moe_layer_forward(fp4moe_layer *layer, const fp4moe_batch *batch, void *workspace,
                                   size_t workspace_bytes) {
  if (!layer || !layer->finished) return fp4moe_fail(FP4MOE_INVALID, "the layer is not finished");
  return fp4moe_layer_forward_plan(layer, fp4moe_layer_plan(layer), batch, workspace,
                                   workspace_bytes);
}

/* ---- Sizes ---- */

size_t fp4moe_plan_workspace_bytes(const fp4moe_layer *layer, const fp4moe_plan *plan,
                                   size_t tokens, size_t top_k, size_t threads, size_t piece) {
  fp4moe_call call = {.layer = layer, .plan = plan, .workers = threads};
  call.batch.tokens = tokens;
  call.batch.top_k = top_k;
  call.form = (fp4moe_call_form){.unreduced = fp4moe_is_linear(&layer->desc), .slots = 1};
  call.x_row_bytes = fp4_row_bytes(plan->act_class, fp4moe_x_columns(&layer->desc));
  call.h_row_bytes = fp4_row_bytes(plan->act_class, layer->desc.intermediate);
  call.cut.runs = fp4moe_plan_runs(plan, layer->desc.hidden, tokens);
  return fp4moe_call_layout(&call, NULL, piece);
}

/* The limits of a call: 0 threads are the context's. */
static fp4moe_status check_limits(const fp4moe_layer *layer, fp4moe_limits *l) {
  if (!layer || !fp4moe_layer_plan(layer))
    return fp4moe_fail(FP4MOE_INVALID, "the layer is not finished");
  size_t most = fp4moe_context_threads(layer->ctx);
  if (!l->threads) l->threads = most;
  if (l->threads > most)
    return fp4moe_fail(FP4MOE_INVALID, "limits.threads is %zu, the context has %zu", l->threads,
                       most);
  if (!l->top_k || l->top_k > 65536 || l->max_tokens > UINT32_MAX / l->top_k)
    return fp4moe_fail(
        FP4MOE_INVALID,
        "limits of %zu tokens x top_k %zu, expected top_k 1..65536 and below 2^32 slots",
        l->max_tokens, l->top_k);
  return FP4MOE_OK;
}

static size_t limit_bytes(const fp4moe_layer *layer, const fp4moe_limits *limits, int least) {
  fp4moe_limits l;
  if (fp4moe_take_struct(&l, sizeof l, limits, "fp4moe_limits") || check_limits(layer, &l))
    return 0;
  const fp4moe_plan *plan = fp4moe_layer_plan(layer);
  size_t largest = 0;
  if (!l.max_tokens) l.max_tokens = 1;
  if (fp4moe_is_linear(&layer->desc) && !least) /* x may have a row per slot */
    l.max_tokens *= l.top_k, l.top_k = 1;
  /* Fewer tokens may have more runs, which change at 8 and at whole token ranges only. */
  for (size_t tokens = 8; l.max_tokens;
       tokens = tokens < FP4MOE_TOKEN_BLOCK ? FP4MOE_TOKEN_BLOCK : tokens + FP4MOE_TOKEN_BLOCK) {
    size_t n = tokens < l.max_tokens ? tokens : l.max_tokens;
    size_t bytes = fp4moe_plan_workspace_bytes(layer, plan, n, l.top_k, l.threads, least ? 1 : n);
    if (bytes > largest) largest = bytes;
    if (n == l.max_tokens) break;
  }
  return largest;
}

size_t fp4moe_workspace_bytes(const fp4moe_layer *layer, const fp4moe_limits *limits) {
  return limit_bytes(layer, limits, 0);
}

size_t fp4moe_workspace_min_bytes(const fp4moe_layer *layer, const fp4moe_limits *limits) {
  return limit_bytes(layer, limits, 1);
}
