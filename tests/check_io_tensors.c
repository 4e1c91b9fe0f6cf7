/* check_io_tensors.c - safetensors files and sets of them: reading, refusing, writing.
 *
 * Well-formed files are those of tests/data/layers, which the official library wrote; broken ones
 * are made here. A refusal counts only when its text names what is wrong. */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "check_io.h"

#define INDEX "model.safetensors.index.json"

/* ---- Reading ---- */

static float read_float(const fp4moe_tensors *set, const char *name) {
  float value = NAN;
  const fp4moe_tensor *t = fp4moe_tensors_find(set, name);
  if (CHECK(t && t->bytes == sizeof value, "%s", name))
    CHECK(!fp4moe_tensors_read(set, t, 0, sizeof value, &value), "%s", fp4moe_error_detail());
  return value;
}

#define EXPERT0_GATE "model.layers.3.mlp.experts.0.gate_proj."

static void test_tensors(void) {
  fp4moe_tensors *mo, *ct;
  char byte;
  CHECK(!fp4moe_tensors_open(io_data_path("qwen3_nvfp4_modelopt"), &mo), "%s",
        fp4moe_error_detail());
  CHECK(!fp4moe_tensors_open(io_data_path("qwen3_nvfp4_ct"), &ct), "%s", fp4moe_error_detail());
  const fp4moe_tensor *t = fp4moe_tensors_find(mo, EXPERT0_GATE "weight");
  if (CHECK(t && t->rank == 2, "find")) {
    CHECK(!strcmp(t->dtype, "U8") && t->shape[0] == 80 && t->shape[1] == 48 && t->bytes == 3840,
          "%s [%zu, %zu]", t->dtype, t->shape[0], t->shape[1]);
    CHECK(!strcmp(t->file, io_data_path("qwen3_nvfp4_modelopt")), "%s", t->file);
    io_says(fp4moe_tensors_read(mo, t, 3840, 1, &byte), FP4MOE_INVALID, fp4moe_error_detail(),
            EXPERT0_GATE "weight", "read beyond a tensor");
    CHECK(!fp4moe_tensors_read(mo, t, 3840, 0, &byte), "an empty read at the end");
  }
  CHECK(!fp4moe_tensors_find(mo, "model") && !fp4moe_tensors_at(mo, 72), "absent");
  float multiplier = read_float(mo, EXPERT0_GATE "weight_scale_2");
  float reciprocal = read_float(ct, EXPERT0_GATE "weight_global_scale");
  CHECK(fabsf(multiplier * reciprocal - 1) < 1e-6f, "%g %g", (double)multiplier,
        (double)reciprocal);
  fp4moe_tensors_close(mo);
  fp4moe_tensors_close(ct);
}

/* ---- Refused headers ---- */

/* A safetensors file from its parts; `length` goes into the first 8 bytes. */
static void put_header(const char *path, uint64_t length, const char *header, size_t header_bytes,
                       size_t data_bytes) {
  unsigned char *file = calloc(1, 8 + header_bytes + data_bytes);
  for (size_t i = 0; i < 8; i++) file[i] = (unsigned char)(length >> 8 * i);
  memcpy(file + 8, header, header_bytes);
  scratch_put(path, file, 8 + header_bytes + data_bytes);
  free(file);
}

#define U8(shape, begin, end)                                                                      \
  "{\"dtype\":\"U8\",\"shape\":" shape ",\"data_offsets\":[" begin "," end "]}"

