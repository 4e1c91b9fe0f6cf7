/* check_layer.c - whole layers against double precision, forms of input and output, refusals.
 *
 * Random layers of every kind and odd size. The promises about bits are in check_layer_bits.c. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fp4.h"
#include "layer_fixture.h"

/* ---- Against double precision ---- */

/* The layer of a desc in a call. */
static void compare(fp4moe_context *ctx, const fp4moe_layer_desc *d, int biases, size_t tokens,
                    size_t top_k, int gaps) {
  random_layer *m = random_layer_new(d, biases, NULL);
  fp4moe_layer *layer = layer_of(m, ctx);
  problem p = draw(d, tokens, top_k, gaps);
  fp4moe_batch b = batch_of(&p);
  if (layer && CHECK(!run(layer, &b), "%s", fp4moe_error_detail())) {
    closeness c = error_of(m, &p);
    CHECK(is_close(c),
          "%zux%zu, format %d, class %d, kind %d gated %d, "
          "M %zu: rel_l2 %g, %zu ties of %zu",
          d->hidden, d->intermediate, (int)d->format, (int)d->precision, (int)d->activation.kind,
          d->activation.gated, tokens, c.rel_l2, c.ties, c.elements);
  }
  fp4moe_layer_destroy(layer);
  drop(&p);
  random_layer_free(m);
}

/* No two values of a clamped h may stand in a ratio such as 1 to 4: of class nvfp4 with a token's
 * own global scale, which their maximum decides to the last bit, many would be ties at once. */
static const fp4moe_activation activations[] = {{FP4MOE_SILU, 1, 0, 0, 0, 0},
                                                {FP4MOE_SILU, 1, 0, 0, 0.7f, 0},
                                                {FP4MOE_SILU, 0, 0, 0, 0, 0},
                                                {FP4MOE_SWIGLU_OAI, 1, 1.702f, 1, 7, 0},
                                                {FP4MOE_RELU2, 0, 0, 0, 0, 0},
                                                {FP4MOE_SWIGLUSTEP, 1, 0, 0, 0.5f, 0},
                                                {FP4MOE_GELU, 1, 0, 0, 0, 0},
                                                {FP4MOE_GELU, 0, 0, 0, 0, 0},
                                                {FP4MOE_GELU_TANH, 1, 0, 0, 0, 0},
                                                {FP4MOE_GELU_TANH, 0, 0, 0, 0, 0},
                                                {FP4MOE_SITU, 1, 0, 4, 0, 25},
                                                {FP4MOE_SITU, 1, 0, 0.5f, 0, 0},
                                                {FP4MOE_SWIGLU_OAI, 1, 2, 0.37f, 0.5f, 0}};
enum { ACTIVATIONS = sizeof activations / sizeof *activations };

static const size_t shapes[][3] = {{32, 32, 3}, {96, 160, 4}, {64, 288, 5}, {352, 96, 2}};
static const size_t nv_shapes[][3] = {{16, 16, 2}, {80, 48, 4}, {112, 208, 3}, {272, 80, 5}};

static void every_layer(void) {
  fp4moe_context *ctx = context_of(2);
  for (int a = 0; a < ACTIVATIONS; a++)
    for (const class_word *w = class_words; w < class_words + CLASS_WORDS; w++)
      for (size_t s = 0; s < 4; s++) {
        const size_t *n = w->format == FP4MOE_NVFP4 ? nv_shapes[s] : shapes[s];
        static const size_t tokens[] = {1, 2, 9, 70};
        fp4moe_layer_desc d = class_desc(w, n[0], n[1], n[2]);
        d.activation = activations[a];
        compare(ctx, &d, (int)s & 1, tokens[(s + (size_t)a) % 4], 1 + s % 3, s == 2);
      }
  fp4moe_context_destroy(ctx);
}

static void many_rows(void) {
  fp4moe_context *ctx = context_of(2);
  for (int c = CLASS_F32_MX; c <= CLASS_INT8_MX; c += 2) {
    fp4moe_layer_desc d = class_desc(&class_words[c], 64, 96, 2);
    d.activation = activations[3];
    compare(ctx, &d, 1, 1100, 2, 0); /* several row blocks of an expert, two token ranges */
  }
  fp4moe_context_destroy(ctx);
}

