/* options.h - what the tuner's command line asks for: problems, and how to go about them. */
#ifndef FP4MOE_OPTIONS_H
#define FP4MOE_OPTIONS_H

#include "cli/problem.h"

enum { MAX_PROBLEMS = 512, OPTIONS_PATH = 512 };

typedef struct options {
  problem *problems; /* most useful first: class by class, models in their order */
  size_t count, threads;
  uint64_t budget_ns; /* 0 = none */
  int quick, quiet, json, dry_run, verify, force;
  char output[OPTIONS_PATH];
} options;

void options_parse(int argc, char **argv, options *o);

/* The classes of a list such as "bf16,int8", one bit each; death for others than tables have. */
unsigned options_classes(const char *text);

/* The path that an option names; death where there is no room for it. */
void options_path(const char *option, const char *text, char path[OPTIONS_PATH]);

#endif
