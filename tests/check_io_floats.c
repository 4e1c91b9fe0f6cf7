/* check_io_floats.c - FP4 tensors as floats: against a decode of one's own, and what is refused.
 *
 * The decode here shares nothing with the library: an element at a time from its place in the file,
 * by the formats' definition (formats.h), rounding by rint on the exact product. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check_io.h"
#include "formats.h"
#include "io/floats.h"

/* ---- A decode of one's own ---- */

/* To 8 significant bits, fewer below 2^-126. */
static float nearest_bf16(double x) {
  int e = x == 0 ? -126 : ilogb(x);
  double quantum = ldexp(1, (e < -126 ? -126 : e) - 7);
  return (float)(rint(x / quantum) * quantum);
}

typedef struct sample {
  const char *file, *codes, *scales, *global; /* of the tensors, by their endings; global NULL: 1 */
  const char *name;                           /* ending of the floats' */
  size_t group, rank, shape[3];
  int swapped, reciprocal;
} sample;

static const sample samples[] = {
    {"gptoss_mxfp4",
     "gate_up_proj_blocks",
     "gate_up_proj_scales",
     NULL,
     "experts.gate_up_proj",
     32,
     3,
     {4, 192, 128},
     0,
     0},
    {"gptoss_mxfp4",
     "down_proj_blocks",
     "down_proj_scales",
     NULL,
     "experts.down_proj",
     32,
     3,
     {4, 128, 96},
     0,
     0},
    {"dsv4_mxfp4", "0.w2.weight", "0.w2.scale", NULL, "0.w2.weight", 32, 2, {64, 96}, 0, 0},
    {"qwen3_nvfp4_modelopt",
     "1.up_proj.weight",
     "1.up_proj.weight_scale",
     "1.up_proj.weight_scale_2",
     "1.up_proj.weight",
     16,
     2,
     {80, 96},
     0,
     0},
    {"qwen3_nvfp4_ct",
     "0.down_proj.weight_packed",
     "0.down_proj.weight_scale",
     "0.down_proj.weight_global_scale",
     "0.down_proj.weight",
     16,
     2,
     {96, 80},
     0,
     1},
    {"nemotron_nvfp4_modelopt",
     "1.up_proj.weight",
     "1.up_proj.weight_scale",
     "1.up_proj.weight_scale_2",
     "1.up_proj.weight",
     16,
     2,
     {112, 64},
     0,
     0},
    {"llama4_nvfp4_modelopt",
     "gate_up_proj",
     "gate_up_proj_weight_scale",
     "gate_up_proj_weight_scale_2",
     "experts.gate_up_proj",
     16,
     3,
     {2, 64, 96},
     1,
     0},
    {"llama4_nvfp4_modelopt",
     "experts.down_proj",
     "down_proj_weight_scale",
     "down_proj_weight_scale_2",
     "experts.down_proj",
     16,
     3,
     {2, 48, 64},
     1,
     0},
};
enum { SAMPLES = sizeof samples / sizeof *samples };

/* Global of (slice, output row n of N): one, one a slice, or gate's and up's. */
static float global_of(const sample *s, const fp4moe_tensor_data *g, int interleaved, size_t slice,
                       size_t n, size_t outputs) {
  float value = 1;
  size_t i = 0;
  if (g && g->rank && g->shape[0] > 1) i = slice;
  if (g && g->rank == 2) i = 2 * slice + (interleaved ? n % 2 : n >= outputs / 2);
  if (g) memcpy(&value, (const char *)g->data + 4 * i, 4);
  return s->reciprocal ? 1.0f / value : value;
}

/* The exact element (slice, r, c) of the floats. */
static double exact(const sample *s, bundle *m, int interleaved, size_t slice, size_t r, size_t c) {
  const uint8_t *codes = bundle_find(m, s->codes)->data, *scales = bundle_find(m, s->scales)->data;
  size_t rows = s->shape[s->rank - 2], columns = s->shape[s->rank - 1];
  size_t k = s->swapped ? r : c, n = s->swapped ? c : r, at, block;
  if (s->swapped) {
    at = (slice * rows / 2 + k / 2) * columns + n;
    block = (slice * rows / s->group + k / s->group) * columns + n;
  } else {
    at = (slice * rows + n) * columns / 2 + k / 2;
    block = (slice * rows + n) * columns / s->group + k / s->group;
  }
  double scale = s->group == 32 ? e8m0_value(scales[block]) : e4m3_value(scales[block]);
  float global = global_of(s, s->global ? bundle_find(m, s->global) : NULL, interleaved, slice, n,
                           s->swapped ? columns : rows);
  return e2m1_value(k % 2 ? codes[at] >> 4 : codes[at] & 15) * scale * (double)global;
}

