/* main.c - the program `fp4moe`: finds the command and hands it its arguments. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static const struct {
  const char *name, *full, *what;
  command_fn *run;
} commands[] = {
    {"run", "fp4moe run", "run a checkpoint's layers, compare, time", command_run},
    {"bench", "fp4moe bench", "a layer's speed against the machine's limits", command_bench},
    {"explain", "fp4moe explain", "which kernels serve a problem, and why", command_explain},
    {"inspect", "fp4moe inspect", "the MoE layers of a checkpoint", command_inspect},
    {"unpack", "fp4moe unpack", "an FP4 tensor of a checkpoint as floats", command_unpack},
    {"pack", "fp4moe pack", "pack a checkpoint once, to be mapped", command_pack},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static int list_commands(void) {
  puts("usage: fp4moe COMMAND [ARGUMENTS]\n"
       "       fp4moe COMMAND --help | --help | --version\n"
       "\n"
       "FP4 mixture-of-experts layers on CPUs. Commands:");
  for (int i = 0; i < COMMANDS; i++) printf("  %-8s %s\n", commands[i].name, commands[i].what);
  puts(
      "\n"
      "Exit status: 0, 1 a check that did not hold, 2 an error (one line on stderr).\n"
      "Environment: FP4MOE_CPU (highest ISA), FP4MOE_KERNEL (globs), FP4MOE_TABLE (path |\n"
      "only:path | none), FP4MOE_TUNED (use | require | off), FP4MOE_VERBOSE (1 | file: a line per\n"
      "call).");
  return EXIT_SUCCESS;
}

int main(int argc, char **argv) {
  if (argc < 2) die("no command; see fp4moe --help");
  if (!strcmp(argv[1], "--help")) return finish_output(list_commands());
  if (!strcmp(argv[1], "--version"))
    return printf("fp4moe %d.%d\n", FP4MOE_VERSION_MAJOR, FP4MOE_VERSION_MINOR),
           finish_output(EXIT_SUCCESS);
  for (int i = 0; i < COMMANDS; i++)
    if (!strcmp(argv[1], commands[i].name)) {
      command_name = commands[i].full;
      return finish_output(commands[i].run(argc - 1, argv + 1));
    }
  die("%s: no such command; see fp4moe --help", argv[1]);
}
