/* call.c - what a call is made of: checks, workspace, grouping of rows, units (call.h).
 *
 * All of it runs on the calling thread and is pure but for the workspace, so that a test can ask
 * for the task list of any shape without weights. */
#include <math.h>
#include <string.h>

#include "call.h"
#include "status.h"

/* ---- Arguments ---- */

size_t fp4moe_dtype_bytes(fp4moe_dtype dtype) {
  static const size_t bytes[] = {4, 2, 2, 4, 8};
  return bytes[dtype];
}

static fp4moe_status check_stride(const char *name, size_t *stride, size_t row) {
  if (!*stride) *stride = row;
  if (*stride < row)
    return fp4moe_fail(FP4MOE_INVALID, "%s is %zu, a row has %zu bytes", name, *stride, row);
  return FP4MOE_OK;
}

static fp4moe_status check_batch(const fp4moe_call *c, fp4moe_batch *b) {
  const fp4moe_layer *layer = c->layer;
  int own_form = !c->form.unreduced;
  fp4moe_status s;
  const struct {
    const char *name;
    const void *pointer;
  } wanted[] = {
      {"x", b->x}, {"y", b->y}, {"topk_ids", b->topk_ids}, {"topk_weights", b->topk_weights}};
  for (int i = 0; i < (own_form ? 4 : 0) && b->tokens; i++)
    if (!wanted[i].pointer) return fp4moe_fail(FP4MOE_INVALID, "batch.%s is NULL", wanted[i].name);
  if ((unsigned)b->x_dtype > FP4MOE_BF16 || (unsigned)b->y_dtype > FP4MOE_BF16)
    return fp4moe_fail(FP4MOE_INVALID, "batch.%s is %d, expected F32, F16 or BF16",
                       (unsigned)b->x_dtype > FP4MOE_BF16 ? "x_dtype" : "y_dtype",
                       (int)((unsigned)b->x_dtype > FP4MOE_BF16 ? b->x_dtype : b->y_dtype));
  if (b->ids_dtype != FP4MOE_I32 && b->ids_dtype != FP4MOE_I64)
    return fp4moe_fail(FP4MOE_INVALID, "batch.ids_dtype is %d, expected I32 or I64",
                       (int)b->ids_dtype);
  if (b->stats && b->stats->struct_size < sizeof *b->stats)
    return fp4moe_fail(FP4MOE_INVALID, "stats.struct_size is %zu, expected %zu",
                       b->stats->struct_size, sizeof *b->stats);
  if (!b->top_k || b->top_k > 65536 || b->tokens > UINT32_MAX / b->top_k)
    return fp4moe_fail(
        FP4MOE_INVALID,
        "batch of %zu tokens x top_k %zu, expected top_k 1..65536 and below 2^32 slots", b->tokens,
        b->top_k);
  if (layer->desc.router_weight_on_input && b->top_k != 1 && own_form)
    return fp4moe_fail(FP4MOE_INVALID, "router weight on input needs top_k 1, the batch has %zu",
                       b->top_k);
  if (!own_form) return FP4MOE_OK; /* rows.c has seen to its strides */
  if ((s = check_stride("batch.x_stride", &b->x_stride,
                        layer->desc.hidden * fp4moe_dtype_bytes(b->x_dtype))) ||
      (s = check_stride("batch.y_stride", &b->y_stride,
                        layer->desc.hidden * fp4moe_dtype_bytes(b->y_dtype))) ||
      (s = check_stride("batch.ids_stride", &b->ids_stride,
                        b->top_k * fp4moe_dtype_bytes(b->ids_dtype))))
    return s;
  return check_stride("batch.weights_stride", &b->weights_stride, b->top_k * sizeof(float));
}

