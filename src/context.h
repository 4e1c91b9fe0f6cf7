/* context.h - what layers share (see fp4moe.h): host, request, table, threads, memory. */
#ifndef FP4MOE_CONTEXT_H
#define FP4MOE_CONTEXT_H

#include <pthread.h>

#include "oracle.h"
#include "pool.h"
#include "table.h"

enum { FP4MOE_MAX_NODES = 64 };

struct fp4moe_context {
  fp4moe_context_desc desc; /* providers filled in, table a copy: it may be read again */
  fp4moe_host host;
  fp4moe_request request;
  fp4moe_isa isa; /* the best that runs here under the cap */
  fp4moe_pool *pool;
  int pinned;             /* 1: the pool's threads are */
  char placement[64];     /* the word or list that they are pinned by */
  fp4moe_match placed_by; /* NONE: not by the table */
  fp4moe_placement_entry placed;
  int node[FP4MOE_MAX_NODES]; /* memory nodes with allowed memory and a thread, ascending */
  size_t nodes;               /* 0: memory is not placed */
  int caller_memory;          /* 1: allocate is the caller's */
  int verbose_fd;             /* where FP4MOE_VERBOSE sends a line per call, -1: nowhere */
  pthread_mutex_t table_lock; /* of the two below */
  fp4moe_table *table;        /* NULL: none */
  char table_why[256];        /* where it came from, or why there is none */
};

/* Memory of layers, 2 MiB aligned and in huge pages where the system gives them. */
void *fp4moe_context_allocate(fp4moe_context *ctx, size_t bytes);
void fp4moe_context_release(fp4moe_context *ctx, void *memory, size_t bytes);

/* The PUs of the own pool's threads and how many there are (places.c): the caller's, else the
 * table's, else one of each core. pu [FP4MOE_MAX_PUS]. INVALID: fields that contradict. */
fp4moe_status fp4moe_places_find(fp4moe_context *ctx, int *pu, size_t *count);

/* Finds the nodes of threads on PUs [n]; NULL: of threads anywhere. */
void fp4moe_places_nodes(fp4moe_context *ctx, const int *pu, size_t n);

/* S of a layer whose desc names none. */
size_t fp4moe_places_shards(const fp4moe_context *ctx);

/* One line about threads, placement and shards. */
void fp4moe_places_text(const fp4moe_context *ctx, fp4moe_text *t);

/* fp4moe_select under the table lock. */
fp4moe_status fp4moe_context_select(fp4moe_context *ctx, const fp4moe_layer_desc *desc,
                                    fp4moe_plan *plan);

#endif
