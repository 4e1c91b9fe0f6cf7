/* check_layer_bits.c - what may not move a bit of a layer's output: threads, schedules, providers
 * of threads, the size of the workspace, teams, callers beside each other, a fork; and the call in
 * three, which may move the last ones. */
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "layer_fixture.h"
#include "scratch.h"
#include "team.h"

/* ---- Threads and schedules ---- */

/* The call gives the bits of `want` in this context on 1 to 7 threads. */
static void for_any_threads(const random_layer *m, const problem *p, fp4moe_context *ctx,
                            const float *want, const char *what) {
  fp4moe_layer *layer = layer_of(m, ctx);
  fp4moe_batch b = batch_of(p);
  for (b.threads = 1; layer && b.threads <= 7; b.threads++) gives(layer, &b, want, what);
  fp4moe_layer_destroy(layer);
}

/* A table whose schedules differ per thread count, for a shape. */
static void write_schedules(const char *path, const fp4moe_layer_desc *d, fp4moe_context *ctx) {
  fp4moe_schedule_entry e[21] = {0};
  fp4moe_table t = {.schedule = e};
  for (uint32_t threads = 1; threads <= 7; threads++)
    for (uint32_t i = 0; i < 3; i++)
      e[t.schedules++] = (fp4moe_schedule_entry){
          .format = (int)d->format,
          .act = (int)fp4moe_act_class_of(d->precision),
          .hidden = d->hidden,
          .intermediate = d->intermediate,
          .ns = 1,
          .schedule = {(uint32_t[]){0, 4, 7}[i], threads, 1 + threads / 2, 1 + threads * (i + 1)}};
  CHECK(!fp4moe_table_save(path, &ctx->host, ctx->isa, &t), "%s", fp4moe_error_detail());
}

static void under_any_schedule(fp4moe_context *plain, const class_word *w, size_t tokens) {
  const fp4moe_layer_desc d = class_desc(w, 96, 224, 6);
  random_layer *m = random_layer_new(&d, 1, NULL);
  problem p = draw(&d, tokens, 3, 1);
  const char *table = scratch_at("table");
  fp4moe_layer *layer = layer_of(m, plain);
  fp4moe_batch b = batch_of(&p);
  b.threads = 1;
  float *want = outputs(layer, &b);
  fp4moe_layer_destroy(layer);
  write_schedules(table, &d, plain);
  fp4moe_context_desc with_table = {.max_threads = 7, .table = table};
  fp4moe_context *tabled = context_with(with_table);
  CHECK(tabled->table && !tabled->table->refused && tabled->table->schedules, "no table");
  with_table.parallel_for = backwards;
  fp4moe_context *foreign = context_with(with_table);
  for_any_threads(m, &p, plain, want, "threads");
  for_any_threads(m, &p, tabled, want, "threads under a table");
  for_any_threads(m, &p, foreign, want, "the caller's parallel_for");
  fp4moe_context_destroy(tabled);
  fp4moe_context_destroy(foreign);
  free(want);
  drop(&p);
  random_layer_free(m);
}

static void threads_and_schedules(void) {
  static const size_t tokens[] = {1, 13, 90};
  fp4moe_context *plain = context_of(7);
  scratch_open();
  for (size_t c = CLASS_F32_MX; c <= CLASS_INT8_MX; c += 2) /* and its NVFP4 */
    for (size_t t = 0; t < 3; t++) under_any_schedule(plain, &class_words[c + t % 2], tokens[t]);
  scratch_close();
  fp4moe_context_destroy(plain);
}

/* ---- Workspaces ---- */

static void small_workspaces(void) {
  const fp4moe_layer_desc d = class_desc(&class_words[CLASS_BF16_NV], 64, 96, 5);
  fixture f = set_up(2, &d, 1, 67, 3, 1);
  const fp4moe_batch b = batch_of(&f.p);
  const size_t floats = f.p.tokens * f.p.hidden;
  fp4moe_limits l = {sizeof l, f.p.tokens, f.p.top_k, 0};
  float *want = outputs(f.layer, &b);
  size_t full = fp4moe_workspace_bytes(f.layer, &l),
         least = fp4moe_workspace_min_bytes(f.layer, &l);
  CHECK(least < full, "%zu, %zu", least, full);
  for (size_t bytes = least; bytes < full; bytes += (full - least) / 7 + 1) {
    memset(f.p.y, 0xff, floats * sizeof *f.p.y);
    CHECK(!fp4moe_layer_forward(f.layer, &b, check_buffer(bytes, CHECK_AFTER), bytes), "%s",
          fp4moe_error_detail());
    CHECK_SAME(f.p.y, want, floats, sizeof *want, "a small workspace");
    CHECK_RELEASE();
  }
  memset(f.p.y, 0xff, floats * sizeof *f.p.y);
  void *short_one = malloc(least);
  CHECK(fp4moe_layer_forward(f.layer, &b, short_one, least / 4) == FP4MOE_WORKSPACE, "too short");
  CHECK(isnan(f.p.y[0]) && isnan(f.p.y[floats - 1]), "y was written");
  free(short_one);
  free(want);
  tear_down(&f);
}

/* ---- The call in three ---- */

