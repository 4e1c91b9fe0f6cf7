/* check_modes.c - the floating-point mode of the caller does not matter: not to packing, not to a
 * call in any of its forms, not through the threads that it makes (modes.h).
 *
 * Inputs have what modes change: subnormals in x, in biases and in logits, NaN and infinities, and
 * sums that round. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fp4.h"
#include "layer_fixture.h"
#include "modes.h"
#include "team.h"

enum { TOKENS = 9, TOP_K = 2, EXPERTS = 5, TEAM = 3 };

typedef struct material {
  const class_word *word;
  random_layer *m;
  uint16_t *bias[3]; /* F16, [E][N]: some are subnormal */
  problem p;
} material;

static material make_material(const class_word *w) {
  fp4moe_layer_desc d = class_desc(w, 96, w->format == FP4MOE_MXFP4 ? 160 : 144, EXPERTS);
  d.activation = (fp4moe_activation){FP4MOE_SWIGLU_OAI, 1, 1.702f, 1, 7, 0};
  material a = {.word = w, .m = random_layer_new(&d, 1, NULL), .p = draw(&d, TOKENS, TOP_K, 1)};
  for (int p = 0; p < 3; p++) {
    a.bias[p] = malloc(EXPERTS * a.m->n[p] * sizeof *a.bias[p]);
    for (size_t i = 0; i < EXPERTS * a.m->n[p]; i++)
      a.bias[p][i] = (uint16_t)(check_below(2) ? 1 + check_below(1023) : 0x3000 + check_below(512));
  }
  for (size_t i = 0; i < TOKENS * a.p.hidden; i++) {
    if (i / a.p.hidden % 3 == 1) a.p.x[i] *= 0x1p-130f;
    if (i / a.p.hidden % 3 == 2)
      a.p.x[i] += check_uniform(-0x1p-10f, 0x1p-10f); /* ties of BF16 no more */
  }
  a.p.x[3 * a.p.hidden + 5] = NAN;
  a.p.x[6 * a.p.hidden + 7] = INFINITY;
  return a;
}

static void drop_material(material *a) {
  for (int p = 0; p < 3; p++) free(a->bias[p]);
  random_layer_free(a->m);
  drop(&a->p);
}

static fp4moe_projection with_bias(const material *a, fp4moe_projection of, int p, size_t e) {
  of.bias = a->bias[p] + e * a->m->n[p];
  of.bias_dtype = FP4MOE_F16;
  return of;
}

static fp4moe_layer *open_layer(const material *a, fp4moe_context *ctx) {
  fp4moe_layer *layer = NULL;
  IN_MODE(fp4moe_layer_begin(ctx, &a->m->desc, &layer));
  for (size_t e = 0; e < EXPERTS; e++) {
    fp4moe_expert_weights w = random_layer_expert(a->m, e);
    w.gate = with_bias(a, w.gate, 0, e);
    w.up = with_bias(a, w.up, 1, e);
    w.down = with_bias(a, w.down, 2, e);
    IN_MODE(fp4moe_layer_set_expert(layer, e, &w));
  }
  IN_MODE(fp4moe_layer_finish(layer));
  return layer;
}

static void *workspace_for(const fp4moe_layer *layer, size_t tokens, size_t top_k, size_t *bytes) {
  const fp4moe_limits l = {sizeof l, tokens, top_k, 0};
  *bytes = fp4moe_workspace_bytes(layer, &l);
  return malloc(*bytes);
}

/* NaN is NaN: which one comes of two depends on the mode of AArch64. */
static void note_floats(scene_notes *notes, const float *y, size_t count) {
  for (size_t i = 0; i < count; i++) {
    const float value = isnan(y[i]) ? NAN : y[i];
    scene_note(notes, &value, sizeof value);
  }
}

/* ---- Scenes of a layer ---- */

static void forward(const material *a, fp4moe_layer *layer, scene_notes *notes) {
  size_t bytes, floats = TOKENS * a->p.hidden;
  void *workspace = workspace_for(layer, TOKENS, TOP_K, &bytes);
  fp4moe_batch b = batch_of(&a->p);
  for (b.accumulate = 0; b.accumulate < 2; b.accumulate++) {
    IN_MODE(fp4moe_layer_forward(layer, &b, workspace, bytes));
    note_floats(notes, a->p.y, floats);
  }
  free(workspace);
}

