/* tune.c - the races of one problem (tune.h).
 *
 * A call of m tokens routed to the same experts gives each of them exactly m rows, so one forward
 * call times one candidate of each phase in the bucket of m: stats.phase1_ns and phase2_ns, the two
 * lanes of a race. First the kernels race, each in its usual recipe, then the ways to run the one
 * that won. Buckets come by how much a served model spends in them: one row, then many.
 *
 * The static order stands first everywhere and stays unless it is beaten by more than TUNE_EFFECT,
 * and by more than noise: what is as good as it is not worth another choice in another run. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grid.h"
#include "measure.h"
#include "layer.h"
#include "race.h"
#include "target.h"
#include "tune.h"

enum { PROOF_MS = 20000, QUICK_MS = 1500, FULL_MS = 8000, PARTS = 2 };

/* Of whole layers: what seems to lose more goes. */
static const double LOSS = 0.01;

static const int bucket_order[FP4MOE_BUCKETS] = {0, 7, 2, 1, 3, 4, 5, 6};

/* A race of recipes in both phases. */
typedef struct phase_race {
  race_lane lane[RACE_LANES]; /* lane_of a phase: a linear has the second phase alone */
  fp4moe_recipe recipe[FP4MOE_PHASES][GRID_MAX];
} phase_race;

typedef struct job {
  tune_run *run;
  const problem *problem;
  target target;
  entries *out;
  int bucket;
  uint64_t race_end_ns;
  /* the present race */
  const phase_race *race;
  const fp4moe_schedule *schedule;
  const fp4moe_plan *plan;
} job;

int tune_is_late(const tune_run *r) {
  return (r->interrupted && *r->interrupted) ||
         (r->deadline_ns && fp4moe_now_ns() >= r->deadline_ns);
}

static int stop_race(void *arg) {
  const job *j = arg;
  return tune_is_late(j->run) || fp4moe_now_ns() >= j->race_end_ns;
}

/* Seconds bound a race where calls are long. */
static void run_race(job *j, void (*time)(void *, const size_t *, double *), double effect,
                     race_lane *lanes, size_t n) {
  const race_rules quick = {3, 9, 150, effect, 1}, full = {3, 12, RACE_ROUNDS, effect, 1};
  const race_host host = {time, stop_race, j};
  j->race_end_ns = fp4moe_now_ns() + (j->run->quick ? QUICK_MS : FULL_MS) * UINT64_C(1000000);
  if (!race_run(&host, j->run->quick ? &quick : &full, lanes, n))
    die("%s: no memory for a race", j->problem->name);
  for (size_t l = 0; l < n; l++)
    if (lanes[l].noise > j->run->noise && lanes[l].noise < 1) j->run->noise = lanes[l].noise;
  if (tune_is_late(j->run)) j->run->unfinished = 1;
}

/* ---- Recipes ---- */

static int first_phase(const job *j) { return fp4moe_first_phase(&j->target.layer->desc); }

static race_lane *lane_of(const job *j, const phase_race *race, int phase) {
  return (race_lane *)&race->lane[phase - first_phase(j)];
}

static fp4moe_recipe_entry recipe_key(const job *j, int phase, int bucket) {
  const fp4moe_layer_desc *d = &j->target.layer->desc;
  fp4moe_recipe_entry e = {.phase = phase,
                           .format = (int)d->format,
                           .act = (int)fp4moe_act_class_of(d->precision),
                           .gated = d->activation.gated,
                           .bucket = bucket,
                           .cores = j->target.context->host.threads};
  fp4moe_phase_shape(d, phase, &e.n, &e.k);
  return e;
}

static void time_recipes(void *arg, const size_t at[RACE_LANES], double ns[RACE_LANES]) {
  job *j = arg;
  int first = first_phase(j);
  for (int phase = first; phase < FP4MOE_PHASES; phase++)
    j->target.plan.recipe[phase][j->bucket] = j->race->recipe[phase][at[phase - first]];
  fp4moe_stats stats = target_call_uniform(&j->target, fp4moe_bucket_rows(j->bucket));
  const uint64_t measured[FP4MOE_PHASES] = {stats.phase1_ns, stats.phase2_ns};
  for (int phase = first; phase < FP4MOE_PHASES; phase++)
    ns[phase - first] = (double)measured[phase];
}

