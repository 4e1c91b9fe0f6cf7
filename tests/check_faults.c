/* check_faults.c - the core library where an allocation, a thread or a call on a file fails once
 * (faults.h).
 *
 * The life of a context is a list of steps. Where the n-th allocation fails, one step says
 * NO_MEMORY and names what it was for; taken again it succeeds, and all outputs have the bits that
 * they have without the fault: a call that fails changes nothing. At the end nothing is held. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "faults.h"
#include "layer_call.h"
#include "status.h"
#include "table_file.h"

enum { HIDDEN = 64, INTERMEDIATE = 96, EXPERTS = 4, TOKENS = 5, TOP_K = 2, PAIRS = TOKENS * TOP_K };
enum { OUTPUTS = 5, WORKSPACE = 1 << 21, ENTRIES = 140, TEXT = 1 << 16 };

/* ---- A table that grows more than once while it is read ---- */

/* The first recipes are the layer's, by a C row that the static order does not choose. */
static fp4moe_table sample(fp4moe_recipe_entry *recipe, fp4moe_schedule_entry *schedule) {
  for (size_t i = 0; i < ENTRIES; i++) {
    size_t other = i / (FP4MOE_PHASES * FP4MOE_BUCKETS) * 32;
    recipe[i] = (fp4moe_recipe_entry){
        .phase = (int)(i % 2),
        .format = FP4MOE_MXFP4,
        .act = FP4MOE_ACT_I8,
        .gated = 1,
        .bucket = (int)(i / 2 % FP4MOE_BUCKETS),
        .n = (i % 2 ? HIDDEN : 2 * INTERMEDIATE) + other,
        .k = i % 2 ? INTERMEDIATE : HIDDEN,
        .cores = table_host.threads,
        .ns = 1,
        .recipe = {.gemv = check_kernel("fp4moe_gemv_mx_i8_8x16_c"), .panels = 2}};
    schedule[i] = (fp4moe_schedule_entry){.format = FP4MOE_MXFP4,
                                          .act = FP4MOE_ACT_I8,
                                          .hidden = HIDDEN + 32 * (i + 1),
                                          .intermediate = INTERMEDIATE,
                                          .ns = 1,
                                          .schedule = {0, 2, 1, 2}};
  }
  return (fp4moe_table){
      .recipe = recipe, .recipes = ENTRIES, .schedule = schedule, .schedules = ENTRIES};
}

static fp4moe_recipe_entry recipes[ENTRIES];
static fp4moe_schedule_entry schedules[ENTRIES];
static fp4moe_table table;

static fp4moe_status save_table(void) {
  return fp4moe_table_save(table_path, &table_host, table_isa, &table);
}

static fp4moe_status load_table(void) {
  fp4moe_table *read = NULL;
  fp4moe_status status = fp4moe_table_load(table_path, &table_host, table_isa, &read);
  size_t entries = status || read->refused ? 0 : read->recipes + read->schedules;
  int refused = !status && read->refused;
  fp4moe_table_free(read);
  if (status || refused || entries == table.recipes + table.schedules)
    return refused ? FP4MOE_UNSUPPORTED : status;
  return fp4moe_fail(FP4MOE_INVALID, "%zu entries, no refusal", entries);
}

/* ---- A life ---- */

static struct {
  random_layer *weights;
  problem call;
  float *logits, *rows, *outputs[OUTPUTS], *y[OUTPUTS]; /* y: without a fault */
  int32_t ids[PAIRS];                                   /* routed */
  float router_weights[PAIRS];
  int64_t pairs[PAIRS], offsets[EXPERTS + 1];
  uint8_t *records;
  size_t used;
  void *workspace;
  char text[TEXT];
  int own_allocator;
  size_t threads, shards, set; /* set: experts so far */
  fp4moe_context *ctx;
  fp4moe_layer *layer, *mapped;
  fp4moe_linear *linear;
} life;

static void *give(void *user, size_t bytes, size_t alignment) {
  (void)user;
  return faults_allocate(FAULT_ALLOCATE, alignment,
                         (bytes + alignment - 1) / alignment * alignment);
}
static void take(void *user, void *memory, size_t bytes) {
  (void)user, (void)bytes;
  faults_free(memory);
}

