/* check_sharing.c - one layer in many hands: threads of the application and children of forks, all
 * at once, each with its own number of the layer's threads.
 *
 * Every call must give the bits that the same call gave alone. A child inherits the layer while
 * other threads of its parent are within calls, or while the pool's threads are being made; it has
 * none of these threads, and must neither wait for them nor for what they held. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "layer_fixture.h"

enum { MOST_THREADS = 16, CALLERS = 10, ROUNDS = 16, FORKS = 4, STARTS = 30, SECONDS = 60 };

typedef struct caller {
  fp4moe_layer *layer;
  problem p;
  float *want;
  size_t number;
  const atomic_int *stop; /* NULL: after so many rounds */
  int rounds, calls, wrong;
  pthread_t thread;
} caller;

static size_t bytes_of(const caller *c) { return c->p.tokens * c->p.hidden * sizeof(float); }

static void *call_often(void *arg) {
  caller *c = arg;
  fp4moe_batch b = batch_of(&c->p);
  for (int i = 0; c->stop ? !atomic_load(c->stop) : i < c->rounds; i++) {
    b.threads = 1 + (c->number * 5 + (size_t)i * 3) % MOST_THREADS;
    memset(c->p.y, 0xff, bytes_of(c));
    c->wrong += run(c->layer, &b) || memcmp(c->p.y, c->want, bytes_of(c)) != 0;
    c->calls++;
  }
  return NULL;
}

/* ---- A layer and its callers ---- */

typedef struct crowd {
  fp4moe_context *ctx;
  random_layer *m;
  fp4moe_layer *layer;
  caller caller[CALLERS];
} crowd;

/* Each caller has tokens of its own; what they must give is made by one thread, alone. */
static void open_crowd(crowd *c, const class_word *w) {
  const fp4moe_layer_desc d = class_desc(w, 96, w->format == FP4MOE_MXFP4 ? 160 : 144, 6);
  *c = (crowd){.ctx = context_of(MOST_THREADS), .m = random_layer_new(&d, 1, NULL)};
  c->layer = layer_of(c->m, c->ctx);
  for (size_t i = 0; i < CALLERS; i++) {
    caller *k = &c->caller[i];
    *k = (caller){.layer = c->layer, .p = draw(&d, 1 + i * i / 2, 3, 1), .number = i};
    fp4moe_batch b = batch_of(&k->p);
    b.threads = 1;
    k->want = outputs(c->layer, &b);
  }
}

/* The first n of them. */
static void start_crowd(crowd *c, size_t n, const atomic_int *stop) {
  for (size_t i = 0; i < n; i++) {
    c->caller[i].stop = stop;
    c->caller[i].rounds = ROUNDS;
    pthread_create(&c->caller[i].thread, NULL, call_often, &c->caller[i]);
  }
}

static void join_crowd(crowd *c, size_t n, const char *what) {
  for (size_t i = 0; i < n; i++) {
    caller *k = &c->caller[i];
    pthread_join(k->thread, NULL);
    CHECK(k->calls && !k->wrong, "%s, caller %zu: %d of %d calls are wrong", what, i, k->wrong,
          k->calls);
  }
}

static void close_crowd(crowd *c) {
  fp4moe_layer_destroy(c->layer);
  for (size_t i = 0; i < CALLERS; i++) {
    drop(&c->caller[i].p);
    free(c->caller[i].want);
  }
  random_layer_free(c->m);
  fp4moe_context_destroy(c->ctx);
}

/* ---- Children ---- */

/* 0: every call of a child, and of its own child, is right, and it can give everything back. */
static int use_in_child(crowd *c, int generations) {
  int status = 0;
  alarm(SECONDS);
  for (size_t i = 0; i < CALLERS; i++) {
    caller k = c->caller[i];
    k.stop = NULL;
    k.rounds = 1;
    k.wrong = 0;
    call_often(&k);
    if (k.wrong) return 1;
  }
  pid_t child = generations > 1 ? fork() : -1;
  if (child == 0) _exit(use_in_child(c, generations - 1));
  if (child > 0 && (waitpid(child, &status, 0) != child || status)) return 2;
  fp4moe_layer_destroy(c->layer);
  fp4moe_context_destroy(c->ctx);
  return 0;
}

static void check_child(crowd *c, int generations, const char *what) {
  int status = -1;
  pid_t child = fork();
  if (child == 0) _exit(use_in_child(c, generations));
  CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0,
        "%s: the child ended with %#x", what, (unsigned)status);
}

/* ---- Tests ---- */

static const class_word *const words[] = {&class_words[CLASS_F32_NV], &class_words[CLASS_BF16_MX],
                                          &class_words[CLASS_INT8_NV],
                                          &class_words[CLASS_NVFP4_TOKEN]};
enum { WORDS = sizeof words / sizeof *words };

static void threads_on_one_layer(void) {
  crowd c;
  for (size_t i = 0; i < WORDS; i++) {
    open_crowd(&c, words[i]);
    start_crowd(&c, CALLERS, NULL);
    join_crowd(&c, CALLERS, words[i]->name);
    close_crowd(&c);
  }
}

static void forks_beside_calls(void) {
  crowd c;
  atomic_int stop = 0;
  if (check_cannot_fork("children beside calls")) return;
  open_crowd(&c, words[1]);
  start_crowd(&c, 3, &stop);
  for (int i = 0; i < FORKS; i++) check_child(&c, 1 + i % 2, "beside calls");
  atomic_store(&stop, 1);
  join_crowd(&c, 3, "beside forks");
  start_crowd(&c, CALLERS, NULL);
  join_crowd(&c, CALLERS, "after forks");
  close_crowd(&c);
}

/* The first call makes the threads, and the fork comes at any moment of that. */
static void forks_at_the_start(void) {
  crowd c;
  if (check_cannot_fork("children while a pool starts")) return;
  open_crowd(&c, words[2]);
  fp4moe_layer_destroy(c.layer);
  for (int i = 0; i < STARTS; i++) {
    fp4moe_context *ctx = context_of(MOST_THREADS);
    caller *k = &c.caller[i % CALLERS];
    crowd one = {.ctx = ctx};
    one.layer = layer_of(c.m, ctx);
    for (size_t j = 0; j < CALLERS; j++) {
      one.caller[j] = c.caller[j];
      one.caller[j].layer = one.layer;
    }
    k->layer = one.layer;
    k->stop = NULL;
    k->rounds = 1;
    pthread_create(&k->thread, NULL, call_often, k);
    usleep((useconds_t)check_below(300));
    check_child(&one, 1, "at the start");
    pthread_join(k->thread, NULL);
    CHECK(!k->wrong, "%d calls are wrong", k->wrong);
    fp4moe_layer_destroy(one.layer);
    fp4moe_context_destroy(ctx);
  }
  c.layer = NULL;
  close_crowd(&c);
}

void check_sharing(void) {
  CU_pSuite s = check_suite("sharing");
  check_test(s, "threads on one layer", threads_on_one_layer);
  check_test(s, "forks beside calls", forks_beside_calls);
  check_test(s, "forks at the start", forks_at_the_start);
}
