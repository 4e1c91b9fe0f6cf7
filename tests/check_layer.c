/* check_layer.c - whole layers: against double precision, and the promises about bits.
 *
 * Random layers of every kind and odd size, the refusals of the interface, and that neither thread
 * count, schedule, provider, workspace size nor the three-call form moves a result as promised. */
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fp4.h"
#include "layer_call.h"
#include "team.h"

/* Against a reference with the same quantisers: what is left is FP32 summation. */
static const double class_bound = 1e-5;

/* ---- Against double precision ---- */

static void compare(const random_layer *m, fp4moe_context *ctx, size_t tokens, size_t top_k,
                    int gaps) {
  fp4moe_layer *layer = NULL;
  problem p = draw(&m->desc, tokens, top_k, gaps);
  fp4moe_batch b = batch_of(&p);
  if (CHECK(!random_layer_open(m, ctx, &layer), "%s", fp4moe_error_detail()) &&
      CHECK(!run(layer, &b), "%s", fp4moe_error_detail())) {
    closeness c = random_layer_compare(m, tokens, top_k, p.x, p.ids, p.weights, p.y);
    CHECK(is_close(c),
          "%zux%zu, format %d, class %d, kind %d gated %d, "
          "M %zu: rel_l2 %g, %zu ties of %zu",
          p.hidden, m->desc.intermediate, (int)m->desc.format, (int)m->desc.precision,
          (int)m->desc.activation.kind, m->desc.activation.gated, tokens, c.rel_l2, c.ties,
          c.elements);
  }
  fp4moe_layer_destroy(layer);
  drop(&p);
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
        fp4moe_layer_desc d = {.struct_size = sizeof d,
                               .hidden = n[0],
                               .intermediate = n[1],
                               .experts = n[2],
                               .format = w->format,
                               .precision = w->precision,
                               .activation = activations[a],
                               .input_global = w->input_global};
        random_layer *m = random_layer_new(&d, (int)s & 1, NULL);
        static const size_t tokens[] = {1, 2, 9, 70};
        compare(m, ctx, tokens[(s + (size_t)a) % 4], 1 + s % 3, s == 2);
        random_layer_free(m);
      }
  fp4moe_context_destroy(ctx);
}

static void many_rows(void) {
  fp4moe_context *ctx = context_of(2);
  for (int precision = 0; precision < 3; precision++) {
    fp4moe_layer_desc d = {sizeof d,       64, 96, 2, FP4MOE_MXFP4, (fp4moe_precision)precision,
                           activations[3], 0};
    random_layer *m = random_layer_new(&d, 1, NULL);
    compare(m, ctx, 1100, 2, 0); /* several row blocks of an expert, two token ranges */
    random_layer_free(m);
  }
  fp4moe_context_destroy(ctx);
}

