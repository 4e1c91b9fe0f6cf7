/* shard.c - a layer in S parts, each in an arena on a memory node of its own (layout.h).
 *
 * A shard has a range of output rows of both matmuls of every expert, so that its workers read
 * weights of their own node only, and no sum is cut: results have the bits of S = 1. Gate and up
 * are cut at whole 32-column groups of h, which one unit quantises. An expert is packed whole and
 * then split, which costs one record of memory for a moment. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "layer.h"
#include "nodes.h"
#include "status.h"

/* ---- Cutting ---- */

void fp4moe_shards_cut(const fp4moe_shape *whole, size_t shards, fp4moe_shard *shard) {
  size_t width = whole->gated ? 4 : 2, groups = (whole->panels13 + width - 1) / width;
  for (size_t s = 0; s < shards; s++) {
    size_t end13 = groups * (s + 1) / shards * width;
    if (end13 > whole->panels13) end13 = whole->panels13;
    shard[s] = (fp4moe_shard){.shape = *whole,
                              .first13 = groups * s / shards * width,
                              .first2 = whole->panels2 * s / shards,
                              .node = -1};
    fp4moe_shape *own = &shard[s].shape;
    own->shard = (uint32_t)s;
    own->shards = (uint32_t)shards;
    own->panels13 = end13 - shard[s].first13;
    own->panels2 = whole->panels2 * (s + 1) / shards - shard[s].first2;
    fp4moe_shape_lay_out(own);
  }
}

fp4moe_status fp4moe_shards_check(size_t shards) {
  if (shards <= FP4MOE_MAX_SHARDS) return FP4MOE_OK;
  return fp4moe_fail(FP4MOE_INVALID, "shards is %zu, expected up to %d", shards,
                     (int)FP4MOE_MAX_SHARDS);
}

/* ---- Arenas ---- */

static size_t arena_bytes(const fp4moe_layer *layer, size_t s) {
  return layer->desc.experts * layer->shard[s].shape.bytes;
}

size_t fp4moe_layer_bytes(const fp4moe_layer *layer) {
  size_t bytes = 0;
  for (size_t s = 0; s < layer->shards; s++) bytes += arena_bytes(layer, s);
  return bytes;
}

/* A caller's allocator places its memory itself; one shard stays where it is first touched, unless
 * all threads are on one node of several. */
static int node_of(const fp4moe_layer *layer, size_t s) {
  const fp4moe_context *ctx = layer->ctx;
  int one_of_many = ctx->nodes == 1 && fp4moe_host_key(&ctx->host).nodes > 1;
  if (!ctx->nodes || ctx->caller_memory || (layer->shards == 1 && !one_of_many)) return -1;
  return ctx->node[s * ctx->nodes / layer->shards];
}

fp4moe_status fp4moe_shards_make(fp4moe_layer *layer) {
  layer->shards = layer->desc.shards ? layer->desc.shards : fp4moe_places_shards(layer->ctx);
  fp4moe_shards_cut(&layer->shape, layer->shards, layer->shard);
  for (size_t s = 0; s < layer->shards; s++) {
    fp4moe_shard *own = &layer->shard[s];
    size_t bytes = arena_bytes(layer, s);
    own->records = fp4moe_context_allocate(layer->ctx, bytes);
    if (!own->records)
      return fp4moe_fail(FP4MOE_NO_MEMORY, "%zu experts of %zu packed bytes", layer->desc.experts,
                         own->shape.bytes);
    own->node = node_of(layer, s);
    if (own->node >= 0) fp4moe_numa_bind(own->records, bytes, own->node);
  }
  return FP4MOE_OK;
}

void fp4moe_shards_release(fp4moe_layer *layer) {
  for (size_t s = 0; s < layer->shards; s++)
    if (layer->shard[s].records)
      fp4moe_context_release(layer->ctx, layer->shard[s].records, arena_bytes(layer, s));
}

/* ---- Experts ---- */

void fp4moe_shards_copy(fp4moe_layer *layer, size_t e, const uint8_t *record) {
  if (layer->shards == 1) memcpy(fp4moe_layer_record(layer, 0, e), record, layer->shape.bytes);
  for (size_t s = 0; s < layer->shards && layer->shards > 1; s++)
    fp4moe_record_split(&layer->desc, &layer->shape, record, &layer->shard[s],
                        fp4moe_layer_record(layer, s, e));
}

