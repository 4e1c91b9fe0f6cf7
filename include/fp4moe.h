/* fp4moe.h - mixture-of-experts layers of FP4 checkpoints (MXFP4, NVFP4) on CPUs.
 *
 * A context holds what layers share: threads, the selection table, the allocator. A layer holds
 * the packed weights of its experts and the kernels chosen for it. A batch is one call: tokens,
 * their expert ids and router weights in, the weighted sum of the experts' outputs out.
 *
 *   fp4moe_context_create -> fp4moe_layer_begin -> fp4moe_layer_set_expert (each) ->
 *   fp4moe_layer_finish -> fp4moe_workspace_bytes -> fp4moe_layer_forward (often) -> destroy
 *
 * Rules that hold for every declaration here
 *   Sizes are size_t; strides are in bytes and may exceed the row; matrices are row-major.
 *   A pointer may be NULL only where its comment says what NULL means.
 *   Activations, in and out, and biases are aligned to their elements, every row of them; codes,
 *   scales, ids and router weights have any alignment.
 *   Extensible structs begin with struct_size: set it to sizeof the struct and zero the rest
 *   (fields added by later versions read as zero).
 *   What is passed in is read during the call only, and handed over only where a comment says so.
 *   Any threads may call at once on objects that they do not share, or share as const. What may run
 *   beside what on one context, layer or linear its comments say; nothing runs beside destroy.
 *   A call that fails changes nothing, writes no output, and leaves one line about the reason in
 *   fp4moe_error_detail() of the calling thread. The library never exits, aborts or, without
 *   FP4MOE_VERBOSE, prints.
 *   The bits of an output never depend on the number of threads, nor on how work was scheduled. */
#ifndef FP4MOE_H
#define FP4MOE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FP4MOE_VERSION_MAJOR 0
#define FP4MOE_VERSION_MINOR 1

#if defined(__GNUC__)
#define FP4MOE_API __attribute__((visibility("default")))
#else
#define FP4MOE_API
#endif

/* ---- Status */

typedef enum fp4moe_status {
  FP4MOE_OK = 0,
  FP4MOE_INVALID,     /* an argument, file or override breaks its contract */
  FP4MOE_UNSUPPORTED, /* well formed, but no class or kernel of this build serves it */
  FP4MOE_NO_MEMORY,   /* an allocation failed */
  FP4MOE_WORKSPACE,   /* the workspace is shorter than the call's minimum; detail has both sizes */
  FP4MOE_SYSTEM       /* the operating system refused: a file, a thread; detail has errno's text */
} fp4moe_status;

/* "OK", "INVALID", ...; a constant string for any value. */
FP4MOE_API const char *fp4moe_status_name(fp4moe_status status);

/* The reason of the calling thread's last failure: one line, "" before the first. Owned by the
 * library, valid until this thread's next failing call. */
FP4MOE_API const char *fp4moe_error_detail(void);

/* ---- Words */

typedef enum fp4moe_dtype {
  FP4MOE_F32 = 0,
  FP4MOE_F16,
  FP4MOE_BF16,
  FP4MOE_I32,
  FP4MOE_I64
} fp4moe_dtype;

/* Weight formats. Two E2M1 codes a byte, the low nibble is the even k.
 *   MXFP4  w = e2m1 * 2^(s - 127): one E8M0 byte s per 32 k (OCP Microscaling Formats 1.0)
 *   NVFP4  w = e2m1 * e4m3 * global: one E4M3FN byte per 16 k, one FP32 global a projection */
typedef enum fp4moe_format { FP4MOE_MXFP4 = 0, FP4MOE_NVFP4 } fp4moe_format;

/* The precision class: what enters each matmul. The caller chooses it; the tuner never does.
 *   F32   FP32 activations, FP32 sums: the reference grade
 *   BF16  activations rounded to nearest-even BF16, weights exact, FP32 sums
 *   INT8  activations int8 with one FP32 scale per 32 k, exact integer block sums in a canonical
 *         order: the same bits on every ISA
 *   MXFP8 activations E4M3 with one E8M0 scale per 32 k (round-up rule: nothing saturates); MXFP4
 *         weights only
 *   NVFP4 activations E2M1 with one E4M3 scale per 16 k and an FP32 global (W4A4, see
 *         fp4moe_input_global); NVFP4 weights only
 * What MXFP8 and NVFP4 round to is exact in BF16, so the kernels of BF16 multiply it. A block of
 * activations that holds NaN or Inf makes all outputs of its token NaN, and no other's. */
typedef enum fp4moe_precision {
  FP4MOE_PRECISION_F32 = 0,
  FP4MOE_PRECISION_BF16,
  FP4MOE_PRECISION_INT8,
  FP4MOE_PRECISION_MXFP8,
  FP4MOE_PRECISION_NVFP4
} fp4moe_precision;

/* Class NVFP4: where the global `a` of activations comes from. a is a multiplier, as ModelOpt's
 * input_scale; x enters as q * SF * a, SF = e4m3(amax/6 / a) (kernels/kernel.h has the bits).
 *   LAYER   one for gate/up and one for down: input_scale_gate_up and _down of the layer desc
 *   EXPERT  the input_scale of each expert's projections; gate and up take the larger of theirs. x
 *           is quantised per (token, slot)
 *   TOKEN   dynamic: amax/2688 of each row of x, and of the expert's row of h; reads no input scale
 */
