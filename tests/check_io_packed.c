/* check_io_packed.c - packed files: the same bits as the checkpoint they were made of, in place,
 * shared by processes, replaced while they are in use; and records that the caller has.
 *
 * Records are compared byte by byte, so that no kernel's tolerance hides a difference. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check_io.h"

static const char *const sources[] = {"gptoss_mxfp4",          "dsv4_mxfp4",
                                      "qwen3_nvfp4_modelopt",  "qwen3_nvfp4_ct",
                                      "gemma4_nvfp4_modelopt", "nemotron_nvfp4_modelopt"};
enum { SOURCES = sizeof sources / sizeof *sources };

static fp4moe_context *context;

static void open_all(void) {
  scratch_open();
  context = context_of(0);
}

static void close_all(void) {
  fp4moe_context_destroy(context);
  scratch_close();
}

static fp4moe_layer *load(const fp4moe_checkpoint *ckpt) {
  fp4moe_layer *layer = NULL;
  CHECK(ckpt && !fp4moe_checkpoint_load_layer(ckpt, 0, context, NULL, &layer), "%s",
        fp4moe_error_detail());
  return layer;
}

/* ---- The same bits ---- */

static void compare_layers(const char *what, const fp4moe_layer *a, const fp4moe_layer *b) {
  if (!CHECK(a && b && !memcmp(&a->shape, &b->shape, sizeof a->shape), "%s: sizes", what)) return;
  uint8_t *of_a = whole_records(a), *of_b = whole_records(b);
  CHECK_SAME(of_b, of_a, a->desc.experts * a->shape.bytes, 1, what);
  free(of_a);
  free(of_b);
  CHECK(!memcmp(&a->desc, &b->desc, sizeof a->desc), "%s: desc", what);
  CHECK(fp4moe_plan_same(fp4moe_layer_plan(a), fp4moe_layer_plan(b)), "%s: plan", what);
}

static void compare_infos(const fp4moe_checkpoint_layer *a, const fp4moe_checkpoint_layer *b) {
  CHECK(a->layer == b->layer && !strcmp(a->prefix, b->prefix) && !strcmp(a->family, b->family) &&
            a->top_k == b->top_k && b->fp4 && !b->status && !*b->reason,
        "layer %zu '%s' '%s'", b->layer, b->prefix, b->family);
}

static void test_same(void) {
  open_all();
  for (int i = 0; i < SOURCES; i++) {
    fp4moe_checkpoint *from = io_open_checkpoint(io_data_path(sources[i]));
    fp4moe_layer *want = load(from);
    io_pack(sources[i], FP4MOE_PACKED_FILE);
    for (int how = 0; how < 4; how++) {
      fp4moe_checkpoint *ckpt =
          io_open_with(how ? scratch : scratch_at(FP4MOE_PACKED_FILE), how == 1, how >= 2);
      fp4moe_layer *got = load(ckpt);
      if (ckpt) compare_infos(fp4moe_checkpoint_at(from, 0), fp4moe_checkpoint_at(ckpt, 0));
      fp4moe_checkpoint_close(ckpt); /* a layer outlives it */
      compare_layers(sources[i], want, got);
      fp4moe_layer_destroy(got);
    }
    fp4moe_layer_destroy(want);
    fp4moe_checkpoint_close(from);
  }
  close_all();
}

static void test_deterministic(void) {
  size_t bytes[2];
  open_all();
  io_pack("qwen3_nvfp4_modelopt", "a");
  io_pack("qwen3_nvfp4_modelopt", "b");
  char *a = scratch_read(scratch_at("a"), &bytes[0]), *b = scratch_read(scratch_at("b"), &bytes[1]);
  if (CHECK(bytes[0] == bytes[1] && bytes[0] > 100000, "%zu %zu bytes", bytes[0], bytes[1]))
    CHECK_SAME(b, a, bytes[0], 1, "packed twice");
  io_pack("qwen3_nvfp4_ct", "b");
  fp4moe_packed_info info[2] = {{0}, {0}};
  for (int i = 0; i < 2; i++) {
    fp4moe_checkpoint *ckpt = io_open_with(scratch_at(i ? "b" : "a"), 0, 0);
    CHECK(ckpt && fp4moe_checkpoint_packed(ckpt, &info[i]) && info[i].bytes == bytes[0] &&
              strstr(info[i].source, i ? "qwen3_nvfp4_ct" : "qwen3_nvfp4_modelopt"),
          "info");
    info[i].source = NULL;
    fp4moe_checkpoint_close(ckpt);
  }
  CHECK(info[0].identity && info[0].identity != info[1].identity, "identities");
  free(a);
  free(b);
  close_all();
}

