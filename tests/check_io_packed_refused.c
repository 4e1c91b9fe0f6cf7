/* check_io_packed_refused.c - packed files in which anything differs from what the writer wrote,
 * and what cannot be packed: refused by a text that names it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check_io.h"
#include "io/packed.h"

static fp4moe_status open_status(const char *path) {
  fp4moe_checkpoint *ckpt = NULL;
  fp4moe_status status = fp4moe_checkpoint_open(path, &ckpt);
  CHECK((status == FP4MOE_OK) == (ckpt != NULL), "a checkpoint on failure");
  fp4moe_checkpoint_close(ckpt);
  return status;
}

static fp4moe_status load_status(const char *path, int verify, int copy) {
  fp4moe_checkpoint *ckpt = io_open_with(path, verify, copy);
  fp4moe_status status = ckpt ? io_load(ckpt) : FP4MOE_SYSTEM;
  fp4moe_checkpoint_close(ckpt);
  return status;
}

/* Any bit of the head and its entries. */
static void test_head_bits(void) {
  size_t bytes;
  scratch_open();
  io_pack("dsv4_mxfp4", "p");
  char *file = scratch_read(scratch_at("p"), &bytes);
  size_t head = ((struct io_packed_head *)(void *)file)->head_bytes;
  for (size_t i = 8; i < head; i++) {
    const char bit = (char)(1 << check_below(8));
    file[i] ^= bit;
    scratch_put(scratch_at("p"), file, bytes);
    CHECK(open_status(scratch_at("p")) == FP4MOE_INVALID, "bit %d of byte %zu", bit, i);
    file[i] ^= bit;
  }
  for (size_t n = 8; n < bytes; n += n < head ? 61 : 9973) {
    scratch_put(scratch_at("p"), file, n);
    CHECK(open_status(scratch_at("p")) == FP4MOE_INVALID, "cut at %zu", n);
  }
  file[bytes] = 0;
  scratch_put(scratch_at("p"), file, bytes + 1);
  io_says(open_status(scratch_at("p")), FP4MOE_INVALID, fp4moe_error_detail(), "file_bytes",
          "longer");
  free(file);
  scratch_close();
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
  scratch_open();
  io_pack("dsv4_mxfp4", "p");
  char *file = scratch_read(scratch_at("p"), &bytes), *changed = malloc(bytes);
  struct io_packed_head *head = (void *)changed;
  for (size_t i = 0; i < sizeof head_cases / sizeof *head_cases; i++) {
    const struct head_case *c = &head_cases[i];
    memcpy(changed, file, bytes);
    memcpy(changed + c->at, &c->value, c->bytes);
    if (head->layers == 1) {
      head->identity = fp4moe_io_packed_identity(head);
      head->checksum = fp4moe_io_packed_checksum(head);
    }
    scratch_put(scratch_at("p"), changed, bytes);
    io_says(open_status(scratch_at("p")), FP4MOE_INVALID, fp4moe_error_detail(), c->says, c->says);
  }
  free(file);
  free(changed);
  scratch_close();
}

/* Rot: a record's header is seen always, its data by verify and by every copy. */
static void test_rot(void) {
  size_t bytes;
  scratch_open();
  io_pack("dsv4_mxfp4", "p");
  char *file = scratch_read(scratch_at("p"), &bytes);
  const struct io_packed_layer *e = (void *)(file + sizeof(struct io_packed_head));
  const size_t second = e->offset + e->record_bytes;
  for (int round = 0; round < 60; round++) {
    const int data = round % 2;
    const size_t at = second + (data ? 128 + check_below(e->record_bytes - 128) : check_below(128));
    const char bit = (char)(1 << check_below(8));
    file[at] ^= bit;
    scratch_put(scratch_at("p"), file, bytes);
    fp4moe_status plain = load_status(scratch_at("p"), 0, 0);
    if (data)
      CHECK(!plain, "data are not read: %s", fp4moe_error_detail());
    else
      io_says(plain, FP4MOE_INVALID, fp4moe_error_detail(), "layer 5", "a header");
    io_says(load_status(scratch_at("p"), 1, 0), FP4MOE_INVALID, fp4moe_error_detail(),
            data ? "expert 1: record checksum" : "layer 5", "verify");
    io_says(load_status(scratch_at("p"), 0, 1), FP4MOE_INVALID, fp4moe_error_detail(), "layer 5",
            "copy");
    file[at] ^= bit;
  }
  scratch_put(scratch_at("p"), file, bytes);
  CHECK(!load_status(scratch_at("p"), 1, 0), "%s", fp4moe_error_detail());
  free(file);
  scratch_close();
}

