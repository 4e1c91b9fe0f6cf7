/* report_lines.c - the sections of a report on what it measured (report.h): whole layers by tokens,
 * tuned and static in the same rounds; kernels alone. */
#include <math.h>
#include <string.h>

#include "measure.h"
#include "report.h"

const char *report_word(const json_t *line, const char *key) {
  const char *text = json_string_value(json_object_get(line, key));
  return text ? text : "";
}

double report_number(const json_t *line, const char *key) {
  const json_t *value = json_object_get(line, key);
  return json_is_number(value) ? json_number_value(value) : NAN;
}

int report_is(const json_t *line, const char *what) {
  return !strcmp(report_word(line, "what"), what);
}

static double at(const json_t *line, const char *key, size_t i) {
  return json_number_value(json_array_get(json_object_get(line, key), i));
}

/* ---- Means ---- */

typedef struct mean {
  size_t count, slower; /* slower: static was faster, the whole middle half of the rounds */
  double logs;
  const json_t *worst;
} mean;

static void add(mean *m, const json_t *line) {
  double ratio = report_number(line, "ratio");
  m->count++;
  m->logs += log(ratio);
  m->slower += at(line, "ratio_quartiles", 1) < 1;
  if (!m->worst || ratio < report_number(m->worst, "ratio")) m->worst = line;
}

static void say_mean(FILE *out, const char *name, const mean *m) {
  if (!m->count) return;
  fprintf(out, "| %s | %zu | %.3f | %.3f [%.3f, %.3f] (%s, %s, M %.0f) | %zu |\n", name, m->count,
          exp(m->logs / (double)m->count), report_number(m->worst, "ratio"),
          at(m->worst, "ratio_quartiles", 0), at(m->worst, "ratio_quartiles", 1),
          report_word(m->worst, "model"), report_word(m->worst, "precision"),
          report_number(m->worst, "tokens"), m->slower);
}

static void say_means(FILE *out, const json_t *lines) {
  static const char *const classes[] = {"bf16", "int8", "f32"};
  enum { CLASSES = sizeof classes / sizeof *classes };
  mean of[CLASSES + 1] = {{0}};
  size_t i;
  const json_t *line;
  json_array_foreach(lines, i, line) {
    if (!report_is(line, "layer")) continue;
    add(&of[CLASSES], line);
    for (size_t c = 0; c < CLASSES; c++)
      if (!strcmp(report_word(line, "precision"), classes[c])) add(&of[c], line);
  }
  fprintf(out, "| class | layers and M | geometric mean, static / tuned | worst | static faster |\n"
               "|---|--:|--:|---|--:|\n");
  for (size_t c = 0; c < CLASSES; c++) say_mean(out, classes[c], &of[c]);
  say_mean(out, "**all**", &of[CLASSES]);
}

/* ---- Layers ---- */

static void say_head(FILE *out, const json_t *command, const json_t *limits, const json_t *line) {
  fprintf(
      out,
      "\n### %s, class %s (%s)\n\n    %s\n\nLimits in the same rounds, %.0f threads: read %.1f GB/s, "
      "int8 %.0f Gop/s, bf16 %.0f GFLOP/s, f32 %.0f GFLOP/s.\n\n"
      "| M | ms | GB/s | GFLOP/s | efficiency | quartiles | static / tuned | quartiles |\n"
      "|--:|--:|--:|--:|--:|:-:|--:|:-:|\n",
      report_word(line, "model"), report_word(line, "precision"), report_word(line, "format"),
      report_word(command, "command"), report_number(limits, "threads"),
      report_number(limits, "read_gbytes_s"), report_number(limits, "int8_gops"),
      report_number(limits, "bf16_gflops"), report_number(limits, "f32_gflops"));
}

static void say_layer(FILE *out, const json_t *l) {
  fprintf(out, "| %.0f | %.3f | %.1f | %.0f | %.3f | [%.3f, %.3f] | %.3f | [%.3f, %.3f] |\n",
          report_number(l, "tokens"), report_number(l, "ms"), report_number(l, "gbytes_s"),
          report_number(l, "gflops"), report_number(l, "efficiency"), at(l, "quartiles", 0),
          at(l, "quartiles", 1), report_number(l, "ratio"), at(l, "ratio_quartiles", 0),
          at(l, "ratio_quartiles", 1));
}

void report_layers(FILE *out, const json_t *lines) {
  const json_t *command = NULL, *limits = NULL, *said = NULL, *line;
  size_t i;
  fprintf(
      out,
      "## Layers, measured with this report\n\n"
      "A whole layer of the model with fresh router draws. Efficiency is floor / time, floor = the\n"
      "larger of reading the active experts once and doing the dots at the machine's limits.\n"
      "Medians over rounds; in each round the same draw also ran by the static order: static / tuned\n"
      "is what the table brings. Static faster: cases where three quarters of the rounds say so.\n\n");
  say_means(out, lines);
  json_array_foreach(lines, i, line) {
    if (report_is(line, "host")) command = line;
    if (report_is(line, "ceilings")) limits = line;
    if (!report_is(line, "layer")) continue;
    if (said != command) say_head(out, command, limits, line);
    said = command;
    say_layer(out, line);
  }
  fprintf(out, "\n");
}

/* ---- Kernels ---- */

/* A rate, or nothing where the op has none. */
static void say_rate(FILE *out, double rate) {
  if (rate > 0)
    fprintf(out, " %.1f |", rate);
  else
    fprintf(out, " |");
}

void report_kernels(FILE *out, const json_t *lines) {
  const char *said = "";
  size_t i;
  const json_t *l;
  fprintf(
      out,
      "## Kernels, measured with this report\n\n"
      "Each alone, on all threads, its input in the level-2 cache. The share is that of a layer,\n"
      "floor / time, with the kernel's own input bytes and dots: above 1 it is faster than memory\n"
      "can feed it.\n\n"
      "| kernel | model | rows | GB/s | Gop/s | share |\n|---|---|--:|--:|--:|--:|\n");
  json_array_foreach(lines, i, l) {
    if (!report_is(l, "op")) continue;
    const char *name = report_word(l, "kernel");
    fprintf(out, "| %s | %s | %.0f |", strcmp(name, said) ? name : "", report_word(l, "model"),
            report_number(l, "rows"));
    said = name;
    say_rate(out, report_number(l, "gbytes_s"));
    say_rate(out, report_number(l, "gops"));
    fprintf(out, " %.3f |\n", report_number(l, "share"));
  }
  fprintf(out, "\n");
}

double report_limit(const json_t *lines, const char *key) {
  size_t n = 0, i;
  const json_t *line;
  double *values = allocate(json_array_size(lines), sizeof *values);
  json_array_foreach(lines, i, line) if (report_is(line, "ceilings")) values[n++] =
      report_number(line, key);
  double middle = n ? measure_summarise(values, n).median : NAN;
  free(values);
  return middle;
}
