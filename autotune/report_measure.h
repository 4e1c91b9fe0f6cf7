/* report_measure.h - the figures that a report measures: `fp4moe bench` on whole layers and on
 * single kernels, with the report's table, a child process each; its JSON lines are kept as files.
 */
#ifndef FP4MOE_REPORT_MEASURE_H
#define FP4MOE_REPORT_MEASURE_H

#include <jansson.h>

#include "context.h"
#include "presets.h"

typedef struct report_wish {
  const char *table; /* path; the children use this one or none at all */
  const char *directory;
  const char *tokens; /* of layers, "1,4,16" */
  const preset *model[64];
  size_t models;
  unsigned classes; /* bits of fp4moe_precision */
  size_t left_out;  /* out: benches that did not believe their figures */
} report_wish;

/* Measures; returns the lines of all files as a JSON array, in order. A class that only C kernels
 * serve is left out, and so is a bench that three times does not believe its own figures; stderr
 * says so. Files: MODEL-CLASS.jsonl and ops-MODEL.jsonl in the directory. */
json_t *report_measure(const fp4moe_context *ctx, report_wish *wish);

#endif
