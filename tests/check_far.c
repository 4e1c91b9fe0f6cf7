/* check_far.c - strides and offsets beyond 2^32 bytes, by address arithmetic: what is far apart
 * lies in sparse memory, of which only the touched pages exist.
 *
 * Every stride of every kernel, of a call and of a source of weights is made larger than 32 bits
 * hold, cut off to which it would lead to zeros. The bits must be those of the same data side by
 * side. A layer of more than 2^32 bytes is mapped out of records that are mostly holes; sizes that
 * no machine has are computed only. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "fp4.h"
#include "layer_fixture.h"

/* A multiple of 64, and of 64 floats; as an int of 32 bits it would be negative. */
static const size_t far = ((size_t)1 << 32) + ((size_t)1 << 31) + 4096;

enum { MAPS = 16 };
static struct {
  void *at;
  size_t bytes;
} maps[MAPS];
static size_t map_count;

/* Zeros, `far` and `bytes` long. */
static void *sparse(size_t bytes) {
  const int how = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void *at = mmap(NULL, far + bytes, PROT_READ | PROT_WRITE, how, -1, 0);
  if (at == MAP_FAILED || map_count == MAPS) abort();
  maps[map_count].at = at;
  maps[map_count++].bytes = far + bytes;
  return at;
}

static void release(void) {
  while (map_count--) munmap(maps[map_count].at, maps[map_count].bytes);
  map_count = 0;
}

/* `bytes` at `data` and `bytes` at data + near, put `far` apart. */
static void *apart(const void *data, size_t near, size_t bytes) {
  uint8_t *to = sparse(bytes);
  memcpy(to, data, bytes);
  memcpy(to + far, (const uint8_t *)data + near, bytes);
  return to;
}

static void *random_bytes(size_t bytes) {
  uint8_t *to = check_buffer(bytes, CHECK_AFTER);
  for (size_t i = 0; i < bytes; i++) to[i] = (uint8_t)check_random();
  return to;
}

static float *random_floats(size_t count) {
  float *to = check_buffer(count * sizeof *to, CHECK_AFTER);
  for (size_t i = 0; i < count; i++) to[i] = check_uniform(-2, 2);
  return to;
}

/* m rows of `count` floats, one or two: near, and far. */
static void same_rows(const float *got, const float *want, size_t m, size_t near, size_t count) {
  CHECK_SAME_FLOATS(got, want, count, "row 0");
  if (m == 1) return;
  CHECK_SAME_FLOATS(got + far / sizeof *got, want + near, count, "row 1, far away");
}

/* ---- Kernels: two rows, two panels ---- */

static void test_matmul(const fp4moe_kernel *row) {
  enum { K = 64, PANELS = 2, COLUMNS = 16 * PANELS };
  const fp4moe_format format = row->format == FP4MOE_NVFP4 ? FP4MOE_NVFP4 : FP4MOE_MXFP4;
  const fp4moe_act_class act = (fp4moe_act_class)row->act;
  const size_t group = format == FP4MOE_MXFP4 ? 32 : 16,
               scale_bytes = fp4_panel_scale_bytes(K, group);
  const size_t unpacked = fp4_unpacked_bytes(act, K, group);
  uint8_t *nibbles = random_bytes(PANELS * fp4_panel_bytes(K));
  uint8_t *scales = check_buffer(PANELS * scale_bytes, CHECK_AFTER);
  for (size_t i = 0; i < PANELS * scale_bytes; i++)
    scales[i] = (uint8_t)(format == FP4MOE_MXFP4 ? 120 + check_below(8) : 0x30 + check_below(8));
  const void *rows[2];
  for (size_t r = 0; r < 2; r++) {
    void *to = check_buffer(fp4_row_bytes(act, K), CHECK_AFTER);
    check_c_quant(row->act)->fn.quant(random_floats(K), FP4MOE_F32, K, to, 0, K, 1);
    rows[r] = to;
  }
  const size_t m = row->op == FP4MOE_OP_GEMV && row->mr == 1 ? 1 : 2;
  fp4moe_matmul t = {.m = m, .panels = PANELS, .k = K, .row_k = K, .rows = rows};
  t.weights = nibbles, t.weights_stride = fp4_panel_bytes(K);
  t.scales = scales, t.scales_stride = scale_bytes;
  if (row->op == FP4MOE_OP_GEMM) {
    uint8_t *panels = check_buffer(PANELS * unpacked, CHECK_AFTER);
    for (size_t p = 0; p < PANELS; p++)
      check_c_unpack((int)format, row->form)
          ->fn.unpack(nibbles + p * fp4_panel_bytes(K), scales + p * scale_bytes, K,
                      panels + p * unpacked);
    t.weights = panels, t.weights_stride = unpacked;
  }
  float *near = check_buffer(2 * COLUMNS * sizeof *near, CHECK_AFTER);
  t.acc = near, t.acc_stride = COLUMNS;
  row->fn.matmul(&t);
  t.weights = apart(t.weights, t.weights_stride, t.weights_stride), t.weights_stride = far;
  t.scales = apart(scales, scale_bytes, scale_bytes), t.scales_stride = far;
  t.acc = sparse(COLUMNS * sizeof *t.acc), t.acc_stride = far / sizeof *t.acc;
  row->fn.matmul(&t);
  same_rows(t.acc, near, m, COLUMNS, COLUMNS);
  release();
  CHECK_RELEASE();
}

