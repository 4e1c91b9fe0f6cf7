/* ties.c - a list of ways, and the residual settled (ties.h). */
#include <stdlib.h>
#include <string.h>

#include "ties.h"

double *tie_add(tie_list *list) {
  if (list->count == list->room) {
    list->room = 2 * list->room + 16;
    list->way = realloc(list->way, list->room * list->n * sizeof *list->way);
    if (!list->way) abort();
  }
  double *way = list->way + list->count++ * list->n;
  memset(way, 0, list->n * sizeof *way);
  return way;
}

/* How much less |residual|^2 is without this way. */
static double gain(size_t n, const double *residual, const double *way) {
  double sum = 0;
  for (size_t i = 0; i < n; i++) sum += way[i] * (2 * residual[i] - way[i]);
  return sum;
}

static double *best_way(const tie_list *list, const double *residual) {
  double *best = NULL, most = 0;
  for (size_t w = 0; w < list->count; w++) {
    const double g = gain(list->n, residual, list->way + w * list->n);
    if (g <= most) continue;
    most = g;
    best = list->way + w * list->n;
  }
  return best;
}

void tie_settle(tie_list *list, double *residual) {
  for (double *way; (way = best_way(list, residual)) != NULL;)
    for (size_t i = 0; i < list->n; i++) {
      residual[i] -= way[i];
      way[i] = 0;
    }
  list->count = 0;
}
