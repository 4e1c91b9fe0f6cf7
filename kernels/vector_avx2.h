/* vector_avx2.h - FP32 vectors of AVX2, for the bodies that every instruction set shares:
 * act_vector.h and combine_vector.h. Memory is aligned to the vector; fmadd is a * b + c. */
#ifndef FP4MOE_VECTOR_AVX2_H
#define FP4MOE_VECTOR_AVX2_H

#include <immintrin.h>

typedef __m256 vec;
enum { LANES = 8 };

static inline vec set(float x) { return _mm256_set1_ps(x); }

static inline vec load(const float *x) { return _mm256_load_ps(x); }

static inline void store(float *y, vec x) { _mm256_store_ps(y, x); }

static inline vec add(vec a, vec b) { return _mm256_add_ps(a, b); }

static inline vec mul(vec a, vec b) { return _mm256_mul_ps(a, b); }

static inline vec fmadd(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }

#endif