static void in_three(const material *a, fp4moe_layer *layer, scene_notes *notes) {
  enum { PAIRS = TOKENS * TOP_K };
  size_t bytes, h = a->p.hidden;
  void *workspace = workspace_for(layer, PAIRS, 1, &bytes);
  float *in = malloc(2 * PAIRS * h * sizeof *in);
  int64_t offsets[EXPERTS + 1], row_pair[PAIRS];
  const fp4moe_batch b = batch_of(&a->p);
  fp4moe_rows rows = {sizeof rows, PAIRS, in, FP4MOE_F32, 0, offsets};
  IN_MODE(fp4moe_prepare(layer, &b, &rows, row_pair));
  fp4moe_rows out = rows;
  out.data = in + PAIRS * h;
  IN_MODE(fp4moe_experts(layer, &rows, &out, NULL, workspace, bytes));
  IN_MODE(fp4moe_finalize(layer, &b, &out, row_pair));
  note_floats(notes, in, rows.rows * h);
  note_floats(notes, a->p.y, TOKENS * h);
  free(in);
  free(workspace);
}

/* Fails too where the thread's mode is another afterwards. */
static fp4moe_status join_call(void *call, const fp4moe_team *team) {
  const uint64_t mode = scene_mode(team->ith);
  fp4moe_fp_leave(mode);
  const fp4moe_status got = forward_in_team(call, team);
  const int kept = mode_without_flags(fp4moe_fp_enter()) == mode_without_flags(mode);
  return kept ? got : FP4MOE_SYSTEM;
}

/* Threads of the caller, each in a mode of its own. */
static void by_team(const material *a, fp4moe_layer *layer, scene_notes *notes) {
  size_t bytes;
  void *workspace = workspace_for(layer, TOKENS, TOP_K, &bytes);
  forward_call c = {layer, batch_of(&a->p), workspace, bytes};
  team_run(TEAM, join_call, &c, FP4MOE_OK);
  note_floats(notes, a->p.y, TOKENS * a->p.hidden);
  free(workspace);
}

static void routed(const material *a, fp4moe_layer *layer, scene_notes *notes) {
  fp4moe_router router;
  float logits[TOKENS][EXPERTS], weights[TOKENS][TOP_K];
  int32_t ids[TOKENS][TOP_K];
  size_t bytes;
  void *workspace = workspace_for(layer, TOKENS, TOP_K, &bytes);
  for (size_t i = 0; i < TOKENS * EXPERTS; i++)
    logits[i / EXPERTS][i % EXPERTS] = (float)(i * 37 % 19) * (i % 3   ? 0.1f
                                                               : i % 2 ? 0x1p-140f
                                                                       : -0x1p-130f);
  fp4moe_routing routing = {.struct_size = sizeof routing,
                            .tokens = TOKENS,
                            .logits = logits,
                            .topk_ids = ids,
                            .ids_dtype = FP4MOE_I32,
                            .topk_weights = &weights[0][0]};
  const fp4moe_batch b = batch_of(&a->p);
  static const char *const names[] = {"gpt-oss", "qwen3", "deepseek-v4"};
  for (int i = 0; i < 3; i++) {
    IN_MODE(fp4moe_router_preset(names[i], EXPERTS, TOP_K, &router));
    if (router.scale == 0) router.scale = 1.5f;
    IN_MODE(fp4moe_route(&router, &routing));
    scene_note(notes, ids, sizeof ids);
    scene_note(notes, weights, sizeof weights);
    IN_MODE(fp4moe_layer_forward_routed(layer, &router, &routing, &b, workspace, bytes));
    note_floats(notes, a->p.y, TOKENS * a->p.hidden);
  }
  free(workspace);
}

static void note_records(scene_notes *notes, const fp4moe_layer *layer) {
  uint8_t *records = whole_records(layer);
  scene_note(notes, records, layer->desc.experts * layer->shape.bytes);
  free(records);
}

