/* tune.c - the tuner's measurement (tune.h).
 *
 * A call of m tokens routed to the same A experts gives each of them exactly m rows, so one forward
 * call times one candidate of each phase in the bucket of m: stats.phase1_ns and phase2_ns. The A
 * experts move on from call to call; an expert comes back after several last-level caches of other
 * weights. Candidates are measured in interleaved rounds: a first screening keeps those within
 * SCREEN of the best, the rest race to a median. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grid.h"
#include "layer.h"
#include "cli/layerfill.h"
#include "measure.h"
#include "tune.h"

enum { SCREEN_ROUNDS = 2, QUICK_ROUNDS = 5, FULL_ROUNDS = 11, CACHES = 4, VERIFY_ROWS = 9 };
static const double SCREEN = 1.3;

typedef struct candidate {
  fp4moe_recipe recipe;
  double ns[SCREEN_ROUNDS + FULL_ROUNDS];
  size_t samples;
  int out; /* banned, or dropped by the screening */
} candidate;

typedef struct race {
  candidate runners[GRID_MAX];
  size_t count;
} race;

typedef struct bench_layer {
  fp4moe_context *context;
  const problem *problem;
  fp4moe_layer *layer;
  fp4moe_selector selector;
  fp4moe_plan plan;
  size_t active, next; /* experts of a call; where the next call starts */
  uint16_t *x, *y;
  int32_t *ids;
  float *weights;
  void *workspace;
  size_t workspace_bytes;
} bench_layer;

/* ---- Calls ---- */

static size_t most_tokens(void) { return fp4moe_bucket_rows(FP4MOE_BUCKETS - 1); }

/* Enough experts that a round over them leaves the caches, within the problem's own. */
static void open_layer(bench_layer *b, fp4moe_context *context, const problem *p, problem *sized) {
  size_t caches = CACHES * context->host.llc_bytes;
  fp4moe_layer_desc desc = problem_desc(p);
  fp4moe_shape shape;
  fp4moe_shape_of(&desc, &shape);
  *sized = *p;
  size_t enough = 2 * caches / shape.bytes + 8;
  if (sized->shape.experts > enough) sized->shape.experts = enough;
  *b = (bench_layer){.context = context, .problem = sized};
  b->active = p->shape.top_k < sized->shape.experts ? p->shape.top_k : sized->shape.experts;
  b->layer = random_layer(context, sized, 1);
  b->selector = (fp4moe_selector){&context->host, &context->request, NULL};
  desc = problem_desc(sized);
  require(fp4moe_select(&b->selector, &desc, &b->plan), p->name);
  size_t tokens = most_tokens(), slots = tokens * b->active, h = desc.hidden;
  measure_rng rng = {1};
  b->x = allocate(tokens * h, sizeof *b->x);
  b->y = allocate(tokens * h, sizeof *b->y);
  b->ids = allocate(slots, sizeof *b->ids);
  b->weights = allocate(slots, sizeof *b->weights);
  measure_random_bf16(&rng, b->x, tokens * h);
  for (size_t i = 0; i < slots; i++) b->weights[i] = 1.0f / (float)b->active;
}

static void close_layer(bench_layer *b) {
  fp4moe_layer_destroy(b->layer);
  free(b->x);
  free(b->y);
  free(b->ids);
  free(b->weights);
  free(b->workspace);
}

/* The next call: `tokens` tokens, all to the next `active` experts. */
static fp4moe_batch next_batch(bench_layer *b, size_t tokens, fp4moe_stats *stats) {
  size_t experts = b->layer->desc.experts;
  for (size_t t = 0; t < tokens; t++)
    for (size_t s = 0; s < b->active; s++)
      b->ids[t * b->active + s] = (int32_t)((b->next + s) % experts);
  b->next = (b->next + b->active) % experts;
  return (fp4moe_batch){.struct_size = sizeof(fp4moe_batch),
                        .tokens = tokens,
                        .top_k = b->active,
                        .x = b->x,
                        .x_dtype = FP4MOE_BF16,
                        .y = b->y,
                        .y_dtype = FP4MOE_BF16,
                        .topk_ids = b->ids,
                        .ids_dtype = FP4MOE_I32,
                        .topk_weights = b->weights,
                        .stats = stats};
}

