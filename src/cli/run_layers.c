/* run_layers.c - every MoE layer in turn on random tokens (run.h): one context, one workspace, one
 * layer in memory at a time. Layers that are not FP4 are named and skipped; one that is FP4 and
 * cannot be run is an error, for a sum without it would be a lie. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "run.h"

/* Sums over the layers, the workspace they share, and their part of the JSON. */
typedef struct tour {
  size_t tokens, ran;
  double ms;
  difference worst;
  void *workspace;
  size_t workspace_bytes;
  json_t *layers, *skipped, *kernels;
} tour;

static void skip(const run_options *o, tour *t, const fp4moe_checkpoint_layer *l) {
  if (o->json)
    json_append(t->skipped, json_pack("{sI ss}", "layer", (json_int_t)l->layer, "why", l->reason));
  else
    printf("layer %zu: skipped: %s\n", l->layer, l->reason);
}

static int is_skipped(const run_options *o, const fp4moe_checkpoint_layer *l) {
  return o->layer == SIZE_MAX && l->status == FP4MOE_UNSUPPORTED && !l->fp4;
}

/* As config.json says, else at most 4. */
static size_t choose_top_k(const fp4moe_checkpoint_layer *l, const fp4moe_layer_desc *desc) {
  if (desc->router_weight_on_input) return 1;
  size_t k = l->top_k ? l->top_k : 4;
  return k < desc->experts ? k : desc->experts;
}

static void reserve(tour *t, size_t bytes) {
  if (bytes <= t->workspace_bytes) return;
  free(t->workspace);
  t->workspace = allocate_workspace(bytes);
  t->workspace_bytes = bytes;
}

static void add_kernels(json_t *all, const char *names) {
  json_t *list = json_names(names);
  for (size_t i = 0; i < json_array_size(list); i++) {
    const char *name = json_string_value(json_array_get(list, i));
    size_t j = 0;
    while (j < json_array_size(all) && strcmp(json_string_value(json_array_get(all, j)), name) != 0)
      j++;
    if (j == json_array_size(all)) json_append(all, json_string(name));
  }
  json_decref(list);
}

static void report_layer(const run_options *o, tour *t, const fp4moe_checkpoint_layer *l,
                         const fp4moe_layer *layer, size_t top_k, timing time, difference d) {
  double gbytes_s = time.weight_bytes * 1e-6 / time.ms;
  if (o->json) {
    json_append(t->layers, json_pack("{sI ss sI so so so so}", "layer", (json_int_t)l->layer,
                                     "family", l->family, "top_k", (json_int_t)top_k, "ms",
                                     json_number(time.ms), "gbytes_s", json_number(gbytes_s), "err",
                                     json_number(d.rel_l2), "nodes", run_nodes(layer)));
    return;
  }
  printf("layer %zu: %s, top-%zu%s: %.3f ms, %.2f GB/s, err %.2e\n", l->layer, l->family, top_k,
         l->top_k ? "" : " (assumed)", time.ms, gbytes_s, d.rel_l2);
  run_print_nodes(layer);
}

static void run_layer(run_state *r, tour *t, size_t i) {
  const run_options *o = &r->options;
  const fp4moe_checkpoint_layer *l = fp4moe_checkpoint_at(r->checkpoint, i);
  fp4moe_layer_desc whole = run_desc(o, l);
  fp4moe_layer *layer;
  fp4moe_layer_desc desc = run_load(r, i, &whole, &layer);
  size_t top_k = choose_top_k(l, &desc);
  fp4moe_stats stats = {.struct_size = sizeof stats};
  char kernels[2048];
  trial random;
  trial_init(&random, &desc, t->tokens, top_k, l->layer + 1);
  reserve(t, trial_workspace_bytes(&random, &own_library, layer));
  difference d =
      trial_check(&random, layer, t->workspace, t->workspace_bytes, kernels, sizeof kernels);
  fp4moe_batch batch = trial_batch(&random, &stats);
  timing time = run_time(layer, &batch, t->workspace, t->workspace_bytes, &random);
  progress_clear();
  report_layer(o, t, l, layer, top_k, time, d);
  add_kernels(t->kernels, kernels);
  if (!(d.rel_l2 <= t->worst.rel_l2)) t->worst.rel_l2 = d.rel_l2;
  if (!(d.max_abs <= t->worst.max_abs)) t->worst.max_abs = d.max_abs;
  t->ms += time.ms;
  t->ran++;
  trial_free(&random);
  fp4moe_layer_destroy(layer);
}

static void report_text(const tour *t, const char *precision, size_t threads) {
  printf("%zu layers, class %s, %zu tokens, %zu threads: experts cost %.3f ms a token\n", t->ran,
         precision, t->tokens, threads, t->ms / (double)t->tokens);
}

static json_t *report_json(const tour *t, const char *precision, size_t threads) {
  return json_pack("{ss sI sI so so so so sO sO sO}", "precision", precision, "tokens",
                   (json_int_t)t->tokens, "threads", (json_int_t)threads, "rel_l2",
                   json_number(t->worst.rel_l2), "max_abs", json_number(t->worst.max_abs), "ms",
                   json_number(t->ms), "ms_per_token", json_number(t->ms / (double)t->tokens),
                   "kernels", t->kernels, "layers", t->layers, "skipped", t->skipped);
}

static void report(const run_state *r, const tour *t) {
  const char *precision = word_of(precision_words, (int)r->options.precision);
  size_t threads = fp4moe_context_threads(r->context);
  if (r->options.json)
    print_json(report_json(t, precision, threads));
  else
    report_text(t, precision, threads);
}

static void close_tour(tour *t) {
  free(t->workspace);
  json_decref(t->kernels);
  json_decref(t->layers);
  json_decref(t->skipped);
}

int run_layers(run_state *r) {
  enum { SLOW_BYTES = 1 << 30 }; /* loading this much takes seconds */
  const run_options *o = &r->options;
  tour t = {.tokens = o->tokens ? o->tokens : 1,
            .layers = json_array(),
            .skipped = json_array(),
            .kernels = json_array()};
  size_t count = fp4moe_checkpoint_layers(r->checkpoint), found = 0;
  for (size_t i = 0; i < count; i++) {
    const fp4moe_checkpoint_layer *l = fp4moe_checkpoint_at(r->checkpoint, i);
    if (o->layer != SIZE_MAX && l->layer != o->layer) continue;
    found++;
    (l->bytes > SLOW_BYTES ? progress_at_once : progress)("layers", i, count);
    if (is_skipped(o, l))
      skip(o, &t, l);
    else
      run_layer(r, &t, i);
  }
  if (!found && o->layer != SIZE_MAX) die("%s: no MoE layer %zu", o->path, o->layer);
  if (!t.ran) die("%s: no layer that can be run; see fp4moe inspect", o->path);
  report(r, &t);
  close_tour(&t);
  return 0;
}
