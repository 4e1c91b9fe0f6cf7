/* text.h - text written like snprintf into a buffer that may be too small: the rest is counted. */
#ifndef FP4MOE_TEXT_H
#define FP4MOE_TEXT_H

#include "fp4moe.h"

typedef struct fp4moe_text {
  char *buf;
  size_t cap, needed;
} fp4moe_text;

void fp4moe_text_add(fp4moe_text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The string in JSON's escapes, with its quotes. */
void fp4moe_text_json(fp4moe_text *t, const char *string);

#endif