/* Proves the candidates of a lane and puts them at the start: the first stays before all others. */
static void enter(job *j, int phase, const fp4moe_recipe *recipe, race_lane *lane) {
  prove_verdict *verdict = allocate(lane->count, sizeof *verdict);
  target_candidates c = {&j->target, phase, recipe};
  target_reserve(&c, lane->count);
  if (!prove(target_holds, &c, lane->count, PROOF_MS, verdict))
    die("%s: no child process for the proof of candidates", j->problem->name);
  for (size_t i = 0; i < lane->count; i++) {
    race_runner *r = &lane->runner[i];
    for (size_t k = 0; k < lane->count && i; k++)
      r->order += !k || fp4moe_recipe_order(&recipe[k], &recipe[i], j->bucket) < 0;
    r->out = !verdict[i].ok;
    j->run->candidates++;
    j->run->refused += (size_t)r->out;
    if (r->out && j->run->banned) j->run->banned(j->problem->name, &recipe[i], verdict[i].reason);
  }
  free(verdict);
}

/* ns of a runner as the race says: the leader's by the ratio to it. */
static double time_of(const race_lane *lane, size_t i) {
  return lane->runner[lane->leader].ns * lane->runner[i].ratio;
}

/* An entry of runner i; the pick of the bucket stands first, whatever was as fast to the race. What
 * was surely slower has none, but for runner 0, which all others are held against. */
static void keep(job *j, int phase, const phase_race *race, size_t i, double ns, double least_ns) {
  const race_lane *lane = lane_of(j, race, phase);
  fp4moe_recipe_entry e = recipe_key(j, phase, j->bucket);
  if ((lane->runner[i].out && i) || ns <= 0) return;
  e.ns = (uint64_t)fmax(ns, least_ns);
  e.noise = (uint32_t)(lane->noise * 1e6);
  e.recipe = race->recipe[phase][i];
  entries_add_recipe(j->out, &e);
}

/* The variants; the other kernels by their ratio to the one whose variants these are. */
static void keep_phase(job *j, int phase, const phase_race *kernels, const phase_race *variants) {
  const race_lane *k = lane_of(j, kernels, phase), *v = lane_of(j, variants, phase);
  double pick_ns = time_of(v, v->best), scale = time_of(v, 0) / time_of(k, k->best);
  for (size_t i = 0; i < v->count; i++)
    keep(j, phase, variants, i, time_of(v, i), i == v->best ? 0 : pick_ns + 1);
  for (size_t i = 0; i < k->count; i++)
    if (i != k->best) keep(j, phase, kernels, i, time_of(k, i) * scale, pick_ns + 1);
}

/* Proves and races what stands in the lanes; 0: the run is late. */
static int race_phases(job *j, phase_race *race) {
  j->race = race;
  for (int phase = first_phase(j); phase < FP4MOE_PHASES; phase++) {
    race_lane *lane = lane_of(j, race, phase);
    size_t out = 0;
    enter(j, phase, race->recipe[phase], lane);
    for (size_t i = 0; i < lane->count; i++) out += (size_t)lane->runner[i].out;
    if (out == lane->count) die("%s: no candidate gives the C rows' result", j->problem->name);
  }
  run_race(j, time_recipes, TUNE_EFFECT, race->lane, (size_t)(FP4MOE_PHASES - first_phase(j)));
  return !j->run->unfinished;
}

static int race_kernels(job *j, phase_race *kernels) {
  for (int phase = first_phase(j); phase < FP4MOE_PHASES; phase++)
    lane_of(j, kernels, phase)->count = grid_kernels(&j->target.selector, &j->target.layer->desc,
                                                     phase, j->bucket, kernels->recipe[phase]);
  return race_phases(j, kernels);
}

static int race_variants(job *j, const phase_race *kernels, phase_race *variants) {
  for (int phase = first_phase(j); phase < FP4MOE_PHASES; phase++)
    lane_of(j, variants, phase)->count =
        grid_variants(&j->target.selector, &j->target.layer->desc, phase, j->bucket,
                      &kernels->recipe[phase][lane_of(j, kernels, phase)->best], j->run->quick,
                      variants->recipe[phase]);
  return race_phases(j, variants);
}

