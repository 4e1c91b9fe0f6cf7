/* check_race.c - the tuner's decisions under noise (race.h), on a simulated host: planted costs,
 * 20 % noise, outliers and drift. The clock here is arithmetic, so nothing waits and every run of
 * a seed is the same. The optimum is the first in the fixed order of what is within `effect` of the
 * least cost: planted beyond it, it is the least; planted within, it is the incumbent. */
#include <math.h>
#include <string.h>

#include "check.h"
#include "measure.h"
#include "race.h"

enum { RUNNERS = 40, SEEDS = 100 };

typedef struct simulated {
  const double *cost[RACE_LANES]; /* ns */
  double noise, drift;            /* relative; drift: per call */
  int outliers;                   /* 1: one call in 20 takes three times as long */
  size_t lanes, calls;
  uint64_t seed;
  size_t samples[RACE_LANES][RUNNERS];
} simulated;

static double normal(measure_rng *rng) {
  double sum = -6;
  for (int i = 0; i < 12; i++) sum += measure_uniform(rng);
  return sum;
}

static void simulated_time(void *arg, const size_t at[RACE_LANES], double ns[RACE_LANES]) {
  simulated *s = arg;
  double speed = 1 + 0.3 * sin(s->drift * (double)s->calls++);
  for (size_t l = 0; l < s->lanes; l++) { /* noise follows the runner, wherever it stands */
    double cost = s->cost[l][at[l]];
    measure_rng rng = {s->seed + (uint64_t)cost * 4096 + s->samples[l][at[l]]++};
    ns[l] = cost * speed * exp(s->noise * normal(&rng));
    if (s->outliers && measure_random(&rng) % 20 == 0) ns[l] *= 3;
  }
}

/* Costs of 1 (the best, somewhere), 1.08 and up; order: of the fixed order. */
static size_t plant(measure_rng *rng, double cost[RUNNERS]) {
  size_t best = (size_t)(measure_random(rng) % RUNNERS);
  for (size_t i = 0; i < RUNNERS; i++) cost[i] = 1e6 * (1.08 + 2 * pow((double)i / RUNNERS, 2));
  cost[best] = 1e6;
  return best;
}

static const race_rules thorough = {
    .screen_rounds = 5, .least_rounds = 5, .most_rounds = RACE_ROUNDS, .effect = 0.03, .seed = 1};

static void start(race_lane *lane, size_t count, int reversed) {
  memset(lane, 0, sizeof *lane);
  lane->count = count;
  for (size_t i = 0; i < count; i++)
    lane->runner[i].order = (uint32_t)(reversed ? count - 1 - i : i);
}

/* Finds of the planted best in SEEDS runs; the runners stand in the lane in order or reversed. */
static size_t finds(double noise, int outliers, double drift, size_t picks[SEEDS], int reversed) {
  static race_lane lane;
  size_t found = 0;
  for (uint64_t seed = 0; seed < SEEDS; seed++) {
    measure_rng rng = {seed};
    double cost[RUNNERS], turned[RUNNERS];
    size_t best = plant(&rng, cost);
    for (size_t i = 0; i < RUNNERS; i++) turned[i] = cost[RUNNERS - 1 - i];
    simulated s = {{reversed ? turned : cost}, noise, drift, outliers, 1, 0, seed << 40, {{0}}};
    race_host host = {simulated_time, NULL, &s};
    start(&lane, RUNNERS, reversed);
    race_run(&host, &thorough, &lane, 1);
    picks[seed] = reversed ? RUNNERS - 1 - lane.best : lane.best;
    found += picks[seed] == best;
  }
  return found;
}

static void test_noise(void) {
  size_t forward[SEEDS], backward[SEEDS], same = 0;
  size_t found = finds(0.2, 1, 0.001, forward, 0);
  CHECK(found >= 95, "the best was found in %zu of %d runs", found, SEEDS);
  found = finds(0.2, 1, 0.001, backward, 1);
  CHECK(found >= 95, "reversed, the best was found in %zu of %d runs", found, SEEDS);
  for (size_t i = 0; i < SEEDS; i++) same += forward[i] == backward[i];
  CHECK(same >= 95, "%zu of %d decisions are the same in reversed order", same, SEEDS);
}