static fp4moe_stats call(bench_layer *b, size_t tokens) {
  fp4moe_stats stats = {.struct_size = sizeof stats};
  fp4moe_batch batch = next_batch(b, tokens, &stats);
  size_t threads = fp4moe_context_threads(b->context);
  size_t bytes =
      fp4moe_plan_workspace_bytes(b->layer, &b->plan, tokens, b->active, threads, tokens);
  if (bytes > b->workspace_bytes) {
    free(b->workspace);
    b->workspace = allocate_workspace(bytes);
    b->workspace_bytes = bytes;
  }
  require(fp4moe_layer_forward_plan(b->layer, &b->plan, &batch, b->workspace, b->workspace_bytes),
          b->problem->name);
  return stats;
}

/* ---- Verification ---- */

/* Largest relative error of the class against its C rows; class int8 has one result. */
static double class_bound(fp4moe_precision precision) {
  static const double bounds[] = {
      [FP4MOE_PRECISION_F32] = 1e-5, [FP4MOE_PRECISION_BF16] = 1e-3, [FP4MOE_PRECISION_INT8] = 0};
  return bounds[precision];
}

typedef struct proof {
  float *want, *got;
  size_t floats;
} proof;

static fp4moe_batch proof_batch(bench_layer *b, float *y) {
  fp4moe_batch batch = next_batch(b, VERIFY_ROWS, NULL);
  batch.top_k = 1; /* the first expert's rows only */
  batch.ids_stride = b->active * sizeof *b->ids;
  batch.weights_stride = b->active * sizeof *b->weights;
  batch.y = y;
  batch.y_dtype = FP4MOE_F32;
  return batch;
}

static proof make_proof(bench_layer *b) {
  proof p = {.floats = VERIFY_ROWS * b->layer->desc.hidden};
  p.want = allocate(p.floats, sizeof *p.want);
  p.got = allocate(p.floats, sizeof *p.got);
  b->next = 0;
  fp4moe_batch batch = proof_batch(b, p.want);
  require(fp4moe_layer_forward_c(b->layer, b->problem->precision, &batch), "C rows");
  return p;
}

/* Does a recipe give the C rows' result for expert 0? It serves every bucket for the while. */
static int holds(bench_layer *b, proof *p, int phase, const fp4moe_recipe *recipe) {
  fp4moe_plan plan = b->plan;
  for (int i = 0; i < FP4MOE_BUCKETS; i++) plan.recipe[phase][i] = *recipe;
  size_t threads = fp4moe_context_threads(b->context);
  size_t bytes = fp4moe_plan_workspace_bytes(b->layer, &plan, VERIFY_ROWS, 1, threads, VERIFY_ROWS);
  void *workspace = allocate(bytes, 1);
  b->next = 0;
  fp4moe_batch batch = proof_batch(b, p->got);
  fp4moe_status status = fp4moe_layer_forward_plan(b->layer, &plan, &batch, workspace, bytes);
  free(workspace);
  double d = 0, n = 0;
  for (size_t i = 0; i < p->floats; i++) {
    d += pow((double)p->got[i] - (double)p->want[i], 2);
    n += pow((double)p->want[i], 2);
  }
  return !status && sqrt(d / n) <= class_bound(b->problem->precision);
}

/* ---- Races ---- */

static void sample(bench_layer *b, race races[FP4MOE_PHASES], int bucket, size_t turn) {
  candidate *at[FP4MOE_PHASES];
  for (int phase = 0; phase < FP4MOE_PHASES; phase++) {
    race *r = &races[phase];
    size_t i = turn % r->count;
    while (r->runners[i].out) i = (i + 1) % r->count;
    at[phase] = &r->runners[i];
    b->plan.recipe[phase][bucket] = at[phase]->recipe;
  }
  fp4moe_stats stats = call(b, fp4moe_bucket_rows(bucket));
  uint64_t ns[FP4MOE_PHASES] = {stats.phase1_ns, stats.phase2_ns};
  for (int phase = 0; phase < FP4MOE_PHASES; phase++)
    if (at[phase]->samples < SCREEN_ROUNDS + FULL_ROUNDS)
      at[phase]->ns[at[phase]->samples++] = (double)ns[phase];
}

