/* formats.h - what the bytes of FP4 formats mean, in double and by their definition: for references
 * that share nothing with fp4.h. */
#ifndef FP4MOE_FORMATS_H
#define FP4MOE_FORMATS_H

double e2m1_value(unsigned code);  /* of 4 bits */
double e8m0_value(unsigned scale); /* 255: NaN */
double e4m3_value(unsigned scale);

#endif