typedef enum fp4moe_input_global {
  FP4MOE_GLOBAL_LAYER = 0,
  FP4MOE_GLOBAL_EXPERT,
  FP4MOE_GLOBAL_TOKEN
} fp4moe_input_global;

/* What stands between the matmuls, in FP32, of g the gate and u the up projection; ungated, of u
 * alone. sigmoid(x) = 1 / (1 + e^-x), clamp(x, L) = max(min(x, L), -L).
 *   SILU        g' sigmoid(g') clamp(u, limit), g' = min(g, limit); ungated: u sigmoid(u)
 *   SWIGLU_OAI  (clamp(u, limit) + beta) g' sigmoid(alpha g'), g' = min(g, limit); gated
 *   RELU2       max(u, 0)^2; ungated
 *   SWIGLUSTEP  min(g sigmoid(g), limit) clamp(u, limit); gated
 *   GELU        gelu(g) u, gelu(x) = x (1 + erf(x / sqrt(2))) / 2; ungated: gelu(u)
 *   GELU_TANH   the same with gelu(x) = x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2
 *   SITU        beta tanh(g / beta) sigmoid(g) linear_beta tanh(u / linear_beta); gated
 * As published with gpt-oss (SWIGLU_OAI), Nemotron (RELU2), Step-3.5 (SWIGLUSTEP), Gemma 4
 * (GELU_TANH), Kimi-K3 (SITU), most others (SILU). */
typedef enum fp4moe_activation_kind {
  FP4MOE_ACTIVATION_UNKNOWN = -1, /* fp4moe_checkpoint_layer: it does not tell, the caller must */
  FP4MOE_SILU = 0,
  FP4MOE_SWIGLU_OAI,
  FP4MOE_RELU2,
  FP4MOE_SWIGLUSTEP,
  FP4MOE_GELU,
  FP4MOE_GELU_TANH,
  FP4MOE_SITU
} fp4moe_activation_kind;

/* Every field counts: one that the kind, gated or not, does not have must be 0, else INVALID. */
typedef struct fp4moe_activation {
  fp4moe_activation_kind kind;
  int gated;         /* 1: w13 has gate and up halves. 0: up only */
  float alpha;       /* SWIGLU_OAI: > 0 */
  float beta;        /* SWIGLU_OAI: any; SITU: > 0 */
  float limit;       /* gated SILU, SWIGLU_OAI: >= 0, 0 = no limit; SWIGLUSTEP: > 0 */
  float linear_beta; /* SITU: >= 0, 0 = u as it is */
} fp4moe_activation;

/* ---- Context */

typedef struct fp4moe_context fp4moe_context;

/* Runs fn(arg, i) for every i in [0, n), each exactly once, on any threads and in any order, and
 * returns when all have returned. One thread is enough: no i waits for another. Calls come one at
 * a time from one forward call, but concurrently from concurrent forward calls. */
typedef void fp4moe_parallel_for(void *pool, size_t n, void (*fn)(void *arg, size_t i), void *arg);

/* What tuned recipes, those of the selection table, are to a context.
 *   DEFAULT  FP4MOE_TUNED (use | require | off), else USE
 *   USE      the exact key's, else those of the nearest shape and core count, else the static order
 *   REQUIRE  a layer whose shape, class and cores are not exactly in the table is UNSUPPORTED, and
 *            the key is named; also where a forced kernel rules the table's out
 *   OFF      the table is not read: the static order. INVALID with a table named beside it */
typedef enum fp4moe_tuned {
  FP4MOE_TUNED_DEFAULT = 0,
  FP4MOE_TUNED_USE,
  FP4MOE_TUNED_REQUIRE,
  FP4MOE_TUNED_OFF
} fp4moe_tuned;

