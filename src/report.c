/* report.c - the oracle's account of a problem, as text or JSON (fp4moe_explain).
 *
 * Names the key, the recipe of each phase with its source, and every kernel of the registry with
 * its verdict and all reasons against it. */
#include <inttypes.h>
#include <string.h>

#include "activation.h"
#include "oracle.h"
#include "table.h"

typedef struct {
  const fp4moe_selector *s;
  const fp4moe_layer_desc *desc;
  const fp4moe_plan *plan;
  const fp4moe_recipe *recipe[FP4MOE_PHASES];
  fp4moe_match match[FP4MOE_PHASES];
  int first; /* phase */
  int bucket;
  size_t rows;
  fp4moe_text *out;
} report;

static const char *const match_names[] = {"static order", "table, nearest shape",
                                          "table, exact shape"};

/* Each reason as a phrase, in bit order. */
static const char *const reasons[] = {
    "the CPU lacks its ISA", "above FP4MOE_CPU",           "other weight format",
    "other precision class", "other activation or gating", "others of its op are forced",
};

static int is_selected(const report *r, const fp4moe_kernel *k) {
  const fp4moe_plan *p = r->plan;
  if (k == p->quant || k == p->act || k == p->combine || k == p->store) return 1;
  for (int i = r->first; i < FP4MOE_PHASES; i++)
    if (k == r->recipe[i]->gemv || k == r->recipe[i]->unpack || k == r->recipe[i]->gemm) return 1;
  return 0;
}

/* The best measured time of a recipe with this kernel, 0: none. */
static uint64_t measured_ns(const report *r, int phase, const fp4moe_kernel *k) {
  fp4moe_recipe_key key = {.phase = phase,
                           .format = (int)r->desc->format,
                           .act = (int)r->plan->act_class,
                           .gated = r->desc->activation.gated,
                           .bucket = r->bucket,
                           .cores = r->s->host->allowed_cores};
  size_t first, count;
  fp4moe_phase_shape(r->desc, phase, &key.n, &key.k);
  if (!fp4moe_table_find(r->s->table, &key, &first, &count)) return 0;
  for (size_t i = first; i < first + count; i++) {
    const fp4moe_recipe *x = &r->s->table->recipe[i].recipe;
    if (x->gemv == k || x->unpack == k || x->gemm == k) return r->s->table->recipe[i].ns;
  }
  return 0;
}

static void text_recipe(report *r, int phase) {
  const fp4moe_recipe *x = r->recipe[phase];
  size_t n, k;
  fp4moe_phase_shape(r->desc, phase, &n, &k);
  fp4moe_text_add(r->out, "%-7s n=%zu k=%zu: ", fp4moe_phase_name(phase), n, k);
  if (x->gemv)
    fp4moe_text_add(r->out, "%s, %u panels, prefetch %u", x->gemv->name, x->panels, x->prefetch);
  else
    fp4moe_text_add(r->out, "%s + %s, %u panels, k_block %u", x->unpack->name, x->gemm->name,
                    x->panels, x->k_block);
  fp4moe_text_add(r->out, " (%s)\n", match_names[r->match[phase]]);
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
      uint64_t ns = measured_ns(r, p, k);
      if (ns) fp4moe_text_add(r->out, ", %s %" PRIu64 " ns", fp4moe_phase_name(p), ns);
    }
  }
  fp4moe_text_add(r->out, "\n");
}

