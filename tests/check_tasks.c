/* check_tasks.c - the task list of real models keeps large machines busy (pure: no weights).
 *
 * For every preset, an LM head and every token count the units of both phases are handed to
 * simulated workers by the rule of forward.c, whoever is free takes the next run. Load is the time
 * until the last worker ends, summed over the two phases (a barrier lies between), over the mean:
 * at most 1.1. One exception has its own figure (bound_of). With two shards each worker begins with
 * one of them. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "call.h"
#include "layer_call.h"
#include "presets.h"

/* A call of a layer that has headers only. */
typedef struct {
  fp4moe_layer layer;
  fp4moe_plan plan;
  fp4moe_call call;
  int32_t *ids;
  float *weights;
  void *workspace;
} list;

static void draw_ids(int32_t *ids, size_t tokens, size_t top_k, size_t experts) {
  for (size_t t = 0; t < tokens; t++)
    for (size_t s = 0; s < top_k; s++) {
      int again;
      do {
        ids[t * top_k + s] = (int32_t)check_below(experts);
        again = 0;
        for (size_t o = 0; o < s; o++) again |= ids[t * top_k + o] == ids[t * top_k + s];
      } while (again);
    }
}

static list *make_list(fp4moe_context *ctx, const preset *p, fp4moe_precision precision,
                       size_t tokens, size_t shards) {
  list *l = calloc(1, sizeof *l);
  l->layer.ctx = ctx;
  l->layer.desc = (fp4moe_layer_desc){sizeof l->layer.desc,
                                      p->hidden,
                                      p->intermediate,
                                      p->experts,
                                      p->format,
                                      precision,
                                      p->activation,
                                      p->router_weight_on_input};
  fp4moe_shape_of(&l->layer.desc, &l->layer.shape);
  l->layer.shards = shards;
  fp4moe_shards_cut(&l->layer.shape, shards, l->layer.shard);
  for (size_t s = 0; s < shards; s++) l->layer.shard[s].shape.bytes = sizeof(fp4moe_record);
  l->layer.shard[0].records = calloc(p->experts, sizeof(fp4moe_record));
  CHECK(!fp4moe_context_select(ctx, &l->layer.desc, &l->plan), "%s: %s", p->name,
        fp4moe_error_detail());
  l->ids = malloc(tokens * p->top_k * sizeof *l->ids);
  l->weights = calloc(tokens * p->top_k, sizeof *l->weights);
  draw_ids(l->ids, tokens, p->top_k, p->experts);
  fp4moe_batch b = {.struct_size = sizeof b,
                    .tokens = tokens,
                    .top_k = p->top_k,
                    .x = l->ids,
                    .y = l->ids,
                    .topk_ids = l->ids,
                    .ids_dtype = FP4MOE_I32,
                    .topk_weights = l->weights};
  const fp4moe_call_form rows = {.unreduced = 1, .slots = 1, .id_inner = sizeof *l->ids};
  CHECK(!fp4moe_call_init(&l->call, &l->layer, &l->plan, &b,
                          fp4moe_is_linear(&l->layer.desc) ? &rows : NULL),
        "%s", fp4moe_error_detail());
  l->workspace = malloc(fp4moe_call_layout(&l->call, NULL, tokens));
  fp4moe_call_layout(&l->call, l->workspace, tokens);
  CHECK(!fp4moe_call_count(&l->call), "%s", fp4moe_error_detail());
  fp4moe_call_group(&l->call, 0, tokens);
  return l;
}

static void free_list(list *l) {
  free(l->workspace);
  free(l->ids);
  free(l->weights);
  free(l->layer.shard[0].records);
  free(l);
}

