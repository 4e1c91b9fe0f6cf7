/* check_dispatch.c - layers under dispatchers of one's own: expert parallelism over two ranks,
 * shared experts, rows in blocks of a caller's stride, teams over rows, repeated ids.
 *
 * All of it in every class. What the library computes is compared with double precision over the
 * whole layer, and with the one call that needs no dispatcher. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fp4.h"
#include "grid.h"
#include "layer_fixture.h"
#include "team.h"

static fp4moe_layer_desc desc_of(const class_word *w, size_t experts) {
  return class_desc(w, 96, w->format == FP4MOE_MXFP4 ? 160 : 144, experts);
}

static void close_to(const random_layer *m, const problem *p, const float *y, const char *class,
                     const char *what) {
  problem of_y = *p;
  of_y.y = (float *)(uintptr_t)y;
  closeness c = error_of(m, &of_y);
  CHECK(is_close(c), "%s, %s: rel_l2 %g, %zu ties of %zu", class, what, c.rel_l2, c.ties,
        c.elements);
}

/* Experts over rows in a workspace of its own. */
static void run_experts(fp4moe_layer *layer, const fp4moe_rows *in, const fp4moe_rows *out,
                        size_t rows) {
  fp4moe_limits l = {sizeof l, rows, 1, 0};
  size_t bytes = fp4moe_workspace_bytes(layer, &l);
  void *workspace = malloc(bytes);
  memset(workspace, 0xa5, bytes);
  CHECK(!fp4moe_experts(layer, in, out, NULL, workspace, bytes), "%s", fp4moe_error_detail());
  free(workspace);
}

/* ---- Two ranks ---- */

enum { EXPERTS = 6, RANKS = 2, LOCAL = EXPERTS / RANKS };

/* Who holds what: rank r has expert held[r][i] as its i-th; map[r] is its expert_map. */
static const size_t held[RANKS][LOCAL] = {{0, 3, 4}, {1, 2, 5}};
static const int32_t map[RANKS][EXPERTS] = {{0, -1, -1, 1, 2, -1}, {-1, 0, 1, -1, -1, 2}};

static fp4moe_layer *open_rank(const random_layer *m, int rank, fp4moe_context *ctx) {
  fp4moe_layer_desc d = m->desc;
  fp4moe_layer *layer = NULL;
  d.experts = LOCAL;
  fp4moe_status status = fp4moe_layer_begin(ctx, &d, &layer);
  for (size_t e = 0; !status && e < LOCAL; e++) {
    fp4moe_expert_weights w = random_layer_expert(m, held[rank][e]);
    status = fp4moe_layer_set_expert(layer, e, &w);
  }
  if (!status) status = fp4moe_layer_finish(layer);
  CHECK(!status, "%s", fp4moe_error_detail());
  return layer;
}

/* prepare, experts, finalize: adds the rank's part to y, rank 0 first. */
static void add_finalized(fp4moe_layer *layer, const problem *p, int rank, float *y) {
  fp4moe_batch b = batch_of(p);
  b.y = y, b.accumulate = rank > 0, b.expert_map = map[rank], b.expert_map_count = EXPERTS;
  CHECK(!run_in_three(layer, &b), "%s", fp4moe_error_detail());
}

