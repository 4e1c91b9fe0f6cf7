/* words.c - numbers and names of the command line as values, and back (cli.h). */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

size_t parse_size(const char *option, const char *text, size_t least, size_t most) {
  char *end;
  errno = 0;
  unsigned long long n = strtoull(text, &end, 10);
  if (errno || end == text || *end || *text == '-' || n < least || n > most)
    die("%s %s: not a whole number from %zu to %zu", option, text, least, most);
  return (size_t)n;
}

double parse_number(const char *option, const char *text) {
  char *end;
  double x = strtod(text, &end);
  if (end == text || *end || !isfinite(x)) die("%s %s: not a finite number", option, text);
  return x;
}

const word precision_words[] = {
    {"f32", FP4MOE_PRECISION_F32},     {"bf16", FP4MOE_PRECISION_BF16},
    {"int8", FP4MOE_PRECISION_INT8},   {"mxfp8", FP4MOE_PRECISION_MXFP8},
    {"nvfp4", FP4MOE_PRECISION_NVFP4}, {NULL, 0}};
const word format_words[] = {{"mxfp4", FP4MOE_MXFP4}, {"nvfp4", FP4MOE_NVFP4}, {NULL, 0}};

const char *word_of(const word *words, int value) {
  while (words->text && words->value != value) words++;
  return words->text ? words->text : "?";
}

int parse_word(const char *option, const char *text, const word *words) {
  char all[128] = "";
  for (const word *w = words; w->text; w++) {
    if (!strcmp(w->text, text)) return w->value;
    snprintf(all + strlen(all), sizeof all - strlen(all), " %s", w->text);
  }
  die("%s %s: not one of%s", option, text, all);
}

fp4moe_precision parse_precision(const char *text) {
  return (fp4moe_precision)parse_word("--precision", text, precision_words);
}

fp4moe_input_global parse_input_global(const char *text) {
  static const word words[] = {{"layer", FP4MOE_GLOBAL_LAYER},
                               {"expert", FP4MOE_GLOBAL_EXPERT},
                               {"token", FP4MOE_GLOBAL_TOKEN},
                               {NULL, 0}};
  return (fp4moe_input_global)parse_word("--input-global", text, words);
}

fp4moe_format parse_format(const char *text) {
  return (fp4moe_format)parse_word("--format", text, format_words);
}

fp4moe_slice parse_slice(const slice_options *o) {
  static const word splits[] = {
      {"experts", FP4MOE_SPLIT_EXPERTS}, {"intermediate", FP4MOE_SPLIT_INTERMEDIATE}, {NULL, 0}};
  fp4moe_slice slice = {.struct_size = sizeof slice};
  if (!o->rank && !o->ranks && !o->split) return slice;
  if (!o->rank || !o->ranks || !o->split)
    die("--rank, --ranks and --split are given together; --%s is missing", !o->rank    ? "rank"
                                                                           : !o->ranks ? "ranks"
                                                                                       : "split");
  slice.ranks = parse_size("--ranks", o->ranks, 1, 65536);
  slice.rank = parse_size("--rank", o->rank, 0, slice.ranks - 1);
  slice.split = (fp4moe_split)parse_word("--split", o->split, splits);
  return slice;
}