static void test_quiet(void) {
  size_t forward[SEEDS], backward[SEEDS];
  CHECK(finds(0.005, 0, 0.001, forward, 0) == SEEDS, "a quiet host misleads");
  CHECK(finds(0.005, 0, 0.001, backward, 1) == SEEDS, "a quiet host misleads in reversed order");
  CHECK_SAME(forward, backward, SEEDS, sizeof *forward, "decisions in reversed order");
}

enum { FEW = 8 };

/* As measured on a host: one kernel's variants within 3 %, other kernels from 8 % on; or, `any`, of
 * every size, so that some lie at the very border of the effect. The least has any place. */
static void plant_like_a_host(measure_rng *rng, int any, double cost[FEW]) {
  for (size_t i = 0; i < FEW; i++) {
    double u = measure_uniform(rng);
    int near = measure_random(rng) % 2 == 0;
    cost[i] = 1e6 * (1 + (any ? 0.005 * pow(200, u) : near ? 0.03 * u : 0.08 + u * u));
  }
  cost[measure_random(rng) % FEW] = 1e6;
}

/* The tuner's quick rules on a host as noisy as a shared one. */
static size_t race_once(const double *cost, size_t n, uint64_t seed, race_lane *lane) {
  const race_rules quick = {3, 9, 150, 0.05, 1};
  simulated s = {{cost}, 0.05, 0.001, 1, 1, 0, seed << 32, {{0}}};
  race_host host = {simulated_time, NULL, &s};
  start(lane, n, 0);
  race_run(&host, &quick, lane, 1);
  return lane->best;
}

/* Two runs that see other noise choose alike, and where they do not, what they chose is as good
 * within the noise that was stored, whatever was planted: but for a runner whose first times were
 * all outliers, one of the thousands here. */
static void test_agreement(void) {
  enum { RACES = 100 };
  static const size_t least[] = {95, 85}; /* per cent: a host's costs; costs at the border too */
  static race_lane lane;
  for (int any = 0; any < 2; any++) {
    size_t same = 0, apart = 0;
    for (uint64_t i = 0; i < RACES; i++) {
      measure_rng rng = {i + 1};
      double cost[FEW];
      plant_like_a_host(&rng, any, cost);
      size_t first = race_once(cost, FEW, 2 * i, &lane);
      double noise = lane.noise;
      size_t second = race_once(cost, FEW, 2 * i + 1, &lane);
      double ratio = fmax(cost[first], cost[second]) / fmin(cost[first], cost[second]);
      same += first == second;
      CHECK(fmin(noise, lane.noise) >= 0.05, "noise %g, %g: below the effect", noise, lane.noise);
      apart += ratio > 1.02 + noise;
    }
    CHECK(same * 100 >= least[any] * RACES, "any %d: %zu of %d races agree", any, same, RACES);
    CHECK(apart <= 1, "any %d: %zu picks are apart by more than the noise", any, apart);
  }
}

/* ---- Two looks ---- */

/* A host whose memory has two moods: times of the incumbent and of its rival in each. */
typedef struct moody {
  double cost[2][2];
} moody;

/* A run as the tuner's: a race in one mood makes the pick, one in another confirms it. 1: the rival
 * replaces the incumbent. */
static int run_with_moods(const moody *host, int first, int second, uint64_t seed,
                          race_look *both) {
  static race_lane lane;
  int picked = race_once(host->cost[first], 2, 2 * seed, &lane) == 1;
  race_look looks[2] = {race_look_at(&lane)};
  race_once(host->cost[second], 2, 2 * seed + 1, &lane);
  looks[1] = race_look_at(&lane);
  *both = race_both(looks[0], looks[1]);
  CHECK(race_beats(looks[1]) == (lane.best == 1), "a look of %g +- %g says another pick than %zu",
        looks[1].ratio, looks[1].noise, lane.best);
  return picked && race_beats(looks[1]);
}

/* Runs that begin in either mood: what is ahead in one of them only is never kept, what is ahead
 * in both always; and the noise says how far the moods are apart. */