/* The same with no help: rows are sent into the rank's blocks, and what comes back is added. */
static void add_by_hand(fp4moe_layer *layer, const problem *p, int rank, float *y) {
  size_t pairs = p->tokens * p->top_k, h = p->hidden, floats = LOCAL * pairs * h, rows = 0;
  float *x = malloc(2 * floats * sizeof *x), *out = x + floats;
  size_t *at = malloc(pairs * sizeof *at);
  int32_t counts[LOCAL] = {0};
  int on_input = layer->desc.router_weight_on_input;
  for (size_t i = 0; i < pairs; i++) {
    int32_t e = p->ids[i] < 0 ? -1 : map[rank][p->ids[i]];
    if (e < 0) continue;
    at[i] = (size_t)e * pairs + (size_t)counts[e]++;
    for (size_t c = 0; c < h; c++)
      x[at[i] * h + c] = p->x[i / p->top_k * h + c] * (on_input ? p->weights[i] : 1);
    rows++;
  }
  fp4moe_rows in = {
      .struct_size = sizeof in, .data = x, .expert_counts = counts, .max_rows = pairs};
  fp4moe_rows to = in;
  to.data = out;
  run_experts(layer, &in, &to, rows);
  for (size_t i = 0; i < pairs; i++)
    for (size_t c = 0; c < h && p->ids[i] >= 0 && map[rank][p->ids[i]] >= 0; c++)
      y[i / p->top_k * h + c] += out[at[i] * h + c] * (on_input ? 1 : p->weights[i]);
  free(x);
  free(at);
}

static void two_ranks(const class_word *w, fp4moe_context *ctx, int on_input) {
  fp4moe_layer_desc d = desc_of(w, EXPERTS);
  d.router_weight_on_input = on_input;
  random_layer *m = random_layer_new(&d, 1, NULL);
  problem p = draw(&d, 23, on_input ? 1 : 3, 1);
  size_t floats = p.tokens * p.hidden;
  float *y = calloc(2 * floats, sizeof *y);
  double *one = malloc(floats * sizeof *one);
  fp4moe_batch b = batch_of(&p);
  fp4moe_layer *whole = layer_of(m, ctx), *rank[RANKS];
  p.ids[0] = p.ids[2 * p.top_k] = 0; /* a token of one rank only, and one of neither */
  for (size_t s = 0; s < p.top_k; s++) p.ids[p.top_k + s] = -1;
  CHECK(!run(whole, &b), "%s", fp4moe_error_detail());
  memset(y, 0xff, floats * sizeof *y); /* finalize of rank 0 does not read y */
  for (int r = 0; r < RANKS; r++) {
    rank[r] = open_rank(m, r, ctx);
    add_finalized(rank[r], &p, r, y);
    add_by_hand(rank[r], &p, r, y + floats);
    fp4moe_layer_destroy(rank[r]);
  }
  for (size_t i = 0; i < floats; i++) one[i] = (double)p.y[i];
  for (int by_hand = 0; by_hand < 2; by_hand++) {
    const char *what = by_hand ? "two ranks by hand" : "two ranks finalized";
    const float *two = y + (size_t)by_hand * floats;
    close_to(m, &p, two, w->name, what);
    CHECK(rel_l2(floats, two, one) <= 1e-6, "%s, %s: %g off one rank", w->name, what,
          rel_l2(floats, two, one));
  }
  free(y);
  free(one);
  fp4moe_layer_destroy(whole);
  drop(&p);
  random_layer_free(m);
}

static void expert_parallel(void) {
  fp4moe_context *ctx = context_of(2);
  for (int i = 0; i < CLASS_WORDS; i++)
    for (int on_input = 0; on_input < 2; on_input++) two_ranks(&class_words[i], ctx, on_input);
  fp4moe_context_destroy(ctx);
}

/* ---- Shared experts ---- */

enum { SHARED = 2, ROUTED_SLOTS = 3 };

/* As experts EXPERTS, EXPERTS + 1 of the layer, with a slot and weight 1 in every token. */
static void shared_in_layer(const class_word *w, fp4moe_context *ctx, size_t tokens) {
  fp4moe_layer_desc d = desc_of(w, EXPERTS + SHARED);
  random_layer *m = random_layer_new(&d, 1, NULL);
  d.experts = EXPERTS;
  problem p = draw(&d, tokens, ROUTED_SLOTS + SHARED, 1);
  for (size_t t = 0; t < tokens; t++)
    for (size_t s = 0; s < SHARED; s++) {
      p.ids[t * p.top_k + ROUTED_SLOTS + s] = (int32_t)(EXPERTS + s);
      p.weights[t * p.top_k + ROUTED_SLOTS + s] = 1;
    }
  fp4moe_batch b = batch_of(&p);
  fp4moe_layer *layer = layer_of(m, ctx);
  CHECK(!run(layer, &b), "%s", fp4moe_error_detail());
  close_to(m, &p, p.y, w->name, "shared experts in the layer");
  fp4moe_layer_destroy(layer);
  drop(&p);
  random_layer_free(m);
}

