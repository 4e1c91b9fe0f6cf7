/* inspect.c - `fp4moe inspect`: what MoE layers a checkpoint has, and why one cannot be run. With
 * --layer also its tensors, those that differ only in the expert's number on one line. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "activation.h"
#include "cli.h"
#include "fp4moe_io.h"

static const char usage[] =
    "usage: fp4moe inspect CHECKPOINT [--layer L] [--rank R --ranks N --split WORD]\n"
    "\n"
    "Lists the MoE layers of CHECKPOINT (a .safetensors or GGUF file, a model directory, or what\n"
    "fp4moe pack made): family, shape, format, activation, bytes, dtypes, why one cannot be run.\n"
    "Dense FP4 matrices follow, those that differ only in numbers on one line.\n"
    "\n"
    "  --layer L   only layer L, with its tensors\n"
    "  --rank R --ranks N --split experts|intermediate   also what rank R of N has of each layer\n"
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
  char activation[FP4MOE_ACTIVATION_TEXT];
  fp4moe_activation_text(&l->desc.activation, activation);
  printf("layer %zu: ", l->layer);
  if (l->fp4)
    printf("%s, H %zu, I %zu, E %zu, %s, %s%s", l->family, l->desc.hidden, l->desc.intermediate,
           l->desc.experts, word_of(format_words, (int)l->desc.format), activation,
           l->desc.router_weight_on_input ? ", router weight on input" : "");
  else
    printf("%s", *l->family ? l->family : "not FP4");
  if (l->top_k) printf(", top-%zu", l->top_k);
  if (l->tensor_count)
    printf(", %zu tensors, %.3f MB,", l->tensor_count, (double)l->bytes * 1e-6);
  else
    printf(", packed, %.3f MB", (double)l->bytes * 1e-6);
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

static void add_to_groups(group *groups, size_t *count, const char *text) {
  size_t g = 0;
  while (g < *count && strcmp(groups[g].pattern, text) != 0) g++;
  if (g == *count) groups[(*count)++].pattern = copy_text(text);
  groups[g].count++;
}

static void print_groups(group *groups, size_t count) {
  for (size_t g = 0; g < count; g++) {
    printf("  %s x %zu\n", groups[g].pattern, groups[g].count);
    free(groups[g].pattern);
  }
  free(groups);
}

static void print_tensors(const fp4moe_tensors *tensors, const fp4moe_checkpoint_layer *l) {
  group *groups = allocate(l->tensor_count, sizeof *groups);
  size_t count = 0;
  for (size_t i = 0; i < l->tensor_count; i++) {
    char text[512];
    describe(text, sizeof text, fp4moe_tensors_at(tensors, l->first_tensor + i), l->prefix);
    add_to_groups(groups, &count, text);
  }
  print_groups(groups, count);
}

/* Dense matrices: the numbers in a name are no reason for a line of its own. */
static void describe_linear(char *text, size_t cap, const fp4moe_checkpoint_linear *l) {
  size_t n = 0;
  for (const char *at = l->name; *at && n + 1 < cap; n++) {
    size_t digits = at == l->name || at[-1] == '.' ? strspn(at, "0123456789") : 0;
    text[n] = digits ? '*' : *at;
    at += digits ? digits : 1;
  }
  snprintf(text + n, cap - n, " %s [%zu,%zu]%s%s", l->family, l->desc.n, l->desc.k,
           l->status ? ": " : "", l->reason);
}

static void print_linears(const fp4moe_checkpoint *checkpoint) {
  size_t all = fp4moe_checkpoint_linears(checkpoint), count = 0;
  group *groups = allocate(all, sizeof *groups);
  for (size_t i = 0; i < all; i++) {
    char text[768];
    describe_linear(text, sizeof text, fp4moe_checkpoint_linear_at(checkpoint, i));
    add_to_groups(groups, &count, text);
  }
  if (all) printf("%zu dense FP4 matrices\n", all);
  print_groups(groups, count);
}

static void print_source(const fp4moe_checkpoint *checkpoint) {
  fp4moe_packed_info info;
  if (fp4moe_checkpoint_packed(checkpoint, &info))
    printf("packed from %s, identity %016llx\n", info.source, (unsigned long long)info.identity);
}

typedef struct request {
  const char *path;
  size_t layer; /* SIZE_MAX = all */
  fp4moe_slice slice;
} request;

static request parse(int argc, char **argv) {
  enum { LAYER, RANK, RANKS, SPLIT, HELP };
  static const struct option options[] = {
      {"layer", required_argument, NULL, LAYER}, {"rank", required_argument, NULL, RANK},
      {"ranks", required_argument, NULL, RANKS}, {"split", required_argument, NULL, SPLIT},
      {"help", no_argument, NULL, HELP},         {0}};
  request r = {.layer = SIZE_MAX};
  slice_options words = {0};
  const char **const texts[] = {
      [RANK] = &words.rank, [RANKS] = &words.ranks, [SPLIT] = &words.split};
  for (int c; (c = next_option(argc, argv, options)) >= 0;) {
    if (c == HELP) print_usage(usage);
    if (c == LAYER)
      r.layer = parse_size("--layer", optarg, 0, SIZE_MAX - 1);
    else
      *texts[c] = optarg;
  }
  r.path = last_argument(argc, argv, "CHECKPOINT");
  r.slice = parse_slice(&words);
  return r;
}

/* "  rank 1 of 2: experts 2 to 3", or why it cannot be cut so. */
static void print_slice(const fp4moe_slice *slice, const fp4moe_checkpoint_layer *l) {
  fp4moe_layer_desc part;
  size_t first;
  if (slice->split == FP4MOE_SPLIT_NONE || !l->fp4) return;
  printf("  rank %zu of %zu: ", slice->rank, slice->ranks);
  fp4moe_status status = fp4moe_slice_desc(slice, &l->desc, &part, &first);
  if (status)
    printf("%s: %s\n", fp4moe_status_name(status), fp4moe_error_detail());
  else if (slice->split == FP4MOE_SPLIT_EXPERTS)
    printf("experts %zu to %zu\n", first, first + part.experts - 1);
  else
    printf("intermediate %zu to %zu\n", first, first + part.intermediate - 1);
}

int command_inspect(int argc, char **argv) {
  request r = parse(argc, argv);
  fp4moe_checkpoint *checkpoint;
  size_t shown = 0;
  require(fp4moe_checkpoint_open(r.path, &checkpoint), NULL);
  const fp4moe_tensors *tensors = fp4moe_checkpoint_tensors(checkpoint);
  print_source(checkpoint);
  for (size_t i = 0; i < fp4moe_checkpoint_layers(checkpoint); i++) {
    const fp4moe_checkpoint_layer *l = fp4moe_checkpoint_at(checkpoint, i);
    if (r.layer != SIZE_MAX && l->layer != r.layer) continue;
    print_layer(tensors, l);
    print_slice(&r.slice, l);
    if (r.layer != SIZE_MAX) print_tensors(tensors, l);
    shown++;
  }
  if (!shown && r.layer != SIZE_MAX) die("%s: no MoE layer %zu", r.path, r.layer);
  if (!shown) printf("no MoE layer\n");
  if (r.layer == SIZE_MAX) print_linears(checkpoint);
  fp4moe_checkpoint_close(checkpoint);
  return 0;
}
