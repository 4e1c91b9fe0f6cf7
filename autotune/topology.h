/* topology.h - hwloc's view of the machine: held against the library's own, and the placements of
 * threads that are worth a try. */
#ifndef FP4MOE_TOPOLOGY_H
#define FP4MOE_TOPOLOGY_H

#include <hwloc.h>

#include "host.h"

/* 1: the library and hwloc agree on the fingerprint and, PU by PU, on what is allowed and where it
 * lies. Else `difference` has one line with both. */
int topology_agrees(const fp4moe_host *host, char *difference, size_t cap);

/* Allowed PUs of a loaded topology, ascending; of this system those in the affinity mask. pus
 * [FP4MOE_MAX_PUS]; returns how many. */
size_t topology_pus(hwloc_topology_t topology, fp4moe_pu *pus);

typedef struct topology_placement {
  fp4moe_placement placement;
  const char *name; /* as of fp4moe_context_desc.placement */
  size_t count;
  int pu[FP4MOE_MAX_PUS]; /* of thread 0, 1, ... */
} topology_placement;

/* Pure: the distinct placements of PUs [n], each of at most `quota` threads (0: no limit). Of those
 * with the same PUs the first stands; of a single PU there is none beside others, since a schedule
 * can have one worker too. Returns how many. */
size_t topology_placements(const fp4moe_pu *pus, size_t n, size_t quota,
                           topology_placement out[FP4MOE_PLACEMENTS]);

/* A placement, and into how many shards layers are cut with it. */
typedef struct topology_place {
  topology_placement threads;
  size_t nodes; /* on which they are */
  size_t shards;
} topology_place;

enum { PLACES_MAX = 2 * FP4MOE_PLACEMENTS };

/* Pure: the places of PUs [n] under a quota (0: none), what the library does untuned first: every
 * distinct placement, with a shard per node of its threads and with one. shards: 0 = memory cannot
 * be placed. Returns how many; one is nothing to choose from. */
size_t topology_plan(const fp4moe_pu *pus, size_t n, size_t quota, int shards,
                     topology_place out[PLACES_MAX]);

#endif