/* Two layers of different sizes, and one that is not FP4 and stays behind. */
static void test_several(void) {
  static const size_t shape[] = {4};
  static bundle all, other;
  open_all();
  bundle_read(&all, io_data_path("dsv4_mxfp4"));
  bundle_read(&other, io_data_path("nemotron_nvfp4_modelopt"));
  for (size_t i = 0; i < other.n; i++) all.list[all.n++] = other.list[i];
  all.list[all.n++] =
      (fp4moe_tensor_data){"model.layers.9.experts.0.up_proj.weight", "BF16", 1, shape, "abcdefgh"};
  bundle_write(&all, scratch_at("all.safetensors"));
  fp4moe_checkpoint *from = io_open_checkpoint(scratch_at("all.safetensors"));
  CHECK(!fp4moe_checkpoint_pack(from, scratch_at("packed"), NULL), "%s", fp4moe_error_detail());
  fp4moe_checkpoint *ckpt = io_open_with(scratch_at("packed"), 1, 0);
  if (CHECK(ckpt && fp4moe_checkpoint_layers(from) == 3 && fp4moe_checkpoint_layers(ckpt) == 2,
            "layers"))
    for (size_t i = 0; i < 2; i++) {
      fp4moe_layer *a = NULL, *b = NULL;
      compare_infos(fp4moe_checkpoint_at(from, i), fp4moe_checkpoint_at(ckpt, i));
      CHECK(!fp4moe_checkpoint_load_layer(from, i, context, NULL, &a), "%s", fp4moe_error_detail());
      CHECK(!fp4moe_checkpoint_load_layer(ckpt, i, context, NULL, &b), "%s", fp4moe_error_detail());
      compare_layers("one of two layers", a, b);
      fp4moe_layer_destroy(a);
      fp4moe_layer_destroy(b);
    }
  fp4moe_checkpoint_close(ckpt);
  fp4moe_checkpoint_close(from);
  bundle_free(&all);
  bundle_free(&other);
  close_all();
}

/* Class NVFP4 reads the input scales: of the layer from the head, of experts from the records. */
static void test_input_scales(void) {
  static const char *const names[] = {"qwen3_nvfp4_modelopt", "nemotron_nvfp4_modelopt",
                                      "qwen3_w4a16_modelopt"};
  open_all();
  for (int i = 0; i < 3; i++)
    for (int policy = FP4MOE_GLOBAL_LAYER; policy <= FP4MOE_GLOBAL_TOKEN; policy++) {
      fp4moe_layer *want = NULL, *got = NULL;
      fp4moe_checkpoint *from = io_open_checkpoint(io_data_path(names[i]));
      io_pack(names[i], "p");
      fp4moe_checkpoint *ckpt = io_open_with(scratch_at("p"), 0, 0);
      fp4moe_layer_desc desc = fp4moe_checkpoint_at(ckpt, 0)->desc;
      desc.precision = FP4MOE_PRECISION_NVFP4;
      desc.input_global = (fp4moe_input_global)policy;
      fp4moe_status a = fp4moe_checkpoint_load_layer(from, 0, context, &desc, &want);
      fp4moe_status b = fp4moe_checkpoint_load_layer(ckpt, 0, context, &desc, &got);
      int without = i == 2 && policy != FP4MOE_GLOBAL_TOKEN;
      CHECK(!a == !without && !b == !without, "%s: %d %d: %s", names[i], a, b,
            fp4moe_error_detail());
      if (!a && !b) compare_layers(names[i], want, got);
      fp4moe_layer_destroy(want);
      fp4moe_layer_destroy(got);
      fp4moe_checkpoint_close(ckpt);
      fp4moe_checkpoint_close(from);
    }
  close_all();
}

