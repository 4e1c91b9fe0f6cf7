/* check_linear.c - FP4 matrices without a layer around them: grouped, batched and indexed rows.
 *
 * Small linears of every format and class against double precision, with odd N, every dtype and
 * strides of every kind; the same bits for any threads, team or workspace; refusals by name. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fp4.h"
#include "grid.h"
#include "layer_call.h"
#include "team.h"

static const fp4moe_dtype dtypes[] = {FP4MOE_F32, FP4MOE_F16, FP4MOE_BF16};
enum { MAX_ROWS = 7, SPARE_IN = 2, SPARE_OUT = 1 }; /* rows between blocks */

/* E matrices [N][K]: the down projections of a random layer. */
static random_layer *matrices(size_t n, size_t k, size_t experts, const class_word *w) {
  fp4moe_layer_desc d = {.struct_size = sizeof d,
                         .hidden = n,
                         .intermediate = k,
                         .experts = experts,
                         .format = w->format,
                         .precision = w->precision,
                         .input_global = w->input_global};
  return random_layer_new(&d, 1, NULL);
}

enum { MOST_EXPERTS = 8 };

static fp4moe_linear *open_linear(const random_layer *m, fp4moe_context *ctx) {
  fp4moe_projection w[MOST_EXPERTS];
  for (size_t e = 0; e < m->desc.experts; e++) w[e] = random_layer_expert(m, e).down;
  return linear_of(ctx,
                   (fp4moe_linear_desc){.n = m->desc.hidden,
                                        .k = m->desc.intermediate,
                                        .experts = m->desc.experts,
                                        .format = m->desc.format,
                                        .precision = m->desc.precision,
                                        .input_global = m->desc.input_global,
                                        .input_scale = m->desc.input_scale_down},
                   w);
}

/* A matmul has FP32 sums of exact products, whatever the class. */
static const double bound = 1e-5;

/* ---- By expert ---- */

/* Rows of some experts, grouped or batched, against double precision. */
static void by_expert(fp4moe_context *ctx, const random_layer *m, const char *class, int batched,
                      int i) {
  size_t experts = m->desc.experts, n = m->desc.hidden, k = m->desc.intermediate, rows = 0;
  int64_t offsets[8] = {0};
  int32_t counts[8];
  for (size_t e = 0; e < experts; e++) {
    counts[e] = e == 1 && experts > 1 ? 0 : (int32_t)(1 + check_below(MAX_ROWS));
    if (n == 1) counts[e] = MAX_ROWS; /* one sum alone may cancel to its error */
    offsets[e + 1] = offsets[e] + counts[e];
  }
  rows = (size_t)offsets[experts];
  unsigned char used[8 * (MAX_ROWS + SPARE_OUT)] = {0};
  size_t in_block = MAX_ROWS + SPARE_IN, out_block = MAX_ROWS + SPARE_OUT;
  grid x = grid_new(dtypes[i % 3], batched ? experts * in_block : rows, k, 4);
  grid y = grid_new(dtypes[i / 3], batched ? experts * out_block : rows, n, 3);
  float *in = malloc(k * sizeof *in), *got = malloc(rows * n * sizeof *got);
  double *want = malloc(rows * n * sizeof *want);
  for (size_t e = 0, r = 0; e < experts; e++)
    for (size_t j = 0; j < (size_t)counts[e]; j++, r++) {
      size_t at = batched ? e * in_block + j : r;
      used[batched ? e * out_block + j : r] = 1;
      for (size_t c = 0; c < k; c++) {
        grid_set(&x, at, c, ((double)check_below(129) - 64) / 64);
        in[c] = grid_get(&x, at, c);
      }
      random_layer_project(m, 2, e, in, want + r * n);
    }
  check_readonly(x.data);
  fp4moe_linear *linear = open_linear(m, ctx);
  fp4moe_rows from = {sizeof from, rows, x.data, x.dtype, x.stride, offsets, NULL, 0, 0}, to;
  if (experts == 1 && !batched) from.expert_offsets = NULL;
  if (batched) from.expert_counts = counts, from.max_rows = MAX_ROWS;
  to = from, to.data = y.data, to.dtype = y.dtype, to.stride = y.stride;
  if (batched) from.expert_stride = in_block * x.stride, to.expert_stride = out_block * y.stride;
  fp4moe_limits l = {sizeof l, rows, 1, 0};
  size_t bytes = fp4moe_linear_workspace_bytes(linear, &l);
  CHECK(!fp4moe_matmul_grouped(linear, &from, &to, NULL, rubbish(bytes), bytes), "%s",
        fp4moe_error_detail());
  grid_gaps(&y, used, batched ? "batched" : "grouped");
  for (size_t e = 0, r = 0; e < experts; e++)
    for (size_t j = 0; j < (size_t)counts[e]; j++, r++)
      for (size_t c = 0; c < n; c++)
        got[r * n + c] = grid_get(&y, batched ? e * out_block + j : r, c);
  double err = rel_l2(rows * n, got, want);
  double most = y.dtype == FP4MOE_F32 ? bound : y.dtype == FP4MOE_F16 ? 0x1p-11 : 0x1p-8;
  CHECK(err <= most, "%zux%zu x %zu, %s, %s, dtypes %d %d: rel_l2 %g", n, k, experts, class,
        batched ? "batched" : "grouped", (int)x.dtype, (int)y.dtype, err);
  fp4moe_linear_destroy(linear);
  CHECK_RELEASE();
  free(in);
  free(got);
  free(want);
}