static fp4moe_status pick_workers(fp4moe_call *c) {
  const fp4moe_team *team = c->batch.team;
  size_t most = fp4moe_context_threads(c->layer->ctx), threads = c->batch.threads;
  if (team && (team->nth > most || team->ith >= team->nth || !team->barrier))
    return fp4moe_fail(FP4MOE_INVALID, "team: thread %zu of %zu, the context has %zu%s", team->ith,
                       team->nth, most, team->barrier ? "" : ", and no barrier");
  if (team) threads = team->nth;
  if (threads > most)
    return fp4moe_fail(FP4MOE_INVALID, "%s is %zu, the context has %zu", c->form.threads_name,
                       threads, most);
  c->workers = threads ? threads : most;
  c->share = FP4MOE_USUAL_SHARE;
  const fp4moe_schedule *s = fp4moe_plan_schedule(c->plan, c->workers, c->batch.tokens);
  if (s && !team) c->workers = s->workers;
  if (s) c->share = s->share;
  return FP4MOE_OK;
}

fp4moe_status fp4moe_call_init(fp4moe_call *c, const fp4moe_layer *layer, const fp4moe_plan *plan,
                               const fp4moe_batch *batch, const fp4moe_call_form *form) {
  memset(c, 0, sizeof *c);
  c->layer = layer;
  c->plan = plan;
  if (form)
    c->form = *form;
  else
    c->form =
        (fp4moe_call_form){.slots = 1, .ids_name = "topk_ids", .threads_name = "batch.threads"};
  fp4moe_status status = fp4moe_take_struct(&c->batch, sizeof c->batch, batch, "fp4moe_batch");
  if (status || (status = check_batch(c, &c->batch))) return status;
  if ((status = pick_workers(c))) return status;
  if (!form) c->form.id_inner = fp4moe_dtype_bytes(c->batch.ids_dtype);
  c->x_row_bytes = fp4_row_bytes(plan->act_class, fp4moe_x_columns(&layer->desc));
  c->h_row_bytes = fp4_row_bytes(plan->act_class, layer->desc.intermediate);
  c->cut.runs = fp4moe_plan_runs(plan, layer->desc.hidden, c->batch.tokens);
  return FP4MOE_OK;
}

/* ---- Workspace ---- */

static size_t max_size(size_t a, size_t b) { return a > b ? a : b; }

/* Scratch of one worker: unpacked panels, sums, h before it is quantised. */
static void size_scratch(fp4moe_call *c) {
  const fp4moe_shape *s = &c->layer->shape;
  size_t panels = 1, unpacked = 0;
  for (int phase = fp4moe_first_phase(&c->layer->desc); phase < FP4MOE_PHASES; phase++) {
    size_t k = phase == FP4MOE_DOWN ? s->intermediate : s->hidden;
    for (int b = 0; b <= FP4MOE_BUCKETS; b++) {
      const fp4moe_recipe *r =
          b < FP4MOE_BUCKETS ? &c->plan->recipe[phase][b] : &c->plan->wide[phase];
      size_t block = r->k_block && r->k_block < k ? r->k_block : k;
      panels = max_size(panels, r->panels);
      if (!r->gemv)
        unpacked =
            max_size(unpacked, fp4_align(fp4_unpacked_bytes(c->plan->act_class, block, s->group)));
    }
  }
  panels += 2; /* a unit rounds up to whole 32-column groups */
  c->panel_bytes = panels * unpacked;
  c->acc_bytes = FP4MOE_ROW_BLOCK * panels * FP4MOE_PANEL * sizeof(float);
  c->scratch_bytes = c->panel_bytes + 2 * c->acc_bytes +
                     fp4_align(fp4moe_x_columns(&c->layer->desc) * sizeof(float)) + 4096;
}

static int has_groups32(const fp4moe_call *c) {
  return fp4_quant_group(c->plan->quant_class) == 32;
}

/* Few tokens have few units: two of them then may share a 32-column group of h, and the one that
 * ends it last quantises it. Otherwise a unit owns whole groups. */
