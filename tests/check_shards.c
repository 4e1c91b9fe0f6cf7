/* check_shards.c - layers in S shards: the bits of S = 1, whole records cut at the right places,
 * memory that is where it was asked for. All of it but the last runs on one node too; check_vm.sh
 * gives it two. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fp4.h"
#include "layer_fixture.h"
#include "nodes.h"

enum { MOST_TOKENS = 64, TOP_K = 3 };
static const size_t counts[] = {1, 2, 3, 8};
enum { COUNTS = sizeof counts / sizeof *counts };

static fp4moe_expert_weights expert_of(const random_layer *m, size_t e) {
  fp4moe_expert_weights w = random_layer_expert(m, e);
  w.gate.input_scale = 0.01f;
  w.up.input_scale = 0.02f;
  w.down.input_scale = 0.005f * (float)(e + 1);
  return w;
}

static fp4moe_layer *open_layer(const random_layer *m, fp4moe_context *ctx, size_t shards) {
  fp4moe_layer_desc d = m->desc;
  fp4moe_layer *layer = NULL;
  d.shards = shards;
  fp4moe_status status = fp4moe_layer_begin(ctx, &d, &layer);
  for (size_t e = 0; !status && e < d.experts; e++) {
    fp4moe_expert_weights w = expert_of(m, e);
    status = fp4moe_layer_set_expert(layer, e, &w);
  }
  if (!status) status = fp4moe_layer_finish(layer);
  CHECK(!status, "%zu shards: %s", shards, fp4moe_error_detail());
  return layer;
}

/* ---- Bits ---- */

/* MOST_TOKENS with values of all FP32. */
static problem draw_floats(const fp4moe_layer_desc *d) {
  problem p = draw(d, MOST_TOKENS, TOP_K, 1);
  for (size_t i = 0; i < MOST_TOKENS * d->hidden; i++) p.x[i] = check_uniform(-1, 1);
  return p;
}

/* Every M with one number of threads, some with all of 1..4. */
static void same_bits(const random_layer *m, fp4moe_context *ctx, const char *what) {
  problem p = draw_floats(&m->desc);
  fp4moe_batch b = batch_of(&p);
  fp4moe_layer *layers[COUNTS];
  for (size_t i = 0; i < COUNTS; i++) layers[i] = open_layer(m, ctx, counts[i]);
  for (b.tokens = 1; b.tokens <= MOST_TOKENS; b.tokens++) {
    b.threads = 1;
    float *want = outputs(layers[0], &b);
    for (size_t i = 1; i < COUNTS; i++)
      for (b.threads = 1; b.threads <= 4; b.threads++) {
        char text[96];
        if (b.tokens % 16 != 1 && b.threads != 1 + (b.tokens + i) % 4) continue;
        snprintf(text, sizeof text, "%s, %zu shards, M %zu, %zu threads", what, counts[i], b.tokens,
                 b.threads);
        gives(layers[i], &b, want, text);
      }
    free(want);
  }
  for (size_t i = 0; i < COUNTS; i++) fp4moe_layer_destroy(layers[i]);
  drop(&p);
}

/* 16 columns of h and of y more than whole groups; more shards than groups of h. */
static fp4moe_layer_desc desc_of(fp4moe_format format, fp4moe_precision precision, int gated) {
  return (fp4moe_layer_desc){.struct_size = sizeof(fp4moe_layer_desc),
                             .hidden = format == FP4MOE_MXFP4 ? 352 : 208,
                             .intermediate = format == FP4MOE_MXFP4 ? 160 : 112,
                             .experts = 4,
                             .format = format,
                             .precision = precision,
                             .activation = {.kind = FP4MOE_SILU, .gated = gated}};
}

static void every_class(void) {
  fp4moe_context *ctx = context_of(4);
  for (int format = 0; format < 2; format++)
    for (int precision = 0; precision < 5; precision++) {
      int mxfp8 = precision == FP4MOE_PRECISION_MXFP8, nvfp4 = precision == FP4MOE_PRECISION_NVFP4;
      if ((mxfp8 && format) || (nvfp4 && !format)) continue;
      for (int global = 0; global < (nvfp4 ? 3 : 1); global++) {
        char what[64];
        fp4moe_layer_desc d =
            desc_of((fp4moe_format)format, (fp4moe_precision)precision, (format + precision) % 2);
        d.input_global = (fp4moe_input_global)global;
        if (nvfp4 && !global) d.input_scale_gate_up = d.input_scale_down = 0.01f;
        random_layer *m = random_layer_new(&d, global != 1, NULL);
        snprintf(what, sizeof what, "format %d class %d global %d", format, precision, global);
        same_bits(m, ctx, what);
        random_layer_free(m);
      }
    }
  fp4moe_context_destroy(ctx);
}