/* A rank's experts are mapped out of the whole file; its part of I is packed for it. */
static void test_parts(void) {
  const fp4moe_slice experts = {sizeof experts, FP4MOE_SPLIT_EXPERTS, 1, 3};
  const fp4moe_slice columns = {sizeof columns, FP4MOE_SPLIT_INTERMEDIATE, 1, 3};
  const fp4moe_pack_options part = {sizeof part, NULL, NULL, &columns};
  const fp4moe_pack_options whole = {sizeof whole, NULL, NULL, &experts};
  fp4moe_layer *want = NULL, *got = NULL;
  open_all();
  fp4moe_checkpoint *from = io_open_checkpoint(io_data_path("gptoss_mxfp4"));
  io_pack("gptoss_mxfp4", "p");
  for (int copy = 0; copy < 2; copy++) {
    fp4moe_checkpoint *ckpt = io_open_with(scratch_at("p"), 1, copy);
    CHECK(!fp4moe_checkpoint_load_slice(from, 0, context, NULL, &experts, &want), "%s",
          fp4moe_error_detail());
    CHECK(!fp4moe_checkpoint_load_slice(ckpt, 0, context, NULL, &experts, &got), "%s",
          fp4moe_error_detail());
    compare_layers("experts", want, got);
    fp4moe_layer_destroy(want);
    fp4moe_layer_destroy(got);
    io_says(fp4moe_checkpoint_load_slice(ckpt, 0, context, NULL, &columns, &got),
            FP4MOE_UNSUPPORTED, fp4moe_error_detail(), "packed whole", "a part of I");
    fp4moe_checkpoint_close(ckpt);
  }
  io_says(fp4moe_checkpoint_pack(from, scratch_at("p"), &whole), FP4MOE_INVALID,
          fp4moe_error_detail(), "split by experts", "pack by experts");
  CHECK(!fp4moe_checkpoint_pack(from, scratch_at("p"), &part), "%s", fp4moe_error_detail());
  fp4moe_checkpoint *ckpt = io_open_with(scratch_at("p"), 1, 0);
  CHECK(!fp4moe_checkpoint_load_slice(from, 0, context, NULL, &columns, &want), "%s",
        fp4moe_error_detail());
  got = load(ckpt);
  compare_layers("intermediate", want, got);
  fp4moe_layer_destroy(want);
  fp4moe_layer_destroy(got);
  fp4moe_checkpoint_close(ckpt);
  fp4moe_checkpoint_close(from);
  close_all();
}

/* ---- Shared ---- */

/* KiB of a line of /proc/self/smaps for the map of this file; -1: no such map. */
static long smaps(const char *path, const char *field, char permissions[8]) {
  char line[512];
  long value = -1;
  int inside = 0;
  FILE *file = fopen("/proc/self/smaps", "r");
  while (file && fgets(line, sizeof line, file)) {
    if (strchr(line, '-') && strchr(line, '-') < strchr(line, ' ')) {
      inside = strstr(line, path) != NULL;
      if (inside) sscanf(line, "%*s %7s", permissions);
    } else if (inside && !strncmp(line, field, strlen(field))) {
      value = strtol(line + strlen(field), NULL, 10);
    }
  }
  if (file) fclose(file);
  return value;
}

/* One token through the layer; the same numbers wherever it runs. */
static fp4moe_status run_token(fp4moe_layer *layer, float y[128]) {
  float x[128], weights[2] = {0.75f, 0.25f};
  int32_t ids[2] = {1, 3};
  const problem p = {1, 2, 128, x, y, weights, ids};
  const fp4moe_batch b = batch_of(&p);
  for (int i = 0; i < 128; i++) x[i] = (float)(i % 7) - 3;
  return run(layer, &b);
}