typedef struct fp4moe_context_desc {
  size_t struct_size;
  /* Selection table: a path; NULL: FP4MOE_TABLE, else $XDG_CACHE_HOME/fp4moe/table (or
   * ~/.cache/fp4moe/table), else /etc/fp4moe/table, else none. A table that is refused costs speed
   * only: fp4moe_context_table says why. A path given here that cannot be read is SYSTEM, one that
   * is no file of up to 8 MiB INVALID. */
  const char *table;
  /* Comma-separated globs over kernel names; each constrains the ops whose kernels it matches, and
   * those kernels are then used; up to 511 characters. NULL: FP4MOE_KERNEL, else no constraint. A
   * glob that matches no kernel is INVALID; one of whose kernels none can serve a layer is
   * UNSUPPORTED when the layer is finished, and the detail lists what can. */
  const char *kernels;
  /* Most threads of a call, up to 1024; 0: as many as the placement has, at most the CPU quota. */
  size_t max_threads;
  /* The caller's thread provider and its first argument; NULL: an own pool of pinned threads,
   * created at the first call that wants them. */
  fp4moe_parallel_for *parallel_for;
  void *pool;
  int no_pin; /* own pool: 1 leaves its threads where the system puts them */
  /* Own pool: how long an idle thread spins before it sleeps, ns. 0: 50000. To sleep at once: 1. */
  uint64_t spin_ns;
  /* Memory for packed weights: `alignment` is a power of two up to 2 MiB; NULL result: no memory.
   * Called by the threads that begin and destroy layers. Both or neither; NULL: the library's own
   * (huge pages where the system gives them). */
  void *(*allocate)(void *user, size_t bytes, size_t alignment);
  void (*release)(void *user, void *memory, size_t bytes);
  void *allocate_user;
  /* Receives one line (no newline) per notable event, such as a refused table; may be called
   * from any thread that calls the library. NULL: lines are dropped. */
  void (*log)(void *user, const char *line);
  void *log_user;
  fp4moe_tuned tuned;
  /* 1: the bits of a token do not depend on what else is in the call: alone, among 7 or 512, they
   * are the same. Costs speed: in the float classes one matmul row serves every number of rows (the
   * one for few, unless `kernels` forces only those for many), in all classes phase 2 has fewer
   * units, which matters above some 64 threads at few tokens. */
  int batch_invariant;
  /* Own pool: where its threads are pinned, and how many there are where max_threads is 0: a list
   * of allowed PUs such as "0-3,8", in the order of the threads, or a word:
   *   per_core    one PU of each core
   *   all_nodes   the same, memory nodes in turn
   *   one_node    one PU of each core of the node that has most
   *   fast_cores  one PU of each core of the fastest kind
   *   per_l3      one PU under each L3 cache
   *   all_pus     all, one of each core first
   * NULL: with max_threads 0, no no_pin and no parallel_for what the selection table says of this
   * host (of the nearest, inside an affinity mask or CPU quota); else per_core, which max_threads
   * may exceed, and then nothing is pinned.
   * The first PU is the calling thread's, which the caller pins. INVALID: a PU that is not allowed,
   * more threads than PUs, or with no_pin or parallel_for. */
  const char *placement;
  /* 1: log receives a line about each call too, that of FP4MOE_VERBOSE, from the calling thread
   * before the call returns. INVALID without log. */
  int log_calls;
} fp4moe_context_desc;

/* desc: NULL = all defaults. Fields stand above the environment, which is read here: FP4MOE_CPU
 * (highest ISA used: c, avx2, ..., avx512bf16), FP4MOE_KERNEL, FP4MOE_TABLE (path | only:path |
 * none), FP4MOE_TUNED, FP4MOE_VERBOSE (1: a line per call to stderr; a file, with a / or . in its
 * name: appended to that; 0: none). A word that means nothing, or another variable FP4MOE_*, is
 * INVALID. INVALID, NO_MEMORY, SYSTEM (a file that cannot be opened). The context outlives its
 * layers, which any threads may begin and run at once. */
FP4MOE_API fp4moe_status fp4moe_context_create(const fp4moe_context_desc *desc,
                                               fp4moe_context **context);
FP4MOE_API void fp4moe_context_destroy(fp4moe_context *context); /* NULL: nothing */

/* Threads that a call uses when its batch names none. */
FP4MOE_API size_t fp4moe_context_threads(const fp4moe_context *context);

/* Reads the table again (path as in the desc). Layers finished or replanned later use it; threads
 * and shards stay as the first one said. A table that is refused leaves the context without one and
 * is FP4MOE_OK; a path that cannot be read is SYSTEM and changes nothing. Nor does what is INVALID:
 * no file of up to 8 MiB, a table refused under only:path, a path with tuned OFF. NO_MEMORY. Safe
 * beside everything but destroy. */
FP4MOE_API fp4moe_status fp4moe_context_reload_table(fp4moe_context *context, const char *path);

/* One text about the table in use: its path and entries, or why there is none and each entry that
 * was dropped. Written like snprintf: at most cap bytes with the final 0; *needed (may be NULL =
 * not wanted) gets the full size without it. buf may be NULL when cap is 0. Safe beside everything
 * but destroy; does not fail. */
FP4MOE_API fp4moe_status fp4moe_context_table(fp4moe_context *context, char *buf, size_t cap,
                                              size_t *needed);

/* ---- Layer */

typedef struct fp4moe_layer fp4moe_layer;

typedef struct fp4moe_layer_desc {
  size_t struct_size;
  size_t hidden;       /* H: K of gate/up, N of down. A multiple of 32 (MXFP4) or 16 (NVFP4) */
  size_t intermediate; /* I: N of gate and of up, K of down. The same multiples, both up to 2^20 */
  size_t experts;      /* E: experts held here, 1..65536 */
  fp4moe_format format;
  fp4moe_precision precision;
  fp4moe_activation activation;
  /* 1: x * router weight enters gate/up and nothing is weighted at the end (Llama-4). Calls then
   * have top_k 1, anything else is INVALID. */
  int router_weight_on_input;
  /* Class NVFP4; all 0 in other classes. The input scales belong to GLOBAL_LAYER, 2^-100..2^100:
   * the largest of the gate and up projections, and of the down projections, of ALL experts of the
   * model's layer, those held elsewhere too. */
  fp4moe_input_global input_global;
  float input_scale_gate_up, input_scale_down;
  /* S: parts, by output rows of every expert, that the packed weights are cut into, each in memory
   * of one node; a thread works on its node's first. 0: one per memory node on which the context
   * has a thread and the process may have memory, or 1 where the selection table says that this is
   * faster (1 too in a build without libnuma, and with a caller's allocator, which places its
   * memory itself). Up to 16. The bits do not depend on S. */
  size_t shards;
} fp4moe_layer_desc;

