/* check_counters.c - perf events by libpfm4's names, and counts that are numbers or NaN, never a
 * made-up zero (counters.h). */
#include <linux/perf_event.h>
#include <math.h>
#include <string.h>

#include "check.h"
#include "counters.h"

static void test_encoding(void) {
  static const uint64_t configs[COUNTERS_EVENTS] = {
      [COUNTERS_CYCLES] = PERF_COUNT_HW_CPU_CYCLES,
      [COUNTERS_INSTRUCTIONS] = PERF_COUNT_HW_INSTRUCTIONS,
      [COUNTERS_LLC_MISSES] = PERF_COUNT_HW_CACHE_MISSES};
  char why[128] = "";
  uint32_t type;
  uint64_t config;
  if (!counters_encode(counters_names[0], &type, &config, why, sizeof why) &&
      strstr(why, "without")) {
    check_skip("counters encoding", why);
    return;
  }
  for (int i = 0; i < COUNTERS_EVENTS; i++) {
    CHECK(counters_encode(counters_names[i], &type, &config, why, sizeof why), "%s", why);
    CHECK(type == PERF_TYPE_HARDWARE && config == configs[i], "%s: type %u, config %llu",
          counters_names[i], type, (unsigned long long)config);
  }
  CHECK(!counters_encode("NO_SUCH_EVENT", &type, &config, why, sizeof why), "an unknown event");
  CHECK(strstr(why, "NO_SUCH_EVENT") != NULL, "the reason is \"%s\"", why);
}

static void test_counts(void) {
  counters *c = counters_open();
  if (!CHECK(c != NULL, "no memory")) return;
  counters_sample before = counters_read(c);
  volatile double sum = 0;
  for (int i = 0; i < 1000000; i++) sum = sum + i;
  counters_sample after = counters_read(c), d = counters_between(&before, &after);
  int counted = 0;
  for (int i = 0; i < COUNTERS_EVENTS; i++) counted += !isnan(d.event[i]);
  CHECK((counted == COUNTERS_EVENTS) == !*counters_missing(c), "%d events counted, missing: \"%s\"",
        counted, counters_missing(c));
  double instructions = d.event[COUNTERS_INSTRUCTIONS];
  CHECK(isnan(instructions) || instructions > 1e6, "%g instructions", instructions);
  CHECK(d.task_clock_ns > 0, "task clock %g ns", d.task_clock_ns);
#if defined(__x86_64__)
  CHECK(d.tsc > 0, "%g ticks", d.tsc);
#endif
  counters_close(c);
}

void check_counters(void) {
  CU_pSuite suite = check_suite("counters");
  check_test(suite, "encoding", test_encoding);
  check_test(suite, "counts", test_counts);
}
