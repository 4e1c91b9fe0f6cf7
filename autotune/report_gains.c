/* report_gains.c - the report's sections on whole layers and on a second table (report.h). */
#include <stdlib.h>

#include "cli/cli.h"
#include "compare.h"
#include "gains.h"
#include "report.h"

enum { CLASSES = 3 }; /* that tables have */

static double ratio_of(const fp4moe_gain_entry *g) { return g->ratio * 1e-6; }

/* ---- Gains ---- */

static void say_gain(FILE *out, const fp4moe_gain_entry *g) {
  char shape[REPORT_SHAPE];
  report_shape(shape, g);
  fprintf(out, " %.3f +-%.1f %% (%s, %s, %zu rows) |", ratio_of(g), g->noise * 1e-4, shape,
          fp4moe_class_name(g->act), fp4moe_bucket_rows(g->bucket));
}

static void summary_line(FILE *out, const char *name, const gain_summary *s) {
  fprintf(out, "| %s | %zu | %zu | %.3f |", name, s->count, s->removed, s->mean);
  if (s->worst) {
    say_gain(out, s->worst);
    say_gain(out, s->best);
  } else {
    fprintf(out, " | |");
  }
  fprintf(out, "\n");
}

static void summarise(FILE *out, const fp4moe_table *t) {
  fprintf(out, "| class | layers and rows | left static | geometric mean | worst kept | best |\n"
               "|---|--:|--:|--:|---|---|\n");
  for (int act = 0; act < CLASSES; act++) {
    gain_summary s = gains_summarise(t, act);
    if (s.count) summary_line(out, fp4moe_class_name(act), &s);
  }
  gain_summary all = gains_summarise(t, GAIN_ALL);
  summary_line(out, "**all**", &all);
}

static int same_layer(const fp4moe_gain_entry *a, const fp4moe_gain_entry *b) {
  return a->format == b->format && a->act == b->act && a->hidden == b->hidden &&
         a->intermediate == b->intermediate && a->gated == b->gated && a->cores == b->cores &&
         a->threads == b->threads && a->linear == b->linear;
}

/* A line of a layer: its gains by rows. Returns the first gain of the next. */
static size_t layer_line(FILE *out, const fp4moe_table *t, size_t first) {
  const fp4moe_gain_entry *g = &t->gain[first];
  char shape[REPORT_SHAPE];
  size_t next = first;
  report_shape(shape, g);
  fprintf(out, "| %s | %s | %s | %u |", shape, fp4moe_format_name(g->format),
          fp4moe_class_name(g->act), g->threads);
  for (int b = 0; b < FP4MOE_BUCKETS; b++) {
    if (next == t->gains || !same_layer(g, &t->gain[next]) || t->gain[next].bucket != b)
      fprintf(out, " |");
    else
      fprintf(out, t->gain[next].kept ? " %.3f |" : " (%.3f) |", ratio_of(&t->gain[next])), next++;
  }
  fprintf(out, "\n");
  return next;
}

void report_gains(FILE *out, const fp4moe_table *t) {
  fprintf(out, "## Tuned against static\n\n");
  if (!t->gains) {
    fprintf(out,
            "The table says nothing of it: it is of a tuner that did not store its whole-layer "
            "races, or\nof a run that ended before them.\n\n");
    return;
  }
  fprintf(
      out,
      "Whole layers with random routing, both plans timed in the same rounds: time of the static\n"
      "order over that of what the table chooses, above 1 a gain; 1.000 +-0.0 %% where that is the\n"
      "static order itself. Where the static order won, its rows were left to it and count as 1 in\n"
      "the means; what was lost stands in brackets below. +- is the noise of that race, two standard\n"
      "deviations of the ratio. The races are those that decided what is kept.\n\n");
  summarise(out, t);
  fprintf(out, "\nBy rows per expert, 128 standing for more:\n\n"
               "| layer | format | class | threads |");
  for (int b = 0; b < FP4MOE_BUCKETS; b++) fprintf(out, " %zu |", fp4moe_bucket_rows(b));
  fprintf(out, "\n|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n");
  for (size_t i = 0; i < t->gains;) i = layer_line(out, t, i);
  fprintf(out, "\n");
}