static void test_act(const fp4moe_kernel *row) {
  const size_t from = row->gated ? 32 : 16;
  fp4moe_act_args a = {.m = 2, .panels = 1, .gate_scale = 1, .up_scale = 1, .alpha = 1.7f};
  a.beta = 1, a.limit = 7, a.linear_beta = 25;
  float *near = check_buffer(32 * sizeof *near, CHECK_AFTER);
  a.acc = random_floats(2 * from), a.acc_stride = from;
  a.h = near, a.h_stride = 16;
  row->fn.act(&a);
  a.acc = apart(a.acc, from * sizeof *a.acc, from * sizeof *a.acc);
  a.acc_stride = a.h_stride = far / sizeof *a.acc;
  a.h = sparse(16 * sizeof *a.h);
  row->fn.act(&a);
  same_rows(a.h, near, 2, 16, 16);
  release();
  CHECK_RELEASE();
}

static void test_combine(const fp4moe_kernel *row) {
  static const uint32_t index[2] = {1, 0};
  static const float weight[2] = {0.5f, 0.75f};
  fp4moe_combine_args a = {.m = 2, .panels = 1, .scale = 1.5f, .weight = weight, .index = index};
  float *near = random_floats(32);
  a.acc = random_floats(32), a.acc_stride = 16;
  a.y = apart(near, 16 * sizeof *near, 16 * sizeof *near), a.y_stride = far / sizeof *near;
  float *y = a.y;
  fp4moe_combine_args b = a;
  a.acc = apart(a.acc, 16 * sizeof *near, 16 * sizeof *near), a.acc_stride = far / sizeof *near;
  b.y = near, b.y_stride = 16;
  row->fn.combine(&a);
  row->fn.combine(&b);
  same_rows(y, near, 2, 16, 16);
  release();
  CHECK_RELEASE();
}

static void test_store(const fp4moe_kernel *row) {
  _Alignas(64) float got[16], want[16];
  const float *parts = random_floats(32);
  row->fn.store(16, 2, parts, 16, FP4MOE_F32, 0, want);
  row->fn.store(16, 2, apart(parts, sizeof got, sizeof got), far / sizeof *got, FP4MOE_F32, 0, got);
  CHECK_SAME_FLOATS(got, want, 16, "partials far apart");
  release();
  CHECK_RELEASE();
}

/* ---- Calls: two tokens ---- */

enum { EXPERTS = 2, TOP_K = 2 };

static fp4moe_layer_desc desc_of(const class_word *w) { return class_desc(w, 96, 64, EXPERTS); }

