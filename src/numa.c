/* numa.c - memory nodes (nodes.h). The only file that uses libnuma: a build without it places
 * nothing, so that a layer has one shard unless more are asked for, and knows of no page where it
 * lies. No answer of the system is a failure: without its help memory works, only slower. */
#include <sched.h>

#include "nodes.h"

#ifdef FP4MOE_NUMA
#include <numa.h>
#include <numaif.h>

int fp4moe_numa_works(void) { return numa_available() >= 0; }

int fp4moe_numa_allows(int node) {
  if (!fp4moe_numa_works()) return 0;
  struct bitmask *mems = numa_get_mems_allowed();
  int allowed = mems && numa_bitmask_isbitset(mems, (unsigned)node);
  if (mems) numa_bitmask_free(mems);
  return allowed;
}

int fp4moe_numa_bind(void *memory, size_t bytes, int node) {
  if (!fp4moe_numa_works()) return 0;
  struct bitmask *mask = numa_allocate_nodemask();
  if (!mask) return 0;
  numa_bitmask_setbit(mask, (unsigned)node);
  int failed = mbind(memory, bytes, MPOL_PREFERRED, mask->maskp, mask->size + 1, 0) != 0;
  numa_bitmask_free(mask);
  return !failed;
}

void fp4moe_numa_where(void **page, int *node, size_t n) {
  int failed = move_pages(0, n, page, NULL, node, 0) != 0;
  for (size_t i = 0; i < n; i++)
    if (failed || node[i] < 0) node[i] = -1; /* a page that is not there is -ENOENT */
}

#else

int fp4moe_numa_works(void) { return 0; }

int fp4moe_numa_allows(int node) {
  (void)node;
  return 0;
}

int fp4moe_numa_bind(void *memory, size_t bytes, int node) {
  (void)memory, (void)bytes, (void)node;
  return 0;
}

void fp4moe_numa_where(void **page, int *node, size_t n) {
  (void)page;
  for (size_t i = 0; i < n; i++) node[i] = -1;
}

#endif

int fp4moe_numa_here(void) {
  unsigned cpu, node;
  return getcpu(&cpu, &node) ? -1 : (int)node;
}
