/* check_oracle.c - selection: what explain says of it, overrides, bits that do not depend on the
 * batch, and a table that is replaced while layers run. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "layer_fixture.h"
#include "scratch.h"

static const fp4moe_activation silu = {FP4MOE_SILU, 1, 0, 0, 0, 0};

/* ---- Reports of a selector of our own ---- */

static fp4moe_host host;
static fp4moe_request request;
static fp4moe_recipe_entry entries[4];
static fp4moe_table table;
static char text[65536];

/* C kernels at 1 and 64 rows of (N, K) = (64, 96) and (96, 64), on two cores. */
static fp4moe_selector fresh(void) {
  memset(&request, 0, sizeof request);
  request.cap = (fp4moe_isa)(FP4MOE_ISAS - 1);
  fp4moe_host_read(&host);
  host.allowed_cores = host.threads = 2;
  memset(entries, 0, sizeof entries);
  for (int i = 0; i < 4; i++) {
    fp4moe_recipe_entry *e = &entries[i];
    *e = (fp4moe_recipe_entry){.phase = i / 2,
                               .format = FP4MOE_MXFP4,
                               .act = FP4MOE_ACT_BF16,
                               .gated = 1,
                               .bucket = i % 2 ? 6 : 0,
                               .n = i / 2 ? 64 : 192,
                               .k = i / 2 ? 96 : 64,
                               .cores = 2,
                               .ns = (uint64_t)(1001 + i),
                               .noise = 12300};
    e->recipe.panels = 2;
    if (i % 2) {
      e->recipe.unpack = check_kernel("fp4moe_unpack_mx_bf16_c");
      e->recipe.gemm = check_kernel("fp4moe_gemm_bf16_8x16_c");
    } else {
      e->recipe.gemv = check_kernel("fp4moe_gemv_mx_bf16_8x16_c");
    }
  }
  table = (fp4moe_table){.recipe = entries, .recipes = 4};
  fp4moe_table_sort(&table);
  return (fp4moe_selector){&host, &request, &table};
}

static fp4moe_layer_desc desc_of(size_t hidden, size_t intermediate) {
  return (fp4moe_layer_desc){.struct_size = sizeof(fp4moe_layer_desc),
                             .hidden = hidden,
                             .intermediate = intermediate,
                             .experts = 4,
                             .format = FP4MOE_MXFP4,
                             .precision = FP4MOE_PRECISION_BF16,
                             .activation = silu};
}

static const char *report(const fp4moe_selector *s, const fp4moe_layer_desc *d, size_t tokens,
                          int json) {
  fp4moe_problem p = {sizeof p, tokens, 2, json};
  fp4moe_text out = {text, sizeof text, 0};
  fp4moe_status status = fp4moe_report(s, d, &p, "", NULL, &out);
  CHECK(!status, "%s", fp4moe_error_detail());
  return text;
}

#define SAYS(report, part) CHECK(strstr(report, part) != NULL, "no \"%s\" in: %.900s", part, text)

static void names_keys_and_costs(void) {
  fp4moe_selector s = fresh();
  fp4moe_layer_desc d = desc_of(64, 96);
  const char *at = report(&s, &d, 1, 0);
  SAYS(at, "fp4moe_gemv_mx_bf16_8x16_c, 2 panels, prefetch 0 (table, exact shape)");
  SAYS(at, "phase=gate_up format=mxfp4 class=bf16 n=192 k=64 gated=1 rows=1 cores=2");
  SAYS(at, "phase=down format=mxfp4 class=bf16 n=64 k=96 gated=1 rows=1 cores=2");
  SAYS(at, "selected, gate_up 1001 ns +-1.2%, down 1003 ns +-1.2%");
  CHECK(!strstr(at, "tune this shape"), "a tuned shape is to be tuned");
  at = report(&s, &d, 1, 1);
  SAYS(at,
       "\"source\":\"table, exact shape\",\"entry\":{\"n\":192,\"k\":64,\"cores\":2,\"ns\":1001,"
       "\"noise\":0.012300}");
  SAYS(at, "\"gate_up_ns\":1001,\"gate_up_noise\":0.012300");
  at = report(&s, &d, 8, 0); /* 4 rows: a bucket without entries */
  SAYS(at, "static order, which the table's tuner could not beat");
  table.partial_of = 1;
  SAYS(report(&s, &d, 8, 0), "(static order)");
}

