/* counters.c - perf events through libpfm4 (counters.h). Each event is a file of its own, so that
 * one that a host lacks does not take the others with it. */
#include <errno.h>
#include <linux/perf_event.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#ifdef FP4MOE_PFM
#include <perfmon/pfmlib_perf_event.h>
#endif

#include "counters.h"

const char *const counters_names[COUNTERS_EVENTS] = {
    [COUNTERS_CYCLES] = "PERF_COUNT_HW_CPU_CYCLES",
    [COUNTERS_INSTRUCTIONS] = "PERF_COUNT_HW_INSTRUCTIONS",
    [COUNTERS_LLC_MISSES] = "PERF_COUNT_HW_CACHE_MISSES",
};

struct counters {
  int fd[COUNTERS_EVENTS]; /* -1: none */
  char missing[256];
};

#ifdef FP4MOE_PFM
int counters_encode(const char *event, uint32_t *type, uint64_t *config, char *why, size_t cap) {
  struct perf_event_attr attr = {.size = sizeof attr};
  pfm_perf_encode_arg_t arg = {.attr = &attr, .size = sizeof arg};
  int error = pfm_initialize();
  if (!error) error = pfm_get_os_event_encoding(event, PFM_PLM3, PFM_OS_PERF_EVENT, &arg);
  if (error) snprintf(why, cap, "%s: libpfm4: %s", event, pfm_strerror(error));
  *type = attr.type;
  *config = attr.config;
  return !error;
}
#else
int counters_encode(const char *event, uint32_t *type, uint64_t *config, char *why, size_t cap) {
  snprintf(why, cap, "%s: built without libpfm4", event);
  *type = 0;
  *config = 0;
  return 0;
}
#endif

static int open_event(const char *name, char *why, size_t cap) {
  struct perf_event_attr attr = {.size = sizeof attr,
                                 .exclude_kernel = 1,
                                 .exclude_hv = 1,
                                 .read_format = PERF_FORMAT_TOTAL_TIME_ENABLED |
                                                PERF_FORMAT_TOTAL_TIME_RUNNING};
  uint32_t type;
  uint64_t config;
  if (!counters_encode(name, &type, &config, why, cap)) return -1;
  attr.type = type;
  attr.config = config;
  int fd = (int)syscall(SYS_perf_event_open, &attr, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
  if (fd < 0) snprintf(why, cap, "%s: %s", name, strerror(errno));
  return fd;
}

counters *counters_open(void) {
  counters *c = calloc(1, sizeof *c);
  for (int i = 0; c && i < COUNTERS_EVENTS; i++) {
    char why[sizeof c->missing] = "";
    c->fd[i] = open_event(counters_names[i], why, sizeof why);
    if (!*c->missing) memcpy(c->missing, why, sizeof why);
  }
  return c;
}

void counters_close(counters *c) {
  for (int i = 0; c && i < COUNTERS_EVENTS; i++)
    if (c->fd[i] >= 0) close(c->fd[i]);
  free(c);
}

const char *counters_missing(const counters *c) { return c->missing; }

static double read_event(int fd) {
  uint64_t got[3]; /* count, time enabled, time running */
  if (fd < 0 || read(fd, got, sizeof got) != (ssize_t)sizeof got || !got[2]) return NAN;
  return (double)got[0] * ((double)got[1] / (double)got[2]);
}

static double read_tsc(void) {
#if defined(__x86_64__)
  return (double)__builtin_ia32_rdtsc();
#else
  return NAN;
#endif
}

counters_sample counters_read(const counters *c) {
  counters_sample s;
  struct timespec t;
  for (int i = 0; i < COUNTERS_EVENTS; i++) s.event[i] = read_event(c->fd[i]);
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  s.task_clock_ns = (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
  s.tsc = read_tsc();
  return s;
}

counters_sample counters_between(const counters_sample *before, const counters_sample *after) {
  counters_sample d = {.task_clock_ns = after->task_clock_ns - before->task_clock_ns,
                       .tsc = after->tsc - before->tsc};
  for (int i = 0; i < COUNTERS_EVENTS; i++) d.event[i] = after->event[i] - before->event[i];
  return d;
}