static void write_text_report(report *r, const char *table_text) {
  fp4moe_text *t = r->out;
  char activation[FP4MOE_ACTIVATION_TEXT];
  fp4moe_activation_text(&r->desc->activation, activation);
  fp4moe_text_add(t,
                  "key: format=%s class=%s gated=%d rows per expert %zu (bucket up to %zu%s) "
                  "cores=%zu\nactivation: %s\n",
                  fp4moe_format_name((int)r->desc->format),
                  fp4moe_class_name((int)r->plan->act_class), r->desc->activation.gated, r->rows,
                  fp4moe_bucket_rows(r->bucket), r->bucket == FP4MOE_BUCKETS - 1 ? " and more" : "",
                  r->s->host->allowed_cores, activation);
  if (r->plan->quant_class != r->plan->act_class)
    fp4moe_text_add(t, "class %s: matmuls of %s, whose entries of the table serve it\n",
                    fp4moe_class_name((int)r->plan->quant_class),
                    fp4moe_class_name((int)r->plan->act_class));
  fp4moe_text_add(t, "%s", table_text);
  for (int p = r->first; p < FP4MOE_PHASES; p++) text_recipe(r, p);
  for (int op = 0; op < FP4MOE_OPS; op++) {
    fp4moe_text_add(t, "%s\n", fp4moe_op_name((fp4moe_op)op));
    for (size_t i = 0; i < fp4moe_kernel_count; i++)
      if ((int)fp4moe_kernels[i].op == op)
        text_kernel(r, &fp4moe_kernels[i], fp4moe_judge(r->s, r->desc, &fp4moe_kernels[i]));
  }
}

static void json_recipe(report *r, int phase) {
  const fp4moe_recipe *x = r->recipe[phase];
  const fp4moe_kernel *kernels[] = {x->gemv, x->unpack, x->gemm};
  size_t n, k, listed = 0;
  fp4moe_phase_shape(r->desc, phase, &n, &k);
  fp4moe_text_add(r->out, "\"%s\":{\"n\":%zu,\"k\":%zu,\"source\":\"%s\",\"kernels\":[",
                  fp4moe_phase_name(phase), n, k, match_names[r->match[phase]]);
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
    uint64_t ns = measured_ns(r, p, k);
    if (ns) fp4moe_text_add(r->out, ",\"%s_ns\":%" PRIu64, fp4moe_phase_name(p), ns);
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
      "\"rows_per_expert\":%zu,\"bucket\":%zu,\"cores\":%zu,\"table\":",
      fp4moe_format_name((int)r->desc->format), fp4moe_class_name((int)r->plan->quant_class),
      fp4moe_class_name((int)r->plan->act_class), r->desc->activation.gated ? "true" : "false",
      activation, r->rows, fp4moe_bucket_rows(r->bucket), r->s->host->allowed_cores);
  fp4moe_text_json(t, table_text);
  fp4moe_text_add(t, ",");
  for (int p = r->first; p < FP4MOE_PHASES; p++) json_recipe(r, p);
  fp4moe_text_add(t, "\"kernels\":[");
  for (size_t i = 0; i < fp4moe_kernel_count; i++) {
    if (i) fp4moe_text_add(t, ",");
    json_kernel(r, &fp4moe_kernels[i], fp4moe_judge(r->s, r->desc, &fp4moe_kernels[i]));
  }
  fp4moe_text_add(t, "]}\n");
}

fp4moe_status fp4moe_report(const fp4moe_selector *s, const fp4moe_layer_desc *desc,
                            const fp4moe_problem *problem, const char *table_text,
                            fp4moe_text *out) {
  fp4moe_plan plan;
  fp4moe_recipe unused;
  fp4moe_status status = fp4moe_select(s, desc, &plan);
  if (status) return status;
  size_t pairs = problem->tokens * problem->top_k;
  report r = {.s = s, .desc = desc, .plan = &plan, .first = fp4moe_first_phase(desc), .out = out};
  r.rows = pairs > desc->experts ? (pairs + desc->experts - 1) / desc->experts : 1;
  r.bucket = fp4moe_bucket(r.rows);
  for (int p = r.first; p < FP4MOE_PHASES; p++) {
    r.recipe[p] = &plan.recipe[p][r.bucket];
    r.match[p] = fp4moe_select_recipe(s, desc, p, r.bucket, &unused);
  }
  if (problem->json)
    write_json_report(&r, table_text);
  else
    write_text_report(&r, table_text);
  return FP4MOE_OK;
}