static void far_batch(fp4moe_layer *layer, const problem *p) {
  fp4moe_batch b = batch_of(p);
  const size_t h = p->hidden;
  CHECK(!run(layer, &b), "%s", fp4moe_error_detail());
  b.x = apart(p->x, h * sizeof *p->x, h * sizeof *p->x);
  b.y = sparse(h * sizeof *p->y);
  b.topk_ids = apart(p->ids, TOP_K * sizeof *p->ids, TOP_K * sizeof *p->ids);
  b.topk_weights = apart(p->weights, TOP_K * sizeof *p->weights, TOP_K * sizeof *p->weights);
  b.x_stride = b.y_stride = b.ids_stride = b.weights_stride = far;
  CHECK(!run(layer, &b), "%s", fp4moe_error_detail());
  same_rows(b.y, p->y, 2, h, h);
}

/* A row for each expert: grouped, far apart; in blocks that are. */
static void far_rows(fp4moe_layer *layer, const problem *p) {
  const size_t h = p->hidden;
  int64_t offsets[EXPERTS + 1] = {0, 1, 2};
  const int32_t counts[EXPERTS] = {1, 1};
  float near[2 * 96];
  fp4moe_rows in = {.struct_size = sizeof in, .rows = 2, .data = p->x, .expert_offsets = offsets};
  fp4moe_rows out = in;
  const fp4moe_limits l = {sizeof l, 2, 1, 0};
  const size_t bytes = fp4moe_workspace_bytes(layer, &l);
  void *workspace = malloc(bytes);
  out.data = near;
  CHECK(!fp4moe_experts(layer, &in, &out, NULL, workspace, bytes), "%s", fp4moe_error_detail());
  in.data = apart(p->x, h * sizeof *p->x, h * sizeof *p->x), in.stride = far;
  for (int batched = 0; batched < 2; batched++) {
    out.data = sparse(h * sizeof *p->x), out.stride = far;
    if (batched) {
      in.expert_offsets = NULL, in.expert_counts = counts;
      in.max_rows = out.max_rows = 1, in.stride = out.stride = 0;
      in.expert_stride = out.expert_stride = far;
    }
    CHECK(!fp4moe_experts(layer, &in, &out, NULL, workspace, bytes), "%s", fp4moe_error_detail());
    same_rows(out.data, near, 2, h, h);
  }
  free(workspace);
}

static void calls(void) {
  for (const class_word *w = class_words; w < class_words + CLASS_WORDS; w++) {
    const fp4moe_layer_desc d = desc_of(w);
    fixture f = set_up(2, &d, 1, 2, TOP_K, 0);
    far_batch(f.layer, &f.p);
    far_rows(f.layer, &f.p);
    release();
    tear_down(&f);
  }
}

/* Rows of ids, x and y, and then their slots, far apart. */
static void far_indexed(fp4moe_linear *linear, const problem *p, size_t n) {
  static const int32_t ids[2] = {0, 0};
  const size_t k = p->hidden;
  float near[2 * 96];
  const fp4moe_limits l = {sizeof l, 2, 1, 0};
  const size_t bytes = fp4moe_linear_workspace_bytes(linear, &l);
  void *workspace = malloc(bytes);
  fp4moe_indexed c = {.struct_size = sizeof c, .tokens = 2, .slots = 1, .x = p->x, .x_slots = 1};
  c.y = near, c.ids = ids, c.ids_dtype = FP4MOE_I32;
  CHECK(!fp4moe_matmul_indexed(linear, &c, NULL, workspace, bytes), "%s", fp4moe_error_detail());
  c.x = apart(p->x, k * sizeof *p->x, k * sizeof *p->x),
  c.ids = apart(ids, sizeof *ids, sizeof *ids);
  for (int slots = 0; slots < 2; slots++) {
    c.y = sparse(n * sizeof *near);
    c.tokens = slots ? 1 : 2, c.slots = c.x_slots = slots ? 2 : 1;
    c.x_token_stride = c.y_token_stride = c.id_token_stride = slots ? 0 : far;
    c.x_slot_stride = c.y_slot_stride = c.id_slot_stride = slots ? far : 0;
    if (slots) c.x_token_stride = c.y_token_stride = c.id_token_stride = 2 * far;
    CHECK(!fp4moe_matmul_indexed(linear, &c, NULL, workspace, bytes), "%s", fp4moe_error_detail());
    same_rows(c.y, near, 2, n, n);
  }
  free(workspace);
}

