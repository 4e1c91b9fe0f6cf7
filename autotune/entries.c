/* entries.c - a growing list of table entries (entries.h). */
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "entries.h"

void entries_free(entries *e) {
  free(e->table.recipe);
  free(e->table.schedule);
  free(e->table.gain);
  free(e->table.placement);
  *e = (entries){0};
}

static void *room(void *items, size_t count, size_t *cap, size_t size) {
  if (count < *cap) return items;
  *cap = *cap ? 2 * *cap : 256;
  items = realloc(items, *cap * size);
  if (!items) die("no memory for table entries");
  return items;
}

void entries_add_recipe(entries *e, const fp4moe_recipe_entry *recipe) {
  fp4moe_table *t = &e->table;
  t->recipe = room(t->recipe, t->recipes, &e->recipe_cap, sizeof *recipe);
  t->recipe[t->recipes++] = *recipe;
}

void entries_add_schedule(entries *e, const fp4moe_schedule_entry *schedule) {
  fp4moe_table *t = &e->table;
  t->schedule = room(t->schedule, t->schedules, &e->schedule_cap, sizeof *schedule);
  t->schedule[t->schedules++] = *schedule;
}

void entries_set_placement(entries *e, const fp4moe_placement_entry *p) {
  fp4moe_table *t = &e->table;
  size_t kept = 0;
  for (size_t i = 0; i < t->placements; i++)
    if (memcmp(&t->placement[i].key, &p->key, sizeof p->key))
      t->placement[kept++] = t->placement[i];
  t->placement = room(t->placement, kept, &e->placement_cap, sizeof *p);
  t->placement[kept] = *p;
  t->placements = kept + 1;
}

static int same_schedule(const fp4moe_schedule_entry *a, const fp4moe_schedule_entry *b) {
  return a->format == b->format && a->act == b->act && a->hidden == b->hidden &&
         a->intermediate == b->intermediate && a->schedule.bucket == b->schedule.bucket &&
         a->schedule.threads == b->schedule.threads;
}

void entries_drop_recipe(entries *e, const fp4moe_recipe_entry *key) {
  fp4moe_table *t = &e->table;
  size_t kept = 0;
  for (size_t i = 0; i < t->recipes; i++)
    if (!fp4moe_same_race(&t->recipe[i], key)) t->recipe[kept++] = t->recipe[i];
  t->recipes = kept;
}

void entries_drop_schedule(entries *e, const fp4moe_schedule_entry *key) {
  fp4moe_table *t = &e->table;
  size_t kept = 0;
  for (size_t i = 0; i < t->schedules; i++)
    if (!same_schedule(&t->schedule[i], key)) t->schedule[kept++] = t->schedule[i];
  t->schedules = kept;
}

static int same_gain(const fp4moe_gain_entry *a, const fp4moe_gain_entry *b) {
  return a->format == b->format && a->act == b->act && a->gated == b->gated &&
         a->bucket == b->bucket && a->hidden == b->hidden && a->intermediate == b->intermediate &&
         a->cores == b->cores && a->threads == b->threads && a->linear == b->linear;
}

static void drop_gain(entries *e, const fp4moe_gain_entry *key) {
  fp4moe_table *t = &e->table;
  size_t kept = 0;
  for (size_t i = 0; i < t->gains; i++)
    if (!same_gain(&t->gain[i], key)) t->gain[kept++] = t->gain[i];
  t->gains = kept;
}

void entries_set_gain(entries *e, const fp4moe_gain_entry *gain) {
  fp4moe_table *t = &e->table;
  drop_gain(e, gain);
  t->gain = room(t->gain, t->gains, &e->gain_cap, sizeof *gain);
  t->gain[t->gains++] = *gain;
}

void entries_take(entries *e, const fp4moe_table *from) {
  for (size_t i = 0; i < from->recipes; i++) entries_drop_recipe(e, &from->recipe[i]);
  for (size_t i = 0; i < from->schedules; i++) entries_drop_schedule(e, &from->schedule[i]);
  for (size_t i = 0; i < from->recipes; i++) entries_add_recipe(e, &from->recipe[i]);
  for (size_t i = 0; i < from->schedules; i++) entries_add_schedule(e, &from->schedule[i]);
  for (size_t i = 0; i < from->gains; i++) entries_set_gain(e, &from->gain[i]);
  for (size_t i = from->placements; i-- > 0;) entries_set_placement(e, &from->placement[i]);
}
