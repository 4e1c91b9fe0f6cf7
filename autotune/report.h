/* report.h - `fp4moe-autotune report`: what a table says, and figures measured with it, as Markdown
 * and plots.
 *
 * Every figure is the table's own or measured in the same run; what neither has is left out. */
#ifndef FP4MOE_AUTOTUNE_REPORT_H
#define FP4MOE_AUTOTUNE_REPORT_H

#include <stdio.h>
#include <stdlib.h>

#include "cli/cli.h"
#include "context.h"
#include "table.h"

/* argv[0] is "report". Returns the exit status. */
int command_report(int argc, char **argv);

/* ---- Sections. lines: what report_measure.h returns ---- */

void report_gains(FILE *out, const fp4moe_table *table);
void report_picks(FILE *out, const fp4moe_table *table);
void report_against(FILE *out, const fp4moe_context *ctx, const fp4moe_table *table,
                    const fp4moe_table *other);
void report_layers(FILE *out, const json_t *lines);
void report_kernels(FILE *out, const json_t *lines);

/* ---- Plots ---- */

enum { REPORT_PLOTS = 3 };
extern const char *const report_plot_names[REPORT_PLOTS]; /* "roofline.svg", ... */
extern const char *const report_plot_captions[REPORT_PLOTS];

/* Writes plots into the directory by gnuplot; bit i of the result: plot i is there. None is without
 * gnuplot, which stderr then says; those of `lines` not where it is NULL. */
unsigned report_plot(const char *directory, const fp4moe_context *ctx, const fp4moe_table *table,
                     const json_t *lines);

/* ---- What they share ---- */

/* "gpt-oss-20b, gpt-oss-120b" where presets have this shape, else "2880 x 2880"; what is ungated or
 * a linear says so. */
enum { REPORT_SHAPE = 200 };
void report_shape(char text[REPORT_SHAPE], const fp4moe_gain_entry *gain);

/* Rows and time of the runner-up over the winner's, a line for each race of a class that a gemv (1)
 * or unpack and gemm (0) won before another kernel. Returns the largest ratio, 0: no line. out:
 * NULL = only that. */
double report_contests(FILE *out, const fp4moe_table *table, int act, int by_gemv);

/* Of a measured line: a word ("" = none), a number (NaN = none); is it a line of this kind? */
const char *report_word(const json_t *line, const char *key);
double report_number(const json_t *line, const char *key);
int report_is(const json_t *line, const char *what);

/* The median of a limit over all benches of the run. */
double report_limit(const json_t *lines, const char *key);

#endif
