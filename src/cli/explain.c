/* explain.c - `fp4moe explain`: the oracle's report for each M of a problem. */
#include <stdio.h>
#include <stdlib.h>

#include "problem.h"

static const char usage[] =
    "usage: fp4moe explain (--model PRESET | --hidden H --intermediate I --experts E --topk K\n"
    "                       --format mxfp4|nvfp4 [--activation NAME])\n"
    "                      --precision P --tokens LIST [--threads N] [--kernel GLOB] [--json]\n"
    "\n"
    "Names every kernel of this build with selected, eligible or refused, and all its reasons, for\n"
    "each M of the list. With --json one document a line.\n"
    "\n" PROBLEM_USAGE;

static void explain(fp4moe_context *context, const problem *p, size_t tokens) {
  fp4moe_layer_desc desc = problem_desc(p);
  fp4moe_problem call = {
      .struct_size = sizeof call, .tokens = tokens, .top_k = p->shape.top_k, .json = p->json};
  size_t bytes;
  require(fp4moe_explain(context, &desc, &call, NULL, 0, &bytes), p->name);
  char *text = allocate(bytes + 1, 1);
  require(fp4moe_explain(context, &desc, &call, text, bytes + 1, NULL), p->name);
  fputs(text, stdout);
  if (bytes && text[bytes - 1] != '\n') putchar('\n');
  free(text);
}

int command_explain(int argc, char **argv) {
  problem p;
  problem_parse(argc, argv, usage, 0, &p);
  fp4moe_context *context = open_context(p.threads, p.kernels);
  for (size_t i = 0; i < p.calls; i++) explain(context, &p, p.tokens[i]);
  fp4moe_context_destroy(context);
  return 0;
}