/* As a layer of its own, of another I, that adds to y. What it added is compared alone. */
static void shared_beside(const class_word *w, fp4moe_context *ctx, size_t tokens) {
  fp4moe_layer_desc d = desc_of(w, EXPERTS), ds = desc_of(w, 1);
  ds.intermediate *= 2;
  random_layer *m = random_layer_new(&d, 1, NULL), *ms = random_layer_new(&ds, 1, NULL);
  problem p = draw(&d, tokens, ROUTED_SLOTS, 1), ps = draw(&ds, tokens, 1, 0);
  size_t floats = tokens * p.hidden;
  fp4moe_layer *layer = layer_of(m, ctx), *shared = layer_of(ms, ctx);
  memcpy(ps.x, p.x, floats * sizeof *p.x);
  for (size_t t = 0; t < tokens; t++) ps.ids[t] = 0, ps.weights[t] = 1;
  fp4moe_batch b = batch_of(&p), bs = batch_of(&ps);
  CHECK(!run(layer, &b), "%s", fp4moe_error_detail());
  close_to(m, &p, p.y, w->name, "the routed experts");
  memcpy(ps.y, p.y, floats * sizeof *p.y);
  bs.accumulate = 1;
  CHECK(!run(shared, &bs), "%s", fp4moe_error_detail());
  for (size_t i = 0; i < floats; i++) ps.y[i] -= p.y[i];
  close_to(ms, &ps, ps.y, w->name, "a shared expert that adds");
  fp4moe_layer_destroy(layer);
  fp4moe_layer_destroy(shared);
  drop(&p);
  drop(&ps);
  random_layer_free(m);
  random_layer_free(ms);
}

static void shared_experts(void) {
  fp4moe_context *ctx = context_of(2);
  for (int i = 0; i < CLASS_WORDS; i++)
    for (size_t tokens = 1; tokens < 40; tokens += 18) {
      shared_in_layer(&class_words[i], ctx, tokens);
      shared_beside(&class_words[i], ctx, tokens);
    }
  fp4moe_context_destroy(ctx);
}

/* ---- Repeated ids ---- */

/* More slots than experts: each slot adds its own. */
static void repeated_ids(void) {
  for (int i = 0; i < CLASS_WORDS; i++) {
    fp4moe_layer_desc d = desc_of(&class_words[i], 3);
    fixture f = set_up(2, &d, 1, 9, 7, 0);
    fp4moe_batch b = batch_of(&f.p);
    for (size_t s = 0; s < f.p.top_k; s++) f.p.ids[s] = 1; /* one token: one expert in every slot */
    CHECK(!run(f.layer, &b), "%s", fp4moe_error_detail());
    close_to(f.m, &f.p, f.p.y, class_words[i].name, "7 slots, 3 experts");
    tear_down(&f);
  }
}

/* ---- Rows by a team, in blocks that lie apart ---- */

enum { MAX_ROWS = 11, SPARE_IN = 3, SPARE_OUT = 1, BLOCKS = 4, TEAM = 5 };

typedef struct {
  fp4moe_layer *layer;
  fp4moe_rows in, out;
  void *workspace;
  size_t bytes;
} rows_call;

static fp4moe_status join_call(void *arg, const fp4moe_team *team) {
  const rows_call *c = arg;
  const fp4moe_options o = {.struct_size = sizeof o, .team = team};
  return fp4moe_experts(c->layer, &c->in, &c->out, &o, c->workspace, c->bytes);
}

