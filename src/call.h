/* call.h - one forward call: its arguments, its grouping of rows, its workspace.
 *
 * A call goes through in pieces of as many tokens as the workspace holds, normally one. What moves
 * bits (an expert's recipe, the runs of phase 2) is decided once for the whole call, from shapes
 * and row counts alone. */
#ifndef FP4MOE_CALL_H
#define FP4MOE_CALL_H

#include <stdatomic.h>

#include "layer.h"

enum { FP4MOE_MAX_RUNS = 16 };

/* An expert with rows in this call. Rows of the piece are [first, first + rows) of the row arrays,
 * tokens ascending. */
typedef struct fp4moe_active {
  const float *globals;
  const fp4moe_recipe *recipe[FP4MOE_PHASES];
  uint32_t expert, total; /* rows in the call */
  uint32_t first, rows;   /* of the piece */
} fp4moe_active;

/* How phase 2 is cut. Its unit is one output panel of a token range and a run of segments. */
typedef struct fp4moe_cut {
  size_t panels;  /* units of neighbouring panels that are done at once, at most */
  size_t ranges;  /* token ranges of the piece */
  size_t range;   /* tokens of one */
  size_t runs;    /* runs of segments, whose partial sums are added ascending */
  size_t k_parts; /* segments of an expert along K; 1 in class i8, whose chain is one, under
                     batch_invariant, and where an expert has four rows or more */
  uint32_t run_first[FP4MOE_MAX_RUNS + 1]; /* segments: active * k_parts + part */
  uint8_t run_order[FP4MOE_MAX_RUNS];      /* biggest first */
  double even_runs;                        /* cost of all runs over that of the biggest */
} fp4moe_cut;

typedef struct fp4moe_call fp4moe_call;

/* A call whose rows do not lie as those of a batch, [token] in x and in y. In every form but the
 * batch's own y is unreduced: it has a row for each row that an expert works on. The strides of the
 * batch lead from token to token, or from an expert's block to the next; these lead on within. */
typedef struct fp4moe_call_form {
  int unreduced;
  size_t slots; /* x has rows of its own for so many slots, each a token of top_k 1; else 1 */
  size_t x_inner, y_inner;             /* bytes: slot to slot, or row to row of a block */
  size_t id_inner;                     /* bytes: slot to slot */
  const int64_t *offsets;              /* [E + 1] grouped by expert, no ids; else NULL */
  const int32_t *counts;               /* [E] in blocks by expert, no ids; else NULL */
  const char *ids_name, *threads_name; /* the caller's fields, for errors; no ids: NULL */
} fp4moe_call_form;

/* Does the first of n units from `unit` on, together where they are neighbours; returns how many.
 */
typedef size_t fp4moe_unit_fn(const fp4moe_call *call, size_t unit, size_t n, uint8_t *scratch);

/* Units [next, end) of a shard, which workers take from its counter. */
typedef struct fp4moe_queue {
  _Alignas(64) atomic_size_t next;
  size_t end;
} fp4moe_queue;

typedef struct fp4moe_phase {
  const fp4moe_call *call;
  fp4moe_unit_fn *run;
  size_t units, most; /* most: units of one take */
  size_t shards;      /* 1: the units have no weights, or the layer one shard */
  _Alignas(64) atomic_uint_fast64_t end_ns; /* when the workers ended, summed */
  atomic_uint ended;
  fp4moe_queue queue[FP4MOE_MAX_SHARDS];
} fp4moe_phase;

enum {
  FP4MOE_QUANT_X_PHASE,
  FP4MOE_GATE_UP_PHASE,
  FP4MOE_QUANT_H_PHASE, /* dynamic globals only */
  FP4MOE_DOWN_PHASE,
  FP4MOE_CALL_PHASES
};

/* What a team's thread 0 tells the others. */
typedef struct fp4moe_notice {
  fp4moe_status status;
  char detail[256];
} fp4moe_notice;

struct fp4moe_call {
  const fp4moe_layer *layer;
  const fp4moe_plan *plan;
  fp4moe_batch batch; /* strides filled in */
  fp4moe_call_form form;
  size_t workers, share;
  size_t x_row_bytes, h_row_bytes;
  int routed;        /* its ids and weights came from a router, ... */
  uint64_t route_ns; /* ... which took so long; 0: nobody asks */
  fp4moe_cut cut;

  /* Workspace */
  uint32_t *total;       /* [E] rows in the call */
  uint32_t *cursor;      /* [E] */
  int64_t *offsets;      /* [E + 1] rows by expert instead of ids: where each expert's begin */
  fp4moe_active *active; /* [actives], expert ascending */
  size_t actives;
  uint32_t *order;     /* [actives], dear units first */
  size_t *block_first; /* [actives + 1], row blocks of order[i] */
  atomic_uint *done;   /* [ranges][output panels] runs finished */
  size_t piece;        /* tokens a piece holds */
  uint32_t *row_token; /* [piece * top_k], within the piece */
  float *row_weight;
  const void **x_row, **h_row;
  void **y_row;             /* unreduced: where the row's output goes */
  uint8_t *x, *h;           /* activation rows of tokens (rows: x_by_row), of rows */
  float *x_scale, *h_scale; /* dynamic globals: 1/G of tokens, of rows; else NULL */
  float *h_wide; /* split groups, dynamic globals: [rows][I] before the quantiser, else NULL */
  atomic_uint *group_done; /* split groups: [actives][I/32] columns there, else NULL */
  float *partial;          /* [runs][piece][partial_stride] */
  size_t partial_stride;   /* floats */
  uint8_t *scratch;        /* [workers] */
  size_t scratch_bytes, panel_bytes, acc_bytes;