static void weight_on_input(void) {
  fp4moe_context *ctx = context_of(2);
  for (int c = CLASS_F32_NV; c <= CLASS_INT8_NV; c += 2) {
    fp4moe_layer_desc d = class_desc(&class_words[c], 96, 64, 3);
    d.router_weight_on_input = 1;
    compare(ctx, &d, 0, 5, 1, 1);
  }
  fp4moe_context_destroy(ctx);
}

/* Gate and up from 0 to where d of int8 becomes 0 and VDPBF16PS loses sums under 2^-126; down with
 * 0, 1, 2 between plain ones. */
static uint8_t low_e8m0(const random_layer *m, int projection, size_t block) {
  size_t blocks = m->k[projection] / 32;
  if (projection == 2) return block % 4 == 3 ? (uint8_t)(block % 3) : 120;
  return (uint8_t)(block * 238 / (blocks - 1));
}

/* Down up to 254. */
static uint8_t high_e8m0(const random_layer *m, int projection, size_t block) {
  (void)m;
  return projection == 2 ? (uint8_t)(254 - block % 16) : 120;
}

/* x of element i that makes sums moderate: 1/64 in every block, or small enough for h * 2^127. */
static float x_for(random_scale_fn *scale, const random_layer *m, float x, size_t i) {
  float one_to_two = x < 0 ? x - 1 : x + 1;
  return ldexpf(one_to_two, scale == high_e8m0 ? -50 : 120 - scale(m, 0, i / 32));
}

static void wide(fp4moe_context *ctx, const class_word *w, random_scale_fn *scale) {
  fp4moe_layer_desc d = class_desc(w, 32 * 50, 512, 2);
  random_layer *m = random_layer_new(&d, 0, scale);
  fp4moe_layer *layer = layer_of(m, ctx);
  problem p = draw(&d, 20, 1, 0);
  size_t floats = p.tokens * p.hidden;
  for (size_t i = 0; i < floats; i++) p.x[i] = x_for(scale, m, p.x[i], i % p.hidden);
  fp4moe_batch b = batch_of(&p);
  CHECK(!run(layer, &b), "%s", fp4moe_error_detail());
  closeness c = error_of(m, &p);
  CHECK(is_close(c), "%s, %s: rel_l2 %g, %zu ties of %zu", w->name,
        scale == high_e8m0 ? "high" : "low", c.rel_l2, c.ties, c.elements);
  fp4moe_layer_destroy(layer);
  drop(&p);
  random_layer_free(m);
}

static void wide_scales(void) {
  fp4moe_context *ctx = context_of(2);
  for (int c = CLASS_F32_MX; c <= CLASS_MXFP8; c += 2) {
    wide(ctx, &class_words[c], low_e8m0);
    wide(ctx, &class_words[c], high_e8m0);
  }
  fp4moe_context_destroy(ctx);
}

static void pack_and_restore(void) {
  fp4moe_context *ctx = context_of(1);
  for (int c = CLASS_F32_MX; c <= CLASS_F32_NV; c++) {
    fp4moe_layer_desc d = class_desc(&class_words[c], 96, 160, 3);
    d.shards = 1;
    random_layer *m = random_layer_new(&d, 1, NULL);
    fp4moe_layer *layer = layer_of(m, ctx);
    for (size_t e = 0; e < d.experts; e++)
      for (int p = 0; p < 3; p++) {
        size_t cb = m->n[p] * m->k[p] / 2, sb = m->n[p] * (m->k[p] / m->group);
        uint8_t *codes = malloc(cb), *scales = malloc(sb);
        fp4moe_record_restore(&layer->shape, fp4moe_layer_record(layer, 0, e), p, codes, scales);
        CHECK_SAME(codes, m->codes[p] + e * cb, cb, 1, "codes");
        CHECK_SAME(scales, m->scales[p] + e * sb, sb, 1, "scales");
        free(codes);
        free(scales);
      }
    uint8_t *record = fp4moe_layer_record(layer, 0, 1);
    CHECK(!fp4moe_record_verify(&d, &layer->shape, record), "%s", fp4moe_error_detail());
    record[layer->shape.w2 + 5] ^= 1;
    CHECK(fp4moe_record_verify(&d, &layer->shape, record) == FP4MOE_INVALID, "a flipped bit");
    fp4moe_layer_destroy(layer);
    random_layer_free(m);
  }
  fp4moe_context_destroy(ctx);
}

/* ---- Forms of input and output ---- */