/* Rounds over all runners of both phases; the shorter list goes round more often. */
static void run_rounds(bench_layer *b, race races[FP4MOE_PHASES], int bucket, size_t rounds) {
  size_t longest = races[0].count > races[1].count ? races[0].count : races[1].count;
  for (size_t round = 0; round < rounds; round++)
    for (size_t turn = 0; turn < longest; turn++)
      sample(b, races, bucket, turn + round); /* pairs change from round to round */
}

static double best_of(const candidate *c) {
  double best = INFINITY;
  for (size_t i = 0; i < c->samples; i++) best = fmin(best, c->ns[i]);
  return best;
}

static void screen(race *r) {
  double best = INFINITY;
  for (size_t i = 0; i < r->count; i++) best = fmin(best, best_of(&r->runners[i]));
  for (size_t i = 0; i < r->count; i++)
    r->runners[i].out |= best_of(&r->runners[i]) > SCREEN * best;
}

static void *room(void *items, size_t count, size_t *cap, size_t size) {
  if (count < *cap) return items;
  *cap = *cap ? 2 * *cap : 256;
  items = realloc(items, *cap * size);
  if (!items) die("no memory for table entries");
  return items;
}

static void add_recipe(tune_result *result, const fp4moe_recipe_entry *e) {
  fp4moe_table *t = &result->table;
  t->recipe = room(t->recipe, t->recipes, &result->recipe_cap, sizeof *e);
  t->recipe[t->recipes++] = *e;
}

static void keep(const bench_layer *b, const race *r, int phase, int bucket, tune_result *result) {
  const fp4moe_layer_desc *d = &b->layer->desc;
  for (size_t i = 0; i < r->count; i++) {
    const candidate *c = &r->runners[i];
    double copy[SCREEN_ROUNDS + FULL_ROUNDS];
    if (c->out || !c->samples) continue;
    memcpy(copy, c->ns, c->samples * sizeof *copy);
    fp4moe_recipe_entry e = {.phase = phase,
                             .format = (int)d->format,
                             .act = (int)fp4moe_act_class_of(d->precision),
                             .gated = d->activation.gated,
                             .bucket = bucket,
                             .cores = b->context->host.allowed_cores,
                             .ns = (uint64_t)measure_summarise(copy, c->samples).median,
                             .recipe = c->recipe};
    fp4moe_phase_shape(d, phase, &e.n, &e.k);
    add_recipe(result, &e);
  }
}

static void enter(bench_layer *b, race *r, int phase, int bucket, int quick, proof *p,
                  tune_result *result) {
  fp4moe_recipe recipes[GRID_MAX];
  size_t n = grid_recipes(&b->selector, &b->layer->desc, phase, bucket, quick, recipes);
  memset(r, 0, sizeof *r);
  for (size_t i = 0; i < n; i++) {
    result->candidates++;
    if (holds(b, p, phase, &recipes[i]))
      r->runners[r->count++].recipe = recipes[i];
    else
      result->banned++;
  }
  if (!r->count) die("%s: no candidate gives the C rows' result", b->problem->name);
}

static void tune_bucket(bench_layer *b, int bucket, int quick, proof *p, tune_result *result) {
  race *races = allocate(FP4MOE_PHASES, sizeof *races);
  for (int phase = 0; phase < FP4MOE_PHASES; phase++)
    enter(b, &races[phase], phase, bucket, quick, p, result);
  run_rounds(b, races, bucket, SCREEN_ROUNDS);
  for (int phase = 0; phase < FP4MOE_PHASES; phase++) screen(&races[phase]);
  run_rounds(b, races, bucket, quick ? QUICK_ROUNDS : FULL_ROUNDS);
  for (int phase = 0; phase < FP4MOE_PHASES; phase++) keep(b, &races[phase], phase, bucket, result);
  free(races);
}

/* ---- Schedules ---- */

static const uint32_t shares[] = {2, 1, 4, 16};
enum { SHARES = sizeof shares / sizeof *shares };