static int splits_groups(const fp4moe_call *c) {
  return has_groups32(c) && !fp4moe_is_linear(&c->layer->desc) &&
         c->batch.tokens <= FP4MOE_SPLIT_TOKENS;
}

/* Takes an aligned part of the workspace; base NULL: counts. */
static void *take(uint8_t *base, size_t *used, size_t bytes) {
  size_t at = *used;
  *used = at + fp4_align(bytes);
  return base ? base + at : NULL;
}

static size_t layout_h(fp4moe_call *c, uint8_t *start, size_t used, size_t rows, size_t most) {
  size_t i = c->layer->desc.intermediate;
  c->h = take(start, &used, rows * c->h_row_bytes);
  if (splits_groups(c) || fp4moe_call_dynamic(c))
    c->h_wide = take(start, &used, rows * i * sizeof *c->h_wide);
  if (fp4moe_call_dynamic(c)) c->h_scale = take(start, &used, rows * sizeof *c->h_scale);
  if (splits_groups(c))
    c->group_done = take(start, &used, most * fp4_blocks32(i) * sizeof *c->group_done);
  return used;
}

size_t fp4moe_call_layout(fp4moe_call *c, uint8_t *base, size_t piece) {
  size_t experts = c->layer->desc.experts, rows = piece * c->batch.top_k;
  size_t slots = c->batch.tokens * c->batch.top_k;
  size_t most = experts < slots ? experts : slots;
  size_t ranges = (piece + FP4MOE_TOKEN_BLOCK - 1) / FP4MOE_TOKEN_BLOCK;
  uint8_t *start = base ? (uint8_t *)fp4_align((size_t)base) : NULL;
  size_t used = 0;
  size_scratch(c);
  c->piece = piece;
  c->partial_stride = c->layer->desc.hidden + FP4MOE_PANEL;
  c->published = take(start, &used, sizeof *c->published);
  c->phase = take(start, &used, FP4MOE_CALL_PHASES * sizeof *c->phase);
  c->notice = take(start, &used, sizeof *c->notice);
  c->total = take(start, &used, experts * sizeof *c->total);
  c->cursor = take(start, &used, experts * sizeof *c->cursor);
  c->offsets = take(start, &used, (experts + 1) * sizeof *c->offsets);
  c->active = take(start, &used, most * sizeof *c->active);
  c->order = take(start, &used, most * sizeof *c->order);
  c->block_first = take(start, &used, (most + 1) * sizeof *c->block_first);
  c->row_token = take(start, &used, rows * sizeof *c->row_token);
  c->row_weight = take(start, &used, rows * sizeof *c->row_weight);
  c->x_row = take(start, &used, rows * sizeof *c->x_row);
  c->h_row = take(start, &used, rows * sizeof *c->h_row);
  c->y_row = take(start, &used, rows * sizeof *c->y_row);
  c->x = take(start, &used, (fp4moe_call_x_by_row(c) ? rows : piece) * c->x_row_bytes);
  if (fp4moe_call_dynamic(c)) c->x_scale = take(start, &used, piece * sizeof *c->x_scale);
  if (!fp4moe_is_linear(&c->layer->desc)) used = layout_h(c, start, used, rows, most);
  if (!c->form.unreduced) {
    c->done = take(start, &used, ranges * c->layer->shape.panels2 * sizeof *c->done);
    c->partial = take(start, &used, c->cut.runs * piece * c->partial_stride * sizeof(float));
  }
  c->scratch = take(start, &used, c->workers * c->scratch_bytes);
  return used + FP4MOE_ALIGN;
}

/* ---- Ids ---- */

/* By expert: the one whose range holds the row. */
static int64_t expert_of_row(const fp4moe_call *c, size_t row) {
  size_t lo = 0, hi = c->layer->desc.experts;
  while (hi - lo > 1) {
    size_t mid = (lo + hi) / 2;
    if (c->offsets[mid] <= (int64_t)row)
      lo = mid;
    else
      hi = mid;
  }
  return (int64_t)lo;
}

