/* check_io_gguf_headers.c - the headers of GGUF files: counts, lengths, types, alignments and
 * offsets that are wrong, each refused by a text that names it, and nothing faults; models of
 * several files. */
#include <stdlib.h>
#include <string.h>

#include "gguf_file.h"

/* ---- Broken headers ---- */

/* A header by hand: magic, version, counts; then the parts. */
static void begin(uint32_t version, uint64_t count, uint64_t keys) {
  gguf.n = 0;
  gguf_put("GGUF", 4);
  gguf_le(version, 4), gguf_le(count, 8), gguf_le(keys, 8);
}

static void info(const char *name, uint32_t rank, uint64_t dim, uint32_t type, uint64_t offset) {
  gguf_text(name);
  gguf_le(rank, 4);
  for (uint32_t i = 0; i < rank && i < 8; i++) gguf_le(i ? 1 : dim, 8);
  gguf_le(type, 4), gguf_le(offset, 8);
}

static void data(size_t bytes) {
  gguf_zeros((gguf.n + 31) / 32 * 32 - gguf.n);
  gguf_zeros(bytes);
}

static void opens(fp4moe_status want, const char *words) {
  fp4moe_tensors *set = NULL;
  gguf_write(scratch_at("a.gguf"));
  fp4moe_status status = fp4moe_tensors_open(scratch_at("a.gguf"), &set);
  io_says(status, want, status ? fp4moe_error_detail() : "", words, words);
  fp4moe_tensors_close(set);
}

static void test_counts(void) {
  const uint64_t huge = UINT64_MAX;
  scratch_open();
  begin(3, 0, 0), opens(FP4MOE_OK, "");
  gguf.n = 20, opens(FP4MOE_INVALID, "wanted at byte 16");
  gguf.n = 4, opens(FP4MOE_INVALID, "wanted at byte 4");
  begin(2, 0, 0), opens(FP4MOE_UNSUPPORTED, "version 2");
  begin(3, huge, 0), opens(FP4MOE_INVALID, "18446744073709551615 tensors wanted");
  begin(3, 0, huge), opens(FP4MOE_INVALID, "18446744073709551615 keys wanted");
  begin(3, 2, 0), gguf_zeros(49), opens(FP4MOE_INVALID, "2 tensors wanted");
  begin(3, 0, 70000), gguf_zeros(70000 * 14), opens(FP4MOE_INVALID, "at most 1048576 and 65536");
  begin(3, 0, 1), gguf_le(huge, 8), gguf_zeros(20), opens(FP4MOE_INVALID, "key of 1844674407370");
  begin(3, 0, 1), gguf_le(0, 8), gguf_zeros(20), opens(FP4MOE_INVALID, "key of 0 bytes");
  begin(3, 0, 1), gguf_le(65535, 8), gguf_zeros(20), opens(FP4MOE_INVALID, "65535 bytes wanted");
  begin(3, 0, 1), gguf_text("\xff"), gguf_zeros(20), opens(FP4MOE_INVALID, "plain UTF-8");
  begin(3, 0, 1), gguf_text("a\n"), gguf_zeros(20), opens(FP4MOE_INVALID, "plain UTF-8");
  begin(3, 0, 1), gguf_text("k"), gguf_le(13, 4), gguf_le(0, 8), opens(FP4MOE_INVALID, "type 13");
  begin(3, 0, 1), gguf_text("k"), gguf_le(GGUF_STRING, 4), gguf_le(huge, 8),
      opens(FP4MOE_INVALID, "of text");
  begin(3, 0, 1), gguf_text("k"), gguf_le(GGUF_ARRAY, 4), gguf_le(GGUF_ARRAY, 4), gguf_le(1, 8);
  opens(FP4MOE_INVALID, "array of type 9");
  begin(3, 0, 1), gguf_text("k"), gguf_le(GGUF_ARRAY, 4), gguf_le(GGUF_STRING, 4), gguf_le(huge, 8);
  opens(FP4MOE_INVALID, "strings wanted");
  begin(3, 0, 1), gguf_text("k"), gguf_le(GGUF_ARRAY, 4), gguf_le(GGUF_FLOAT, 4),
      gguf_le(huge / 4 + 1, 8);
  opens(FP4MOE_INVALID, "floats wanted");
  begin(3, 0, 1), gguf_text("k"), gguf_le(GGUF_ARRAY, 4), gguf_le(GGUF_DOUBLE, 4),
      gguf_le(huge / 8 + 1, 8);
  opens(FP4MOE_INVALID, "values wanted");
  begin(3, 0, 2), gguf_key_u32("k", 1), gguf_key_u32("k", 1);
  opens(FP4MOE_INVALID, "duplicate key 'k'");
  scratch_close();
}

