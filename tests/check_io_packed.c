/* check_io_packed.c - packed files: the same bits as the checkpoint they were made of, in place,
 * shared; and refused when anything about them differs.
 *
 * Records are compared byte by byte, so that no kernel's tolerance hides a difference. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check_io.h"
#include "io/packed.h"
#include "layer_call.h"

static const char *const sources[] = {"gptoss_mxfp4",          "dsv4_mxfp4",
                                      "qwen3_nvfp4_modelopt",  "qwen3_nvfp4_ct",
                                      "gemma4_nvfp4_modelopt", "nemotron_nvfp4_modelopt"};
enum { SOURCES = sizeof sources / sizeof *sources };

static fp4moe_context *context;

static void open_all(void) {
  io_scratch_open();
  CHECK(!fp4moe_context_create(NULL, &context), "%s", fp4moe_error_detail());
}

static void close_all(void) {
  fp4moe_context_destroy(context);
  io_scratch_close();
}

static fp4moe_checkpoint *open_with(const char *path, int verify, int copy) {
  const fp4moe_open_options options = {sizeof options, verify, copy};
  fp4moe_checkpoint *ckpt = NULL;
  CHECK(!fp4moe_checkpoint_open_with(path, &options, &ckpt), "%s", fp4moe_error_detail());
  return ckpt;
}

static fp4moe_layer *load(const fp4moe_checkpoint *ckpt) {
  fp4moe_layer *layer = NULL;
  CHECK(ckpt && !fp4moe_checkpoint_load_layer(ckpt, 0, context, NULL, &layer), "%s",
        fp4moe_error_detail());
  return layer;
}

/* Packs a file of the data directory to io_at(name). */
static void pack(const char *source, const char *name) {
  fp4moe_checkpoint *ckpt = io_open_checkpoint(io_data_path(source));
  CHECK(ckpt && !fp4moe_checkpoint_pack(ckpt, io_at(name), NULL), "%s", fp4moe_error_detail());
  fp4moe_checkpoint_close(ckpt);
}

static char *read_all(const char *path, size_t *bytes) {
  FILE *file = fopen(path, "rb");
  char *text = malloc(1 << 20);
  *bytes = file ? fread(text, 1, 1 << 20, file) : 0;
  if (file) fclose(file);
  return text;
}