static int64_t id_at(const fp4moe_call *c, size_t token, size_t slot) {
  size_t slots = c->form.slots;
  const uint8_t *at = (const uint8_t *)c->batch.topk_ids + token / slots * c->batch.ids_stride +
                      (token % slots + slot) * c->form.id_inner;
  int32_t id32;
  int64_t id64;
  if (c->batch.ids_dtype == FP4MOE_I64) {
    memcpy(&id64, at, sizeof id64);
    return id64;
  }
  memcpy(&id32, at, sizeof id32);
  return id32;
}

int64_t fp4moe_call_expert(const fp4moe_call *c, size_t token, size_t slot) {
  if (fp4moe_call_by_expert(c)) return expert_of_row(c, token);
  int64_t id = id_at(c, token, slot);
  return id >= 0 && c->batch.expert_map ? c->batch.expert_map[id] : id;
}

float fp4moe_call_weight(const fp4moe_call *c, size_t token, size_t slot) {
  float w;
  if (c->form.unreduced) return 1;
  memcpy(&w, (const uint8_t *)c->batch.topk_weights + token * c->batch.weights_stride + 4 * slot,
         sizeof w);
  return w;
}

/* Bytes to row (token, slot), or by expert to the row of the block. */
static size_t row_at(const fp4moe_call *c, size_t token, size_t slot, size_t outer, size_t inner) {
  size_t slots = c->form.slots;
  if (!c->form.counts) return token / slots * outer + (token % slots + slot) * inner;
  size_t e = (size_t)expert_of_row(c, token);
  return e * outer + (token - (size_t)c->offsets[e]) * inner;
}

const void *fp4moe_call_x(const fp4moe_call *c, size_t token) {
  return (const uint8_t *)c->batch.x + row_at(c, token, 0, c->batch.x_stride, c->form.x_inner);
}

void *fp4moe_call_y(const fp4moe_call *c, size_t token, size_t slot) {
  return (uint8_t *)c->batch.y + row_at(c, token, slot, c->batch.y_stride, c->form.y_inner);
}

fp4moe_status fp4moe_call_check_id(const fp4moe_call *c, size_t token, size_t slot) {
  const fp4moe_batch *b = &c->batch;
  size_t experts = c->layer->desc.experts, ids = b->expert_map ? b->expert_map_count : experts;
  int64_t id = id_at(c, token, slot);
  if (id < -1 || (id >= 0 && (uint64_t)id >= ids))
    return fp4moe_fail(FP4MOE_INVALID, "%s[%zu][%zu] is %lld, expected -1..%zu", c->form.ids_name,
                       token / c->form.slots, token % c->form.slots + slot, (long long)id, ids - 1);
  if (id < 0 || !b->expert_map) return FP4MOE_OK;
  int32_t e = b->expert_map[id];
  if (e < -1 || (e >= 0 && (size_t)e >= experts))
    return fp4moe_fail(FP4MOE_INVALID, "expert_map[%lld] is %d, expected -1..%zu", (long long)id, e,
                       experts - 1);
  return FP4MOE_OK;
}

/* ---- Grouping ---- */

/* With one run there are H/16 units of a token range, too few for a large machine. Runs cost memory
 * traffic with the tokens, so many tokens have fewer. Depends on the shape and the tokens only. */
size_t fp4moe_cut_runs(size_t hidden, size_t tokens) {
  size_t wanted = tokens <= 128 ? 1024 : 640;
  size_t units = fp4_panels(hidden) * ((tokens + FP4MOE_TOKEN_BLOCK - 1) / FP4MOE_TOKEN_BLOCK);
  size_t runs = units ? (wanted + units - 1) / units : 1;
  return runs < 1 ? 1 : runs > FP4MOE_MAX_RUNS ? FP4MOE_MAX_RUNS : runs;
}

