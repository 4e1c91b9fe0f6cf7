/* check_topology.c - placements of threads: of synthetic machines by hwloc, of this one by the
 * library and by hwloc alike, and that a pool's threads run where the placement says. */
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layer_call.h"
#include "topology.h"

/* ---- Synthetic machines ---- */

static hwloc_topology_t machine(const char *synthetic) {
  hwloc_topology_t t;
  CHECK(!hwloc_topology_init(&t) && !hwloc_topology_set_synthetic(t, synthetic) &&
            !hwloc_topology_set_flags(t, HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED) &&
            !hwloc_topology_load(t),
        "%s", synthetic);
  return t;
}

/* "per_core 0 2 4; all_nodes 0 8": each placement with its PUs in order. */
static void says(hwloc_topology_t t, size_t quota, const char *want) {
  static topology_placement p[FP4MOE_PLACEMENTS];
  fp4moe_pu pus[FP4MOE_MAX_PUS];
  char text[2048];
  int at = 0;
  size_t n = topology_placements(pus, topology_pus(t, pus), quota, p);
  *text = 0;
  for (size_t i = 0; i < n; i++) {
    at += snprintf(text + at, sizeof text - (size_t)at, "%s%s", i ? "; " : "", p[i].name);
    for (size_t j = 0; j < p[i].count; j++)
      at += snprintf(text + at, sizeof text - (size_t)at, " %d", p[i].pu[j]);
  }
  CHECK(!strcmp(text, want), "quota %zu: \"%s\", expected \"%s\"", quota, text, want);
}

/* "per_core 8/2 per_core 8/1 ...": threads and shards of each place; shards: memory can be placed.
 */
static void plans(hwloc_topology_t t, size_t quota, int shards, const char *want) {
  static topology_place p[PLACES_MAX];
  fp4moe_pu pus[FP4MOE_MAX_PUS];
  char text[512] = "";
  int at = 0;
  size_t n = topology_plan(pus, topology_pus(t, pus), quota, shards, p);
  for (size_t i = 0; i < n; i++)
    at += snprintf(text + at, sizeof text - (size_t)at, "%s%s %zu/%zu", i ? " " : "",
                   p[i].threads.name, p[i].threads.count, p[i].shards);
  CHECK(!strcmp(text, want), "quota %zu: \"%s\", expected \"%s\"", quota, text, want);
}

static void two_cores(void) {
  hwloc_topology_t t = machine("l3:1 core:2 pu:1");
  says(t, 0, "per_core 0 1");
  says(t, 1, "per_core 0");
  plans(t, 0, 1, "per_core 2/1"); /* nothing to choose from */
  hwloc_topology_destroy(t);
}

static void two_nodes(void) {
  hwloc_topology_t t = machine("numa:2 l3:1 core:4 pu:2");
  says(t, 0,
       "per_core 0 2 4 6 8 10 12 14; one_node 0 2 4 6; per_l3 0 8; "
       "all_pus 0 2 4 6 8 10 12 14 1 3 5 7 9 11 13 15");
  says(t, 4, "per_core 0 2 4 6; all_nodes 0 8 2 10; per_l3 0 8");
  plans(t, 0, 1,
        "per_core 8/2 per_core 8/1 one_node 4/1 per_l3 2/2 per_l3 2/1 all_pus 16/2 all_pus 16/1");
  plans(t, 0, 0, "per_core 8/1 one_node 4/1 per_l3 2/1 all_pus 16/1");
  plans(t, 4, 1, "per_core 4/1 all_nodes 4/2 all_nodes 4/1 per_l3 2/2 per_l3 2/1");
  hwloc_topology_destroy(t);
}

static void eight_nodes(void) {
  hwloc_topology_t t = machine("package:2 numa:4 l3:2 core:2 pu:1");
  says(t, 9,
       "per_core 0 1 2 3 4 5 6 7 8; all_nodes 0 4 8 12 16 20 24 28 1; one_node 0 1 2 3; "
       "per_l3 0 2 4 6 8 10 12 14 16");
  plans(t, 0, 1, "per_core 32/8 per_core 32/1 one_node 4/1 per_l3 16/8 per_l3 16/1");
  plans(t, 9, 1,
        "per_core 9/3 per_core 9/1 all_nodes 9/8 all_nodes 9/1 one_node 4/1 per_l3 9/5 per_l3 9/1");
  hwloc_topology_destroy(t);
}

/* The fast cores are the last two. */
static void hybrid(void) {
  hwloc_topology_t t = machine("l3:1 core:6 pu:1");
  hwloc_bitmap_t fast = hwloc_bitmap_alloc(), slow = hwloc_bitmap_alloc();
  hwloc_bitmap_set_range(fast, 4, 5);
  hwloc_bitmap_set_range(slow, 0, 3);
  CHECK(!hwloc_cpukinds_register(t, slow, 0, 0, NULL, 0) &&
            !hwloc_cpukinds_register(t, fast, 1, 0, NULL, 0),
        "kinds");
  says(t, 0, "per_core 0 1 2 3 4 5; fast_cores 4 5");
  says(t, 2, "per_core 0 1; fast_cores 4 5");
  plans(t, 0, 1, "per_core 6/1 fast_cores 2/1");
  hwloc_bitmap_free(fast);
  hwloc_bitmap_free(slow);
  hwloc_topology_destroy(t);
}

