/* explain.c - `fp4moe explain`: the oracle's report for each M of a problem. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "context.h"
#include "pool.h"
#include "problem.h"

static const char usage[] =
    "usage: fp4moe explain (--model PRESET | --hidden H --intermediate I --experts E --topk K\n"
    "                       --format mxfp4|nvfp4 [--activation NAME])\n"
    "                      --precision P --tokens LIST [--threads N] [--kernel GLOB]\n"
    "                      [--batch-invariant] [--json]\n"
    "\n"
    "Names every kernel of this build with selected, eligible or refused, and all its reasons, for\n"
    "each M of the list; then each phase's key of the table, whether the table had it exactly, and\n"
    "what would change the choice. lookup: the time in which a call finds its schedule and an\n"
    "expert's two recipes. With --json one document a line.\n"
    "\n" PROBLEM_USAGE;

/* What a call does of all this: its schedule, and both recipes of an expert by its rows. */
static double lookup_ns(fp4moe_context *context, const fp4moe_layer_desc *desc, size_t tokens) {
  enum { ROUNDS = 20, LOOKUPS = 5000 };
  double best = INFINITY;
  static fp4moe_plan plan;
  static const fp4moe_record record;
  const void *volatile found;
  require(fp4moe_context_select(context, desc, &plan), NULL);
  for (int round = 0; round < ROUNDS; round++) {
    uint64_t start = fp4moe_now_ns();
    for (size_t i = 0; i < LOOKUPS; i++) {
      found = fp4moe_plan_schedule(&plan, 1 + i % 8, tokens);
      for (int phase = 0; phase < FP4MOE_PHASES; phase++)
        found = fp4moe_plan_recipe(&plan, &record, phase, 1 + i % 200);
    }
    (void)found;
    best = fmin(best, (double)(fp4moe_now_ns() - start) / LOOKUPS);
  }
  return best;
}

static void explain(fp4moe_context *context, const problem *p, size_t tokens) {
  fp4moe_layer_desc desc = problem_desc(p);
  fp4moe_problem call = {
      .struct_size = sizeof call, .tokens = tokens, .top_k = p->shape.top_k, .json = p->json};
  size_t bytes;
  require(fp4moe_explain(context, &desc, &call, NULL, 0, &bytes), p->name);
  char *text = allocate(bytes + 1, 1);
  require(fp4moe_explain(context, &desc, &call, text, bytes + 1, NULL), p->name);
  double ns = lookup_ns(context, &desc, tokens);
  if (p->json)
    printf("%.*s,\"lookup_ns\":%.1f}\n", (int)(strrchr(text, '}') - text), text, ns);
  else
    printf("%slookup: %.1f ns\n", text, ns);
  free(text);
}

int command_explain(int argc, char **argv) {
  problem p;
  problem_parse(argc, argv, usage, 0, &p);
  fp4moe_context *context = problem_context(&p, p.kernels);
  for (size_t i = 0; i < p.calls; i++) explain(context, &p, p.tokens[i]);
  fp4moe_context_destroy(context);
  return 0;
}
