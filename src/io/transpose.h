/* transpose.h - bytes of a matrix, axes swapped. */
#ifndef FP4MOE_IO_TRANSPOSE_H
#define FP4MOE_IO_TRANSPOSE_H

#include <stddef.h>

/* from [rows][columns] dense; byte (r, c) goes to to[c * to_stride + r]. to_stride >= rows. */
void fp4moe_io_transpose(size_t rows, size_t columns, const void *from, void *to, size_t to_stride);

#endif
