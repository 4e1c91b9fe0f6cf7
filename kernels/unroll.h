/* unroll.h - how a body is expanded where its bounds are constants: inlined always, and every loop
 * over an array of registers unrolled, or the array would live in memory. */
#ifndef FP4MOE_UNROLL_H
#define FP4MOE_UNROLL_H

#define FP4_INLINE static inline __attribute__((always_inline))

/* Bounds are constants of at most 16. */
#ifdef __clang__
#define FP4_UNROLL _Pragma("clang loop unroll(full)")
#else
#define FP4_UNROLL _Pragma("GCC unroll 16")
#endif

#endif