static void indexed(void) {
  fp4moe_context *ctx = context_of(2);
  const fp4moe_layer_desc d = desc_of(&class_words[CLASS_F32_MX]);
  random_layer *m = random_layer_new(&d, 1, NULL);
  problem p = draw(&d, 2, 1, 0);
  const fp4moe_linear_desc ld = {.n = 64, .k = 96, .experts = 1};
  const fp4moe_expert_weights w = random_layer_expert(m, 0);
  fp4moe_linear *linear = linear_of(ctx, ld, &w.up);
  far_indexed(linear, &p, ld.n);
  release();
  fp4moe_linear_destroy(linear);
  drop(&p);
  random_layer_free(m);
  fp4moe_context_destroy(ctx);
}

static void routing(void) {
  enum { IDS = 8 };
  float logits[2 * IDS], *far_logits, want_weights[2 * TOP_K];
  int32_t want_ids[2 * TOP_K];
  fp4moe_router router;
  for (size_t i = 0; i < 2 * IDS; i++) logits[i] = check_uniform(-3, 3);
  fp4moe_routing r = {.struct_size = sizeof r, .tokens = 2, .logits = logits};
  r.topk_ids = want_ids, r.ids_dtype = FP4MOE_I32, r.topk_weights = want_weights;
  CHECK(!fp4moe_router_preset("qwen3", IDS, TOP_K, &router) && !fp4moe_route(&router, &r), "%s",
        fp4moe_error_detail());
  r.logits = far_logits = apart(logits, IDS * sizeof *logits, IDS * sizeof *logits);
  int32_t *ids = r.topk_ids = sparse(TOP_K * sizeof *ids);
  r.topk_weights = sparse(TOP_K * sizeof(float));
  r.logits_stride = r.ids_stride = r.weights_stride = far;
  CHECK(!fp4moe_route(&router, &r), "%s", fp4moe_error_detail());
  CHECK_SAME(ids + far / sizeof *ids, want_ids + TOP_K, TOP_K, sizeof *ids, "ids, far away");
  same_rows(r.topk_weights, want_weights, 2, TOP_K, TOP_K);
  release();
}

/* ---- Weights ---- */

/* Source rows so far apart that the last are beyond 2^32 bytes. */
static void sources(void) {
  fp4moe_layer_desc d = desc_of(&class_words[CLASS_F32_MX]);
  const size_t step = (size_t)1 << 28;
  random_layer *m = random_layer_new(&d, 1, NULL);
  const size_t record = fp4moe_record_bytes(&d), n = m->n[1], codes = m->k[1] / 2,
               scales = m->k[1] / 32;
  fp4moe_expert_weights w = random_layer_expert(m, 0);
  uint8_t *near = check_buffer(record, CHECK_AFTER), *got = check_buffer(record, CHECK_AFTER);
  CHECK(!fp4moe_record_write(&d, &w, near), "%s", fp4moe_error_detail());
  uint8_t *to[3];
  for (int i = 0; i < 3; i++) to[i] = sparse(n * step);
  for (size_t r = 0; r < n; r++) {
    memcpy(to[0] + r * step, (const uint8_t *)w.up.codes + r * codes, codes);
    memcpy(to[1] + r * step, (const uint8_t *)w.up.scales + r * scales, scales);
    memcpy(to[2] + r * step, (const float *)w.up.bias + r, sizeof(float));
  }
  w.up.codes = to[0], w.up.scales = to[1], w.up.bias = to[2];
  w.up.codes_stride = w.up.scales_stride = w.up.bias_stride = step;
  CHECK(!fp4moe_record_write(&d, &w, got), "%s", fp4moe_error_detail());
  CHECK_SAME(got, near, record, 1, "rows far apart");
  release();
  CHECK_RELEASE();
  random_layer_free(m);
}

