/* check_contract.c - every combination of the call's contract, generated from its enums and from
 * the registry: format x class x activation x expert format x dtypes, strides, ids, accumulate.
 *
 * For each (format, class, activation) a tiny layer is compared with double precision once per
 * expert format (one call; grouped rows; batched rows). x has values that all dtypes hold exactly,
 * so every other form of the same call must have the same bits, rounded once: that is compared
 * exactly, gaps and absent rows included. A class that has one format only must be refused with
 * the other. A class joins by its word (layer_call.h), a dtype by its word here, an activation by
 * its row. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fp4.h"
#include "grid.h"
#include "layer_call.h"

/* Parameters that some kind takes: each is tried with every kind, which refuses those of others. */
static const fp4moe_activation parameters[] = {{.kind = FP4MOE_SILU},
                                               {.limit = 0.7f},
                                               {.alpha = 1.702f, .beta = 1, .limit = 7},
                                               {.beta = 4, .linear_beta = 25}};
enum { PARAMETERS = sizeof parameters / sizeof *parameters };

static const fp4moe_dtype dtypes[] = {FP4MOE_F32, FP4MOE_F16, FP4MOE_BF16};
enum { DTYPES = 3, TOKENS = 5, TOP_K = 3, EXPERTS = 4, SLOTS = TOKENS * TOP_K, MAX_ROWS = SLOTS };

typedef struct {
  random_layer *m;
  fp4moe_layer *layer;
  char name[96];
  size_t h, top_k;
  float *x;      /* [TOKENS][H] */
  int32_t *ids;  /* [TOKENS][top_k] */
  float *weight; /* the same */
} job;

static void close_to(const job *j, const float *y, const char *form) {
  closeness c = random_layer_compare(j->m, TOKENS, j->top_k, j->x, j->ids, j->weight, y);
  CHECK(is_close(c), "%s, %s: rel_l2 %g, %zu ties of %zu", j->name, form, c.rel_l2, c.ties,
        c.elements);
}

/* ---- The one call ---- */

typedef struct {
  fp4moe_dtype x, y, ids;
  int accumulate;
} form;

/* y of the call in a form; its values go to `out`, NULL: they must be `want`'s. */
static void fused(const job *j, const form *f, size_t gap, const float *want, float *out) {
  grid x = grid_new(f->x, TOKENS, j->h, gap), y = grid_new(f->y, TOKENS, j->h, gap);
  grid ids = grid_new(f->ids, TOKENS, j->top_k, gap);
  grid weight = grid_new(FP4MOE_F32, TOKENS, j->top_k, gap);
  grid_fill(&x, j->x);
  grid_fill(&weight, j->weight);
  int32_t map[EXPERTS + 1];
  for (int e = 0; e <= EXPERTS; e++) map[e] = e == 1 ? -1 : e - (e > 1); /* id 1 is elsewhere */
  for (size_t i = 0; i < TOKENS * j->top_k; i++) {
    int32_t e = j->ids[i], id = e < 0 ? 1 : e + (e > 0);
    grid_set(&ids, i / j->top_k, i % j->top_k, f->accumulate ? (double)id : (double)e);
  }
  for (size_t i = 0; i < TOKENS * j->h && f->accumulate; i++) grid_set(&y, i / j->h, i % j->h, 1);
  check_readonly(x.data);
  fp4moe_batch b = {.struct_size = sizeof b,
                    .tokens = TOKENS,
                    .top_k = j->top_k,
                    .x = x.data,
                    .x_dtype = f->x,
                    .x_stride = x.stride,
                    .y = y.data,
                    .y_dtype = f->y,
                    .y_stride = y.stride,
                    .topk_ids = ids.data,
                    .ids_dtype = f->ids,
                    .ids_stride = ids.stride,
                    .topk_weights = weight.data,
                    .weights_stride = weight.stride,
                    .expert_map = f->accumulate ? map : NULL,
                    .expert_map_count = f->accumulate ? EXPERTS + 1 : 0,
                    .accumulate = f->accumulate};
  fp4moe_limits l = {sizeof l, TOKENS, j->top_k, 0};
  size_t bytes = fp4moe_workspace_bytes(j->layer, &l);
  CHECK(!fp4moe_layer_forward(j->layer, &b, rubbish(bytes), bytes), "%s: %s", j->name,
        fp4moe_error_detail());
  grid_gaps(&y, NULL, j->name);
  for (size_t i = 0; i < TOKENS * j->h && out; i++) out[i] = grid_get(&y, i / j->h, i % j->h);
  if (!out) grid_same(&y, want, (float)f->accumulate, j->name);
  CHECK_RELEASE();
}

