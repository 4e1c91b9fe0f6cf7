/* run_input.c - one layer on the tokens of a file (run.h): what --output writes is what --check
 * compares, FP32. With --tokens the file's rows are repeated, and so is the tensor compared with.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layer.h"
#include "run.h"
#include "trial.h"

/* ---- The file's matrices ---- */

typedef struct matrix {
  size_t rows, columns, element; /* bytes */
  fp4moe_dtype dtype;
  char *data;
} matrix;

static const word float_words[] = {
    {"BF16", FP4MOE_BF16}, {"F16", FP4MOE_F16}, {"F32", FP4MOE_F32}, {NULL, 0}};
static const word int_words[] = {{"I32", FP4MOE_I32}, {"I64", FP4MOE_I64}, {NULL, 0}};
static const word f32_words[] = {{"F32", FP4MOE_F32}, {NULL, 0}};

/* A rank-2 tensor of one of the dtypes, with rows and columns as given (0: any). */
static matrix read_matrix(const fp4moe_tensors *io, const char *path, const char *name,
                          const word *dtypes, size_t rows, size_t columns) {
  const fp4moe_tensor *t = fp4moe_tensors_find(io, name);
  if (!t) die("%s: no tensor %s", path, name);
  while (dtypes->text && strcmp(dtypes->text, t->dtype) != 0) dtypes++;
  if (!dtypes->text) die("%s: tensor %s: dtype %s does not serve", path, name, t->dtype);
  if (t->rank != 2 || (rows && t->shape[0] != rows) || (columns && t->shape[1] != columns))
    die("%s: tensor %s: shape is not [%zu,%zu]", path, name, rows, columns);
  if (!t->bytes) die("%s: tensor %s: empty", path, name);
  matrix m = {.rows = t->shape[0], .columns = t->shape[1], .dtype = (fp4moe_dtype)dtypes->value};
  m.element = t->bytes / (m.rows * m.columns);
  m.data = allocate(t->bytes, 1);
  require(fp4moe_tensors_read(io, t, 0, t->bytes, m.data), NULL);
  return m;
}

/* The first `rows` rows, from the first again where they end. */
static void tile(matrix *m, size_t rows) {
  size_t row = m->columns * m->element;
  char *data = allocate(rows, row);
  for (size_t i = 0; i < rows; i++) memcpy(data + i * row, m->data + i % m->rows * row, row);
  free(m->data);
  m->data = data;
  m->rows = rows;
}

typedef struct input {
  matrix x, ids, weights, reference; /* reference: without data = none */
} input;

static input read_input(const run_options *o, size_t hidden) {
  fp4moe_tensors *io;
  require(fp4moe_tensors_open(o->input, &io), NULL);
  input in = {.x = read_matrix(io, o->input, "x", float_words, 0, hidden)};
  size_t rows = in.x.rows;
  in.ids = read_matrix(io, o->input, "topk_ids", int_words, rows, 0);
  in.weights = read_matrix(io, o->input, "topk_weights", f32_words, rows, in.ids.columns);
  if (o->check) in.reference = read_matrix(io, o->input, o->check, f32_words, rows, hidden);
  fp4moe_tensors_close(io);
  if (!o->tokens) return in;
  tile(&in.x, o->tokens);
  tile(&in.ids, o->tokens);
  tile(&in.weights, o->tokens);
  if (o->check) tile(&in.reference, o->tokens);
  return in;
}

/* ---- The call ---- */

/* --layer, or the only one. */
static size_t choose_layer(const run_state *r) {
  size_t count = fp4moe_checkpoint_layers(r->checkpoint), found = 0, at = 0;
  for (size_t i = 0; i < count; i++) {
    size_t number = fp4moe_checkpoint_at(r->checkpoint, i)->layer;
    if (r->options.layer != SIZE_MAX && number != r->options.layer) continue;
    if (!found++) at = i;
  }
  if (!found && r->options.layer != SIZE_MAX)
    die("%s: no MoE layer %zu", r->options.path, r->options.layer);
  if (!found) die("%s: no MoE layer", r->options.path);
  if (found > 1 && r->options.layer == SIZE_MAX)
    die("%s: %zu MoE layers; choose one with --layer", r->options.path, found);
  return at;
}