static void three_calls(void) {
  fp4moe_layer_desc d = class_desc(&class_words[CLASS_INT8_MX], 96, 64, 5);
  d.activation = (fp4moe_activation){FP4MOE_SWIGLU_OAI, 1, 1.702f, 1, 7, 0};
  fixture f = set_up(2, &d, 1, 23, 3, 1);
  const fp4moe_batch b = batch_of(&f.p);
  const size_t floats = f.p.tokens * f.p.hidden;
  float *want = outputs(f.layer, &b);
  memset(f.p.y, 0xff, floats * sizeof *f.p.y);
  CHECK(!run_in_three(f.layer, &b), "%s", fp4moe_error_detail());
  double worst = 0, largest = 0;
  for (size_t i = 0; i < floats; i++) {
    worst = fmax(worst, fabs((double)f.p.y[i] - (double)want[i]));
    largest = fmax(largest, fabs((double)want[i]));
  }
  CHECK(worst <= 1e-6 * largest, "the three calls are %g off the fused one (%g)", worst, largest);
  float data[3 * 96];
  int64_t offsets[6], row_pair[3];
  fp4moe_rows rows = {sizeof rows, 3, data, FP4MOE_F32, 0, offsets};
  CHECK(fp4moe_prepare(f.layer, &b, &rows, row_pair) == FP4MOE_INVALID, "too few rows");
  free(want);
  tear_down(&f);
}

/* ---- Threads of the application ---- */

typedef struct {
  fp4moe_layer *layer;
  problem p;
  float *want;
  int bad;
} caller;

static void *call_often(void *arg) {
  caller *c = arg;
  fp4moe_batch b = batch_of(&c->p);
  for (int i = 0; i < 20; i++) {
    if (run(c->layer, &b)) c->bad++;
    if (memcmp(c->p.y, c->want, c->p.tokens * c->p.hidden * sizeof(float))) c->bad++;
  }
  return NULL;
}

/* The child has the layer and no threads: its first call makes a pool of its own. */
static void call_in_fork(caller *c) {
  if (check_cannot_fork("a call in the child of a fork")) return;
  pid_t child = fork();
  if (!child) {
    call_often(c);
    _exit(c->bad != 0);
  }
  int status = -1;
  CHECK(waitpid(child, &status, 0) == child && status == 0, "the child of a fork: %d", status);
}

static void callers_and_forks(void) {
  const fp4moe_layer_desc d = class_desc(&class_words[CLASS_BF16_MX], 64, 96, 4);
  fixture f = set_up(2, &d, 0, 0, 0, 0);
  caller c[3];
  pthread_t threads[3];
  for (int i = 0; i < 3; i++) {
    c[i] = (caller){f.layer, draw(&d, 9, 2, 0), NULL, 0};
    fp4moe_batch b = batch_of(&c[i].p);
    c[i].want = outputs(f.layer, &b);
  }
  for (int i = 0; i < 3; i++) pthread_create(&threads[i], NULL, call_often, &c[i]);
  for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
  for (int i = 0; i < 3; i++) CHECK(!c[i].bad, "caller %d: %d wrong results", i, c[i].bad);
  call_in_fork(&c[0]);
  for (int i = 0; i < 3; i++) {
    free(c[i].want);
    drop(&c[i].p);
  }
  tear_down(&f);
}

/* ---- SPMD ---- */

/* One call by a team of nth threads. */
static void team_call(fp4moe_layer *layer, const fp4moe_batch *b, size_t nth, size_t bytes,
                      fp4moe_status want) {
  forward_call c = {layer, *b, malloc(bytes), bytes};
  team_run(nth, forward_in_team, &c, want);
  free(c.workspace);
}

/* tokens: 0 = one, which no expert has. */
static void by_team(fp4moe_layer *layer, size_t nth, size_t tokens) {
  problem p = draw(&layer->desc, tokens ? tokens : 1, 2, tokens == 29);
  const size_t floats = p.tokens * p.hidden;
  const fp4moe_batch b = batch_of(&p);
  if (!tokens) p.ids[0] = p.ids[1] = -1;
  float *want = outputs(layer, &b);
  fp4moe_limits l = {sizeof l, p.tokens, p.top_k, nth};
  size_t full = fp4moe_workspace_bytes(layer, &l), least = fp4moe_workspace_min_bytes(layer, &l);
  for (int small = 0; small < 2; small++) {
    memset(p.y, 0xff, floats * sizeof *p.y);
    team_call(layer, &b, nth, small ? least : full, FP4MOE_OK);
    CHECK_SAME(p.y, want, floats, sizeof *want, "a team");
  }
  team_call(layer, &b, nth, least / 4, FP4MOE_WORKSPACE);
  p.ids[0] = 5;
  team_call(layer, &b, nth, full, FP4MOE_INVALID); /* an id out of range */
  free(want);
  drop(&p);
}

static void teams(void) {
  const fp4moe_layer_desc d = class_desc(&class_words[CLASS_INT8_NV], 64, 96, 5);
  fixture f = set_up(7, &d, 1, 0, 0, 0);
  for (size_t nth = 1; nth <= 7; nth += 2)
    for (size_t tokens = 0; tokens < 60; tokens += 29) by_team(f.layer, nth, tokens);
  tear_down(&f);
}

void check_layer_bits(CU_pSuite s) {
  check_test(s, "same bits for any threads", threads_and_schedules);
  check_test(s, "small workspaces", small_workspaces);
  check_test(s, "three calls", three_calls);
  check_test(s, "callers and forks", callers_and_forks);
  check_test(s, "teams (SPMD)", teams);
}
