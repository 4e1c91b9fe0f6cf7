/* report.c - the oracle's account of a problem, as text or JSON (fp4moe_explain).
 *
 * Names the key, the recipe of each phase with its source, and every kernel of the registry with
 * its verdict and all reasons against it. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "activation.h"
#include "oracle.h"

typedef struct {
  const fp4moe_selector *s;
  const fp4moe_layer_desc *desc;
  const fp4moe_problem *problem;
  const fp4moe_plan *plan;
  fp4moe_choice choice[FP4MOE_PHASES];
  int first; /* phase */
  int bucket;
  size_t rows;
  fp4moe_advice advice;
  fp4moe_text *out;
} report;

static const char *const match_names[] = {"static order", "table, nearest shape",
                                          "static order, which the table's tuner could not beat",
                                          "table, exact shape"};

/* Each reason as a phrase, in bit order. */
static const char *const reasons[] = {
    "the CPU lacks its ISA",
    "above FP4MOE_CPU",
    "other weight format",
    "other precision class",
    "other activation or gating",
    "others of its op are forced",
    "summation order differs: batch_invariant",
};

static int is_in(const fp4moe_recipe *r, const fp4moe_kernel *k) {
  return r->gemv == k || r->unpack == k || r->gemm == k;
}

static int is_selected(const report *r, const fp4moe_kernel *k) {
  const fp4moe_plan *p = r->plan;
  if (k == p->quant || k == p->act || k == p->combine || k == p->store) return 1;
  for (int i = r->first; i < FP4MOE_PHASES; i++)
    if (is_in(&r->choice[i].recipe, k)) return 1;
  return 0;
}

/* Under batch_invariant a float matmul of this layer is the one chosen, or sums in another order.
 */
static uint32_t judge(const report *r, const fp4moe_kernel *k) {
  uint32_t why = fp4moe_judge(r->s, r->desc, k);
  int sums = k->op == FP4MOE_OP_GEMV || k->op == FP4MOE_OP_GEMM;
  if (r->plan->batch_invariant && r->plan->act_class != FP4MOE_ACT_I8 && sums &&
      !(why & (FP4MOE_NO_FORMAT | FP4MOE_NO_CLASS)) && !is_selected(r, k))
    why |= FP4MOE_NO_ORDER;
  return why;
}

/* The fastest entry for a phase's key whose recipe has this kernel, NULL: none. */
static const fp4moe_recipe_entry *measured(const report *r, int phase, const fp4moe_kernel *k) {
  size_t first, count;
  if (!fp4moe_table_find(r->s->table, &r->choice[phase].key, &first, &count)) return NULL;
  for (size_t i = first; i < first + count; i++)
    if (is_in(&r->s->table->recipe[i].recipe, k)) return &r->s->table->recipe[i];
  return NULL;
}

static double percent(const fp4moe_recipe_entry *e) { return e->noise * 1e-4; }

void fp4moe_recipe_text(const fp4moe_recipe *x, char text[FP4MOE_RECIPE_TEXT]) {
  if (x->gemv)
    snprintf(text, FP4MOE_RECIPE_TEXT, "%s", x->gemv->name);
  else
    snprintf(text, FP4MOE_RECIPE_TEXT, "%s + %s", x->unpack->name, x->gemm->name);
}

/* Where the entry was measured, where that is not the key itself. */
static void source_text(const fp4moe_choice *c, char text[FP4MOE_KEY_TEXT]) {
  int n = snprintf(text, FP4MOE_KEY_TEXT, "%s", match_names[c->match]);
  if (c->match != FP4MOE_MATCH_NEAREST) return;
  if (c->entry->n == c->key.n && c->entry->k == c->key.k)
    n = snprintf(text, FP4MOE_KEY_TEXT, "table, exact shape");
  else
    n += snprintf(text + n, FP4MOE_KEY_TEXT - (size_t)n, " n=%zu k=%zu", c->entry->n, c->entry->k);
  if (c->entry->cores != c->key.cores)
    snprintf(text + n, FP4MOE_KEY_TEXT - (size_t)n, ", nearest cores: of %zu, %zu allowed here",
             c->entry->cores, c->key.cores);
}

static void text_recipe(report *r, int phase) {
  const fp4moe_choice *c = &r->choice[phase];
  const fp4moe_recipe *x = &c->recipe;
  char key[FP4MOE_KEY_TEXT], source[FP4MOE_KEY_TEXT], kernels[FP4MOE_RECIPE_TEXT];
  fp4moe_key_text(&c->key, key);
  source_text(c, source);
  fp4moe_recipe_text(x, kernels);
  fp4moe_text_add(r->out, "%-7s n=%zu k=%zu: %s, %u panels, %s %u (%s)\n        key: %s\n",
                  fp4moe_phase_name(phase), c->key.n, c->key.k, kernels, x->panels,
                  x->gemv ? "prefetch" : "k_block", x->gemv ? x->prefetch : x->k_block, source,
                  key);
}

