/* race.h - which of several candidates is the fastest, decided under noise.
 *
 * A lane is one race; the lanes of a run share their calls: one call times one candidate of each
 * (the two phases of a layer). Each round times every runner once, in an order drawn anew, so that
 * drift and neighbours hit all alike; runners are compared by the ratios of their times within a
 * round. The leader is timed twice a round: that ratio, a thing against itself, shows the noise.
 *
 * Two candidates are equal when they differ by no more than `effect`: so little decides nothing,
 * or two runs on one host would choose by luck. Where the noise is larger than that, its bound,
 * two standard deviations, takes its place.
 *
 *   screening   out where even the fastest of its times is above 1.5, and then 1.15 times the
 *               leader's middle: a slow spell of the host hits some times of a runner, not all
 *   race        out once it is surely slower than equal; over when every runner that stands before
 *               the pick is out and the pick is surely equal, or when rounds or time are over
 *   decision    of those equal to the leader the first in the candidates' fixed order, whatever
 *               order they started in: the incumbent stays unless beaten by more than `effect`
 *
 * The clock is the caller's: tests run a simulated host. */
#ifndef FP4MOE_RACE_H
#define FP4MOE_RACE_H

#include <stddef.h>
#include <stdint.h>

enum { RACE_LANES = 2, RACE_MAX = 128, RACE_ROUNDS = 400 };

typedef struct race_host {
  /* Times one call: candidate at[lane] in each lane, ns[lane] > 0. */
  void (*time)(void *arg, const size_t at[RACE_LANES], double ns[RACE_LANES]);
  int (*stop)(void *arg); /* 1: no further round. NULL: never */
  void *arg;
} race_host;

typedef struct race_rules {
  size_t screen_rounds; /* before the first runner may go, >= 2 */
  size_t least_rounds;  /* of the race, >= 5 */
  size_t most_rounds;   /* <= RACE_ROUNDS, screening included */
  double effect;        /* the least difference that counts, such as 0.03 */
  uint64_t seed;        /* of the orders */
} race_rules;

typedef struct race_runner {
  uint32_t order; /* in: place in the fixed order, unique within the lane */
  int out;        /* in: 1 = banned, never timed. out: 1 = surely slower */
  double ns;      /* out: middle of its times; 0: never timed */
  double ratio; /* out: its time over the leader's in the same round, the middle; the leader's: 1 */
} race_runner;

typedef struct race_lane {
  race_runner runner[RACE_MAX];
  size_t count;
  size_t best;   /* out: the decision; count: every runner was banned */
  size_t leader; /* out: of the least time */
  double noise;  /* out: ratios up to 1 + noise were equal to the leader: effect, or the bound */
  size_t rounds;
} race_lane;

/* Runs lanes[0 .. n), n <= RACE_LANES; a lane without runners is left alone. 0: no memory, and
 * nothing was run. */
int race_run(const race_host *host, const race_rules *rules, race_lane *lanes, size_t n);

/* What a race said of a pick and the incumbent that it would replace. */
typedef struct race_look {
  double ratio; /* the incumbent's time over the pick's; 0: not known */
  double noise; /* of the race */
} race_look;

/* A lane of the two, the incumbent first, as a look. */
race_look race_look_at(const race_lane *lane);

/* Two looks at a pair, minutes apart: the middle of their ratios. Its noise is the races' and, on
 * top of it, what the looks differ by: where a host's memory has moods, another run may see as much
 * of a difference to this one; at most 1, as of a race. Where one look is not known the other
 * stands alone. */
race_look race_both(race_look first, race_look second);

/* Is the pick ahead by more than the race's noise? Asked of each look, not of both in one: what is
 * ahead in one mood only goes. */
static inline int race_beats(race_look look) { return look.ratio > 1 + look.noise; }

#endif