static void rows_by_expert(void) {
  fp4moe_context *ctx = context_of(2);
  static const size_t shapes[][3] = {{1, 32, 1}, {40, 96, 4}, {16, 64, 3}, {331, 64, 1}};
  for (const class_word *w = class_words; w < class_words + CLASS_WORDS; w++)
    for (int s = 0; s < 4; s++) {
      size_t k = shapes[s][1] + (w->format == FP4MOE_NVFP4 ? 16 : 0);
      random_layer *m = matrices(shapes[s][0], k, shapes[s][2], w);
      for (int i = 0; i < 9; i++) by_expert(ctx, m, w->name, i % 2, i);
      random_layer_free(m);
    }
  fp4moe_context_destroy(ctx);
}

/* ---- Indexed ---- */

typedef struct {
  const random_layer *m;
  size_t tokens, slots, x_slots;
  float *x;     /* [tokens][x_slots][K] */
  int32_t *ids; /* [tokens][slots] */
  double *want; /* [tokens][slots][N] */
  float *y;     /* the same: the bits of FP32 */
} indexed_call;

static indexed_call draw_indexed(const random_layer *m, size_t tokens, size_t slots,
                                 size_t x_slots) {
  size_t n = m->desc.hidden, k = m->desc.intermediate;
  indexed_call p = {m, tokens, slots, x_slots, NULL, NULL, NULL, NULL};
  p.x = malloc(tokens * x_slots * k * sizeof *p.x);
  p.ids = malloc(tokens * slots * sizeof *p.ids);
  p.want = calloc(tokens * slots * n, sizeof *p.want);
  p.y = malloc(tokens * slots * n * sizeof *p.y);
  for (size_t i = 0; i < tokens * x_slots * k; i++) p.x[i] = ((float)check_below(129) - 64) / 64;
  for (size_t i = 0; i < tokens * slots; i++) {
    size_t row = i / slots * x_slots + (x_slots > 1 ? i % slots : 0);
    p.ids[i] = check_below(5) ? (int32_t)check_below(m->desc.experts) : -1;
    if (p.ids[i] >= 0) random_layer_project(m, 2, (size_t)p.ids[i], p.x + row * k, p.want + i * n);
  }
  return p;
}

static void drop_indexed(indexed_call *p) {
  free(p->x);
  free(p->ids);
  free(p->want);
  free(p->y);
}

static fp4moe_indexed call_of(const indexed_call *p) {
  return (fp4moe_indexed){.struct_size = sizeof(fp4moe_indexed),
                          .tokens = p->tokens,
                          .slots = p->slots,
                          .x = p->x,
                          .x_slots = p->x_slots,
                          .y = p->y,
                          .ids = p->ids,
                          .ids_dtype = FP4MOE_I32};
}

static fp4moe_status run_indexed(fp4moe_linear *linear, const fp4moe_indexed *c, size_t threads) {
  fp4moe_limits l = {sizeof l, c->tokens, c->slots, threads};
  fp4moe_options o = {.struct_size = sizeof o, .threads = threads};
  size_t bytes = fp4moe_linear_workspace_bytes(linear, &l);
  return fp4moe_matmul_indexed(linear, c, &o, rubbish(bytes), bytes);
}