  fp4moe_call *published; /* team: what thread 0 made of the call */
  fp4moe_phase *phase;    /* [FP4MOE_CALL_PHASES] of the piece */
  fp4moe_notice *notice;

  size_t token0, tokens, rows; /* of the piece */
};

size_t fp4moe_dtype_bytes(fp4moe_dtype dtype);

/* Class nvfp4: is x quantised per (token, slot); has each row a global of its own? */
int fp4moe_call_x_by_row(const fp4moe_call *call);
int fp4moe_call_dynamic(const fp4moe_call *call);

/* Checks the batch and fills the call but for its workspace. form: NULL = the batch's own. */
fp4moe_status fp4moe_call_init(fp4moe_call *call, const fp4moe_layer *layer,
                               const fp4moe_plan *plan, const fp4moe_batch *batch,
                               const fp4moe_call_form *form);

/* Does the call (forward.c); the workspace may be short. run: under the eyes of those who observe
 * calls (trace.c). */
fp4moe_status fp4moe_call_do(fp4moe_call *call, void *workspace, size_t bytes);
fp4moe_status fp4moe_call_run(fp4moe_call *call, void *workspace, size_t bytes);

/* Lays the workspace out for pieces of `piece` tokens; base NULL only counts. Returns the bytes. */
size_t fp4moe_call_layout(fp4moe_call *call, uint8_t *base, size_t piece);

/* Counts rows per expert over the whole call (INVALID: an id), makes the active list and the runs.
 */
fp4moe_status fp4moe_call_count(fp4moe_call *call);

/* Groups the rows of one piece by expert. */
void fp4moe_call_group(fp4moe_call *call, size_t token0, size_t tokens);

/* INVALID: the id of a slot, or its map entry, is out of range. */
fp4moe_status fp4moe_call_check_id(const fp4moe_call *call, size_t token, size_t slot);

/* The id of a slot mapped to an expert of the layer, or -1. Legal ids only. */
int64_t fp4moe_call_expert(const fp4moe_call *call, size_t token, size_t slot);
float fp4moe_call_weight(const fp4moe_call *call, size_t token, size_t slot);

/* Do experts come with the rows, instead of ids with the tokens? */
static inline int fp4moe_call_by_expert(const fp4moe_call *call) {
  return call->form.offsets || call->form.counts;
}

/* Where the x of a token lies, and unreduced the y of a slot. */
const void *fp4moe_call_x(const fp4moe_call *call, size_t token);
void *fp4moe_call_y(const fp4moe_call *call, size_t token, size_t slot);

/* Runs of phase 2, at most: from H and the tokens of the call; of a plan: 1 where the bits must not
 * depend on the tokens. */
size_t fp4moe_cut_runs(size_t hidden, size_t tokens);
size_t fp4moe_plan_runs(const fp4moe_plan *plan, size_t hidden, size_t tokens);

/* Units of a phase for the present piece and, per unit, its cost in weight-row units. They are
 * numbered shard by shard: a shard's begin at first_unit, and no unit has panels of two. */
size_t fp4moe_call_units(const fp4moe_call *call, int phase);
size_t fp4moe_call_first_unit(const fp4moe_call *call, int phase, size_t shard);
double fp4moe_unit_cost(const fp4moe_call *call, int phase, size_t unit);

/* Most units that a worker takes at once: even of the dearest ones their cost is at most
 * 1/(share * workers) of the phase's. */
size_t fp4moe_call_most(const fp4moe_call *call, int phase);

/* Units are small, so that many workers are even: phase 1 a gate and an up panel, phase 2 one
 * output panel. A worker that has taken n of them from `unit` on does neighbours together, up to
 * the width of the recipe. These say where the first of them lie, and return how many they are.
 * Unreduced, phase 2 has units of the first kind too: rows of one expert. */
typedef struct fp4moe_unit1 {
  const fp4moe_active *active;
  const fp4moe_shard *shard;
  size_t row, rows;     /* in the row arrays */
  size_t panel, panels; /* of the phase's matrix, the whole layer's */
} fp4moe_unit1;
size_t fp4moe_call_unit1(const fp4moe_call *call, int phase, size_t unit, size_t n,
                         fp4moe_unit1 *u);

typedef struct fp4moe_unit2 {
  const fp4moe_shard *shard;
  size_t run, range, token, tokens; /* tokens of the piece */
  size_t panel, panels;             /* output panels, the whole layer's */
} fp4moe_unit2;
size_t fp4moe_call_unit2(const fp4moe_call *call, size_t unit, size_t n, fp4moe_unit2 *u);

/* Rows of an active expert whose tokens lie in [token, token + tokens). */
void fp4moe_active_rows(const fp4moe_call *call, const fp4moe_active *a, size_t token,
                        size_t tokens, size_t *first, size_t *count);

#endif