/* clang-format off */
static const struct header_case {
  const char *name, *header;
  size_t data_bytes;
  const char *says; /* NULL: legal */
} headers[] = {
    {"empty object", "{}", 0, NULL},
    {"padding", "{}      ", 0, NULL},
    {"metadata", "{\"__metadata__\":{\"format\":\"pt\"}}", 0, NULL},
    {"scalar", "{\"a\":" U8("[]", "0", "1") "}", 1, NULL},
    {"zero size", "{\"a\":" U8("[4,0,7]", "2", "2") ",\"b\":" U8("[2]", "0", "2") "}", 2, NULL},
    {"order free", "{\"a\":" U8("[3]", "2", "5") ",\"b\":" U8("[2]", "0", "2") "}", 5, NULL},
    {"no object", "[]", 0, "begin with '{'"},
    {"leading space", " {}", 0, "begin with '{'"},
    {"string", "\"a\"", 0, "begin with '{'"},
    {"cut", "{\"a\":", 0, "JSON"},
    {"garbage after", "{}x", 0, "JSON"},
    {"bad UTF-8", "{\"\xff\":" U8("[1]", "0", "1") "}", 1, "JSON"},
    {"overlong UTF-8", "{\"\xc0\xaf\":" U8("[1]", "0", "1") "}", 1, "JSON"},
    {"NUL in key", "{\"a\\u0000b\":" U8("[1]", "0", "1") "}", 1, "JSON"},
    {"control in key", "{\"a\\nb\":" U8("[1]", "0", "1") "}", 1, "control character"},
    {"duplicate", "{\"a\":" U8("[1]", "0", "1") ",\"a\":" U8("[1]", "1", "2") "}", 2, "duplicate"},
    {"duplicate field",
     "{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}}", 1,
     "duplicate"},
    {"metadata number", "{\"__metadata__\":{\"n\":1}}", 0, "'n'"},
    {"metadata list", "{\"__metadata__\":[]}", 0, "__metadata__"},
    {"tensor number", "{\"a\":1}", 0, "'a'"},
    {"unknown field",
     "{\"a\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1],\"sparse\":1}}", 1, "'sparse'"},
    {"no dtype", "{\"a\":{\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "dtype"},
    {"no shape", "{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1, "shape"},
    {"no offsets", "{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1, "data_offsets"},
    {"three offsets", "{\"a\":" U8("[1]", "0,1", "1") "}", 1, "data_offsets"},
    {"unknown dtype", "{\"a\":{\"dtype\":\"U9\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "'a'"},
    {"real dimension", "{\"a\":" U8("[1.0]", "0", "1") "}", 1, "dimension 0"},
    {"exponent", "{\"a\":" U8("[1e0]", "0", "1") "}", 1, "dimension 0"},
    {"negative", "{\"a\":" U8("[1,-1]", "0", "1") "}", 1, "dimension 1"},
    {"string dimension", "{\"a\":" U8("[\"1\"]", "0", "1") "}", 1, "dimension 0"},
    {"huge number", "{\"a\":" U8("[99999999999999999999]", "0", "1") "}", 1, "JSON"},
    {"rank 9", "{\"a\":" U8("[1,1,1,1,1,1,1,1,1]", "0", "1") "}", 1, "rank 9"},
    {"overflow", "{\"a\":" U8("[4294967296,4294967296,4294967296]", "0", "0") "}", 0, "overflows"},
    {"wraps to 1", "{\"a\":" U8("[9223372036854775807,9223372036854775807]", "0", "1") "}", 1,
     "overflows"},
    {"half byte", "{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,1]}}", 1,
     "whole number"},
    {"size", "{\"a\":" U8("[3]", "0", "2") "}", 2, "3 bytes, but data_offsets say 2"},
    {"backwards", "{\"a\":" U8("[1]", "1", "0") "}", 1, "1 to 0"},
    {"beyond", "{\"a\":" U8("[3]", "0", "3") "}", 2, "2 bytes"},
    {"negative offset", "{\"a\":" U8("[1]", "-1", "0") "}", 1, "data_offsets"},
    {"hole first", "{\"a\":" U8("[1]", "1", "2") "}", 2, "begin at 1"},
    {"hole", "{\"a\":" U8("[1]", "0", "1") ",\"b\":" U8("[1]", "2", "3") "}", 3, "'b'"},
    {"overlap", "{\"a\":" U8("[2]", "0", "2") ",\"b\":" U8("[2]", "1", "3") "}", 3, "'b'"},
    {"same place", "{\"a\":" U8("[2]", "0", "2") ",\"b\":" U8("[2]", "0", "2") "}", 2, "overlap"},
    {"data left over", "{\"a\":" U8("[2]", "0", "2") "}", 3, "2 bytes, but the file has 3"},
    {"data without tensors", "{}", 1, "0 bytes, but the file has 1"},
};
/* clang-format on */

static void try_file(const char *what, const char *words) {
  fp4moe_tensors *set = NULL;
  fp4moe_status status = fp4moe_tensors_open(scratch_at("a.safetensors"), &set);
  if (words) {
    io_says(status, FP4MOE_INVALID, fp4moe_error_detail(), words, what);
    CHECK(strstr(fp4moe_error_detail(), scratch_at("a.safetensors")), "%s: file not named", what);
  } else {
    CHECK(!status, "%s: %s", what, fp4moe_error_detail());
  }
  fp4moe_tensors_close(set);
}

static void test_headers(void) {
  scratch_open();
  for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
    const struct header_case *h = &headers[i];
    size_t length = strlen(h->header);
    put_header(scratch_at("a.safetensors"), length, h->header, length, h->data_bytes);
    try_file(h->name, h->says);
  }
  scratch_close();
}

static void test_lengths(void) {
  scratch_open();
  const char *file = scratch_at("a.safetensors");
  scratch_put(file, "", 0);
  try_file("empty file", "0 bytes");
  scratch_put(file, "\2\0\0\0\0\0\0", 7);
  try_file("7 bytes", "7 bytes");
  put_header(file, 0, "", 0, 0);
  try_file("length 0", "begin with '{'");
  put_header(file, 3, "{}", 2, 0);
  try_file("header beyond the file", "header length 3");
  put_header(file, 100000001, "{}", 2, 0);
  try_file("header above the cap", "at most 100000000");
  put_header(file, UINT64_MAX, "{}", 2, 0);
  try_file("header length -1", "18446744073709551615");
  put_header(file, 4, "{}\0\0", 4, 0);
  try_file("NUL padding", "JSON");
  fp4moe_tensors *set = NULL;
  io_says(fp4moe_tensors_open(scratch_at("absent"), &set), FP4MOE_SYSTEM, fp4moe_error_detail(),
          "absent", "no file");
  io_says(fp4moe_tensors_open("/dev/zero", &set), FP4MOE_SYSTEM, fp4moe_error_detail(), "regular",
          "a device");
  io_says(fp4moe_tensors_open(scratch, &set), FP4MOE_SYSTEM, fp4moe_error_detail(), MODEL_FILE,
          "directory without a model");
  scratch_close();
}

/* Every cut of a real file is refused: none crashes, none opens. */
static void test_truncated(void) {
  size_t bytes;
  char *text = scratch_read(io_data_path("llama4_nvfp4_modelopt"), &bytes);
  scratch_open();
  CHECK(bytes > 11000, "%zu bytes", bytes);
  for (size_t n = 0; n < bytes; n += n < 1100 ? 7 : 501) {
    fp4moe_tensors *set = NULL;
    scratch_put(scratch_at("a.safetensors"), text, n);
    CHECK(fp4moe_tensors_open(scratch_at("a.safetensors"), &set) == FP4MOE_INVALID, "cut at %zu",
          n);
    fp4moe_tensors_close(set);
  }
  scratch_close();
  free(text);
}

/* Bombs: deep, and many values. */
static void test_bombs(void) {
  size_t n = 40 << 20;
  char *text = malloc(n);
  scratch_open();
  memset(text, '[', n);
  memcpy(text, "{\"a\":", 5);
  put_header(scratch_at("a.safetensors"), n, text, n, 0);
  try_file("nested", "nested deeper");
  for (size_t i = 6; i < n; i++) text[i] = i % 2 ? ',' : '0';
  put_header(scratch_at("a.safetensors"), n, text, n, 0);
  try_file("many values", "values");
  scratch_close();
  free(text);
}

/* Random changes of a real header: any answer but a fault. */
static void test_fuzz(void) {
  size_t bytes;
  char *text = scratch_read(io_data_path("llama4_nvfp4_modelopt"), &bytes);
  scratch_open();
  for (size_t round = 0; round < 300; round++) {
    char *changed = memcpy(malloc(bytes), text, bytes);
    for (size_t i = 0, n = 1 + check_below(4); i < n; i++)
      changed[check_below(1080)] = (char)check_random();
    scratch_put(scratch_at("a.safetensors"), changed, bytes);
    fp4moe_checkpoint *ckpt = NULL;
    fp4moe_status status = fp4moe_checkpoint_open(scratch_at("a.safetensors"), &ckpt);
    CHECK((status == FP4MOE_OK) == (ckpt != NULL), "round %zu", round);
    fp4moe_checkpoint_close(ckpt);
    free(changed);
  }
  scratch_close();
  free(text);
}

/* ---- Models of several files ---- */

/* qwen3 in two shards: experts 0 to 2 and the others; an index over both. */
static void put_shards(bundle *m) {
  FILE *index = fopen(scratch_at(INDEX), "w");
  static bundle half[2];
  half[0].n = half[1].n = 0;
  bundle_read(m, io_data_path("qwen3_nvfp4_modelopt"));
  fprintf(index, "{\"metadata\":{\"total_size\":1},\"weight_map\":{");
  for (size_t i = 0; i < m->n; i++) {
    int second = strstr(m->list[i].name, "experts.")[8] >= '3';
    half[second].list[half[second].n++] = m->list[i];
    fprintf(index, "%s\"%s\":\"shard-%d.safetensors\"", i ? "," : "", m->list[i].name, second);
  }
  fprintf(index, "}}");
  fclose(index);
  bundle_write(&half[0], scratch_at("shard-0.safetensors"));
  bundle_write(&half[1], scratch_at("shard-1.safetensors"));
}

static void try_directory(const char *what, const char *words) {
  fp4moe_tensors *set = NULL;
  io_says(fp4moe_tensors_open(scratch, &set), FP4MOE_INVALID, fp4moe_error_detail(), words, what);
  fp4moe_tensors_close(set);
}

static void test_shards(void) {
  static bundle m;
  scratch_open();
  put_shards(&m);
  fp4moe_checkpoint *ckpt = io_open_checkpoint(scratch);
  if (ckpt) {
    const fp4moe_checkpoint_layer *l = fp4moe_checkpoint_at(ckpt, 0);
    CHECK(l->fp4 && l->desc.experts == 6 && l->tensor_count == 72, "%s", l->reason);
    const fp4moe_tensors *set = fp4moe_checkpoint_tensors(ckpt);
    const fp4moe_tensor *last = fp4moe_tensors_at(set, 71), *first = fp4moe_tensors_at(set, 0);
    CHECK(strstr(last->file, "shard-1") && strstr(first->file, "shard-0"), "%s", last->file);
    char *data = malloc(last->bytes);
    CHECK(!fp4moe_tensors_read(set, last, 0, last->bytes, data), "%s", fp4moe_error_detail());
    CHECK(!memcmp(data, bundle_find(&m, last->name)->data, last->bytes), "data of %s", last->name);
    free(data);
  }
  fp4moe_checkpoint_close(ckpt);
  bundle_write(&m, scratch_at("shard-0.safetensors"));
  try_directory("a tensor twice", "is in two files");
  static bundle part = {.n = 1};
  part.list[0] = m.list[0];
  bundle_write(&part, scratch_at("shard-0.safetensors"));
  try_directory("a tensor missing", m.list[1].name);
  bundle_free(&m);
  scratch_close();
}

static void test_index(void) {
  static const char *const cases[][3] = {
      {"no map", "{\"metadata\":{}}", "weight_map"},
      {"list", "{\"weight_map\":[]}", "weight_map"},
      {"up", "{\"weight_map\":{\"a\":\"../model.safetensors\"}}", "'a'"},
      {"absolute", "{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "'a'"},
      {"dots", "{\"weight_map\":{\"a\":\"..\"}}", "'a'"},
      {"empty name", "{\"weight_map\":{\"a\":\"\"}}", "'a'"},
      {"number", "{\"weight_map\":{\"a\":1}}", "'a'"},
      {"duplicate", "{\"weight_map\":{\"a\":\"x\",\"a\":\"x\"}}", "duplicate"},
      {"no JSON", "weights", "JSON"},
      {"bad UTF-8", "{\"weight_map\":{\"\xff\":\"x\"}}", "JSON"},
  };
  scratch_open();
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    scratch_put_text(scratch_at(INDEX), cases[i][1]);
    try_directory(cases[i][0], cases[i][2]);
  }
  fp4moe_tensors *set = NULL;
  scratch_put_text(scratch_at(INDEX), "{\"weight_map\":{\"a\":\"gone.safetensors\"}}");
  io_says(fp4moe_tensors_open(scratch, &set), FP4MOE_SYSTEM, fp4moe_error_detail(), "gone",
          "no shard");
  remove(scratch_at(INDEX));
  put_header(scratch_at(MODEL_FILE), 2, "{}", 2, 0);
  CHECK(!fp4moe_tensors_open(scratch, &set), "%s", fp4moe_error_detail());
  fp4moe_tensors_close(set);
  scratch_close();
}

/* ---- Writing ---- */

static void test_write(void) {
  static const size_t shape[] = {2, 3}, none[] = {5, 0};
  static const float floats[6] = {1, -2, 3.5f, 0, 1e30f, -0.0f};
  static const unsigned char bytes[3] = {1, 2, 255};
  const fp4moe_tensor_data list[] = {
      {"odd", "U8", 1, shape + 1, bytes},
      {"\xc3\xa4 \"quoted\"", "F32", 2, shape, floats},
      {"scalar", "F32", 0, NULL, floats + 2},
      {"empty", "I64", 2, none, NULL},
  };
  fp4moe_tensors *set = NULL;
  float got[6];
  scratch_open();
  CHECK(!fp4moe_tensors_write(scratch_at(MODEL_FILE), list, 4), "%s", fp4moe_error_detail());
  CHECK(!fp4moe_tensors_open(scratch_at(MODEL_FILE), &set), "%s", fp4moe_error_detail());
  CHECK(set && fp4moe_tensors_count(set) == 4 && scratch_files("") == 1, "four tensors, one file");
  const fp4moe_tensor *t = set ? fp4moe_tensors_find(set, list[1].name) : NULL;
  if (CHECK(t && t->rank == 2 && t->shape[1] == 3 && t->file_offset % 4 == 0, "find")) {
    CHECK(!fp4moe_tensors_read(set, t, 0, sizeof got, got), "%s", fp4moe_error_detail());
    CHECK(!memcmp(got, floats, sizeof got), "data");
    CHECK(read_float(set, "scalar") == 3.5f && !fp4moe_tensors_find(set, "empty")->bytes, "scalar");
  }
  fp4moe_tensors_close(set);
  scratch_close();
}

static void test_write_refused(void) {
  static const size_t shape[] = {3}, huge[] = {SIZE_MAX, SIZE_MAX};
  const struct {
    fp4moe_tensor_data tensor;
    const char *says;
  } cases[] = {
      {{"a", "U9", 1, shape, "abc"}, "'U9'"},
      {{"a", "U8", 2, huge, "abc"}, "'a'"},
      {{"a", "U8", 1, NULL, "abc"}, "'a'"},
      {{"a", "U8", 1, shape, NULL}, "no data"},
      {{"a", "U8", 9, huge, "abc"}, "rank 9"},
      {{"b", "U8", 1, shape, "abc"}, "two tensors"},
      {{"\xff", "U8", 1, shape, "abc"}, "UTF-8"},
      {{NULL, "U8", 1, shape, "abc"}, "no name"},
      {{"a\nb", "U8", 1, shape, "abc"}, "plain"},
      {{"__metadata__", "U8", 1, shape, "abc"}, "no tensor"},
  };
  scratch_open();
  scratch_put_text(scratch_at(MODEL_FILE), "old");
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    const fp4moe_tensor_data list[] = {{"b", "U8", 1, shape, "abc"}, cases[i].tensor};
    io_says(fp4moe_tensors_write(scratch_at(MODEL_FILE), list, 2), FP4MOE_INVALID,
            fp4moe_error_detail(), cases[i].says, cases[i].says);
  }
  CHECK(scratch_files("") == 1, "%zu files", scratch_files(""));
  scratch_close();
}

/* A write that runs out of room half way, and one onto a directory. */
static void test_write_atomic(void) {
  static const size_t shape[] = {1 << 20};
  static char data[1 << 20];
  const fp4moe_tensor_data list[] = {{"a", "U8", 1, shape, data}};
  struct rlimit limit, small;
  scratch_open();
  scratch_put_text(scratch_at(MODEL_FILE), "old");
  void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
  getrlimit(RLIMIT_FSIZE, &limit);
  small = (struct rlimit){1 << 16, limit.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  fp4moe_status status = fp4moe_tensors_write(scratch_at(MODEL_FILE), list, 1);
  setrlimit(RLIMIT_FSIZE, &limit);
  signal(SIGXFSZ, handler);
  io_says(status, FP4MOE_SYSTEM, fp4moe_error_detail(), MODEL_FILE, "a full disk");
  CHECK(io_is_text(scratch_at(MODEL_FILE), "old") && scratch_files("") == 1,
        "the old file and nothing else");
  io_says(fp4moe_tensors_write(scratch, list, 1), FP4MOE_SYSTEM, fp4moe_error_detail(), scratch,
          "a directory");
  CHECK(io_is_text(scratch_at(MODEL_FILE), "old") && scratch_files("") == 1,
        "the directory is as before");
  io_says(fp4moe_tensors_write(scratch_at("no/such"), list, 1), FP4MOE_SYSTEM,
          fp4moe_error_detail(), "no/such", "no directory");
  CHECK(!fp4moe_tensors_write(scratch_at(MODEL_FILE), list, 1) &&
            !io_is_text(scratch_at(MODEL_FILE), "old"),
        "%s", fp4moe_error_detail());
  scratch_close();
}

void check_io_tensors(CU_pSuite suite) {
  check_test(suite, "tensors", test_tensors);
  check_test(suite, "headers", test_headers);
  check_test(suite, "lengths", test_lengths);
  check_test(suite, "truncated", test_truncated);
  check_test(suite, "bombs", test_bombs);
  check_test(suite, "fuzz", test_fuzz);
  check_test(suite, "shards", test_shards);
  check_test(suite, "index", test_index);
  check_test(suite, "write", test_write);
  check_test(suite, "write refused", test_write_refused);
  check_test(suite, "write atomic", test_write_atomic);
}
