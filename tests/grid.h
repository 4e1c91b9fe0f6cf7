/* grid.h - matrices of any dtype whose rows lie apart, against the wall, with poisoned gaps.
 *
 * Every byte starts as 0xff, a NaN of every float dtype and -1 of an id: what reads a gap shows in
 * the result, what writes one in grid_gaps. The last row ends at the guard page. */
#ifndef FP4MOE_GRID_H
#define FP4MOE_GRID_H

#include <stddef.h>

#include "fp4moe.h"

typedef struct grid {
  fp4moe_dtype dtype;
  size_t rows, columns, stride; /* bytes */
  void *data;                   /* freed by CHECK_RELEASE */
} grid;

/* Rows are `gap` elements apart. */
grid grid_new(fp4moe_dtype dtype, size_t rows, size_t columns, size_t gap);

void *grid_row(const grid *g, size_t row);
void grid_set(const grid *g, size_t row, size_t column, double value); /* rounds */
float grid_get(const grid *g, size_t row, size_t column);
void grid_fill(const grid *g, const float *values); /* [rows][columns], rounded */

/* Fails the test where a byte between rows is no longer 0xff, or in a row that `used` (NULL: all
 * are) says is not there. */
void grid_gaps(const grid *g, const unsigned char *used, const char *what);

/* The bits that a float has in a dtype, as a float again. */
float rounded(fp4moe_dtype dtype, float x);

/* Element (i, j) of every used row has the value rounded(add + values[i * columns + j]). */
void grid_same(const grid *g, const float *values, float add, const char *what);

#endif
