/* vector_neon.h - FP32 vectors of NEON, for the bodies that every instruction set shares:
 * act_vector.h and combine_vector.h. Memory is aligned to the vector; fmadd is a * b + c. */
#ifndef FP4MOE_VECTOR_NEON_H
#define FP4MOE_VECTOR_NEON_H

#include <arm_neon.h>

typedef float32x4_t vec;
enum { LANES = 4 };

static inline vec set(float x) { return vdupq_n_f32(x); }

static inline vec load(const float *x) { return vld1q_f32(x); }

static inline void store(float *y, vec x) { vst1q_f32(y, x); }

static inline vec add(vec a, vec b) { return vaddq_f32(a, b); }

static inline vec mul(vec a, vec b) { return vmulq_f32(a, b); }

static inline vec fmadd(vec a, vec b, vec c) { return vfmaq_f32(c, a, b); }

#endif