/* x in bf16, y in a dtype with a stride, ids in 64 bits through a map, added to ones or not. */
static void other_form(fp4moe_layer *layer, const problem *p, int f16, int accumulate) {
  static const int32_t map[9] = {-1, -1, 3, -1, 2, 1, -1, 0, -1};
  static const int64_t back[4] = {7, 5, 4, 2}; /* the ids of the map's experts */
  const size_t h = p->hidden, wide = h + 3, slots = p->tokens * p->top_k;
  uint16_t *x = malloc(p->tokens * h * sizeof *x), *y = malloc(p->tokens * wide * sizeof *y);
  int64_t *ids = malloc(slots * sizeof *ids);
  for (size_t i = 0; i < p->tokens * h; i++) x[i] = fp4_to_bf16(p->x[i]);
  for (size_t i = 0; i < slots; i++) ids[i] = p->ids[i] < 0 ? 1 : back[p->ids[i]];
  for (size_t i = 0; i < p->tokens * wide; i++) y[i] = f16 ? fp4_to_f16(1) : fp4_to_bf16(1);
  fp4moe_batch b = batch_of(p);
  b.x = x, b.x_dtype = FP4MOE_BF16, b.accumulate = accumulate;
  b.y = y, b.y_dtype = f16 ? FP4MOE_F16 : FP4MOE_BF16, b.y_stride = wide * sizeof *y;
  b.topk_ids = ids, b.ids_dtype = FP4MOE_I64, b.expert_map = map, b.expert_map_count = 9;
  CHECK(!run(layer, &b), "%s", fp4moe_error_detail());
  for (size_t i = 0; i < p->tokens * wide; i++) {
    size_t t = i / wide, k = i % wide;
    float sum = k < h ? p->y[t * h + k] + (accumulate ? 1.0f : 0) : 1;
    uint16_t want = f16 ? fp4_to_f16(sum) : fp4_to_bf16(sum);
    CHECK(y[i] == want, "f16 %d accumulate %d [%zu][%zu]: %04x, expected %04x", f16, accumulate, t,
          k, y[i], want);
  }
  free(x);
  free(y);
  free(ids);
}

static void forms(void) {
  fp4moe_layer_desc d = class_desc(&class_words[CLASS_BF16_NV], 64, 64, 4);
  fixture f = set_up(2, &d, 0, 11, 2, 1);
  fp4moe_batch b = batch_of(&f.p);
  CHECK(!run(f.layer, &b), "%s", fp4moe_error_detail());
  for (int form = 0; form < 4; form++) other_form(f.layer, &f.p, form / 2, form % 2);
  tear_down(&f);
}

static void nothing_to_do(void) {
  fp4moe_layer_desc d = class_desc(&class_words[CLASS_INT8_NV], 64, 64, 4);
  fixture f = set_up(2, &d, 0, 3, 2, 0);
  fp4moe_batch b = batch_of(&f.p);
  const size_t floats = f.p.tokens * f.p.hidden;
  for (size_t i = 0; i < 6; i++) f.p.ids[i] = -1;
  memset(f.p.y, 0xff, floats * sizeof *f.p.y);
  CHECK(!run(f.layer, &b), "%s", fp4moe_error_detail());
  for (size_t i = 0; i < floats; i++) CHECK(f.p.y[i] == 0, "y[%zu] is %g", i, (double)f.p.y[i]);
  b.tokens = 0;
  b.x = b.y = NULL;
  CHECK(!run(f.layer, &b), "%s", fp4moe_error_detail());
  tear_down(&f);
}

/* A NaN of one token stays there. */
static void nan_stays(void) {
  for (int c = CLASS_F32_MX; c <= CLASS_INT8_MX; c += 2) {
    fp4moe_layer_desc d = class_desc(&class_words[c], 64, 96, 3);
    fixture f = set_up(2, &d, 0, 40, 2, 0);
    fp4moe_batch b = batch_of(&f.p);
    f.p.x[7 * 64 + 5] = NAN;
    CHECK(!run(f.layer, &b), "%s", fp4moe_error_detail());
    for (size_t i = 0; i < f.p.tokens * f.p.hidden; i++)
      CHECK(!isnan(f.p.y[i]) == (i / 64 != 7), "%s, token %zu: %g", class_words[c].name, i / 64,
            (double)f.p.y[i]);
    tear_down(&f);
  }
}

