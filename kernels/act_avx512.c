/* act_avx512.c - act in AVX-512: a panel's 16 columns a step, the bits of act_c.c (act_vector.h).
 *
 * VMINPS and VMAXPS return their second operand where the first is not strictly beyond it or one is
 * NaN, which is the comparison of the specification. VSCALEFPS rounds once, as the two exact halves
 * do there. */
#include "act.h"
#include "kernel.h"
#include "vector_avx512.h"

static inline vec sub(vec a, vec b) { return _mm512_sub_ps(a, b); }

static inline vec quotient(vec a, vec b) { return _mm512_div_ps(a, b); }

static inline vec fmsub(vec a, vec b, vec c) { return _mm512_fmsub_ps(a, b, c); }

/* -a * b + c */
static inline vec fnmadd(vec a, vec b, vec c) { return _mm512_fnmadd_ps(a, b, c); }

static inline vec minus(vec x) { return _mm512_xor_ps(x, set(-0.0f)); }

static inline vec magnitude(vec x) { return _mm512_andnot_ps(set(-0.0f), x); }

/* The magnitude x with the sign of y. */
static inline vec with_sign(vec x, vec y) { return _mm512_or_ps(x, _mm512_and_ps(y, set(-0.0f))); }

static inline vec at_most(vec x, float limit) { return _mm512_min_ps(set(limit), x); }

static inline vec at_least(vec x, float limit) { return _mm512_max_ps(set(limit), x); }

/* b where a < limit, else c. */
static inline vec below(vec a, float limit, vec b, vec c) {
  return _mm512_mask_mov_ps(c, _mm512_cmp_ps_mask(a, set(limit), _CMP_LT_OQ), b);
}

static inline vec scale(vec x, vec n) { return _mm512_scalef_ps(x, n); }

#include "act_vector.h"

ACT_ROWS(avx512)