/* One scale of one row decides the recipe of the whole expert, whichever shard has that row. */
static void wide_in_one_shard(void) {
  fp4moe_context *ctx = context_of(4);
  fp4moe_layer_desc d = desc_of(FP4MOE_MXFP4, FP4MOE_PRECISION_BF16, 1);
  for (size_t projection = 0; projection < 3; projection += 2) {
    random_layer *m = random_layer_new(&d, 0, NULL);
    m->codes[projection][0] = 0x77;
    m->scales[projection][0] = 1;
    same_bits(m, ctx, projection ? "wide down" : "wide gate");
    random_layer_free(m);
  }
  fp4moe_context_destroy(ctx);
}

static void linears(void) {
  fp4moe_context *ctx = context_of(2);
  fp4moe_layer_desc as_layer = {.hidden = 200, .intermediate = 96, .experts = 1};
  random_layer *m = random_layer_new(&as_layer, 1, NULL);
  float x[5 * 96], want[5 * 200], got[5 * 200];
  for (size_t i = 0; i < 5 * 96; i++) x[i] = check_uniform(-1, 1);
  for (size_t i = 0; i < COUNTS; i++) {
    const fp4moe_linear_desc d = {
        .n = 200, .k = 96, .experts = 1, .precision = FP4MOE_PRECISION_INT8, .shards = counts[i]};
    const fp4moe_expert_weights w = random_layer_expert(m, 0);
    fp4moe_linear *linear = linear_of(ctx, d, &w.down);
    memset(got, 0xff, sizeof got);
    CHECK(!run_rows(linear, 5, x, got), "%s", fp4moe_error_detail());
    if (!i) memcpy(want, got, sizeof want);
    CHECK_SAME(got, want, 5 * 200, sizeof *got, "a linear in shards");
    fp4moe_linear_destroy(linear);
  }
  random_layer_free(m);
  fp4moe_context_destroy(ctx);
}

/* ---- Records ---- */

/* A shard's record is whole by itself, and has the bytes of the whole record's panels. */
static void check_split(const fp4moe_layer *layer, const fp4moe_layer *whole, size_t e) {
  const uint8_t *all = fp4moe_layer_record(whole, 0, e);
  const fp4moe_shape *w = &whole->shape;
  size_t p13 = 0, p2 = 0;
  for (size_t i = 0; i < layer->shards; i++) {
    const fp4moe_shard *s = &layer->shard[i];
    const uint8_t *record = fp4moe_layer_record(layer, i, e);
    const fp4moe_record *header = (const void *)record;
    CHECK(!fp4moe_record_verify(&layer->desc, &s->shape, record), "%s", fp4moe_error_detail());
    CHECK(header->shard == i && header->others == layer->shards - 1, "shard %u of %u",
          header->shard, header->others + 1);
    CHECK(s->first13 == p13 && s->first2 == p2, "shard %zu begins at %zu, %zu", i, s->first13,
          s->first2);
    size_t b13 = fp4_panel_bytes(w->hidden), b2 = fp4_panel_scale_bytes(w->intermediate, w->group);
    CHECK_SAME(record + s->shape.w13, all + w->w13 + p13 * b13, s->shape.panels13 * b13, 1, "w13");
    CHECK_SAME(record + s->shape.s2, all + w->s2 + p2 * b2, s->shape.panels2 * b2, 1, "scales");
    p13 += s->shape.panels13;
    p2 += s->shape.panels2;
  }
  CHECK(p13 == w->panels13 && p2 == w->panels2, "%zu and %zu panels in all", p13, p2);
}

