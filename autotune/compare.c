/* compare.c - walks the shapes of both tables, rows by rows (compare.h). */
#include <stdlib.h>
#include <string.h>

#include "compare.h"
#include "gains.h"

/* ---- Shapes: keys without rows ---- */

typedef struct shapes {
  fp4moe_recipe_key *key; /* bucket is 0 */
  size_t count;
} shapes;

static int same_shape(const fp4moe_recipe_key *a, const fp4moe_recipe_key *b) {
  return a->phase == b->phase && a->format == b->format && a->act == b->act &&
         a->gated == b->gated && a->n == b->n && a->k == b->k && a->cores == b->cores;
}

static void add_shape(shapes *s, fp4moe_recipe_key key) {
  key.bucket = 0;
  for (size_t i = s->count; i-- > 0;)
    if (same_shape(&s->key[i], &key)) return;
  s->key[s->count++] = key;
}

static fp4moe_recipe_key key_of(const fp4moe_recipe_entry *e) {
  return (fp4moe_recipe_key){e->phase,  e->format, e->act, e->gated,
                             e->bucket, e->n,      e->k,   e->cores};
}

static int list_shapes(const fp4moe_table *const tables[TABLES], shapes *s) {
  size_t most = 1;
  for (int t = 0; t < TABLES; t++) most += tables[t]->recipes + FP4MOE_PHASES * tables[t]->gains;
  s->key = malloc(most * sizeof *s->key);
  if (!s->key) return 0;
  for (int t = 0; t < TABLES; t++) {
    for (size_t i = 0; i < tables[t]->recipes; i++) add_shape(s, key_of(&tables[t]->recipe[i]));
    for (size_t i = 0; i < tables[t]->gains; i++)
      for (int phase = gain_first_phase(&tables[t]->gain[i]); phase < FP4MOE_PHASES; phase++)
        add_shape(s, gain_key(&tables[t]->gain[i], phase));
  }
  return 1;
}

/* ---- Picks ---- */

/* Entries of a key, fastest first; *count 0: none. */
static const fp4moe_recipe_entry *entries_of(const fp4moe_table *t, const fp4moe_recipe_key *key,
                                             size_t *count) {
  const fp4moe_recipe_entry *first = NULL;
  *count = 0;
  for (size_t i = 0; i < t->recipes; i++) {
    const fp4moe_recipe_key other = key_of(&t->recipe[i]);
    if (other.bucket != key->bucket || !same_shape(&other, key)) continue;
    if (!first) first = &t->recipe[i];
    ++*count;
  }
  return first;
}

/* 1: the tuner had these rows, and left them to the static order. */
static int was_left(const fp4moe_table *t, const fp4moe_recipe_key *key) {
  int has_shape = 0;
  for (size_t i = 0; i < t->gains; i++) {
    const fp4moe_recipe_key other = gain_key(&t->gain[i], key->phase);
    int has_phase = key->phase >= gain_first_phase(&t->gain[i]);
    if (has_phase && other.bucket == key->bucket && same_shape(&other, key)) return 1;
  }
  for (size_t i = 0; i < t->recipes && !has_shape; i++) {
    const fp4moe_recipe_key other = key_of(&t->recipe[i]);
    has_shape = same_shape(&other, key);
  }
  return has_shape && !t->partial_of;
}

/* 0: this table has no such rows. */
static int take_pick(const fp4moe_selector *s, const fp4moe_table *t, int which, compare_pick *p) {
  static const fp4moe_precision precision_of[] = {[FP4MOE_ACT_F32] = FP4MOE_PRECISION_F32,
                                                  [FP4MOE_ACT_BF16] = FP4MOE_PRECISION_BF16,
                                                  [FP4MOE_ACT_I8] = FP4MOE_PRECISION_INT8};
  const fp4moe_layer_desc desc = {.format = (fp4moe_format)p->key.format,
                                  .precision = precision_of[p->key.act],
                                  .activation.gated = p->key.gated};
  size_t count;
  const fp4moe_recipe_entry *first = entries_of(t, &p->key, &count);
  if (first) p->recipe[which] = first->recipe;
  if (first) return 1;
  p->is_static[which] = 1;
  return was_left(t, &p->key) &&
         !fp4moe_static_recipe(s, &desc, p->key.phase, p->key.bucket, &p->recipe[which]);
}

/* What the table's own race says of the other's pick. */
static void judge(const fp4moe_table *t, int which, compare_pick *p) {
  size_t count;
  const fp4moe_recipe_entry *e = entries_of(t, &p->key, &count);
  if (!count || p->is_static[which]) return;
  for (size_t i = 0; i < count; i++)
    if (!fp4moe_recipe_order(&e[i].recipe, &p->recipe[!which], p->key.bucket)) {
      p->ratio[which] = (double)e[i].ns / (double)e->ns;
      p->noise[which] = e[i].noise * 1e-6;
      p->within[which] = p->ratio[which] <= 1 + p->noise[which];
      return;
    }
}

static int compare_one(const fp4moe_selector *s, const fp4moe_table *const tables[TABLES],
                       comparison *c, compare_pick *p) {
  int has[TABLES];
  for (int t = 0; t < TABLES; t++) has[t] = take_pick(s, tables[t], t, p);
  for (int t = 0; t < TABLES; t++) c->only[t] += has[t] && !has[!t];
  if (!has[0] || !has[1]) return 0;
  c->picks++;
  p->same_kernels = fp4moe_same_kernels(&p->recipe[0], &p->recipe[1]);
  c->same_kernels += (size_t)p->same_kernels;
  if (!fp4moe_recipe_order(&p->recipe[0], &p->recipe[1], p->key.bucket)) {
    c->same++;
    return 0;
  }
  for (int t = 0; t < TABLES; t++) judge(tables[t], t, p);
  c->within_both += p->within[0] && p->within[1];
  c->within_one += p->within[0] != p->within[1];
  return 1;
}

static void compare_schedules(const fp4moe_table *const tables[TABLES], comparison *c) {
  for (size_t i = 0; i < tables[0]->schedules; i++)
    for (size_t j = 0; j < tables[1]->schedules; j++) {
      const fp4moe_schedule_entry *a = &tables[0]->schedule[i], *b = &tables[1]->schedule[j];
      if (a->format != b->format || a->act != b->act || a->hidden != b->hidden ||
          a->intermediate != b->intermediate || a->schedule.bucket != b->schedule.bucket ||
          a->schedule.threads != b->schedule.threads)
        continue;
      c->schedules++;
      c->same_schedules +=
          a->schedule.workers == b->schedule.workers && a->schedule.share == b->schedule.share;
    }
}

int compare_tables(const fp4moe_selector *s, const fp4moe_table *const tables[TABLES],
                   comparison *c) {
  shapes all = {0};
  *c = (comparison){0};
  if (!list_shapes(tables, &all)) return 0;
  c->differ = calloc(all.count * FP4MOE_BUCKETS + 1, sizeof *c->differ);
  for (size_t i = 0; c->differ && i < all.count * FP4MOE_BUCKETS; i++) {
    compare_pick p = {.key = all.key[i / FP4MOE_BUCKETS]};
    p.key.bucket = (int)(i % FP4MOE_BUCKETS);
    if (compare_one(s, tables, c, &p)) c->differ[c->differ_count++] = p;
  }
  compare_schedules(tables, c);
  free(all.key);
  return c->differ != NULL;
}
