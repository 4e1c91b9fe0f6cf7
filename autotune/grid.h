/* grid.h - the candidates of the tuner: recipes that the oracle would admit for a problem. */
#ifndef FP4MOE_GRID_H
#define FP4MOE_GRID_H

#include "oracle.h"

enum { GRID_MAX = 128 };

/* Recipes for `bucket` of a phase, the static one first; every gemv row that takes the bucket's
 * rows in few reads and every {unpack, gemm} pair of one form, by panels, K blocks and prefetch.
 * quick: fewer panels, K blocks and prefetch distances, but every kernel. Returns how many
 * (<= GRID_MAX). */
size_t grid_recipes(const fp4moe_selector *s, const fp4moe_layer_desc *desc, int phase, int bucket,
                    int quick, fp4moe_recipe out[GRID_MAX]);

/* 1: beside the C rows there are kernels to choose from. */
int grid_has_choice(const fp4moe_selector *s, const fp4moe_layer_desc *desc);

#endif
