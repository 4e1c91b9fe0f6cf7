/* text.c - see text.h. */
#include <stdarg.h>
#include <stdio.h>

#include "text.h"

void fp4moe_text_add(fp4moe_text *t, const char *format, ...) {
  va_list args;
  size_t room = t->needed < t->cap ? t->cap - t->needed : 0;
  va_start(args, format);
  int n = vsnprintf(room ? t->buf + t->needed : NULL, room, format, args);
  va_end(args);
  if (n > 0) t->needed += (size_t)n;
}

void fp4moe_text_json(fp4moe_text *t, const char *string) {
  fp4moe_text_add(t, "\"");
  for (const char *c = string; *c; c++) {
    if (*c == '"' || *c == '\\')
      fp4moe_text_add(t, "\\%c", *c);
    else if ((unsigned char)*c < 32)
      fp4moe_text_add(t, "\\u%04x", (unsigned)*c);
    else
      fp4moe_text_add(t, "%c", *c);
  }
  fp4moe_text_add(t, "\"");
}