static void text_kernel(report *r, const fp4moe_kernel *k, uint32_t why) {
  const char *separator = "";
  fp4moe_text_add(r->out, "  %-44s ", k->name);
  if (why) {
    fp4moe_text_add(r->out, "refused: ");
    for (size_t b = 0; b < sizeof reasons / sizeof *reasons; b++)
      if (why >> b & 1) {
        fp4moe_text_add(r->out, "%s%s", separator, reasons[b]);
        separator = "; ";
      }
  } else {
    fp4moe_text_add(r->out, "%s", is_selected(r, k) ? "selected" : "eligible");
    for (int p = r->first; p < FP4MOE_PHASES; p++) {
      const fp4moe_recipe_entry *e = measured(r, p, k);
      if (e)
        fp4moe_text_add(r->out, ", %s %" PRIu64 " ns +-%.1f%%", fp4moe_phase_name(p), e->ns,
                        percent(e));
    }
  }
  fp4moe_text_add(r->out, "\n");
}

static void write_text_report(report *r, const char *table_text) {
  fp4moe_text *t = r->out;
  const fp4moe_host *host = r->s->host;
  char activation[FP4MOE_ACTIVATION_TEXT];
  fp4moe_activation_text(&r->desc->activation, activation);
  fp4moe_text_add(
      t, "problem: M %zu, top-%zu of %zu experts: %zu rows per expert, bucket up to %zu%s\n",
      r->problem->tokens, r->problem->top_k, r->desc->experts, r->rows,
      fp4moe_bucket_rows(r->bucket), r->bucket == FP4MOE_BUCKETS - 1 ? " and more" : "");
  fp4moe_text_add(t, "activation: %s\n", activation);
  fp4moe_text_add(t, "host: %s; the affinity mask allows %zu cores, with the CPU quota %zu\n",
                  host->topology, host->allowed_cores, host->threads);
  if (r->plan->quant_class != r->plan->act_class)
    fp4moe_text_add(t, "class %s: matmuls of %s, whose entries of the table serve it\n",
                    fp4moe_class_name((int)r->plan->quant_class),
                    fp4moe_class_name((int)r->plan->act_class));
  fp4moe_text_add(t, "%s", table_text);
  for (int p = r->first; p < FP4MOE_PHASES; p++) text_recipe(r, p);
  fp4moe_text_add(t, "what would change this%s\n", r->advice.count ? ":" : ": nothing known");
  for (size_t i = 0; i < r->advice.count; i++) fp4moe_text_add(t, "  %s\n", r->advice.line[i]);
  for (int op = 0; op < FP4MOE_OPS; op++) {
    fp4moe_text_add(t, "%s\n", fp4moe_op_name((fp4moe_op)op));
    for (size_t i = 0; i < fp4moe_kernel_count; i++)
      if ((int)fp4moe_kernels[i].op == op)
        text_kernel(r, &fp4moe_kernels[i], judge(r, &fp4moe_kernels[i]));
  }
}

static void json_recipe(report *r, int phase) {
  const fp4moe_choice *c = &r->choice[phase];
  const fp4moe_recipe *x = &c->recipe;
  const fp4moe_kernel *kernels[] = {x->gemv, x->unpack, x->gemm};
  size_t listed = 0;
  char key[FP4MOE_KEY_TEXT];
  fp4moe_key_text(&c->key, key);
  fp4moe_text_add(r->out, "\"%s\":{\"key\":\"%s\",\"n\":%zu,\"k\":%zu,\"source\":\"%s\",",
                  fp4moe_phase_name(phase), key, c->key.n, c->key.k, match_names[c->match]);
  if (c->entry)
    fp4moe_text_add(
        r->out, "\"entry\":{\"n\":%zu,\"k\":%zu,\"cores\":%zu,\"ns\":%" PRIu64 ",\"noise\":%.6f},",
        c->entry->n, c->entry->k, c->entry->cores, c->entry->ns, percent(c->entry) / 100);
  fp4moe_text_add(r->out, "\"kernels\":[");
  for (int i = 0; i < 3; i++)
    if (kernels[i]) fp4moe_text_add(r->out, "%s\"%s\"", listed++ ? "," : "", kernels[i]->name);
  fp4moe_text_add(r->out, "],\"panels\":%u,\"k_block\":%u,\"prefetch\":%u},", x->panels, x->k_block,
                  x->prefetch);
}