/* A linear has one matmul, whose key is that of a layer's second; the tuner takes it by itself. */
static void names_linears(void) {
  fp4moe_selector s = fresh();
  fp4moe_layer_desc d = desc_of(64, 96), far = desc_of(50, 1024);
  d.activation = far.activation =
      (fp4moe_activation){.kind = (fp4moe_activation_kind)FP4MOE_LINEAR};
  for (size_t i = 0; i < table.recipes; i++) table.recipe[i].gated = 0;
  const char *at = report(&s, &d, 1, 0);
  SAYS(at, "2 panels, prefetch 0 (table, exact shape)");
  SAYS(at, "phase=down format=mxfp4 class=bf16 n=64 k=96 gated=0 rows=1 cores=2");
  CHECK(!strstr(at, "gate_up") && !strstr(at, "tune this"), "%.900s", at);
  SAYS(report(&s, &far, 1, 0),
       "tune this matrix here: fp4moe-autotune --linear 50x1024,mxfp4 --precision bf16");
}

/* A plan names the source of each bucket's recipe. */
static void plans_know_sources(void) {
  fp4moe_selector s = fresh();
  fp4moe_layer_desc d = desc_of(64, 96), other = desc_of(64, 128), far = desc_of(64, 1024);
  fp4moe_plan p;
  CHECK(!fp4moe_select(&s, &d, &p), "%s", fp4moe_error_detail());
  for (int phase = 0; phase < FP4MOE_PHASES; phase++)
    CHECK(p.source[phase][0] == FP4MOE_FROM_EXACT && p.source[phase][6] == FP4MOE_FROM_EXACT &&
              p.source[phase][3] == FP4MOE_FROM_PROVEN,
          "%s: %d %d %d", fp4moe_phase_name(phase), p.source[phase][0], p.source[phase][6],
          p.source[phase][3]);
  CHECK(!fp4moe_select(&s, &other, &p) && p.source[FP4MOE_DOWN][0] == FP4MOE_FROM_NEAREST &&
            !fp4moe_select(&s, &far, &p) && p.source[FP4MOE_DOWN][0] == FP4MOE_FROM_STATIC,
        "nearest or static: %d", p.source[FP4MOE_DOWN][0]);
  CHECK(!fp4moe_request_globs(&request, "fp4moe_gemv_mx_bf16_8x16_c", "kernels") &&
            !fp4moe_select(&s, &d, &p) && p.source[FP4MOE_DOWN][0] == FP4MOE_FROM_FORCED &&
            p.source[FP4MOE_DOWN][6] == FP4MOE_FROM_EXACT,
        "forced: %d, %d", p.source[FP4MOE_DOWN][0], p.source[FP4MOE_DOWN][6]);
  CHECK(!strcmp(fp4moe_source_name(FP4MOE_FROM_PROVEN), "proven"), "a name");
}

static void says_what_would_change(void) {
  fp4moe_selector s = fresh();
  fp4moe_layer_desc d = desc_of(64, 96), other = desc_of(64, 128), far = desc_of(64, 1024);
  SAYS(report(&s, &other, 1, 0), "table, nearest shape n=64 k=96");
  SAYS(text, "fp4moe-autotune --shape 64,128,4,2,mxfp4,silu --precision bf16");
  SAYS(report(&s, &far, 1, 0), "(static order)");
  SAYS(text, "tune this shape here");
  SAYS(report(&s, &other, 1, 1), "\"changes\":[\"tune this shape here");
  host.threads = 1;
  SAYS(report(&s, &d, 1, 0), "table, exact shape, nearest cores: of 2, 1 allowed here");
  SAYS(text, "the affinity mask allows 2 cores, with the CPU quota 1");
  host.threads = 2;
  s = fresh();
  request.cap = FP4MOE_ISA_c;
  SAYS(report(&s, &d, 16, 0), "from 17 rows per expert on (M >= 33): down by "
                              "fp4moe_unpack_mx_bf16_c + fp4moe_gemm_bf16_8x16_c");
}

