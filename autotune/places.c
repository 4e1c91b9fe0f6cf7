/* places.c - the race of placements and shards (places.h).
 *
 * Every placement has a context with a pool of its own; layers are few, for they are large: one for
 * each number of shards and of nodes, which contexts take in turn. A place's time is the geometric
 * mean of a call with a row per expert, which reads memory, and one with many, which computes. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layer.h"
#include "nodes.h"
#include "places.h"
#include "race.h"
#include "target.h"

/* ---- What there is ---- */

size_t places_seen(const fp4moe_host *host, topology_place out[PLACES_MAX]) {
  static fp4moe_pu pus[FP4MOE_MAX_PUS];
  hwloc_topology_t t;
  size_t count = 0;
  if (hwloc_topology_init(&t)) return 0;
  hwloc_topology_set_flags(t, HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED);
  if (!hwloc_topology_load(t)) {
    int here = hwloc_topology_is_thissystem(t);
    count = topology_plan(pus, topology_pus(t, pus), here ? host->quota : 0,
                          !here || fp4moe_numa_works(), out);
  }
  hwloc_topology_destroy(t);
  return count;
}

void place_text(fp4moe_placement placement, size_t shards, char text[PLACE_TEXT]) {
  snprintf(text, PLACE_TEXT, "%s, %zu shard%s", fp4moe_placement_name(placement), shards,
           shards == 1 ? "" : "s");
}

/* ---- The race ---- */

typedef struct runner {
  fp4moe_context *context;
  target *target; /* of the first place with as many nodes and shards */
} runner;

typedef struct places_race_state {
  tune_run *run;
  size_t count;
  topology_place place[PLACES_MAX];
  runner runner[PLACES_MAX];
  target target[PLACES_MAX];
} state;

static int is_over(void *arg) {
  const state *s = arg;
  return tune_is_late(s->run);
}

static double call(runner *r, int bucket) {
  r->target->context = r->target->layer->ctx = r->context;
  return target_call_routed(r->target, fp4moe_bucket_rows(bucket));
}

static void time_place(void *arg, const size_t at[RACE_LANES], double ns[RACE_LANES]) {
  state *s = arg;
  runner *r = &s->runner[at[0]];
  double few = call(r, 0);
  ns[0] = sqrt(few * call(r, FP4MOE_BUCKETS - 1));
}

static void open_runner(state *s, size_t i, const problem *p) {
  problem own = *p;
  s->runner[i].context =
      open_context_of((fp4moe_context_desc){.placement = s->place[i].threads.name});
  for (size_t j = 0; j < i && !s->runner[i].target; j++)
    if (s->place[j].shards == s->place[i].shards && s->place[j].nodes == s->place[i].nodes)
      s->runner[i].target = s->runner[j].target;
  if (s->runner[i].target) return;
  own.shards = s->place[i].shards;
  s->runner[i].target = &s->target[i];
  target_open(&s->target[i], s->runner[i].context, &own);
}

static void close_runners(state *s) {
  for (size_t i = 0; i < s->count; i++)
    if (s->target[i].layer) target_close(&s->target[i]);
  for (size_t i = 0; i < s->count; i++) fp4moe_context_destroy(s->runner[i].context);
}

int places_race(tune_run *run, fp4moe_context *context, const problem *p,
                fp4moe_placement_entry *best) {
  const race_rules quick = {2, 5, 20, TUNE_EFFECT, 1}, full = {3, 10, 100, TUNE_EFFECT, 1};
  const fp4moe_host *host = &context->host;
  state *s = allocate(1, sizeof *s);
  race_lane *lane = allocate(1, sizeof *lane);
  const race_host clock = {time_place, is_over, s};
  s->run = run;
  s->count = topology_plan(host->pu, host->pus, host->quota, fp4moe_numa_works(), s->place);
  int raced = s->count > 1;
  for (size_t i = 0; i < s->count && raced; i++) {
    if (!run->quiet) progress("placements", i, s->count);
    open_runner(s, i, p);
    lane->runner[i].order = (uint32_t)i;
  }
  lane->count = s->count;
  if (raced && !race_run(&clock, run->quick ? &quick : &full, lane, 1))
    die("no memory for a race of placements");
  progress_clear();
  if (tune_is_late(run)) raced = 0;
  if (raced)
    *best = (fp4moe_placement_entry){.key = fp4moe_host_key(host),
                                     .ns = (uint64_t)lane->runner[lane->best].ns,
                                     .noise = (uint32_t)(fmin(lane->noise, 1) * 1e6),
                                     .placement = s->place[lane->best].threads.placement,
                                     .shards = s->place[lane->best].shards};
  run->candidates = s->count;
  run->noise = lane->noise;
  close_runners(s);
  free(lane);
  free(s);
  return raced;
}