/* The same call with ids, x and y as views of larger tensors: every stride is the caller's. */
static void strided(fp4moe_linear *linear, const indexed_call *p, int i) {
  size_t n = p->m->desc.hidden, k = p->m->desc.intermediate;
  grid x = grid_new(dtypes[i % 3], p->tokens * p->x_slots, k, 5);
  grid y = grid_new(dtypes[i / 3 % 3], p->tokens * p->slots, n, 1);
  grid ids = grid_new(i / 9 ? FP4MOE_I64 : FP4MOE_I32, p->tokens * p->slots, 1, 2);
  int by_slot = i % 2; /* rows of all tokens for slot 0, then for slot 1, ... */
  for (size_t t = 0; t < p->tokens; t++)
    for (size_t s = 0; s < p->slots; s++) {
      size_t row = by_slot ? s * p->tokens + t : t * p->slots + s;
      grid_set(&ids, row, 0, p->ids[t * p->slots + s]);
      if (s >= p->x_slots) continue;
      row = by_slot ? s * p->tokens + t : t * p->x_slots + s;
      for (size_t c = 0; c < k; c++)
        grid_set(&x, row, c, (double)p->x[(t * p->x_slots + s) * k + c]);
    }
  check_readonly(x.data);
  check_readonly(ids.data);
  fp4moe_indexed c = call_of(p);
  c.x = x.data, c.x_dtype = x.dtype, c.y = y.data, c.y_dtype = y.dtype;
  c.ids = ids.data, c.ids_dtype = ids.dtype;
  c.x_slot_stride = x.stride * (by_slot ? p->tokens : 1);
  c.x_token_stride = x.stride * (by_slot ? 1 : p->x_slots);
  c.y_slot_stride = y.stride * (by_slot ? p->tokens : 1);
  c.y_token_stride = y.stride * (by_slot ? 1 : p->slots);
  c.id_slot_stride = ids.stride * (by_slot ? p->tokens : 1);
  c.id_token_stride = ids.stride * (by_slot ? 1 : p->slots);
  CHECK(!run_indexed(linear, &c, 0), "%s", fp4moe_error_detail());
  grid_gaps(&y, NULL, "indexed");
  for (size_t t = 0; t < p->tokens; t++)
    for (size_t s = 0; s < p->slots; s++)
      for (size_t j = 0; j < n; j++) {
        float got = grid_get(&y, by_slot ? s * p->tokens + t : t * p->slots + s, j);
        float want = rounded(y.dtype, p->y[(t * p->slots + s) * n + j]);
        if (!CHECK(got == want, "form %d: y[%zu][%zu][%zu] is %g, expected %g", i, t, s, j,
                   (double)got, (double)want))
          s = p->slots, t = p->tokens, j = n;
      }
  CHECK_RELEASE();
}

static void indexed(void) {
  fp4moe_context *ctx = context_of(2);
  for (const class_word *w = class_words; w < class_words + CLASS_WORDS; w++) {
    for (size_t tokens = 1; tokens < 60; tokens += 19) {
      random_layer *m = matrices(40, w->format == FP4MOE_NVFP4 ? 80 : 64, 4, w);
      fp4moe_linear *linear = open_linear(m, ctx);
      for (size_t shared = 0; shared < 2; shared++) {
        indexed_call p = draw_indexed(m, tokens, 3, shared ? 1 : 3);
        fp4moe_indexed c = call_of(&p);
        size_t floats = tokens * 3 * m->desc.hidden;
        memset(p.y, 0xff, floats * sizeof *p.y);
        CHECK(!run_indexed(linear, &c, 0), "%s", fp4moe_error_detail());
        CHECK_RELEASE();
        double err = rel_l2(floats, p.y, p.want);
        CHECK(err <= bound, "%s, %zu tokens, shared %zu: rel_l2 %g", w->name, tokens, shared, err);
        for (int i = 0; i < 18; i++) strided(linear, &p, i);
        drop_indexed(&p);
      }
      fp4moe_linear_destroy(linear);
      random_layer_free(m);
    }
  }
  fp4moe_context_destroy(ctx);
}

/* ---- Threads, teams, workspaces ---- */