/* One projection [N][K] in checkpoint form. Row strides let halves and interleaved rows be read in
 * place: for rows g0,u0,g1,u1 gate starts at row 0 and up at row 1, both with twice the stride. */
typedef struct fp4moe_projection {
  const void *codes;       /* [N][K/2] bytes of two E2M1 codes */
  size_t codes_stride;     /* bytes; 0 = K/2 */
  const void *scales;      /* [N][K/32] E8M0 or [N][K/16] E4M3FN bytes */
  size_t scales_stride;    /* bytes; 0 = the scales of one row */
  float global;            /* NVFP4: FP32 multiplier, finite; MXFP4: 1 */
  const void *bias;        /* [N] elements; NULL = no bias */
  fp4moe_dtype bias_dtype; /* F32, F16 or BF16 */
  size_t bias_stride;      /* bytes; 0 = the element */
  float input_scale;       /* multiplier, 2^-100..2^100; 0 = none. Class NVFP4, GLOBAL_EXPERT */
} fp4moe_projection;

typedef struct fp4moe_expert_weights {
  size_t struct_size;
  fp4moe_projection gate; /* [I][H]; ungated: all zero */
  fp4moe_projection up;   /* [I][H] */
  fp4moe_projection down; /* [H][I] */
} fp4moe_expert_weights;

/* Reserves the packed weights (fp4moe_layer_bytes) of a layer that still has no expert.
 * INVALID (size or field by name), UNSUPPORTED (class, class with format, activation), NO_MEMORY.
 */
FP4MOE_API fp4moe_status fp4moe_layer_begin(fp4moe_context *context, const fp4moe_layer_desc *desc,
                                            fp4moe_layer **layer);

/* Packs expert e; the source may be freed on return. Threads may set different experts at once; one
 * that failed may be set again. INVALID: e out of range or set twice, a field that breaks its
 * contract, a block scale that is NaN (E8M0 255, E4M3 0x7f or 0xff), a global that is not finite,
 * an input scale that is read and out of range; the detail names projection, row and block.
 * NO_MEMORY with several shards. */
FP4MOE_API fp4moe_status fp4moe_layer_set_expert(fp4moe_layer *layer, size_t e,
                                                 const fp4moe_expert_weights *weights);

/* Chooses kernels and opens the layer for calls, when every set_expert has returned. INVALID: an
 * expert was never set, or has no input scale and the class reads it (named), or the layer is
 * finished. UNSUPPORTED: a kernel constraint leaves an op without a kernel, or tuned REQUIRE a
 * shape without its key. NO_MEMORY. */
FP4MOE_API fp4moe_status fp4moe_layer_finish(fp4moe_layer *layer);

/* Chooses again, from the context's present table. A call keeps the choice that it began with, so
 * this is safe beside calls, reloads and other replans, but not beside a call by a team, whose
 * threads must all begin with the same. Afterwards a call may want a larger workspace. A layer
 * keeps every distinct choice it has had, some 2 KB each. Errors as finish, and INVALID before it:
 * the choice then stays. */
FP4MOE_API fp4moe_status fp4moe_layer_replan(fp4moe_layer *layer);

/* Waits for nothing: no call of this layer may be running. NULL: nothing. */
FP4MOE_API void fp4moe_layer_destroy(fp4moe_layer *layer);

/* Bytes of packed weights, all experts. */
FP4MOE_API size_t fp4moe_layer_bytes(const fp4moe_layer *layer);

/* Packed bytes of a layer and a memory node. */
typedef struct fp4moe_node_bytes {
  int node;     /* as the system numbers it; -1: none, see below */
  size_t asked; /* of shards for which the node was asked; -1: for which none was */
  size_t there; /* of pages that lie there; -1: nowhere yet, or the system does not tell */
} fp4moe_node_bytes;

/* Where the weights are: one entry for -1 and for each node that has any, ascending. At most cap
 * are written (nodes may be NULL with cap 0), *count is how many there are. `asked` and `there`
 * each add up to fp4moe_layer_bytes. Asks the system about every page. INVALID: NULL; NO_MEMORY. */
FP4MOE_API fp4moe_status fp4moe_layer_nodes(const fp4moe_layer *layer, fp4moe_node_bytes *nodes,
                                            size_t cap, size_t *count);

/* ---- Packed records: experts that are packed once and kept by the caller
 *
 * A record is one packed expert: self-contained, with a header and a checksum, little-endian, the
 * same for every class, ISA and number of threads. A file of records (fp4moe_io.h makes one) can
 * be mapped read-only, so that processes share its pages. */