static void says_what_forces(void) {
  fp4moe_selector s = fresh();
  fp4moe_layer_desc d = desc_of(64, 96);
  s.table = NULL;
  CHECK(!fp4moe_request_globs(&request, "*gemv*_c", "FP4MOE_KERNEL"), "%s", fp4moe_error_detail());
  report(&s, &d, 1, 0);
  if (fp4moe_cpu_best((fp4moe_isa)(FP4MOE_ISAS - 1)) == FP4MOE_ISA_c) return;
  SAYS(text, "FP4MOE_KERNEL \"*gemv*_c\" forces it; without: gate_up by fp4moe_gemv_mx_bf16");
  s = fresh();
  s.table = NULL;
  request.cap = FP4MOE_ISA_c;
  SAYS(report(&s, &d, 1, 0), "FP4MOE_CPU is c; without: gate_up by fp4moe_gemv_mx_bf16");
}

/* Without a table 17 to 32 rows go by a gemv where that is of AVX-512, unless gemms alone are
 * forced; more rows, and those of a lesser ISA, by a gemm. */
static void wide_rows(void) {
  static const char *const forced[] = {NULL, "fp4moe_gemm_*", "fp4moe_gem?_*"};
  fp4moe_layer_desc d = desc_of(64, 96);
  d.precision = FP4MOE_PRECISION_INT8;
  for (int cap = 0; cap < FP4MOE_ISAS; cap++)
    for (int i = 0; i < 3; i++) {
      fp4moe_selector s = fresh();
      fp4moe_plan p;
      s.table = NULL;
      request.cap = (fp4moe_isa)cap;
      CHECK(!forced[i] || !fp4moe_request_globs(&request, forced[i], "kernels"), "%s",
            fp4moe_error_detail());
      CHECK(!fp4moe_select(&s, &d, &p), "%s", fp4moe_error_detail());
      const fp4moe_recipe *r = p.recipe[FP4MOE_DOWN];
      int wide = fp4moe_is_wide(r[4].gemv) && i != 1;
      CHECK(!r[5].gemv == !wide && !r[6].gemv && r[4].gemv, "under %s, %s forced: 32 rows by %s",
            fp4moe_isa_name((fp4moe_isa)cap), forced[i] ? forced[i] : "nothing",
            r[5].gemv ? r[5].gemv->name : r[5].gemm->name);
    }
}

/* A kernel that is forced is used in its buckets, whatever the table prefers. */
static void forced_is_used(void) {
  fp4moe_selector s = fresh();
  fp4moe_layer_desc d = desc_of(64, 96);
  fp4moe_plan plan;
  for (int i = 0; i < 4; i++) entries[i].bucket = 6 * !entries[i].bucket; /* the other way round */
  fp4moe_table_sort(&table);
  CHECK(!fp4moe_request_globs(&request, "*gemm*bf16*_c", "x") && !fp4moe_select(&s, &d, &plan),
        "%s", fp4moe_error_detail());
  CHECK(plan.recipe[FP4MOE_DOWN][6].gemm == check_kernel("fp4moe_gemm_bf16_8x16_c"),
        "no gemm at 64 rows");
  s = fresh();
  for (int i = 0; i < 4; i++) entries[i].bucket = 6 * !entries[i].bucket;
  fp4moe_table_sort(&table);
  CHECK(!fp4moe_request_globs(&request, "*gemv*bf16*_c", "x") && !fp4moe_select(&s, &d, &plan),
        "%s", fp4moe_error_detail());
  CHECK(plan.recipe[FP4MOE_DOWN][0].gemv == check_kernel("fp4moe_gemv_mx_bf16_8x16_c"),
        "no gemv at 1 row");
}

