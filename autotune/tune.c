/* tune.c - the races of one problem (tune.h).
 *
 * A call of m tokens routed to the same experts gives each of them exactly m rows, so one forward
 * call times one candidate of each phase in the bucket of m: stats.phase1_ns and phase2_ns, the two
 * lanes of a race. Buckets come by how much a served model spends in them: one row, then many. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "grid.h"
#include "layer.h"
#include "race.h"
#include "target.h"
#include "tune.h"

enum { PROOF_MS = 20000 };

static const int bucket_order[FP4MOE_BUCKETS] = {0, 7, 2, 1, 3, 4, 5, 6};

typedef struct job {
  tune_run *run;
  const problem *problem;
  target target;
  entries *out;
  int bucket;
  uint64_t race_end_ns;
  /* the present race */
  const fp4moe_recipe *recipe[FP4MOE_PHASES];
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

/* Rounds for a race of `lanes` lanes; seconds bound it where calls are long. */
static void run_race(job *j, void (*time)(void *, const size_t *, double *), race_lane *lanes,
                     size_t n) {
  const race_rules quick = {2, 3, 8, 0.02, 1}, full = {3, 6, 30, 0.01, 1};
  const race_host host = {time, stop_race, j};
  j->race_end_ns = fp4moe_now_ns() + (j->run->quick ? 2 : 12) * UINT64_C(1000000000);
  if (!race_run(&host, j->run->quick ? &quick : &full, lanes, n))
    die("%s: no memory for a race", j->problem->name);
  for (size_t l = 0; l < n; l++)
    if (lanes[l].noise > j->run->noise && lanes[l].noise < 1) j->run->noise = lanes[l].noise;
  if (tune_is_late(j->run)) j->run->unfinished = 1;
}

/* ---- Recipes ---- */

/* A linear has the second phase alone. Lanes of a race are the phases from it on. */
static int first_phase(const job *j) { return fp4moe_first_phase(&j->target.layer->desc); }

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
    j->target.plan.recipe[phase][j->bucket] = j->recipe[phase][at[phase - first]];
  fp4moe_stats stats = target_call_uniform(&j->target, fp4moe_bucket_rows(j->bucket));
  const uint64_t measured[FP4MOE_PHASES] = {stats.phase1_ns, stats.phase2_ns};
  for (int phase = first; phase < FP4MOE_PHASES; phase++)
    ns[phase - first] = (double)measured[phase];
}

/* Proves the candidates of a lane and puts them at the start. */
static void enter(job *j, int phase, const fp4moe_recipe *recipe, race_lane *lane) {
  prove_verdict *verdict = allocate(lane->count, sizeof *verdict);
  target_candidates c = {&j->target, phase, recipe};
  target_reserve(&c, lane->count);
  if (!prove(target_holds, &c, lane->count, PROOF_MS, verdict))
    die("%s: no child process for the proof of candidates", j->problem->name);
  for (size_t i = 0; i < lane->count; i++) {
    race_runner *r = &lane->runner[i];
    for (size_t k = 0; k < lane->count; k++)
      r->order += fp4moe_recipe_order(&recipe[k], &recipe[i], j->bucket) < 0;
    r->out = !verdict[i].ok;
    j->run->candidates++;
    j->run->refused += (size_t)r->out;
    if (r->out && j->run->banned) j->run->banned(j->problem->name, &recipe[i], verdict[i].reason);
  }
  free(verdict);
}

/* The entries of a lane, fastest first; what is equal to the leader within the noise has its time,
 * so that the fixed order decides there (table.h). */
static void keep(job *j, int phase, const race_lane *lane) {
  double least = 0;
  for (size_t i = 0; i < lane->count; i++)
    if (lane->runner[i].ratio == 1) least = lane->runner[i].ns;
  for (size_t i = 0; i < lane->count; i++) {
    const race_runner *r = &lane->runner[i];
    if (r->out || r->ns <= 0 || least <= 0) continue;
    fp4moe_recipe_entry e = recipe_key(j, phase, j->bucket);
    double ratio = r->ratio <= lane->equal ? 1 : r->ratio;
    e.ns = (uint64_t)(least * ratio);
    e.noise = (uint32_t)(lane->noise * 1e6);
    e.recipe = j->recipe[phase][i];
    entries_add_recipe(j->out, &e);
  }
}