static void compare(const sample *s, bundle *m, int interleaved, fp4moe_dtype dtype,
                    const void *got) {
  size_t slices = s->rank == 3 ? s->shape[0] : 1, i = 0;
  for (size_t slice = 0; slice < slices; slice++)
    for (size_t r = 0; r < s->shape[s->rank - 2]; r++)
      for (size_t c = 0; c < s->shape[s->rank - 1]; c++, i++) {
        double x = exact(s, m, interleaved, slice, r, c);
        float want = dtype == FP4MOE_BF16 ? nearest_bf16(x) : (float)x, have;
        uint32_t bits = dtype == FP4MOE_BF16 ? (uint32_t)((const uint16_t *)got)[i] << 16
                                             : ((const uint32_t *)got)[i];
        memcpy(&have, &bits, 4);
        if (!CHECK(!memcmp(&have, &want, 4), "%s %s, dtype %d, [%zu][%zu][%zu]: %a, expected %a",
                   s->file, s->codes, (int)dtype, slice, r, c, (double)have, (double)want))
          return;
      }
}

/* The bundle as a file, its tensor in both dtypes. */
static void unpack(const sample *s, bundle *m, int interleaved) {
  fp4moe_tensors *set = NULL;
  struct io_fp4 f;
  bundle_write(m, scratch_at(MODEL_FILE));
  const char *name = bundle_find(m, s->codes)->name;
  CHECK(!fp4moe_tensors_open(scratch_at(MODEL_FILE), &set), "%s", fp4moe_error_detail());
  if (CHECK(!fp4moe_io_fp4_find(set, name, &f), "%s", fp4moe_error_detail())) {
    size_t length = strlen(f.name), tail = strlen(s->name);
    CHECK(length > tail && !strcmp(f.name + length - tail, s->name), "the name is %s", f.name);
    CHECK(f.rank == s->rank && !memcmp(f.shape, s->shape, f.rank * sizeof *f.shape), "%s: shape",
          f.name);
    uint32_t *floats = malloc(fp4moe_io_fp4_count(&f) * sizeof *floats);
    for (int dtype = FP4MOE_F32; dtype <= FP4MOE_BF16; dtype += FP4MOE_BF16) {
      fp4moe_status status = fp4moe_io_fp4_read(set, &f, (fp4moe_dtype)dtype, floats);
      if (CHECK(!status, "%s", fp4moe_error_detail()))
        compare(s, m, interleaved, (fp4moe_dtype)dtype, floats);
    }
    free(floats);
    fp4moe_io_fp4_release(&f);
  }
  fp4moe_tensors_close(set);
}

static void every_naming(void) {
  scratch_open();
  for (int i = 0; i < SAMPLES; i++) {
    bundle m;
    bundle_read(&m, io_data_path(samples[i].file));
    unpack(&samples[i], &m, 0);
    bundle_free(&m);
  }
  scratch_close();
}

/* Every scale, and globals whose product with 1.5 * 13 is beside a tie of BF16 by less than FP32
 * holds, or so small that the weights are subnormal. */
static void rounding(void) {
  static const float globals[] = {0x1.a5be5cp-5f, 0x1.a90690p-5f, 0x1p-130f, 0x1.8p-137f, 0x1p120f};
  static uint8_t scales[80 * 6];
  for (size_t i = 0; i < sizeof scales; i++) scales[i] = (uint8_t)(i % 127 | (i / 127 & 1) << 7);
  const sample *s = &samples[3];
  scratch_open();
  for (int i = 0; i < 5; i++) {
    bundle m;
    bundle_read(&m, io_data_path(s->file));
    bundle_find(&m, s->global)->data = &globals[i];
    bundle_find(&m, s->scales)->data = scales;
    unpack(s, &m, 0);
    bundle_free(&m);
  }
  scratch_close();
}

/* E8M0 at both ends: 2^-127 times 0.5, 2^127 times 6. */
static void extreme_scales(void) {
  static uint8_t scales[4 * 128 * 3];
  bundle m;
  for (size_t i = 0; i < sizeof scales; i++) scales[i] = (uint8_t)(i % 2 ? 254 - i % 5 : i % 7);
  scratch_open();
  bundle_read(&m, io_data_path(samples[1].file));
  bundle_find(&m, samples[1].scales)->data = scales;
  unpack(&samples[1], &m, 0);
  bundle_free(&m);
  scratch_close();
}

/* A global for each expert, then for each gate and up: halves, and interleaved beside a bias. */
static void many_globals(void) {
  static const float globals[] = {0.5f, 3, 0.7f, 11};
  static const size_t each[] = {2}, pairs[] = {2, 2}, one[] = {1};
  const sample *s = &samples[6];
  scratch_open();
  for (int way = 0; way < 3; way++) {
    bundle m;
    bundle_read(&m, io_data_path(s->file));
    fp4moe_tensor_data *g = bundle_find(&m, s->global);
    g->rank = way ? 2 : 1;
    g->shape = way ? pairs : each;
    g->data = globals;
    if (way == 2)
      m.list[m.n++] = (fp4moe_tensor_data){
          "language_model.model.layers.0.feed_forward.experts.gate_up_proj_bias", "F32", 1, one,
          globals};
    unpack(s, &m, way == 2);
    bundle_free(&m);
  }
  scratch_close();
}