/* Time of a phase on `workers`; adds its work to *work. */
static double simulate(const fp4moe_call *c, int phase, size_t workers, double *work) {
  double clock[128] = {0}, last = 0;
  size_t units = fp4moe_call_units(c, phase), most = fp4moe_call_most(c, phase);
  size_t shards = c->layer->shards, at[FP4MOE_MAX_SHARDS], end[FP4MOE_MAX_SHARDS];
  for (size_t s = 0; s < shards; s++) {
    at[s] = fp4moe_call_first_unit(c, phase, s);
    end[s] = fp4moe_call_first_unit(c, phase, s + 1);
  }
  while (units) {
    size_t w = 0, s;
    for (size_t i = 1; i < workers; i++)
      if (clock[i] < clock[w]) w = i;
    for (s = w % shards; at[s] == end[s];) s = (s + 1) % shards;
    size_t n = (end[s] - at[s]) * shards / (c->share * workers);
    if (n > most) n = most;
    if (n > end[s] - at[s]) n = end[s] - at[s];
    if (!n) n = 1;
    units -= n;
    while (n--) {
      double cost = fp4moe_unit_cost(c, phase, at[s]++);
      clock[w] += cost;
      *work += cost;
    }
    if (clock[w] > last) last = clock[w];
  }
  return last;
}

static double load_of(fp4moe_call *c, size_t workers) {
  double work = 0, time = 0;
  c->workers = workers;
  for (int phase = fp4moe_first_phase(&c->layer->desc); phase < FP4MOE_PHASES; phase++)
    time += simulate(c, phase, workers, &work);
  return time / (work / (double)workers);
}

/* The chain of class int8 along K is one: a single active expert cannot be cut further. */
static double bound_of(const preset *p, fp4moe_precision precision, size_t tokens) {
  int one_expert = precision == FP4MOE_PRECISION_INT8 && tokens * p->top_k == 1;
  return one_expert ? 1.15 : 1.1;
}

static void balanced_preset(fp4moe_context *ctx, const preset *p, fp4moe_precision precision,
                            size_t shards) {
  static const size_t tokens[] = {1, 8, 64, 512}, workers[] = {16, 64, 96, 128};
  for (size_t m = 0; m < 4; m++) {
    list *l = make_list(ctx, p, precision, tokens[m], shards);
    for (size_t w = 0; w < 4; w++) {
      double load = load_of(&l->call, workers[w]);
      CHECK(load <= bound_of(p, precision, tokens[m]) + 1e-9,
            "%s class %d M %zu, %zu workers, %zu shards: load %.3f", p->name, (int)precision,
            tokens[m], workers[w], shards, load);
    }
    free_list(l);
  }
}

/* Every preset, and an LM head: a linear of one matrix. */
static void balanced(fp4moe_precision precision, size_t shards) {
  static const preset head = {
      "LM head", 200000, 2880, 1, 1, FP4MOE_MXFP4, {.kind = (fp4moe_activation_kind)FP4MOE_LINEAR},
      0,         0};
  fp4moe_context *ctx =
      context_with((fp4moe_context_desc){.max_threads = 128, .tuned = FP4MOE_TUNED_OFF});
  for (size_t i = 0; i < preset_count; i++) balanced_preset(ctx, &presets[i], precision, shards);
  balanced_preset(ctx, &head, precision, shards);
  fp4moe_context_destroy(ctx);
}

static void balanced_bf16(void) { balanced(FP4MOE_PRECISION_BF16, 1); }
static void balanced_f32(void) { balanced(FP4MOE_PRECISION_F32, 1); }
static void balanced_int8(void) { balanced(FP4MOE_PRECISION_INT8, 1); }
static void balanced_shards(void) { balanced(FP4MOE_PRECISION_BF16, 2); }

/* Units of gate/up cover every (row, panel) exactly once, none in two shards. */
static void covers_rows(const fp4moe_call *c, size_t tokens) {
  const size_t panels = c->layer->shape.panels13, cells = c->rows * panels;
  uint8_t *cell = calloc(cells, 1);
  size_t seen = 0, again = 0;
  for (size_t u = 0; u < fp4moe_call_units(c, FP4MOE_GATE_UP); u++) {
    fp4moe_unit1 x;
    fp4moe_call_unit1(c, FP4MOE_GATE_UP, u, 1, &x);
    CHECK(x.rows >= 1 && x.rows <= FP4MOE_ROW_BLOCK, "%zu rows", x.rows);
    CHECK(x.panel >= x.shard->first13 &&
              x.panel + x.panels <= x.shard->first13 + x.shard->shape.panels13,
          "unit %zu: panels from %zu in two shards", u, x.panel);
    for (size_t r = x.row; r < x.row + x.rows; r++)
      for (size_t q = x.panel; q < x.panel + x.panels; q++)
        cell[r * panels + q]++ ? again++ : seen++;
  }
  CHECK(seen == cells && !again, "M %zu, phase 1: %zu of %zu cells, %zu again", tokens, seen, cells,
        again);
  free(cell);
}

