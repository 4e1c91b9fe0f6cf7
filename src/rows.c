/* rows.c - calls whose rows come with their expert, or with one id each: y has a row for each row
 * of x, nothing is added up (fp4moe.h: experts, matmul_grouped, matmul_indexed).
 *
 * Each is the fused call (forward.c) in a form of its own: a batch whose strides lead from token to
 * token or from block to block, and the form that says how rows lie within. */
#include "call.h"
#include "status.h"

/* An error names the field as the caller knows it: "rows" and ".dtype", or "" and "x_dtype". */
static fp4moe_status check_dtype(const char *of, const char *field, fp4moe_dtype dtype) {
  if ((unsigned)dtype <= FP4MOE_BF16) return FP4MOE_OK;
  return fp4moe_fail(FP4MOE_INVALID, "%s%s is %d, expected F32, F16 or BF16", of, field,
                     (int)dtype);
}

/* A stride of 0 is that of `bytes`, which is the least. */
static fp4moe_status fill_stride(const char *of, const char *field, size_t *stride, size_t bytes) {
  if (!*stride) *stride = bytes;
  if (*stride >= bytes) return FP4MOE_OK;
  return fp4moe_fail(FP4MOE_INVALID, "%s%s is %zu, expected at least %zu bytes", of, field, *stride,
                     bytes);
}

/* ---- Rows by expert ---- */

/* The two matrices of a call, and how it calls them. */
typedef struct {
  const char *in_name, *out_name;
  fp4moe_rows in, out;
} matrices;

static fp4moe_status take_rows(const fp4moe_rows *from, int batched, const char *name,
                               size_t columns, fp4moe_rows *r) {
  fp4moe_status status = fp4moe_take_struct(r, sizeof *r, from, "fp4moe_rows");
  if (status || (status = check_dtype(name, ".dtype", r->dtype))) return status;
  if (!r->max_rows != !batched)
    return fp4moe_fail(FP4MOE_INVALID, "%s.max_rows is %zu, the rows are %s", name, r->max_rows,
                       batched ? "batched" : "grouped");
  status = fill_stride(name, ".stride", &r->stride, columns * fp4moe_dtype_bytes(r->dtype));
  return status ? status
                : fill_stride(name, ".expert_stride", &r->expert_stride, r->max_rows * r->stride);
}

static fp4moe_status check_offsets(size_t experts, const matrices *m) {
  const int64_t *offsets = m->in.expert_offsets;
  if (!offsets) return fp4moe_fail(FP4MOE_INVALID, "%s.expert_offsets is NULL", m->in_name);
  if (offsets[0])
    return fp4moe_fail(FP4MOE_INVALID, "%s.expert_offsets[0] is %lld, expected 0", m->in_name,
                       (long long)offsets[0]);
  for (size_t e = 0; e < experts; e++)
    if (offsets[e + 1] < offsets[e])
      return fp4moe_fail(FP4MOE_INVALID, "%s.expert_offsets[%zu] is %lld after %lld", m->in_name,
                         e + 1, (long long)offsets[e + 1], (long long)offsets[e]);
  if ((uint64_t)offsets[experts] != m->in.rows || m->in.rows != m->out.rows)
    return fp4moe_fail(FP4MOE_INVALID, "%s.expert_offsets end at %lld, %s.rows is %zu, %s.rows %zu",
                       m->in_name, (long long)offsets[experts], m->in_name, m->in.rows, m->out_name,
                       m->out.rows);
  return FP4MOE_OK;
}

/* rows: their sum. */
static fp4moe_status check_counts(size_t experts, const matrices *m, size_t *rows) {
  size_t most = m->in.max_rows < m->out.max_rows ? m->in.max_rows : m->out.max_rows;
  *rows = 0;
  for (size_t e = 0; e < experts; e++) {
    int32_t n = m->in.expert_counts[e];
    if (n < 0 || (size_t)n > most)
      return fp4moe_fail(FP4MOE_INVALID, "%s.expert_counts[%zu] is %d, expected 0..%zu", m->in_name,
                         e, n, most);
    *rows += (size_t)n;
  }
  return FP4MOE_OK;
}