static void every_dtype(const job *j, float *y) {
  fused(j, &(form){FP4MOE_F32, FP4MOE_F32, FP4MOE_I32, 0}, 0, NULL, y);
  close_to(j, y, "one call");
  for (int i = 0; i < DTYPES * DTYPES * 4; i++) {
    form f = {dtypes[i % 3], dtypes[i / 3 % 3], i / 9 % 2 ? FP4MOE_I64 : FP4MOE_I32, i / 18};
    fused(j, &f, 5, y, NULL);
  }
}

/* ---- Rows by expert ---- */

typedef struct {
  fp4moe_batch batch;
  int64_t offsets[EXPERTS + 1], row_pair[SLOTS];
  int32_t counts[EXPERTS];
  size_t rows;
  float *x; /* [rows][H] */
} dispatched;

static void dispatch(const job *j, dispatched *d) {
  d->batch = (fp4moe_batch){.struct_size = sizeof d->batch,
                            .tokens = TOKENS,
                            .top_k = j->top_k,
                            .x = j->x,
                            .topk_ids = j->ids,
                            .ids_dtype = FP4MOE_I32,
                            .topk_weights = j->weight};
  d->x = malloc(SLOTS * j->h * sizeof *d->x);
  fp4moe_rows rows = {sizeof rows, SLOTS, d->x, FP4MOE_F32, 0, d->offsets, NULL, 0, 0};
  CHECK(!fp4moe_prepare(j->layer, &d->batch, &rows, d->row_pair), "%s", fp4moe_error_detail());
  d->rows = rows.rows;
  for (int e = 0; e < EXPERTS; e++) d->counts[e] = (int32_t)(d->offsets[e + 1] - d->offsets[e]);
}

/* Experts over rows in blocks (batched) or not, x and y in any dtype; values to `out`, NULL: they
 * must be `want`'s. */
static void experts(const job *j, dispatched *d, int batched, const form *f, const float *want,
                    float *out) {
  size_t block = MAX_ROWS + 2, all = batched ? EXPERTS * block : d->rows, at[SLOTS] = {0};
  unsigned char used[EXPERTS * (MAX_ROWS + 2)] = {0};
  grid x = grid_new(f->x, all, j->h, 3), y = grid_new(f->y, all, j->h, 6);
  for (size_t e = 0; e < EXPERTS; e++)
    for (int64_t r = d->offsets[e]; r < d->offsets[e + 1]; r++)
      at[r] = batched ? e * block + (size_t)(r - d->offsets[e]) : (size_t)r;
  for (size_t r = 0; r < d->rows; r++) {
    used[at[r]] = 1;
    for (size_t i = 0; i < j->h; i++) grid_set(&x, at[r], i, (double)d->x[r * j->h + i]);
  }
  check_readonly(x.data);
  fp4moe_rows in = {sizeof in, batched ? 0 : d->rows, x.data, f->x, x.stride, NULL, NULL, 0, 0};
  in.expert_offsets = batched ? NULL : d->offsets;
  in.expert_counts = batched ? d->counts : NULL;
  in.max_rows = batched ? MAX_ROWS : 0;
  in.expert_stride = batched ? block * x.stride : 0;
  fp4moe_rows to = in;
  to.data = y.data, to.dtype = f->y, to.stride = y.stride, to.expert_offsets = NULL;
  to.expert_stride = batched ? block * y.stride : 0;
  fp4moe_limits l = {sizeof l, d->rows, 1, 0};
  size_t bytes = fp4moe_workspace_bytes(j->layer, &l);
  CHECK(!fp4moe_experts(j->layer, &in, &to, NULL, rubbish(bytes), bytes), "%s: %s", j->name,
        fp4moe_error_detail());
  grid_gaps(&y, used, j->name);
  for (size_t r = 0; r < d->rows; r++)
    for (size_t i = 0; i < j->h; i++) {
      float got = grid_get(&y, at[r], i);
      if (out)
        out[r * j->h + i] = got;
      else if (!CHECK(got == rounded(f->y, want[r * j->h + i]), "%s, %s: row %zu [%zu] is %g",
                      j->name, batched ? "batched" : "grouped", r, i, (double)got))
        r = d->rows, i = j->h;
    }
  CHECK_RELEASE();
}

