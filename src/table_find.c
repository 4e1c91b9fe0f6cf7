/* table_find.c - the order of a table's entries, and which of them answers a key (table.h).
 *
 * Entries of one key stand together, the fastest first: the order brings them there, and a key's
 * answer is the run of the nearest. How near is counted in whole steps and without libm, so that a
 * table gives the same answer with every compiler and C library. */
#include <stdlib.h>
#include <string.h>

#include "table.h"

/* ---- Order ---- */

#define ORDER(a, b)                                                                                \
  if ((a) != (b)) return (a) < (b) ? -1 : 1

/* How far a value is from the usual one, in steps of two, up before down. */
static unsigned unusual(uint32_t value, uint32_t usual) {
  unsigned steps = 0;
  for (uint32_t v = value; v > usual; v /= 2) steps += 2;
  for (uint32_t v = value; v && v < usual; v *= 2) steps += 2;
  return value < usual ? steps + 1 : steps;
}

int fp4moe_recipe_order(const fp4moe_recipe *a, const fp4moe_recipe *b, int bucket) {
  const fp4moe_kernel *ka = a->gemv ? a->gemv : a->gemm, *kb = b->gemv ? b->gemv : b->gemm;
  size_t rows = fp4moe_bucket_rows(bucket);
  uint32_t panels = a->gemv ? FP4MOE_USUAL_GEMV_PANELS : FP4MOE_USUAL_GEMM_PANELS;
  ORDER(fp4moe_tile_waits(ka, rows), fp4moe_tile_waits(kb, rows));
  ORDER(ka, kb);
  ORDER(a->unpack, b->unpack);
  ORDER(a->k_block, b->k_block);
  ORDER(unusual(a->panels, panels), unusual(b->panels, panels));
  ORDER(unusual(a->prefetch, FP4MOE_USUAL_PREFETCH), unusual(b->prefetch, FP4MOE_USUAL_PREFETCH));
  ORDER(a->panels, b->panels);
  ORDER(a->prefetch, b->prefetch);
  return 0;
}

int fp4moe_same_race(const fp4moe_recipe_entry *a, const fp4moe_recipe_entry *b) {
  return a->phase == b->phase && a->format == b->format && a->act == b->act &&
         a->gated == b->gated && a->n == b->n && a->k == b->k && a->cores == b->cores &&
         a->bucket == b->bucket;
}

static int compare_recipes(const void *x, const void *y) {
  const fp4moe_recipe_entry *a = x, *b = y;
  ORDER(a->phase, b->phase);
  ORDER(a->format, b->format);
  ORDER(a->act, b->act);
  ORDER(a->gated, b->gated);
  ORDER(a->n, b->n);
  ORDER(a->k, b->k);
  ORDER(a->cores, b->cores);
  ORDER(a->bucket, b->bucket);
  ORDER(a->ns, b->ns);
  return fp4moe_recipe_order(&a->recipe, &b->recipe, a->bucket);
}

static int compare_schedules(const void *x, const void *y) {
  const fp4moe_schedule_entry *a = x, *b = y;
  ORDER(a->format, b->format);
  ORDER(a->act, b->act);
  ORDER(a->hidden, b->hidden);
  ORDER(a->intermediate, b->intermediate);
  ORDER(a->schedule.bucket, b->schedule.bucket);
  ORDER(a->schedule.threads, b->schedule.threads);
  ORDER(a->ns, b->ns);
  ORDER(a->schedule.workers, b->schedule.workers);
  ORDER(a->schedule.share, b->schedule.share);
  return 0;
}

static int compare_gains(const void *x, const void *y) {
  const fp4moe_gain_entry *a = x, *b = y;
  ORDER(a->format, b->format);
  ORDER(a->act, b->act);
  ORDER(a->hidden, b->hidden);
  ORDER(a->intermediate, b->intermediate);
  ORDER(a->gated, b->gated);
  ORDER(a->linear, b->linear);
  ORDER(a->cores, b->cores);
  ORDER(a->threads, b->threads);
  ORDER(a->bucket, b->bucket);
  ORDER(a->ns, b->ns);
  ORDER(a->ratio, b->ratio);
  return 0;
}

static int compare_placements(const void *x, const void *y) {
  const fp4moe_placement_entry *a = x, *b = y;
  ORDER(a->key.cores, b->key.cores);
  ORDER(a->key.nodes, b->key.nodes);
  ORDER(a->key.pus, b->key.pus);
  ORDER(a->ns, b->ns);
  ORDER(a->placement, b->placement);
  ORDER(b->shards, a->shards);
  return 0;
}

