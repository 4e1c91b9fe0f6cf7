/* topology.c - hwloc against src/host.c, and placements (topology.h). The library reads sysfs
 * itself so that it links no hwloc; the tuner, which does, checks that both see the same. What a
 * placement is stands in src/placement.c, for both. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layer.h"
#include "topology.h"

static size_t cache_size(hwloc_topology_t t, hwloc_obj_type_t type) {
  hwloc_obj_t cache = hwloc_get_obj_by_type(t, type, 0);
  return cache ? (size_t)cache->attr->cache.size : 0;
}

static size_t count(hwloc_topology_t t, hwloc_obj_type_t type) {
  int n = hwloc_get_nbobjs_by_type(t, type);
  return n > 0 ? (size_t)n : 0;
}

/* hwloc's text in the form of host->topology. 0: hwloc could not say. */
static int describe(char *buf, size_t cap) {
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

/* ---- PUs ---- */

/* The lowest PU under the ancestor of a kind, `missing` where there is none. */
static int first_under(hwloc_topology_t t, hwloc_obj_t pu, hwloc_obj_type_t type, int missing) {
  hwloc_obj_t above = hwloc_get_ancestor_obj_by_type(t, type, pu);
  return above ? hwloc_bitmap_first(above->cpuset) : missing;
}

static int speed_of(hwloc_topology_t t, hwloc_obj_t pu) {
  int efficiency = -1, kind = hwloc_cpukinds_get_by_cpuset(t, pu->cpuset, 0);
  if (kind >= 0) hwloc_cpukinds_get_info(t, (unsigned)kind, NULL, &efficiency, NULL, NULL, 0);
  return efficiency < 0 ? 0 : efficiency;
}

size_t topology_pus(hwloc_topology_t t, fp4moe_pu *pus) {
  hwloc_bitmap_t set = hwloc_bitmap_dup(hwloc_topology_get_allowed_cpuset(t));
  hwloc_bitmap_t bound = hwloc_bitmap_alloc();
  size_t n = 0;
  if (hwloc_topology_is_thissystem(t) && !hwloc_get_cpubind(t, bound, HWLOC_CPUBIND_THREAD))
    hwloc_bitmap_and(set, set, bound);
  for (int i = hwloc_bitmap_first(set); i >= 0 && n < FP4MOE_MAX_PUS;
       i = hwloc_bitmap_next(set, i)) {
    hwloc_obj_t pu = hwloc_get_pu_obj_by_os_index(t, (unsigned)i);
    if (!pu) continue;
    int node = hwloc_bitmap_first(pu->nodeset);
    pus[n++] = (fp4moe_pu){.pu = i,
                           .core = first_under(t, pu, HWLOC_OBJ_CORE, i),
                           .l3 = first_under(t, pu, HWLOC_OBJ_L3CACHE, -1),
                           .node = node < 0 ? 0 : node,
                           .speed = speed_of(t, pu)};
  }
  hwloc_bitmap_free(bound);
  hwloc_bitmap_free(set);
  return n;
}

/* ---- Against the library ---- */

static int same_place(const fp4moe_pu *a, const fp4moe_pu *b) {
  return a->pu == b->pu && a->core == b->core && a->l3 == b->l3 && a->node == b->node;
}

/* The two orders of kinds of core may have other numbers: what counts is who is the fastest. */
static int same_fastest(const fp4moe_host *host, const fp4moe_pu *pus, size_t n) {
  int of_host[FP4MOE_MAX_PUS], of_hwloc[FP4MOE_MAX_PUS];
  size_t count = fp4moe_place(host->pu, host->pus, FP4MOE_FAST_CORES, of_host);
  return count == fp4moe_place(pus, n, FP4MOE_FAST_CORES, of_hwloc) &&
         !memcmp(of_host, of_hwloc, count * sizeof *of_host);
}

static int pus_agree(const fp4moe_host *host, hwloc_topology_t t, char *difference, size_t cap) {
  fp4moe_pu pus[FP4MOE_MAX_PUS];
  size_t n = topology_pus(t, pus);
  if (n != host->pus) {
    snprintf(difference, cap, "the library may use %zu PUs, hwloc %zu", host->pus, n);
    return 0;
  }
  for (size_t i = 0; i < n; i++) {
    const fp4moe_pu *a = &host->pu[i], *b = &pus[i];
    if (same_place(a, b)) continue;
    snprintf(difference, cap,
             "the library sees PU %d in core %d, L3 %d, node %d; hwloc PU %d in %d, %d, %d", a->pu,
             a->core, a->l3, a->node, b->pu, b->core, b->l3, b->node);
    return 0;
  }
  if (same_fastest(host, pus, n)) return 1;
  snprintf(difference, cap, "the library and hwloc see other cores as the fastest");
  return 0;
}

int topology_agrees(const fp4moe_host *host, char *difference, size_t cap) {
  char text[128];
  hwloc_topology_t t;
  if (!describe(text, sizeof text) || hwloc_topology_init(&t)) {
    snprintf(difference, cap, "hwloc cannot read this machine");
    return 0;
  }
  hwloc_topology_set_flags(t, HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED);
  snprintf(difference, cap, "the library sees \"%s\", hwloc \"%s\"", host->topology, text);
  int same = !strcmp(text, host->topology);
  if (same && (same = !hwloc_topology_load(t))) same = pus_agree(host, t, difference, cap);
  hwloc_topology_destroy(t);
  return same;
}

/* ---- Placements ---- */

static int order_pus(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

static int same_pus(const topology_placement *a, const topology_placement *b) {
  topology_placement x = *a, y = *b;
  qsort(x.pu, x.count, sizeof *x.pu, order_pus);
  qsort(y.pu, y.count, sizeof *y.pu, order_pus);
  return x.count == y.count && !memcmp(x.pu, y.pu, x.count * sizeof *x.pu);
}

size_t topology_placements(const fp4moe_pu *pus, size_t n, size_t quota,
                           topology_placement out[FP4MOE_PLACEMENTS]) {
  size_t count = 0;
  for (int i = 0; i < FP4MOE_PLACEMENTS; i++) {
    topology_placement *p = &out[count];
    p->placement = (fp4moe_placement)i;
    p->name = fp4moe_placement_name(p->placement);
    p->count = fp4moe_place(pus, n, p->placement, p->pu);
    if (quota && p->count > quota) p->count = quota;
    int known = !p->count || (p->count == 1 && count);
    for (size_t j = 0; j < count; j++) known |= same_pus(&out[j], p);
    count += !known;
  }
  return count;
}

static int node_of(const fp4moe_pu *pus, size_t n, int pu) {
  size_t i = 0;
  while (i + 1 < n && pus[i].pu != pu) i++;
  return pus[i].node;
}

static size_t count_nodes(const fp4moe_pu *pus, size_t n, const topology_placement *p) {
  size_t nodes = 0;
  for (size_t i = 0; i < p->count; i++) {
    size_t j = 0;
    while (node_of(pus, n, p->pu[j]) != node_of(pus, n, p->pu[i])) j++;
    nodes += j == i;
  }
  return nodes;
}

size_t topology_plan(const fp4moe_pu *pus, size_t n, size_t quota, int shards,
                     topology_place out[PLACES_MAX]) {
  static topology_placement p[FP4MOE_PLACEMENTS];
  size_t placements = topology_placements(pus, n, quota, p), count = 0;
  for (size_t i = 0; i < placements; i++) {
    size_t nodes = count_nodes(pus, n, &p[i]);
    size_t most = !shards ? 1 : nodes < FP4MOE_MAX_SHARDS ? nodes : FP4MOE_MAX_SHARDS;
    out[count++] = (topology_place){p[i], nodes, most};
    if (most > 1) out[count++] = (topology_place){p[i], nodes, 1};
  }
  return count;
}
