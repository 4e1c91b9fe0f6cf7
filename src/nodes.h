/* nodes.h - memory nodes: which there are, memory bound to one, where pages lie. */
#ifndef FP4MOE_NODES_H
#define FP4MOE_NODES_H

#include <stddef.h>

/* 1: this build can place memory, and the process may have memory of the node. */
int fp4moe_numa_allows(int node);

/* 0: this build has no libnuma, or the system no nodes. */
int fp4moe_numa_works(void);

/* Pages of a mapping that nobody has touched yet: they will come from the node while it has room,
 * then from others. 0: the system refuses, and they come from where they are first touched. */
int fp4moe_numa_bind(void *memory, size_t bytes, int node);

/* The node on which the calling thread runs now. */
int fp4moe_numa_here(void);

/* node[i]: where page[i] lies, -1 where it is nowhere yet or the system does not tell. */
void fp4moe_numa_where(void **page, int *node, size_t n);

#endif
