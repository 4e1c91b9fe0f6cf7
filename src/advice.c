/* advice.c - what would change the oracle's choice for a problem (oracle.h): tuning, another number
 * of rows, an override less. Each line is found by asking fp4moe_choose again. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "activation.h"
#include "oracle.h"

typedef struct {
  const fp4moe_selector *s;
  const fp4moe_layer_desc *desc;
  const fp4moe_problem *problem;
  int bucket;
  fp4moe_choice now[FP4MOE_PHASES];
  fp4moe_advice *advice;
} asking;

static void say(fp4moe_advice *a, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(fp4moe_advice *a, const char *format, ...) {
  va_list args;
  if (a->count == sizeof a->line / sizeof *a->line) return;
  va_start(args, format);
  vsnprintf(a->line[a->count++], sizeof *a->line, format, args);
  va_end(args);
}

/* The choice under another selector or bucket, for each phase where its kernels are others. */
static void compare(asking *q, const fp4moe_selector *s, int bucket, const char *when) {
  for (int phase = fp4moe_first_phase(q->desc); phase < FP4MOE_PHASES; phase++) {
    fp4moe_choice then;
    char text[FP4MOE_RECIPE_TEXT];
    if (fp4moe_choose(s, q->desc, phase, bucket, &then)) continue;
    if (fp4moe_same_kernels(&then.recipe, &q->now[phase].recipe)) continue;
    fp4moe_recipe_text(&then.recipe, text);
    say(q->advice, "%s: %s by %s", when, fp4moe_phase_name(phase), text);
  }
}

/* A linear has the keys of the down projection of an ungated layer. */
static void advise_tuning(asking *q) {
  const fp4moe_layer_desc *d = q->desc;
  int tuned = 1;
  for (int phase = fp4moe_first_phase(q->desc); phase < FP4MOE_PHASES; phase++)
    tuned &= q->now[phase].match >= FP4MOE_MATCH_PROVEN;
  if (q->s->request->tuned == FP4MOE_TUNED_OFF)
    say(q->advice, "tuned recipes are switched off: with use or require the table's would serve");
  else if (!tuned && fp4moe_is_linear(d))
    say(q->advice, "tune this matrix here: fp4moe-autotune --linear %zux%zu,%s --precision %s",
        d->hidden, d->intermediate, fp4moe_format_name((int)d->format),
        fp4moe_class_name((int)fp4moe_act_class_of(d->precision)));
  else if (!tuned)
    say(q->advice,
        "tune this shape here: fp4moe-autotune --shape %zu,%zu,%zu,%zu,%s,%s --precision %s",
        d->hidden, d->intermediate, d->experts, q->problem->top_k,
        fp4moe_format_name((int)d->format), fp4moe_activation_name(d->activation.kind),
        fp4moe_class_name((int)fp4moe_act_class_of(d->precision)));
}

/* The nearest bucket in each direction that has other kernels. */
static void advise_rows(asking *q) {
  size_t experts = q->desc->experts, k = q->problem->top_k ? q->problem->top_k : 1;
  for (int step = -1; step <= 1; step += 2)
    for (int b = q->bucket + step; b >= 0 && b < FP4MOE_BUCKETS; b += step) {
      char when[160];
      size_t before = q->advice->count, rows = fp4moe_bucket_rows(step < 0 ? b : b - 1);
      if (step < 0)
        snprintf(when, sizeof when, "with up to %zu rows per expert (M <= %zu)", rows,
                 rows * experts / k);
      else
        snprintf(when, sizeof when, "from %zu rows per expert on (M >= %zu)", rows + 1,
                 rows * experts / k + 1);
      compare(q, q->s, b, when);
      if (q->advice->count != before) break;
    }
}

static void advise_overrides(asking *q) {
  const fp4moe_request *request = q->s->request;
  fp4moe_request without = *request;
  fp4moe_selector s = {q->s->host, &without, q->s->table};
  char when[600];
  if (request->forced) {
    without.globs[0] = 0;
    without.forced = 0;
    snprintf(when, sizeof when, "%s \"%.150s\" forces it; without", request->origin,
             request->globs);
    compare(q, &s, q->bucket, when);
    without = *request;
  }
  without.cap = (fp4moe_isa)(FP4MOE_ISAS - 1);
  snprintf(when, sizeof when, "FP4MOE_CPU is %s; without", fp4moe_isa_name(request->cap));
  compare(q, &s, q->bucket, when);
  without = *request;
  without.batch_invariant = 0;
  compare(q, &s, q->bucket, "batch_invariant admits one summation order; without");
}

void fp4moe_advise(const fp4moe_selector *s, const fp4moe_layer_desc *desc,
                   const fp4moe_problem *problem, fp4moe_advice *advice) {
  asking q = {.s = s, .desc = desc, .problem = problem, .advice = advice};
  advice->count = 0;
  q.bucket = fp4moe_bucket(fp4moe_problem_rows(desc, problem));
  for (int phase = fp4moe_first_phase(desc); phase < FP4MOE_PHASES; phase++)
    if (fp4moe_choose(s, desc, phase, q.bucket, &q.now[phase])) return;
  advise_tuning(&q);
  advise_rows(&q);
  advise_overrides(&q);
}
