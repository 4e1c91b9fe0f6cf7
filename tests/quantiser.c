/* quantiser.c - quantisers by definition, in double (quantiser.h). */
#include <math.h>

#include "fp4.h"
#include "quantiser.h"

/* The representable value nearest to v, ties to the even significand: `bits` stored bits, exponents
 * from `least` on, at most `most`. */
static double nearest(double v, int bits, int least, double most) {
  const double mag = fmin(fabs(v), most);
  const int e = mag > 0 && ilogb(mag) > least ? ilogb(mag) : least;
  const double step = ldexp(1, e - bits);
  return copysign(fmin(rint(mag / step) * step, most), v);
}

/* The largest magnitude; NaN where one is not finite. */
static double amax_of(size_t n, const double *x) {
  double top = 0;
  for (size_t i = 0; i < n; i++)
    top = isfinite((float)x[i]) ? fmax(top, fabs((double)(float)x[i])) : INFINITY;
  return isfinite(top) ? top : NAN;
}

/* x as FP32; -0 stays what it is where nothing is nudged. */
static double nudged(double x, double unit, nudge by) {
  return by.value != 0 ? (double)(float)x + by.value * unit : (double)(float)x;
}

static double bf16_value(double x, nudge by) {
  return (double)fp4_from_bf16(fp4_to_bf16((float)nudged(x, fabs(x), by)));
}

static void int8_block(size_t n, const double *x, nudge by, double *to) {
  const double top = amax_of(n, x);
  const float d = (float)top / 127;
  for (size_t i = 0; i < n; i++) {
    const double q = rint((double)(float)(nudged(x[i], top, by) / (double)d));
    to[i] = d < 0x1p-126f ? 0 : (double)d * fmin(fmax(q, -127), 127);
  }
}

static void mxfp8_block(const double *x, nudge by, double *to) {
  const double top = amax_of(32, x), wanted = top * (1 + by.scale);
  int s = 0;
  while (s < 254 && ldexp(448, s - 127) < wanted) s++;
  for (int i = 0; i < 32; i++)
    to[i] = isnan(top)
                ? NAN
                : ldexp(nearest(ldexp(nudged(x[i], fabs(x[i]), by), 127 - s), 3, -6, 448), s - 127);
}

static void nvfp4_block(float inverse, const double *x, nudge by, double *to) {
  const double top = amax_of(16, x);
  const float sixth = (float)(1.0 / 6), share = (float)(top * (double)sixth);
  const double wanted = (double)(float)((double)inverse * (double)share) * (1 + by.scale);
  const double sf = nearest(wanted, 3, -6, 448);
  const float o = sf == 0 ? 0 : (float)((double)inverse / sf);
  for (int i = 0; i < 16; i++)
    to[i] = isnan(top)
                ? NAN
                : nearest((double)(float)(nudged(x[i], fabs(x[i]), by) * (double)o), 1, 0, 6) * sf;
}

void reference_quantise(fp4moe_act_class act, float inverse, size_t n, const double *x, nudge by,
                        double *to) {
  for (size_t at = 0, size; at < n; at += size) {
    size = fp4_quant_group(act) < n - at ? fp4_quant_group(act) : n - at;
    for (size_t i = at; i < at + size && act == FP4MOE_ACT_F32; i++) to[i] = x[i];
    for (size_t i = at; i < at + size && act == FP4MOE_ACT_BF16; i++) to[i] = bf16_value(x[i], by);
    if (act == FP4MOE_ACT_I8) int8_block(size, x + at, by, to + at);
    if (act == FP4MOE_ACT_MXFP8) mxfp8_block(x + at, by, to + at);
    if (act == FP4MOE_ACT_NVFP4) nvfp4_block(inverse, x + at, by, to + at);
  }
}

float reference_dynamic_inverse(size_t n, const double *x) {
  const double top = fmax(amax_of(n, x), 0x1p-80);
  return 1 / ((float)top / 2688);
}