static fp4moe_status create(void) {
  fp4moe_context_desc d = {.struct_size = sizeof d, .max_threads = life.threads};
  if (life.own_allocator) d.allocate = give, d.release = take;
  return fp4moe_context_create(&d, &life.ctx);
}
static fp4moe_status begin(void) {
  fp4moe_layer_desc d = life.weights->desc;
  d.shards = life.shards;
  return fp4moe_layer_begin(life.ctx, &d, &life.layer);
}
/* Goes on with the expert that failed. */
static fp4moe_status set(void) {
  for (; life.set < EXPERTS; life.set++) {
    fp4moe_expert_weights w = random_layer_expert(life.weights, life.set);
    fp4moe_status status = fp4moe_layer_set_expert(life.layer, life.set, &w);
    if (status) return status;
  }
  return FP4MOE_OK;
}
static fp4moe_status finish(void) { return fp4moe_layer_finish(life.layer); }
static fp4moe_status reload(void) { return fp4moe_context_reload_table(life.ctx, table_path); }
static fp4moe_status replan(void) { return fp4moe_layer_replan(life.layer); }
static fp4moe_status explain(void) {
  fp4moe_problem p = {sizeof p, TOKENS, TOP_K, 1};
  fp4moe_status status = fp4moe_context_table(life.ctx, life.text, TEXT, NULL);
  return status ? status : fp4moe_layer_explain(life.layer, &p, life.text, TEXT, NULL);
}

static fp4moe_batch batch_to(int output) {
  fp4moe_batch b = batch_of(&life.call);
  b.y = life.outputs[output];
  return b;
}
static fp4moe_status forward(void) {
  fp4moe_batch b = batch_to(0);
  return fp4moe_layer_forward(life.layer, &b, life.workspace, WORKSPACE);
}
static fp4moe_status routed(void) {
  fp4moe_batch b = batch_to(1);
  fp4moe_router router;
  fp4moe_routing r = {.struct_size = sizeof r,
                      .tokens = TOKENS,
                      .logits = life.logits,
                      .topk_ids = life.ids,
                      .ids_dtype = FP4MOE_I32,
                      .topk_weights = life.router_weights};
  fp4moe_status status = fp4moe_router_preset("qwen3", EXPERTS, TOP_K, &router);
  if (status) return status;
  return fp4moe_layer_forward_routed(life.layer, &router, &r, &b, life.workspace, WORKSPACE);
}

static fp4moe_rows rows_of(float *data, size_t rows) {
  return (fp4moe_rows){.struct_size = sizeof(fp4moe_rows),
                       .rows = rows,
                       .data = data,
                       .expert_offsets = life.offsets};
}
static fp4moe_status prepare(void) {
  fp4moe_batch b = batch_to(2);
  fp4moe_rows rows = rows_of(life.rows, PAIRS);
  fp4moe_status status = fp4moe_prepare(life.layer, &b, &rows, life.pairs);
  life.used = rows.rows;
  return status;
}
static fp4moe_status experts(void) {
  fp4moe_rows in = rows_of(life.rows, life.used),
              out = rows_of(life.rows + PAIRS * HIDDEN, life.used);
  return fp4moe_experts(life.layer, &in, &out, NULL, life.workspace, WORKSPACE);
}
static fp4moe_status finalize(void) {
  fp4moe_batch b = batch_to(2);
  fp4moe_rows rows = rows_of(life.rows + PAIRS * HIDDEN, life.used);
  return fp4moe_finalize(life.layer, &b, &rows, life.pairs);
}

/* The down matrix of expert 0, on rows of x. */
static fp4moe_status linear_begin(void) {
  fp4moe_linear_desc d = {.struct_size = sizeof d,
                          .n = HIDDEN,
                          .k = INTERMEDIATE,
                          .experts = 1,
                          .precision = FP4MOE_PRECISION_INT8};
  return fp4moe_linear_begin(life.ctx, &d, &life.linear);
}
static fp4moe_status linear_set(void) {
  fp4moe_expert_weights w = random_layer_expert(life.weights, 0);
  return fp4moe_linear_set_expert(life.linear, 0, &w.down);
}
static fp4moe_status linear_finish(void) { return fp4moe_linear_finish(life.linear); }
static fp4moe_status grouped(void) {
  fp4moe_rows in = {.struct_size = sizeof in, .rows = 3, .data = life.call.x};
  fp4moe_rows out = {.struct_size = sizeof out, .rows = 3, .data = life.outputs[3]};
  return fp4moe_matmul_grouped(life.linear, &in, &out, NULL, life.workspace, WORKSPACE);
}

static fp4moe_status map(void) {
  size_t bytes = fp4moe_record_bytes(&life.weights->desc);
  fp4moe_records r = {.struct_size = sizeof r, .data = life.records, .bytes = EXPERTS * bytes};
  for (size_t e = 0; e < EXPERTS; e++) {
    fp4moe_expert_weights w = random_layer_expert(life.weights, e);
    fp4moe_status status = fp4moe_record_write(&life.weights->desc, &w, life.records + e * bytes);
    if (status) return status;
  }
  return fp4moe_layer_map(life.ctx, &life.weights->desc, &r, &life.mapped);
}
static fp4moe_status forward_c(void) {
  fp4moe_batch b = batch_to(4);
  return fp4moe_layer_forward_c(life.mapped, FP4MOE_PRECISION_INT8, &b);
}

