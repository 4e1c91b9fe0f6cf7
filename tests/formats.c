/* formats.c - E2M1, E8M0 and E4M3 by their definition (formats.h). */
#include "formats.h"

#include <math.h>

double e2m1_value(unsigned code) {
  static const double values[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
  return code & 8 ? -values[code & 7] : values[code & 7];
}

double e8m0_value(unsigned scale) { return scale == 255 ? NAN : ldexp(1, (int)scale - 127); }

double e4m3_value(unsigned scale) {
  unsigned exponent = scale >> 3 & 15, mantissa = scale & 7;
  double x = exponent ? ldexp(8 + mantissa, (int)exponent - 10) : ldexp(mantissa, -9);
  if (exponent == 15 && mantissa == 7) return NAN;
  return scale & 0x80 ? -x : x;
}