static void team_of(rows_call *c, size_t nth, size_t bytes, fp4moe_status want) {
  c->workspace = check_buffer(bytes, CHECK_AFTER);
  c->bytes = bytes;
  team_run(nth, join_call, c, want);
}

/* Where row r of the grouped rows lies. */
static size_t place(const int64_t *offsets, size_t r, int batched, size_t spare) {
  size_t e = 0;
  while (offsets[e + 1] <= (int64_t)r) e++;
  return batched ? e * (MAX_ROWS + spare) + r - (size_t)offsets[e] : r;
}

/* The form of rows in a grid of theirs. */
static fp4moe_rows rows_in(const grid *g, size_t rows, int64_t *offsets, const int32_t *counts,
                           size_t spare) {
  fp4moe_rows r = {.struct_size = sizeof r, .data = g->data, .stride = g->stride};
  if (counts)
    r.expert_counts = counts, r.max_rows = MAX_ROWS,
    r.expert_stride = (MAX_ROWS + spare) * g->stride;
  else
    r.rows = rows, r.expert_offsets = offsets;
  return r;
}

/* One call by nth threads; want: the rows one after the other, NULL: y is filled with them. */
static void by_team(fp4moe_layer *layer, const float *x, int64_t *offsets, int32_t *counts,
                    size_t nth, int least, const float *want, float *y) {
  size_t rows = (size_t)offsets[BLOCKS], h = layer->desc.hidden, at;
  unsigned char used[BLOCKS * (MAX_ROWS + SPARE_OUT)] = {0};
  int batched = counts != NULL;
  grid in = grid_new(FP4MOE_F32, batched ? BLOCKS * (MAX_ROWS + SPARE_IN) : rows, h, 3);
  grid out = grid_new(FP4MOE_F32, batched ? BLOCKS * (MAX_ROWS + SPARE_OUT) : rows, h, 1);
  for (size_t r = 0; r < rows; r++) {
    used[place(offsets, r, batched, SPARE_OUT)] = 1;
    memcpy(grid_row(&in, place(offsets, r, batched, SPARE_IN)), x + r * h, h * sizeof *x);
  }
  check_readonly(in.data);
  rows_call call = {.layer = layer};
  call.in = rows_in(&in, rows, offsets, counts, SPARE_IN);
  call.out = rows_in(&out, rows, NULL, counts, SPARE_OUT);
  fp4moe_limits l = {sizeof l, rows, 1, nth};
  size_t bytes = least ? fp4moe_workspace_min_bytes(layer, &l) : fp4moe_workspace_bytes(layer, &l);
  team_of(&call, nth, bytes / 8, FP4MOE_WORKSPACE);
  team_of(&call, nth, bytes, FP4MOE_OK);
  grid_gaps(&out, used, batched ? "batched" : "grouped");
  for (size_t r = 0; r < rows; r++) {
    at = place(offsets, r, batched, SPARE_OUT);
    if (want)
      CHECK_SAME(grid_row(&out, at), want + r * h, h, sizeof *want,
                 batched ? "batched" : "grouped");
    else
      memcpy(y + r * h, grid_row(&out, at), h * sizeof *y);
  }
  CHECK_RELEASE();
}

