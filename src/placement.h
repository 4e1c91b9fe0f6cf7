/* placement.h - which PUs the threads of a pool run on, in order. */
#ifndef FP4MOE_PLACEMENT_H
#define FP4MOE_PLACEMENT_H

#include <stddef.h>

enum { FP4MOE_MAX_PUS = 1024 };

/* A PU (hardware thread) that the process may use. */
typedef struct fp4moe_pu {
  int pu;    /* as the system numbers it */
  int core;  /* lowest PU of its core */
  int l3;    /* lowest PU under its L3 cache, -1: it has none */
  int node;  /* its memory node */
  int speed; /* of its kind of core: the fastest kind has the most */
} fp4moe_pu;

/*   PER_CORE    one PU of each core
 *   ALL_NODES   the same, the nodes in turn: fewer threads than cores then spread over all
 *   ONE_NODE    one PU of each core of the node that has most
 *   FAST_CORES  one PU of each core of the fastest kind
 *   PER_L3      one PU under each L3 cache
 *   ALL_PUS     all: one of each core, then their siblings */
typedef enum fp4moe_placement {
  FP4MOE_PER_CORE,
  FP4MOE_ALL_NODES,
  FP4MOE_ONE_NODE,
  FP4MOE_FAST_CORES,
  FP4MOE_PER_L3,
  FP4MOE_ALL_PUS,
  FP4MOE_PLACEMENTS
} fp4moe_placement;

/* "per_core", ... */
const char *fp4moe_placement_name(fp4moe_placement placement);

/* Pure: writes the PUs of a placement [n at most] and returns how many; pus [n] ascend by number.
 * 0: there are none, such as under L3 caches where no PU has one. */
size_t fp4moe_place(const fp4moe_pu *pus, size_t n, fp4moe_placement placement, int *out);

#endif