static void records(void) {
  fp4moe_context *ctx = context_of(1);
  for (int format = 0; format < 2; format++) {
    fp4moe_layer_desc d = desc_of((fp4moe_format)format, FP4MOE_PRECISION_F32, 1);
    random_layer *m = random_layer_new(&d, 1, NULL);
    fp4moe_layer *whole = open_layer(m, ctx, 1);
    for (size_t i = 1; i < COUNTS; i++) {
      fp4moe_layer *packed = open_layer(m, ctx, counts[i]), *copied = NULL;
      for (size_t e = 0; e < d.experts; e++) {
        check_split(packed, whole, e);
        uint8_t *again = aligned_alloc(64, whole->shape.bytes);
        fp4moe_layer_whole_record(packed, e, again);
        CHECK_SAME(again, fp4moe_layer_record(whole, 0, e), whole->shape.bytes, 1, "put together");
        free(again);
      }
      d.shards = counts[i];
      CHECK(!fp4moe_layer_begin(ctx, &d, &copied), "%s", fp4moe_error_detail());
      for (size_t e = 0; e < d.experts; e++)
        CHECK(!fp4moe_layer_set_record(copied, e, fp4moe_layer_record(whole, 0, e)), "%s",
              fp4moe_error_detail());
      for (size_t s = 0; s < counts[i]; s++)
        CHECK_SAME(copied->shard[s].records, packed->shard[s].records,
                   d.experts * packed->shard[s].shape.bytes, 1, "a copied record");
      CHECK(fp4moe_layer_set_record(copied, 0, fp4moe_layer_record(packed, 1, 0)) == FP4MOE_INVALID,
            "a shard's record for a whole one");
      fp4moe_layer_destroy(packed);
      fp4moe_layer_destroy(copied);
    }
    fp4moe_layer_destroy(whole);
    random_layer_free(m);
  }
  fp4moe_context_destroy(ctx);
}

static void refused(void) {
  fp4moe_context *ctx = context_of(1);
  fp4moe_layer_desc d = desc_of(FP4MOE_MXFP4, FP4MOE_PRECISION_F32, 1);
  random_layer *m = random_layer_new(&d, 1, NULL);
  fp4moe_layer *layer = open_layer(m, ctx, 1), *other = NULL;
  d.shards = FP4MOE_MAX_SHARDS + 1;
  REFUSED(fp4moe_layer_begin(ctx, &d, &other), FP4MOE_INVALID, "shards is 17");
  fp4moe_records r = {
      .struct_size = sizeof r, .data = layer->shard[0].records, .bytes = fp4moe_layer_bytes(layer)};
  d.shards = 2;
  REFUSED(fp4moe_layer_map(ctx, &d, &r, &other), FP4MOE_INVALID, "shards is 2");
  for (d.shards = 0; d.shards < 2; d.shards++) {
    CHECK(!fp4moe_layer_map(ctx, &d, &r, &other), "%s", fp4moe_error_detail());
    CHECK(other->shards == 1, "%zu shards", other->shards);
    fp4moe_layer_destroy(other);
  }
  fp4moe_layer_destroy(layer);
  random_layer_free(m);
  fp4moe_context_destroy(ctx);
}

/* ---- Nodes ---- */

static void homes(void) {
  fp4moe_layer layer = {.shards = 4};
  static const int node[] = {0, 0, 5, 5};
  for (int s = 0; s < 4; s++) layer.shard[s].node = node[s];
  for (size_t worker = 0; worker < 9; worker++) {
    size_t near = fp4moe_shards_home(&layer, 0, worker),
           far = fp4moe_shards_home(&layer, 5, worker);
    CHECK(near < 2 && far >= 2 && far < 4, "worker %zu: %zu, %zu", worker, near, far);
    CHECK(fp4moe_shards_home(&layer, 7, worker) == worker % 4, "worker %zu of no node", worker);
  }
  CHECK(fp4moe_shards_home(&layer, 5, 2) != fp4moe_shards_home(&layer, 5, 3), "both on one");
}

