/* race.c - rounds, paired ratios and the decision (race.h).
 *
 * A runner is what the middle half of its ratios says. One figure tells how far a single ratio
 * strays: sigma, from the median distance of all runners' ratios, and of the leader's to itself, to
 * their own middle, so that outliers move neither. The middle of n then strays by 1.1 sigma /
 * sqrt(n). A runner is out for good, and looked at after every round, at three of these; what is
 * equal in the end, at two. A quiet host is sure at once, a noisy one waits. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "measure.h"
#include "race.h"

static const double SURE = 3, LIKELY = 2;
static const double SCREENS[] = {1.5, 1.15};

typedef struct times {
  double ns[RACE_ROUNDS]; /* by round; 0: not run in it */
} times;

typedef struct track {
  race_lane *lane;
  times *runner;             /* [count] */
  double again[RACE_ROUNDS]; /* the leader's second time over its first, 0: none */
  double *away;              /* [(count + 1) * RACE_ROUNDS], for sigma */
  double sigma;              /* of one ratio */
  size_t leader;
  size_t order[RACE_MAX + 1], entries; /* of this round: runners, one of them twice */
} track;

/* ---- Middles, and how far they stray ---- */

static double median_of(double *values, size_t n) { return measure_summarise(values, n).median; }

/* Mean of the middle half: as deaf to outliers as a median, and strays less. */
static double middle_of(double *values, size_t n) {
  double sum = 0;
  size_t cut = n / 4;
  measure_summarise(values, n); /* sorts */
  for (size_t i = cut; i < n - cut; i++) sum += values[i];
  return sum / (double)(n - 2 * cut);
}

/* A runner's times over the leader's, round by round; returns how many. */
static size_t ratios_of(const track *t, size_t i, size_t rounds, double *ratio) {
  size_t n = 0;
  for (size_t r = 0; r < rounds; r++) {
    double a = t->runner[i].ns[r], b = t->runner[t->leader].ns[r];
    if (a > 0 && b > 0) ratio[n++] = a / b;
  }
  return n;
}

/* Distances |ratio / middle - 1| into `away`, widened for what a middle of few takes from them. */
static size_t distances(double *ratio, size_t n, double *away) {
  double middle = n > 1 ? middle_of(ratio, n) : 1, widen = sqrt((double)n / (double)(n - 1));
  for (size_t j = 0; n > 1 && j < n; j++) away[j] = fabs(ratio[j] / middle - 1) * widen;
  return n > 1 ? n : 0;
}

/* The leader's second time over its first, round by round. */
static size_t ratios_to_itself(const track *t, size_t rounds, double *ratio) {
  size_t n = 0;
  for (size_t r = 0; r < rounds; r++)
    if (t->again[r] > 0) ratio[n++] = t->again[r];
  return n;
}

static void find_sigma(track *t, size_t rounds) {
  double ratio[RACE_ROUNDS];
  size_t n = distances(ratio, ratios_to_itself(t, rounds, ratio), t->away);
  for (size_t i = 0; i < t->lane->count; i++)
    if (!t->lane->runner[i].out && i != t->leader)
      n += distances(ratio, ratios_of(t, i, rounds, ratio), t->away + n);
  if (n) t->sigma = 1.48 * median_of(t->away, n);
}

/* One standard deviation of the middle of n ratios. */
static double deviation(double sigma, size_t n) {
  return n ? 1.1 * sigma / sqrt((double)n) : INFINITY;
}

static double middle_ns(const track *t, size_t i, size_t rounds) {
  double ns[RACE_ROUNDS];
  size_t n = 0;
  for (size_t r = 0; r < rounds; r++)
    if (t->runner[i].ns[r] > 0) ns[n++] = t->runner[i].ns[r];
  return n ? middle_of(ns, n) : 0;
}

static double least_ns(const track *t, size_t i, size_t rounds) {
  double least = INFINITY;
  for (size_t r = 0; r < rounds; r++)
    if (t->runner[i].ns[r] > 0) least = fmin(least, t->runner[i].ns[r]);
  return least;
}