/* Each glob must have a kernel that can serve; the others do not excuse it. */
static void idle_globs(void) {
  fp4moe_selector s = fresh();
  fp4moe_layer_desc d = desc_of(64, 96);
  fp4moe_plan plan;
  CHECK(!fp4moe_request_globs(&request, "*gemv_mx*_c,*gemv_nv*", "FP4MOE_KERNEL"), "%s",
        fp4moe_error_detail());
  REFUSED(
      fp4moe_select(&s, &d, &plan), FP4MOE_UNSUPPORTED,
      "FP4MOE_KERNEL: \"*gemv_nv*\" matches no kernel that can serve this layer here; these can: "
      "fp4moe_gemv_mx_bf16");
}

static void tuned_modes(void) {
  fp4moe_selector s = fresh();
  fp4moe_layer_desc d = desc_of(64, 96), other = desc_of(64, 128);
  fp4moe_plan plan;
  request.tuned = FP4MOE_TUNED_REQUIRE;
  CHECK(!fp4moe_select(&s, &d, &plan), "%s", fp4moe_error_detail());
  REFUSED(
      fp4moe_select(&s, &other, &plan), FP4MOE_UNSUPPORTED,
      "none for exactly phase=gate_up format=mxfp4 class=bf16 n=256 k=64 gated=1 rows=1 cores=2");
  host.threads = 1;
  REFUSED(fp4moe_select(&s, &d, &plan), FP4MOE_UNSUPPORTED, "cores=1");
  s.table = NULL;
  REFUSED(fp4moe_select(&s, &d, &plan), FP4MOE_UNSUPPORTED, "the table (none)");
}

/* ---- Overrides of a context ---- */

static fp4moe_status create(fp4moe_tuned tuned, const char *path) {
  fp4moe_context_desc desc = {.struct_size = sizeof desc, .tuned = tuned, .table = path};
  fp4moe_context *ctx = NULL;
  fp4moe_status status = fp4moe_context_create(&desc, &ctx);
  fp4moe_context_destroy(ctx);
  return status;
}

static void fields_and_environment(void) {
  char *old = check_variable("FP4MOE_TABLE", NULL);
  REFUSED(create((fp4moe_tuned)4, NULL), FP4MOE_INVALID, "tuned is 4");
  REFUSED(create(FP4MOE_TUNED_OFF, "/t"), FP4MOE_INVALID, "tuned is off, and the table is \"/t\"");
  setenv("FP4MOE_TUNED", "off", 1);
  CHECK(!create(FP4MOE_TUNED_DEFAULT, NULL), "%s", fp4moe_error_detail());
  REFUSED(create(FP4MOE_TUNED_DEFAULT, "/t"), FP4MOE_INVALID, "FP4MOE_TUNED is off");
  REFUSED(create(FP4MOE_TUNED_USE, "/t"), FP4MOE_SYSTEM, "/t"); /* the field stands above */
  setenv("FP4MOE_TABLE", "/t", 1);
  REFUSED(create(FP4MOE_TUNED_DEFAULT, NULL), FP4MOE_INVALID, "the table is \"/t\"");
  unsetenv("FP4MOE_TUNED");
  CHECK(!create(FP4MOE_TUNED_OFF, NULL), "a field against a variable: %s", fp4moe_error_detail());
  setenv("FP4MOE_TABLE", "none", 1);
  setenv("FP4MOE_TUNED", "require", 1);
  REFUSED(create(FP4MOE_TUNED_DEFAULT, NULL), FP4MOE_INVALID, "FP4MOE_TUNED is require");
  unsetenv("FP4MOE_TUNED");
  free(check_variable("FP4MOE_TABLE", old));
  free(old);
}

/* ---- batch_invariant ---- */