static void stats_and_sizes(void) {
  fp4moe_layer_desc d = class_desc(&class_words[CLASS_BF16_MX], 64, 96, 4);
  fixture f = set_up(2, &d, 0, 5, 2, 0);
  uint32_t rows[4] = {9, 9, 9, 9};
  fp4moe_stats stats = {.struct_size = sizeof stats, .expert_rows = rows};
  fp4moe_batch b = batch_of(&f.p);
  for (size_t i = 0; i < 10; i++) f.p.ids[i] = i < 7 ? 2 : 0;
  b.stats = &stats;
  CHECK(!run(f.layer, &b), "%s", fp4moe_error_detail());
  CHECK(rows[0] == 3 && rows[1] == 0 && rows[2] == 7 && rows[3] == 0, "rows %u %u %u %u", rows[0],
        rows[1], rows[2], rows[3]);
  CHECK(stats.active_experts == 2 && stats.weight_bytes == fp4moe_layer_bytes(f.layer) / 2 &&
            stats.phase1_ns && stats.phase2_ns && stats.threads == 2,
        "stats: %zu experts, %zu bytes", stats.active_experts, (size_t)stats.weight_bytes);
  tear_down(&f);
}

/* ---- Refusals ---- */

static void refused_layers(void) {
  fp4moe_context *ctx = context_of(1);
  fp4moe_layer *layer = NULL;
  const fp4moe_layer_desc good = class_desc(&class_words[CLASS_BF16_MX], 64, 96, 2);
  fp4moe_layer_desc d = good;
  d.hidden = 48;
  REFUSED(fp4moe_layer_begin(ctx, &d, &layer), FP4MOE_INVALID, "hidden is 48");
  d = good, d.intermediate = 0;
  REFUSED(fp4moe_layer_begin(ctx, &d, &layer), FP4MOE_INVALID, "intermediate is 0");
  d = good, d.experts = 0;
  REFUSED(fp4moe_layer_begin(ctx, &d, &layer), FP4MOE_INVALID, "experts is 0");
  d = good, d.precision = (fp4moe_precision)9;
  REFUSED(fp4moe_layer_begin(ctx, &d, &layer), FP4MOE_UNSUPPORTED, "precision");
  d = good, d.activation.alpha = 1;
  REFUSED(fp4moe_layer_begin(ctx, &d, &layer), FP4MOE_INVALID, "activation.alpha is 1");
  d = good, d.activation = (fp4moe_activation){FP4MOE_RELU2, 1, 0, 0, 0, 0};
  REFUSED(fp4moe_layer_begin(ctx, &d, &layer), FP4MOE_UNSUPPORTED, "gated");
  d = good, d.struct_size = 0;
  REFUSED(fp4moe_layer_begin(ctx, &d, &layer), FP4MOE_INVALID, "struct_size");
  random_layer *m = random_layer_new(&good, 0, NULL);
  fp4moe_expert_weights w = random_layer_expert(m, 0);
  CHECK(!fp4moe_layer_begin(ctx, &good, &layer), "%s", fp4moe_error_detail());
  m->scales[1][5] = 255; /* up, row 2, block 1 */
  REFUSED(fp4moe_layer_set_expert(layer, 0, &w), FP4MOE_INVALID, "up scale [2][1] is NaN");
  m->scales[1][5] = 120;
  w.down.global = NAN;
  REFUSED(fp4moe_layer_set_expert(layer, 0, &w), FP4MOE_INVALID, "down.global");
  w.down.global = 1;
  w.gate.codes = NULL;
  REFUSED(fp4moe_layer_set_expert(layer, 0, &w), FP4MOE_INVALID, "gate: codes");
  w = random_layer_expert(m, 0);
  REFUSED(fp4moe_layer_set_expert(layer, 2, &w), FP4MOE_INVALID, "expert 2");
  CHECK(!fp4moe_layer_set_expert(layer, 0, &w), "%s", fp4moe_error_detail());
  REFUSED(fp4moe_layer_set_expert(layer, 0, &w), FP4MOE_INVALID, "already set");
  REFUSED(fp4moe_layer_finish(layer), FP4MOE_INVALID, "expert 1 was never set");
  problem p = draw(&good, 1, 1, 0);
  fp4moe_batch b = batch_of(&p);
  REFUSED(fp4moe_layer_forward(layer, &b, p.x, 1), FP4MOE_INVALID, "not finished");
  drop(&p);
  fp4moe_layer_destroy(layer);
  random_layer_free(m);
  fp4moe_context_destroy(ctx);
}

