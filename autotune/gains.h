/* gains.h - what tuning brought, out of a table's gain lines: whole layers, tuned against static.
 *
 * A line whose tuned layer lost counts as 1: the static order, which it is held against, is what
 * runs there. The race that measured a gain also decided whether to
 * keep it, so the mean leans to the lucky side by about a race's noise. */
#ifndef FP4MOE_GAINS_H
#define FP4MOE_GAINS_H

#include "table.h"

typedef struct gain_summary {
  size_t count;   /* of layers and rows */
  size_t removed; /* of these, left to the static order */
  double mean;    /* geometric, of the time of static over that of what runs; 0: no line */
  const fp4moe_gain_entry *worst, *best; /* of those kept; NULL: none was */
} gain_summary;

enum { GAIN_ALL = -1 };

/* act: one class, or GAIN_ALL. */
gain_summary gains_summarise(const fp4moe_table *table, int act);

/* Phases from this one on: a linear has the second alone. */
static inline int gain_first_phase(const fp4moe_gain_entry *gain) {
  return gain->linear ? FP4MOE_DOWN : FP4MOE_GATE_UP;
}

/* The key of a phase's recipes that a gain line is about. */
fp4moe_recipe_key gain_key(const fp4moe_gain_entry *gain, int phase);

#endif