fp4moe_status fp4moe_shards_pack(fp4moe_layer *layer, size_t e,
                                 const fp4moe_expert_weights *weights) {
  if (layer->shards == 1)
    return fp4moe_record_pack(&layer->desc, &layer->shape, weights,
                              fp4moe_layer_record(layer, 0, e));
  uint8_t *whole = aligned_alloc(FP4MOE_ALIGN, layer->shape.bytes);
  if (!whole) return fp4moe_fail(FP4MOE_NO_MEMORY, "a record of %zu bytes", layer->shape.bytes);
  fp4moe_status status = fp4moe_record_pack(&layer->desc, &layer->shape, weights, whole);
  if (!status) fp4moe_shards_copy(layer, e, whole);
  free(whole);
  return status;
}

/* ---- Workers ---- */

size_t fp4moe_shards_home(const fp4moe_layer *layer, int node, size_t worker) {
  size_t first = worker % layer->shards;
  for (size_t i = 0; i < layer->shards; i++)
    if (layer->shard[(first + i) % layer->shards].node == node) return (first + i) % layer->shards;
  return first;
}

/* ---- Where the bytes are ---- */

enum { NODE_IDS = 1024, PAGES_AT_ONCE = 512 };

typedef struct {
  size_t asked[NODE_IDS + 1], there[NODE_IDS + 1]; /* of node i at i + 1; 0: unknown */
} census;

static size_t slot_of(int node) { return node >= 0 && node < NODE_IDS ? (size_t)node + 1 : 0; }

/* Counts the bytes of [memory, memory + bytes) by the nodes of their pages. */
static void count_pages(census *c, const uint8_t *memory, size_t bytes) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE), end = (size_t)memory + bytes;
  void *pages[PAGES_AT_ONCE];
  int nodes[PAGES_AT_ONCE];
  for (size_t at = (size_t)memory; at < end;) {
    size_t n = 0, first = at / page * page;
    while (n < PAGES_AT_ONCE && first + n * page < end) {
      pages[n] = (void *)(first + n * page);
      n++;
    }
    fp4moe_numa_where(pages, nodes, n);
    for (size_t i = 0; i < n; i++) {
      size_t next = first + (i + 1) * page < end ? first + (i + 1) * page : end;
      c->there[slot_of(nodes[i])] += next - at;
      at = next;
    }
  }
}

fp4moe_status fp4moe_layer_nodes(const fp4moe_layer *layer, fp4moe_node_bytes *nodes, size_t cap,
                                 size_t *count) {
  if (!layer || !count || (cap && !nodes))
    return fp4moe_fail(FP4MOE_INVALID, "%s: NULL", !layer ? "layer" : !count ? "count" : "nodes");
  census *c = calloc(1, sizeof *c);
  if (!c) return fp4moe_fail(FP4MOE_NO_MEMORY, "a census of %zu bytes", sizeof *c);
  for (size_t s = 0; s < layer->shards; s++) {
    c->asked[slot_of(layer->shard[s].node)] += arena_bytes(layer, s);
    count_pages(c, layer->shard[s].records, arena_bytes(layer, s));
  }
  *count = 0;
  for (int i = 0; i <= NODE_IDS; i++) {
    if (!c->asked[i] && !c->there[i]) continue;
    if (*count < cap) nodes[*count] = (fp4moe_node_bytes){i - 1, c->asked[i], c->there[i]};
    ++*count;
  }
  free(c);
  return FP4MOE_OK;
}

fp4moe_status fp4moe_shards_text(const fp4moe_layer *layer, fp4moe_text *t) {
  enum { MOST = 64 };
  fp4moe_node_bytes nodes[MOST];
  size_t count = 0;
  fp4moe_text_add(t, "memory: %zu shard%s%s", layer->shards, layer->shards == 1 ? "" : "s",
                  layer->mapped.data ? ", mapped" : "");
  if (!fp4moe_numa_works()) {
    fp4moe_text_add(t, ", %zu bytes (nodes unknown: no libnuma in this build, or in this system)\n",
                    fp4moe_layer_bytes(layer));
    return FP4MOE_OK;
  }
  fp4moe_status status = fp4moe_layer_nodes(layer, nodes, MOST, &count);
  for (size_t i = 0; i < count && i < MOST; i++)
    if (nodes[i].node >= 0)
      fp4moe_text_add(t, "; node %d: %zu bytes, asked %zu", nodes[i].node, nodes[i].there,
                      nodes[i].asked);
    else if (nodes[i].there)
      fp4moe_text_add(t, "; %zu bytes nowhere yet, or untold", nodes[i].there);
  fp4moe_text_add(t, "\n");
  return status;
}
