/* team.c - threads that meet at a barrier (team.h). */
#include "team.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "check.h"

enum { MOST = 16 };

typedef struct member {
  fp4moe_team team;
  team_fn *fn;
  void *arg;
  fp4moe_status status;
  char detail[256];
} member;

static void meet(void *arg) { pthread_barrier_wait(arg); }

static void *join_call(void *arg) {
  member *m = arg;
  m->status = m->fn(m->arg, &m->team);
  snprintf(m->detail, sizeof m->detail, "%s", m->status ? fp4moe_error_detail() : "");
  return NULL;
}

const char *team_run(size_t nth, team_fn *fn, void *arg, fp4moe_status want) {
  static char detail[256];
  pthread_t threads[MOST];
  pthread_barrier_t barrier;
  member m[MOST];
  pthread_barrier_init(&barrier, NULL, (unsigned)nth);
  for (size_t i = 0; i < nth; i++) {
    m[i] = (member){{i, nth, meet, &barrier}, fn, arg, FP4MOE_OK, ""};
    pthread_create(&threads[i], NULL, join_call, &m[i]);
  }
  for (size_t i = 0; i < nth; i++) pthread_join(threads[i], NULL);
  for (size_t i = 0; i < nth; i++)
    CHECK(m[i].status == want && !strcmp(m[i].detail, m[0].detail), "thread %zu of %zu: %s: %s", i,
          nth, fp4moe_status_name(m[i].status), m[i].detail);
  pthread_barrier_destroy(&barrier);
  return strcpy(detail, m[0].detail);
}