/* Units of down cover every (run, token, panel) so. */
static void covers_tokens(const fp4moe_call *c, size_t tokens) {
  const size_t panels = c->layer->shape.panels2, cells = tokens * panels * c->cut.runs;
  uint8_t *cell = calloc(cells, 1);
  size_t seen = 0, again = 0;
  for (size_t u = 0; u < fp4moe_call_units(c, FP4MOE_DOWN); u++) {
    fp4moe_unit2 x;
    fp4moe_call_unit2(c, u, 1, &x);
    CHECK(x.panel >= x.shard->first2 &&
              x.panel + x.panels <= x.shard->first2 + x.shard->shape.panels2,
          "unit %zu: output panels from %zu in two shards", u, x.panel);
    for (size_t t = x.token; t < x.token + x.tokens; t++)
      for (size_t q = x.panel; q < x.panel + x.panels; q++)
        cell[(x.run * tokens + t) * panels + q]++ ? again++ : seen++;
  }
  CHECK(seen == cells && !again, "M %zu, phase 2: %zu of %zu cells, %zu again", tokens, seen, cells,
        again);
  free(cell);
}

static void covers(size_t shards) {
  static const size_t tokens[] = {1, 5, 40, 1030};
  static const preset odd = {"odd", 352, 160, 7, 3, FP4MOE_MXFP4, {.gated = 1}, 0, 0};
  fp4moe_context *ctx = context_of(3);
  for (size_t m = 0; m < 4; m++) {
    list *l = make_list(ctx, &odd, FP4MOE_PRECISION_BF16, tokens[m], shards);
    const fp4moe_call *c = &l->call;
    covers_rows(c, tokens[m]);
    covers_tokens(c, tokens[m]);
    for (size_t r = 0; r < c->cut.runs; r++)
      CHECK(c->cut.run_first[r] < c->cut.run_first[r + 1], "run %zu is empty", r);
    CHECK(c->cut.run_first[c->cut.runs] == c->actives * c->cut.k_parts, "segments");
    free_list(l);
  }
  fp4moe_context_destroy(ctx);
}

static void covers_everything(void) {
  static const size_t shards[] = {1, 2, 3, 8, FP4MOE_MAX_SHARDS};
  for (size_t i = 0; i < sizeof shards / sizeof *shards; i++) covers(shards[i]);
}

/* An expert alone is cut along K where it has less than four rows, and never in class int8. */
static void pieces_of_k(void) {
  static const preset one = {"one", 352, 2048, 1, 1, FP4MOE_MXFP4, {.gated = 1}, 0, 0};
  fp4moe_context *ctx = context_of(3);
  for (size_t rows = 1; rows <= 5; rows++)
    for (int int8 = 0; int8 < 2; int8++) {
      list *l = make_list(ctx, &one, int8 ? FP4MOE_PRECISION_INT8 : FP4MOE_PRECISION_BF16, rows, 1);
      const size_t want = rows < 4 && !int8 ? 4 : 1;
      CHECK(l->call.cut.k_parts == want, "%zu rows, int8 %d: %zu pieces, expected %zu", rows, int8,
            l->call.cut.k_parts, want);
      free_list(l);
    }
  fp4moe_context_destroy(ctx);
}

void check_tasks(void) {
  CU_pSuite s = check_suite("tasks");
  check_test(s, "cover everything", covers_everything);
  check_test(s, "pieces of K", pieces_of_k);
  check_test(s, "balanced bf16", balanced_bf16);
  check_test(s, "balanced f32", balanced_f32);
  check_test(s, "balanced int8", balanced_int8);
  check_test(s, "balanced shards", balanced_shards);
}