/* Both as the caller gave them, checked; *rows: how many. all: offsets of a lone expert. */
static fp4moe_status take_matrices(const fp4moe_layer_desc *d, const fp4moe_rows *x,
                                   const fp4moe_rows *y, matrices *m, int64_t all[2],
                                   size_t *rows) {
  fp4moe_rows first;
  fp4moe_status status = fp4moe_take_struct(&first, sizeof first, x, "fp4moe_rows");
  int batched = !status && first.expert_counts;
  if (!status) status = take_rows(x, batched, m->in_name, fp4moe_x_columns(d), &m->in);
  if (!status) status = take_rows(y, batched, m->out_name, d->hidden, &m->out);
  if (status) return status;
  *rows = m->in.rows;
  all[0] = 0, all[1] = (int64_t)*rows;
  if (!m->in.expert_offsets && d->experts == 1) m->in.expert_offsets = all;
  status = batched ? check_counts(d->experts, m, rows) : check_offsets(d->experts, m);
  if (status) return status;
  if (*rows > UINT32_MAX)
    return fp4moe_fail(FP4MOE_INVALID, "%s has %zu rows, expected up to 2^32", m->in_name, *rows);
  if (*rows && (!m->in.data || !m->out.data))
    return fp4moe_fail(FP4MOE_INVALID, "%s.data is NULL", m->in.data ? m->out_name : m->in_name);
  return FP4MOE_OK;
}

/* x and y by expert through a layer, or the linear in one. m: their names. */
static fp4moe_status run_rows(fp4moe_layer *layer, matrices m, const fp4moe_rows *x,
                              const fp4moe_rows *y, const fp4moe_options *options, void *workspace,
                              size_t bytes) {
  static const fp4moe_options defaults = {.struct_size = sizeof defaults};
  fp4moe_options o;
  fp4moe_call call;
  int64_t all[2];
  size_t rows;
  fp4moe_status status =
      fp4moe_take_struct(&o, sizeof o, options ? options : &defaults, "fp4moe_options");
  if (status || (status = take_matrices(&layer->desc, x, y, &m, all, &rows))) return status;
  const fp4moe_rows *in = &m.in, *out = &m.out;
  int batched = in->expert_counts != NULL;
  fp4moe_call_form form = {.unreduced = 1,
                           .slots = 1,
                           .threads_name = "options.threads",
                           .x_inner = in->stride,
                           .y_inner = out->stride,
                           .offsets = batched ? NULL : in->expert_offsets,
                           .counts = in->expert_counts};
  fp4moe_batch batch = {.struct_size = sizeof batch,
                        .tokens = rows,
                        .top_k = 1,
                        .x = in->data,
                        .x_dtype = in->dtype,
                        .x_stride = batched ? in->expert_stride : in->stride,
                        .y = out->data,
                        .y_dtype = out->dtype,
                        .y_stride = batched ? out->expert_stride : out->stride,
                        .ids_dtype = FP4MOE_I32,
                        .threads = o.threads,
                        .stats = o.stats,
                        .team = o.team};
  status = fp4moe_call_init(&call, layer, fp4moe_layer_plan(layer), &batch, &form);
  return status ? status : fp4moe_call_run(&call, workspace, bytes);
}

fp4moe_status fp4moe_experts(fp4moe_layer *layer, const fp4moe_rows *rows, const fp4moe_rows *out,
                             const fp4moe_options *options, void *workspace,
                             size_t workspace_bytes) {
  if (!layer || !layer->finished) return fp4moe_fail(FP4MOE_INVALID, "the layer is not finished");
  return run_rows(layer, (matrices){"rows", "out", {0}, {0}}, rows, out, options, workspace,
                  workspace_bytes);
}

fp4moe_status fp4moe_matmul_grouped(fp4moe_linear *linear, const fp4moe_rows *x,
                                    const fp4moe_rows *y, const fp4moe_options *options,
                                    void *workspace, size_t workspace_bytes) {
  if (!linear || !linear->layer.finished)
    return fp4moe_fail(FP4MOE_INVALID, "the linear is not finished");
  return run_rows(&linear->layer, (matrices){"x", "y", {0}, {0}}, x, y, options, workspace,
                  workspace_bytes);
}

/* ---- Rows with ids ---- */

