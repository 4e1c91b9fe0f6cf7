/* placement.c - the one rule by which words become PUs (placement.h). The library applies it to
 * what sysfs says (host.c), the tuner to what hwloc says (autotune/topology.c): both then name the
 * same PUs by the same word. */
#include "placement.h"

const char *fp4moe_placement_name(fp4moe_placement placement) {
  static const char *const names[] = {"per_core",   "all_nodes", "one_node",
                                      "fast_cores", "per_l3",    "all_pus"};
  return names[placement];
}

typedef struct {
  const fp4moe_pu *pu;
  size_t n;
  unsigned rank[FP4MOE_MAX_PUS]; /* how many PUs before it are of its core */
  unsigned turn[FP4MOE_MAX_PUS]; /* in which the placement takes it, from 1 on; 0: never */
} view;

static void find_ranks(view *v) {
  for (size_t i = 0; i < v->n; i++) {
    v->rank[i] = 0;
    for (size_t j = 0; j < i; j++) v->rank[i] += v->pu[j].core == v->pu[i].core;
  }
}

/* Cores of a node among the first n PUs. */
static unsigned cores_of(const view *v, int node, size_t n) {
  unsigned cores = 0;
  for (size_t i = 0; i < n; i++) cores += v->pu[i].node == node && !v->rank[i];
  return cores;
}

static int largest_node(const view *v) {
  unsigned most = 0;
  int node = -1;
  for (size_t i = 0; i < v->n; i++) {
    unsigned cores = cores_of(v, v->pu[i].node, v->n);
    if (cores > most || (cores == most && v->pu[i].node < node)) {
      most = cores;
      node = v->pu[i].node;
    }
  }
  return node;
}

static int fastest(const view *v) {
  int speed = v->pu[0].speed;
  for (size_t i = 1; i < v->n; i++)
    if (v->pu[i].speed > speed) speed = v->pu[i].speed;
  return speed;
}

static int first_under_l3(const view *v, size_t i) {
  for (size_t j = 0; j < i; j++)
    if (v->pu[j].l3 == v->pu[i].l3) return 0;
  return v->pu[i].l3 >= 0;
}

/* only: the node, or the speed, that the placement wants. */
static unsigned turn_of(const view *v, size_t i, fp4moe_placement placement, int only) {
  unsigned first = !v->rank[i];
  switch (placement) {
  case FP4MOE_ALL_NODES:
    return first ? cores_of(v, v->pu[i].node, i + 1) : 0;
  case FP4MOE_ONE_NODE:
    return first && v->pu[i].node == only;
  case FP4MOE_FAST_CORES:
    return first && v->pu[i].speed == only;
  case FP4MOE_PER_L3:
    return (unsigned)first_under_l3(v, i);
  case FP4MOE_ALL_PUS:
    return v->rank[i] + 1;
  default:
    return first;
  }
}

size_t fp4moe_place(const fp4moe_pu *pus, size_t n, fp4moe_placement placement, int *out) {
  view v = {.pu = pus, .n = n < FP4MOE_MAX_PUS ? n : FP4MOE_MAX_PUS};
  unsigned last = 0;
  size_t count = 0;
  if (!n) return 0;
  find_ranks(&v);
  int only = placement == FP4MOE_ONE_NODE ? largest_node(&v) : fastest(&v);
  for (size_t i = 0; i < v.n; i++) {
    v.turn[i] = turn_of(&v, i, placement, only);
    if (v.turn[i] > last) last = v.turn[i];
  }
  for (unsigned turn = 1; turn <= last; turn++)
    for (size_t i = 0; i < v.n; i++)
      if (v.turn[i] == turn) out[count++] = pus[i].pu;
  return count;
}