/* Bytes of one record of such a layer, a multiple of 64; desc->precision does not matter. 0: the
 * desc is INVALID or UNSUPPORTED, as the detail says. */
FP4MOE_API size_t fp4moe_record_bytes(const fp4moe_layer_desc *desc);

/* Packs one expert into record [fp4moe_record_bytes], 64-byte aligned. Every byte is written and
 * depends on desc and weights alone. Errors as fp4moe_layer_set_expert. */
FP4MOE_API fp4moe_status fp4moe_record_write(const fp4moe_layer_desc *desc,
                                             const fp4moe_expert_weights *weights, void *record);

/* Expert e of a layer begun, from a record [fp4moe_record_bytes], 64-byte aligned: copied. INVALID:
 * as set_expert, or the record's header or checksum does not fit; both values are named. */
FP4MOE_API fp4moe_status fp4moe_layer_set_record(fp4moe_layer *layer, size_t e, const void *record);

typedef struct fp4moe_records {
  size_t struct_size;
  const void *data; /* [E] records without gaps, 64-byte aligned; read only */
  size_t bytes;     /* E * fp4moe_record_bytes */
  int verify;       /* 1: every checksum is computed, which reads it all; 0: the headers' sizes,
                       versions and layout only */
  /* Called with data and bytes when the layer is destroyed. NULL: the caller knows when. */
  void (*release)(void *user, const void *data, size_t bytes);
  void *user;
} fp4moe_records;

/* A finished layer that reads the records in place, to the same bits as one that packed them. It
 * has one shard (desc->shards above 1 is INVALID), wherever its pages are. They must stay as they
 * are until release (a file behind a map that is truncated is SIGBUS). INVALID: sizes, alignment, a
 * record that does not fit (the expert is named); release is then not called. NO_MEMORY,
 * UNSUPPORTED: as begin and finish. */
FP4MOE_API fp4moe_status fp4moe_layer_map(fp4moe_context *context, const fp4moe_layer_desc *desc,
                                          const fp4moe_records *records, fp4moe_layer **layer);

/* ---- Forward */

/* The largest call. top_k counts the id columns of a token. threads: 0 = the context's. */
typedef struct fp4moe_limits {
  size_t struct_size;
  size_t max_tokens;
  size_t top_k;
  size_t threads;
} fp4moe_limits;

/* Workspace with which a call within `limits` runs in one piece; 0, and fp4moe_error_detail says
 * why, when an argument is invalid or the layer not finished. Any alignment; the contents need not
 * survive between calls, and calls in different threads need different workspaces. One workspace
 * may serve all layers: take the largest size. */
FP4MOE_API size_t fp4moe_workspace_bytes(const fp4moe_layer *layer, const fp4moe_limits *limits);

/* The least workspace for a call of `limits`: tokens then go through in pieces, same bits. */
FP4MOE_API size_t fp4moe_workspace_min_bytes(const fp4moe_layer *layer,
                                             const fp4moe_limits *limits);

/* Where the time of one call went. Waits are summed over the workers of the phase. A call that
 * fails, or has no tokens, leaves it as it was. */
typedef struct fp4moe_stats {
  size_t struct_size;
  uint64_t prepare_ns;
  uint64_t phase1_ns;      /* gate/up, activation; GLOBAL_TOKEN: and quantising h */
  uint64_t phase1_wait_ns; /* workers idle at the end of phase 1 */
  uint64_t phase2_ns;      /* down, combine */
  uint64_t phase2_wait_ns;
  uint64_t weight_bytes; /* packed bytes of the distinct active experts */
  size_t active_experts;
  size_t threads;
  uint32_t *expert_rows; /* in: [E] or NULL = not wanted; out: rows of each expert */
} fp4moe_stats;

/* SPMD: nth threads of the caller make one call together. Each calls forward with the same batch
 * and workspace and its own team; all return the same status, after the last has written its part.
 */
typedef struct fp4moe_team {
  size_t ith, nth;            /* this thread, 0 <= ith < nth <= max_threads */
  void (*barrier)(void *arg); /* returns when all nth have called it, and orders their memory */
  void *arg;
} fp4moe_team;

typedef struct fp4moe_batch {
  size_t struct_size;
  size_t tokens;             /* M; 0 is fine */
  size_t top_k;              /* id columns of a token, 1..65536; M * top_k < 2^32 */
  const void *x;             /* [M][H] */
  fp4moe_dtype x_dtype;      /* F32, F16 or BF16 */
  size_t x_stride;           /* bytes; 0 = H elements */
  void *y;                   /* [M][H]; must not overlap x */
  fp4moe_dtype y_dtype;      /* F32, F16 or BF16 */
  size_t y_stride;           /* bytes; 0 = H elements */
  const void *topk_ids;      /* [M][top_k]; -1: the slot adds nothing */
  fp4moe_dtype ids_dtype;    /* I32 or I64 */
  size_t ids_stride;         /* bytes; 0 = top_k elements */
  const float *topk_weights; /* [M][top_k] router weights */
  size_t weights_stride;     /* bytes; 0 = top_k elements */
  const int32_t *expert_map; /* id -> expert of this layer, or -1 = elsewhere; NULL: identity */
  size_t expert_map_count;   /* ids that the map covers */
  int accumulate;            /* 0: y = sum, y is not read; 1: y = round(y + sum) */
  size_t threads;            /* 0 = the context's; at most max_threads */
  fp4moe_stats *stats;       /* NULL = not wanted; of a team, thread 0's counts */
  const fp4moe_team *team;   /* NULL: threads of the context's provider */
} fp4moe_batch;