typedef struct {
  fp4moe_linear *linear;
  fp4moe_indexed call;
  void *workspace;
  size_t bytes;
} indexed_by_team;

static fp4moe_status join_call(void *arg, const fp4moe_team *team) {
  const indexed_by_team *c = arg;
  const fp4moe_options o = {.struct_size = sizeof o, .team = team};
  return fp4moe_matmul_indexed(c->linear, &c->call, &o, c->workspace, c->bytes);
}

static void team_of(fp4moe_linear *linear, const fp4moe_indexed *c, size_t nth, size_t bytes,
                    fp4moe_status want) {
  indexed_by_team all = {linear, *c, rubbish(bytes), bytes};
  team_run(nth, join_call, &all, want);
}

/* An LM head's shape in small: many more panels than threads, few rows; and a MoE's. */
static void same_bits(void) {
  fp4moe_context *ctx = context_of(5);
  for (int i = 0; i < CLASS_WORDS; i++)
    for (size_t experts = 1; experts < 7; experts += 5) {
      random_layer *m = matrices(experts == 1 ? 2003 : 72, 96, experts, &class_words[i]);
      fp4moe_linear *linear = open_linear(m, ctx);
      indexed_call p = draw_indexed(m, 37, 2, 1 + (size_t)i % 2);
      size_t floats = p.tokens * p.slots * m->desc.hidden;
      float *want = p.y, *y = malloc(floats * sizeof *y);
      fp4moe_indexed c = call_of(&p);
      CHECK(!run_indexed(linear, &c, 1), "%s", fp4moe_error_detail());
      CHECK_RELEASE();
      c.y = y;
      for (size_t n = 1; n <= 5; n++) {
        fp4moe_limits l = {sizeof l, p.tokens, p.slots, n};
        size_t sizes[] = {fp4moe_linear_workspace_bytes(linear, &l),
                          fp4moe_linear_workspace_min_bytes(linear, &l)};
        memset(y, 0xff, floats * sizeof *y);
        CHECK(!run_indexed(linear, &c, n), "%s", fp4moe_error_detail());
        CHECK_SAME(y, want, floats, sizeof *y, "threads");
        for (int least = 0; least < 2; least++) {
          memset(y, 0xff, floats * sizeof *y);
          team_of(linear, &c, n, sizes[least], FP4MOE_OK);
          CHECK_SAME(y, want, floats, sizeof *y, least ? "a team, pieces" : "a team");
        }
        team_of(linear, &c, n, sizes[1] / 8, FP4MOE_WORKSPACE);
        CHECK_RELEASE();
      }
      free(y);
      drop_indexed(&p);
      fp4moe_linear_destroy(linear);
      random_layer_free(m);
    }
  fp4moe_context_destroy(ctx);
}

/* ---- Refusals ---- */

static void refused_linears(void) {
  fp4moe_context *ctx = context_of(1);
  fp4moe_linear *linear = NULL;
  const fp4moe_linear_desc good = {.struct_size = sizeof good, .n = 40, .k = 64, .experts = 2};
  fp4moe_linear_desc d = good;
  d.n = 0;
  REFUSED(fp4moe_linear_begin(ctx, &d, &linear), FP4MOE_INVALID, "n is 0");
  d = good, d.k = 48;
  REFUSED(fp4moe_linear_begin(ctx, &d, &linear), FP4MOE_INVALID, "k is 48");
  d = good, d.experts = 0;
  REFUSED(fp4moe_linear_begin(ctx, &d, &linear), FP4MOE_INVALID, "experts is 0");
  d = good, d.format = (fp4moe_format)7;
  REFUSED(fp4moe_linear_begin(ctx, &d, &linear), FP4MOE_INVALID, "format is 7");
  d = good, d.precision = (fp4moe_precision)99;
  REFUSED(fp4moe_linear_begin(ctx, &d, &linear), FP4MOE_UNSUPPORTED, "precision is 99");
  fp4moe_layer_desc as_layer = {.struct_size = sizeof as_layer,
                                .hidden = 64,
                                .intermediate = 64,
                                .experts = 1,
                                .activation = {.kind = (fp4moe_activation_kind)FP4MOE_LINEAR}};
  fp4moe_layer *layer;
  CHECK(fp4moe_layer_begin(ctx, &as_layer, &layer) == FP4MOE_UNSUPPORTED, "a layer that is none");
  CHECK(!fp4moe_linear_begin(ctx, &good, &linear), "%s", fp4moe_error_detail());
  random_layer *m = matrices(40, 64, 2, &class_words[CLASS_F32_MX]);
  fp4moe_expert_weights w = random_layer_expert(m, 0);
  m->scales[2][5] = 255; /* row 2, block 1 */
  REFUSED(fp4moe_linear_set_expert(linear, 0, &w.down), FP4MOE_INVALID,
          "matrix scale [2][1] is NaN");
  m->scales[2][5] = 120;
  REFUSED(fp4moe_linear_set_expert(linear, 0, NULL), FP4MOE_INVALID, "matrix: NULL");
  REFUSED(fp4moe_linear_set_expert(linear, 2, &w.down), FP4MOE_INVALID, "expert 2");
  CHECK(!fp4moe_linear_set_expert(linear, 0, &w.down), "%s", fp4moe_error_detail());
  REFUSED(fp4moe_linear_finish(linear), FP4MOE_INVALID, "expert 1 was never set");
  fp4moe_indexed c = {.struct_size = sizeof c};
  REFUSED(fp4moe_matmul_indexed(linear, &c, NULL, NULL, 0), FP4MOE_INVALID, "not finished");
  fp4moe_linear_destroy(linear);
  random_layer_free(m);
  fp4moe_context_destroy(ctx);
}