/* The caller's parallel_for: each share in a mode of its own, which it must leave as it was. */
static void in_own_modes(void *pool, size_t n, void (*fn)(void *arg, size_t i), void *arg) {
  (void)pool;
  while (n--) {
    const uint64_t ours = fp4moe_fp_enter(), mode = scene_mode(n);
    fp4moe_fp_leave(mode);
    fn(arg, n);
    const uint64_t left = fp4moe_fp_enter();
    fp4moe_fp_leave(ours);
    CHECK(mode_without_flags(left) == mode_without_flags(mode),
          "share %zu: the thread's mode was %#llx and is %#llx", n, (unsigned long long)mode,
          (unsigned long long)left);
  }
}

/* All of a layer's life, on an own pool and on the caller's own threads. */
static void life_of_layer(const void *arg, scene_notes *notes) {
  const material *a = arg;
  for (int foreign = 0; foreign < 2; foreign++) {
    const fp4moe_context_desc d = {.struct_size = sizeof d,
                                   .max_threads = TEAM,
                                   .parallel_for = foreign ? in_own_modes : NULL};
    fp4moe_context *ctx = NULL;
    IN_MODE(fp4moe_context_create(&d, &ctx));
    fp4moe_layer *layer = open_layer(a, ctx);
    note_records(notes, layer);
    forward(a, layer, notes);
    in_three(a, layer, notes);
    if (!foreign) by_team(a, layer, notes);
    routed(a, layer, notes);
    fp4moe_layer_destroy(layer);
    fp4moe_context_destroy(ctx);
  }
}

/* ---- A linear ---- */

static void life_of_linear(const void *arg, scene_notes *notes) {
  const material *a = arg;
  const fp4moe_layer_desc *of = &a->m->desc;
  const fp4moe_linear_desc d = {.struct_size = sizeof d,
                                .n = of->intermediate,
                                .k = of->hidden,
                                .experts = 1,
                                .format = of->format,
                                .precision = of->precision,
                                .input_global = of->input_global,
                                .input_scale = of->input_scale_gate_up};
  const fp4moe_limits l = {sizeof l, TOKENS, 1, 0};
  const int32_t ids[TOKENS] = {0, 0, -1, 0, 0, 0, 0, -1, 0};
  float y[TOKENS * 160];
  fp4moe_context *ctx = context_of(2);
  fp4moe_linear *linear = NULL;
  fp4moe_expert_weights w = random_layer_expert(a->m, 0);
  w.up = with_bias(a, w.up, 1, 0);
  IN_MODE(fp4moe_linear_begin(ctx, &d, &linear));
  IN_MODE(fp4moe_linear_set_expert(linear, 0, &w.up));
  IN_MODE(fp4moe_linear_finish(linear));
  size_t bytes = fp4moe_linear_workspace_bytes(linear, &l);
  void *workspace = malloc(bytes);
  fp4moe_rows in = {.struct_size = sizeof in, .rows = TOKENS, .data = a->p.x}, out = in;
  out.data = y;
  IN_MODE(fp4moe_matmul_grouped(linear, &in, &out, NULL, workspace, bytes));
  note_floats(notes, y, TOKENS * d.n);
  fp4moe_indexed call = {.struct_size = sizeof call,
                         .tokens = TOKENS,
                         .slots = 1,
                         .x = a->p.x,
                         .x_slots = 1,
                         .y = y,
                         .ids = ids,
                         .ids_dtype = FP4MOE_I32};
  IN_MODE(fp4moe_matmul_indexed(linear, &call, NULL, workspace, bytes));
  note_floats(notes, y, TOKENS * d.n);
  free(workspace);
  fp4moe_linear_destroy(linear);
  fp4moe_context_destroy(ctx);
}

static void every_class(scene_fn *scene) {
  for (const class_word *w = class_words; w < class_words + CLASS_WORDS; w++) {
    material a = make_material(w);
    play_in_modes(w->name, scene, &a);
    drop_material(&a);
  }
}

static void layers_in_modes(void) { every_class(life_of_layer); }
static void linears_in_modes(void) { every_class(life_of_linear); }

void check_modes(void) {
  CU_pSuite suite = check_suite("modes");
  check_test(suite, "layers under callers' modes", layers_in_modes);
  check_test(suite, "linears under callers' modes", linears_in_modes);
}