static void tune_bucket(job *j, int bucket) {
  race_lane *lanes = allocate(FP4MOE_PHASES, sizeof *lanes);
  fp4moe_recipe(*recipes)[GRID_MAX] = allocate(FP4MOE_PHASES, sizeof *recipes);
  int banned = 0, head = first_phase(j);
  j->bucket = bucket;
  for (int phase = head; phase < FP4MOE_PHASES; phase++) {
    race_lane *lane = &lanes[phase - head];
    j->recipe[phase] = recipes[phase];
    lane->count = grid_recipes(&j->target.selector, &j->target.layer->desc, phase, bucket,
                               j->run->quick, recipes[phase]);
    enter(j, phase, recipes[phase], lane);
    size_t out = 0;
    for (size_t i = 0; i < lane->count; i++) out += (size_t)lane->runner[i].out;
    banned |= out == lane->count;
  }
  if (banned) die("%s: no candidate gives the C rows' result", j->problem->name);
  run_race(j, time_recipes, lanes, (size_t)(FP4MOE_PHASES - head));
  for (int phase = head; phase < FP4MOE_PHASES && !j->run->unfinished; phase++)
    keep(j, phase, &lanes[phase - head]);
  free(recipes);
  free(lanes);
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
  run_race(j, time_schedules, lane, 1);
  j->target.plan.schedules = 0;
  if (!j->run->unfinished) {
    e.schedule = candidates[lane->best];
    e.ns = (uint64_t)lane->runner[lane->best].ns;
    entries_add_schedule(j->out, &e);
  }
  free(lane);
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

/* lane: tuned, static. */
static void keep_gain(job *j, int bucket, const race_lane *lane) {
  const fp4moe_layer_desc *d = &j->target.layer->desc;
  double ratio = lane->runner[1].ratio / lane->runner[0].ratio;
  fp4moe_gain_entry e = {.format = (int)d->format,
                         .act = (int)fp4moe_act_class_of(d->precision),
                         .gated = d->activation.gated,
                         .linear = fp4moe_is_linear(d),
                         .bucket = bucket,
                         .hidden = d->hidden,
                         .intermediate = d->intermediate,
                         .cores = (uint32_t)j->target.context->host.threads,
                         .threads = (uint32_t)fp4moe_context_threads(j->target.context),
                         .ns = (uint64_t)lane->runner[0].ns,
                         .ratio = (uint32_t)(fmin(ratio, 1000) * 1e6 + 0.5),
                         .noise = (uint32_t)(lane->noise * 1e6),
                         .kept = lane->best == 0};
  entries_add_gain(j->out, &e);
}

/* Random routing, tuned (first: it has ties) against static. */
static void prove_worth(job *j, int bucket) {
  fp4moe_plan plans[2];
  race_lane *lane = allocate(1, sizeof *lane);
  take_entries(j, &plans[0]);
  require(fp4moe_select(&j->target.selector, &j->target.layer->desc, &plans[1]), j->problem->name);
  lane->count = 2;
  lane->runner[1].order = 1;
  j->bucket = bucket;
  j->plan = plans;
  run_race(j, time_plans, lane, 1);
  if (!j->run->unfinished) keep_gain(j, bucket, lane);
  if (lane->best == 1 && !j->run->unfinished) {
    fp4moe_schedule_entry schedule = schedule_key(j, bucket);
    for (int phase = first_phase(j); phase < FP4MOE_PHASES; phase++) {
      fp4moe_recipe_entry key = recipe_key(j, phase, bucket);
      entries_drop_recipe(j->out, &key);
    }
    entries_drop_schedule(j->out, &schedule);
    j->run->removed++;
  }
  free(lane);
}

/* ---- A problem ---- */

static void for_buckets(job *j, int part, void (*each)(job *j, int bucket)) {
  for (int i = 0; i < FP4MOE_BUCKETS && !j->run->unfinished; i++) {
    if (!j->run->quiet)
      progress(j->problem->name, (size_t)(part * FP4MOE_BUCKETS + i), 3 * FP4MOE_BUCKETS);
    each(j, bucket_order[i]);
  }
}

void tune_problem(tune_run *run, fp4moe_context *context, const problem *p, entries *out) {
  job *j = allocate(1, sizeof *j);
  *j = (job){.run = run, .problem = p, .out = out};
  target_open(&j->target, context, p);
  for_buckets(j, 0, tune_bucket);
  if (!run->unfinished) {
    take_entries(j, &j->target.plan);
    j->target.plan.schedules = 0;
  }
  if (!fp4moe_is_linear(&j->target.layer->desc)) for_buckets(j, 1, tune_schedule);
  for_buckets(j, 2, prove_worth);
  progress_clear();
  target_close(&j->target);
  free(j);
}

size_t tune_size(const tune_run *run, fp4moe_context *context, const problem *p) {
  fp4moe_selector s = {&context->host, &context->request, NULL};
  fp4moe_layer_desc desc = problem_desc(p);
  fp4moe_recipe *recipes = allocate(GRID_MAX, sizeof *recipes);
  size_t candidates = 0;
  for (int phase = fp4moe_first_phase(&desc); phase < FP4MOE_PHASES; phase++)
    for (int bucket = 0; bucket < FP4MOE_BUCKETS; bucket++)
      candidates += grid_recipes(&s, &desc, phase, bucket, run->quick, recipes);
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
  race_lane *lanes = allocate(FP4MOE_PHASES, sizeof *lanes);
  fp4moe_recipe recipes[FP4MOE_PHASES][RIVALS];
  uint64_t ns[FP4MOE_PHASES][RIVALS];
  size_t beaten = 0;
  int head = first_phase(j), missing = 0;
  j->bucket = bucket;
  for (int phase = head; phase < FP4MOE_PHASES; phase++) {
    j->recipe[phase] = recipes[phase];
    take_rivals(j, phase, table, recipes[phase], ns[phase], &lanes[phase - head]);
    missing |= !lanes[phase - head].count;
  }
  if (!missing) run_race(j, time_recipes, lanes, (size_t)(FP4MOE_PHASES - head));
  for (int phase = head; phase < FP4MOE_PHASES && lanes[phase - head].rounds; phase++) {
    const race_lane *l = &lanes[phase - head];
    int lost = l->best != 0;
    say_pick(j, phase, &l->runner[0], ns[phase][0], lost);
    beaten += (size_t)lost;
  }
  free(lanes);
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