/* y = sum over slots of weight * expert(x), experts in ascending id, FP32, rounded once. An id may
 * stand in several slots of a token; each adds its own.
 * Shared experts, which every token visits: where they are FP4 with the same I, they are experts E,
 * E + 1, ... of this layer (desc.experts counts them), and each token has a slot with their id and
 * weight 1 (or the shared gate's value) more. Otherwise they are a layer of their own with top_k 1
 * and ids 0, called after this one with accumulate 1 on the same y; with BF16 or F16 y that rounds
 * twice. With router_weight_on_input, whose calls have top_k 1, always the latter.
 * Thread-safe with one workspace per call. INVALID (an id >= E, a bad field) and WORKSPACE leave y
 * untouched. */
FP4MOE_API fp4moe_status fp4moe_layer_forward(fp4moe_layer *layer, const fp4moe_batch *batch,
                                              void *workspace, size_t workspace_bytes);

/* ---- Router: from logits to expert ids and weights */

/* The score of an expert from its logit l.
 *   SOFTMAX        e^l / sum of e^l
 *   SIGMOID        1 / (1 + e^-l)
 *   SQRT_SOFTPLUS  sqrt(ln(1 + e^l)) */
typedef enum fp4moe_scoring {
  FP4MOE_SOFTMAX = 0,
  FP4MOE_SIGMOID,
  FP4MOE_SQRT_SOFTPLUS
} fp4moe_scoring;

/* How a token's logits become top_k ids and weights. An expert's key is its score (topk_first: its
 * logit) + its bias. The top_k largest keys are chosen; of equal keys the lower id. Without bias
 * and groups the logits are compared, which tells apart scores that only rounding makes equal.
 * A chosen expert weighs its score, without the bias, times scale. Every field counts. */
typedef struct fp4moe_router {
  size_t struct_size;
  size_t experts; /* E: logits of a token, 1..65536 */
  size_t top_k;   /* 1..E, and no more than the chosen groups hold */
  fp4moe_scoring scoring;
  int topk_first;    /* 1: chosen by logit, then scored: the SOFTMAX of the chosen only */
  int renormalize;   /* 1: weights / their sum, before scale; a sum of 0 leaves them 0. With
                        topk_first SOFTMAX they sum to 1 as they are, and it must be 0 */
  float scale;       /* > 0, finite; 1 where the model has none */
  const float *bias; /* [E] correction bias, finite; NULL = none */
  /* Experts are cut into `groups` equal runs of at least 2; a group's score is the sum of its two
   * largest keys, and only the top_groups best groups (ties: the lower) are chosen from
   * (DeepSeek-V3). At most 256 groups, which divide E. 0 or 1, with top_groups the same: none. */
  size_t groups;
  size_t top_groups;
} fp4moe_router;

/* The router of a model family, for `experts` and `top_k`:
 *   "gpt-oss"      SOFTMAX of the top-k logits
 *   "qwen3"        SOFTMAX, top-k, renormalised
 *   "deepseek-v3"  SIGMOID, 4 of 8 groups, renormalised x 2.5
 *   "deepseek-v4"  SQRT_SOFTPLUS, renormalised; scale is 0, to be set: the models differ
 *   "llama-4"      top-k logits, SIGMOID of each
 * The checkpoint's correction bias (deepseek-*) is the caller's to set, as are other groups and
 * scale (n_group, topk_group, routed_scaling_factor of config.json). INVALID: an unknown name. */
FP4MOE_API fp4moe_status fp4moe_router_preset(const char *name, size_t experts, size_t top_k,
                                              fp4moe_router *router);

/* Logits in, aligned to their elements; ids and weights out, of any alignment. None overlap. A row
 * of ids is in descending order of keys. */
typedef struct fp4moe_routing {
  size_t struct_size;
  size_t tokens;             /* M; 0 is fine */
  const void *logits;        /* [M][E] */
  fp4moe_dtype logits_dtype; /* F32, F16 or BF16 */
  size_t logits_stride;      /* bytes; 0 = E elements */
  void *topk_ids;            /* out: [M][top_k] */
  fp4moe_dtype ids_dtype;    /* I32 or I64 */
  size_t ids_stride;         /* bytes; 0 = top_k elements */
  float *topk_weights;       /* out: [M][top_k] */
  size_t weights_stride;     /* bytes; 0 = top_k elements */
} fp4moe_routing;

/* Routes on the calling thread, without workspace or allocation. Scores are computed in FP32 with
 * the same bits on every ISA; a token's result depends on its logits only, so any split of the
 * tokens over calls and threads gives the same. A token with a NaN key gets the ids 0..top_k-1 and
 * NaN weights: its output is NaN, no other's. Infinite logits go through the formulas: -Inf is an
 * expert that weighs 0, +Inf among SOFTMAX makes the weights NaN. INVALID: the field by name. */
