/* quantise.h - activations into the class's form, and the factor that this leaves to the sums. */
#ifndef FP4MOE_QUANTISE_H
#define FP4MOE_QUANTISE_H

#include "call.h"

enum { FP4MOE_QUANT_ROWS = 8 }; /* of a unit */

/* Units over the piece's x, and over its rows of h where each has a global of its own (else 0). */
size_t fp4moe_quant_x_units(const fp4moe_call *call);
size_t fp4moe_quant_h_units(const fp4moe_call *call);
fp4moe_unit_fn fp4moe_quant_x, fp4moe_quant_h_rows;

/* Columns [column, column + columns) of h, dense, from a unit of phase 1. */
void fp4moe_quant_h(const fp4moe_call *call, const fp4moe_unit1 *u, const float *h, size_t column,
                    size_t columns);

/* What a phase's sums of an expert are multiplied with, by projection: 0 gate, 1 up, 2 down; and
 * before that, dynamic globals only, each row by its own: rows [row, row + rows) of the row arrays.
 */
float fp4moe_sum_scale(const fp4moe_call *call, const float *globals, int phase, int projection);
void fp4moe_scale_rows(const fp4moe_call *call, int phase, size_t row, size_t rows, size_t columns,
                       float *acc);

#endif
