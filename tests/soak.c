/* soak.c - the program build/soak: layers of all kinds, made, called, replanned and destroyed by
 * many threads while another one reloads tables, for as long as one likes.
 *
 *   soak [SECONDS [SEED]]      600 seconds; `make soak` takes SOAK=SECONDS
 *
 * Every output has the bits of its reference (soak_deck.h): under a known table exactly its, on the
 * context whose table changes one of the three. Each ten seconds all threads rest, and what the
 * process holds is counted: after the warm-up (a tenth of the time, at least one such line) the
 * heap in use (with what malloc keeps by thread) grows by no more than 256 KiB, resident memory by
 * no more than 8 MiB, files and threads not at all. One line each ten seconds; the last line counts
 * a test a card and a resource. The first wrong bit ends it. */
#include <dirent.h>
#include <malloc.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "soak_deck.h"

enum { WORKERS = 3, LINE_SECONDS = 10, HEAP_GROWTH = 256 << 10, RESIDENT_GROWTH = 8 << 20 };

static soak_deck deck;
static fp4moe_context *shared; /* the context whose tables change */
static fp4moe_layer *shared_layer[SOAK_CARDS];
static pthread_rwlock_t rest; /* held for reading by whoever acts */
static atomic_int stop;
static atomic_size_t calls, contexts, reloads, replans, maps;
static atomic_uchar wrong[SOAK_CARDS];
static atomic_int failed;

/* What is not as it must be ends the soak; the harness of build/check is not here. */
void check_fail(const char *file, int line, const char *format, ...) {
  va_list args;
  char text[400];
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  printf("FAIL %s:%d: %s\n", file, line, text);
  atomic_store(&failed, 1);
  atomic_store(&stop, 1);
}

/* ---- A worker ---- */

typedef struct worker {
  uint64_t state; /* of its random numbers */
  void *workspace;
  float *y;
} worker;

static size_t below(worker *w, size_t n) {
  w->state = w->state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return (size_t)((w->state >> 32) * n >> 32);
}

/* The table whose reference y is, of [first, last]; -1: none's. */
static int table_of(const soak_card *card, const float *y, int first, int last) {
  size_t bytes = card->call.tokens * card->call.hidden * sizeof *y;
  for (int t = first; t <= last; t++)
    if (!memcmp(y, card->y[t], bytes)) return t;
  return -1;
}

/* One call on a card's layer, in one piece or in as many as the least workspace makes. */
static void call(worker *w, size_t c, fp4moe_layer *layer, size_t most_threads, int first,
                 int last) {
  const soak_card *card = &deck.card[c];
  fp4moe_batch b = batch_of(&card->call);
  b.y = w->y;
  b.threads = below(w, most_threads + 1);
  const fp4moe_limits limits = {sizeof limits, b.tokens, b.top_k, b.threads};
  size_t bytes = deck.workspace_bytes;
  if (first == last && !below(w, 3)) bytes = fp4moe_workspace_min_bytes(layer, &limits);
  memset(w->y, 0xff, b.tokens * card->call.hidden * sizeof *w->y);
  fp4moe_status status = fp4moe_layer_forward(layer, &b, w->workspace, bytes);
  atomic_fetch_add(&calls, 1);
  int right = CHECK(!status, "%s: %s", card->name, fp4moe_error_detail()) &&
              CHECK(table_of(card, w->y, first, last) >= 0,
                    "%s: other bits than under tables %d to %d, call %zu, %zu threads", card->name,
                    first, last, (size_t)calls, b.threads);
  if (!right) atomic_store(&wrong[c], 1);
}

/* A context of its own, with a table that stays. */
static void private_life(worker *w) {
  size_t c = below(w, deck.count), threads = 1 + below(w, 4);
  int table = (int)below(w, SOAK_TABLES), copy = (int)below(w, 2);
  fp4moe_context *ctx = NULL;
  fp4moe_layer *layer = NULL;
  if (CHECK(!soak_context(&deck, table, threads, &ctx) &&
                !soak_card_layer(&deck.card[c], ctx, copy, &layer),
            "%s: %s", deck.card[c].name, fp4moe_error_detail()))
    for (size_t n = 1 + below(w, 4); n; n--) call(w, c, layer, threads, table, table);
  fp4moe_layer_destroy(layer);
  fp4moe_context_destroy(ctx);
  atomic_fetch_add(&contexts, 1);
  if (*deck.card[c].packed) atomic_fetch_add(&maps, 1);
}