static const struct variant {
  fp4moe_format format;
  fp4moe_precision precision;
  fp4moe_input_global global;
  int wide; /* E8M0 bytes outside the foldable range */
} variants[] = {{FP4MOE_MXFP4, FP4MOE_PRECISION_F32, 0, 0},
                {FP4MOE_NVFP4, FP4MOE_PRECISION_F32, 0, 0},
                {FP4MOE_MXFP4, FP4MOE_PRECISION_BF16, 0, 0},
                {FP4MOE_MXFP4, FP4MOE_PRECISION_BF16, 0, 1},
                {FP4MOE_NVFP4, FP4MOE_PRECISION_BF16, 0, 0},
                {FP4MOE_MXFP4, FP4MOE_PRECISION_INT8, 0, 0},
                {FP4MOE_NVFP4, FP4MOE_PRECISION_INT8, 0, 0},
                {FP4MOE_MXFP4, FP4MOE_PRECISION_MXFP8, 0, 0},
                {FP4MOE_NVFP4, FP4MOE_PRECISION_NVFP4, FP4MOE_GLOBAL_LAYER, 0},
                {FP4MOE_NVFP4, FP4MOE_PRECISION_NVFP4, FP4MOE_GLOBAL_EXPERT, 0},
                {FP4MOE_NVFP4, FP4MOE_PRECISION_NVFP4, FP4MOE_GLOBAL_TOKEN, 0}};

static uint8_t wide_scale(const random_layer *m, int projection, size_t block) {
  (void)m;
  return projection && block % 5 == 3 ? 1 : 121;
}

/* Alone few of the experts are active, among 512 all of them; I is enough to be cut along K. */
static random_layer *invariant_layer(const struct variant *v) {
  fp4moe_layer_desc d = desc_of(96, 1056);
  float scale = v->precision == FP4MOE_PRECISION_NVFP4 && v->global == FP4MOE_GLOBAL_LAYER;
  d.experts = 24;
  d.format = v->format;
  d.precision = v->precision;
  d.input_global = v->global;
  d.input_scale_gate_up = d.input_scale_down = scale / 512;
  return random_layer_new(&d, 1, v->wide ? wide_scale : NULL);
}

static fp4moe_context *invariant_context(const char *kernels, int batch_invariant) {
  return context_with((fp4moe_context_desc){
      .max_threads = 4, .kernels = kernels, .batch_invariant = batch_invariant});
}

/* Token `token` of `all`, among n - 1 others of it: rows of y that differ from those of all. */
static size_t differing(fp4moe_layer *layer, const problem *all, size_t token, size_t n,
                        size_t threads) {
  problem p = draw(&layer->desc, n, all->top_k, 0);
  size_t h = all->hidden, k = all->top_k, from[8], bad = 0;
  for (size_t i = 0; i < n; i++) {
    from[i] = i == n / 2 ? token : check_below(all->tokens);
    memcpy(p.x + i * h, all->x + from[i] * h, h * sizeof *p.x);
    memcpy(p.ids + i * k, all->ids + from[i] * k, k * sizeof *p.ids);
    memcpy(p.weights + i * k, all->weights + from[i] * k, k * sizeof *p.weights);
  }
  fp4moe_batch b = batch_of(&p);
  b.threads = threads;
  CHECK(!run(layer, &b), "%s", fp4moe_error_detail());
  for (size_t i = 0; i < n; i++)
    bad += memcmp(p.y + i * h, all->y + from[i] * h, h * sizeof *p.y) != 0;
  drop(&p);
  return bad;
}

/* Rows that differ, alone and among 7, from the same among 512. */
static size_t variance(const struct variant *v, fp4moe_context *ctx) {
  random_layer *m = invariant_layer(v);
  fp4moe_layer *layer = layer_of(m, ctx);
  problem all = draw(&m->desc, 512, 3, 0);
  fp4moe_batch b = batch_of(&all);
  size_t bad = 0;
  CHECK(!run(layer, &b), "%s", fp4moe_error_detail());
  for (size_t threads = 1; threads <= 4; threads++)
    for (int i = 0; i < 3; i++) {
      size_t token = check_below(all.tokens);
      bad += differing(layer, &all, token, 1, threads);
      bad += differing(layer, &all, token, 7, threads);
    }
  fp4moe_layer_destroy(layer);
  drop(&all);
  random_layer_free(m);
  return bad;
}