/* In the child: opens the file by itself and runs; 0 where all is well. */
static int other_process(const char *path, const float *want) {
  float y[128] = {0};
  char permissions[8] = "";
  fp4moe_checkpoint *ckpt = NULL;
  fp4moe_layer *layer = NULL;
  fp4moe_context *own = NULL;
  if (fp4moe_context_create(NULL, &own) || fp4moe_checkpoint_open(path, &ckpt)) return 2;
  if (fp4moe_checkpoint_load_layer(ckpt, 0, own, NULL, &layer) || run_token(layer, y)) return 3;
  if (memcmp(y, want, sizeof y) != 0) return 4;
  long rss = smaps(path, "Rss:", permissions), pss = smaps(path, "Pss:", permissions);
  if (strcmp(permissions, "r--s") || smaps(path, "Private_Dirty:", permissions) != 0) return 5;
  return rss > 0 && pss < rss ? 0 : 6;
}

static void compare_in_child(fp4moe_layer *layer, const char *path, const float *want) {
  int end = -1;
  if (check_cannot_fork("a packed layer in two processes")) return;
  pid_t child = fork();
  if (child == 0) {
    fp4moe_layer_destroy(layer); /* inherited; the child's own map is the one to look at */
    _exit(other_process(path, want));
  }
  waitpid(child, &end, 0);
  CHECK(end == 0, "the other process ended with %#x", (unsigned)end);
}

static void test_shared(void) {
  float y[128] = {0};
  open_all();
  io_pack("gptoss_mxfp4", "shared");
  /* Verifying touches every page. */
  fp4moe_checkpoint *ckpt = io_open_with(scratch_at("shared"), 1, 0);
  fp4moe_layer *layer = load(ckpt);
  CHECK(layer && !run_token(layer, y) && y[5] != 0, "%s", fp4moe_error_detail());
  char path[160];
  snprintf(path, sizeof path, "%s", scratch_at("shared"));
  compare_in_child(layer, path, y);
  fp4moe_layer_destroy(layer);
  char permissions[8] = "";
  CHECK(smaps(path, "Rss:", permissions) == -1, "unmapped when the layer is destroyed");
  fp4moe_checkpoint_close(ckpt);
  close_all();
}

/* Opens, verifies, maps and runs the file again and again while it is replaced; 0: always all of
 * one file. */
static int use_often(const char *path, const float *want) {
  const fp4moe_open_options options = {sizeof options, 1, 0};
  fp4moe_context *own = NULL;
  alarm(60);
  if (fp4moe_context_create(NULL, &own)) return 1;
  for (int i = 0; i < 30; i++) {
    float y[128] = {0};
    fp4moe_checkpoint *ckpt = NULL;
    fp4moe_layer *layer = NULL;
    if (fp4moe_checkpoint_open_with(path, &options, &ckpt)) return 2;
    if (fp4moe_checkpoint_load_layer(ckpt, 0, own, NULL, &layer) || run_token(layer, y)) return 3;
    if (memcmp(y, want, sizeof y) != 0) return 4;
    fp4moe_layer_destroy(layer);
    fp4moe_checkpoint_close(ckpt);
  }
  fp4moe_context_destroy(own);
  return 0;
}

/* Two processes use a file that a third packs anew all the while. */
static void test_processes(void) {
  float want[128] = {0};
  char path[160];
  pid_t child[2];
  int end, left = 2;
  if (check_cannot_fork("a packed file in two processes")) return;
  open_all();
  io_pack("gptoss_mxfp4", "shared");
  snprintf(path, sizeof path, "%s", scratch_at("shared"));
  fp4moe_checkpoint *ckpt = io_open_with(path, 1, 0);
  fp4moe_layer *layer = load(ckpt);
  CHECK(layer && !run_token(layer, want), "%s", fp4moe_error_detail());
  for (int i = 0; i < 2; i++)
    if (!(child[i] = fork())) _exit(use_often(path, want));
  for (int i = 0; left && i < 2000; i++) {
    io_pack("gptoss_mxfp4", "shared");
    for (int j = 0; j < 2; j++) {
      if (child[j] <= 0 || waitpid(child[j], &end, WNOHANG) != child[j]) continue;
      CHECK(end == 0, "process %d ended with %#x after %d files", j, (unsigned)end, i);
      child[j] = 0;
      left--;
    }
  }
  CHECK(!left, "%d processes are still at it", left);
  CHECK(!run_token(layer, want), "%s", fp4moe_error_detail());
  fp4moe_layer_destroy(layer);
  fp4moe_checkpoint_close(ckpt);
  close_all();
}