/* The call in three: close to double precision, and of the one call's bits where it says so. */
static void in_three(const job *j, const float *fused_y, float *y) {
  dispatched d;
  float *rows = malloc(SLOTS * j->h * sizeof *rows);
  dispatch(j, &d);
  experts(j, &d, 0, &(form){FP4MOE_F32, FP4MOE_F32, 0, 0}, NULL, rows);
  int exact = !j->m->desc.router_weight_on_input; /* rows in every dtype */
  for (int i = 0; i < 2 * DTYPES * DTYPES; i++)
    experts(j, &d, i / 9, &(form){dtypes[exact ? i % 3 : 0], dtypes[i / 3 % 3], 0, 0}, rows, NULL);
  for (int i = 0; i < 2 * DTYPES; i++) {
    grid out = grid_new(dtypes[i / 2], TOKENS, j->h, 2);
    fp4moe_rows in = {sizeof in, d.rows, rows, FP4MOE_F32, 0, d.offsets, NULL, 0, 0};
    for (size_t k = 0; k < TOKENS * j->h && i % 2; k++) grid_set(&out, k / j->h, k % j->h, 1);
    fp4moe_batch b = d.batch;
    b.y = out.data, b.y_dtype = out.dtype, b.y_stride = out.stride, b.accumulate = i % 2;
    CHECK(!fp4moe_finalize(j->layer, &b, &in, d.row_pair), "%s", fp4moe_error_detail());
    grid_gaps(&out, NULL, j->name);
    if (i)
      grid_same(&out, y, (float)(i % 2), j->name);
    else
      for (size_t k = 0; k < TOKENS * j->h; k++) y[k] = grid_get(&out, k / j->h, k % j->h);
    CHECK_RELEASE();
  }
  close_to(j, y, "in three");
  if (j->top_k == 1) CHECK_SAME_FLOATS(y, fused_y, TOKENS * j->h, j->name);
  free(rows);
  free(d.x);
}

/* ---- Layers ---- */

static void draw_job(job *j, size_t top_k) {
  size_t slots = TOKENS * top_k;
  j->top_k = top_k;
  for (size_t i = 0; i < TOKENS * j->h; i++) j->x[i] = ((float)check_below(129) - 64) / 64;
  for (size_t i = 0; i < slots; i++) {
    j->weight[i] = check_uniform(0.1f, 1);
    j->ids[i] = check_below(4) ? (int32_t)check_below(EXPERTS - 1) : -1; /* the last has no row */
  }
  j->ids[0] = 2;
  if (top_k > 1) j->ids[1] = 2; /* the same expert twice in a token */
}