static const struct {
  const char *name;
  fp4moe_status (*take)(void);
} steps[] = {{"create", create},
             {"begin", begin},
             {"set", set},
             {"finish", finish},
             {"reload", reload},
             {"replan", replan},
             {"explain", explain},
             {"forward", forward},
             {"routed", routed},
             {"prepare", prepare},
             {"experts", experts},
             {"finalize", finalize},
             {"linear begin", linear_begin},
             {"linear set", linear_set},
             {"linear finish", linear_finish},
             {"matmul", grouped},
             {"map", map},
             {"forward by C", forward_c},
             {"save", save_table},
             {"load", load_table}};

static float *floats(size_t n) {
  float *f = calloc(n, sizeof *f);
  for (size_t i = 0; i < n; i++) f[i] = check_uniform(-1, 1);
  return f;
}

static void open_life(void) {
  fp4moe_layer_desc d = class_desc(&class_words[CLASS_INT8_MX], HIDDEN, INTERMEDIATE, EXPERTS);
  memset(&life, 0, sizeof life);
  life.threads = 2;
  life.weights = random_layer_new(&d, 1, NULL);
  life.call = draw(&d, TOKENS, TOP_K, 0);
  life.logits = floats(TOKENS * EXPERTS);
  life.rows = floats(2 * PAIRS * HIDDEN);
  life.workspace = malloc(WORKSPACE);
  life.records = aligned_alloc(64, EXPERTS * fp4moe_record_bytes(&d));
  for (int i = 0; i < OUTPUTS; i++) {
    life.outputs[i] = calloc(TOKENS * HIDDEN, sizeof(float));
    life.y[i] = calloc(TOKENS * HIDDEN, sizeof(float));
  }
  table_file_open();
  table = sample(recipes, schedules);
  CHECK(!save_table(), "%s", fp4moe_error_detail());
}

static void close_life(void) {
  scratch_close();
  random_layer_free(life.weights);
  drop(&life.call);
  free(life.logits);
  free(life.rows);
  free(life.workspace);
  free(life.records);
  for (int i = 0; i < OUTPUTS; i++) free(life.outputs[i]), free(life.y[i]);
}

/* One life; every step that fails is taken once more. Returns how many did. */
static int live(const char *what, enum fault fault, long at) {
  char said[sizeof steps / sizeof *steps][160];
  fp4moe_status first[sizeof steps / sizeof *steps], again = FP4MOE_OK;
  int failed = 0;
  life.set = 0;
  life.ctx = NULL;
  life.layer = life.mapped = NULL;
  life.linear = NULL;
  for (int i = 0; i < OUTPUTS; i++) memset(life.outputs[i], 0, TOKENS * HIDDEN * sizeof(float));
  faults_arm(fault, ENOMEM, at);
  size_t n = 0;
  for (; n < sizeof steps / sizeof *steps && !again; n++) {
    if (!(first[n] = steps[n].take())) continue;
    snprintf(said[n], sizeof *said, "%s", fp4moe_error_detail());
    again = steps[n].take();
  }
  fp4moe_layer_destroy(life.mapped);
  fp4moe_linear_destroy(life.linear);
  fp4moe_layer_destroy(life.layer);
  fp4moe_context_destroy(life.ctx);
  faults_disarm();
  for (size_t i = 0; i < n; i++)
    if (first[i]) {
      failed++;
      CHECK(first[i] == FP4MOE_NO_MEMORY && *said[i], "%s %ld: %s: %s '%s'", what, at,
            steps[i].name, fp4moe_status_name(first[i]), said[i]);
    }
  CHECK(!again, "%s %ld: %s fails again: %s", what, at, steps[n - 1].name, fp4moe_error_detail());
  CHECK(!faulty.held && !faulty.files, "%s %ld: %ld allocations and %ld files are left", what, at,
        faulty.held, faulty.files);
  return failed;
}

static void same_outputs(const char *what, long at) {
  for (int i = 0; i < OUTPUTS; i++)
    CHECK(!memcmp(life.outputs[i], life.y[i], TOKENS * HIDDEN * sizeof(float)),
          "%s %ld: output %d has other bits", what, at, i);
}