/* Packing again replaces the file; who has the old one mapped keeps it. */
static void test_replaced(void) {
  open_all();
  io_pack("gptoss_mxfp4", "p");
  fp4moe_checkpoint *ckpt = io_open_with(scratch_at("p"), 0, 0);
  fp4moe_layer *layer = load(ckpt);
  float before[128] = {0}, after[128] = {0};
  CHECK(!run_token(layer, before), "%s", fp4moe_error_detail());
  io_pack("nemotron_nvfp4_modelopt", "p");
  CHECK(!run_token(layer, after) && !memcmp(before, after, sizeof after), "the old map");
  fp4moe_layer_destroy(layer);
  layer = load(ckpt); /* the checkpoint has the old file open */
  CHECK(layer && layer->desc.hidden == 128, "the old file");
  fp4moe_layer_destroy(layer);
  fp4moe_checkpoint_close(ckpt);
  close_all();
}

/* ---- Records of the caller ---- */

static size_t released;
static void count_release(void *user, const void *data, size_t bytes) {
  CHECK(user == &released && data && bytes, "release");
  released++;
}

static void test_records(void) {
  open_all();
  fp4moe_checkpoint *from = io_open_checkpoint(io_data_path("dsv4_mxfp4"));
  fp4moe_layer *layer = load(from), *mapped = NULL;
  const fp4moe_layer_desc *desc = &layer->desc;
  size_t bytes = desc->experts * layer->shape.bytes;
  CHECK(fp4moe_record_bytes(desc) * desc->experts == bytes, "bytes");
  uint8_t *all = whole_records(layer);
  uint8_t *memory =
      mmap(NULL, bytes + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  memcpy(memory, all, bytes);
  free(all);
  fp4moe_records r = {sizeof r, memory + 8, bytes, 1, count_release, &released};
  io_says(fp4moe_layer_map(context, desc, &r, &mapped), FP4MOE_INVALID, fp4moe_error_detail(),
          "multiple of 64", "alignment");
  r.data = memory;
  r.bytes = bytes - 64;
  io_says(fp4moe_layer_map(context, desc, &r, &mapped), FP4MOE_INVALID, fp4moe_error_detail(),
          "experts of", "bytes");
  r.bytes = bytes;
  memory[bytes - 100] ^= 1;
  io_says(fp4moe_layer_map(context, desc, &r, &mapped), FP4MOE_INVALID, fp4moe_error_detail(),
          "expert 3: record checksum", "rot");
  memory[bytes - 100] ^= 1;
  mprotect(memory, bytes, PROT_READ);
  CHECK(!fp4moe_layer_map(context, desc, &r, &mapped), "%s", fp4moe_error_detail());
  compare_layers("the caller's records", layer, mapped);
  io_says(fp4moe_layer_set_record(mapped, 0, memory), FP4MOE_INVALID, fp4moe_error_detail(),
          "already set", "a record of a mapped layer");
  CHECK(released == 0, "released early");
  fp4moe_layer_destroy(mapped);
  CHECK(released == 1, "released %zu times", released);
  released = 0;
  munmap(memory, bytes + 4096);
  fp4moe_layer_destroy(layer);
  fp4moe_checkpoint_close(from);
  close_all();
}

void check_io_packed(void) {
  CU_pSuite suite = check_suite("packed");
  check_test(suite, "same bits", test_same);
  check_test(suite, "deterministic", test_deterministic);
  check_test(suite, "several layers", test_several);
  check_test(suite, "input scales", test_input_scales);
  check_test(suite, "parts", test_parts);
  check_test(suite, "shared", test_shared);
  check_test(suite, "two processes", test_processes);
  check_test(suite, "replaced", test_replaced);
  check_test(suite, "records", test_records);
  check_io_packed_refused(suite);
}
