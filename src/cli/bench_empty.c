/* bench_empty.c - `fp4moe bench --routing none`: calls whose slots are all -1, back to back. What
 * is left is what every call pays before its first row. There is no floor to compare it with, and
 * nothing to read from memory: one layer will do. */
#include <stdio.h>

#include "bench.h"
#include "head.h"
#include "layerfill.h"

enum { CALLS = 10000 };

static measure_summary measure(bench *b, const trial *t) {
  static double us[CALLS];
  rotation *r = &b->own;
  fp4moe_batch batch = trial_batch(t, NULL);
  for (size_t i = 0; i < CALLS; i++) {
    uint64_t start = fp4moe_now_ns();
    require(trial_run(t, r->lib, r->layers[0], &batch, r->workspace, r->workspace_bytes),
            "forward");
    us[i] = (double)(fp4moe_now_ns() - start) * 1e-3;
  }
  return measure_summarise(us, CALLS);
}

static int report(const bench *b, const trial *t, measure_summary us, difference err) {
  if (b->problem.json)
    print_json(json_pack(
        "{ss ss sI sI sI sf sf s[ff] so}", "what", "empty", "model", b->problem.name, "tokens",
        (json_int_t)t->tokens, "threads", (json_int_t)b->threads, "calls", (json_int_t)CALLS, "us",
        us.median, "us_min", us.min, "quartiles", us.q1, us.q3, "err", json_number(err.rel_l2)));
  else
    printf("%7zu %9.3f %9.3f %6.3f %6.3f %9.2e\n", t->tokens, us.median, us.min, us.q1, us.q3,
           err.rel_l2);
  if (err.rel_l2 == 0) return 0;
  fprintf(stderr, "%s: tokens %zu: an empty call's output is not 0\n", command_name, t->tokens);
  return EXIT_CHECK;
}

static int measure_tokens(bench *b, size_t tokens) {
  fp4moe_layer_desc desc = problem_desc(&b->problem);
  rotation *r = &b->own;
  trial t;
  trial_init(&t, &desc, tokens, b->problem.shape.top_k, 1);
  t.routing = ROUTING_NONE;
  trial_draw(&t, tokens);
  bench_reserve(r, &t);
  difference err = trial_check(&t, r->layers[0], r->workspace, r->workspace_bytes, NULL, 0);
  int status = report(b, &t, measure(b, &t), err);
  trial_free(&t);
  return status;
}

int bench_empty(bench *b, int argc, char **argv) {
  const problem *p = &b->problem;
  int status = 0;
  b->own.count = 1;
  bench_make_layers(b);
  head_command(b->own.context, p->json, argc, argv);
  if (!p->json) {
    bench_print_problem(p);
    printf("; %d calls back to back\n%7s %9s %9s %13s %9s\n", CALLS, "tokens", "us", "us_min",
           "quartiles", "err");
  }
  for (size_t i = 0; i < p->calls; i++) status |= measure_tokens(b, p->tokens[i]);
  return status;
}