size_t fp4moe_plan_runs(const fp4moe_plan *plan, size_t hidden, size_t tokens) {
  return plan->batch_invariant ? 1 : fp4moe_cut_runs(hidden, tokens);
}

/* Time of a segment in arbitrary units: bytes below four rows, dots above. */
static double row_cost(size_t rows) { return rows < 4 ? 4 : (double)rows; }

enum { FEW_UNITS = 640 }; /* too few for the workers of a large machine */

/* Few experts of few rows. More rows take up to half as long again in pieces of K, which is more
 * than such workers would gain. */
static int worth_cutting(const fp4moe_call *c) {
  for (size_t a = 0; a < c->actives; a++)
    if (c->active[a].total >= 4) return 0;
  return c->actives * c->layer->shape.panels2 < FEW_UNITS && c->actives < c->cut.runs &&
         c->plan->act_class != FP4MOE_ACT_I8;
}

/* Segments: active experts ascending, each in k_parts; cut into runs of about equal cost. Where
 * there is one run only, none is cut along K. */
static void cut_runs(fp4moe_call *c) {
  fp4moe_cut *cut = &c->cut;
  size_t i = 0, parts = 1;
  double all = 0, sum = 0, run_cost[FP4MOE_MAX_RUNS];
  size_t k = c->layer->shape.intermediate;
  if (worth_cutting(c)) {
    size_t units = c->actives * c->layer->shape.panels2;
    parts = (FEW_UNITS + units - 1) / units;
    while (parts > 1 && k / parts < 512) parts--;
  }
  cut->k_parts = parts;
  if (cut->runs > c->actives * parts) cut->runs = c->actives * parts;
  if (cut->runs < 1) cut->runs = 1;
  for (size_t a = 0; a < c->actives; a++) all += row_cost(c->active[a].total) * (double)parts;
  for (size_t r = 0; r < cut->runs; r++) {
    double target = all * (double)(r + 1) / (double)cut->runs, start = sum;
    size_t left = cut->runs - r - 1; /* runs that still want a segment */
    cut->run_first[r] = (uint32_t)i;
    do sum += row_cost(c->active[i / parts].total);
    while (++i + left < c->actives * parts &&
           (!left || sum + 0.5 * row_cost(c->active[i / parts].total) <= target));
    run_cost[r] = sum - start;
    size_t at = r;
    for (; at && run_cost[cut->run_order[at - 1]] < run_cost[r]; at--)
      cut->run_order[at] = cut->run_order[at - 1];
    cut->run_order[at] = (uint8_t)r;
  }
  cut->run_first[cut->runs] = (uint32_t)(c->actives * parts);
  cut->even_runs = all / run_cost[cut->run_order[0]];
}

static void copy_offsets(const fp4moe_call *c) {
  c->offsets[0] = 0;
  for (size_t e = 0; e < c->layer->desc.experts; e++)
    c->offsets[e + 1] =
        c->form.offsets ? c->form.offsets[e + 1] : c->offsets[e] + c->form.counts[e];
}

fp4moe_status fp4moe_call_count(fp4moe_call *c) {
  size_t experts = c->layer->desc.experts;
  memset(c->total, 0, experts * sizeof *c->total);
  if (fp4moe_call_by_expert(c)) copy_offsets(c);
  for (size_t t = 0; t < c->batch.tokens; t++)
    for (size_t s = 0; s < c->batch.top_k; s++) {
      fp4moe_status status = fp4moe_call_by_expert(c) ? FP4MOE_OK : fp4moe_call_check_id(c, t, s);
      if (status) return status;
      int64_t e = fp4moe_call_expert(c, t, s);
      if (e >= 0) c->total[e]++;
    }
  c->actives = 0;
  for (size_t e = 0; e < experts; e++) {
    if (!c->total[e]) continue;
    fp4moe_active *a = &c->active[c->actives++];
    const fp4moe_record *record = (const void *)fp4moe_layer_record(c->layer, 0, e);
    a->globals = fp4moe_layer_globals(c->layer, e);
    a->expert = (uint32_t)e;
    a->total = c->total[e];
    for (int p = 0; p < FP4MOE_PHASES; p++)
      a->recipe[p] = fp4moe_plan_recipe(c->plan, record, p, a->total);
  }
  if (c->actives && !c->form.unreduced) cut_runs(c);
  return FP4MOE_OK;
}

