/* environment.h - the variables FP4MOE_*, read in one place. */
#ifndef FP4MOE_ENVIRONMENT_H
#define FP4MOE_ENVIRONMENT_H

#include "kernel.h"

/* NULL: not set, or empty. Strings of the environment itself. */
typedef struct fp4moe_environment {
  const char *table, *kernel, *verbose;
  fp4moe_isa cap;     /* FP4MOE_CPU; the highest ISA where there is none */
  fp4moe_tuned tuned; /* DEFAULT where there is none */
} fp4moe_environment;

/* INVALID: a variable FP4MOE_* that does not exist, with the nearest that does, or a word that
 * means nothing. */
fp4moe_status fp4moe_environment_read(fp4moe_environment *environment);

#endif
