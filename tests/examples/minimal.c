/* minimal.c - one token through the first MoE layer of a checkpoint: minimal CHECKPOINT */
#include <stdio.h>
#include <stdlib.h>

#include <fp4moe_io.h>

static void must(fp4moe_status status) {
  if (status == FP4MOE_OK) return;
  fprintf(stderr, "%s: %s\n", fp4moe_status_name(status), fp4moe_error_detail());
  exit(1);
}

int main(int argc, char **argv) {
  if (argc != 2) return fprintf(stderr, "usage: %s CHECKPOINT\n", argv[0]), 2;
  fp4moe_context *context;
  fp4moe_checkpoint *checkpoint;
  fp4moe_layer *layer;
  must(fp4moe_context_create(NULL, &context));
  must(fp4moe_checkpoint_open(argv[1], &checkpoint));
  must(fp4moe_checkpoint_load_layer(checkpoint, 0, context, NULL, &layer));

  size_t hidden = fp4moe_checkpoint_at(checkpoint, 0)->desc.hidden;
  float *x = calloc(hidden, sizeof *x), *y = calloc(hidden, sizeof *y);
  if (x) x[0] = 1; /* the token: here the first unit vector */

  fp4moe_limits limits = {.struct_size = sizeof limits, .max_tokens = 1, .top_k = 2};
  size_t bytes = fp4moe_workspace_bytes(layer, &limits);
  void *workspace = malloc(bytes);
  fp4moe_batch batch = {.struct_size = sizeof batch,
                        .tokens = 1,
                        .top_k = 2,
                        .x = x,
                        .x_dtype = FP4MOE_F32,
                        .y = y,
                        .y_dtype = FP4MOE_F32,
                        .topk_ids = (int32_t[]){0, 1}, /* the experts that the router chose */
                        .ids_dtype = FP4MOE_I32,
                        .topk_weights = (float[]){0.75f, 0.25f}};
  must(fp4moe_layer_forward(layer, &batch, workspace, bytes));
  printf("%g %g %g %g\n", y[0], y[1], y[2], y[3]);

  free(workspace), free(y), free(x);
  fp4moe_layer_destroy(layer);
  fp4moe_checkpoint_close(checkpoint);
  fp4moe_context_destroy(context);
}