static void weight_on_input(void) {
  fp4moe_context *ctx = context_of(2);
  for (int precision = 0; precision < 3; precision++) {
    fp4moe_layer_desc d = {sizeof d,       96, 64, 3, FP4MOE_NVFP4, (fp4moe_precision)precision,
                           activations[0], 1};
    random_layer *m = random_layer_new(&d, 0, NULL);
    compare(m, ctx, 5, 1, 1);
    random_layer_free(m);
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

static void wide(fp4moe_context *ctx, fp4moe_precision precision, random_scale_fn *scale) {
  fp4moe_layer_desc d = {sizeof d, 32 * 50, 512, 2, FP4MOE_MXFP4, precision, activations[0], 0};
  random_layer *m = random_layer_new(&d, 0, scale);
  fp4moe_layer *layer = NULL;
  problem p = draw(&d, 20, 1, 0);
  size_t floats = p.tokens * p.hidden;
  for (size_t i = 0; i < floats; i++) p.x[i] = x_for(scale, m, p.x[i], i % p.hidden);
  fp4moe_batch b = batch_of(&p);
  CHECK(!random_layer_open(m, ctx, &layer) && !run(layer, &b), "%s", fp4moe_error_detail());
  closeness c = random_layer_compare(m, p.tokens, 1, p.x, p.ids, p.weights, p.y);
  CHECK(c.rel_l2 <= class_bound && c.ties <= 8 + c.elements / 50,
        "class %d, %s: rel_l2 %g, %zu ties of %zu", (int)precision,
        scale == high_e8m0 ? "high" : "low", c.rel_l2, c.ties, c.elements);
  fp4moe_layer_destroy(layer);
  drop(&p);
  random_layer_free(m);
}

static void wide_scales(void) {
  fp4moe_context *ctx = context_of(2);
  for (int precision = 0; precision <= (int)FP4MOE_PRECISION_MXFP8; precision++) {
    wide(ctx, (fp4moe_precision)precision, low_e8m0);
    wide(ctx, (fp4moe_precision)precision, high_e8m0);
  }
  fp4moe_context_destroy(ctx);
}

static void pack_and_restore(void) {
  fp4moe_context *ctx = context_of(1);
  for (int format = 0; format < 2; format++) {
    fp4moe_layer_desc d = {sizeof d,       96, 160, 3, (fp4moe_format)format, FP4MOE_PRECISION_F32,
                           activations[0], 0};
    d.shards = 1;
    random_layer *m = random_layer_new(&d, 1, NULL);
    fp4moe_layer *layer = NULL;
    CHECK(!random_layer_open(m, ctx, &layer), "%s", fp4moe_error_detail());
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

/* ---- Bits ---- */

/* y of one problem under a context; fails the test when the bits are not those of `want`. */
static void same_bits(const random_layer *m, problem *p, fp4moe_context *ctx, size_t threads,
                      const float *want, const char *what) {
  fp4moe_layer *layer = NULL;
  fp4moe_batch b = batch_of(p);
  b.threads = threads;
  memset(p->y, 0xff, p->tokens * p->hidden * sizeof *p->y);
  if (CHECK(!random_layer_open(m, ctx, &layer), "%s", fp4moe_error_detail()) &&
      CHECK(!run(layer, &b), "%s", fp4moe_error_detail()))
    CHECK_SAME(p->y, want, p->tokens * p->hidden, sizeof *want, what);
  fp4moe_layer_destroy(layer);
}

/* A table whose schedules differ per thread count, for a shape. */
static void write_schedules(const char *path, const fp4moe_layer_desc *d, fp4moe_context *ctx) {
  fp4moe_schedule_entry e[21] = {0};
  fp4moe_table t = {.schedule = e};
  for (uint32_t threads = 1; threads <= 7; threads++)
    for (uint32_t i = 0; i < 3; i++)
      e[t.schedules++] = (fp4moe_schedule_entry){
          (int)d->format,
          (int)fp4moe_act_class_of(d->precision),
          d->hidden,
          d->intermediate,
          1,
          0,
          {(uint32_t[]){0, 4, 7}[i], threads, 1 + threads / 2, 1 + threads * (i + 1)}};
  CHECK(!fp4moe_table_save(path, &ctx->host, ctx->isa, &t), "%s", fp4moe_error_detail());
}

static void threads_and_schedules(void) {
  char dir[] = "/tmp/fp4moe-check-XXXXXX", path[64];
  CHECK(mkdtemp(dir) != NULL, "mkdtemp");
  snprintf(path, sizeof path, "%s/table", dir);
  fp4moe_context *plain = context_of(7), *tabled = NULL, *foreign = NULL;
  for (int precision = 0; precision < 3; precision++)
    for (size_t t = 0; t < 3; t++) {
      fp4moe_layer_desc d = {
          sizeof d,       96, 224, 6, (fp4moe_format)(t % 2), (fp4moe_precision)precision,
          activations[0], 0};
      random_layer *m = random_layer_new(&d, 1, NULL);
      problem p = draw(&d, (size_t[]){1, 13, 90}[t], 3, 1);
      size_t floats = p.tokens * p.hidden;
      float *want = malloc(floats * sizeof *want);
      fp4moe_layer *layer = NULL;
      fp4moe_batch b = batch_of(&p);
      b.threads = 1;
      CHECK(!random_layer_open(m, plain, &layer) && !run(layer, &b), "%s", fp4moe_error_detail());
      memcpy(want, p.y, floats * sizeof *want);
      fp4moe_layer_destroy(layer);
      write_schedules(path, &d, plain);
      fp4moe_context_desc with_table = {
          .struct_size = sizeof with_table, .max_threads = 7, .table = path};
      CHECK(!fp4moe_context_create(&with_table, &tabled), "%s", fp4moe_error_detail());
      with_table.parallel_for = backwards;
      CHECK(!fp4moe_context_create(&with_table, &foreign), "%s", fp4moe_error_detail());
      for (size_t n = 1; n <= 7; n++) {
        same_bits(m, &p, plain, n, want, "threads");
        same_bits(m, &p, tabled, n, want, "threads under a table");
        same_bits(m, &p, foreign, n, want, "the caller's parallel_for");
      }
      fp4moe_context_destroy(tabled);
      fp4moe_context_destroy(foreign);
      free(want);
      drop(&p);
      random_layer_free(m);
    }
  fp4moe_context_destroy(plain);
  unlink(path);
  strcat(path, ".lock");
  unlink(path);
  rmdir(dir);
}

static void small_workspaces(void) {
  fp4moe_context *ctx = context_of(2);
  fp4moe_layer_desc d = {sizeof d,       64, 96, 5, FP4MOE_NVFP4, FP4MOE_PRECISION_BF16,
                         activations[0], 0};
  random_layer *m = random_layer_new(&d, 1, NULL);
  problem p = draw(&d, 67, 3, 1);
  size_t floats = p.tokens * p.hidden;
  float *want = malloc(floats * sizeof *want);
  fp4moe_layer *layer = NULL;
  fp4moe_batch b = batch_of(&p);
  fp4moe_limits l = {sizeof l, p.tokens, p.top_k, 0};
  CHECK(!random_layer_open(m, ctx, &layer) && !run(layer, &b), "%s", fp4moe_error_detail());
  memcpy(want, p.y, floats * sizeof *want);
  size_t full = fp4moe_workspace_bytes(layer, &l), least = fp4moe_workspace_min_bytes(layer, &l);
  CHECK(least < full, "%zu, %zu", least, full);
  for (size_t bytes = least; bytes < full; bytes += (full - least) / 7 + 1) {
    uint8_t *workspace = check_buffer(bytes, CHECK_AFTER);
    memset(p.y, 0xff, floats * sizeof *p.y);
    CHECK(!fp4moe_layer_forward(layer, &b, workspace, bytes), "%s", fp4moe_error_detail());
    CHECK_SAME(p.y, want, floats, sizeof *want, "a small workspace");
    CHECK_RELEASE();
  }
  memset(p.y, 0xff, floats * sizeof *p.y);
  void *short_one = malloc(least);
  CHECK(fp4moe_layer_forward(layer, &b, short_one, least / 4) == FP4MOE_WORKSPACE, "too short");
  CHECK(isnan(p.y[0]) && isnan(p.y[floats - 1]), "y was written");
  free(short_one);
  fp4moe_layer_destroy(layer);
  free(want);
  drop(&p);
  random_layer_free(m);
  fp4moe_context_destroy(ctx);
}

/* ---- The call in three ---- */

static void three_calls(void) {
  fp4moe_context *ctx = context_of(2);
  fp4moe_layer_desc d = {sizeof d,       96, 64, 5, FP4MOE_MXFP4, FP4MOE_PRECISION_INT8,
                         activations[3], 0};
  random_layer *m = random_layer_new(&d, 1, NULL);
  problem p = draw(&d, 23, 3, 1);
  size_t floats = p.tokens * p.hidden, pairs = p.tokens * p.top_k;
  float *want = malloc(floats * sizeof *want);
  float *in = malloc(pairs * p.hidden * sizeof *in), *out = malloc(pairs * p.hidden * sizeof *out);
  int64_t offsets[6], *row_pair = malloc(pairs * sizeof *row_pair);
  fp4moe_layer *layer = NULL;
  fp4moe_batch b = batch_of(&p);
  CHECK(!random_layer_open(m, ctx, &layer) && !run(layer, &b), "%s", fp4moe_error_detail());
  memcpy(want, p.y, floats * sizeof *want);
  fp4moe_rows rows = {sizeof rows, pairs, in, FP4MOE_F32, 0, offsets}, result = rows;
  CHECK(!fp4moe_prepare(layer, &b, &rows, row_pair), "%s", fp4moe_error_detail());
  result.rows = rows.rows;
  result.data = out;
  fp4moe_limits l = {sizeof l, rows.rows, 1, 0};
  size_t bytes = fp4moe_workspace_bytes(layer, &l);
  void *workspace = malloc(bytes);
  CHECK(!fp4moe_experts(layer, &rows, &result, NULL, workspace, bytes), "%s",
        fp4moe_error_detail());
  memset(p.y, 0xff, floats * sizeof *p.y);
  CHECK(!fp4moe_finalize(layer, &b, &result, row_pair), "%s", fp4moe_error_detail());
  double worst = 0, largest = 0;
  for (size_t i = 0; i < floats; i++) {
    worst = fmax(worst, fabs((double)p.y[i] - (double)want[i]));
    largest = fmax(largest, fabs((double)want[i]));
  }
  CHECK(worst <= 1e-6 * largest, "the three calls are %g off the fused one (%g)", worst, largest);
  rows.rows = 3;
  CHECK(fp4moe_prepare(layer, &b, &rows, row_pair) == FP4MOE_INVALID, "too few rows");
  free(workspace);
  free(in);
  free(out);
  free(row_pair);
  free(want);
  fp4moe_layer_destroy(layer);
  drop(&p);
  random_layer_free(m);
  fp4moe_context_destroy(ctx);
}

/* ---- Forms of input and output ---- */

static void forms(void) {
  fp4moe_context *ctx = context_of(2);
  fp4moe_layer_desc d = {sizeof d,       64, 64, 4, FP4MOE_NVFP4, FP4MOE_PRECISION_BF16,
                         activations[0], 0};
  random_layer *m = random_layer_new(&d, 0, NULL);
  problem p = draw(&d, 11, 2, 1);
  size_t floats = p.tokens * p.hidden, h = p.hidden;
  fp4moe_layer *layer = NULL;
  fp4moe_batch b = batch_of(&p);
  CHECK(!random_layer_open(m, ctx, &layer) && !run(layer, &b), "%s", fp4moe_error_detail());
  /* x in bf16, y in bf16 and f16 with a stride, ids in 64 bits through a map, accumulated. */
  uint16_t *x16 = malloc(floats * 2), *y16 = malloc(p.tokens * (h + 3) * 2);
  int64_t *ids = malloc(p.tokens * p.top_k * sizeof *ids);
  int32_t map[9] = {-1, -1, 3, -1, 2, 1, -1, 0, -1};
  static const int64_t back[4] = {7, 5, 4, 2};
  for (size_t i = 0; i < floats; i++) x16[i] = fp4_to_bf16(p.x[i]);
  for (size_t i = 0; i < p.tokens * p.top_k; i++) ids[i] = p.ids[i] < 0 ? 1 : back[p.ids[i]];
  for (int f16 = 0; f16 < 2; f16++)
    for (int accumulate = 0; accumulate < 2; accumulate++) {
      fp4moe_batch c = b;
      c.x = x16, c.x_dtype = FP4MOE_BF16;
      c.y = y16, c.y_dtype = f16 ? FP4MOE_F16 : FP4MOE_BF16, c.y_stride = 2 * (h + 3);
      c.topk_ids = ids, c.ids_dtype = FP4MOE_I64, c.expert_map = map, c.expert_map_count = 9;
      c.accumulate = accumulate;
      for (size_t i = 0; i < p.tokens * (h + 3); i++) y16[i] = f16 ? 0x3c00 : 0x3f80; /* 1 */
      CHECK(!run(layer, &c), "%s", fp4moe_error_detail());
      for (size_t i = 0; i < p.tokens * (h + 3); i++) {
        size_t t = i / (h + 3), k = i % (h + 3);
        float sum = k < h ? p.y[t * h + k] + (accumulate ? 1.0f : 0) : 1;
        uint16_t want = f16 ? fp4_to_f16(sum) : fp4_to_bf16(sum);
        CHECK(y16[i] == want, "f16 %d accumulate %d [%zu][%zu]: %04x, expected %04x", f16,
              accumulate, t, k, y16[i], want);
      }
    }
  free(x16);
  free(y16);
  free(ids);
  fp4moe_layer_destroy(layer);
  drop(&p);
  random_layer_free(m);
  fp4moe_context_destroy(ctx);
}

static void nothing_to_do(void) {
  fp4moe_context *ctx = context_of(2);
  fp4moe_layer_desc d = {sizeof d,       64, 64, 4, FP4MOE_NVFP4, FP4MOE_PRECISION_INT8,
                         activations[0], 0};
  random_layer *m = random_layer_new(&d, 0, NULL);
  problem p = draw(&d, 3, 2, 0);
  fp4moe_layer *layer = NULL;
  fp4moe_batch b = batch_of(&p);
  for (size_t i = 0; i < 6; i++) p.ids[i] = -1;
  CHECK(!random_layer_open(m, ctx, &layer), "%s", fp4moe_error_detail());
  memset(p.y, 0xff, p.tokens * p.hidden * sizeof *p.y);
  CHECK(!run(layer, &b), "%s", fp4moe_error_detail());
  for (size_t i = 0; i < p.tokens * p.hidden; i++) CHECK(p.y[i] == 0, "y[%zu] is %g", i, p.y[i]);
  b.tokens = 0;
  b.x = b.y = NULL;
  CHECK(!run(layer, &b), "%s", fp4moe_error_detail());
  fp4moe_layer_destroy(layer);
  drop(&p);
  random_layer_free(m);
  fp4moe_context_destroy(ctx);
}

/* A NaN of one token stays there. */
static void nan_stays(void) {
  fp4moe_context *ctx = context_of(2);
  for (int precision = 0; precision < 3; precision++) {
    fp4moe_layer_desc d = {sizeof d,       64, 96, 3, FP4MOE_MXFP4, (fp4moe_precision)precision,
                           activations[0], 0};
    random_layer *m = random_layer_new(&d, 0, NULL);
    problem p = draw(&d, 40, 2, 0);
    fp4moe_layer *layer = NULL;
    fp4moe_batch b = batch_of(&p);
    p.x[7 * 64 + 5] = NAN;
    CHECK(!random_layer_open(m, ctx, &layer) && !run(layer, &b), "%s", fp4moe_error_detail());
    for (size_t i = 0; i < p.tokens * p.hidden; i++)
      CHECK(!isnan(p.y[i]) == (i / 64 != 7), "class %d token %zu: %g", precision, i / 64,
            (double)p.y[i]);
    fp4moe_layer_destroy(layer);
    drop(&p);
    random_layer_free(m);
  }
  fp4moe_context_destroy(ctx);
}

/* ---- Refusals ---- */

static void refused_layers(void) {
  fp4moe_context *ctx = context_of(1);
  fp4moe_layer *layer = NULL;
  const fp4moe_layer_desc good = {sizeof good,    64, 96, 2, FP4MOE_MXFP4, FP4MOE_PRECISION_BF16,
                                  activations[0], 0};
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
  fp4moe_context *ctx = context_of(2);
  const fp4moe_layer_desc d = {sizeof d,       64, 96, 2, FP4MOE_MXFP4, FP4MOE_PRECISION_BF16,
                               activations[0], 1};
  random_layer *m = random_layer_new(&d, 0, NULL);
  fp4moe_layer *layer = NULL;
  problem p = draw(&d, 4, 1, 0);
  const fp4moe_batch good = batch_of(&p);
  fp4moe_batch b = good;
  CHECK(!random_layer_open(m, ctx, &layer), "%s", fp4moe_error_detail());
  memset(p.y, 0xff, 4 * 64 * sizeof *p.y);
  p.ids[3] = 2;
  REFUSED(run(layer, &b), FP4MOE_INVALID, "topk_ids[3][0] is 2");
  p.ids[3] = -2;
  REFUSED(run(layer, &b), FP4MOE_INVALID, "topk_ids[3][0] is -2");
  p.ids[3] = 1;
  b.top_k = 2;
  REFUSED(run(layer, &b), FP4MOE_INVALID, "top_k 1");
  b = good, b.x = NULL;
  REFUSED(run(layer, &b), FP4MOE_INVALID, "batch.x");
  b = good, b.x_dtype = FP4MOE_I32;
  REFUSED(run(layer, &b), FP4MOE_INVALID, "x_dtype");
  b = good, b.ids_dtype = FP4MOE_F32;
  REFUSED(run(layer, &b), FP4MOE_INVALID, "batch.ids_dtype");
  fp4moe_stats stats = {.struct_size = 4};
  b = good, b.stats = &stats;
  REFUSED(run(layer, &b), FP4MOE_INVALID, "stats.struct_size is 4");
  b = good, b.top_k = 65537;
  REFUSED(run(layer, &b), FP4MOE_INVALID, "top_k 65537");
  b = good, b.y_stride = 4;
  REFUSED(run(layer, &b), FP4MOE_INVALID, "y_stride is 4");
  b = good, b.threads = 3;
  REFUSED(run(layer, &b), FP4MOE_INVALID, "threads is 3");
  int32_t map[2] = {0, 7};
  b = good, b.expert_map = map, b.expert_map_count = 2;
  p.ids[0] = 1;
  REFUSED(run(layer, &b), FP4MOE_INVALID, "expert_map[1] is 7");
  for (size_t i = 0; i < 4 * 64; i++) CHECK(isnan(p.y[i]), "y[%zu] was written", i);
  fp4moe_layer_destroy(layer);
  drop(&p);
  random_layer_free(m);
  fp4moe_context_destroy(ctx);
}

/* ---- Threads of the application ---- */

typedef struct {
  fp4moe_layer *layer;
  problem p;
  const float *want;
  int bad;
} caller;

static void *call_often(void *arg) {
  caller *c = arg;
  fp4moe_batch b = batch_of(&c->p);
  for (int i = 0; i < 20; i++) {
    if (run(c->layer, &b)) c->bad++;
    if (memcmp(c->p.y, c->want, c->p.tokens * c->p.hidden * sizeof(float))) c->bad++;
  }
  return NULL;
}

/* The child has the layer and no threads: its first call makes a pool of its own. */
static void call_in_fork(caller *c) {
  if (check_cannot_fork("a call in the child of a fork")) return;
  pid_t child = fork();
  if (!child) {
    call_often(c);
    _exit(c->bad != 0);
  }
  int status = -1;
  CHECK(waitpid(child, &status, 0) == child && status == 0, "the child of a fork: %d", status);
}

static void callers_and_forks(void) {
  fp4moe_context *ctx = context_of(2);
  const fp4moe_layer_desc d = {sizeof d,       64, 96, 4, FP4MOE_MXFP4, FP4MOE_PRECISION_BF16,
                               activations[0], 0};
  random_layer *m = random_layer_new(&d, 0, NULL);
  caller c[3];
  pthread_t threads[3];
  fp4moe_layer *layer = NULL;
  CHECK(!random_layer_open(m, ctx, &layer), "%s", fp4moe_error_detail());
  for (int i = 0; i < 3; i++) {
    c[i] = (caller){layer, draw(&d, 9, 2, 0), NULL, 0};
    fp4moe_batch b = batch_of(&c[i].p);
    float *want = malloc(9 * 64 * sizeof *want);
    CHECK(!run(layer, &b), "%s", fp4moe_error_detail());
    memcpy(want, c[i].p.y, 9 * 64 * sizeof *want);
    c[i].want = want;
  }
  for (int i = 0; i < 3; i++) pthread_create(&threads[i], NULL, call_often, &c[i]);
  for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
  for (int i = 0; i < 3; i++) CHECK(!c[i].bad, "caller %d: %d wrong results", i, c[i].bad);
  call_in_fork(&c[0]);
  for (int i = 0; i < 3; i++) {
    free((void *)(uintptr_t)c[i].want);
    drop(&c[i].p);
  }
  fp4moe_layer_destroy(layer);
  random_layer_free(m);
  fp4moe_context_destroy(ctx);
}

/* ---- SPMD ---- */

typedef struct {
  fp4moe_layer *layer;
  fp4moe_batch batch;
  void *workspace;
  size_t bytes;
} spmd_call;

static fp4moe_status join_call(void *arg, const fp4moe_team *team) {
  const spmd_call *c = arg;
  fp4moe_batch b = c->batch;
  b.team = team;
  return fp4moe_layer_forward(c->layer, &b, c->workspace, c->bytes);
}

/* One call by a team of nth threads. */
static void team_call(fp4moe_layer *layer, const fp4moe_batch *b, size_t nth, size_t bytes,
                      fp4moe_status want) {
  spmd_call c = {layer, *b, malloc(bytes), bytes};
  team_run(nth, join_call, &c, want);
  free(c.workspace);
}

static void teams(void) {
  fp4moe_context *ctx = context_of(7);
  const fp4moe_layer_desc d = {sizeof d,       64, 96, 5, FP4MOE_NVFP4, FP4MOE_PRECISION_INT8,
                               activations[0], 0};
  random_layer *m = random_layer_new(&d, 1, NULL);
  fp4moe_layer *layer = NULL;
  CHECK(!random_layer_open(m, ctx, &layer), "%s", fp4moe_error_detail());
  for (size_t nth = 1; nth <= 7; nth += 2)
    for (int tokens = 0; tokens < 60; tokens += 29) {
      problem p = draw(&d, tokens ? (size_t)tokens : 1, 2, tokens == 29);
      size_t floats = p.tokens * p.hidden;
      float *want = malloc(floats * sizeof *want);
      fp4moe_batch b = batch_of(&p);
      if (!tokens) p.ids[0] = p.ids[1] = -1;
      CHECK(!run(layer, &b), "%s", fp4moe_error_detail());
      memcpy(want, p.y, floats * sizeof *want);
      fp4moe_limits l = {sizeof l, p.tokens, p.top_k, nth};
      size_t full = fp4moe_workspace_bytes(layer, &l),
             least = fp4moe_workspace_min_bytes(layer, &l);
      for (int small = 0; small < 2; small++) {
        memset(p.y, 0xff, floats * sizeof *p.y);
        team_call(layer, &b, nth, small ? least : full, FP4MOE_OK);
        CHECK_SAME(p.y, want, floats, sizeof *want, "a team");
      }
      team_call(layer, &b, nth, least / 4, FP4MOE_WORKSPACE);
      p.ids[0] = 5;
      team_call(layer, &b, nth, full, FP4MOE_INVALID); /* an id out of range */
      free(want);
      drop(&p);
    }
  fp4moe_layer_destroy(layer);
  random_layer_free(m);
  fp4moe_context_destroy(ctx);
}

static void stats_and_sizes(void) {
  fp4moe_context *ctx = context_of(2);
  const fp4moe_layer_desc d = {sizeof d,       64, 96, 4, FP4MOE_MXFP4, FP4MOE_PRECISION_BF16,
                               activations[0], 0};
  random_layer *m = random_layer_new(&d, 0, NULL);
  problem p = draw(&d, 5, 2, 0);
  uint32_t rows[4] = {9, 9, 9, 9};
  fp4moe_stats stats = {.struct_size = sizeof stats, .expert_rows = rows};
  fp4moe_layer *layer = NULL;
  fp4moe_batch b = batch_of(&p);
  for (size_t i = 0; i < 10; i++) p.ids[i] = i < 7 ? 2 : 0;
  b.stats = &stats;
  CHECK(!random_layer_open(m, ctx, &layer) && !run(layer, &b), "%s", fp4moe_error_detail());
  CHECK(rows[0] == 3 && rows[1] == 0 && rows[2] == 7 && rows[3] == 0, "rows %u %u %u %u", rows[0],
        rows[1], rows[2], rows[3]);
  CHECK(stats.active_experts == 2 && stats.weight_bytes == fp4moe_layer_bytes(layer) / 2 &&
            stats.phase1_ns && stats.phase2_ns && stats.threads == 2,
        "stats: %zu experts, %zu bytes", stats.active_experts, (size_t)stats.weight_bytes);
  fp4moe_layer_destroy(layer);
  drop(&p);
  random_layer_free(m);
  fp4moe_context_destroy(ctx);
}

void check_layer(void) {
  CU_pSuite s = check_suite("layer");
  check_test(s, "against double precision", every_layer);
  check_test(s, "many rows", many_rows);
  check_test(s, "router weight on input", weight_on_input);
  check_test(s, "wide scales", wide_scales);
  check_test(s, "pack and restore", pack_and_restore);
  check_test(s, "same bits for any threads", threads_and_schedules);
  check_test(s, "small workspaces", small_workspaces);
  check_test(s, "three calls", three_calls);
  check_test(s, "dtypes, strides, map, accumulate", forms);
  check_test(s, "nothing to do", nothing_to_do);
  check_test(s, "a NaN stays in its token", nan_stays);
  check_test(s, "refused layers", refused_layers);
  check_test(s, "refused batches", refused_batches);
  check_test(s, "callers and forks", callers_and_forks);
  check_test(s, "teams (SPMD)", teams);
  check_test(s, "stats", stats_and_sizes);
}