static fp4moe_status fill_indexed(const fp4moe_layer_desc *d, fp4moe_indexed *c) {
  fp4moe_status s;
  if ((s = check_dtype("", "x_dtype", c->x_dtype)) || (s = check_dtype("", "y_dtype", c->y_dtype)))
    return s;
  if (c->ids_dtype != FP4MOE_I32 && c->ids_dtype != FP4MOE_I64)
    return fp4moe_fail(FP4MOE_INVALID, "ids_dtype is %d, expected I32 or I64", (int)c->ids_dtype);
  if (!c->slots || c->slots > 65536 || c->tokens > UINT32_MAX / c->slots)
    return fp4moe_fail(FP4MOE_INVALID, "%zu tokens x %zu slots, expected up to 2^32", c->tokens,
                       c->slots);
  if (c->x_slots != 1 && c->x_slots != c->slots)
    return fp4moe_fail(FP4MOE_INVALID, "x_slots is %zu, expected 1 or %zu", c->x_slots, c->slots);
  const struct {
    const char *slot_name, *token_name;
    size_t *slot, *token, row, slots;
  } strides[] = {{"x_slot_stride", "x_token_stride", &c->x_slot_stride, &c->x_token_stride,
                  fp4moe_x_columns(d) * fp4moe_dtype_bytes(c->x_dtype), c->x_slots},
                 {"y_slot_stride", "y_token_stride", &c->y_slot_stride, &c->y_token_stride,
                  d->hidden * fp4moe_dtype_bytes(c->y_dtype), c->slots},
                 {"id_slot_stride", "id_token_stride", &c->id_slot_stride, &c->id_token_stride,
                  fp4moe_dtype_bytes(c->ids_dtype), c->slots}};
  for (int i = 0; i < 3; i++) {
    if ((s = fill_stride("", strides[i].slot_name, strides[i].slot, strides[i].row))) return s;
    if (!*strides[i].token) *strides[i].token = strides[i].slots * *strides[i].slot;
    if ((s = fill_stride("", strides[i].token_name, strides[i].token, strides[i].row))) return s;
  }
  if (c->tokens && (!c->x || !c->y || !c->ids))
    return fp4moe_fail(FP4MOE_INVALID, "%s is NULL", !c->x ? "x" : !c->y ? "y" : "ids");
  return FP4MOE_OK;
}

fp4moe_status fp4moe_matmul_indexed(fp4moe_linear *linear, const fp4moe_indexed *indexed,
                                    const fp4moe_options *options, void *workspace,
                                    size_t workspace_bytes) {
  static const fp4moe_options defaults = {.struct_size = sizeof defaults};
  fp4moe_options o;
  fp4moe_indexed i;
  fp4moe_call call;
  if (!linear || !linear->layer.finished)
    return fp4moe_fail(FP4MOE_INVALID, "the linear is not finished");
  fp4moe_status status =
      fp4moe_take_struct(&o, sizeof o, options ? options : &defaults, "fp4moe_options");
  if (!status) status = fp4moe_take_struct(&i, sizeof i, indexed, "fp4moe_indexed");
  if (status || (status = fill_indexed(&linear->layer.desc, &i))) return status;
  int shared = i.x_slots == 1;
  fp4moe_call_form form = {.unreduced = 1,
                           .slots = shared ? 1 : i.slots,
                           .x_inner = i.x_slot_stride,
                           .y_inner = i.y_slot_stride,
                           .id_inner = i.id_slot_stride,
                           .ids_name = "ids",
                           .threads_name = "options.threads"};
  fp4moe_batch batch = {.struct_size = sizeof batch,
                        .tokens = shared ? i.tokens : i.tokens * i.slots,
                        .top_k = shared ? i.slots : 1,
                        .x = i.x,
                        .x_dtype = i.x_dtype,
                        .x_stride = i.x_token_stride,
                        .y = i.y,
                        .y_dtype = i.y_dtype,
                        .y_stride = i.y_token_stride,
                        .topk_ids = i.ids,
                        .ids_dtype = i.ids_dtype,
                        .ids_stride = i.id_token_stride,
                        .threads = o.threads,
                        .stats = o.stats,
                        .team = o.team};
  status =
      fp4moe_call_init(&call, &linear->layer, fp4moe_layer_plan(&linear->layer), &batch, &form);
  return status ? status : fp4moe_call_run(&call, workspace, workspace_bytes);
}
