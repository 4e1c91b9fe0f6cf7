/* check_io_faults.c - every allocation and every system call of reading, packing and writing fails
 * once (faults.h): an error that says so, nothing leaked, nothing torn.
 * jansson allocates through the same counter. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "faults.h"
#include "gguf_file.h"

/* ---- What is done ---- */

static fp4moe_context *context;
static const char *source, *target; /* paths */

static fp4moe_status load(int copy) {
  const fp4moe_open_options options = {sizeof options, 1, copy};
  fp4moe_checkpoint *ckpt = NULL;
  fp4moe_layer *layer = NULL;
  fp4moe_status status = fp4moe_checkpoint_open_with(source, &options, &ckpt);
  if (status) return status;
  status = fp4moe_checkpoint_at(ckpt, 0)->status;
  if (!status) status = fp4moe_checkpoint_load_layer(ckpt, 0, context, NULL, &layer);
  fp4moe_layer_destroy(layer);
  fp4moe_checkpoint_close(ckpt);
  return status;
}

static fp4moe_status load_mapped(void) { return load(0); }
static fp4moe_status load_copied(void) { return load(1); }

static fp4moe_status pack(void) {
  fp4moe_checkpoint *ckpt = NULL;
  fp4moe_status status = fp4moe_checkpoint_open(source, &ckpt);
  if (!status) status = fp4moe_checkpoint_pack(ckpt, target, NULL);
  fp4moe_checkpoint_close(ckpt);
  return status;
}

static fp4moe_status write_tensors(void) {
  static const size_t shape[] = {1000};
  char data[1000];
  memset(data, 'x', sizeof data);
  const fp4moe_tensor_data list[] = {{"a", "U8", 1, shape, data}, {"b", "U8", 1, shape, data}};
  return fp4moe_tensors_write(target, list, 2);
}

typedef fp4moe_status operation(void);

static fp4moe_status armed(operation *run, enum fault fault, int error, long at) {
  faults_arm(fault, error, at);
  fp4moe_status status = run();
  faults_disarm();
  return status;
}

/* ---- What must hold ---- */

/* What a run without a fault leaves in the target. */
static char whole[1 << 20];
static size_t whole_bytes;

static size_t read_target(char *text, size_t room) {
  FILE *file = fopen(target, "rb");
  const size_t bytes = file ? fread(text, 1, room, file) : 0;
  if (file) fclose(file);
  return bytes;
}

static int holds(const char *text, size_t bytes) {
  static char now[sizeof whole];
  return read_target(now, sizeof now) == bytes && !memcmp(now, text, bytes);
}

static void run_whole(operation *run) {
  CHECK(!run(), "%s", fp4moe_error_detail());
  whole_bytes = read_target(whole, sizeof whole);
  CHECK(whole_bytes > 3 && whole_bytes < sizeof whole, "%s: %zu bytes", target, whole_bytes);
}

static void check_end(const char *what, fp4moe_status status, fp4moe_status want) {
  const char *text = fp4moe_error_detail();
  CHECK(!status || status == want, "%s %ld: %s '%s'", what, faulty.at, fp4moe_status_name(status),
        text);
  CHECK(!status || (*text && !strchr(text, '\n')), "%s %ld: '%s'", what, faulty.at, text);
  CHECK(!faulty.held && !faulty.files, "%s %ld: %ld allocations and %ld files are left, %s '%s'",
        what, faulty.at, faulty.held, faulty.files, fp4moe_status_name(status), text);
  if (!target) return;
  CHECK(scratch_files("") == 2, "%s %ld: %zu files", what, faulty.at, scratch_files(""));
  CHECK(status ? holds("old", 3) : holds(whole, whole_bytes), "%s %ld: the file is not the %s one",
        what, faulty.at, status ? "old" : "whole new");
}