static void *plain_allocate(void *user, size_t bytes, size_t alignment) {
  (void)user;
  return aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

static void plain_release(void *user, void *memory, size_t bytes) {
  (void)user, (void)bytes;
  free(memory);
}

/* Packed pages are all there, on the nodes that were asked for while these have room; a caller's
 * allocator is asked for nothing. */
static void bytes_of_nodes(void) {
  fp4moe_layer_desc d = desc_of(FP4MOE_MXFP4, FP4MOE_PRECISION_F32, 1);
  random_layer *m = random_layer_new(&d, 0, NULL);
  for (int own = 0; own < 2; own++) {
    fp4moe_context *ctx =
        context_with((fp4moe_context_desc){.max_threads = 1,
                                           .allocate = own ? NULL : plain_allocate,
                                           .release = own ? NULL : plain_release});
    for (size_t shards = 0; shards <= 3; shards++) {
      fp4moe_layer *layer = open_layer(m, ctx, shards);
      fp4moe_node_bytes n[64];
      size_t count = 0, again = 0, asked = 0, there = 0, bound = 0;
      size_t want = shards ? shards : own && ctx->nodes ? ctx->nodes : 1;
      CHECK(layer->shards == want, "%zu shards of %zu", layer->shards, shards);
      CHECK(!fp4moe_layer_nodes(layer, n, 64, &count) && count <= 64, "%s", fp4moe_error_detail());
      CHECK(!fp4moe_layer_nodes(layer, NULL, 0, &again) && again == count, "count %zu", again);
      for (size_t i = 0; i < count; i++) {
        CHECK(!i || n[i].node > n[i - 1].node, "node %d out of order", n[i].node);
        asked += n[i].asked;
        there += n[i].there;
        if (n[i].node >= 0) bound += n[i].asked;
        if (n[i].node < 0 && fp4moe_numa_works())
          CHECK(n[i].there == 0, "%zu bytes nowhere", n[i].there);
      }
      size_t all = fp4moe_layer_bytes(layer);
      CHECK(asked == all && there == all, "%zu asked, %zu there of %zu", asked, there, all);
      int binds = layer->shards > 1 || (ctx->nodes == 1 && fp4moe_host_key(&ctx->host).nodes > 1);
      CHECK(bound == (own && ctx->nodes && binds ? all : 0), "%zu bound", bound);
      fp4moe_layer_destroy(layer);
    }
    fp4moe_context_destroy(ctx);
  }
  CHECK(fp4moe_layer_nodes(NULL, NULL, 0, &(size_t){0}) == FP4MOE_INVALID, "no layer");
  random_layer_free(m);
}

/* A shard of each node's size, of which every page is on the node that was asked. */
static void on_their_nodes(void) {
  fp4moe_layer_desc d = desc_of(FP4MOE_NVFP4, FP4MOE_PRECISION_F32, 1);
  fp4moe_context *ctx = context_of(0);
  if (ctx->nodes < 2) {
    check_skip("shards on their nodes", "one memory node");
  } else {
    random_layer *m = random_layer_new(&d, 0, NULL);
    fp4moe_layer *layer = open_layer(m, ctx, 0);
    fp4moe_node_bytes n[64];
    size_t count = 0;
    CHECK(layer->shards == ctx->nodes, "%zu shards on %zu nodes", layer->shards, ctx->nodes);
    CHECK(!fp4moe_layer_nodes(layer, n, 64, &count) && count == ctx->nodes, "%zu nodes", count);
    for (size_t i = 0; i < count && i < ctx->nodes; i++)
      CHECK(n[i].node == ctx->node[i] && n[i].asked && n[i].asked == n[i].there,
            "node %d: %zu bytes asked, %zu there", n[i].node, n[i].asked, n[i].there);
    fp4moe_layer_destroy(layer);
    random_layer_free(m);
  }
  fp4moe_context_destroy(ctx);
}

static void explained(void) {
  fp4moe_context *ctx = context_of(1);
  fp4moe_layer_desc d = desc_of(FP4MOE_MXFP4, FP4MOE_PRECISION_F32, 1);
  random_layer *m = random_layer_new(&d, 0, NULL);
  fp4moe_layer *layer = open_layer(m, ctx, 3);
  fp4moe_problem p = {sizeof p, 4, 1, 0};
  char text[16384], bytes[32];
  snprintf(bytes, sizeof bytes, "%zu bytes", fp4moe_layer_bytes(layer));
  for (p.json = 0; p.json < 2; p.json++) {
    CHECK(!fp4moe_layer_explain(layer, &p, text, sizeof text, NULL), "%s", fp4moe_error_detail());
    CHECK(strstr(text, "memory: 3 shards"), "no shards in: %.300s", text);
    if (ctx->nodes < 2) CHECK(strstr(text, bytes), "no \"%s\" in: %.300s", bytes, text);
  }
  fp4moe_layer_destroy(layer);
  random_layer_free(m);
  fp4moe_context_destroy(ctx);
}

void check_shards(void) {
  CU_pSuite s = check_suite("shards");
  check_test(s, "same bits for any shards", every_class);
  check_test(s, "a wide scale in one shard", wide_in_one_shard);
  check_test(s, "a linear in shards", linears);
  check_test(s, "records of shards", records);
  check_test(s, "refused shards", refused);
  check_test(s, "homes", homes);
  check_test(s, "bytes of nodes", bytes_of_nodes);
  check_test(s, "shards on their nodes", on_their_nodes);
  check_test(s, "explained shards", explained);
}
