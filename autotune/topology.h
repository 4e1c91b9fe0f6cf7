/* topology.h - hwloc's view of the machine, held against the library's own. */
#ifndef FP4MOE_TOPOLOGY_H
#define FP4MOE_TOPOLOGY_H

#include "host.h"

/* Writes hwloc's text in the form of host->topology. 0: hwloc could not say. */
int topology_text(char *buf, size_t cap);

/* 1: the library's fingerprint and hwloc agree. Else `difference` has one line with both. */
int topology_agrees(const fp4moe_host *host, char *difference, size_t cap);

#endif