static void place_rows(fp4moe_call *c) {
  for (size_t t = 0; t < c->tokens; t++)
    for (size_t s = 0; s < c->batch.top_k; s++) {
      int64_t e = fp4moe_call_expert(c, c->token0 + t, s);
      if (e < 0) continue;
      uint32_t row = c->cursor[e]++;
      float w = fp4moe_call_weight(c, c->token0 + t, s);
      c->row_token[row] = (uint32_t)t;
      c->row_weight[row] = c->layer->desc.router_weight_on_input ? 1 : w;
      c->x_row[row] = c->x + (fp4moe_call_x_by_row(c) ? row : t) * c->x_row_bytes;
      if (c->h) c->h_row[row] = c->h + row * c->h_row_bytes;
      if (c->form.unreduced) c->y_row[row] = fp4moe_call_y(c, c->token0 + t, s);
    }
}

static size_t phase_panels(const fp4moe_call *c, int phase) {
  return phase == FP4MOE_DOWN ? c->layer->shape.panels2 : c->layer->shape.panels13;
}

/* Panels of a unit that has rows of one expert. */
static size_t unit_panels(const fp4moe_call *c, int phase) {
  size_t pair = c->layer->shape.gated ? 2 : 1;
  if (phase == FP4MOE_DOWN) return 1;
  return has_groups32(c) && !splits_groups(c) ? 2 * pair : pair;
}

/* Such units of a row block. */
static size_t block_units(const fp4moe_call *c, int phase) {
  return (phase_panels(c, phase) + unit_panels(c, phase) - 1) / unit_panels(c, phase);
}

static size_t row_blocks(const fp4moe_active *a) {
  return (a->rows + FP4MOE_ROW_BLOCK - 1) / FP4MOE_ROW_BLOCK;
}

/* Rows of an expert's row block that cost time. */
static size_t unit_rows(const fp4moe_active *a) {
  size_t blocks = row_blocks(a);
  return blocks ? (size_t)row_cost((a->rows + blocks - 1) / blocks) : 0;
}

/* Two steps to a power of two: 0, 2, 4, 5, 6, 7, ... rising with size. */
static int log_step(size_t size) {
  int bits = 0;
  while (size >> bits > 3) bits++;
  return 2 * bits + (int)(size >> bits);
}

/* Phase 1 takes dear units first: a stable counting sort of experts by log_step of their units. */
static void order_experts(fp4moe_call *c) {
  enum { STEPS = 64 };
  uint32_t at[STEPS] = {0};
  for (size_t i = 0; i < c->actives; i++) at[STEPS - 1 - log_step(unit_rows(&c->active[i]))]++;
  for (uint32_t b = 0, sum = 0; b < STEPS; b++) {
    uint32_t n = at[b];
    at[b] = sum;
    sum += n;
  }
  for (size_t i = 0; i < c->actives; i++)
    c->order[at[STEPS - 1 - log_step(unit_rows(&c->active[i]))]++] = (uint32_t)i;
  size_t blocks = 0;
  for (size_t i = 0; i < c->actives; i++) {
    c->block_first[i] = blocks;
    blocks += row_blocks(&c->active[c->order[i]]);
  }
  c->block_first[c->actives] = blocks;
}

