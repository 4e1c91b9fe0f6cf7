/* run.h - the options of `fp4moe run` and what its two ways share. */
#ifndef FP4MOE_RUN_H
#define FP4MOE_RUN_H

#include "cli.h"
#include "fp4moe_io.h"
#include "trial.h"

typedef struct run_options {
  const char *path, *input, *output, *check; /* NULL = not given */
  double tolerance;
  size_t layer;  /* SIZE_MAX = not given */
  size_t tokens; /* 0 = not given */
  size_t threads;
  fp4moe_precision precision;
  fp4moe_input_global input_global;
  activation_flags activation; /* over the checkpoint's */
  unsigned seen;               /* options given, by bit */
  fp4moe_open_options open;
  int router_weight_on_input, json;
  slice_options slice_words;
  fp4moe_slice slice;
} run_options;

typedef struct run_state {
  run_options options;
  fp4moe_checkpoint *checkpoint;
  fp4moe_context *context;
} run_state;

/* What the layer is, with the options' overrides. Dies where it cannot be run. */
fp4moe_layer_desc run_desc(const run_options *o, const fp4moe_checkpoint_layer *l);

/* Loads layer i of the checkpoint as `whole` says, or this rank's part of it; the desc of what was
 * loaded. */
fp4moe_layer_desc run_load(const run_state *r, size_t i, const fp4moe_layer_desc *whole,
                           fp4moe_layer **layer);

typedef struct timing {
  double ms, weight_bytes; /* medians */
} timing;

/* Repeats a call, about a second at most, and forgets the first time if there are others. redraw:
 * the trial of this batch, to route every call anew; NULL = the same call. Wants batch->stats. */
timing run_time(fp4moe_layer *layer, const fp4moe_batch *batch, void *workspace,
                size_t workspace_bytes, trial *redraw);

/* Bytes of a layer's weights by the memory node where they are: [{"node", "bytes"}], node null
 * where they are on none yet or the system does not tell; and as a line of text. */
json_t *run_nodes(const fp4moe_layer *layer);
void run_print_nodes(const fp4moe_layer *layer);

/* One layer on the given tokens; every layer on random ones. Exit status. */
int run_input(run_state *r);
int run_layers(run_state *r);

#endif