static void refused_calls(void) {
  fp4moe_context *ctx = context_of(2);
  random_layer *m = matrices(40, 64, 2, &class_words[CLASS_F32_MX]);
  fp4moe_linear *linear = open_linear(m, ctx);
  indexed_call p = draw_indexed(m, 4, 2, 1);
  const fp4moe_indexed good = call_of(&p);
  fp4moe_indexed c = good;
  size_t floats = 4 * 2 * 40;
  memset(p.y, 0xff, floats * sizeof *p.y);
  c.x_slots = 3;
  REFUSED(run_indexed(linear, &c, 0), FP4MOE_INVALID, "x_slots is 3");
  c = good, c.x_dtype = FP4MOE_I32;
  REFUSED(run_indexed(linear, &c, 0), FP4MOE_INVALID, "x_dtype is 3");
  c = good, c.ids_dtype = FP4MOE_F32;
  REFUSED(run_indexed(linear, &c, 0), FP4MOE_INVALID, "ids_dtype is 0");
  c = good, c.y_slot_stride = 156;
  REFUSED(run_indexed(linear, &c, 0), FP4MOE_INVALID,
          "y_slot_stride is 156, expected at least 160");
  c = good, c.x_token_stride = 4;
  REFUSED(run_indexed(linear, &c, 0), FP4MOE_INVALID, "x_token_stride is 4, expected at least 256");
  c = good, c.id_slot_stride = 2;
  REFUSED(run_indexed(linear, &c, 0), FP4MOE_INVALID, "id_slot_stride is 2, expected at least 4");
  c = good, c.ids = NULL;
  REFUSED(run_indexed(linear, &c, 0), FP4MOE_INVALID, "ids is NULL");
  REFUSED(run_indexed(linear, &good, 3), FP4MOE_INVALID, "options.threads is 3");
  p.ids[5] = 2;
  REFUSED(run_indexed(linear, &good, 0), FP4MOE_INVALID, "ids[2][1] is 2, expected -1..1");
  CHECK(!strncmp(fp4moe_error_detail(), "ids", 3), "\"%s\"", fp4moe_error_detail());
  int64_t offsets[3] = {0, 3, 2};
  int32_t counts[2] = {1, 4};
  fp4moe_rows rows = {sizeof rows, 2, p.x, FP4MOE_F32, 0, offsets, NULL, 0, 0}, out = rows;
  out.data = p.y;
  REFUSED(fp4moe_matmul_grouped(linear, &rows, &out, NULL, NULL, 0), FP4MOE_INVALID,
          "x.expert_offsets[2] is 2 after 3");
  rows.expert_counts = counts;
  REFUSED(fp4moe_matmul_grouped(linear, &rows, &out, NULL, NULL, 0), FP4MOE_INVALID,
          "x.max_rows is 0, the rows are batched");
  rows.max_rows = 4;
  REFUSED(fp4moe_matmul_grouped(linear, &rows, &out, NULL, NULL, 0), FP4MOE_INVALID,
          "y.max_rows is 0, the rows are batched");
  out.max_rows = 3;
  REFUSED(fp4moe_matmul_grouped(linear, &rows, &out, NULL, NULL, 0), FP4MOE_INVALID,
          "x.expert_counts[1] is 4, expected 0..3");
  for (size_t i = 0; i < floats; i++) CHECK(isnan(p.y[i]), "y[%zu] was written", i);
  CHECK_RELEASE();
  drop_indexed(&p);
  fp4moe_linear_destroy(linear);
  random_layer_free(m);
  fp4moe_context_destroy(ctx);
}