static void test_moods(void) {
  static const moody one = {{{1.15e6, 1e6}, {0.98e6, 1e6}}}, both = {{{1.2e6, 1e6}, {1.1e6, 1e6}}};
  double ratio = 0, noise = 0;
  for (uint64_t seed = 0; seed < SEEDS; seed++) {
    race_look look;
    int kept = run_with_moods(&one, seed % 2, 1 - seed % 2, seed, &look);
    CHECK(!kept, "seed %zu: what is ahead in one mood was kept", (size_t)seed);
    kept = run_with_moods(&both, seed % 2, 1 - seed % 2, seed, &look);
    CHECK(kept, "seed %zu: what is ahead in both moods was not kept", (size_t)seed);
    ratio += look.ratio / SEEDS;
    noise += look.noise / SEEDS;
  }
  /* A race ends once it is sure: in doubt it is sure of more than there is. */
  CHECK(fabs(ratio - sqrt(1.2 * 1.1)) < 0.02, "mean ratio %g", ratio);
  CHECK(fabs(noise - (0.05 + 0.1)) < 0.02, "mean noise %g", noise);
}

/* At the border of the effect runs may choose differently. Then what is kept was ahead by no more
 * than the noise that its two looks make, to a hundredth, but for few. */
static void test_border(void) {
  size_t differ = 0, within = 0;
  for (uint64_t seed = 0; seed < 2 * SEEDS; seed++) {
    double ahead = 1.04 + 0.03 * (double)seed / (2 * SEEDS);
    const moody host = {{{ahead * 1e6, 1e6}, {ahead * 1e6, 1e6}}};
    race_look look[2];
    int kept[2];
    for (int run = 0; run < 2; run++)
      kept[run] = run_with_moods(&host, 0, 1, 1000 + 2 * seed + (uint64_t)run, &look[run]);
    differ += kept[0] != kept[1];
    within += kept[0] != kept[1] && look[kept[1]].ratio <= 1 + look[kept[1]].noise + 0.01;
  }
  CHECK(differ >= 10, "%zu pairs of runs differ: none was at the border", differ);
  CHECK(within * 10 >= differ * 9, "%zu of %zu within the noise", within, differ);
}

/* A look without times leaves the other as it is. */
static void test_unknown_look(void) {
  const race_look none = {0, 0.05}, seen = {1.1, 0.06};
  race_look a = race_both(none, seen), b = race_both(seen, none);
  CHECK(a.ratio == 1.1 && a.noise == 0.06 && b.ratio == 1.1 && b.noise == 0.06,
        "%g +- %g, %g +- %g", a.ratio, a.noise, b.ratio, b.noise);
  CHECK(!race_beats(none) && race_beats(seen), "beats");
  a = race_both((race_look){0.5, 0.5}, (race_look){1.2, 0.4});
  CHECK(a.noise == 1, "noise %g: a table takes no more than 1", a.noise);
}

/* An incumbent within the effect stays, however sure the race is that another is faster; one
 * beyond it goes. */
static void test_effect(void) {
  static race_lane lane;
  const double within[] = {1.04e6, 1e6, 1.2e6}, beyond[] = {1.06e6, 1e6, 1.2e6};
  for (int reversed = 0; reversed < 2; reversed++) {
    const double *costs[] = {within, beyond};
    for (size_t i = 0; i < 2; i++) {
      double cost[3];
      for (size_t k = 0; k < 3; k++) cost[k] = costs[i][reversed ? 2 - k : k];
      simulated s = {{cost}, 0.002, 0, 0, 1, 0, 6, {{0}}};
      race_host host = {simulated_time, NULL, &s};
      race_rules rules = thorough;
      rules.effect = 0.05;
      start(&lane, 3, reversed);
      race_run(&host, &rules, &lane, 1);
      CHECK(lane.runner[lane.best].order == i, "case %zu: order %u", i,
            lane.runner[lane.best].order);
      CHECK(lane.runner[lane.leader].order == 1 && lane.noise == 0.05, "leader %u, noise %g",
            lane.runner[lane.leader].order, lane.noise);
    }
  }
}

/* A slow spell that hits a runner's first rounds is not taken for the runner. */
typedef struct spells {
  simulated host;
  size_t hit; /* the runner */
} spells;

static void time_with_spells(void *arg, const size_t at[RACE_LANES], double ns[RACE_LANES]) {
  spells *s = arg;
  size_t sample = s->host.samples[0][at[0]];
  simulated_time(&s->host, at, ns);
  if (at[0] == s->hit && sample < 2) ns[0] *= 2;
}

