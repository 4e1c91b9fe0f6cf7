/* report.h - `fp4moe-autotune report`: what a table says, as Markdown.
 *
 * Every figure is the table's own or measured in the same run; what neither has is left out. */
#ifndef FP4MOE_AUTOTUNE_REPORT_H
#define FP4MOE_AUTOTUNE_REPORT_H

#include <stdio.h>

#include "context.h"
#include "table.h"

/* argv[0] is "report". Returns the exit status. */
int command_report(int argc, char **argv);

/* Sections of the report. */
void report_gains(FILE *out, const fp4moe_table *table);
void report_against(FILE *out, const fp4moe_context *ctx, const fp4moe_table *table,
                    const fp4moe_table *other);

/* "gpt-oss-20b, gpt-oss-120b" where presets have this shape, else "2880 x 2880"; ungated ones say
 * so. */
enum { REPORT_SHAPE = 200 };
void report_shape(char text[REPORT_SHAPE], int format, size_t hidden, size_t intermediate,
                  int gated);

#endif