static void tune_bucket(job *j, int bucket) {
  phase_race *kernels = allocate(2, sizeof *kernels), *variants = kernels + 1;
  j->bucket = bucket;
  if (race_kernels(j, kernels) && race_variants(j, kernels, variants))
    for (int phase = first_phase(j); phase < FP4MOE_PHASES; phase++)
      keep_phase(j, phase, kernels, variants);
  free(kernels);
}

/* ---- Schedules ---- */

static fp4moe_schedule_entry schedule_key(const job *j, int bucket) {
  const fp4moe_layer_desc *d = &j->target.layer->desc;
  uint32_t threads = (uint32_t)fp4moe_context_threads(j->target.context);
  return (fp4moe_schedule_entry){(int)d->format,
                                 (int)fp4moe_act_class_of(d->precision),
                                 d->hidden,
                                 d->intermediate,
                                 0,
                                 0,
                                 {(uint32_t)bucket, threads, threads, 0}};
}

static void time_schedules(void *arg, const size_t at[RACE_LANES], double ns[RACE_LANES]) {
  job *j = arg;
  j->target.plan.schedule[0] = j->schedule[at[0]];
  fp4moe_stats stats = target_call_uniform(&j->target, fp4moe_bucket_rows(j->bucket));
  ns[0] = (double)(stats.phase1_ns + stats.phase2_ns);
}

/* Which workers take part, and how long the runs of units are that they take. */
static void tune_schedule(job *j, int bucket) {
  static const uint32_t shares[] = {2, 1, 4, 16};
  enum { SHARES = sizeof shares / sizeof *shares };
  fp4moe_schedule candidates[2 * SHARES];
  race_lane *lane = allocate(1, sizeof *lane);
  fp4moe_schedule_entry e = schedule_key(j, bucket);
  uint32_t half = e.schedule.threads / 2;
  for (size_t i = 0; i < 2 * SHARES; i++) {
    candidates[i] = e.schedule;
    candidates[i].share = shares[i % SHARES];
    if (i >= SHARES) candidates[i].workers = half;
  }
  lane->count = half ? 2 * SHARES : SHARES;
  for (size_t i = 0; i < lane->count; i++) lane->runner[i].order = (uint32_t)i;
  j->bucket = bucket;
  j->schedule = candidates;
  j->target.plan.schedules = 1;
  run_race(j, time_schedules, TUNE_EFFECT, lane, 1);
  j->target.plan.schedules = 0;
  if (!j->run->unfinished) {
    e.schedule = candidates[lane->best];
    e.ns = (uint64_t)lane->runner[lane->best].ns;
    e.noise = (uint32_t)(lane->noise * 1e6);
    entries_add_schedule(j->out, &e);
  }
  free(lane);
}

/* ---- The static order instead ---- */

static void take_static(const job *j, int phase, fp4moe_recipe *recipe) {
  require(
      fp4moe_static_recipe(&j->target.selector, &j->target.layer->desc, phase, j->bucket, recipe),
      j->problem->name);
}

/* The table's entries of the present bucket; *count 0: it has none. */
static fp4moe_recipe_entry *find_entries(job *j, int phase, size_t *count) {
  const fp4moe_recipe_entry e = recipe_key(j, phase, j->bucket);
  const fp4moe_recipe_key key = {e.phase, e.format, e.act, e.gated, e.bucket, e.n, e.k, e.cores};
  size_t first;
  fp4moe_table_sort(&j->out->table);
  if (fp4moe_table_find(&j->out->table, &key, &first, count) != FP4MOE_MATCH_EXACT ||
      !fp4moe_same_race(&j->out->table.recipe[first], &e))
    *count = 0; /* of another shape or gating */
  return *count ? &j->out->table.recipe[first] : NULL;
}

/* The entry of the static recipe among them; NULL: it was not timed. */
static fp4moe_recipe_entry *find_static(const job *j, int phase, fp4moe_recipe_entry *e,
                                        size_t count) {
  fp4moe_recipe usual;
  take_static(j, phase, &usual);
  for (size_t i = 0; i < count; i++)
    if (!fp4moe_recipe_order(&e[i].recipe, &usual, j->bucket)) return &e[i];
  return NULL;
}

/* Puts the static recipe before what the table has for the bucket; without a time of it there is
 * none, and no entry means the same. */