/* ---- Refusals ---- */

typedef void change_fn(fp4moe_tensor_data *t);

static void gone(fp4moe_tensor_data *t) { t->name = "elsewhere"; }
static void as_bf16(fp4moe_tensor_data *t) {
  static const size_t shape[] = {80, 24};
  t->dtype = "BF16";
  t->shape = shape;
}
static void as_e5m2(fp4moe_tensor_data *t) { t->dtype = "F8_E5M2"; }
static void other_shape(fp4moe_tensor_data *t) {
  static const size_t shape[] = {60, 8};
  t->shape = shape;
}
static void flat(fp4moe_tensor_data *t) {
  static const size_t shape[] = {480};
  t->rank = 1;
  t->shape = shape;
}
static void one_slice(fp4moe_tensor_data *t) {
  static const size_t shape[] = {1, 4, 96};
  t->shape = shape;
}
static void with_nan(fp4moe_tensor_data *t) { ((uint8_t *)(uintptr_t)t->data)[77] = 0xff; }
static void zero(fp4moe_tensor_data *t) { memset((void *)(uintptr_t)t->data, 0, 4); }
static void three(fp4moe_tensor_data *t) {
  static const size_t shape[] = {3};
  static const float values[3] = {1, 1, 1};
  t->rank = 1;
  t->shape = shape;
  t->data = values;
}

static const struct {
  int sample;
  const char *ending;
  change_fn *change;
  const char *words;
} refusals[] = {
    {3, "1.up_proj.weight_scale", gone, "1.up_proj.weight_scale' nor 'model"},
    {3, "1.up_proj.weight_scale_2", gone, "1.up_proj.weight_scale_2' is missing"},
    {4, "0.down_proj.weight_global_scale", gone, "0.down_proj.weight_global_scale' is missing"},
    {1, "down_proj_scales", gone, "down_proj_scales'"},
    {3, "1.up_proj.weight", as_bf16, "dtype BF16"},
    {3, "1.up_proj.weight_scale", as_e5m2, "dtype F8_E5M2, expected F8_E4M3"},
    {3, "1.up_proj.weight_scale", other_shape, "[60, 8], which does not fit the codes [80, 48]"},
    {6, "gate_up_proj_weight_scale", one_slice, "[1, 4, 96], which does not fit the codes [2,"},
    {3, "1.up_proj.weight_scale", flat, "[480], which does not fit"},
    {3, "1.up_proj.weight_scale", with_nan, "1.up_proj.weight_scale' is NaN at index 77"},
    {1, "down_proj_scales", with_nan, "down_proj_scales' is NaN at index 77"},
    {4, "0.down_proj.weight_global_scale", zero, "weight_global_scale' is 0 at index 0"},
    {3, "1.up_proj.weight_scale_2", three, "[3], which does not fit"},
};

static void refused(void) {
  static uint8_t out[4 * 192 * 128 * 4];
  struct io_fp4 f;
  scratch_open();
  for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
    const sample *s = &samples[refusals[i].sample];
    fp4moe_tensors *set = NULL;
    bundle m;
    bundle_read(&m, io_data_path(s->file));
    const char *name = bundle_find(&m, s->codes)->name;
    refusals[i].change(bundle_find(&m, refusals[i].ending));
    bundle_write(&m, scratch_at(MODEL_FILE));
    CHECK(!fp4moe_tensors_open(scratch_at(MODEL_FILE), &set), "%s", fp4moe_error_detail());
    fp4moe_status status = fp4moe_io_fp4_find(set, name, &f);
    if (!status) {
      status = fp4moe_io_fp4_read(set, &f, FP4MOE_F32, out);
      fp4moe_io_fp4_release(&f);
    }
    io_says(status, FP4MOE_INVALID, fp4moe_error_detail(), refusals[i].words, refusals[i].ending);
    io_says(fp4moe_io_fp4_find(set, "absent", &f), FP4MOE_INVALID, fp4moe_error_detail(),
            "'absent'", "absent");
    fp4moe_tensors_close(set);
    bundle_free(&m);
  }
  scratch_close();
}

void check_io_floats(void) {
  CU_pSuite s = check_suite("floats");
  check_test(s, "floats of every naming", every_naming);
  check_test(s, "floats, rounded once", rounding);
  check_test(s, "floats, extreme scales", extreme_scales);
  check_test(s, "floats, many globals", many_globals);
  check_test(s, "floats, refusals", refused);
}
