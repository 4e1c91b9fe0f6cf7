/* grid.h - the candidates of the tuner: recipes that the oracle would admit for a problem. */
#ifndef FP4MOE_GRID_H
#define FP4MOE_GRID_H

#include "oracle.h"

enum { GRID_MAX = 128 };

/* The kernels that may run `bucket` of a phase, each in its usual recipe, the static one first:
 * every gemv row that takes the bucket's rows in few reads, every gemm row with the first row that
 * unpacks for it. Returns how many (<= GRID_MAX). */
size_t grid_kernels(const fp4moe_selector *s, const fp4moe_layer_desc *desc, int phase, int bucket,
                    fp4moe_recipe out[GRID_MAX]);

/* Ways to run a recipe's gemv or gemm, that recipe first: by panels, K blocks, prefetch and rows
 * that unpack. quick: few of them, one thing changed at a time. */
size_t grid_variants(const fp4moe_selector *s, const fp4moe_layer_desc *desc, int phase, int bucket,
                     const fp4moe_recipe *of, int quick, fp4moe_recipe out[GRID_MAX]);

/* 1: beside the C rows there are kernels to choose from. */
int grid_has_choice(const fp4moe_selector *s, const fp4moe_layer_desc *desc);

#endif