void fp4moe_call_group(fp4moe_call *c, size_t token0, size_t tokens) {
  uint32_t first = 0, most = 0;
  c->token0 = token0;
  c->tokens = tokens;
  memset(c->cursor, 0, c->layer->desc.experts * sizeof *c->cursor);
  for (size_t t = 0; t < tokens; t++)
    for (size_t s = 0; s < c->batch.top_k; s++) {
      int64_t e = fp4moe_call_expert(c, token0 + t, s);
      if (e >= 0) c->cursor[e]++;
    }
  c->cut.panels = 1;
  for (size_t i = 0; i < c->actives; i++) {
    fp4moe_active *a = &c->active[i];
    a->rows = c->cursor[a->expert];
    a->first = first;
    c->cursor[a->expert] = first;
    first += a->rows;
    if (a->total > most) {
      most = a->total;
      c->cut.panels = a->recipe[FP4MOE_DOWN]->panels;
    }
  }
  c->rows = first;
  place_rows(c);
  order_experts(c);
  c->cut.ranges = (tokens + FP4MOE_TOKEN_BLOCK - 1) / FP4MOE_TOKEN_BLOCK;
  c->cut.range = (tokens + c->cut.ranges - 1) / c->cut.ranges;
  size_t ends = c->form.unreduced ? 0 : c->cut.ranges * c->layer->shape.panels2;
  for (size_t i = 0; i < ends; i++) atomic_init(&c->done[i], 0);
  size_t groups = splits_groups(c) ? fp4_blocks32(c->layer->desc.intermediate) : 0;
  for (size_t i = 0; i < c->actives * groups; i++) atomic_init(&c->group_done[i], 0);
}

/* ---- Units ---- */

/* Do the phase's units have rows of one expert? */
static int by_blocks(const fp4moe_call *c, int phase) {
  return phase == FP4MOE_GATE_UP || c->form.unreduced;
}

/* The first panel of a shard; of the one after the last, the layer's end. */
static size_t shard_panel(const fp4moe_call *c, int phase, size_t shard) {
  const fp4moe_shard *s = &c->layer->shard[shard];
  if (shard == c->layer->shards) return phase_panels(c, phase);
  return phase == FP4MOE_DOWN ? s->first2 : s->first13;
}

/* The same in units: shards begin at whole ones. */
static size_t shard_group(const fp4moe_call *c, int phase, size_t shard) {
  size_t width = unit_panels(c, phase);
  return (shard_panel(c, phase, shard) + width - 1) / width;
}

size_t fp4moe_call_first_unit(const fp4moe_call *c, int phase, size_t shard) {
  size_t passes = by_blocks(c, phase) ? c->block_first[c->actives] : c->cut.runs * c->cut.ranges;
  return passes * shard_group(c, phase, shard);
}

size_t fp4moe_call_units(const fp4moe_call *c, int phase) {
  return fp4moe_call_first_unit(c, phase, c->layer->shards);
}

static size_t shard_of(const fp4moe_call *c, int phase, size_t unit) {
  size_t s = 0;
  while (s + 1 < c->layer->shards && fp4moe_call_first_unit(c, phase, s + 1) <= unit) s++;
  return s;
}

static size_t min_size(size_t a, size_t b) { return a < b ? a : b; }

size_t fp4moe_call_unit1(const fp4moe_call *c, int phase, size_t unit, size_t n, fp4moe_unit1 *u) {
  size_t s = shard_of(c, phase, unit), width = unit_panels(c, phase);
  size_t all = shard_group(c, phase, s + 1) - shard_group(c, phase, s);
  unit -= fp4moe_call_first_unit(c, phase, s);
  size_t block = unit / all, first = unit % all, lo = 0, hi = c->actives;
  while (hi - lo > 1) {
    size_t mid = (lo + hi) / 2;
    if (c->block_first[mid] <= block)
      lo = mid;
    else
      hi = mid;
  }
  const fp4moe_active *a = &c->active[c->order[lo]];
  size_t blocks = row_blocks(a), b = block - c->block_first[lo];
  size_t from = a->rows * b / blocks, to = a->rows * (b + 1) / blocks;
  size_t most = (a->recipe[phase]->panels + width - 1) / width;
  size_t done = min_size(min_size(n, most), all - first);
  size_t panel = shard_panel(c, phase, s) + first * width;
  *u = (fp4moe_unit1){.active = a,
                      .shard = &c->layer->shard[s],
                      .row = a->first + from,
                      .rows = to - from,
                      .panel = panel,
                      .panels = min_size(done * width, shard_panel(c, phase, s + 1) - panel)};
  return done;
}

