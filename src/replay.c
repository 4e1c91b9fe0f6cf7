/* replay.c - a call as a command line: `fp4moe bench` of the same shape, class, tokens and threads,
 * with random weights and routing, by the same kernels (verbose.h).
 *
 * The table, which has panels and prefetch distances too, is named in front, and the kernels by
 * --kernel, so that another table or machine runs them or refuses. Where a table has put both kinds
 * of recipe into buckets that forcing both would turn around, it decides alone. A rank's share of
 * slots, accumulation and dtypes are not replayed; rows by expert are replayed as top-1 calls. */
#include <string.h>

#include "activation.h"
#include "verbose.h"

/* In quotes where a shell would not take it as one word. */
static void add_word(fp4moe_text *t, const char *word) {
  int plain = *word && !word[strspn(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                          "0123456789_-+./,:=@%")];
  if (plain) {
    fp4moe_text_add(t, "%s", word);
    return;
  }
  fp4moe_text_add(t, "'");
  for (; *word; word++) fp4moe_text_add(t, *word == '\'' ? "'\\''" : "%c", *word);
  fp4moe_text_add(t, "'");
}

/* What the choice depended on, but for kernels. */
static void add_environment(fp4moe_context *ctx, fp4moe_text *t) {
  pthread_mutex_lock(&ctx->table_lock);
  const fp4moe_table *table = ctx->table && !ctx->table->refused ? ctx->table : NULL;
  fp4moe_text_add(t, "FP4MOE_TABLE=");
  add_word(t, table ? table->path : "none");
  pthread_mutex_unlock(&ctx->table_lock);
  if (ctx->request.cap != FP4MOE_ISAS - 1)
    fp4moe_text_add(t, " FP4MOE_CPU=%s", fp4moe_isa_name(ctx->request.cap));
}

/* ---- Kernels ---- */

enum { MAX_NAMES = 3 * FP4MOE_PHASES * (FP4MOE_BUCKETS + 1) + 4 };

typedef struct names {
  const fp4moe_kernel *kernel[MAX_NAMES];
  size_t count, bytes;
} names;

static void add_name(names *n, const fp4moe_kernel *kernel) {
  for (size_t i = 0; i < n->count; i++)
    if (n->kernel[i] == kernel) return;
  if (!kernel) return;
  n->kernel[n->count++] = kernel;
  n->bytes += strlen(kernel->name) + 1;
}

/* Would forcing these matmuls give each bucket the same kind of recipe again? Forced, gemvs have
 * the buckets of few rows and gemms those of many. */
static int may_force(const fp4moe_used *used) {
  int kinds[2] = {0}, wide = 0, first_gemm = FP4MOE_BUCKETS, last_gemv = -1;
  for (int phase = 0; phase < FP4MOE_PHASES; phase++)
    for (int b = 0; b < FP4MOE_BUCKETS; b++) {
      const fp4moe_recipe *r = used->recipe[phase][b];
      if (!r) continue;
      kinds[r->gemv != NULL] = 1;
      wide |= r->gemv && fp4moe_is_wide(r->gemv);
      if (r->gemv && b > last_gemv) last_gemv = b;
      if (!r->gemv && b < first_gemm) first_gemm = b;
    }
  int gemvs = wide ? FP4MOE_WIDE_GEMV_BUCKETS : FP4MOE_GEMV_BUCKETS;
  return !(kinds[0] && kinds[1]) || (last_gemv < gemvs && first_gemm >= gemvs);
}

static void add_kernels(const fp4moe_call *c, const fp4moe_used *used, fp4moe_text *t) {
  const fp4moe_plan *p = c->plan;
  const fp4moe_kernel *rest[] = {p->quant, p->act, p->combine, p->store};
  names n = {0};
  for (int i = 0; i < 4; i++) add_name(&n, rest[i]);
  for (int i = 0; i < FP4MOE_PHASES * (FP4MOE_BUCKETS + 1) && may_force(used); i++) {
    const fp4moe_recipe *r = used->recipe[i / (FP4MOE_BUCKETS + 1)][i % (FP4MOE_BUCKETS + 1)];
    if (!r) continue;
    add_name(&n, r->gemv);
    add_name(&n, r->unpack);
    add_name(&n, r->gemm);
  }
  if (n.bytes > sizeof c->layer->ctx->request.globs) return; /* more than --kernel takes */
  for (size_t i = 0; i < n.count; i++)
    fp4moe_text_add(t, "%s%s", i ? "," : " --kernel ", n.kernel[i]->name);
}

/* ---- The command ---- */

static int has_biases(const fp4moe_call *c) {
  const fp4moe_record *r =
      (const void *)fp4moe_layer_record(c->layer, 0, c->actives ? c->active[0].expert : 0);
  return (r->flags & (FP4MOE_RECORD_BIAS_13 | FP4MOE_RECORD_BIAS_2)) != 0;
}

static void add_shape(const fp4moe_call *c, fp4moe_text *t) {
  static const char *const globals[] = {"layer", "expert", "token"};
  const fp4moe_layer_desc *d = &c->layer->desc;
  if (fp4moe_is_linear(d)) {
    fp4moe_text_add(t, " --linear %zu,%zu", d->hidden, d->intermediate);
  } else {
    fp4moe_text_add(t, " --hidden %zu --intermediate %zu", d->hidden, d->intermediate);
    fp4moe_activation_flags(&d->activation, t);
  }
  fp4moe_text_add(t, " --experts %zu --topk %zu --format %s", d->experts,
                  c->batch.top_k < d->experts ? c->batch.top_k : d->experts,
                  fp4moe_format_name((int)d->format));
  if (has_biases(c)) fp4moe_text_add(t, " --biases");
  if (d->router_weight_on_input) fp4moe_text_add(t, " --weight-on-input");
  fp4moe_text_add(t, " --precision %s", fp4moe_class_name((int)c->plan->quant_class));
  if (c->plan->quant_class == FP4MOE_ACT_NVFP4)
    fp4moe_text_add(t, " --input-global %s", globals[c->plan->input_global]);
}

void fp4moe_replay_text(const fp4moe_call *c, const fp4moe_used *used, fp4moe_text *t) {
  size_t threads = c->batch.team ? c->batch.team->nth : c->batch.threads;
  add_environment(c->layer->ctx, t);
  fp4moe_text_add(t, " fp4moe bench");
  add_shape(c, t);
  fp4moe_text_add(t, " --tokens %zu --threads %zu", c->batch.tokens,
                  threads ? threads : fp4moe_context_threads(c->layer->ctx));
  if (c->plan->batch_invariant) fp4moe_text_add(t, " --batch-invariant");
  add_kernels(c, used, t);
}
