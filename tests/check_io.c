/* check_io.c - what the tests of files and of checkpoints share (check_io.h), and their suites. */
#include "check_io.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Checkpoints ---- */

const char *io_data_path(const char *name) {
  static char path[160];
  snprintf(path, sizeof path, "tests/data/layers/%s.safetensors", name);
  return path;
}

fp4moe_checkpoint *io_open_with(const char *path, int verify, int copy) {
  const fp4moe_open_options options = {sizeof options, verify, copy};
  fp4moe_checkpoint *ckpt = NULL;
  CHECK(!fp4moe_checkpoint_open_with(path, &options, &ckpt), "%s: %s", path, fp4moe_error_detail());
  return ckpt;
}

fp4moe_checkpoint *io_open_checkpoint(const char *path) {
  fp4moe_checkpoint *ckpt = NULL;
  CHECK(!fp4moe_checkpoint_open(path, &ckpt), "%s: %s", path, fp4moe_error_detail());
  return ckpt;
}

fp4moe_status io_load(const fp4moe_checkpoint *ckpt) {
  fp4moe_context *ctx = context_of(0);
  fp4moe_layer *layer = NULL;
  fp4moe_status status = fp4moe_checkpoint_load_layer(ckpt, 0, ctx, NULL, &layer);
  CHECK((status == FP4MOE_OK) == (layer != NULL), "a layer on failure");
  fp4moe_layer_destroy(layer);
  fp4moe_context_destroy(ctx);
  return status;
}

void io_pack(const char *source, const char *name) {
  fp4moe_checkpoint *ckpt = io_open_checkpoint(io_data_path(source));
  CHECK(ckpt && !fp4moe_checkpoint_pack(ckpt, scratch_at(name), NULL), "%s", fp4moe_error_detail());
  fp4moe_checkpoint_close(ckpt);
}

int io_same_activation(const fp4moe_activation *a, const fp4moe_activation *b) {
  return a->kind == b->kind && a->gated == b->gated && a->alpha == b->alpha && a->beta == b->beta &&
         a->limit == b->limit && a->linear_beta == b->linear_beta;
}

int io_says(fp4moe_status got, fp4moe_status want, const char *text, const char *words,
            const char *what) {
  return CHECK(got == want && strstr(text, words) && !strchr(text, '\n'), "%s: %s '%s', want '%s'",
               what, fp4moe_status_name(got), text, words);
}

int io_is_text(const char *path, const char *text) {
  char got[16] = "";
  FILE *f = fopen(path, "rb");
  size_t bytes = f ? fread(got, 1, sizeof got, f) : 0;
  if (f) fclose(f);
  return bytes == strlen(text) && !memcmp(got, text, bytes);
}

/* ---- A file in memory, to change and write again ---- */

static void *keep(bundle *m, void *memory) {
  if (!memory || m->kept_count == BUNDLE_KEPT) abort();
  return m->kept[m->kept_count++] = memory;
}

static void *copy(bundle *m, const void *data, size_t bytes) {
  return memcpy(keep(m, malloc(bytes + 1)), data, bytes);
}

void bundle_read(bundle *m, const char *path) {
  fp4moe_tensors *set;
  m->n = m->kept_count = 0;
  if (!CHECK(!fp4moe_tensors_open(path, &set), "%s: %s", path, fp4moe_error_detail())) return;
  for (const fp4moe_tensor *t; (t = fp4moe_tensors_at(set, m->n)) && m->n < BUNDLE_TENSORS;
       m->n++) {
    char *data = keep(m, malloc(t->bytes + 1));
    CHECK(!fp4moe_tensors_read(set, t, 0, t->bytes, data), "%s", fp4moe_error_detail());
    m->list[m->n] = (fp4moe_tensor_data){copy(m, t->name, strlen(t->name) + 1),
                                         copy(m, t->dtype, strlen(t->dtype) + 1), t->rank,
                                         copy(m, t->shape, sizeof t->shape), data};
  }
  fp4moe_tensors_close(set);
}

void bundle_free(bundle *m) {
  for (size_t i = 0; i < m->kept_count; i++) free(m->kept[i]);
}

void bundle_write(const bundle *m, const char *path) {
  CHECK(!fp4moe_tensors_write(path, m->list, m->n), "%s", fp4moe_error_detail());
}

fp4moe_checkpoint *bundle_open(const bundle *m) {
  bundle_write(m, scratch_at(MODEL_FILE));
  return io_open_checkpoint(scratch_at(MODEL_FILE));
}

void bundle_copy(const char *name) {
  static bundle m;
  bundle_read(&m, io_data_path(name));
  bundle_write(&m, scratch_at(MODEL_FILE));
  bundle_free(&m);
}

fp4moe_tensor_data *bundle_find(bundle *m, const char *ending) {
  for (size_t i = 0; i < m->n; i++) {
    size_t length = strlen(m->list[i].name), tail = strlen(ending);
    if (length >= tail && strcmp(m->list[i].name + length - tail, ending) == 0) return &m->list[i];
  }
  abort();
}

/* ---- Inputs and reference outputs ---- */

/* A matrix with its rows repeated until there are `rows`. */
static void *tiled(const fp4moe_tensor_data *t, size_t element, size_t rows) {
  const size_t stride = t->shape[1] * element;
  uint8_t *out = malloc(rows * stride);
  for (size_t r = 0; r < rows; r++)
    memcpy(out + r * stride, (const uint8_t *)t->data + r % t->shape[0] * stride, stride);
  return out;
}

fp4moe_batch io_batch(bundle *io, size_t tokens) {
  const fp4moe_tensor_data *x = bundle_find(io, "x"), *ids = bundle_find(io, "topk_ids");
  if (!tokens) tokens = x->shape[0];
  return (fp4moe_batch){.struct_size = sizeof(fp4moe_batch),
                        .tokens = tokens,
                        .top_k = ids->shape[1],
                        .x = tiled(x, sizeof(uint16_t), tokens),
                        .x_dtype = FP4MOE_BF16,
                        .topk_ids = tiled(ids, sizeof(int32_t), tokens),
                        .ids_dtype = FP4MOE_I32,
                        .topk_weights =
                            tiled(bundle_find(io, "topk_weights"), sizeof(float), tokens)};
}

void io_batch_free(fp4moe_batch *b) {
  free((void *)(uintptr_t)b->x);
  free((void *)(uintptr_t)b->topk_ids);
  free((void *)(uintptr_t)b->topk_weights);
}

const double io_bounds[3] = {1e-5, 5e-3, 1.5e-2};

double io_error(const fp4moe_tensor_data *reference, size_t tokens, const float *y) {
  const size_t given = reference->shape[0] * reference->shape[1],
               floats = tokens * reference->shape[1];
  double *want = malloc(floats * sizeof *want);
  for (size_t i = 0; i < floats; i++) want[i] = (double)((const float *)reference->data)[i % given];
  double error = rel_l2(floats, y, want);
  free(want);
  return error;
}

/* ---- Suites ---- */

void check_io(void) {
  CU_pSuite suite = check_suite("io");
  check_io_tensors(suite);
  check_io_layers(suite);
  check_io_config(suite);
  check_io_families(suite);
  check_io_gguf(suite);
  check_io_gguf_headers(suite);
  check_io_linear(suite);
  check_io_slices(suite);
  check_io_data();
  check_io_class();
  check_io_floats();
  check_io_packed();
  check_io_faults();
  check_io_modes();
}