static void leave_static(job *j, int phase) {
  size_t count;
  fp4moe_recipe_entry *e = find_entries(j, phase, &count), *usual = find_static(j, phase, e, count);
  const fp4moe_recipe_entry key = recipe_key(j, phase, j->bucket);
  if (!usual) entries_drop_recipe(j->out, &key);
  for (size_t i = 0; usual && i < count; i++)
    if (&e[i] != usual && e[i].ns <= usual->ns) e[i].ns = usual->ns + 1;
  fp4moe_table_sort(&j->out->table);
}

/* ---- Picks again ---- */

/* What runs for a phase: the table's pick, or the static order. */
static void take_pick(const job *j, int phase, fp4moe_recipe *pick) {
  fp4moe_selector s = j->target.selector;
  fp4moe_choice choice;
  s.table = &j->out->table;
  require(fp4moe_choose(&s, &j->target.layer->desc, phase, j->bucket, &choice), j->problem->name);
  *pick = choice.recipe;
}

/* The static order and, where that is another, the pick; returns how many. */
static size_t take_both(const job *j, int phase, fp4moe_recipe *recipe) {
  take_static(j, phase, &recipe[0]);
  take_pick(j, phase, &recipe[1]);
  return fp4moe_recipe_order(&recipe[0], &recipe[1], j->bucket) ? 2 : 1;
}

/* What both looks say goes into the table; what the second does not confirm gives way. */
static void settle_pick(job *j, int phase, const race_lane *lane) {
  size_t count;
  fp4moe_recipe_entry *pick = find_entries(j, phase, &count);
  if (!pick) return; /* none of this race was left: what is picked is another shape's */
  fp4moe_recipe_entry *usual = find_static(j, phase, pick, count);
  race_look first = {usual ? (double)usual->ns / (double)pick->ns : 0, pick->noise * 1e-6};
  race_look second = race_look_at(lane), both = race_both(first, second);
  if (usual && both.ratio > 0) {
    usual->ns = (uint64_t)((double)pick->ns * both.ratio);
    for (size_t i = 0; i < count; i++) pick[i].noise = (uint32_t)(both.noise * 1e6);
  }
  if (race_beats(second)) return;
  leave_static(j, phase);
  j->run->removed++;
}

/* The picks against the static order once more, minutes after the races that made them: what was
 * ahead in one mood of the host only goes. */
static void race_again(job *j, int bucket) {
  phase_race *race = allocate(1, sizeof *race);
  size_t picks = 0;
  j->bucket = bucket;
  j->race = race;
  for (int phase = first_phase(j); phase < FP4MOE_PHASES; phase++) {
    race_lane *lane = lane_of(j, race, phase);
    lane->count = take_both(j, phase, race->recipe[phase]);
    lane->runner[1].order = 1;
    picks += lane->count - 1;
  }
  if (picks)
    run_race(j, time_recipes, TUNE_EFFECT, race->lane, (size_t)(FP4MOE_PHASES - first_phase(j)));
  for (int phase = first_phase(j); phase < FP4MOE_PHASES && picks && !j->run->unfinished; phase++)
    if (lane_of(j, race, phase)->count == 2) settle_pick(j, phase, lane_of(j, race, phase));
  free(race);
}

/* ---- The whole layer ---- */

/* The plan as the entries so far make it. */
static void take_entries(job *j, fp4moe_plan *plan) {
  fp4moe_selector s = j->target.selector;
  s.table = &j->out->table;
  fp4moe_table_sort(&j->out->table);
  require(fp4moe_select(&s, &j->target.layer->desc, plan), j->problem->name);
}

static void time_plans(void *arg, const size_t at[RACE_LANES], double ns[RACE_LANES]) {
  job *j = arg;
  j->target.plan = j->plan[at[0]];
  ns[0] = target_call_routed(&j->target, fp4moe_bucket_rows(j->bucket));
}

static void keep_gain(job *j, double ns, double ratio, double noise, int kept) {
  const fp4moe_layer_desc *d = &j->target.layer->desc;
  fp4moe_gain_entry e = {.format = (int)d->format,
                         .act = (int)fp4moe_act_class_of(d->precision),
                         .gated = d->activation.gated,
                         .linear = fp4moe_is_linear(d),
                         .bucket = j->bucket,
                         .hidden = d->hidden,
                         .intermediate = d->intermediate,
                         .cores = (uint32_t)j->target.context->host.threads,
                         .threads = (uint32_t)fp4moe_context_threads(j->target.context),
                         .ns = (uint64_t)ns,
                         .ratio = (uint32_t)(fmin(ratio, 1000) * 1e6 + 0.5),
                         .noise = (uint32_t)(noise * 1e6),
                         .kept = kept};
  entries_set_gain(j->out, &e);
}