/* The context that all have, while its tables change: its layers, or a new one. */
static void shared_life(worker *w) {
  size_t c = below(w, deck.count);
  fp4moe_layer *layer = shared_layer[c], *own = NULL;
  if (!below(w, 4)) {
    CHECK(!soak_card_layer(&deck.card[c], shared, 0, &own), "%s: %s", deck.card[c].name,
          fp4moe_error_detail());
    layer = own;
  } else if (!below(w, 3)) {
    CHECK(!fp4moe_layer_replan(layer), "%s: %s", deck.card[c].name, fp4moe_error_detail());
    atomic_fetch_add(&replans, 1);
  }
  if (layer) call(w, c, layer, fp4moe_context_threads(shared), 0, SOAK_TABLES - 1);
  fp4moe_layer_destroy(own);
}

static void *work(void *arg) {
  worker *w = arg;
  while (!atomic_load(&stop)) {
    pthread_rwlock_rdlock(&rest);
    if (below(w, 3))
      shared_life(w);
    else
      private_life(w);
    pthread_rwlock_unlock(&rest);
  }
  return NULL;
}

/* Reloads one table after another; sometimes one that is not there, which changes nothing. */
static void *reload(void *arg) {
  worker *w = arg;
  const struct timespec pause = {0, 1000000};
  while (!atomic_load(&stop)) {
    pthread_rwlock_rdlock(&rest);
    int missing = !below(w, 8);
    fp4moe_status status =
        fp4moe_context_reload_table(shared, missing ? "/dev/null/table" : deck.table[below(w, 3)]);
    CHECK(status == (missing ? FP4MOE_SYSTEM : FP4MOE_OK), "reload: %s", fp4moe_error_detail());
    atomic_fetch_add(&reloads, 1);
    pthread_rwlock_unlock(&rest);
    nanosleep(&pause, NULL);
  }
  return NULL;
}

/* ---- What the process holds ---- */

typedef struct holdings {
  size_t heap, resident, files, threads;
} holdings;

static size_t entries_in(const char *path) {
  size_t n = 0;
  DIR *dir = opendir(path);
  while (dir && readdir(dir)) n++;
  if (dir) closedir(dir);
  return n;
}

/* While all rest. */
static holdings count_holdings(void) {
  holdings h = {0};
  malloc_trim(0);
  struct mallinfo2 heap = mallinfo2();
  size_t pages = 0;
  FILE *f = fopen("/proc/self/statm", "re");
  if (f && fscanf(f, "%*u %19zu", &pages) == 1) h.resident = pages * 4096;
  if (f) fclose(f);
  h.heap = heap.uordblks + heap.hblkhd;
  h.files = entries_in("/proc/self/fd");
  h.threads = entries_in("/proc/self/task");
  return h;
}

static double mb(size_t bytes) { return (double)bytes * 1e-6; }

static holdings say_line(size_t second) {
  pthread_rwlock_wrlock(&rest);
  CHECK(!fp4moe_context_reload_table(shared, deck.table[1]), "%s", fp4moe_error_detail());
  holdings h = count_holdings(); /* with the same table each time */
  pthread_rwlock_unlock(&rest);
  printf("%5zu s %9zu calls %7zu contexts %7zu reloads %7zu replans %6zu maps   resident %5.1f MB  "
         "heap %6.3f MB  %zu files  %zu threads\n",
         second, (size_t)calls, (size_t)contexts, (size_t)reloads, (size_t)replans, (size_t)maps,
         mb(h.resident), mb(h.heap), h.files, h.threads);
  fflush(stdout);
  return h;
}

/* The largest of both. */
static void raise(holdings *most, holdings h) {
  if (h.heap > most->heap) most->heap = h.heap;
  if (h.resident > most->resident) most->resident = h.resident;
  if (h.files > most->files) most->files = h.files;
  if (h.threads > most->threads) most->threads = h.threads;
}

/* A line each ten seconds until the end; `warm` gets the most of the warm-up, `later` of the rest.
 */