FP4MOE_API fp4moe_status fp4moe_route(const fp4moe_router *router, const fp4moe_routing *routing);

/* Router and layer in one: fp4moe_route, over the threads of the batch, then fp4moe_layer_forward
 * on its ids and weights; the same bits as the two calls. Of the batch tokens, top_k, ids and
 * weights are not read, the routing has them; with an expert_map the router's E is the map's.
 * Fails as either does: y is then untouched, ids and weights may be written. */
FP4MOE_API fp4moe_status fp4moe_layer_forward_routed(fp4moe_layer *layer,
                                                     const fp4moe_router *router,
                                                     const fp4moe_routing *routing,
                                                     const fp4moe_batch *batch, void *workspace,
                                                     size_t workspace_bytes);

/* ---- The same call in three, for dispatchers of one's own */

/* Rows by expert, in one of two forms.
 *   grouped  rows of expert e are [expert_offsets[e], expert_offsets[e + 1]) of one matrix
 *   batched  each expert has a block of max_rows rows, of which the first expert_counts[e] are
 *            there: the others are neither read nor written. expert_counts is not NULL */
typedef struct fp4moe_rows {
  size_t struct_size;
  size_t rows;             /* grouped; batched: not read */
  void *data;              /* [rows][H]; batched: [E][max_rows][H] */
  fp4moe_dtype dtype;      /* F32, F16 or BF16 */
  size_t stride;           /* bytes; 0 = H elements */
  int64_t *expert_offsets; /* grouped: [E + 1], ascending, first 0, last = rows; NULL with E = 1:
                              all rows */
  const int32_t *expert_counts; /* batched: [E], 0..max_rows; NULL: grouped */
  size_t max_rows;              /* batched: rows of a block; grouped: 0 */
  size_t expert_stride;         /* batched: bytes from block to block; 0 = max_rows rows */
} fp4moe_rows;

/* How a call runs that has no batch to say so; NULL for it is all zero. */
typedef struct fp4moe_options {
  size_t struct_size;
  size_t threads;          /* 0 = the context's; at most max_threads */
  fp4moe_stats *stats;     /* NULL = not wanted; of a team, thread 0's counts */
  const fp4moe_team *team; /* NULL: threads of the context's provider */
} fp4moe_options;

/* Dispatch: groups (never batched) the batch's (token, slot) pairs by expert, tokens ascending
 * within one, and copies x (times the router weight when that goes on the input) into rows->data in
 * rows->dtype. On entry rows->rows is the capacity (M * top_k always suffices), on return the
 * number used. row_pair [capacity]: token * top_k + slot of each row. Of the batch x, ids, weights,
 * map and threads count; one thread calls it, also where forward calls are a team's. INVALID: too
 * few rows, batched ones, or as forward; NO_MEMORY. Nothing is then written. */
FP4MOE_API fp4moe_status fp4moe_prepare(fp4moe_layer *layer, const fp4moe_batch *batch,
                                        fp4moe_rows *rows, int64_t *row_pair);

/* Experts: out row r = down(activation(gate/up(row r))), unweighted and unreduced, in out->dtype.
 * out has the form of rows (its offsets or counts are not read) and must not overlap it. A
 * workspace as for max_tokens = rows, or the sum of counts, and top_k = 1. Errors as forward. */
FP4MOE_API fp4moe_status fp4moe_experts(fp4moe_layer *layer, const fp4moe_rows *rows,
                                        const fp4moe_rows *out, const fp4moe_options *options,
                                        void *workspace, size_t workspace_bytes);

/* Finalize: y of the batch = sum of weight * row over the token's rows (weight 1 when it went on
 * the input), experts ascending. row_pair as prepare wrote it, rows grouped. Rows of other ranks
 * may be missing: they add nothing. The three with FP32 rows in between give the bits of the one
 * call where no token has two slots here and the class is INT8 or I is below 1024. Otherwise the
 * sums of phase 2 are cut at other places, and results differ within the class's bound. Called as
 * prepare. INVALID: a row_pair out of range or twice, or as there; NO_MEMORY: y is as it was. */
FP4MOE_API fp4moe_status fp4moe_finalize(fp4moe_layer *layer, const fp4moe_batch *batch,
                                         const fp4moe_rows *rows, const int64_t *row_pair);

/* ---- Linear: FP4 matrices without a layer around them
 *
 * E matrices [N][K] of one format and class: a dense FP4 linear such as an LM head (E = 1), or one
 * projection of all experts, for engines that schedule a MoE themselves. It packs, selects kernels,
 * takes threads and fails as a layer does; where a comment says H, x has K and y has N columns. */

typedef struct fp4moe_linear fp4moe_linear;

typedef struct fp4moe_linear_desc {
  size_t struct_size;
  size_t n;       /* N: rows of a matrix, columns of y, 1..2^20 */
  size_t k;       /* K: a multiple of 32 (MXFP4) or 16 (NVFP4), up to 2^20 */
  size_t experts; /* E: matrices, 1..65536 */
  fp4moe_format format;
  fp4moe_precision precision;
  fp4moe_input_global input_global; /* class NVFP4; as of a layer */
  float input_scale;                /* GLOBAL_LAYER: of x; else 0 */
  size_t shards;                    /* as of a layer */
} fp4moe_linear_desc;

