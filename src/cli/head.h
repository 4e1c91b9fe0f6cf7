/* head.h - the lines above a bench's figures: the command, the host, the limits. */
#ifndef FP4MOE_HEAD_H
#define FP4MOE_HEAD_H

#include "ceilings.h"
#include "problem.h"

/* Text: "# fp4moe bench ...  # cpu, threads". JSON: a line {"what":"host",...} with the command,
 * the table in use and what the figures depend on. */
void head_command(const fp4moe_context *context, int json, int argc, char **argv);

/* The limits as medians over rounds, printed and returned. */
ceilings head_limits(const ceilings *rounds, size_t count, size_t threads, int json);

/* The dot rate that bounds a class, Gop/s. */
double class_rate(fp4moe_precision precision, const ceilings *c);

#endif