static void test_alignment(void) {
  static const uint32_t bad[] = {0, 3, 48, 1 << 21, UINT32_MAX};
  char words[64];
  scratch_open();
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    snprintf(words, sizeof words, "general.alignment %u", bad[i]);
    begin(3, 0, 1), gguf_key_u32("general.alignment", bad[i]), opens(FP4MOE_INVALID, words);
  }
  begin(3, 0, 1), gguf_key_text("general.alignment", "32");
  opens(FP4MOE_INVALID, "general.alignment 0");
  begin(3, 1, 1), gguf_key_u32("general.alignment", 1), info("a", 1, 3, GGUF_I8, 0), gguf_zeros(3);
  opens(FP4MOE_OK, "");
  scratch_close();
}

static void test_tensors(void) {
  scratch_open();
  begin(3, 1, 0), info("a", 1, 5, GGUF_I8, 0), data(5), opens(FP4MOE_OK, "");
  begin(3, 1, 0), info("a", 1, 5, GGUF_I8, 0), data(32), opens(FP4MOE_OK, "");
  begin(3, 1, 0), info("a", 0, 0, GGUF_F32, 0), data(4), opens(FP4MOE_OK, "");
  begin(3, 1, 0), info("a", 1, 0, GGUF_F32, 0), data(0), opens(FP4MOE_OK, "");
  begin(3, 1, 0), info("a", 1, 5, GGUF_I8, 0), data(4), opens(FP4MOE_INVALID, "file has 4 of data");
  begin(3, 1, 0), info("a", 1, 5, GGUF_I8, 0), data(6), opens(FP4MOE_INVALID, "but the file has 6");
  begin(3, 1, 0), info("a", 1, 5, GGUF_I8, 0), data(33),
      opens(FP4MOE_INVALID, "but the file has 33");
  begin(3, 0, 0), data(40), opens(FP4MOE_INVALID, "0 bytes, but the file has 40");
  begin(3, 1, 0), info("a", 5, 1, GGUF_I8, 0), data(1), opens(FP4MOE_INVALID, "5 dimensions");
  begin(3, 1, 0), info("a", UINT32_MAX, 1, GGUF_I8, 0), data(1),
      opens(FP4MOE_INVALID, "dimensions");
  begin(3, 1, 0), info("a", 1, 40, GGUF_MXFP4, 0), data(34), opens(FP4MOE_INVALID, "blocks of 32");
  begin(3, 1, 0), info("a", 1, 32, GGUF_NVFP4, 0), data(18), opens(FP4MOE_INVALID, "blocks of 64");
  begin(3, 1, 0), info("a", 1, INT64_MAX, GGUF_F32, 0), data(4), opens(FP4MOE_INVALID, "overflows");
  begin(3, 1, 0), info("a", 1, UINT64_MAX, GGUF_I8, 0), data(4),
      opens(FP4MOE_INVALID, "dimension 0");
  begin(3, 1, 0), gguf_text("a"), gguf_le(3, 4);
  for (int i = 0; i < 3; i++) gguf_le((uint64_t)1 << 32, 8);
  gguf_le(GGUF_I8, 4), gguf_le(0, 8), data(0), opens(FP4MOE_INVALID, "overflows");
  begin(3, 1, 0), info("a", 1, 1, GGUF_I8, 1), data(2), opens(FP4MOE_INVALID, "multiple of 32");
  begin(3, 1, 0), info("a", 1, 1, GGUF_I8, 32), data(33), opens(FP4MOE_INVALID, "a hole");
  begin(3, 1, 0), info("a", 1, 1, GGUF_I8, (uint64_t)1 << 63), data(1),
      opens(FP4MOE_INVALID, "a hole");
  begin(3, 2, 0), info("a", 1, 1, GGUF_I8, 0), info("b", 1, 1, GGUF_I8, 0), data(64);
  opens(FP4MOE_INVALID, "overlap");
  begin(3, 2, 0), info("a", 1, 33, GGUF_I8, 0), info("b", 1, 1, GGUF_I8, 32), data(64);
  opens(FP4MOE_INVALID, "overlap");
  begin(3, 2, 0), info("a", 1, 1, GGUF_I8, 0), info("a", 1, 1, GGUF_I8, 32), data(33);
  opens(FP4MOE_INVALID, "two tensors are called 'a'");
  begin(3, 1, 0), info("", 1, 1, GGUF_I8, 0), data(1),
      opens(FP4MOE_INVALID, "tensor name of 0 bytes");
  begin(3, 1, 0), gguf_le(256, 8), gguf_zeros(300), opens(FP4MOE_INVALID, "name of 256 bytes");
  begin(3, 1, 0), info("a\xc0\xaf", 1, 1, GGUF_I8, 0), data(1),
      opens(FP4MOE_INVALID, "plain UTF-8");
  scratch_close();
}

