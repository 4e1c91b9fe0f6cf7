/* vector_avx512.h - FP32 vectors of AVX-512, for the bodies that every instruction set shares:
 * act_vector.h and combine_vector.h. Memory is aligned to the vector; fmadd is a * b + c. */
#ifndef FP4MOE_VECTOR_AVX512_H
#define FP4MOE_VECTOR_AVX512_H

#include <immintrin.h>

typedef __m512 vec;
enum { LANES = 16 };

static inline vec set(float x) { return _mm512_set1_ps(x); }

static inline vec load(const float *x) { return _mm512_load_ps(x); }

static inline void store(float *y, vec x) { _mm512_store_ps(y, x); }

static inline vec add(vec a, vec b) { return _mm512_add_ps(a, b); }

static inline vec mul(vec a, vec b) { return _mm512_mul_ps(a, b); }

static inline vec fmadd(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }

#endif