static void refused_batches(void) {
  fp4moe_layer_desc d = class_desc(&class_words[CLASS_BF16_MX], 64, 96, 2);
  d.router_weight_on_input = 1;
  fixture f = set_up(2, &d, 0, 4, 1, 0);
  problem p = f.p;
  const fp4moe_batch good = batch_of(&p);
  fp4moe_batch b = good;
  memset(p.y, 0xff, 4 * 64 * sizeof *p.y);
  p.ids[3] = 2;
  REFUSED(run(f.layer, &b), FP4MOE_INVALID, "topk_ids[3][0] is 2");
  p.ids[3] = -2;
  REFUSED(run(f.layer, &b), FP4MOE_INVALID, "topk_ids[3][0] is -2");
  p.ids[3] = 1;
  b.top_k = 2;
  REFUSED(run(f.layer, &b), FP4MOE_INVALID, "top_k 1");
  b = good, b.x = NULL;
  REFUSED(run(f.layer, &b), FP4MOE_INVALID, "batch.x");
  b = good, b.x_dtype = FP4MOE_I32;
  REFUSED(run(f.layer, &b), FP4MOE_INVALID, "x_dtype");
  b = good, b.ids_dtype = FP4MOE_F32;
  REFUSED(run(f.layer, &b), FP4MOE_INVALID, "batch.ids_dtype");
  fp4moe_stats stats = {.struct_size = 4};
  b = good, b.stats = &stats;
  REFUSED(run(f.layer, &b), FP4MOE_INVALID, "stats.struct_size is 4");
  b = good, b.top_k = 65537;
  REFUSED(run(f.layer, &b), FP4MOE_INVALID, "top_k 65537");
  b = good, b.y_stride = 4;
  REFUSED(run(f.layer, &b), FP4MOE_INVALID, "y_stride is 4");
  b = good, b.threads = 3;
  REFUSED(run(f.layer, &b), FP4MOE_INVALID, "threads is 3");
  int32_t map[2] = {0, 7};
  b = good, b.expert_map = map, b.expert_map_count = 2;
  p.ids[0] = 1;
  REFUSED(run(f.layer, &b), FP4MOE_INVALID, "expert_map[1] is 7");
  for (size_t i = 0; i < 4 * 64; i++) CHECK(isnan(p.y[i]), "y[%zu] was written", i);
  tear_down(&f);
}

/* No size, and why. */
static void refused_limits(void) {
  fp4moe_layer_desc d = {sizeof d, 64, 32, 2, FP4MOE_MXFP4, FP4MOE_PRECISION_F32, {.gated = 1}, 0};
  fixture f = set_up(2, &d, 0, 0, 0, 0);
  const fp4moe_limits good = {sizeof good, 4, 1, 0};
  const struct {
    fp4moe_limits limits;
    const char *says;
  } bad[] = {
      {{sizeof good, 4, 0, 0}, "4 tokens x top_k 0"},
      {{sizeof good, 4, 65537, 0}, "4 tokens x top_k 65537"},
      {{sizeof good, (size_t)1 << 31, 2, 0}, "2147483648 tokens x top_k 2"},
      {{sizeof good, 4, 1, 3}, "limits.threads is 3, the context has 2"},
      {{0, 4, 1, 0}, "struct_size"},
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    CHECK(fp4moe_workspace_bytes(f.layer, &good) > 0, "%s", fp4moe_error_detail());
    CHECK(!fp4moe_workspace_bytes(f.layer, &bad[i].limits) &&
              strstr(fp4moe_error_detail(), bad[i].says),
          "'%s', expected '%s'", fp4moe_error_detail(), bad[i].says);
  }
  CHECK(!fp4moe_workspace_bytes(NULL, &good) && strstr(fp4moe_error_detail(), "not finished"), "%s",
        fp4moe_error_detail());
  tear_down(&f);
}

void check_layer(void) {
  CU_pSuite s = check_suite("layer");
  check_test(s, "against double precision", every_layer);
  check_test(s, "many rows", many_rows);
  check_test(s, "router weight on input", weight_on_input);
  check_test(s, "wide scales", wide_scales);
  check_test(s, "pack and restore", pack_and_restore);
  check_test(s, "dtypes, strides, map, accumulate", forms);
  check_test(s, "nothing to do", nothing_to_do);
  check_test(s, "a NaN stays in its token", nan_stays);
  check_test(s, "refused layers", refused_layers);
  check_test(s, "refused batches", refused_batches);
  check_test(s, "refused limits", refused_limits);
  check_test(s, "stats", stats_and_sizes);
  check_layer_bits(s);
}
