/* ties.h - rounding ties, and what y may differ by where h fell to the other side of one.
 *
 * Two computations of h that agree to 1e-6 round it alike, but for elements near a tie. Each of
 * those has a way: what it adds to a token's y if it falls to its other side. A residual is settled
 * by taking every way that makes it smaller; what is left has nothing to do with ties. */
#ifndef FP4MOE_TIES_H
#define FP4MOE_TIES_H

#include <stddef.h>

typedef struct tie_list {
  size_t n; /* elements of y */
  size_t count, room;
  double *way; /* [count][n] */
} tie_list;

/* A further way, zeros yet; owned by the list, valid until the next. */
double *tie_add(tie_list *list);

/* Subtracts from residual [n] the ways that make it smaller, the best first, each once; forgets
 * all. */
void tie_settle(tie_list *list, double *residual);

#endif