size_t fp4moe_call_unit2(const fp4moe_call *c, size_t unit, size_t n, fp4moe_unit2 *u) {
  const fp4moe_cut *cut = &c->cut;
  size_t s = shard_of(c, FP4MOE_DOWN, unit), all = c->layer->shard[s].shape.panels2;
  unit -= fp4moe_call_first_unit(c, FP4MOE_DOWN, s);
  size_t panel = unit % all, rest = unit / all;
  size_t done = min_size(min_size(n, cut->panels), all - panel);
  *u = (fp4moe_unit2){.shard = &c->layer->shard[s],
                      .run = cut->run_order[rest / cut->ranges],
                      .range = rest % cut->ranges,
                      .panel = c->layer->shard[s].first2 + panel,
                      .panels = done};
  u->token = u->range * cut->range;
  u->tokens = min_size(c->tokens - u->token, cut->range);
  return done;
}

/* First row of [first, first + rows) whose token is not below `token`. */
static size_t lower_row(const fp4moe_call *c, const fp4moe_active *a, size_t token) {
  size_t lo = a->first, hi = a->first + (size_t)a->rows;
  while (lo < hi) {
    size_t mid = (lo + hi) / 2;
    if (c->row_token[mid] < token)
      lo = mid + 1;
    else
      hi = mid;
  }
  return lo;
}

void fp4moe_active_rows(const fp4moe_call *c, const fp4moe_active *a, size_t token, size_t tokens,
                        size_t *first, size_t *count) {
  *first = lower_row(c, a, token);
  *count = lower_row(c, a, token + tokens) - *first;
}

size_t fp4moe_call_most(const fp4moe_call *c, int phase) {
  size_t units = fp4moe_call_units(c, phase), all = 0, dearest = 1;
  for (size_t i = 0; i < c->actives; i++) {
    all += unit_rows(&c->active[i]) * row_blocks(&c->active[i]) * block_units(c, phase);
    if (unit_rows(&c->active[i]) > dearest) dearest = unit_rows(&c->active[i]);
  }
  double even = by_blocks(c, phase)
                    ? (double)all / (double)dearest
                    : c->cut.even_runs * (double)(units / c->cut.runs); /* units of the dearest */
  size_t most = (size_t)(even / (double)(c->share * c->workers));
  return most < 1 ? 1 : min_size(most, units);
}

double fp4moe_unit_cost(const fp4moe_call *c, int phase, size_t unit) {
  size_t k = phase == FP4MOE_GATE_UP ? c->layer->shape.hidden : c->layer->shape.intermediate;
  double rows = 0;
  fp4moe_unit1 u1;
  fp4moe_unit2 u2;
  if (by_blocks(c, phase)) {
    fp4moe_call_unit1(c, phase, unit, 1, &u1);
    return row_cost(u1.rows) * (double)(u1.panels * k);
  }
  fp4moe_call_unit2(c, unit, 1, &u2);
  for (size_t s = c->cut.run_first[u2.run]; s < c->cut.run_first[u2.run + 1]; s++) {
    size_t first, count;
    fp4moe_active_rows(c, &c->active[s / c->cut.k_parts], u2.token, u2.tokens, &first, &count);
    if (count) rows += row_cost(count) / (double)c->cut.k_parts;
  }
  return rows * (double)k;
}