static void test_spell(void) {
  static race_lane lane;
  double cost[] = {1.2e6, 1.3e6, 1e6, 1.25e6};
  spells s = {{{cost}, 0.01, 0, 0, 1, 0, 7, {{0}}}, 2};
  race_host host = {time_with_spells, NULL, &s};
  race_rules rules = thorough;
  rules.screen_rounds = 3;
  start(&lane, 4, 0);
  race_run(&host, &rules, &lane, 1);
  CHECK(lane.best == 2, "runner %zu won, the best is out: %d", lane.best, lane.runner[2].out);
}

/* Equal costs: the fixed order decides, wherever its first stands. */
static void test_tie(void) {
  static race_lane lane;
  double cost[8];
  for (size_t i = 0; i < 8; i++) cost[i] = 5e6 - (double)i; /* and noise of their own */
  for (int reversed = 0; reversed < 2; reversed++) {
    simulated s = {{cost}, 0.01, 0, 0, 1, 0, 3, {{0}}};
    race_host host = {simulated_time, NULL, &s};
    start(&lane, 8, reversed);
    race_run(&host, &thorough, &lane, 1);
    CHECK(lane.runner[lane.best].order == 0, "order %u won a tie", lane.runner[lane.best].order);
    CHECK(lane.noise > 0 && lane.noise < 0.05, "noise %g", lane.noise);
    CHECK(lane.rounds < RACE_ROUNDS, "a tie took all rounds");
  }
}

/* Two lanes of different lengths decide as each alone; a banned runner is never timed. */
static void test_lanes(void) {
  static race_lane lane[RACE_LANES];
  double first[] = {900, 700, 800, 10}, second[] = {300, 200};
  simulated s = {{first, second}, 0.002, 0, 0, 2, 0, 4, {{0}}};
  race_host host = {simulated_time, NULL, &s};
  start(&lane[0], 4, 0);
  start(&lane[1], 2, 0);
  lane[0].runner[3].out = 1;
  race_run(&host, &thorough, lane, 2);
  CHECK(lane[0].best == 1 && lane[1].best == 1, "picks %zu and %zu", lane[0].best, lane[1].best);
  CHECK(lane[0].runner[3].ns == 0, "the banned runner was timed");
  CHECK(fabs(lane[0].runner[0].ratio - 9.0 / 7) < 0.02, "ratio %g", lane[0].runner[0].ratio);
  lane[0].runner[0].out = lane[0].runner[1].out = lane[0].runner[2].out = 1;
  race_run(&host, &thorough, lane, 1);
  CHECK(lane[0].best == lane[0].count, "all banned, but %zu won", lane[0].best);
}

static int stop_now(void *arg) { return ++*(int *)arg >= 2; }

typedef struct stopped {
  int polls; /* first: stop_now counts in it */
  simulated host;
} stopped;

static void stopped_time(void *arg, const size_t at[RACE_LANES], double ns[RACE_LANES]) {
  simulated_time(&((stopped *)arg)->host, at, ns);
}

/* A race that is stopped decides by what it has. */
static void test_stop(void) {
  static race_lane lane;
  double cost[] = {500, 400, 300};
  stopped s = {0, {{cost}, 0.001, 0, 0, 1, 0, 5, {{0}}}};
  race_host host = {stopped_time, stop_now, &s};
  start(&lane, 3, 0);
  race_run(&host, &thorough, &lane, 1);
  CHECK(lane.rounds == 2 && lane.best == 2, "%zu rounds, pick %zu", lane.rounds, lane.best);
}

void check_race(void) {
  CU_pSuite suite = check_suite("race");
  check_test(suite, "noise, outliers, drift", test_noise);
  check_test(suite, "quiet", test_quiet);
  check_test(suite, "agreement", test_agreement);
  check_test(suite, "moods", test_moods);
  check_test(suite, "border", test_border);
  check_test(suite, "unknown look", test_unknown_look);
  check_test(suite, "effect", test_effect);
  check_test(suite, "spell", test_spell);
  check_test(suite, "tie", test_tie);
  check_test(suite, "lanes", test_lanes);
  check_test(suite, "stop", test_stop);
}
