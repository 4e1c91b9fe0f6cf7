/* inspect.c - `fp4moe inspect`: what MoE layers a checkpoint has, and why one cannot be run. With
 * --layer also its tensors, those that differ only in the expert's number on one line. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "fp4moe_io.h"

static const char usage[] =
    "usage: fp4moe inspect CHECKPOINT [--layer L]\n"
    "\n"
    "Lists the MoE layers of CHECKPOINT (a .safetensors file or a model directory): family, shape,\n"
    "format, activation, bytes, dtypes, and why a layer cannot be run.\n"
    "\n"
    "  --layer L   only layer L, with its tensors\n"
    "  --help      this text\n";

/* "U8 F8_E4M3 F32": each dtype once. */
static void print_dtypes(const fp4moe_tensors *tensors, const fp4moe_checkpoint_layer *l) {
  char seen[256] = " ";
  for (size_t i = 0; i < l->tensor_count; i++) {
    char one[32];
    snprintf(one, sizeof one, " %s ", fp4moe_tensors_at(tensors, l->first_tensor + i)->dtype);
    if (strstr(seen, one) || strlen(seen) + strlen(one) >= sizeof seen) continue;
    strcat(seen, one + 1);
  }
  printf("%s", seen);
}

static void print_layer(const fp4moe_tensors *tensors, const fp4moe_checkpoint_layer *l) {
  printf("layer %zu: ", l->layer);
  if (l->fp4)
    printf("%s, H %zu, I %zu, E %zu, %s, %s%s", l->family, l->desc.hidden, l->desc.intermediate,
           l->desc.experts, word_of(format_words, (int)l->desc.format),
           l->status ? "" : activation_text(&l->desc.activation),
           l->desc.router_weight_on_input ? ", router weight on input" : "");
  else
    printf("%s", *l->family ? l->family : "not FP4");
  if (l->top_k) printf(", top-%zu", l->top_k);
  printf(", %zu tensors, %.3f MB,", l->tensor_count, (double)l->bytes * 1e-6);
  print_dtypes(tensors, l);
  printf("(%s)\n", l->prefix);
  if (l->status) printf("  not runnable: %s: %s\n", fp4moe_status_name(l->status), l->reason);
}

/* ---- Tensors of one layer ---- */

typedef struct group {
  char *pattern; /* the name with * for the expert's number, dtype, shape */
  size_t count;
} group;

/* "down_proj.weight U8 [64,48]", the part behind the prefix. */
static void describe(char *text, size_t cap, const fp4moe_tensor *t, const char *prefix) {
  const char *name = t->name + strlen(prefix);
  size_t digits = strspn(name + (*name == '.'), "0123456789");
  int numbered = *name == '.' && digits;
  int n = snprintf(text, cap, "%s%s %s [", numbered ? ".*" : "",
                   numbered ? name + 1 + digits : name, t->dtype);
  for (size_t i = 0; i < t->rank && (size_t)n < cap; i++)
    n += snprintf(text + n, cap - (size_t)n, "%s%zu", i ? "," : "", t->shape[i]);
  if ((size_t)n < cap) snprintf(text + n, cap - (size_t)n, "]");
}

static void print_tensors(const fp4moe_tensors *tensors, const fp4moe_checkpoint_layer *l) {
  group *groups = allocate(l->tensor_count, sizeof *groups);
  size_t count = 0;
  for (size_t i = 0; i < l->tensor_count; i++) {
    char text[512];
    size_t g = 0;
    describe(text, sizeof text, fp4moe_tensors_at(tensors, l->first_tensor + i), l->prefix);
    while (g < count && strcmp(groups[g].pattern, text) != 0) g++;
    if (g == count) groups[count++].pattern = strdup(text);
    groups[g].count++;
  }
  for (size_t g = 0; g < count; g++) {
    printf("  %s x %zu\n", groups[g].pattern, groups[g].count);
    free(groups[g].pattern);
  }
  free(groups);
}

static size_t parse(int argc, char **argv, const char **path) {
  enum { LAYER, HELP };
  static const struct option options[] = {
      {"layer", required_argument, NULL, LAYER}, {"help", no_argument, NULL, HELP}, {0}};
  size_t layer = SIZE_MAX;
  for (int c; (c = next_option(argc, argv, options)) >= 0;) {
    if (c == HELP) print_usage(usage);
    layer = parse_size("--layer", optarg, 0, SIZE_MAX - 1);
  }
  *path = last_argument(argc, argv, "CHECKPOINT");
  return layer;
}

int command_inspect(int argc, char **argv) {
  const char *path;
  fp4moe_checkpoint *checkpoint;
  size_t layer = parse(argc, argv, &path), shown = 0;
  require(fp4moe_checkpoint_open(path, &checkpoint), NULL);
  const fp4moe_tensors *tensors = fp4moe_checkpoint_tensors(checkpoint);
  for (size_t i = 0; i < fp4moe_checkpoint_layers(checkpoint); i++) {
    const fp4moe_checkpoint_layer *l = fp4moe_checkpoint_at(checkpoint, i);
    if (layer != SIZE_MAX && l->layer != layer) continue;
    print_layer(tensors, l);
    if (layer != SIZE_MAX) print_tensors(tensors, l);
    shown++;
  }
  if (!shown && layer != SIZE_MAX) die("%s: no MoE layer %zu", path, layer);
  if (!shown) printf("no MoE layer\n");
  fp4moe_checkpoint_close(checkpoint);
  return 0;
}
