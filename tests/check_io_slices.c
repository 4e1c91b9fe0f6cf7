/* check_io_slices.c - one rank's part of a layer.
 *
 * The outputs of all ranks must add up to the reference output of the whole layer, however it is
 * cut: experts of uneven number, I of rows, of interleaved rows and of transposed halves, with a
 * down bias that must count once. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check_io.h"

static const struct cut {
  const char *file, *io;
  fp4moe_split split;
  size_t ranks;
} cuts[] = {
    {"gptoss_mxfp4", "gptoss_mxfp4.io", FP4MOE_SPLIT_INTERMEDIATE, 3},
    {"gptoss_mxfp4", "gptoss_mxfp4.ep.io", FP4MOE_SPLIT_EXPERTS, 3},
    {"gptoss_mxfp4", "gptoss_mxfp4.io", FP4MOE_SPLIT_EXPERTS, 4},
    {"gptoss_mxfp4", "gptoss_mxfp4.io", FP4MOE_SPLIT_EXPERTS, 1},
    {"dsv4_mxfp4", "dsv4_mxfp4.io", FP4MOE_SPLIT_INTERMEDIATE, 3},
    {"qwen3_nvfp4_ct", "qwen3_nvfp4.io", FP4MOE_SPLIT_INTERMEDIATE, 5},
    {"qwen3_nvfp4_modelopt", "qwen3_nvfp4.io", FP4MOE_SPLIT_EXPERTS, 4},
    {"nemotron_nvfp4_modelopt", "nemotron_nvfp4.io", FP4MOE_SPLIT_INTERMEDIATE, 7},
    {"llama4_nvfp4_modelopt", "llama4_nvfp4.io", FP4MOE_SPLIT_INTERMEDIATE, 3},
    {"llama4_nvfp4_modelopt", "llama4_nvfp4.io", FP4MOE_SPLIT_EXPERTS, 2},
};

/* Adds the rank's output to sum. */
static void add_rank(const fp4moe_checkpoint *ckpt, fp4moe_context *ctx,
                     const fp4moe_layer_desc *desc, const fp4moe_slice *slice, bundle *io,
                     double *sum) {
  fp4moe_layer *layer = NULL;
  int32_t map[16];
  CHECK(!fp4moe_slice_expert_map(slice, desc, map), "%s", fp4moe_error_detail());
  if (!CHECK(!fp4moe_checkpoint_load_slice(ckpt, 0, ctx, desc, slice, &layer), "%s",
             fp4moe_error_detail()))
    return;
  fp4moe_batch b = io_batch(io, 0);
  const size_t n = b.tokens * desc->hidden;
  float *y = malloc(n * sizeof *y);
  b.y = y, b.expert_map = map, b.expert_map_count = desc->experts;
  CHECK(!run(layer, &b), "%s", fp4moe_error_detail());
  for (size_t i = 0; i < n; i++) sum[i] += (double)y[i];
  fp4moe_layer_destroy(layer);
  io_batch_free(&b);
  free(y);
}

static void try_cut(const struct cut *c, fp4moe_context *ctx, int precision) {
  static bundle io;
  fp4moe_checkpoint *ckpt = io_open_checkpoint(io_data_path(c->file));
  bundle_read(&io, io_data_path(c->io));
  fp4moe_layer_desc desc = fp4moe_checkpoint_at(ckpt, 0)->desc;
  const fp4moe_tensor_data *y = bundle_find(&io, "y");
  size_t n = y->shape[0] * y->shape[1];
  double *sum = calloc(n, sizeof *sum);
  float *got = malloc(n * sizeof *got);
  desc.precision = (fp4moe_precision)precision;
  for (size_t r = 0; r < c->ranks; r++) {
    const fp4moe_slice slice = {sizeof slice, c->split, r, c->ranks};
    add_rank(ckpt, ctx, &desc, &slice, &io, sum);
  }
  for (size_t i = 0; i < n; i++) got[i] = (float)sum[i];
  double error = io_error(y, y->shape[0], got);
  CHECK(error <= io_bounds[precision], "%s, split %d, %zu ranks, class %d: rel_l2 %g", c->file,
        (int)c->split, c->ranks, precision, error);
  free(sum);
  free(got);
  bundle_free(&io);
  fp4moe_checkpoint_close(ckpt);
}

static void test_sum(void) {
  fp4moe_context *ctx = context_of(0);
  for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++)
    for (int precision = 0; precision < 3; precision++) try_cut(&cuts[i], ctx, precision);
  fp4moe_context_destroy(ctx);
}

/* ---- The arithmetic of slices ---- */

