/* dtype.c - the element types of safetensors, sizes in bytes, names (see tensors.h). */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "io/tensors.h"

static const struct {
  const char *name;
  size_t bits;
} dtypes[] = {
    {"BOOL", 8},        {"U8", 8},   {"I8", 8},      {"F8_E4M3", 8}, {"F8_E5M2", 8},
    {"F8_E8M0", 8},     {"F4", 4},   {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"F8_E4M3FNUZ", 8},
    {"F8_E5M2FNUZ", 8}, {"I16", 16}, {"U16", 16},    {"F16", 16},    {"BF16", 16},
    {"I32", 32},        {"U32", 32}, {"F32", 32},    {"I64", 64},    {"U64", 64},
    {"F64", 64},        {"C64", 64},
};

size_t fp4moe_io_dtype_bits(const char *dtype, const char **constant) {
  for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
    if (strcmp(dtypes[i].name, dtype) == 0) {
      *constant = dtypes[i].name;
      return dtypes[i].bits;
    }
  return 0;
}

fp4moe_dtype fp4moe_io_float_dtype(const char *dtype) {
  return strcmp(dtype, "BF16") == 0  ? FP4MOE_BF16
         : strcmp(dtype, "F16") == 0 ? FP4MOE_F16
                                     : FP4MOE_F32;
}

int fp4moe_io_is_utf8(const char *text, size_t bytes) {
  static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000}; /* by length */
  for (size_t i = 0, n; i < bytes; i += n) {
    const unsigned char *t = (const unsigned char *)text + i;
    n = *t < 0x80 ? 1 : *t >> 5 == 6 ? 2 : *t >> 4 == 14 ? 3 : *t >> 3 == 30 ? 4 : 0;
    if (!n || n > bytes - i) return 0;
    uint32_t code = n == 1 ? *t : *t & 0x7fu >> n;
    for (size_t k = 1; k < n; k++) {
      if (t[k] >> 6 != 2) return 0;
      code = code << 6 | (t[k] & 0x3f);
    }
    if (code < least[n] || code > 0x10ffff || code >> 11 == 0x1b) return 0;
  }
  return 1;
}

int fp4moe_io_is_plain(const char *text) {
  for (; *text; text++)
    if ((unsigned char)*text < 0x20 || *text == 0x7f) return 0;
  return 1;
}

const char *fp4moe_io_plain(const char *text) {
  return fp4moe_io_is_plain(text) ? text : "(control characters)";
}

int fp4moe_io_shape_bytes(size_t bits, size_t rank, const size_t *shape, size_t *bytes) {
  size_t n = bits;
  for (size_t i = 0; i < rank; i++)
    if (shape[i] > INT64_MAX || __builtin_mul_overflow(n, shape[i], &n)) return 0;
  *bytes = n / 8;
  return n % 8 == 0;
}

const char *fp4moe_io_shape_text(size_t rank, const size_t *shape, char text[IO_SHAPE_TEXT]) {
  size_t at = (size_t)snprintf(text, IO_SHAPE_TEXT, "[");
  for (size_t i = 0; i < rank; i++)
    at += (size_t)snprintf(text + at, IO_SHAPE_TEXT - at, "%s%zu", i ? ", " : "", shape[i]);
  snprintf(text + at, IO_SHAPE_TEXT - at, "]");
  return text;
}