static void watch(size_t seconds, holdings *warm, holdings *later) {
  size_t warm_up = seconds / 10 > LINE_SECONDS ? seconds / 10 : LINE_SECONDS;
  struct timespec next;
  clock_gettime(CLOCK_MONOTONIC, &next);
  for (size_t s = 1; s <= seconds && !atomic_load(&stop); s++) {
    next.tv_sec++;
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL)) continue;
    if (s % LINE_SECONDS == 0 || s == seconds) raise(s <= warm_up ? warm : later, say_line(s));
  }
  atomic_store(&stop, 1);
}

/* ---- The run ---- */

/* Each layer of the shared context has had every plan before anything is counted. */
static void open_shared(void) {
  CHECK(!soak_context(&deck, 0, 0, &shared), "%s", fp4moe_error_detail());
  for (int t = 0; t < SOAK_TABLES && !failed; t++) {
    CHECK(!fp4moe_context_reload_table(shared, deck.table[t]), "%s", fp4moe_error_detail());
    for (size_t c = 0; c < deck.count && !failed; c++)
      CHECK(!(t ? fp4moe_layer_replan(shared_layer[c])
                : soak_card_layer(&deck.card[c], shared, 0, &shared_layer[c])),
            "%s: %s", deck.card[c].name, fp4moe_error_detail());
  }
}

static void soak(size_t seconds, uint64_t seed, holdings *warm, holdings *later) {
  pthread_t thread[WORKERS + 1];
  worker w[WORKERS + 1];
  pthread_rwlockattr_t fair;
  pthread_rwlockattr_init(&fair);
  pthread_rwlockattr_setkind_np(&fair, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
  pthread_rwlock_init(&rest, &fair);
  for (size_t i = 0; i <= WORKERS; i++) {
    w[i] = (worker){seed + i, malloc(deck.workspace_bytes), malloc(64 * 1024 * sizeof(float))};
    pthread_create(&thread[i], NULL, i < WORKERS ? work : reload, &w[i]);
  }
  watch(seconds, warm, later);
  for (size_t i = 0; i <= WORKERS; i++) {
    pthread_join(thread[i], NULL);
    free(w[i].workspace);
    free(w[i].y);
  }
}

static int judge(const char *what, size_t warm, size_t later, size_t room) {
  if (later <= warm + room) return 1;
  printf("FAIL %s: %zu in the warm-up, %zu later, at most %zu more are allowed\n", what, warm,
         later, room);
  return 0;
}

static int end(size_t seconds, const holdings *warm, const holdings *later) {
  size_t bad = 0, good;
  int skipped = later->heap ? 0 : 4;
  for (size_t c = 0; c < deck.count; c++) bad += wrong[c];
  if (failed && !bad) bad = 1;
  good = deck.count - bad;
  if (skipped)
    printf("skipped: heap, resident memory, files, threads: nothing after the warm-up\n");
  const int held[] = {judge("heap", warm->heap, later->heap, HEAP_GROWTH),
                      judge("resident memory", warm->resident, later->resident, RESIDENT_GROWTH),
                      judge("files", warm->files, later->files, 0),
                      judge("threads", warm->threads, later->threads, 0)};
  for (int i = skipped; i < 4; i++) held[i] ? good++ : bad++;
  printf("soaked %zu layers for %zu s: %zu calls on %zu contexts, %zu reloads, %zu replans, "
         "%zu packed files opened\n",
         deck.count, seconds, (size_t)calls, (size_t)contexts, (size_t)reloads, (size_t)replans,
         (size_t)maps);
  printf("%zu passed, %zu failed, %d skipped\n", good, bad, skipped);
  return bad != 0;
}

int main(int argc, char **argv) {
  size_t seconds = argc > 1 ? strtoul(argv[1], NULL, 10) : 600;
  uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : (uint64_t)time(NULL);
  holdings warm = {0}, later = {0};
  mallopt(M_ARENA_MAX, 1); /* mallinfo2 counts the first arena only */
  printf("seed %llu\n", (unsigned long long)seed);
  check_reseed(seed, "soak");
  soak_deck_open(&deck, SOAK_DATA);
  if (!failed) open_shared();
  if (!failed) soak(seconds, seed, &warm, &later);
  for (size_t c = 0; c < deck.count; c++) fp4moe_layer_destroy(shared_layer[c]);
  fp4moe_context_destroy(shared);
  int status = end(seconds, &warm, &later);
  soak_deck_close(&deck);
  return status;
}