static void write_all(const char *path, const void *data, size_t bytes) {
  FILE *file = fopen(path, "wb");
  if (!file || fwrite(data, 1, bytes, file) != bytes || fclose(file)) abort();
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
    pack(sources[i], FP4MOE_PACKED_FILE);
    for (int how = 0; how < 4; how++) {
      fp4moe_checkpoint *ckpt =
          open_with(how ? io_scratch : io_at(FP4MOE_PACKED_FILE), how == 1, how >= 2);
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
  pack("qwen3_nvfp4_modelopt", "a");
  pack("qwen3_nvfp4_modelopt", "b");
  char *a = read_all(io_at("a"), &bytes[0]), *b = read_all(io_at("b"), &bytes[1]);
  if (CHECK(bytes[0] == bytes[1] && bytes[0] > 100000, "%zu %zu bytes", bytes[0], bytes[1]))
    CHECK_SAME(b, a, bytes[0], 1, "packed twice");
  pack("qwen3_nvfp4_ct", "b");
  fp4moe_packed_info info[2] = {{0}, {0}};
  for (int i = 0; i < 2; i++) {
    fp4moe_checkpoint *ckpt = open_with(io_at(i ? "b" : "a"), 0, 0);
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
  bundle_write(&all, io_at("all.safetensors"));
  fp4moe_checkpoint *from = io_open_checkpoint(io_at("all.safetensors"));
  CHECK(!fp4moe_checkpoint_pack(from, io_at("packed"), NULL), "%s", fp4moe_error_detail());
  fp4moe_checkpoint *ckpt = open_with(io_at("packed"), 1, 0);
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
      pack(names[i], "p");
      fp4moe_checkpoint *ckpt = open_with(io_at("p"), 0, 0);
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
  pack("gptoss_mxfp4", "p");
  for (int copy = 0; copy < 2; copy++) {
    fp4moe_checkpoint *ckpt = open_with(io_at("p"), 1, copy);
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
  io_says(fp4moe_checkpoint_pack(from, io_at("p"), &whole), FP4MOE_INVALID, fp4moe_error_detail(),
          "split by experts", "pack by experts");
  CHECK(!fp4moe_checkpoint_pack(from, io_at("p"), &part), "%s", fp4moe_error_detail());
  fp4moe_checkpoint *ckpt = open_with(io_at("p"), 1, 0);
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
  const int32_t ids[2] = {1, 3};
  fp4moe_batch batch = {.struct_size = sizeof batch,
                        .tokens = 1,
                        .top_k = 2,
                        .x = x,
                        .y = y,
                        .topk_ids = ids,
                        .ids_dtype = FP4MOE_I32,
                        .topk_weights = weights};
  for (int i = 0; i < 128; i++) x[i] = (float)(i % 7) - 3;
  return run(layer, &batch);
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
  pack("gptoss_mxfp4", "shared");
  fp4moe_checkpoint *ckpt = open_with(io_at("shared"), 1, 0); /* verify touches every page */
  fp4moe_layer *layer = load(ckpt);
  CHECK(layer && !run_token(layer, y) && y[5] != 0, "%s", fp4moe_error_detail());
  char path[160];
  snprintf(path, sizeof path, "%s", io_at("shared"));
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
  pack("gptoss_mxfp4", "shared");
  snprintf(path, sizeof path, "%s", io_at("shared"));
  fp4moe_checkpoint *ckpt = open_with(path, 1, 0);
  fp4moe_layer *layer = load(ckpt);
  CHECK(layer && !run_token(layer, want), "%s", fp4moe_error_detail());
  for (int i = 0; i < 2; i++)
    if (!(child[i] = fork())) _exit(use_often(path, want));
  for (int i = 0; left && i < 2000; i++) {
    pack("gptoss_mxfp4", "shared");
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
  pack("gptoss_mxfp4", "p");
  fp4moe_checkpoint *ckpt = open_with(io_at("p"), 0, 0);
  fp4moe_layer *layer = load(ckpt);
  float before[128] = {0}, after[128] = {0};
  CHECK(!run_token(layer, before), "%s", fp4moe_error_detail());
  pack("nemotron_nvfp4_modelopt", "p");
  CHECK(!run_token(layer, after) && !memcmp(before, after, sizeof after), "the old map");
  fp4moe_layer_destroy(layer);
  layer = load(ckpt); /* the checkpoint has the old file open */
  CHECK(layer && layer->desc.hidden == 128, "the old file");
  fp4moe_layer_destroy(layer);
  fp4moe_checkpoint_close(ckpt);
  close_all();
}

/* ---- Refused ---- */

static fp4moe_status open_status(const char *path) {
  fp4moe_checkpoint *ckpt = NULL;
  fp4moe_status status = fp4moe_checkpoint_open(path, &ckpt);
  CHECK((status == FP4MOE_OK) == (ckpt != NULL), "a checkpoint on failure");
  fp4moe_checkpoint_close(ckpt);
  return status;
}

static fp4moe_status load_status(const char *path, int verify, int copy) {
  fp4moe_checkpoint *ckpt = open_with(path, verify, copy);
  fp4moe_layer *layer = NULL;
  fp4moe_status status = FP4MOE_SYSTEM;
  if (ckpt) status = fp4moe_checkpoint_load_layer(ckpt, 0, context, NULL, &layer);
  fp4moe_layer_destroy(layer);
  fp4moe_checkpoint_close(ckpt);
  return status;
}

/* Any bit of the head and its entries. */
static void test_head_bits(void) {
  size_t bytes;
  open_all();
  pack("dsv4_mxfp4", "p");
  char *file = read_all(io_at("p"), &bytes);
  size_t head = ((struct io_packed_head *)(void *)file)->head_bytes;
  for (size_t i = 8; i < head; i++) {
    const char bit = (char)(1 << check_below(8));
    file[i] ^= bit;
    write_all(io_at("p"), file, bytes);
    CHECK(open_status(io_at("p")) == FP4MOE_INVALID, "bit %d of byte %zu", bit, i);
    file[i] ^= bit;
  }
  for (size_t n = 8; n < bytes; n += n < head ? 61 : 9973) {
    write_all(io_at("p"), file, n);
    CHECK(open_status(io_at("p")) == FP4MOE_INVALID, "cut at %zu", n);
  }
  file[bytes] = 0;
  write_all(io_at("p"), file, bytes + 1);
  io_says(open_status(io_at("p")), FP4MOE_INVALID, fp4moe_error_detail(), "file_bytes", "longer");
  free(file);
  close_all();
}

/* Fields that are wrong under checksums that are right: the file of another version, or malice. */
/* clang-format off */
#define HEAD(field)  offsetof(struct io_packed_head, field)
#define ENTRY(field) sizeof(struct io_packed_head) + offsetof(struct io_packed_layer, field)
static const struct head_case {
  size_t at, bytes;
  uint64_t value;
  const char *says;
} head_cases[] = {
    {HEAD(version), 4, 2, "version is 2, expected 1"},
    {HEAD(layout), 4, 7, "layout is 7, expected 1"},
    {HEAD(record_version), 4, 9, "record version is 9, expected 1"},
    {HEAD(layers), 4, 0, "head_bytes is 768, expected 256"},
    {HEAD(layers), 4, UINT32_MAX, "head_bytes is 768, expected 2199023255296"},
    {HEAD(head_bytes), 8, UINT64_MAX, "head_bytes"},
    {HEAD(file_bytes), 8, UINT64_MAX, "file_bytes"},
    {HEAD(reserved), 8, 1, "reserved"},
    {HEAD(source), 1, '\n', "not plain"},
    {ENTRY(hidden), 8, 63, "layer 5: hidden is 63"},
    {ENTRY(hidden), 8, UINT64_MAX, "layer 5: hidden"},
    {ENTRY(hidden), 8, 0, "layer 5: hidden is 0"},
    {ENTRY(intermediate), 8, (uint64_t)1 << 40, "layer 5: intermediate"},
    {ENTRY(experts), 8, 0, "layer 5: experts is 0"},
    {ENTRY(experts), 8, UINT64_MAX, "layer 5: experts"},
    {ENTRY(experts), 8, 5, "bytes of a layer"},
    {ENTRY(offset), 8, 0, "offset of a layer is 0"},
    {ENTRY(offset), 8, 131072, "offset of a layer is 131072, expected 65536"},
    {ENTRY(offset), 8, UINT64_MAX, "offset of a layer"},
    {ENTRY(bytes), 8, UINT64_MAX, "bytes of a layer"},
    {ENTRY(record_bytes), 8, 64, "record_bytes of a layer is 64"},
    {ENTRY(top_k), 8, 5, "top_k of a layer is 5"},
    {ENTRY(format), 4, 2, "layer 5: format is 2"},
    {ENTRY(format), 4, UINT32_MAX, "out of range"},
    {ENTRY(gated), 4, 2, "out of range"},
    {ENTRY(kind), 4, 4095, "layer 5: activation.kind is 4095"},
    {ENTRY(router_weight_on_input), 4, 2, "out of range"},
    {ENTRY(alpha), 4, 0x7f800000, "layer 5: activation.alpha is inf"},
    {ENTRY(limit), 4, 0x7fc00000, "layer 5: activation"},
    {ENTRY(limit), 4, 0xbf800000, "layer 5: activation"},
    {ENTRY(reserved), 4, 1, "not plain or not ended"},
    {ENTRY(family) + 63, 1, 'x', "not plain or not ended"},
    {ENTRY(prefix), 1, 0, "not plain or not ended"},
};
/* clang-format on */

static void test_head_fields(void) {
  size_t bytes;
  open_all();
  pack("dsv4_mxfp4", "p");
  char *file = read_all(io_at("p"), &bytes), *changed = malloc(bytes);
  struct io_packed_head *head = (void *)changed;
  for (size_t i = 0; i < sizeof head_cases / sizeof *head_cases; i++) {
    const struct head_case *c = &head_cases[i];
    memcpy(changed, file, bytes);
    memcpy(changed + c->at, &c->value, c->bytes);
    if (head->layers == 1) {
      head->identity = fp4moe_io_packed_identity(head);
      head->checksum = fp4moe_io_packed_checksum(head);
    }
    write_all(io_at("p"), changed, bytes);
    io_says(open_status(io_at("p")), FP4MOE_INVALID, fp4moe_error_detail(), c->says, c->says);
  }
  free(file);
  free(changed);
  close_all();
}

/* Rot: a record's header is seen always, its data by verify and by every copy. */
static void test_rot(void) {
  size_t bytes;
  open_all();
  pack("dsv4_mxfp4", "p");
  char *file = read_all(io_at("p"), &bytes);
  const struct io_packed_layer *e = (void *)(file + sizeof(struct io_packed_head));
  const size_t second = e->offset + e->record_bytes;
  for (int round = 0; round < 60; round++) {
    const int data = round % 2;
    const size_t at = second + (data ? 128 + check_below(e->record_bytes - 128) : check_below(128));
    const char bit = (char)(1 << check_below(8));
    file[at] ^= bit;
    write_all(io_at("p"), file, bytes);
    fp4moe_status plain = load_status(io_at("p"), 0, 0);
    if (data)
      CHECK(!plain, "data are not read: %s", fp4moe_error_detail());
    else
      io_says(plain, FP4MOE_INVALID, fp4moe_error_detail(), "layer 5", "a header");
    io_says(load_status(io_at("p"), 1, 0), FP4MOE_INVALID, fp4moe_error_detail(),
            data ? "expert 1: record checksum" : "layer 5", "verify");
    io_says(load_status(io_at("p"), 0, 1), FP4MOE_INVALID, fp4moe_error_detail(), "layer 5",
            "copy");
    file[at] ^= bit;
  }
  write_all(io_at("p"), file, bytes);
  CHECK(!load_status(io_at("p"), 1, 0), "%s", fp4moe_error_detail());
  free(file);
  close_all();
}

/* A file that shrinks after it was opened is an error, not a fault. */
static void test_shrunk(void) {
  open_all();
  for (int copy = 0; copy < 2; copy++) {
    pack("dsv4_mxfp4", "p");
    fp4moe_checkpoint *ckpt = open_with(io_at("p"), 0, copy);
    fp4moe_layer *layer = NULL;
    CHECK(!truncate(io_at("p"), 65536 + 4096), "truncate");
    io_says(fp4moe_checkpoint_load_layer(ckpt, 0, context, NULL, &layer), FP4MOE_INVALID,
            fp4moe_error_detail(), "69632 bytes now", "shrunk");
    fp4moe_checkpoint_close(ckpt);
  }
  close_all();
}

static void test_places(void) {
  static const size_t none[] = {0};
  const fp4moe_tensor_data empty = {"a", "U8", 1, none, NULL};
  fp4moe_checkpoint *ckpt = NULL;
  open_all();
  pack("dsv4_mxfp4", FP4MOE_PACKED_FILE);
  CHECK(!open_status(io_scratch), "%s", fp4moe_error_detail());
  CHECK(!fp4moe_tensors_write(io_at(MODEL_FILE), &empty, 1), "%s", fp4moe_error_detail());
  io_says(open_status(io_scratch), FP4MOE_INVALID, fp4moe_error_detail(), "has both", "two");
  CHECK(!open_status(io_at(FP4MOE_PACKED_FILE)), "%s", fp4moe_error_detail());
  remove(io_at(MODEL_FILE));
  io_put_text(io_at(FP4MOE_PACKED_FILE), "something else");
  io_says(open_status(io_scratch), FP4MOE_INVALID, fp4moe_error_detail(), "no packed file", "text");
  remove(io_at(FP4MOE_PACKED_FILE));
  CHECK(!mkfifo(io_at(FP4MOE_PACKED_FILE), 0666), "mkfifo");
  io_says(open_status(io_scratch), FP4MOE_SYSTEM, fp4moe_error_detail(), "regular", "a pipe");
  const fp4moe_open_options wrong = {.struct_size = 1};
  io_says(fp4moe_checkpoint_open_with(io_scratch, &wrong, &ckpt), FP4MOE_INVALID,
          fp4moe_error_detail(), "struct_size", "struct_size");
  close_all();
}

/* What cannot be packed leaves no file, and one that was there as it was. */
static void test_pack_refused(void) {
  static bundle m;
  open_all();
  bundle_read(&m, io_data_path("dsv4_mxfp4"));
  ((unsigned char *)(uintptr_t)bundle_find(&m, ".3.w1.scale")->data)[5] = 255;
  bundle_write(&m, io_at("broken.safetensors"));
  bundle_find(&m, ".3.w1.scale")->dtype = "F8_E4M3";
  bundle_write(&m, io_at("wrong.safetensors"));
  pack("dsv4_mxfp4", "p");
  const struct {
    const char *path, *says;
  } cases[] = {{io_at("broken.safetensors"), "experts.3.w1.scale': expert 3: gate scale [2][1]"},
               {io_at("wrong.safetensors"), "experts.3.w1.scale' has dtype"},
               {io_data_path("qwen3_nvfp4.io"), "0 FP4 layers"},
               {io_at("p"), "is packed already"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char path[160];
    snprintf(path, sizeof path, "%s", cases[i].path);
    fp4moe_checkpoint *ckpt = io_open_checkpoint(path);
    io_says(fp4moe_checkpoint_pack(ckpt, io_at("p"), NULL), FP4MOE_INVALID, fp4moe_error_detail(),
            cases[i].says, path);
    fp4moe_checkpoint_close(ckpt);
  }
  CHECK(io_count_files() == 3 && !load_status(io_at("p"), 1, 0), "%zu files", io_count_files());
  bundle_free(&m);
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
  static const struct {
    const char *name;
    void (*test)(void);
  } tests[] = {
      {"same bits", test_same},
      {"deterministic", test_deterministic},
      {"several layers", test_several},
      {"input scales", test_input_scales},
      {"parts", test_parts},
      {"shared", test_shared},
      {"two processes", test_processes},
      {"replaced", test_replaced},
      {"head bits", test_head_bits},
      {"head fields", test_head_fields},
      {"rot", test_rot},
      {"shrunk", test_shrunk},
      {"places", test_places},
      {"pack refused", test_pack_refused},
      {"records", test_records},
  };
  CU_pSuite suite = check_suite("packed");
  for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
    check_test(suite, tests[i].name, tests[i].test);
}
