/* report_picks.c - winners and runners-up of the races (report.h), out of the entries of a table.
 *
 * The runner-up is the fastest entry whose kernels are others: panels and prefetch alone make no
 * rival. Where the race was sure that every other was slower, it left none. */
#include "report.h"

typedef struct contest {
  const fp4moe_recipe_entry *winner, *rival; /* rival: NULL = none left */
} contest;

/* Do they differ in rows only? */
static int same_matrix(const fp4moe_recipe_entry *a, const fp4moe_recipe_entry *b) {
  fp4moe_recipe_entry of_b = *b;
  of_b.bucket = a->bucket;
  return fp4moe_same_race(a, &of_b);
}

/* The contest whose entries begin at `first`; returns the first of the next. */
static size_t take_contest(const fp4moe_table *t, size_t first, contest *c) {
  const fp4moe_recipe_entry *e = &t->recipe[first];
  size_t i = first;
  *c = (contest){.winner = e};
  for (; i < t->recipes && fp4moe_same_race(e, &t->recipe[i]); i++) {
    int same = fp4moe_same_kernels(&e->recipe, &t->recipe[i].recipe);
    if (!same && !c->rival) c->rival = &t->recipe[i];
  }
  return i;
}

static double ratio_of(const contest *c) { return (double)c->rival->ns / (double)c->winner->ns; }

void report_picks(FILE *out, const fp4moe_table *t) {
  const fp4moe_recipe_entry *before = NULL;
  contest c;
  fprintf(
      out,
      "## Winners and runners-up\n\n"
      "Of each race: the recipe chosen, its time in a call of so many rows for each expert, the\n"
      "fastest with other kernels, its time over the winner's, and the noise, up to which\n"
      "candidates were equal to the fastest. 1.000: it was at least as fast, and equal: the static\n"
      "order came first, which is listed even where it was surely slower. No runner-up: all others\n"
      "were surely slower.\n");
  for (size_t i = 0; i < t->recipes;) {
    char winner[FP4MOE_RECIPE_TEXT], rival[FP4MOE_RECIPE_TEXT] = "";
    i = take_contest(t, i, &c);
    const fp4moe_recipe_entry *w = c.winner;
    if (!before || !same_matrix(before, w))
      fprintf(out,
              "\n### %s, %s, class %s, N %zu, K %zu%s, %zu cores\n\n"
              "| rows | winner | us | runner-up | ratio | noise |\n|--:|---|--:|---|--:|--:|\n",
              fp4moe_phase_name(w->phase), fp4moe_format_name(w->format), fp4moe_class_name(w->act),
              w->n, w->k, w->gated ? "" : ", ungated", w->cores);
    before = w;
    fp4moe_recipe_text(&w->recipe, winner);
    if (c.rival) fp4moe_recipe_text(&c.rival->recipe, rival);
    fprintf(out, "| %zu | %s | %.1f | %s |", fp4moe_bucket_rows(w->bucket), winner,
            (double)w->ns * 1e-3, rival);
    if (c.rival)
      fprintf(out, " %.3f |", ratio_of(&c));
    else
      fprintf(out, " |");
    fprintf(out, " %.1f %% |\n", w->noise * 1e-4);
  }
  fprintf(out, "\n");
}

double report_contests(FILE *out, const fp4moe_table *t, int act, int by_gemv) {
  double largest = 0;
  contest c;
  for (size_t i = 0; i < t->recipes;) {
    i = take_contest(t, i, &c);
    if (c.winner->act != act || (c.winner->recipe.gemv != NULL) != by_gemv || !c.rival) continue;
    double ratio = ratio_of(&c);
    if (out) fprintf(out, "%zu %.6f\n", fp4moe_bucket_rows(c.winner->bucket), ratio);
    if (ratio > largest) largest = ratio;
  }
  return largest;
}
