/* counters.h - what the CPU counted while a thread ran: for reading, never for choosing.
 *
 * Events are named in libpfm4's words and counted by the kernel's perf interface. Where there is no
 * counter - a virtual machine, perf_event_paranoid - the count is NaN, never 0, and the reason is
 * said once. Task clock and TSC are there always (NaN on a CPU without TSC). */
#ifndef FP4MOE_COUNTERS_H
#define FP4MOE_COUNTERS_H

#include <stddef.h>
#include <stdint.h>

enum { COUNTERS_CYCLES, COUNTERS_INSTRUCTIONS, COUNTERS_LLC_MISSES, COUNTERS_EVENTS };

extern const char *const counters_names[COUNTERS_EVENTS]; /* libpfm4's */

typedef struct counters counters; /* of the thread that opened them */

typedef struct counters_sample {
  double event[COUNTERS_EVENTS]; /* NaN: not counted. Scaled up where the kernel multiplexed */
  double task_clock_ns;          /* CPU time of the thread */
  double tsc;                    /* ticks; NaN: none */
} counters_sample;

/* NULL: no memory. */
counters *counters_open(void);
void counters_close(counters *c);

/* Why some event is not counted; "" = all are. */
const char *counters_missing(const counters *c);

/* What has been counted so far; differences of two samples are what counts. */
counters_sample counters_read(const counters *c);
counters_sample counters_between(const counters_sample *before, const counters_sample *after);

/* The perf attribute of an event by libpfm4. 0: `why` says what libpfm4 said, or that this build
 * has none. */
int counters_encode(const char *event, uint32_t *type, uint64_t *config, char *why, size_t cap);

#endif