static fp4moe_batch make_batch(const input *in, float *y, fp4moe_stats *stats) {
  return (fp4moe_batch){.struct_size = sizeof(fp4moe_batch),
                        .tokens = in->x.rows,
                        .top_k = in->ids.columns,
                        .x = in->x.data,
                        .x_dtype = in->x.dtype,
                        .y = y,
                        .y_dtype = FP4MOE_F32,
                        .topk_ids = in->ids.data,
                        .ids_dtype = in->ids.dtype,
                        .topk_weights = (const float *)(const void *)in->weights.data,
                        .stats = stats};
}

static void write_output(const char *path, const float *y, size_t rows, size_t columns) {
  size_t shape[] = {rows, columns};
  fp4moe_tensor_data data = {.name = "y", .dtype = "F32", .rank = 2, .shape = shape, .data = y};
  require(fp4moe_tensors_write(path, &data, 1), NULL);
}

typedef struct result {
  double ms;
  difference diff;
  size_t threads;
  char kernels[2048];
  const fp4moe_layer *layer;
} result;

static void report(const run_options *o, const fp4moe_checkpoint_layer *l, size_t tokens,
                   const result *v) {
  const char *precision = word_of(precision_words, (int)o->precision);
  if (o->json) {
    print_json(json_pack("{sI ss ss sI sI so so so so so}", "layer", (json_int_t)l->layer, "family",
                         l->family, "precision", precision, "tokens", (json_int_t)tokens, "threads",
                         (json_int_t)v->threads, "rel_l2",
                         json_number(o->check ? v->diff.rel_l2 : NAN), "max_abs",
                         json_number(o->check ? v->diff.max_abs : NAN), "ms", json_number(v->ms),
                         "kernels", json_names(v->kernels), "nodes", run_nodes(v->layer)));
    return;
  }
  printf("layer %zu: %s, class %s, %zu tokens, %zu threads: %.3f ms\n", l->layer, l->family,
         precision, tokens, v->threads, v->ms);
  printf("kernels: %s\n", v->kernels);
  run_print_nodes(v->layer);
  if (o->check)
    printf("%s: rel_l2 %.3e, max_abs %.3e\n", o->check, v->diff.rel_l2, v->diff.max_abs);
}

static int judge(const run_options *o, const difference *d) {
  if (!o->check || d->rel_l2 <= o->tolerance) return 0;
  fprintf(stderr, "%s: %s: rel_l2 %.3e is above the tolerance %g\n", command_name, o->check,
          d->rel_l2, o->tolerance);
  return EXIT_CHECK;
}

static void free_input(input *in) {
  free(in->x.data);
  free(in->ids.data);
  free(in->weights.data);
  free(in->reference.data);
}

int run_input(run_state *r) {
  const run_options *o = &r->options;
  size_t i = choose_layer(r);
  const fp4moe_checkpoint_layer *l = fp4moe_checkpoint_at(r->checkpoint, i);
  fp4moe_layer_desc whole = run_desc(o, l);
  fp4moe_layer *layer;
  input in = read_input(o, whole.hidden);
  fp4moe_layer_desc desc = run_load(r, i, &whole, &layer);
  fp4moe_limits limits = {
      .struct_size = sizeof limits, .max_tokens = in.x.rows, .top_k = in.ids.columns};
  size_t bytes = fp4moe_workspace_bytes(layer, &limits);
  void *workspace = allocate_workspace(bytes);
  float *y = allocate(in.x.rows * desc.hidden, sizeof *y);
  fp4moe_stats stats = {.struct_size = sizeof stats,
                        .expert_rows = allocate(desc.experts, sizeof(uint32_t))};
  int32_t *map = allocate(whole.experts, sizeof *map);
  fp4moe_batch batch = make_batch(&in, y, &stats);
  require(fp4moe_slice_expert_map(&o->slice, &whole, map), "slice");
  batch.expert_map = map;
  batch.expert_map_count = whole.experts;
  result v = {.ms = run_time(layer, &batch, workspace, bytes, NULL).ms, .layer = layer};
  v.threads = stats.threads;
  fp4moe_layer_kernel_names(layer, stats.expert_rows, v.kernels, sizeof v.kernels);
  if (o->check)
    v.diff = compare(y, (const float *)(const void *)in.reference.data, in.x.rows * desc.hidden);
  if (o->output) write_output(o->output, y, in.x.rows, desc.hidden);
  report(o, l, in.x.rows, &v);
  fp4moe_layer_destroy(layer);
  free(workspace);
  free(y);
  free(stats.expert_rows);
  free(map);
  free_input(&in);
  return judge(o, &v.diff);
}