/* As fp4moe_layer_begin, _set_expert (one projection [N][K], by its fields), _finish, ... */
FP4MOE_API fp4moe_status fp4moe_linear_begin(fp4moe_context *context,
                                             const fp4moe_linear_desc *desc,
                                             fp4moe_linear **linear);
FP4MOE_API fp4moe_status fp4moe_linear_set_expert(fp4moe_linear *linear, size_t e,
                                                  const fp4moe_projection *matrix);
FP4MOE_API fp4moe_status fp4moe_linear_finish(fp4moe_linear *linear);
FP4MOE_API fp4moe_status fp4moe_linear_replan(fp4moe_linear *linear);
FP4MOE_API void fp4moe_linear_destroy(fp4moe_linear *linear); /* NULL: nothing */
FP4MOE_API size_t fp4moe_linear_bytes(const fp4moe_linear *linear);
FP4MOE_API fp4moe_status fp4moe_linear_nodes(const fp4moe_linear *linear, fp4moe_node_bytes *nodes,
                                             size_t cap, size_t *count);

/* As of a layer. Grouped and batched rows: max_tokens = rows, top_k = 1. */
FP4MOE_API size_t fp4moe_linear_workspace_bytes(const fp4moe_linear *linear,
                                                const fp4moe_limits *limits);
FP4MOE_API size_t fp4moe_linear_workspace_min_bytes(const fp4moe_linear *linear,
                                                    const fp4moe_limits *limits);

/* y row r = matrix[expert of r] * x row r + bias, rows as in fp4moe_experts; x [rows][K], y
 * [rows][N]. The bits of a row depend on its expert's rows in the call only through their number.
 */
FP4MOE_API fp4moe_status fp4moe_matmul_grouped(fp4moe_linear *linear, const fp4moe_rows *x,
                                               const fp4moe_rows *y, const fp4moe_options *options,
                                               void *workspace, size_t workspace_bytes);

/* Rows with ids, as ggml's MUL_MAT_ID has them: y[t][s] = matrix[ids[t][s]] * x[t][s % x_slots]. */
typedef struct fp4moe_indexed {
  size_t struct_size;
  size_t tokens;          /* T; 0 is fine */
  size_t slots;           /* S: ids of a token */
  const void *x;          /* [T][x_slots][K] */
  fp4moe_dtype x_dtype;   /* F32, F16 or BF16 */
  size_t x_slots;         /* S, or 1: all slots of a token share its row (quantised once) */
  size_t x_slot_stride;   /* bytes; 0 = K elements */
  size_t x_token_stride;  /* bytes; 0 = x_slots rows */
  void *y;                /* [T][S][N]; must not overlap x */
  fp4moe_dtype y_dtype;   /* F32, F16 or BF16 */
  size_t y_slot_stride;   /* bytes; 0 = N elements */
  size_t y_token_stride;  /* bytes; 0 = S rows */
  const void *ids;        /* [T][S]; -1: the row of y is 0 */
  fp4moe_dtype ids_dtype; /* I32 or I64 */
  size_t id_slot_stride;  /* bytes; 0 = one id */
  size_t id_token_stride; /* bytes; 0 = S ids */
} fp4moe_indexed;

/* A workspace as for max_tokens = T, top_k = S. INVALID (an id >= E, a bad field) and WORKSPACE
 * leave y untouched. */
FP4MOE_API fp4moe_status fp4moe_matmul_indexed(fp4moe_linear *linear, const fp4moe_indexed *call,
                                               const fp4moe_options *options, void *workspace,
                                               size_t workspace_bytes);

/* ---- Why */

/* A call of this layer as the oracle sees it. */
typedef struct fp4moe_problem {
  size_t struct_size;
  size_t tokens;
  size_t top_k;
  int json; /* 1: JSON, 0: text */
} fp4moe_problem;

/* Every kernel of this build with selected / eligible (measured cost and its noise) / refused and
 * all reasons, each phase's table key, where the choice came from (exact, nearest, static order)
 * and what would change it, for rows spread evenly over the experts. Text is written as by
 * fp4moe_context_table. The first form needs no weights nor input scales; the others say too when
 * what runs is an earlier choice. Safe beside everything but destroy. INVALID, UNSUPPORTED: as
 * begin and finish; NO_MEMORY. */
FP4MOE_API fp4moe_status fp4moe_explain(fp4moe_context *context, const fp4moe_layer_desc *desc,
                                        const fp4moe_problem *problem, char *buf, size_t cap,
                                        size_t *needed);
FP4MOE_API fp4moe_status fp4moe_layer_explain(fp4moe_layer *layer, const fp4moe_problem *problem,
                                              char *buf, size_t cap, size_t *needed);
FP4MOE_API fp4moe_status fp4moe_linear_explain(fp4moe_linear *linear, const fp4moe_problem *problem,
                                               char *buf, size_t cap, size_t *needed);

#ifdef __cplusplus
}
#endif
#endif