static void bits_and_batches(void) {
  static const char *const kernels[] = {NULL, "*gemm*"};
  size_t without = 0;
  for (size_t k = 0; k < 2; k++) {
    fp4moe_context *ctx = invariant_context(kernels[k], 1);
    for (size_t i = 0; i < sizeof variants / sizeof *variants; i++) {
      size_t bad = variance(&variants[i], ctx);
      CHECK(!bad, "variant %zu, kernels %s: %zu rows differ", i, kernels[k] ? kernels[k] : "any",
            bad);
    }
    fp4moe_context_destroy(ctx);
  }
  fp4moe_context *ctx = invariant_context(NULL, 0);
  without = variance(&variants[2], ctx) + variance(&variants[5], ctx);
  CHECK(without != 0, "the test would not see rows that depend on the batch");
  fp4moe_context_destroy(ctx);
}

static int same_order(const fp4moe_recipe *a, const fp4moe_recipe *b) {
  return fp4moe_same_kernels(a, b) && a->k_block == b->k_block;
}

/* One recipe for every m, of the table too, and the price of it in the report. */
static void one_order(void) {
  fp4moe_selector s = fresh();
  fp4moe_layer_desc d = desc_of(64, 96);
  fp4moe_plan plan;
  request.batch_invariant = 1;
  CHECK(!fp4moe_select(&s, &d, &plan), "%s", fp4moe_error_detail());
  for (int i = 0; i < FP4MOE_PHASES * FP4MOE_BUCKETS; i++)
    CHECK(same_order(&plan.recipe[i % 2][i / 2], &plan.recipe[i % 2][0]), "bucket %d", i / 2);
  CHECK(plan.recipe[0][7].gemv == check_kernel("fp4moe_gemv_mx_bf16_8x16_c"), "not the table's");
  report(&s, &d, 200, 0);
  const char *line = strstr(text, "  fp4moe_gemm_bf16_8x16_c ");
  CHECK(line && strstr(line, "refused: summation order differs: batch_invariant") ==
                    line + strcspn(line, ":") - strlen("refused"),
        "%.200s", line ? line : "no line");
  SAYS(text, "batch_invariant admits one summation order; without: gate_up by");
  d.precision = FP4MOE_PRECISION_INT8;
  report(&s, &d, 200, 0);
  CHECK(!strstr(text, "summation order"), "class i8 has one order: %.900s", text);
}

/* ---- A run in fewer cores than the table's ---- */

static char paths[2][80];

static void open_files(void) {
  scratch_open();
  for (int i = 0; i < 2; i++) snprintf(paths[i], sizeof paths[i], "%s/table%d", scratch, i);
}

static void within_taskset(void) {
  cpu_set_t all, one;
  fp4moe_isa isa = fp4moe_cpu_best((fp4moe_isa)(FP4MOE_ISAS - 1));
  fp4moe_layer_desc d = desc_of(64, 96);
  fp4moe_problem p = {sizeof p, 1, 2, 0};
  fresh();
  open_files();
  fp4moe_host_read(&host);
  if (host.threads < 2) check_skip("within taskset", "one core is allowed");
  CHECK(!sched_getaffinity(0, sizeof all, &all), "sched_getaffinity");
  CPU_ZERO(&one);
  CPU_SET((size_t)host.core_pu[0], &one);
  CHECK(!fp4moe_table_save(paths[0], &host, isa, &table), "%s", fp4moe_error_detail());
  sched_setaffinity(0, sizeof one, &one);
  fp4moe_context *ctx = context_with((fp4moe_context_desc){.table = paths[0]});
  CHECK(!fp4moe_explain(ctx, &d, &p, text, sizeof text, NULL), "%s", fp4moe_error_detail());
  SAYS(text, "exact shape, nearest cores: of 2, 1 allowed here");
  SAYS(text, "rows=1 cores=1");
  sched_setaffinity(0, sizeof all, &all);
  fp4moe_context_destroy(ctx);
  scratch_close();
}

/* ---- Reload and replan beside calls ---- */

typedef struct {
  fp4moe_context *ctx;
  fp4moe_layer *layer;
  const problem *all;
  size_t workspace_bytes;
  atomic_int stop;
  atomic_size_t calls, bad, loads, failed;
} traffic;

