/* status.h - how a failure leaves its reason.
 *
 * Each failing path ends in `return fp4moe_fail(FP4MOE_INVALID, "...", ...)`: the status goes up
 * the calls, the text waits in the thread for fp4moe_error_detail(). Exported from the shared
 * library for libfp4moe_io only; not part of the public interface. */
#ifndef FP4MOE_STATUS_H
#define FP4MOE_STATUS_H

#include "fp4moe.h"

FP4MOE_API fp4moe_status fp4moe_fail(fp4moe_status status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Puts "<where>: " before the thread's text: for the caller that knows which one it was. */
FP4MOE_API void fp4moe_fail_in(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Tests the fixed part of an extensible struct and copies what both sides know of it. */
FP4MOE_API fp4moe_status fp4moe_take_struct(void *to, size_t to_size, const void *from,
                                            const char *name);

#endif