/* ---- A second table ---- */

static double percent(size_t part, size_t whole) {
  return whole ? 100 * (double)part / (double)whole : 0;
}

static void say_pick(FILE *out, const compare_pick *p, int which) {
  char text[FP4MOE_RECIPE_TEXT];
  const fp4moe_recipe *r = &p->recipe[which];
  fp4moe_recipe_text(r, text);
  fprintf(out, " %s, %u panels, %s %u%s;", text, r->panels, r->gemv ? "prefetch" : "k_block",
          r->gemv ? r->prefetch : r->k_block, p->is_static[which] ? " (static)" : "");
  if (p->ratio[which] > 0)
    fprintf(out, " the other took %.3f, noise %.1f %% |", p->ratio[which], 100 * p->noise[which]);
  else
    fprintf(out, " the other is %s |", p->is_static[which] ? "not told" : "surely slower");
}

static void list_differences(FILE *out, const comparison *c) {
  fprintf(out,
          "| rows of | this table: pick; the other's | the other table: pick; this one's | within "
          "the noise of |\n|---|---|---|---|\n");
  for (size_t i = 0; i < c->differ_count; i++) {
    static const char *const words[] = {"neither", "this", "the other", "both"};
    const compare_pick *p = &c->differ[i];
    const fp4moe_recipe_key *k = &p->key;
    fprintf(out, "| %s %s %s %zu x %zu, %zu rows |", fp4moe_phase_name(k->phase),
            fp4moe_format_name(k->format), fp4moe_class_name(k->act), k->n, k->k,
            fp4moe_bucket_rows(k->bucket));
    for (int t = 0; t < TABLES; t++) say_pick(out, p, t);
    fprintf(out, " %s |\n", words[p->within[0] + 2 * p->within[1]]);
  }
  fprintf(out, "\n");
}

static void say_agreement(FILE *out, const comparison *c) {
  size_t beyond = c->differ_count - c->within_both - c->within_one;
  fprintf(out, "| picks that both have | %zu | |\n|---|--:|--:|\n", c->picks);
  fprintf(out, "| the same recipe | %zu | %.1f %% |\n", c->same, percent(c->same, c->picks));
  fprintf(out, "| the same kernels | %zu | %.1f %% |\n", c->same_kernels,
          percent(c->same_kernels, c->picks));
  fprintf(out, "| other recipe, within the noise of both races | %zu | %.1f %% |\n", c->within_both,
          percent(c->within_both, c->picks));
  fprintf(out, "| other recipe, within the noise of one race | %zu | %.1f %% |\n", c->within_one,
          percent(c->within_one, c->picks));
  fprintf(out, "| other recipe, beyond the noise of both | %zu | %.1f %% |\n", beyond,
          percent(beyond, c->picks));
  fprintf(out, "| schedules alike, of those that both have | %zu of %zu | %.1f %% |\n\n",
          c->same_schedules, c->schedules, percent(c->same_schedules, c->schedules));
  if (c->only[0] || c->only[1])
    fprintf(out, "Not compared: %zu picks that this table has alone, %zu of the other.\n\n",
            c->only[0], c->only[1]);
}

void report_against(FILE *out, const fp4moe_context *ctx, const fp4moe_table *table,
                    const fp4moe_table *other) {
  const fp4moe_selector s = {&ctx->host, &ctx->request, NULL};
  const fp4moe_table *const tables[TABLES] = {table, other};
  comparison c;
  if (!compare_tables(&s, tables, &c)) die("no memory for the comparison");
  fprintf(out, "## Against %s\n\n", other->path);
  fprintf(
      out,
      "A pick is what runs for a phase, format, class, shape and bucket of rows. The same recipe is\n"
      "the same kernels, panels, K blocks and prefetch. Where they differ, each table's own race says\n"
      "how much longer the other's pick took.\n\n");
  say_agreement(out, &c);
  if (c.differ_count) list_differences(out, &c);
  if (other->gains) {
    fprintf(out, "Tuned against static in the other table:\n\n");
    summarise(out, other);
    fprintf(out, "\n");
  }
  free(c.differ);
}