static void one_layer(fp4moe_context *ctx, const fp4moe_layer_desc *d, const char *class) {
  job j = {.m = random_layer_new(d, 1, NULL), .h = d->hidden};
  size_t floats = TOKENS * j.h;
  float *y = malloc(floats * sizeof *y), *y3 = malloc(floats * sizeof *y3);
  j.x = malloc(floats * sizeof *j.x);
  j.ids = malloc(SLOTS * sizeof *j.ids);
  j.weight = malloc(SLOTS * sizeof *j.weight);
  snprintf(j.name, sizeof j.name, "%s kind %d gated %d alpha %g limit %g", class,
           (int)d->activation.kind, d->activation.gated, (double)d->activation.alpha,
           (double)d->activation.limit);
  if (CHECK(!random_layer_open(j.m, ctx, &j.layer), "%s: %s", j.name, fp4moe_error_detail()))
    for (size_t top_k = 1; top_k <= TOP_K; top_k += TOP_K - 1) {
      draw_job(&j, top_k);
      every_dtype(&j, y);
      in_three(&j, y, y3);
      if (d->router_weight_on_input) break;
    }
  fp4moe_layer_destroy(j.layer);
  free(y);
  free(y3);
  free(j.x);
  free(j.ids);
  free(j.weight);
  random_layer_free(j.m);
}

static fp4moe_layer_desc desc_of(const class_word *w, const fp4moe_kernel *act,
                                 fp4moe_activation parameters_of) {
  fp4moe_layer_desc d = {.struct_size = sizeof d,
                         .hidden = w->format == FP4MOE_MXFP4 ? 64 : 48,
                         .intermediate = w->format == FP4MOE_MXFP4 ? 32 : 80,
                         .experts = EXPERTS,
                         .format = w->format,
                         .precision = w->precision,
                         .activation = parameters_of,
                         .input_global = w->input_global};
  d.activation.kind = (fp4moe_activation_kind)act->kind;
  d.activation.gated = act->gated;
  return d;
}

/* Is the desc refused for its activation? Its input scales are drawn with the weights. */
static int is_refused(fp4moe_layer_desc d) {
  if (fp4moe_reads_layer_scales(&d)) d.input_scale_gate_up = d.input_scale_down = 1;
  return fp4moe_layer_desc_check(&d) != FP4MOE_OK;
}

/* Every activation of the registry with all parameters that it takes: one that takes none fails. */
static void one_class(fp4moe_context *ctx, const class_word *w) {
  size_t layers = 0;
  for (size_t k = 0; k < fp4moe_kernel_count; k++) {
    const fp4moe_kernel *act = &fp4moe_kernels[k];
    int taken = 0;
    if (act->op != FP4MOE_OP_ACT || act->isa != FP4MOE_ISA_c) continue;
    for (int p = 0; p < PARAMETERS; p++) {
      fp4moe_layer_desc d = desc_of(w, act, parameters[p]);
      if (is_refused(d)) continue;
      d.router_weight_on_input = layers++ % 4 == 3;
      one_layer(ctx, &d, w->name);
      taken++;
    }
    CHECK(taken, "%s, %s: takes no parameters: %s", act->name, w->name, fp4moe_error_detail());
  }
}

static void every_combination(void) {
  fp4moe_context *ctx = context_of(2);
  for (int i = 0; i < CLASS_WORDS; i++) one_class(ctx, &class_words[i]);
  fp4moe_context_destroy(ctx);
}

/* Format and class that no word names together. */
static void other_formats(void) {
  fp4moe_context *ctx = context_of(1);
  fp4moe_layer *layer;
  size_t refused = 0;
  for (int format = 0; format <= (int)FP4MOE_NVFP4; format++)
    for (int precision = 0; precision <= (int)FP4MOE_PRECISION_NVFP4; precision++) {
      class_word w = {"none", (fp4moe_format)format, (fp4moe_precision)precision, 0};
      int named = 0;
      for (int i = 0; i < CLASS_WORDS; i++)
        named |= class_words[i].format == w.format && class_words[i].precision == w.precision;
      fp4moe_layer_desc d = desc_of(&w, &fp4moe_kernels[0], parameters[0]);
      d.activation = parameters[0];
      if (named) continue;
      REFUSED(fp4moe_layer_begin(ctx, &d, &layer), FP4MOE_UNSUPPORTED, "with format");
      refused++;
    }
  CHECK(refused == 2, "%zu pairs", refused);
  fp4moe_context_destroy(ctx);
}

void check_contract(void) {
  CU_pSuite s = check_suite("contract");
  check_test(s, "every combination", every_combination);
  check_test(s, "classes with other formats", other_formats);
}