/* Half a core, a whole one and another node's: what is not allowed is not placed on. */
static void restricted(void) {
  hwloc_topology_t t = machine("numa:2 l3:2 core:2 pu:2");
  hwloc_bitmap_t set = hwloc_bitmap_alloc();
  hwloc_bitmap_set(set, 1);
  hwloc_bitmap_set_range(set, 2, 3);
  hwloc_bitmap_set(set, 13);
  CHECK(!hwloc_topology_allow(t, set, NULL, HWLOC_ALLOW_FLAG_CUSTOM), "allow");
  says(t, 0, "per_core 1 2 13; one_node 1 2; per_l3 1 13; all_pus 1 2 13 3");
  plans(t, 0, 1,
        "per_core 3/2 per_core 3/1 one_node 2/1 per_l3 2/2 per_l3 2/1 all_pus 4/2 all_pus 4/1");
  hwloc_bitmap_only(set, 6);
  CHECK(!hwloc_topology_allow(t, set, NULL, HWLOC_ALLOW_FLAG_CUSTOM), "allow");
  says(t, 0, "per_core 6");
  hwloc_bitmap_free(set);
  hwloc_topology_destroy(t);
}

/* ---- This machine ---- */

static void agrees(void) {
  static fp4moe_host host;
  char difference[320] = "";
  fp4moe_host_read(&host);
  CHECK(topology_agrees(&host, difference, sizeof difference), "%s", difference);
  host.pu[0].core += 1;
  CHECK(!topology_agrees(&host, difference, sizeof difference) &&
            strstr(difference, "the library sees PU"),
        "another core: %s", difference);
  host.pu[0].core -= 1;
  host.topology[strlen(host.topology) - 1] ^= 1;
  CHECK(!topology_agrees(&host, difference, sizeof difference) && strstr(difference, "packages="),
        "another fingerprint: %s", difference);
}

/* With an affinity mask of one PU both see that one only. */
static void agrees_under_a_mask(void) {
  static fp4moe_host host;
  char difference[320] = "";
  cpu_set_t before, one;
  fp4moe_host_read(&host);
  int last = host.pu[host.pus - 1].pu;
  CPU_ZERO(&one);
  CPU_SET((size_t)last, &one);
  CHECK(!sched_getaffinity(0, sizeof before, &before) && !sched_setaffinity(0, sizeof one, &one),
        "affinity");
  fp4moe_host_read(&host);
  CHECK(host.pus == 1 && host.pu[0].pu == last && host.threads == 1, "%zu PUs", host.pus);
  CHECK(topology_agrees(&host, difference, sizeof difference), "%s", difference);
  CHECK(!sched_setaffinity(0, sizeof before, &before), "affinity");
}

/* Each thread notes where it is; a pinned one is nowhere else. */
static void note_pu(void *arg, size_t i) {
  cpu_set_t set;
  int *pu = arg;
  sched_getaffinity(0, sizeof set, &set);
  pu[i] = CPU_COUNT(&set) == 1 ? sched_getcpu() : -1;
}

static void pools_are_pinned(void) {
  static fp4moe_host host;
  char reversed[16];
  fp4moe_host_read(&host);
  int a = host.pu[0].pu, b = host.pu[host.pus - 1].pu;
  if (a == b) {
    check_skip("pinned pools", "one PU");
    return;
  }
  snprintf(reversed, sizeof reversed, "%d,%d", b, a);
  fp4moe_context *ctx = context_with((fp4moe_context_desc){.placement = reversed});
  size_t most = host.quota && host.quota < 2 ? host.quota : 2;
  CHECK(fp4moe_context_threads(ctx) == most, "%zu threads", fp4moe_context_threads(ctx));
  int pu[2] = {-2, -2};
  fp4moe_pool_run(ctx->pool, 2, note_pu, pu);
  CHECK(most < 2 || pu[1] == a, "thread 1 on PU %d of \"%s\"", pu[1], reversed);
  fp4moe_context_destroy(ctx);
}

static void refused(fp4moe_context_desc d, const char *text) {
  fp4moe_context *ctx = NULL;
  d.struct_size = sizeof d;
  CHECK(fp4moe_context_create(&d, &ctx) == FP4MOE_INVALID && strstr(fp4moe_error_detail(), text),
        "\"%s\": \"%s\", expected \"%s\"", d.placement, fp4moe_error_detail(), text);
}

static void refused_placements(void) {
  static const char *const nonsense[] = {"", "per_cores", "0-", "0,", ",0", "-1", "0-x", "1-0"};
  static fp4moe_host host;
  char twice[32];
  fp4moe_host_read(&host);
  snprintf(twice, sizeof twice, "%d,%d", host.pu[0].pu, host.pu[0].pu);
  for (size_t i = 0; i < sizeof nonsense / sizeof *nonsense; i++)
    refused((fp4moe_context_desc){.placement = nonsense[i]}, "placement");
  refused((fp4moe_context_desc){.placement = "per_cores"}, "expected per_core, all_nodes");
  refused((fp4moe_context_desc){.placement = "99999"}, "PU 99999 is not there");
  refused((fp4moe_context_desc){.placement = twice}, "stands there twice");
  refused((fp4moe_context_desc){.placement = "all_pus", .no_pin = 1}, "no_pin");
  refused((fp4moe_context_desc){.placement = "all_pus", .parallel_for = fp4moe_pool_run},
          "parallel_for");
  refused((fp4moe_context_desc){.placement = "all_pus", .max_threads = 1024},
          "max_threads is 1024");
}

void check_topology(void) {
  CU_pSuite s = check_suite("topology");
  check_test(s, "two cores", two_cores);
  check_test(s, "two memory nodes", two_nodes);
  check_test(s, "eight memory nodes", eight_nodes);
  check_test(s, "hybrid cores", hybrid);
  check_test(s, "a restricted cpuset", restricted);
  check_test(s, "the library agrees with hwloc", agrees);
  check_test(s, "under an affinity mask too", agrees_under_a_mask);
  check_test(s, "pinned pools", pools_are_pinned);
  check_test(s, "refused placements", refused_placements);
}