/* What ratios may be above 1 and still equal. */
static double equal_within(const track *t, size_t rounds, double effect) {
  return fmin(fmax(effect, LIKELY * deviation(t->sigma, rounds)), 1);
}

/* ---- A round ---- */

static void shuffle(track *t, measure_rng *rng) {
  t->entries = 0;
  for (size_t i = 0; i < t->lane->count; i++)
    if (!t->lane->runner[i].out) t->order[t->entries++] = i;
  t->order[t->entries++] = t->leader;
  for (size_t i = t->entries; i-- > 1;) {
    size_t j = (size_t)(measure_random(rng) % (i + 1)), swap = t->order[i];
    t->order[i] = t->order[j], t->order[j] = swap;
  }
}

static void note(track *t, size_t turn, size_t round, double ns) {
  if (turn >= t->entries) return; /* the lane had its round, another had not */
  double *first = &t->runner[t->order[turn]].ns[round];
  if (*first > 0)
    t->again[round] = ns / *first;
  else
    *first = ns;
}

static void run_round(const race_host *host, track *tracks, size_t n, size_t round,
                      measure_rng *rng) {
  size_t turns = 0;
  for (size_t l = 0; l < n; l++) {
    shuffle(&tracks[l], rng);
    if (tracks[l].entries > turns) turns = tracks[l].entries;
  }
  for (size_t turn = 0; turn < turns; turn++) {
    size_t at[RACE_LANES] = {0};
    double ns[RACE_LANES] = {0};
    for (size_t l = 0; l < n; l++) at[l] = tracks[l].order[turn % tracks[l].entries];
    host->time(host->arg, at, ns);
    for (size_t l = 0; l < n; l++) note(&tracks[l], turn, round, ns[l]);
  }
}

/* ---- Who stays ---- */

/* The least time among those that run; ties to the fixed order. */
static void find_leader(track *t, size_t rounds) {
  size_t best = t->leader;
  double least = INFINITY;
  for (size_t i = 0; i < t->lane->count; i++) {
    const race_runner *r = &t->lane->runner[i];
    double ns = r->out ? INFINITY : middle_ns(t, i, rounds);
    if (ns < least || (ns == least && r->order < t->lane->runner[best].order)) least = ns, best = i;
  }
  t->leader = best;
}

/* Screening: what never came near the leader. */
static void screen(track *t, size_t rounds, double most) {
  double middle = middle_ns(t, t->leader, rounds);
  for (size_t i = 0; i < t->lane->count; i++)
    if (i != t->leader && least_ns(t, i, rounds) > most * middle) t->lane->runner[i].out = 1;
}

/* The runners' ratios as far as the race is; drops what is surely slower than equal. */
static void drop_slow(track *t, size_t rounds, double effect) {
  for (size_t i = 0; i < t->lane->count; i++) {
    race_runner *r = &t->lane->runner[i];
    double ratio[RACE_ROUNDS];
    if (r->out) continue;
    size_t n = ratios_of(t, i, rounds, ratio);
    r->ratio = n ? middle_of(ratio, n) : 0;
    r->out = i != t->leader && r->ratio - SURE * deviation(t->sigma, n) > 1 + effect;
  }
}

/* Of those in the race that are equal to the leader the first in the fixed order. */
static size_t first_equal(const track *t, double within) {
  const race_runner *r = t->lane->runner;
  size_t best = t->leader;
  for (size_t i = 0; i < t->lane->count; i++)
    if (!r[i].out && r[i].ratio > 0 && r[i].ratio <= 1 + within && r[i].order < r[best].order)
      best = i;
  return best;
}

/* May more rounds bring another decision? Not when all before the pick are out, and it is surely
 * equal to each of the others, which one of them the leader may be. */
static int is_open(const track *t, size_t rounds, double effect) {
  const race_runner *r = t->lane->runner;
  size_t best = first_equal(t, equal_within(t, rounds, effect));
  double most = r[best].ratio * (1 + LIKELY * deviation(t->sigma, rounds));
  for (size_t i = 0; i < t->lane->count; i++)
    if (!r[i].out && i != best && (r[i].order < r[best].order || most > (1 + effect) * r[i].ratio))
      return 1;
  return 0;
}

