/* entries.h - the table that a run of the tuner builds, entry by entry. */
#ifndef FP4MOE_ENTRIES_H
#define FP4MOE_ENTRIES_H

#include "table.h"

typedef struct entries {
  fp4moe_table table; /* recipe, schedule, gain, placement and partial only */
  size_t recipe_cap, schedule_cap, gain_cap, placement_cap;
} entries;

void entries_free(entries *e);
void entries_add_recipe(entries *e, const fp4moe_recipe_entry *recipe);
void entries_add_schedule(entries *e, const fp4moe_schedule_entry *schedule);

/* In place of that of the same key. */
void entries_set_gain(entries *e, const fp4moe_gain_entry *gain);
void entries_set_placement(entries *e, const fp4moe_placement_entry *placement);

/* Drops the entries of these keys. */
void entries_drop_recipe(entries *e, const fp4moe_recipe_entry *key);
void entries_drop_schedule(entries *e, const fp4moe_schedule_entry *key);

/* Takes over the entries of another table, in place of those of the same keys. */
void entries_take(entries *e, const fp4moe_table *from);

#endif