static void json_kernel(report *r, const fp4moe_kernel *k, uint32_t why) {
  size_t listed = 0;
  fp4moe_text_add(r->out, "{\"name\":\"%s\",\"op\":\"%s\",\"revision\":%u,\"verdict\":\"%s\"",
                  k->name, fp4moe_op_name(k->op), k->revision,
                  why                 ? "refused"
                  : is_selected(r, k) ? "selected"
                                      : "eligible");
  fp4moe_text_add(r->out, ",\"reasons\":[");
  for (size_t b = 0; b < sizeof reasons / sizeof *reasons; b++)
    if (why >> b & 1) fp4moe_text_add(r->out, "%s\"%s\"", listed++ ? "," : "", reasons[b]);
  fp4moe_text_add(r->out, "]");
  for (int p = r->first; p < FP4MOE_PHASES; p++) {
    const fp4moe_recipe_entry *e = measured(r, p, k);
    if (e)
      fp4moe_text_add(r->out, ",\"%s_ns\":%" PRIu64 ",\"%s_noise\":%.6f", fp4moe_phase_name(p),
                      e->ns, fp4moe_phase_name(p), percent(e) / 100);
  }
  fp4moe_text_add(r->out, "}");
}

static void write_json_report(report *r, const char *table_text) {
  fp4moe_text *t = r->out;
  char activation[FP4MOE_ACTIVATION_TEXT];
  fp4moe_activation_text(&r->desc->activation, activation);
  fp4moe_text_add(
      t,
      "{\"format\":\"%s\",\"class\":\"%s\",\"matmul_class\":\"%s\",\"gated\":%s,\"activation\":\"%s\","
      "\"rows_per_expert\":%zu,\"bucket\":%zu,\"allowed_cores\":%zu,\"cores\":%zu,"
      "\"batch_invariant\":%s,\"table\":",
      fp4moe_format_name((int)r->desc->format), fp4moe_class_name((int)r->plan->quant_class),
      fp4moe_class_name((int)r->plan->act_class), r->desc->activation.gated ? "true" : "false",
      activation, r->rows, fp4moe_bucket_rows(r->bucket), r->s->host->allowed_cores,
      r->s->host->threads, r->plan->batch_invariant ? "true" : "false");
  fp4moe_text_json(t, table_text);
  fp4moe_text_add(t, ",");
  for (int p = r->first; p < FP4MOE_PHASES; p++) json_recipe(r, p);
  fp4moe_text_add(t, "\"changes\":[");
  for (size_t i = 0; i < r->advice.count; i++) {
    if (i) fp4moe_text_add(t, ",");
    fp4moe_text_json(t, r->advice.line[i]);
  }
  fp4moe_text_add(t, "],\"kernels\":[");
  for (size_t i = 0; i < fp4moe_kernel_count; i++) {
    if (i) fp4moe_text_add(t, ",");
    json_kernel(r, &fp4moe_kernels[i], judge(r, &fp4moe_kernels[i]));
  }
  fp4moe_text_add(t, "]}\n");
}

size_t fp4moe_problem_rows(const fp4moe_layer_desc *desc, const fp4moe_problem *problem) {
  size_t pairs = problem->tokens * problem->top_k;
  return pairs > desc->experts ? (pairs + desc->experts - 1) / desc->experts : 1;
}

static void add_running(report *r, const fp4moe_plan *running) {
  fp4moe_advice *a = &r->advice;
  if (!running || fp4moe_plan_same(running, r->plan) ||
      a->count == sizeof a->line / sizeof *a->line)
    return;
  snprintf(a->line[a->count++], sizeof *a->line,
           "the layer still runs what it was finished or replanned with: fp4moe_layer_replan takes "
           "this choice");
}

fp4moe_status fp4moe_report(const fp4moe_selector *s, const fp4moe_layer_desc *desc,
                            const fp4moe_problem *problem, const char *table_text,
                            const fp4moe_plan *running, fp4moe_text *out) {
  fp4moe_plan plan;
  fp4moe_status status = fp4moe_select(s, desc, &plan);
  if (status) return status;
  report r = {.s = s,
              .desc = desc,
              .problem = problem,
              .plan = &plan,
              .first = fp4moe_first_phase(desc),
              .out = out};
  r.rows = fp4moe_problem_rows(desc, problem);
  r.bucket = fp4moe_bucket(r.rows);
  for (int p = r.first; p < FP4MOE_PHASES; p++)
    if ((status = fp4moe_choose(s, desc, p, r.bucket, &r.choice[p]))) return status;
  fp4moe_advise(s, desc, problem, &r.advice);
  add_running(&r, running);
  if (problem->json)
    write_json_report(&r, table_text);
  else
    write_text_report(&r, table_text);
  return FP4MOE_OK;
}