/* Class int8: every plan gives the same bits, a torn one would not. */
static void *calls(void *arg) {
  traffic *t = arg;
  problem p = *t->all;
  fp4moe_batch b = batch_of(&p);
  size_t bytes = p.tokens * p.hidden * sizeof(float);
  void *workspace = malloc(t->workspace_bytes);
  b.y = malloc(bytes);
  for (int i = 0; i < 30; i++) {
    if (fp4moe_layer_forward(t->layer, &b, workspace, t->workspace_bytes) ||
        memcmp(b.y, t->all->y, bytes))
      atomic_fetch_add(&t->bad, 1);
    atomic_fetch_add(&t->calls, 1);
  }
  free(b.y);
  free(workspace);
  return NULL;
}

static void *loads(void *arg) {
  traffic *t = arg;
  while (!atomic_load(&t->stop)) {
    size_t i = atomic_fetch_add(&t->loads, 1);
    if (fp4moe_context_reload_table(t->ctx, paths[i % 2]) || fp4moe_layer_replan(t->layer))
      atomic_fetch_add(&t->failed, 1);
  }
  return NULL;
}

static void *explains(void *arg) {
  traffic *t = arg;
  fp4moe_problem p = {sizeof p, 3, 2, 1};
  char *own = malloc(1 << 16);
  while (!atomic_load(&t->stop))
    if (fp4moe_layer_explain(t->layer, &p, own, 1 << 16, NULL) ||
        fp4moe_context_table(t->ctx, own, 1 << 16, NULL))
      atomic_fetch_add(&t->failed, 1);
  free(own);
  return NULL;
}

/* Two tables that differ in every recipe of the layer. */
static void save_two(const fp4moe_layer_desc *d) {
  fp4moe_isa isa = fp4moe_cpu_best((fp4moe_isa)(FP4MOE_ISAS - 1));
  fp4moe_recipe_entry e[FP4MOE_PHASES * FP4MOE_BUCKETS];
  fp4moe_host_read(&host);
  for (uint32_t which = 0; which < 2; which++) {
    memset(e, 0, sizeof e);
    fp4moe_table t = {.recipe = e, .recipes = sizeof e / sizeof *e};
    for (int i = 0; i < FP4MOE_PHASES * FP4MOE_BUCKETS; i++) {
      e[i] = (fp4moe_recipe_entry){.phase = i % 2,
                                   .format = FP4MOE_MXFP4,
                                   .act = FP4MOE_ACT_I8,
                                   .gated = 1,
                                   .bucket = i / 2,
                                   .cores = host.threads,
                                   .ns = 1};
      fp4moe_phase_shape(d, i % 2, &e[i].n, &e[i].k);
      e[i].recipe.panels = 2 + 2 * which;
      if (which) {
        e[i].recipe.gemv = check_kernel("fp4moe_gemv_mx_i8_8x16_c");
      } else {
        e[i].recipe.unpack = check_kernel("fp4moe_unpack_mx_i8_c");
        e[i].recipe.gemm = check_kernel("fp4moe_gemm_mx_i8_8x16_c");
      }
    }
    CHECK(!fp4moe_table_save(paths[which], &host, isa, &t), "%s", fp4moe_error_detail());
  }
}

static size_t largest_workspace(traffic *t) {
  fp4moe_limits l = {sizeof l, t->all->tokens, t->all->top_k, 0};
  size_t most = 0;
  for (int i = 0; i < 2; i++) {
    CHECK(!fp4moe_context_reload_table(t->ctx, paths[i]) && !fp4moe_layer_replan(t->layer), "%s",
          fp4moe_error_detail());
    size_t bytes = fp4moe_workspace_bytes(t->layer, &l);
    if (bytes > most) most = bytes;
  }
  return most;
}