static void decide(track *t, size_t rounds, double effect) {
  race_lane *lane = t->lane;
  find_leader(t, rounds);
  find_sigma(t, rounds);
  for (size_t i = 0; i < lane->count; i++) {
    double ratio[RACE_ROUNDS];
    size_t n = ratios_of(t, i, rounds, ratio);
    lane->runner[i].ns = middle_ns(t, i, rounds);
    lane->runner[i].ratio = n ? middle_of(ratio, n) : 0;
  }
  lane->noise = equal_within(t, rounds, effect);
  lane->leader = t->leader;
  lane->best = first_equal(t, lane->noise);
  lane->rounds = rounds;
}

/* ---- The race ---- */

/* How many lanes have runners, and memory for them. */
static size_t open_tracks(race_lane *lanes, size_t n, track *tracks, int *memory) {
  size_t used = 0;
  for (size_t l = 0; l < n; l++) {
    size_t first = 0;
    while (first < lanes[l].count && lanes[l].runner[first].out) first++;
    lanes[l].best = lanes[l].leader = lanes[l].count;
    if (first == lanes[l].count) continue;
    tracks[l] = (track){.lane = &lanes[l], .leader = first, .sigma = INFINITY};
    tracks[l].runner = calloc(lanes[l].count, sizeof *tracks[l].runner);
    tracks[l].away = calloc((lanes[l].count + 1) * RACE_ROUNDS, sizeof *tracks[l].away);
    if (!tracks[l].runner || !tracks[l].away)
      *memory = 0;
    else
      used++;
  }
  return used;
}

static int is_over(track *tracks, size_t n, size_t rounds, const race_rules *rules) {
  size_t screened = rules->screen_rounds, least = screened + rules->least_rounds, open = 0;
  for (size_t l = 0; l < n; l++) {
    find_leader(&tracks[l], rounds);
    find_sigma(&tracks[l], rounds);
    if (rounds >= screened && rounds < least)
      screen(&tracks[l], rounds, SCREENS[rounds > screened]);
    if (rounds < least) continue;
    drop_slow(&tracks[l], rounds, rules->effect);
    open += (size_t)is_open(&tracks[l], rounds, rules->effect);
  }
  return rounds >= rules->most_rounds || (rounds >= least && !open);
}

int race_run(const race_host *host, const race_rules *rules, race_lane *lanes, size_t n) {
  track *tracks = calloc(n, sizeof *tracks);
  int memory = tracks != NULL;
  measure_rng rng = {rules->seed};
  size_t rounds = 0;
  if (memory && open_tracks(lanes, n, tracks, &memory) == n)
    while (rounds < RACE_ROUNDS) {
      run_round(host, tracks, n, rounds++, &rng);
      if ((host->stop && host->stop(host->arg)) || is_over(tracks, n, rounds, rules)) break;
    }
  for (size_t l = 0; tracks && l < n; l++) {
    if (tracks[l].runner && rounds) decide(&tracks[l], rounds, rules->effect);
    free(tracks[l].runner);
    free(tracks[l].away);
  }
  free(tracks);
  return memory;
}

/* ---- Two looks ---- */

race_look race_look_at(const race_lane *lane) {
  const race_runner *incumbent = &lane->runner[0], *pick = &lane->runner[1];
  if (incumbent->ratio <= 0 || pick->ratio <= 0) return (race_look){0, lane->noise};
  return (race_look){incumbent->ratio / pick->ratio, lane->noise};
}

race_look race_both(race_look first, race_look second) {
  if (first.ratio <= 0) return second;
  if (second.ratio <= 0) return first;
  double noise = fmax(first.noise, second.noise) + fabs(first.ratio - second.ratio);
  return (race_look){sqrt(first.ratio * second.ratio), fmin(noise, 1)};
}