static void teams_over_rows(void) {
  int32_t counts[BLOCKS] = {7, 0, MAX_ROWS, 1}, ids[BLOCKS * MAX_ROWS];
  int64_t offsets[BLOCKS + 1] = {0};
  for (int e = 0; e < BLOCKS; e++) {
    offsets[e + 1] = offsets[e] + counts[e];
    for (int64_t r = offsets[e]; r < offsets[e + 1]; r++) ids[r] = e;
  }
  for (int i = 0; i < CLASS_WORDS; i++) {
    fp4moe_layer_desc d = desc_of(&class_words[i], BLOCKS);
    fixture f = set_up(TEAM, &d, 1, (size_t)offsets[BLOCKS], 1, 0);
    memcpy(f.p.ids, ids, f.p.tokens * sizeof *ids);
    for (size_t r = 0; r < f.p.tokens; r++) f.p.weights[r] = 1;
    by_team(f.layer, f.p.x, offsets, NULL, 1, 0, NULL, f.p.y);
    close_to(f.m, &f.p, f.p.y, class_words[i].name, "grouped rows");
    for (size_t n = 1; n <= TEAM; n += 2)
      for (int form = 0; form < 4; form++)
        by_team(f.layer, f.p.x, offsets, form % 2 ? counts : NULL, n, form / 2, f.p.y, NULL);
    tear_down(&f);
  }
}

/* ---- Refusals ---- */

static void refused_rows(void) {
  fp4moe_layer_desc d = desc_of(&class_words[CLASS_F32_MX], 2);
  fixture f = set_up(2, &d, 1, 4, 1, 0);
  const problem p = f.p;
  int64_t offsets[3] = {0, 3, 4};
  int32_t counts[2] = {1, 4};
  memset(p.y, 0xff, 4 * p.hidden * sizeof *p.y);
  const fp4moe_rows good = {sizeof good, 4, p.x, FP4MOE_F32, 0, offsets, NULL, 0, 0};
  fp4moe_rows in = good, out = good;
  out.data = p.y;
  const fp4moe_rows good_out = out;
#define REFUSED_ROWS(text)                                                                         \
  REFUSED(fp4moe_experts(f.layer, &in, &out, NULL, NULL, 0), FP4MOE_INVALID, text);                \
  in = good, out = good_out
  in.dtype = FP4MOE_I32;
  REFUSED_ROWS("rows.dtype is 3");
  out.dtype = FP4MOE_I64;
  REFUSED_ROWS("out.dtype is 4");
  in.stride = 380;
  REFUSED_ROWS("rows.stride is 380, expected at least 384");
  out.stride = 380;
  REFUSED_ROWS("out.stride is 380, expected at least 384");
  in.rows = 5;
  REFUSED_ROWS("rows.expert_offsets end at 4, rows.rows is 5, out.rows 4");
  in.expert_offsets = NULL;
  REFUSED_ROWS("rows.expert_offsets is NULL");
  offsets[0] = 1;
  REFUSED_ROWS("rows.expert_offsets[0] is 1, expected 0");
  offsets[0] = 0, offsets[1] = 5;
  REFUSED_ROWS("rows.expert_offsets[2] is 4 after 5");
  offsets[1] = 3, out.data = NULL;
  REFUSED_ROWS("out.data is NULL");
  in.expert_counts = counts, in.max_rows = out.max_rows = 4, out.expert_stride = 1535;
  REFUSED_ROWS("out.expert_stride is 1535, expected at least 1536");
  in.expert_counts = counts, in.max_rows = out.max_rows = 3;
  REFUSED_ROWS("rows.expert_counts[1] is 4, expected 0..3");
  fp4moe_options o = {.struct_size = sizeof o, .threads = 3};
  REFUSED(fp4moe_experts(f.layer, &in, &out, &o, NULL, 0), FP4MOE_INVALID,
          "options.threads is 3, the context has 2");
  for (size_t i = 0; i < 4 * p.hidden; i++) CHECK(isnan(p.y[i]), "y[%zu] was written", i);
  tear_down(&f);
}