/* Records of more than 2^32 bytes, holes but for the headers and three experts. */
static void large_layer(void) {
  enum { HEADER = 128 };
  fp4moe_context *ctx = context_of(2);
  fp4moe_layer_desc d = desc_of(&class_words[CLASS_BF16_MX]);
  d.hidden = d.intermediate = 768, d.experts = 3;
  random_layer *m = random_layer_new(&d, 0, NULL);
  problem p = draw(&d, 6, 1, 0);
  fp4moe_layer *small = layer_of(m, ctx), *large = NULL;
  fp4moe_batch b = batch_of(&p);
  float *want = outputs(small, &b);
  const size_t each = fp4moe_record_bytes(&d);
  d.experts = ((size_t)1 << 32) / each + 100;
  const size_t where[3] = {0, ((size_t)1 << 31) / each + 1, d.experts - 1};
  uint8_t *records = sparse(0), *whole = whole_records(small);
  CHECK(far >= d.experts * each, "room for %zu records", d.experts);
  for (size_t e = 0; e < d.experts; e++) memcpy(records + e * each, whole, HEADER);
  for (size_t i = 0; i < 3; i++) memcpy(records + where[i] * each, whole + i * each, each);
  const fp4moe_records r = {.struct_size = sizeof r, .data = records, .bytes = d.experts * each};
  CHECK(!fp4moe_layer_map(ctx, &d, &r, &large), "%s", fp4moe_error_detail());
  for (size_t i = 0; i < p.tokens; i++) p.ids[i] = (int32_t)where[p.ids[i]];
  if (CHECK(large && fp4moe_layer_bytes(large) > UINT32_MAX, "%s", fp4moe_error_detail()))
    gives(large, &b, want, "experts beyond 2^32 bytes");
  fp4moe_layer_destroy(large);
  fp4moe_layer_destroy(small);
  release();
  free(want);
  free(whole);
  drop(&p);
  random_layer_free(m);
  fp4moe_context_destroy(ctx);
}

/* The largest that a desc and limits may ask for: computed, not made. */
static void sizes(void) {
  fp4moe_context *ctx = context_of(2);
  fp4moe_layer_desc d = desc_of(&class_words[CLASS_BF16_MX]), most = d;
  most.hidden = most.intermediate = (size_t)1 << 20;
  const size_t weights = 3 * (most.hidden * most.intermediate / 32 * 17),
               bytes = fp4moe_record_bytes(&most);
  CHECK(bytes >= weights && bytes < weights + weights / 1024, "%zu bytes for %zu of weights", bytes,
        weights);
  random_layer *m = random_layer_new(&d, 0, NULL);
  fp4moe_layer *layer = layer_of(m, ctx);
  const size_t tokens = (size_t)1 << 28, rows = 8 * tokens; /* 2^31 */
  const fp4moe_limits one = {sizeof one, tokens, 8, 0}, two = {sizeof two, 2 * tokens - 1, 8, 0};
  const size_t a = fp4moe_workspace_bytes(layer, &one), b = fp4moe_workspace_bytes(layer, &two);
  const size_t row = 2 * d.intermediate; /* BF16 of h */
  CHECK(a > rows * row && b > 2 * a - a / 64 && b < 2 * a, "%zu and %zu bytes for %zu rows", a, b,
        rows);
  fp4moe_layer_destroy(layer);
  random_layer_free(m);
  fp4moe_context_destroy(ctx);
}

void check_far(void) {
  CU_pSuite s = check_suite("far");
  check_rows(s, "far strides", FP4MOE_OP_GEMV, test_matmul);
  check_rows(s, "far strides", FP4MOE_OP_GEMM, test_matmul);
  check_rows(s, "far strides", FP4MOE_OP_ACT, test_act);
  check_rows(s, "far strides", FP4MOE_OP_COMBINE, test_combine);
  check_rows(s, "far strides", FP4MOE_OP_STORE, test_store);
  check_test(s, "tokens far apart", calls);
  check_test(s, "indexed rows far apart", indexed);
  check_test(s, "logits far apart", routing);
  check_test(s, "source rows far apart", sources);
  check_test(s, "a layer beyond 2^32 bytes", large_layer);
  check_test(s, "the largest sizes", sizes);
}
