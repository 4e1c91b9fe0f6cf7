/* pool.c - threads that spin, then sleep (see pool.h).
 *
 * A call publishes {fn, arg, n}, raises `call` and, if someone sleeps, wakes them; each thread runs
 * its share and lowers `left`; the caller runs share 0 and waits for left == 0. `call` is the only
 * thing threads wait on, `left` the only thing the caller waits on: both are futex words, tested
 * by spinning first. */
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "cpu.h"
#include "pool.h"

typedef struct {
  fp4moe_pool *pool;
  pthread_t thread;
  size_t index;
  int pu;
} worker;

struct fp4moe_pool {
  pthread_mutex_t turn; /* one call at a time */
  _Atomic pid_t owner; /* the process whose threads these are, -that while it makes them; 0: none */
  size_t threads, started;
  uint64_t spin_ns;
  void (*fn)(void *arg, size_t i);
  void *arg;
  size_t n;
  int quit;
  _Alignas(64) atomic_uint call;
  _Alignas(64) atomic_uint left;
  _Alignas(64) atomic_uint sleepers;
  worker workers[];
};

uint64_t fp4moe_now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void futex_wait(atomic_uint *word, unsigned seen) {
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void futex_wake(atomic_uint *word) {
  syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

/* Spins until *word != seen or the time is over; returns whether it changed. */
static int spin_while(atomic_uint *word, unsigned seen, uint64_t ns) {
  uint64_t end = 0;
  for (unsigned turn = 1; atomic_load(word) == seen; turn++) {
    if (turn % 64 == 0) {
      uint64_t now = fp4moe_now_ns();
      if (!end) end = now + ns;
      if (now >= end) return 0;
    }
    fp4moe_cpu_relax();
  }
  return 1;
}

static void wait_call(fp4moe_pool *p, unsigned seen) {
  if (spin_while(&p->call, seen, p->spin_ns)) return;
  atomic_fetch_add(&p->sleepers, 1);
  while (atomic_load(&p->call) == seen) futex_wait(&p->call, seen);
  atomic_fetch_sub(&p->sleepers, 1);
}

static void run_share(fp4moe_pool *p, size_t index) {
  for (size_t i = index; i < p->n; i += p->started + 1) p->fn(p->arg, i);
}

static void pin(int pu) {
  cpu_set_t set;
  if (pu < 0 || pu >= CPU_SETSIZE) return;
  CPU_ZERO(&set);
  CPU_SET((size_t)pu, &set);
  pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

static void *thread_main(void *arg) {
  worker *w = arg;
  fp4moe_pool *p = w->pool;
  char name[16];
  snprintf(name, sizeof name, "fp4moe/%zu", w->index % 1000);
  pthread_setname_np(pthread_self(), name);
  pin(w->pu);
  for (unsigned seen = 0;;) {
    wait_call(p, seen);
    seen++;
    if (p->quit) return NULL;
    run_share(p, w->index);
    if (atomic_fetch_sub(&p->left, 1) == 1) futex_wake(&p->left);
  }
}

fp4moe_pool *fp4moe_pool_create(size_t threads, const int *pu, uint64_t spin_ns) {
  fp4moe_pool *p = aligned_alloc(64, (sizeof *p + threads * sizeof(worker) + 63) / 64 * 64);
  if (!p) return NULL;
  pthread_mutex_init(&p->turn, NULL);
  atomic_init(&p->owner, 0);
  p->threads = threads;
  p->started = 0;
  p->spin_ns = spin_ns;
  p->quit = 0;
  for (size_t i = 0; i < threads; i++) p->workers[i] = (worker){p, 0, i, pu ? pu[i] : -1};
  return p;
}

/* Threads of this process: made at the first call, and again in the child of a fork, which may come
 * while its parent makes them. */
static void start(fp4moe_pool *p, pid_t self) {
  pid_t old = atomic_load(&p->owner);
  while (old != self) {
    if (old == -self || !atomic_compare_exchange_weak(&p->owner, &old, -self)) {
      sched_yield();
      old = atomic_load(&p->owner);
      continue;
    }
    pthread_mutex_init(&p->turn, NULL);
    atomic_init(&p->call, 0);
    atomic_init(&p->left, 0);
    atomic_init(&p->sleepers, 0);
    p->started = 0;
    for (size_t i = 1; i < p->threads; i++) {
      if (pthread_create(&p->workers[i].thread, NULL, thread_main, &p->workers[i])) break;
      p->started = i;
    }
    atomic_store(&p->owner, self);
    return;
  }
}

static void publish(fp4moe_pool *p) {
  atomic_store(&p->left, (unsigned)p->started);
  atomic_fetch_add(&p->call, 1);
  if (atomic_load(&p->sleepers)) futex_wake(&p->call);
}

static void wait_all(fp4moe_pool *p) {
  for (unsigned left; (left = atomic_load(&p->left)) != 0;)
    if (!spin_while(&p->left, left, p->spin_ns)) futex_wait(&p->left, left);
}

void fp4moe_pool_run(void *pool, size_t n, void (*fn)(void *arg, size_t i), void *arg) {
  fp4moe_pool *p = pool;
  start(p, getpid());
  pthread_mutex_lock(&p->turn);
  p->fn = fn;
  p->arg = arg;
  p->n = n;
  publish(p);
  run_share(p, 0);
  wait_all(p);
  pthread_mutex_unlock(&p->turn);
}

void fp4moe_pool_destroy(fp4moe_pool *p) {
  if (!p) return;
  if (atomic_load(&p->owner) == getpid()) {
    p->quit = 1;
    atomic_fetch_add(&p->call, 1);
    futex_wake(&p->call);
    for (size_t i = 1; i <= p->started; i++) pthread_join(p->workers[i].thread, NULL);
  }
  pthread_mutex_destroy(&p->turn);
  free(p);
}