/* A type that is not known is listed with the room it has; only its use is refused. */
static void test_unknown_type(void) {
  fp4moe_tensors *set = NULL;
  scratch_open();
  begin(3, 3, 0), info("b", 1, 7, GGUF_I8, 64), info("a", 2, 7, 77, 0), info("c", 1, 9, 4, 96),
      data(101);
  gguf_write(scratch_at("a.gguf"));
  if (CHECK(!fp4moe_tensors_open(scratch_at("a.gguf"), &set), "%s", fp4moe_error_detail())) {
    const fp4moe_tensor *a = fp4moe_tensors_find(set, "a"), *c = fp4moe_tensors_find(set, "c");
    CHECK(a->bytes == 64 && !strcmp(a->dtype, "GGML?") && a->rank == 2 && a->shape[1] == 7,
          "%zu bytes of %s", a->bytes, a->dtype);
    CHECK(c->bytes == 5 && fp4moe_tensors_find(set, "b")->bytes == 7, "%zu bytes", c->bytes);
  }
  fp4moe_tensors_close(set);
  scratch_close();
}

/* ---- Models of several files ---- */

static void put_shard(const char *name, size_t no, size_t count, size_t total, const char *tensor) {
  begin(3, 1, 4);
  gguf_key_text("general.architecture", "qwen3moe");
  gguf_key_u32("split.no", (uint32_t)no), gguf_key_u32("split.count", (uint32_t)count);
  gguf_key_u32("split.tensors.count", (uint32_t)total);
  info(tensor, 1, 8, GGUF_I8, 0), data(8);
  gguf_write(scratch_at(name));
}

static void try_shards(fp4moe_status want, const char *name, const char *words) {
  fp4moe_tensors *set = NULL;
  fp4moe_status status = fp4moe_tensors_open(scratch_at(name), &set);
  io_says(status, want, status ? fp4moe_error_detail() : "", words, words);
  CHECK(status || fp4moe_tensors_count(set) == 2, "%zu tensors", fp4moe_tensors_count(set));
  fp4moe_tensors_close(set);
}

static void test_split(void) {
  static const char one[] = "m-00001-of-00002.gguf", two[] = "m-00002-of-00002.gguf";
  scratch_open();
  put_shard(one, 0, 2, 2, "a");
  try_shards(FP4MOE_SYSTEM, one, two);
  put_shard(two, 1, 2, 2, "b");
  try_shards(FP4MOE_OK, one, "");
  try_shards(FP4MOE_INVALID, two, "open the first, *-00001-of-00002.gguf");
  put_shard(two, 1, 2, 2, "a");
  try_shards(FP4MOE_INVALID, one, "'a' is in two files");
  put_shard(two, 0, 2, 2, "b");
  try_shards(FP4MOE_INVALID, one, "split.no 0");
  put_shard(two, 1, 2, 2, "b");
  put_shard(one, 0, 2, 3, "a");
  try_shards(FP4MOE_INVALID, one, "split.tensors.count is 3");
  put_shard("other.gguf", 0, 2, 2, "a");
  try_shards(FP4MOE_INVALID, "other.gguf", "open the first");
  put_shard(one, 0, UINT32_MAX, 2, "a");
  try_shards(FP4MOE_INVALID, one, "of 4294967295");
  scratch_close();
}

void check_io_gguf_headers(CU_pSuite suite) {
  check_test(suite, "gguf counts", test_counts);
  check_test(suite, "gguf alignment", test_alignment);
  check_test(suite, "gguf tensors", test_tensors);
  check_test(suite, "gguf unknown type", test_unknown_type);
  check_test(suite, "gguf split", test_split);
}
