/* mul_mat_id.c - ggml's MUL_MAT_ID on FP4 experts: dst[:, s, t] = src0[ids[s, t]] * src1[:, s %
 * ne1, t].
 *
 * The tensors have ggml's ne (elements) and nb (bytes); all of them may be views. Checked against
 * scalar code, with src1 of a row per slot and with one row that all slots of a token share. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <fp4moe.h>

enum { K = 96, N = 40, EXPERTS = 5, USED = 3, TOKENS = 9 };

/* What ggml_tensor has of shape and place: element (i, j, k) is at data + i nb[0] + j nb[1] + k
 * nb[2]. */
typedef struct tensor {
  int64_t ne[3];
  size_t nb[3];
  void *data;
} tensor;

static void *at(const tensor *t, int64_t i, int64_t j, int64_t k) {
  return (char *)t->data + (size_t)i * t->nb[0] + (size_t)j * t->nb[1] + (size_t)k * t->nb[2];
}

static void must(fp4moe_status status) {
  if (status == FP4MOE_OK) return;
  fprintf(stderr, "%s: %s\n", fp4moe_status_name(status), fp4moe_error_detail());
  exit(1);
}

/* ---- The op: src0 is packed in the linear, src1 [K, USED or 1, T] and dst [N, USED, T] are F32
 * with dense rows, ids [USED, T] are I32. */

static fp4moe_status mul_mat_id(fp4moe_linear *src0, const tensor *src1, const tensor *ids,
                                const tensor *dst, void *workspace, size_t workspace_bytes) {
  fp4moe_indexed call = {.struct_size = sizeof call,
                         .tokens = (size_t)dst->ne[2],
                         .slots = (size_t)ids->ne[0],
                         .x = src1->data,
                         .x_dtype = FP4MOE_F32,
                         .x_slots = (size_t)src1->ne[1],
                         .x_slot_stride = src1->nb[1],
                         .x_token_stride = src1->nb[2],
                         .y = dst->data,
                         .y_dtype = FP4MOE_F32,
                         .y_slot_stride = dst->nb[1],
                         .y_token_stride = dst->nb[2],
                         .ids = ids->data,
                         .ids_dtype = FP4MOE_I32,
                         .id_slot_stride = ids->nb[0],
                         .id_token_stride = ids->nb[1]};
  return fp4moe_matmul_indexed(src0, &call, NULL, workspace, workspace_bytes);
}

/* ---- The same in scalar code */

static uint8_t codes[EXPERTS][N * K / 2], scales[EXPERTS][N * K / 32]; /* MXFP4 */

static double weight(int32_t e, int n, int k) {
  static const double e2m1[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
  int code = codes[e][n * (K / 2) + k / 2] >> (k % 2 ? 4 : 0) & 15;
  return (code & 8 ? -1 : 1) * ldexp(e2m1[code & 7], scales[e][n * (K / 32) + k / 32] - 127);
}

/* How far dst is from what the definition gives, in sums of magnitudes. */
static double error_of(const tensor *src1, const tensor *ids, const tensor *dst) {
  double off = 0, all = 0;
  for (int t = 0; t < TOKENS; t++)
    for (int s = 0; s < USED; s++)
      for (int n = 0; n < N; n++) {
        double sum = 0;
        int32_t e = *(int32_t *)at(ids, s, t, 0);
        for (int k = 0; k < K; k++)
          sum += weight(e, n, k) * (double)*(float *)at(src1, k, s % src1->ne[1], t);
        off += fabs((double)*(float *)at(dst, n, s, t) - sum);
        all += fabs(sum);
      }
  return off / all;
}

/* ---- A call of it */

static unsigned next(void) {
  static unsigned state = 1;
  return (state = state * 1664525u + 1013904223u) >> 16;
}

/* A view of 4-byte elements into a tensor that has `gap` more of them in each row. */
static tensor view(int64_t ne0, int64_t ne1, int64_t ne2, int64_t gap) {
  size_t row = (size_t)(ne0 + gap) * 4, plane = row * (size_t)(ne1 + gap);
  tensor t = {{ne0, ne1, ne2}, {4, row, plane}, malloc(plane * (size_t)ne2)};
  if (t.data) memset(t.data, 0xff, plane * (size_t)ne2); /* NaN, and no expert's id */
  return t;
}

static fp4moe_linear *experts_of(fp4moe_context *context) {
  fp4moe_linear_desc desc = {.struct_size = sizeof desc,
                             .n = N,
                             .k = K,
                             .experts = EXPERTS,
                             .format = FP4MOE_MXFP4,
                             .precision = FP4MOE_PRECISION_F32};
  fp4moe_linear *linear;
  must(fp4moe_linear_begin(context, &desc, &linear));
  for (size_t e = 0; e < EXPERTS; e++) {
    for (int i = 0; i < N * K / 2; i++) codes[e][i] = (uint8_t)next();
    for (int i = 0; i < N * K / 32; i++) scales[e][i] = (uint8_t)(120 + next() % 6);
    fp4moe_projection matrix = {.codes = codes[e], .scales = scales[e], .global = 1};
    must(fp4moe_linear_set_expert(linear, e, &matrix));
  }
  must(fp4moe_linear_finish(linear));
  return linear;
}

static int run(fp4moe_linear *linear, int64_t src1_rows) {
  tensor src1 = view(K, src1_rows, TOKENS, 8), ids = view(2 * USED, TOKENS, 1, 2),
         dst = view(N, USED, TOKENS, 4);
  ids.ne[0] = USED, ids.nb[0] = 2 * sizeof(int32_t); /* every second one */
  fp4moe_limits limits = {.struct_size = sizeof limits, .max_tokens = TOKENS, .top_k = USED};
  size_t bytes = fp4moe_linear_workspace_bytes(linear, &limits);
  void *workspace = malloc(bytes);
  for (int t = 0; t < TOKENS; t++) {
    for (int s = 0; s < USED; s++) *(int32_t *)at(&ids, s, t, 0) = (int32_t)(next() % EXPERTS);
    for (int k = 0; k < K * src1_rows; k++)
      *(float *)at(&src1, k % K, k / K, t) = (float)(next() % 2001) / 1000 - 1;
  }
  must(mul_mat_id(linear, &src1, &ids, &dst, workspace, bytes));
  double error = error_of(&src1, &ids, &dst);
  printf("src1 [%d, %d, %d]: %g\n", K, (int)src1_rows, TOKENS, error);
  free(workspace), free(dst.data), free(ids.data), free(src1.data);
  return error <= 1e-5; /* false for NaN */
}

int main(void) {
  fp4moe_context *context;
  must(fp4moe_context_create(NULL, &context));
  fp4moe_linear *linear = experts_of(context);
  int good = run(linear, USED);
  good &= run(linear, 1);
  fp4moe_linear_destroy(linear);
  fp4moe_context_destroy(context);
  return !good;
}
