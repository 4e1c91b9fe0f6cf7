/* pool.h - the library's own threads: the default fp4moe_parallel_for.
 *
 * fn(arg, i) of i < threads runs on thread i always, 0 being the caller, so that a worker's data
 * stay in its core's cache. One call at a time; a second caller queues. Threads are created at the
 * first call, pinned to the given PUs (thread 0 is the caller's and is left alone), spin a while
 * after a call and then sleep. After fork the child starts with fresh threads. If the system gives
 * fewer threads than asked for, the others do the work. */
#ifndef FP4MOE_POOL_H
#define FP4MOE_POOL_H

#include <stddef.h>
#include <stdint.h>

typedef struct fp4moe_pool fp4moe_pool;

/* pu: one per thread, or NULL to leave them unpinned. NULL: no memory. */
fp4moe_pool *fp4moe_pool_create(size_t threads, const int *pu, uint64_t spin_ns);
void fp4moe_pool_destroy(fp4moe_pool *pool);

/* An fp4moe_parallel_for; `pool` is the fp4moe_pool. */
void fp4moe_pool_run(void *pool, size_t n, void (*fn)(void *arg, size_t i), void *arg);

/* CLOCK_MONOTONIC in ns. */
uint64_t fp4moe_now_ns(void);

#endif
