/* places.c - where a context's threads run and its layers lie (context.h).
 *
 * The caller's word stands first. Where he leaves threads, pinning and placement all open, what the
 * tuner found fastest on this host decides; without such an entry, one thread per core and one
 * shard per memory node. Only nodes on which the pool has a thread count: a layer is not laid where
 * nobody near works. */
#include <stdio.h>
#include <string.h>

#include "layer.h"
#include "nodes.h"
#include "status.h"

/* The table's word, if it means anything here. */
static const char *take_entry(fp4moe_context *ctx, int *pu, size_t *count) {
  const fp4moe_context_desc *d = &ctx->desc;
  const fp4moe_host *h = &ctx->host;
  const fp4moe_table *table = ctx->table && !ctx->table->refused ? ctx->table : NULL;
  const fp4moe_placement_entry *entry;
  if (d->max_threads || d->no_pin || d->parallel_for) return NULL;
  fp4moe_placement_key key = fp4moe_host_key(h);
  fp4moe_match match = fp4moe_table_place(table, &key, &entry);
  if (!match || !(*count = fp4moe_place(h->pu, h->pus, entry->placement, pu))) return NULL;
  ctx->placed = *entry;
  ctx->placed_by = match;
  return fp4moe_placement_name(entry->placement);
}

fp4moe_status fp4moe_places_find(fp4moe_context *ctx, int *pu, size_t *count) {
  const fp4moe_context_desc *d = &ctx->desc;
  const char *word = d->placement;
  if (word && (d->parallel_for || d->no_pin))
    return fp4moe_fail(FP4MOE_INVALID, "placement is \"%s\", with %s nothing is pinned", word,
                       d->no_pin ? "no_pin" : "parallel_for");
  if (!word) word = take_entry(ctx, pu, count);
  if (!word) word = "per_core";
  fp4moe_status status = fp4moe_host_place(&ctx->host, word, pu, count);
  if (!status && d->placement && d->max_threads > *count)
    return fp4moe_fail(FP4MOE_INVALID, "max_threads is %zu, placement \"%s\" has %zu",
                       d->max_threads, d->placement, *count);
  snprintf(ctx->placement, sizeof ctx->placement, "%s", word);
  return status;
}

static int runs_on(const fp4moe_host *host, int node, const int *pu, size_t n) {
  for (size_t i = 0; i < host->pus; i++) {
    if (host->pu[i].node != node) continue;
    if (!pu) return 1;
    for (size_t j = 0; j < n; j++)
      if (pu[j] == host->pu[i].pu) return 1;
  }
  return 0;
}

void fp4moe_places_nodes(fp4moe_context *ctx, const int *pu, size_t n) {
  for (int node = 0; node < FP4MOE_MAX_PUS && ctx->nodes < FP4MOE_MAX_NODES; node++)
    if (runs_on(&ctx->host, node, pu, n) && fp4moe_numa_allows(node))
      ctx->node[ctx->nodes++] = node;
}

size_t fp4moe_places_shards(const fp4moe_context *ctx) {
  size_t shards = ctx->nodes;
  if (ctx->caller_memory || !shards) return 1;
  if (ctx->placed_by && ctx->placed.shards < shards) shards = ctx->placed.shards;
  return shards < FP4MOE_MAX_SHARDS ? shards : FP4MOE_MAX_SHARDS;
}

void fp4moe_places_text(const fp4moe_context *ctx, fp4moe_text *t) {
  const fp4moe_context_desc *d = &ctx->desc;
  const fp4moe_placement_key *k = &ctx->placed.key, here = fp4moe_host_key(&ctx->host);
  size_t shards = fp4moe_places_shards(ctx);
  fp4moe_text_add(t, "threads: %zu, ", d->max_threads);
  if (!ctx->pool)
    fp4moe_text_add(t, "the caller's");
  else if (!ctx->pinned)
    fp4moe_text_add(t, "not pinned");
  else
    fp4moe_text_add(t, "placement %s", ctx->placement);
  fp4moe_text_add(t, "; layers in %zu shard%s", shards, shards == 1 ? "" : "s");
  if (ctx->placed_by == FP4MOE_MATCH_EXACT) fp4moe_text_add(t, " (table, exact)");
  if (ctx->placed_by == FP4MOE_MATCH_NEAREST)
    fp4moe_text_add(t,
                    " (table, nearest: of %zu cores, %zu nodes, %zu PUs; %zu, %zu, %zu allowed "
                    "here)",
                    k->cores, k->nodes, k->pus, here.cores, here.nodes, here.pus);
  fp4moe_text_add(t, "\n");
}