static void reload_while_calling(void) {
  enum { CALLERS = 3, LOADERS = 2, THREADS = CALLERS + LOADERS + 1 };
  pthread_t threads[THREADS];
  fp4moe_layer_desc d = desc_of(64, 96);
  d.precision = FP4MOE_PRECISION_INT8;
  open_files();
  save_two(&d);
  fixture f = set_up(2, &d, 0, 20, 2, 0);
  fp4moe_batch b = batch_of(&f.p);
  traffic t = {.ctx = f.ctx, .layer = f.layer, .all = &f.p};
  CHECK(!run(t.layer, &b), "%s", fp4moe_error_detail());
  t.workspace_bytes = largest_workspace(&t);
  for (int i = 0; i < THREADS; i++)
    pthread_create(&threads[i], NULL, i < CALLERS ? calls : i + 1 < THREADS ? loads : explains, &t);
  for (int i = 0; i < CALLERS; i++) pthread_join(threads[i], NULL);
  atomic_store(&t.stop, 1);
  for (int i = CALLERS; i < THREADS; i++) pthread_join(threads[i], NULL);
  CHECK(t.calls == 30 * CALLERS && !t.bad, "%zu calls, %zu differ or failed", (size_t)t.calls,
        (size_t)t.bad);
  CHECK(t.loads && !t.failed, "%zu reloads, %zu failed", (size_t)t.loads, (size_t)t.failed);
  tear_down(&f);
  scratch_close();
}

/* A layer that was not replanned says so. */
static void stale_plan(void) {
  fp4moe_layer_desc d = desc_of(64, 96);
  fp4moe_problem p = {sizeof p, 3, 2, 0};
  fp4moe_layer *layer = NULL;
  d.precision = FP4MOE_PRECISION_INT8;
  open_files();
  save_two(&d);
  fp4moe_context *ctx = context_of(1);
  random_layer *m = random_layer_new(&d, 0, NULL);
  CHECK(!fp4moe_context_reload_table(ctx, paths[0]) && !random_layer_open(m, ctx, &layer), "%s",
        fp4moe_error_detail());
  const fp4moe_plan *first = fp4moe_layer_plan(layer);
  for (int replanned = 0; replanned < 2; replanned++) {
    CHECK(!fp4moe_context_reload_table(ctx, paths[1]), "%s", fp4moe_error_detail());
    if (replanned) CHECK(!fp4moe_layer_replan(layer), "%s", fp4moe_error_detail());
    CHECK(!fp4moe_layer_explain(layer, &p, text, sizeof text, NULL), "%s", fp4moe_error_detail());
    CHECK((strstr(text, "the layer still runs") == NULL) == replanned, "replanned %d: %s",
          replanned, text);
  }
  CHECK(!fp4moe_context_reload_table(ctx, paths[0]) && !fp4moe_layer_replan(layer) &&
            fp4moe_layer_plan(layer) == first,
        "an earlier plan is not found again");
  fp4moe_layer_destroy(layer);
  fp4moe_context_destroy(ctx);
  random_layer_free(m);
  scratch_close();
}

/* A context reads its table again when the caller's string is long gone. */
static void path_is_kept(void) {
  char given[] = "/proc/self/cmdline"; /* no table, and refused */
  const fp4moe_context_desc desc = {.struct_size = sizeof desc, .table = given};
  fp4moe_context *ctx = NULL;
  CHECK(!fp4moe_context_create(&desc, &ctx), "%s", fp4moe_error_detail());
  memset(given, 'x', sizeof given - 1);
  CHECK(!fp4moe_context_reload_table(ctx, NULL), "%s", fp4moe_error_detail());
  fp4moe_context_destroy(ctx);
}

void check_oracle(void) {
  CU_pSuite s = check_suite("oracle");
  check_test(s, "keys and costs", names_keys_and_costs);
  check_test(s, "linears", names_linears);
  check_test(s, "plans know the sources of their recipes", plans_know_sources);
  check_test(s, "what would change", says_what_would_change);
  check_test(s, "what forces", says_what_forces);
  check_test(s, "wide rows", wide_rows);
  check_test(s, "forced is used", forced_is_used);
  check_test(s, "idle globs", idle_globs);
  check_test(s, "tuned modes", tuned_modes);
  check_test(s, "fields and environment", fields_and_environment);
  check_test(s, "bits and batches", bits_and_batches);
  check_test(s, "one order", one_order);
  check_test(s, "within taskset", within_taskset);
  check_test(s, "reload while calling", reload_while_calling);
  check_test(s, "stale plan", stale_plan);
  check_test(s, "path is kept", path_is_kept);
}