/* The report names one matmul and refuses what a linear does not use. */
static void explained(void) {
  fp4moe_context *ctx = context_of(1);
  random_layer *m = matrices(40, 64, 1, &class_words[CLASS_F32_MX]);
  fp4moe_linear *linear = open_linear(m, ctx);
  fp4moe_problem problem = {.struct_size = sizeof problem, .tokens = 1, .top_k = 1};
  size_t needed;
  CHECK(!fp4moe_linear_explain(linear, &problem, NULL, 0, &needed), "%s", fp4moe_error_detail());
  char *text = malloc(needed + 1);
  CHECK(!fp4moe_linear_explain(linear, &problem, text, needed + 1, NULL), "explain");
  CHECK(strstr(text, "down    n=40 k=64: fp4moe_gemv_mx_f32") && !strstr(text, "gate_up"),
        "the matmul:\n%s", text);
  const char *act = strstr(text, "fp4moe_act_silu_c");
  CHECK(act && strstr(act, "refused: other activation") < strchr(act, '\n'), "act:\n%s", text);
  free(text);
  fp4moe_linear_destroy(linear);
  random_layer_free(m);
  fp4moe_context_destroy(ctx);
}

/* Its bytes are those of its records, wherever they lie; another choice of kernels is one of a
 * finished linear. */
static void sizes(void) {
  enum { EXPERTS = 3, NODES = 64 };
  fp4moe_context *ctx = context_of(2);
  random_layer *m = matrices(40, 96, EXPERTS, &class_words[CLASS_INT8_MX]);
  fp4moe_linear *linear = open_linear(m, ctx);
  fp4moe_layer_desc d = m->desc;
  d.activation.kind = (fp4moe_activation_kind)FP4MOE_LINEAR;
  fp4moe_shape shape;
  fp4moe_node_bytes node[NODES];
  size_t count = 0, asked = 0, there = 0, bytes = fp4moe_linear_bytes(linear);
  fp4moe_shape_of(&d, &shape);
  CHECK(bytes == EXPERTS * shape.bytes, "%zu bytes, records of %zu", bytes, shape.bytes);
  CHECK(!fp4moe_linear_nodes(linear, node, NODES, &count) && count >= 1 && count <= NODES,
        "%zu nodes", count);
  for (size_t i = 0; i < count; i++) asked += node[i].asked, there += node[i].there;
  CHECK(asked == bytes && there == bytes, "asked %zu, there %zu of %zu", asked, there, bytes);
  CHECK(!fp4moe_linear_replan(linear), "%s", fp4moe_error_detail());
  CHECK(fp4moe_linear_nodes(NULL, node, NODES, &count) == FP4MOE_INVALID, "no linear");
  const fp4moe_limits l = {sizeof l, 4, 1, 0};
  CHECK(!fp4moe_linear_workspace_bytes(NULL, &l) && strstr(fp4moe_error_detail(), "not finished") &&
            !fp4moe_linear_workspace_min_bytes(NULL, &l),
        "%s", fp4moe_error_detail());
  fp4moe_linear_destroy(linear);
  random_layer_free(m);
  fp4moe_context_destroy(ctx);
}

void check_linear(void) {
  CU_pSuite s = check_suite("linear");
  check_test(s, "rows by expert", rows_by_expert);
  check_test(s, "rows with ids", indexed);
  check_test(s, "linear: same bits for any threads", same_bits);
  check_test(s, "refused linears", refused_linears);
  check_test(s, "refused matmuls", refused_calls);
  check_test(s, "linear: explain", explained);
  check_test(s, "linear: sizes", sizes);
}