static void drop_bucket(job *j, int bucket) {
  fp4moe_schedule_entry schedule = schedule_key(j, bucket);
  for (int phase = first_phase(j); phase < FP4MOE_PHASES; phase++) leave_static(j, phase);
  entries_drop_schedule(j->out, &schedule);
  j->run->removed++;
}

/* Do the tuned plan and the static one run the calls of a bucket alike? */
static int same_calls(const job *j, const fp4moe_plan *a, const fp4moe_plan *b, int bucket) {
  size_t threads = fp4moe_context_threads(j->target.context);
  size_t tokens = target_routed_tokens(&j->target, fp4moe_bucket_rows(bucket));
  const fp4moe_schedule *s = fp4moe_plan_schedule(a, threads, tokens);
  for (int phase = first_phase(j); phase < FP4MOE_PHASES; phase++)
    if (fp4moe_recipe_order(&a->recipe[phase][bucket], &b->recipe[phase][bucket], bucket)) return 0;
  return !s || (s->workers == threads && s->share == FP4MOE_USUAL_SHARE);
}

/* Tuned (first) against static. What seems to lose gives way, sure or not: the static order has
 * nothing to prove. */
static void race_plans(job *j) {
  race_lane *lane = allocate(1, sizeof *lane);
  lane->count = 2;
  lane->runner[1].order = 1;
  run_race(j, time_plans, LOSS, lane, 1);
  if (!j->run->unfinished) {
    double ratio = lane->runner[1].ratio / lane->runner[0].ratio;
    keep_gain(j, lane->runner[0].ns, ratio, lane->noise, ratio >= 1 - LOSS);
    if (ratio < 1 - LOSS) drop_bucket(j, j->bucket);
  }
  free(lane);
}

/* One plan is its own equal: there is nothing to race. */
static void time_plan(job *j) {
  double ns[3];
  j->target.plan = j->plan[0];
  for (int i = 0; i < 3; i++) ns[i] = target_call_routed(&j->target, fp4moe_bucket_rows(j->bucket));
  keep_gain(j, measure_summarise(ns, 3).median, 1, 0, 1);
}

/* Whole layers with random routing. */
static void prove_worth(job *j, int bucket) {
  fp4moe_plan plans[2];
  take_entries(j, &plans[0]);
  require(fp4moe_select(&j->target.selector, &j->target.layer->desc, &plans[1]), j->problem->name);
  j->bucket = bucket;
  j->plan = plans;
  if (same_calls(j, &plans[0], &plans[1], bucket))
    time_plan(j);
  else
    race_plans(j);
}

/* ---- A problem ---- */

static void for_buckets(job *j, int part, void (*each)(job *j, int bucket)) {
  for (int i = 0; i < FP4MOE_BUCKETS && !j->run->unfinished; i++) {
    if (!j->run->quiet)
      progress(j->problem->name, (size_t)(part * FP4MOE_BUCKETS + i), PARTS * FP4MOE_BUCKETS);
    each(j, bucket_order[i]);
  }
}

static job *open_job(tune_run *run, fp4moe_context *context, const problem *p, entries *out) {
  job *j = allocate(1, sizeof *j);
  *j = (job){.run = run, .problem = p, .out = out};
  target_open(&j->target, context, p);
  return j;
}

static void close_job(job *j) {
  progress_clear();
  target_close(&j->target);
  free(j);
}

void tune_problem(tune_run *run, fp4moe_context *context, const problem *p, entries *out) {
  job *j = open_job(run, context, p, out);
  for_buckets(j, 0, tune_bucket);
  if (!run->unfinished) {
    take_entries(j, &j->target.plan);
    j->target.plan.schedules = 0;
  }
  if (!fp4moe_is_linear(&j->target.layer->desc)) for_buckets(j, 1, tune_schedule);
  close_job(j);
}

void tune_prove(tune_run *run, fp4moe_context *context, const problem *p, entries *all) {
  job *j = open_job(run, context, p, all);
  all->table.partial_of = 0; /* of this problem it has everything */
  fp4moe_table_sort(&all->table);
  for_buckets(j, 0, race_again);
  for_buckets(j, 1, prove_worth);
  close_job(j);
}