/* A file that shrinks after it was opened is an error, not a fault. */
static void test_shrunk(void) {
  scratch_open();
  for (int copy = 0; copy < 2; copy++) {
    io_pack("dsv4_mxfp4", "p");
    fp4moe_checkpoint *ckpt = io_open_with(scratch_at("p"), 0, copy);
    CHECK(!truncate(scratch_at("p"), 65536 + 4096), "truncate");
    io_says(io_load(ckpt), FP4MOE_INVALID, fp4moe_error_detail(), "69632 bytes now", "shrunk");
    fp4moe_checkpoint_close(ckpt);
  }
  scratch_close();
}

static void test_places(void) {
  static const size_t none[] = {0};
  const fp4moe_tensor_data empty = {"a", "U8", 1, none, NULL};
  fp4moe_checkpoint *ckpt = NULL;
  scratch_open();
  io_pack("dsv4_mxfp4", FP4MOE_PACKED_FILE);
  CHECK(!open_status(scratch), "%s", fp4moe_error_detail());
  CHECK(!fp4moe_tensors_write(scratch_at(MODEL_FILE), &empty, 1), "%s", fp4moe_error_detail());
  io_says(open_status(scratch), FP4MOE_INVALID, fp4moe_error_detail(), "has both", "two");
  CHECK(!open_status(scratch_at(FP4MOE_PACKED_FILE)), "%s", fp4moe_error_detail());
  remove(scratch_at(MODEL_FILE));
  scratch_put_text(scratch_at(FP4MOE_PACKED_FILE), "something else");
  io_says(open_status(scratch), FP4MOE_INVALID, fp4moe_error_detail(), "no packed file", "text");
  remove(scratch_at(FP4MOE_PACKED_FILE));
  CHECK(!mkfifo(scratch_at(FP4MOE_PACKED_FILE), 0666), "mkfifo");
  io_says(open_status(scratch), FP4MOE_SYSTEM, fp4moe_error_detail(), "regular", "a pipe");
  const fp4moe_open_options wrong = {.struct_size = 1};
  io_says(fp4moe_checkpoint_open_with(scratch, &wrong, &ckpt), FP4MOE_INVALID,
          fp4moe_error_detail(), "struct_size", "struct_size");
  scratch_close();
}

/* What cannot be packed leaves no file, and one that was there as it was. */
static void test_pack_refused(void) {
  static bundle m;
  scratch_open();
  bundle_read(&m, io_data_path("dsv4_mxfp4"));
  ((unsigned char *)(uintptr_t)bundle_find(&m, ".3.w1.scale")->data)[5] = 255;
  bundle_write(&m, scratch_at("broken.safetensors"));
  bundle_find(&m, ".3.w1.scale")->dtype = "F8_E4M3";
  bundle_write(&m, scratch_at("wrong.safetensors"));
  io_pack("dsv4_mxfp4", "p");
  const struct {
    const char *path, *says;
  } cases[] = {
      {scratch_at("broken.safetensors"), "experts.3.w1.scale': expert 3: gate scale [2][1]"},
      {scratch_at("wrong.safetensors"), "experts.3.w1.scale' has dtype"},
      {io_data_path("qwen3_nvfp4.io"), "0 FP4 layers"},
      {scratch_at("p"), "is packed already"}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char path[160];
    snprintf(path, sizeof path, "%s", cases[i].path);
    fp4moe_checkpoint *ckpt = io_open_checkpoint(path);
    io_says(fp4moe_checkpoint_pack(ckpt, scratch_at("p"), NULL), FP4MOE_INVALID,
            fp4moe_error_detail(), cases[i].says, path);
    fp4moe_checkpoint_close(ckpt);
  }
  CHECK(scratch_files("") == 3 && !load_status(scratch_at("p"), 1, 0), "%zu files",
        scratch_files(""));
  bundle_free(&m);
  scratch_close();
}

void check_io_packed_refused(CU_pSuite suite) {
  check_test(suite, "head bits", test_head_bits);
  check_test(suite, "head fields", test_head_fields);
  check_test(suite, "rot", test_rot);
  check_test(suite, "shrunk", test_shrunk);
  check_test(suite, "places", test_places);
  check_test(suite, "pack refused", test_pack_refused);
}
