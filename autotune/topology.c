/* topology.c - hwloc against src/host.c (topology.h). The library reads sysfs itself so that it
 * links no hwloc; the tuner, which does, checks that both count alike. */
#include <hwloc.h>
#include <stdio.h>
#include <string.h>

#include "topology.h"

static size_t cache_size(hwloc_topology_t t, hwloc_obj_type_t type) {
  hwloc_obj_t cache = hwloc_get_obj_by_type(t, type, 0);
  return cache ? (size_t)cache->attr->cache.size : 0;
}

static size_t count(hwloc_topology_t t, hwloc_obj_type_t type) {
  int n = hwloc_get_nbobjs_by_type(t, type);
  return n > 0 ? (size_t)n : 0;
}

int topology_text(char *buf, size_t cap) {
  hwloc_topology_t t;
  if (hwloc_topology_init(&t)) return 0;
  hwloc_topology_set_flags(t, HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED);
  int ok = !hwloc_topology_load(t);
  if (ok)
    snprintf(buf, cap, "packages=%zu nodes=%zu cores=%zu pus=%zu l2=%zu l3=%zu",
             count(t, HWLOC_OBJ_PACKAGE), count(t, HWLOC_OBJ_NUMANODE), count(t, HWLOC_OBJ_CORE),
             count(t, HWLOC_OBJ_PU), cache_size(t, HWLOC_OBJ_L2CACHE),
             cache_size(t, HWLOC_OBJ_L3CACHE));
  hwloc_topology_destroy(t);
  return ok;
}

int topology_agrees(const fp4moe_host *host, char *difference, size_t cap) {
  char text[128];
  if (!topology_text(text, sizeof text)) {
    snprintf(difference, cap, "hwloc cannot read this machine");
    return 0;
  }
  snprintf(difference, cap, "the library sees \"%s\", hwloc \"%s\"", host->topology, text);
  return !strcmp(text, host->topology);
}
