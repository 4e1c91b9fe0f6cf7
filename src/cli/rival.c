/* rival.c - `fp4moe bench --against FILE.so`: the side of a second library (bench.h, library.h).
 *
 * It has a context, threads and layers of its own, filled with the same weights, and makes the same
 * calls as this program on the layer of the same seed. Its workers must not be in the way: after a
 * call a pool's threads spin for 50 us (fp4moe_context_desc), and would spin on a core of the other
 * pool. So before each timed sample of either side both pools are left alone until their threads
 * sleep, and then one token through one expert wakes those of the side that comes.
 *
 * The errors are those of a layer in a second context, which reports its calls: only so does a
 * library name its kernels, and no timed call has to. This witness is gone when rounds begin. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "cpu.h"
#include "layerfill.h"

enum { ASLEEP_NS = 250000 }; /* five times what threads spin */

typedef struct names {
  char text[sizeof((bench_side *)0)->kernels];
} names;

static library second;
static rotation rival;
static trial waker; /* one token through one expert */
static struct {
  fp4moe_context *context;
  fp4moe_layer *layer; /* as the first of a rotation */
  names used;          /* kernels of its last calls */
} witness;

/* ---- Opening ---- */

static void log_line(void *user, const char *line) {
  (void)user;
  progress_clear();
  fprintf(stderr, "%s: --against %s: %s\n", command_name, second.path, line);
}

static fp4moe_context *open_context_with(const bench *b, void (*log)(void *, const char *),
                                         void *user) {
  const problem *p = &b->problem;
  const fp4moe_context_desc desc = {.struct_size = sizeof desc,
                                    .max_threads = p->threads,
                                    .batch_invariant = p->batch_invariant,
                                    .log = log,
                                    .log_user = user,
                                    .log_calls = user != NULL};
  fp4moe_context *context;
  library_require(&second, second.context_create(&desc, &context), "context");
  return context;
}

void rival_open(bench *b) {
  second = library_open(b->problem.against);
  rival = (rotation){.lib = &second, .context = open_context_with(b, log_line, NULL)};
  b->of[AGAINST] = &rival;
}

static void close_layer(const problem *p, fp4moe_layer *layer) {
  if (problem_is_linear(p))
    second.linear_destroy((fp4moe_linear *)(void *)layer);
  else
    second.layer_destroy(layer);
}

void rival_close(bench *b) {
  for (size_t i = 0; i < rival.count; i++) close_layer(&b->problem, rival.layers[i]);
  second.context_destroy(rival.context);
  free(rival.layers);
  free(rival.workspace);
  trial_free(&waker);
}

/* ---- Errors and kernels ---- */

static void add_name(names *all, const char *name, size_t length) {
  size_t n = strlen(all->text);
  if (bench_has_name(all->text, name, length)) return;
  snprintf(all->text + n, sizeof all->text - n, "%s%.*s", n ? "," : "", (int)length, name);
}

/* A call's line has its kernels before the command that replays it (FP4MOE_VERBOSE). */
static void keep_kernels(void *user, const char *line) {
  const char *end = strstr(line, " replay=");
  if (!end || strncmp(line, "call=", 5) != 0) return;
  size_t n;
  for (const char *at = line; (at = strstr(at, "fp4moe_")) && at < end; at += n) {
    n = strcspn(at, " +");
    add_name(user, at, n);
  }
}

static void open_witness(const bench *b) {
  witness.context = open_context_with(b, keep_kernels, &witness.used);
  witness.layer = random_layer_of(&second, witness.context, &b->problem, 1);
}

void rival_check(const bench *b, bench_side *side) {
  if (!witness.layer) open_witness(b);
  witness.used.text[0] = 0;
  side->err = trial_check_other(b->trials, &second, witness.layer, b->own.layers[0],
                                rival.workspace, rival.workspace_bytes);
  memcpy(side->kernels, witness.used.text, sizeof side->kernels);
}

/* ---- Rounds ---- */

void rival_begin(const bench *b) {
  const problem *p = &b->problem;
  fp4moe_layer_desc desc = problem_desc(p);
  close_layer(p, witness.layer);
  second.context_destroy(witness.context);
  trial_init(&waker, &desc, 1, p->shape.top_k, 1);
  waker.routing = ROUTING_ONE;
  trial_draw(&waker, 1);
}

static void leave_alone(uint64_t ns) {
  for (uint64_t end = fp4moe_now_ns() + ns; fp4moe_now_ns() < end;) fp4moe_cpu_relax();
}

/* The waking call is on the layer that was used last: its experts come around last. */
void rival_settle(rotation *r) {
  fp4moe_batch batch = trial_batch(&waker, NULL);
  leave_alone(ASLEEP_NS);
  library_require(r->lib,
                  trial_run(&waker, r->lib, bench_layer(r, r->count - 1), &batch, r->workspace,
                            r->workspace_bytes),
                  "forward");
}