/* How long the runs of units are that workers take; the best is an entry where it is not first. */
static void tune_schedule(bench_layer *b, int bucket, int quick, tune_result *result) {
  enum { MOST = 2 * FULL_ROUNDS };
  double ns[SHARES][MOST], median[SHARES];
  size_t rounds = quick ? QUICK_ROUNDS : FULL_ROUNDS, best = 0;
  uint32_t threads = (uint32_t)fp4moe_context_threads(b->context);
  fp4moe_schedule s = {(uint32_t)bucket, threads, threads, 0};
  b->plan.schedules = 1;
  for (size_t round = 0; round < rounds; round++)
    for (size_t i = 0; i < SHARES; i++) {
      s.share = shares[i];
      b->plan.schedule[0] = s;
      fp4moe_stats stats = call(b, fp4moe_bucket_rows(bucket));
      ns[i][round] = (double)(stats.phase1_ns + stats.phase2_ns);
    }
  b->plan.schedules = 0;
  for (size_t i = 0; i < SHARES; i++) {
    median[i] = measure_summarise(ns[i], rounds).median;
    if (median[i] < median[best]) best = i;
  }
  s.share = shares[best];
  const fp4moe_layer_desc *d = &b->layer->desc;
  fp4moe_schedule_entry e = {(int)d->format,
                             (int)fp4moe_act_class_of(d->precision),
                             d->hidden,
                             d->intermediate,
                             (uint64_t)median[best],
                             s};
  fp4moe_table *t = &result->table;
  t->schedule = room(t->schedule, t->schedules, &result->schedule_cap, sizeof e);
  t->schedule[t->schedules++] = e;
}

/* ---- A problem ---- */

/* The plan as the table so far makes it, for what comes after. */
static void take_best(bench_layer *b, tune_result *result) {
  b->selector.table = &result->table;
  fp4moe_table_sort(&result->table);
  require(fp4moe_select(&b->selector, &b->layer->desc, &b->plan), b->problem->name);
  b->selector.table = NULL;
  b->plan.schedules = 0;
}

void tune_problem(fp4moe_context *context, const problem *p, int quick, tune_result *result) {
  problem sized;
  bench_layer b;
  open_layer(&b, context, p, &sized);
  proof proof = make_proof(&b);
  for (int bucket = 0; bucket < FP4MOE_BUCKETS; bucket++) {
    progress(p->name, (size_t)bucket, 2 * FP4MOE_BUCKETS);
    tune_bucket(&b, bucket, quick, &proof, result);
  }
  take_best(&b, result);
  for (int bucket = 0; bucket < FP4MOE_BUCKETS; bucket++) {
    progress(p->name, (size_t)(FP4MOE_BUCKETS + bucket), 2 * FP4MOE_BUCKETS);
    tune_schedule(&b, bucket, quick, result);
  }
  progress_clear();
  free(proof.want);
  free(proof.got);
  close_layer(&b);
}

/* ---- Merging ---- */

static int same_key(const fp4moe_recipe_entry *a, const fp4moe_recipe_entry *b) {
  return a->phase == b->phase && a->format == b->format && a->act == b->act &&
         a->gated == b->gated && a->bucket == b->bucket && a->n == b->n && a->k == b->k &&
         a->cores == b->cores;
}

static int same_schedule(const fp4moe_schedule_entry *a, const fp4moe_schedule_entry *b) {
  return a->format == b->format && a->act == b->act && a->hidden == b->hidden &&
         a->intermediate == b->intermediate && a->schedule.bucket == b->schedule.bucket &&
         a->schedule.threads == b->schedule.threads;
}

void tune_merge(tune_result *result, const fp4moe_table *old) {
  fp4moe_table *t = &result->table;
  size_t recipes = t->recipes, schedules = t->schedules;
  for (size_t i = 0; i < old->recipes; i++) {
    int known = 0;
    for (size_t j = 0; j < recipes && !known; j++) known = same_key(&t->recipe[j], &old->recipe[i]);
    if (!known) add_recipe(result, &old->recipe[i]);
  }
  for (size_t i = 0; i < old->schedules; i++) {
    int known = 0;
    for (size_t j = 0; j < schedules && !known; j++)
      known = same_schedule(&t->schedule[j], &old->schedule[i]);
    if (known) continue;
    t->schedule = room(t->schedule, t->schedules, &result->schedule_cap, sizeof *t->schedule);
    t->schedule[t->schedules++] = old->schedule[i];
  }
}