void fp4moe_table_sort(fp4moe_table *t) {
  if (t->recipes) qsort(t->recipe, t->recipes, sizeof *t->recipe, compare_recipes);
  if (t->schedules) qsort(t->schedule, t->schedules, sizeof *t->schedule, compare_schedules);
  if (t->gains) qsort(t->gain, t->gains, sizeof *t->gain, compare_gains);
  if (t->placements) qsort(t->placement, t->placements, sizeof *t->placement, compare_placements);
}

/* ---- Find ---- */

/* log2(a) in 1/1024, a > 0. */
static int log2_1024(uint64_t a) {
  int log = 0;
  for (uint64_t x = a; x > 1; x >>= 1) log++;
  double mantissa = (double)a / (double)(UINT64_C(1) << log), part = 0;
  for (int bit = 512; bit; bit >>= 1) {
    mantissa *= mantissa;
    if (mantissa >= 2) mantissa /= 2, part += bit;
  }
  return log * 1024 + (int)part;
}

static size_t few_rows(size_t n) { return n < FP4MOE_MANY_N ? n : FP4MOE_MANY_N; }

/* In 1/2048: less than 0 is the exact shape; the last bit, that the entry is of the other gating.
 */
static int distance_2048(const fp4moe_recipe_entry *e, const fp4moe_recipe_key *key) {
  int other = e->gated != key->gated;
  if (e->n == key->n && e->k == key->k) return other - 2;
  return 2 * (abs(log2_1024(few_rows(e->n)) - log2_1024(few_rows(key->n))) +
              abs(log2_1024(e->k) - log2_1024(key->k))) +
         other;
}

static size_t gap(size_t a, size_t b) { return a > b ? a - b : b - a; }

fp4moe_match fp4moe_table_find(const fp4moe_table *t, const fp4moe_recipe_key *key, size_t *first,
                               size_t *count) {
  const fp4moe_recipe_entry *best = NULL;
  int best_distance = 2 * 2048 + 2;
  int tuned = 0;
  *first = *count = 0;
  for (size_t i = 0; t && i < t->recipes; i++) {
    const fp4moe_recipe_entry *e = &t->recipe[i];
    if (e->phase != key->phase || e->format != key->format || e->act != key->act ||
        (e->gated != key->gated && e->phase == FP4MOE_GATE_UP) || !e->n || !e->k)
      continue;
    int d = distance_2048(e, key);
    tuned |= d < 0 && e->cores == key->cores && !t->partial_of;
    if (e->bucket != key->bucket) continue;
    if (best && e->n == best->n && e->k == best->k && e->cores == best->cores &&
        e->gated == best->gated) {
      ++*count;
      continue;
    }
    int closer = d < best_distance ||
                 (best && d == best_distance &&
                  (e->k > best->k ||
                   (e->k == best->k && gap(e->cores, key->cores) < gap(best->cores, key->cores))));
    if (!closer) continue;
    best = e;
    best_distance = d;
    *first = i;
    *count = 1;
  }
  if (best && best_distance < 0 && best->cores == key->cores) return FP4MOE_MATCH_EXACT;
  if (tuned) *count = 0;
  return tuned ? FP4MOE_MATCH_PROVEN : best ? FP4MOE_MATCH_NEAREST : FP4MOE_MATCH_NONE;
}

fp4moe_match fp4moe_table_place(const fp4moe_table *t, const fp4moe_placement_key *key,
                                const fp4moe_placement_entry **entry) {
  size_t least[3] = {SIZE_MAX, SIZE_MAX, SIZE_MAX};
  *entry = NULL;
  for (size_t i = 0; t && i < t->placements; i++) {
    const fp4moe_placement_key *k = &t->placement[i].key;
    size_t far[3] = {gap(k->cores, key->cores), gap(k->nodes, key->nodes), gap(k->pus, key->pus)};
    int j = 0;
    while (j < 2 && far[j] == least[j]) j++;
    if (far[j] >= least[j]) continue;
    memcpy(least, far, sizeof least);
    *entry = &t->placement[i];
  }
  if (!*entry) return FP4MOE_MATCH_NONE;
  return least[0] || least[1] || least[2] ? FP4MOE_MATCH_NEAREST : FP4MOE_MATCH_EXACT;
}