/* The first life is without a fault, and sets what the others must give. */
static void each_life(const char *what, enum fault fault, int fails, long least) {
  long at = 0;
  CHECK(!live(what, FAULT_NO, 0), "%s: fails without a fault", what);
  for (int i = 0; i < OUTPUTS; i++)
    memcpy(life.y[i], life.outputs[i], TOKENS * HIDDEN * sizeof(float));
  for (faulty.hit = 1; faulty.hit && at < 1000; at++) {
    int failed = live(what, fault, at);
    CHECK(failed == (fails && faulty.hit), "%s %ld: %d steps failed", what, at, failed);
    same_outputs(what, at);
  }
  CHECK(at - 1 >= least, "%s: %ld calls were seen, expected %ld", what, at - 1, least);
}

/* ---- Tests ---- */

static void memory(void) {
  open_life();
  each_life("memory", FAULT_ALLOCATE, 1, 24);
  life.shards = 2; /* whole records are cut */
  each_life("memory of shards", FAULT_ALLOCATE, 1, 30);
  life.shards = 0;
  life.own_allocator = 1;
  each_life("memory of the caller", FAULT_ALLOCATE, 1, 24);
  close_life();
}

/* A thread that cannot be had: the others do its work. */
static void threads(void) {
  open_life();
  life.threads = 4;
  each_life("threads", FAULT_THREAD, 0, 3);
  close_life();
}

/* Each call of a kind fails once. OK: it is made again, or was not needed. */
static void each_call(fp4moe_status (*run)(void), const fault_case *c, fp4moe_status want) {
  const char *what = c->what;
  long at = 0;
  for (faulty.hit = 1; faulty.hit && at < 1000; at++) {
    CHECK(!save_table(), "%s", fp4moe_error_detail());
    table.schedules = run == save_table ? ENTRIES / 2 : ENTRIES; /* the new table is shorter */
    faults_arm(c->fault, c->error, at);
    fp4moe_status status = run();
    faults_disarm();
    fp4moe_status expected = faulty.hit ? want : FP4MOE_OK;
    CHECK(status == expected, "%s %ld: %s '%s', expected %s", what, at, fp4moe_status_name(status),
          fp4moe_error_detail(), fp4moe_status_name(expected));
    CHECK(!status || status == FP4MOE_UNSUPPORTED || strstr(fp4moe_error_detail(), scratch),
          "%s %ld: no path in '%s'", what, at, fp4moe_error_detail());
    CHECK(!faulty.held && !faulty.files, "%s %ld: %ld allocations and %ld files are left", what, at,
          faulty.held, faulty.files);
    CHECK(access(scratch_at("a/table.tmp"), F_OK), "%s %ld: the temporary file is left", what, at);
    if (status) table.schedules = ENTRIES;
    CHECK(!load_table(), "%s %ld: the table is not the %s one: %s", what, at,
          status ? "old" : "new", fp4moe_error_detail());
    table.schedules = ENTRIES;
  }
  CHECK(at > 1, "%s: no call was seen", what);
}

static void table_files(void) {
  static const fault_case locks[] = {{"interrupted lock", FAULT_LOCK, EINTR, FP4MOE_OK},
                                     {"lock", FAULT_LOCK, ENOLCK, FP4MOE_SYSTEM}};
  open_life();
  for (int i = 0; i < READ_FAULTS; i++) { /* a table that ends early is refused, no error */
    const fault_case *c = &read_faults[i];
    each_call(load_table, c, c->error == FAULT_END ? FP4MOE_UNSUPPORTED : c->want);
  }
  for (int i = 0; i < WRITE_FAULTS; i++)
    each_call(save_table, &write_faults[i], write_faults[i].want);
  for (int i = 0; i < 2; i++) each_call(save_table, &locks[i], locks[i].want);
  close_life();
}

/* What is no regular file is refused at once: opening a pipe would wait for a writer. */
static void special_files(void) {
  static const char *const special[] = {"/dev/zero", "/dev/null", "/tmp"};
  fp4moe_context *ctx = NULL;
  scratch_open();
  CHECK(!mkfifo(scratch_at("pipe"), 0600), "mkfifo: %s", strerror(errno));
  alarm(60);
  for (int i = -1; i < 3; i++) {
    fp4moe_context_desc d = {.struct_size = sizeof d,
                             .table = i < 0 ? scratch_at("pipe") : special[i]};
    REFUSED(fp4moe_context_create(&d, &ctx), FP4MOE_INVALID, d.table);
    CHECK(strstr(fp4moe_error_detail(), "not a regular file"), "%s", fp4moe_error_detail());
  }
  alarm(0);
  scratch_close();
}

void check_faults(void) {
  CU_pSuite s = check_suite("core faults");
  check_test(s, "memory", memory);
  check_test(s, "threads", threads);
  check_test(s, "table files", table_files);
  check_test(s, "special files", special_files);
}