/* 10 experts of I 1440: 45 groups of MXFP4, 90 of NVFP4. */
static const struct slice_case {
  fp4moe_slice slice;
  fp4moe_format format;
  size_t experts, intermediate, first; /* expected */
  const char *says;                    /* NULL: legal */
} slice_cases[] = {
    {{sizeof(fp4moe_slice), FP4MOE_SPLIT_NONE, 7, 0}, FP4MOE_MXFP4, 10, 1440, 0, NULL},
    {{sizeof(fp4moe_slice), FP4MOE_SPLIT_EXPERTS, 0, 3}, FP4MOE_MXFP4, 3, 1440, 0, NULL},
    {{sizeof(fp4moe_slice), FP4MOE_SPLIT_EXPERTS, 1, 3}, FP4MOE_MXFP4, 3, 1440, 3, NULL},
    {{sizeof(fp4moe_slice), FP4MOE_SPLIT_EXPERTS, 2, 3}, FP4MOE_MXFP4, 4, 1440, 6, NULL},
    {{sizeof(fp4moe_slice), FP4MOE_SPLIT_EXPERTS, 3, 3}, FP4MOE_MXFP4, 0, 0, 0, "rank is 3 of 3"},
    {{sizeof(fp4moe_slice), FP4MOE_SPLIT_EXPERTS, 0, 0}, FP4MOE_MXFP4, 0, 0, 0, "rank is 0 of 0"},
    {{sizeof(fp4moe_slice), FP4MOE_SPLIT_EXPERTS, 0, 11}, FP4MOE_MXFP4, 0, 0, 0, "has 10 experts"},
    {{sizeof(fp4moe_slice), FP4MOE_SPLIT_INTERMEDIATE, 4, 5}, FP4MOE_MXFP4, 10, 288, 1152, NULL},
    {{sizeof(fp4moe_slice), FP4MOE_SPLIT_INTERMEDIATE, 0, 2},
     FP4MOE_MXFP4,
     0,
     0,
     0,
     "1440 / 2 ranks = 720 remainder 0: not a multiple of the 32"},
    {{sizeof(fp4moe_slice), FP4MOE_SPLIT_INTERMEDIATE, 1, 2}, FP4MOE_NVFP4, 10, 720, 720, NULL},
    {{sizeof(fp4moe_slice), FP4MOE_SPLIT_INTERMEDIATE, 1, 4},
     FP4MOE_NVFP4,
     0,
     0,
     0,
     "1440 / 4 ranks = 360 remainder 0: not a multiple of the 16"},
    {{sizeof(fp4moe_slice), FP4MOE_SPLIT_INTERMEDIATE, 1, 44},
     FP4MOE_NVFP4,
     0,
     0,
     0,
     "remainder 32"},
    {{sizeof(fp4moe_slice), FP4MOE_SPLIT_INTERMEDIATE, 1, 1441},
     FP4MOE_NVFP4,
     0,
     0,
     0,
     "1441 ranks = 0"},
    {{sizeof(fp4moe_slice), (fp4moe_split)3, 0, 1}, FP4MOE_NVFP4, 0, 0, 0, "split is 3"},
};

static void test_slices(void) {
  for (size_t i = 0; i < sizeof slice_cases / sizeof *slice_cases; i++) {
    const struct slice_case *c = &slice_cases[i];
    const fp4moe_layer_desc whole = {.struct_size = sizeof whole,
                                     .hidden = 64,
                                     .intermediate = 1440,
                                     .experts = 10,
                                     .format = c->format};
    fp4moe_layer_desc part;
    size_t first = 99;
    fp4moe_status status = fp4moe_slice_desc(&c->slice, &whole, &part, &first);
    if (c->says)
      io_says(status, FP4MOE_INVALID, fp4moe_error_detail(), c->says, c->says);
    else
      CHECK(!status && part.experts == c->experts && part.intermediate == c->intermediate &&
                part.hidden == 64 && first == c->first,
            "case %zu: %zu experts, intermediate %zu, from %zu", i, part.experts, part.intermediate,
            first);
  }
}

static void test_map(void) {
  const fp4moe_layer_desc whole = {.struct_size = sizeof whole, .experts = 5};
  const fp4moe_slice slice = {sizeof slice, FP4MOE_SPLIT_EXPERTS, 1, 2};
  const int32_t want[5] = {-1, -1, 0, 1, 2};
  int32_t map[5];
  CHECK(!fp4moe_slice_expert_map(&slice, &whole, map), "%s", fp4moe_error_detail());
  CHECK_SAME(map, want, 5, sizeof *map, "map of rank 1 of 2");
}

/* Expert 4 of 6, columns 64 to 79 of 80 are the last rank's either way. A NaN in what a rank reads
 * is told with the layer's numbers; in what others read it is not seen. */
static void test_broken(void) {
  static bundle m;
  fp4moe_context *ctx = context_of(0);
  fp4moe_layer *layer = NULL;
  scratch_open();
  bundle_read(&m, io_data_path("qwen3_nvfp4_modelopt"));
  ((uint8_t *)(uintptr_t)bundle_find(&m, "experts.4.down_proj.weight_scale")->data)[4] = 0x7f;
  fp4moe_checkpoint *ckpt = bundle_open(&m);
  bundle_free(&m);
  for (size_t r = 0; r < 5; r++)
    for (int split = FP4MOE_SPLIT_EXPERTS; split <= FP4MOE_SPLIT_INTERMEDIATE; split++) {
      const fp4moe_slice slice = {sizeof slice, (fp4moe_split)split, r, 5};
      fp4moe_status status = fp4moe_checkpoint_load_slice(ckpt, 0, ctx, NULL, &slice, &layer);
      if (r == 4)
        io_says(status, FP4MOE_INVALID, fp4moe_error_detail(),
                split == FP4MOE_SPLIT_EXPERTS ? "weight_scale': expert 4: down"
                                              : "expert 4, intermediate from 64: down",
                "a NaN");
      else if (CHECK(!status, "rank %zu: %s", r, fp4moe_error_detail()))
        fp4moe_layer_destroy(layer);
    }
  fp4moe_checkpoint_close(ckpt);
  fp4moe_context_destroy(ctx);
  scratch_close();
}

void check_io_slices(CU_pSuite suite) {
  check_test(suite, "slices add up", test_sum);
  check_test(suite, "slice sizes", test_slices);
  check_test(suite, "slice map", test_map);
  check_test(suite, "slice broken", test_broken);
}