/* router_weight_on_input is for top_k 1, in each call that has slots. */
static void refused_slots(void) {
  fp4moe_layer_desc d = desc_of(&class_words[CLASS_F32_MX], 2);
  d.router_weight_on_input = 1;
  fixture f = set_up(1, &d, 0, 2, 2, 0);
  float *x = malloc(4 * f.p.hidden * sizeof *x);
  int64_t offsets[3], row_pair[4] = {-7, -7, -7, -7};
  fp4moe_batch b = batch_of(&f.p);
  fp4moe_rows rows = {sizeof rows, 4, x, FP4MOE_F32, 0, offsets, NULL, 0, 0};
  static const char text[] = "router weight on input needs top_k 1, the batch has 2";
  REFUSED(run(f.layer, &b), FP4MOE_INVALID, text);
  REFUSED(fp4moe_prepare(f.layer, &b, &rows, row_pair), FP4MOE_INVALID, text);
  REFUSED(fp4moe_finalize(f.layer, &b, &rows, row_pair), FP4MOE_INVALID, text);
  CHECK(row_pair[0] == -7 && rows.rows == 4, "prepare wrote");
  free(x);
  tear_down(&f);
}

/* What finalize cannot place is an error that names it, and y stays as it is. */
static void refused_pairs(void) {
  fp4moe_context *ctx = context_of(1);
  fp4moe_layer_desc d = desc_of(&class_words[0], 2);
  random_layer *m = random_layer_new(&d, 0, NULL);
  fp4moe_layer *layer = NULL;
  CHECK(!random_layer_open(m, ctx, &layer), "%s", fp4moe_error_detail());
  problem p = draw(&d, 2, 1, 0);
  for (size_t i = 0; i < 2 * p.hidden; i++) p.y[i] = NAN;
  float *x = calloc(2 * p.hidden, sizeof *x);
  fp4moe_batch b = batch_of(&p);
  fp4moe_rows rows = {sizeof rows, 2, x, FP4MOE_F32, 0, NULL, NULL, 0, 0}, narrow = rows;
  const int64_t beyond[2] = {0, 2}, twice[2] = {1, 1};
  narrow.stride = 4 * p.hidden - 4;
  REFUSED(fp4moe_finalize(layer, &b, &rows, beyond), FP4MOE_INVALID,
          "row_pair[1] is 2, the batch has 2 slots");
  REFUSED(fp4moe_finalize(layer, &b, &rows, twice), FP4MOE_INVALID,
          "row_pair[1] is 1, as is row_pair[0]");
  REFUSED(fp4moe_finalize(layer, &b, &rows, NULL), FP4MOE_INVALID, "row_pair is NULL");
  REFUSED(fp4moe_finalize(layer, &b, &narrow, twice), FP4MOE_INVALID,
          "rows.stride is 380, a row has 384 bytes");
  REFUSED(fp4moe_prepare(layer, &b, &rows, NULL), FP4MOE_INVALID, "rows.expert_offsets is NULL");
  fp4moe_batch bad = b;
  bad.y = NULL;
  REFUSED(fp4moe_finalize(layer, &bad, &rows, beyond), FP4MOE_INVALID, "batch.y is NULL");
  bad = b, bad.y_stride = 4;
  REFUSED(fp4moe_finalize(layer, &bad, &rows, beyond), FP4MOE_INVALID, "batch.y_stride is 4");
  bad = b, bad.y_dtype = (fp4moe_dtype)77;
  REFUSED(fp4moe_finalize(layer, &bad, &rows, beyond), FP4MOE_INVALID, "batch.y_dtype is 77");
  for (size_t i = 0; i < 2 * p.hidden; i++) CHECK(isnan(p.y[i]), "y[%zu] was written", i);
  free(x);
  fp4moe_layer_destroy(layer);
  drop(&p);
  random_layer_free(m);
  fp4moe_context_destroy(ctx);
}

void check_dispatch(void) {
  CU_pSuite s = check_suite("dispatch");
  check_test(s, "two ranks", expert_parallel);
  check_test(s, "shared experts", shared_experts);
  check_test(s, "more slots than experts", repeated_ids);
  check_test(s, "teams over rows", teams_over_rows);
  check_test(s, "refused rows", refused_rows);
  check_test(s, "refused slots", refused_slots);
  check_test(s, "refused pairs", refused_pairs);
}