size_t tune_size(const tune_run *run, fp4moe_context *context, const problem *p) {
  fp4moe_selector s = {&context->host, &context->request, NULL};
  fp4moe_layer_desc desc = problem_desc(p);
  fp4moe_recipe *recipes = allocate(GRID_MAX, sizeof *recipes), usual;
  size_t candidates = 0;
  for (int phase = fp4moe_first_phase(&desc); phase < FP4MOE_PHASES; phase++)
    for (int bucket = 0; bucket < FP4MOE_BUCKETS; bucket++) {
      candidates += grid_kernels(&s, &desc, phase, bucket, recipes);
      usual = recipes[0];
      candidates += grid_variants(&s, &desc, phase, bucket, &usual, run->quick, recipes);
    }
  free(recipes);
  return candidates;
}

/* ---- Verify ---- */

/* The table's entries of a key, at most RIVALS, into a lane; their times into ns. */
enum { RIVALS = 4 };
static void take_rivals(const job *j, int phase, const fp4moe_table *table, fp4moe_recipe *recipe,
                        uint64_t *ns, race_lane *lane) {
  fp4moe_recipe_entry e = recipe_key(j, phase, j->bucket);
  fp4moe_recipe_key key = {e.phase, e.format, e.act, e.gated, e.bucket, e.n, e.k, e.cores};
  size_t first, count;
  if (fp4moe_table_find(table, &key, &first, &count) != FP4MOE_MATCH_EXACT) count = 0;
  lane->count = count < RIVALS ? count : RIVALS;
  for (size_t i = 0; i < lane->count; i++) {
    lane->runner[i].order = (uint32_t)i;
    recipe[i] = table->recipe[first + i].recipe;
    ns[i] = table->recipe[first + i].ns;
  }
}

static void say_pick(const job *j, int phase, const race_runner *now, uint64_t table_ns, int lost) {
  const char *name = j->problem->name, *phase_name = fp4moe_phase_name(phase);
  size_t rows = fp4moe_bucket_rows(j->bucket);
  if (j->run->quiet) return;
  if (j->run->json)
    print_json(json_pack("{s:s, s:s, s:I, s:f, s:I, s:b}", "problem", name, "phase", phase_name,
                         "rows", (json_int_t)rows, "ns", now->ns, "table_ns", (json_int_t)table_ns,
                         "holds", !lost));
  else
    printf("%-24s %-7s %3zu rows: %8.1f us now, %8.1f in the table, %s\n", name, phase_name, rows,
           now->ns * 1e-3, (double)table_ns * 1e-3, lost ? "another is faster" : "the pick holds");
}

static size_t verify_bucket(job *j, int bucket, const fp4moe_table *table) {
  phase_race *race = allocate(1, sizeof *race);
  uint64_t ns[FP4MOE_PHASES][RIVALS];
  size_t beaten = 0;
  int head = first_phase(j), missing = 0;
  j->bucket = bucket;
  j->race = race;
  for (int phase = head; phase < FP4MOE_PHASES; phase++) {
    take_rivals(j, phase, table, race->recipe[phase], ns[phase], lane_of(j, race, phase));
    missing |= !lane_of(j, race, phase)->count;
  }
  if (!missing) run_race(j, time_recipes, TUNE_EFFECT, race->lane, (size_t)(FP4MOE_PHASES - head));
  for (int phase = head; phase < FP4MOE_PHASES && lane_of(j, race, phase)->rounds; phase++) {
    const race_lane *l = lane_of(j, race, phase);
    int lost = l->best != 0;
    say_pick(j, phase, &l->runner[0], ns[phase][0], lost);
    beaten += (size_t)lost;
  }
  free(race);
  return beaten;
}

size_t tune_verify(tune_run *run, fp4moe_context *context, const problem *p,
                   const fp4moe_table *table) {
  static const int sample[] = {0, 3, 7};
  job *j = allocate(1, sizeof *j);
  size_t beaten = 0;
  *j = (job){.run = run, .problem = p};
  target_open(&j->target, context, p);
  for (size_t i = 0; i < sizeof sample / sizeof *sample && !run->unfinished; i++)
    beaten += verify_bucket(j, sample[i], table);
  target_close(&j->target);
  free(j);
  return beaten;
}