/* Each call of this kind fails once, until none is left to fail. */
static void each(operation *run, const fault_case *c) {
  long at = 0, failed = 0;
  if (target) run_whole(run);
  for (faulty.hit = 1; faulty.hit && at < 3000; at++) {
    if (target) scratch_put_text(target, "old");
    fp4moe_status status = armed(run, c->fault, c->error, at);
    failed += status != 0;
    check_end(c->what, status, c->want);
    if (faulty.hit && c->want &&
        (c->fault == FAULT_READ || c->fault == FAULT_WRITE || c->fault == FAULT_RENAME ||
         c->fault == FAULT_JSON))
      CHECK(status, "%s %ld: the fault went unseen", c->what, at);
  }
  CHECK(at > 1 && at < 3000 && !failed == !c->want, "%s: %ld calls, %ld failed", c->what, at - 1,
        failed);
}

static void each_of(operation *run, const fault_case *cases, int n) {
  for (int i = 0; i < n; i++) each(run, &cases[i]);
}

static void *json_allocate(size_t n) { return faults_allocate(FAULT_JSON, 0, n); }

/* layer: NULL = a GGUF file. */
static void begin(const char *layer, const char *name) {
  static char paths[2][160];
  scratch_open();
  snprintf(paths[0], sizeof paths[0], "%s", layer ? io_data_path(layer) : scratch_at("gguf"));
  if (!layer) gguf_write_layer(paths[0]);
  json_set_alloc_funcs(json_allocate, faults_free);
  source = paths[0];
  if (name) snprintf(paths[1], sizeof paths[1], "%s", scratch_at(name));
  target = name ? paths[1] : NULL;
  if (name) scratch_put_text(scratch_at("bystander"), "x");
  context = context_of(0);
}

static void end(void) {
  fp4moe_context_destroy(context);
  json_set_alloc_funcs(malloc, free);
  scratch_close();
}

/* ---- Tests ---- */

static const fault_case json = {"JSON", FAULT_JSON, ENOMEM, FP4MOE_NO_MEMORY};

static void load_of(const char *layer) {
  begin(layer, NULL);
  each(load_mapped, &json);
  each_of(load_mapped, read_faults, READ_FAULTS);
  end();
}

static void test_load(void) {
  load_of("dsv4_mxfp4");
  load_of("llama4_nvfp4_modelopt");
  load_of(NULL);
}

/* Memory that is gone stays so: jansson alone would write beyond its buffers. */
static void test_lasting(void) {
  long at = 0;
  begin("gptoss_mxfp4", NULL);
  for (faulty.hit = 1; faulty.hit && at < 3000; at++) {
    faults_arm(FAULT_JSON, ENOMEM, at);
    faulty.lasts = 1;
    fp4moe_status status = load_mapped();
    faults_disarm();
    CHECK(status == (faulty.hit ? FP4MOE_NO_MEMORY : FP4MOE_OK), "JSON from %ld on: %s '%s'", at,
          fp4moe_status_name(status), fp4moe_error_detail());
    check_end("JSON from then on", status, FP4MOE_NO_MEMORY);
  }
  CHECK(at > 1, "no allocation was seen");
  end();
}

static void test_packed(void) {
  begin("dsv4_mxfp4", "p");
  CHECK(!pack(), "%s", fp4moe_error_detail());
  source = target;
  target = NULL;
  each_of(load_copied, read_faults, READ_FAULTS);
  for (int i = 0; i < READ_FAULTS; i++)
    if (read_faults[i].fault == FAULT_READ) each(load_mapped, &read_faults[i]);
  end();
}

static void write_by(operation *run) {
  static const fault_case close = {"close", FAULT_CLOSE, EIO, FP4MOE_SYSTEM};
  begin("dsv4_mxfp4", "p");
  each(run, &json);
  each_of(run, write_faults, WRITE_FAULTS);
  each(run, &close);
  end();
}

static void test_pack(void) { write_by(pack); }
static void test_write(void) { write_by(write_tensors); }

void check_io_faults(void) {
  CU_pSuite suite = check_suite("faults");
  check_test(suite, "load", test_load);
  check_test(suite, "load, memory stays out", test_lasting);
  check_test(suite, "load packed", test_packed);
  check_test(suite, "pack", test_pack);
  check_test(suite, "write", test_write);
}
