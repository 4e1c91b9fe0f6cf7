/* status.c - status names and the thread's last failure (see status.h). */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "status.h"

static _Thread_local char detail[512];

static const char *const names[] = {
    [FP4MOE_OK] = "OK",
    [FP4MOE_INVALID] = "INVALID",
    [FP4MOE_UNSUPPORTED] = "UNSUPPORTED",
    [FP4MOE_NO_MEMORY] = "NO_MEMORY",
    [FP4MOE_WORKSPACE] = "WORKSPACE",
    [FP4MOE_SYSTEM] = "SYSTEM",
};

const char *fp4moe_status_name(fp4moe_status status) {
  size_t i = (size_t)status;
  return i < sizeof names / sizeof *names ? names[i] : "unknown status";
}

const char *fp4moe_error_detail(void) { return detail; }

fp4moe_status fp4moe_fail(fp4moe_status status, const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(detail, sizeof detail, format, args);
  va_end(args);
  return status;
}

void fp4moe_fail_in(const char *format, ...) {
  char text[sizeof detail];
  va_list args;
  memcpy(text, detail, sizeof text);
  va_start(args, format);
  int n = vsnprintf(detail, sizeof detail, format, args);
  va_end(args);
  if (n < 0 || (size_t)n + 3 > sizeof detail) return;
  const size_t room = sizeof detail - (size_t)n - 3, length = strnlen(text, room);
  memcpy(detail + n, ": ", 2);
  memcpy(detail + n + 2, text, length);
  detail[(size_t)n + 2 + length] = 0;
}

fp4moe_status fp4moe_take_struct(void *to, size_t to_size, const void *from, const char *name) {
  size_t size;
  if (!from) return fp4moe_fail(FP4MOE_INVALID, "%s: NULL", name);
  memcpy(&size, from, sizeof size);
  if (size < sizeof size || size > 65536)
    return fp4moe_fail(FP4MOE_INVALID, "%s: struct_size is %zu, expected sizeof it (%zu)", name,
                       size, to_size);
  memset(to, 0, to_size);
  memcpy(to, from, size < to_size ? size : to_size);
  memcpy(to, &to_size, sizeof to_size);
  return FP4MOE_OK;
}
