/* problem.c - reads the problem flags (problem.h): a preset or the five numbers of a shape, never a
 * mixture of both. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "activation.h"
#include "problem.h"

enum {
  MAX_SIZE = 1 << 20,
  MAX_EXPERTS = 65536,
  MAX_TOKENS = 1 << 20,
  MAX_THREADS = 1024,
  MAX_LAYERS = 1024
};

/* Flags that make a shape, by bit of `seen`. */
enum { MODEL, HIDDEN, INTERMEDIATE, EXPERTS, TOPK, FORMAT, ACTIVATION };
enum { ALPHA = ACTIVATION + 1, BETA, LIMIT, LINEAR_BETA, UNGATED };
enum { BIASES = UNGATED + 1, WEIGHT_ON_INPUT, LINEAR, SHAPE_FLAGS };
enum {
  PRECISION = SHAPE_FLAGS,
  TOKENS,
  THREADS,
  KERNEL,
  JSON,
  HELP,
  INVARIANT,
  INPUT_GLOBAL,
  LAYERS,
  OP,
  ROUTING,
  AGAINST
};
enum { FIRST_OF_BENCH = LAYERS };

/* In the order of the enums. */
static const struct option options[] = {
    {"model", required_argument, NULL, MODEL},
    {"hidden", required_argument, NULL, HIDDEN},
    {"intermediate", required_argument, NULL, INTERMEDIATE},
    {"experts", required_argument, NULL, EXPERTS},
    {"topk", required_argument, NULL, TOPK},
    {"format", required_argument, NULL, FORMAT},
    {"activation", required_argument, NULL, ACTIVATION},
    {"alpha", required_argument, NULL, ALPHA},
    {"beta", required_argument, NULL, BETA},
    {"limit", required_argument, NULL, LIMIT},
    {"linear-beta", required_argument, NULL, LINEAR_BETA},
    {"ungated", no_argument, NULL, UNGATED},
    {"biases", no_argument, NULL, BIASES},
    {"weight-on-input", no_argument, NULL, WEIGHT_ON_INPUT},
    {"linear", required_argument, NULL, LINEAR},
    {"precision", required_argument, NULL, PRECISION},
    {"tokens", required_argument, NULL, TOKENS},
    {"threads", required_argument, NULL, THREADS},
    {"kernel", required_argument, NULL, KERNEL},
    {"json", no_argument, NULL, JSON},
    {"help", no_argument, NULL, HELP},
    {"batch-invariant", no_argument, NULL, INVARIANT},
    {"input-global", required_argument, NULL, INPUT_GLOBAL},
    {"layers", required_argument, NULL, LAYERS},
    {"op", required_argument, NULL, OP},
    {"routing", required_argument, NULL, ROUTING},
    {"against", required_argument, NULL, AGAINST},
    {0},
};

static void parse_tokens(problem *p, const char *text) {
  char *list = copy_text(text); /* argv stays as it is, to be printed */
  p->calls = 0;
  for (char *save, *t = strtok_r(list, ",", &save); t; t = strtok_r(NULL, ",", &save)) {
    if (p->calls == MAX_CALLS) die("--tokens: more than %d numbers", MAX_CALLS);
    p->tokens[p->calls++] = parse_size("--tokens", t, 1, MAX_TOKENS);
  }
  if (!p->calls) die("--tokens: no number");
  free(list);
}

static void take_preset(problem *p, const char *name) {
  const preset *found = preset_find(name);
  if (!found) die("--model %s: no such preset; see %s --help", name, command_name);
  p->shape = *found;
  snprintf(p->name, sizeof p->name, "%s", name);
}

/* The flags whose value is a whole number. */
static const struct {
  size_t offset, most;
} sizes[] = {
    [HIDDEN] = {offsetof(problem, shape.hidden), MAX_SIZE},
    [INTERMEDIATE] = {offsetof(problem, shape.intermediate), MAX_SIZE},
    [EXPERTS] = {offsetof(problem, shape.experts), MAX_EXPERTS},
    [TOPK] = {offsetof(problem, shape.top_k), MAX_EXPERTS},
    [THREADS] = {offsetof(problem, threads), MAX_THREADS},
    [LAYERS] = {offsetof(problem, layers), MAX_LAYERS},
};

static void take_size(problem *p, int option, const char *text) {
  char name[32];
  snprintf(name, sizeof name, "--%s", options[option].name);
  size_t n = parse_size(name, text, 1, sizes[option].most);
  memcpy((char *)p + sizes[option].offset, &n, sizeof n);
}

/* "N,K": FP4 matrices without a layer around them. */
static void take_linear(problem *p, const char *text) {
  char *both = copy_text(text), *comma = strchr(both, ',');
  if (!comma) die("--linear %s: expected N,K", text);
  *comma = 0;
  p->shape.hidden = parse_size("--linear", both, 1, MAX_SIZE);
  p->shape.intermediate = parse_size("--linear", comma + 1, 1, MAX_SIZE);
  p->shape.activation = (fp4moe_activation){.kind = (fp4moe_activation_kind)FP4MOE_LINEAR};
  free(both);
}

static void take(problem *p, int option, const char *text) {
  switch (option) {
  case MODEL:
    take_preset(p, text);
    break;
  case FORMAT:
    p->shape.format = parse_format(text);
    break;
  case ACTIVATION:
  case ALPHA:
  case BETA:
  case LIMIT:
  case LINEAR_BETA:
  case UNGATED:
    activation_take(&p->activation, option - ACTIVATION, options[option].name, text);
    break;
  case PRECISION:
    p->precision = parse_precision(text);
    break;
  case TOKENS:
    parse_tokens(p, text);
    break;
  case KERNEL:
    p->kernels = text;
    break;
  case JSON:
    p->json = 1;
    break;
  case BIASES:
    p->shape.biases = 1;
    break;
  case WEIGHT_ON_INPUT:
    p->shape.router_weight_on_input = 1;
    break;
  case LINEAR:
    take_linear(p, text);
    break;
  case INPUT_GLOBAL:
    p->input_global = parse_input_global(text);
    break;
  case INVARIANT:
    p->batch_invariant = 1;
    break;
  case OP:
    p->op = text;
    break;
  case ROUTING:
    p->routing_word = text;
    p->routing = parse_routing(text);
    break;
  case AGAINST:
    p->against = text;
    break;
  default:
    take_size(p, option, text);
  }
}

static void require_flags(unsigned seen, int first, int last) {
  for (int i = first; i <= last; i++)
    if (!(seen & 1u << i)) die("--%s is missing; see %s --help", options[i].name, command_name);
}

/* Dies where a flag stands beside one of those that it goes without. */
static void refuse_flags(unsigned seen, int flag, unsigned without) {
  unsigned both = seen & without & ~(1u << flag);
  if (seen & 1u << flag && both)
    die("--%s goes without --%s", options[flag].name, options[__builtin_ctz(both)].name);
}

static void check_routing(const problem *p, unsigned seen) {
  const char *word = p->routing_word;
  if (p->routing == ROUTING_NONE && seen & (1u << AGAINST | 1u << LAYERS))
    die("--routing %s goes without --%s", word, seen & 1u << AGAINST ? "against" : "layers");
  for (size_t i = 0; i < p->calls && p->routing == ROUTING_MOST; i++)
    if (!routing_others(p->tokens[i]))
      die("--routing %s: %zu tokens have no tenth", word, p->tokens[i]);
}

static void check(problem *p, unsigned seen) {
  const unsigned shape = (1u << SHAPE_FLAGS) - 1, last_of_shape = 1u << LINEAR;
  const unsigned of_layer = (1u << BIASES) - (1u << ACTIVATION);
  const unsigned no_op = (2u << AGAINST) - (1u << INVARIANT) + last_of_shape;
  refuse_flags(seen, MODEL, shape);
  refuse_flags(seen, LINEAR, 1u << HIDDEN | 1u << INTERMEDIATE | of_layer | 1u << WEIGHT_ON_INPUT);
  refuse_flags(seen, OP, no_op | 1u << BIASES | 1u << WEIGHT_ON_INPUT);
  if (!(seen & shape)) die("--model is missing; see %s --help", command_name);
  if (!(seen & 1u << MODEL)) require_flags(seen, problem_is_linear(p) ? EXPERTS : HIDDEN, FORMAT);
  if (!p->op) require_flags(seen, PRECISION, TOKENS);
  p->any_precision = !(seen & 1u << PRECISION);
  activation_set(&p->activation, &p->shape.activation);
  if (!problem_is_linear(p)) require(fp4moe_activation_check(&p->shape.activation), NULL);
  if (p->input_global && p->precision != FP4MOE_PRECISION_NVFP4)
    die("--input-global goes with --precision nvfp4");
  check_routing(p, seen);
  if (p->shape.top_k > p->shape.experts)
    die("--topk %zu: more than the %zu experts", p->shape.top_k, p->shape.experts);
  if (!p->name[0])
    snprintf(p->name, sizeof p->name, "%s%zu-%s%zu-e%zu-k%zu",
             problem_is_linear(p) ? "linear-n" : "h", p->shape.hidden,
             problem_is_linear(p) ? "k" : "i", p->shape.intermediate, p->shape.experts,
             p->shape.top_k);
}

_Noreturn static void print_help(const char *usage) {
  printf("%s\nPresets:\n", usage);
  for (size_t i = 0; i < preset_count; i++) {
    const preset *s = &presets[i];
    printf("  %-18s H %zu, I %zu, E %zu, top-%zu, %s\n", s->name, s->hidden, s->intermediate,
           s->experts, s->top_k, word_of(format_words, (int)s->format));
  }
  exit(finish_output(EXIT_SUCCESS));
}

void problem_parse(int argc, char **argv, const char *usage, int for_bench, problem *p) {
  unsigned seen = 0;
  *p = (problem){.layers = 1};
  p->shape.activation.gated = 1; /* and silu */
  for (int c; (c = next_option(argc, argv, options)) >= 0;) {
    if (c == HELP) print_help(usage);
    if ((c >= FIRST_OF_BENCH || c == LINEAR) && !for_bench)
      die("unknown option --%s; see %s --help", options[c].name, command_name);
    take(p, c, optarg);
    seen |= 1u << c;
  }
  if (optind < argc) die("%s: not expected; see %s --help", argv[optind], command_name);
  check(p, seen);
}

fp4moe_layer_desc problem_desc(const problem *p) {
  const preset *s = &p->shape;
  int of_layer = p->precision == FP4MOE_PRECISION_NVFP4 && p->input_global == FP4MOE_GLOBAL_LAYER;
  float input_scale = of_layer ? PROBLEM_INPUT_SCALE : 0;
  return (fp4moe_layer_desc){
      .struct_size = sizeof(fp4moe_layer_desc),
      .hidden = s->hidden,
      .intermediate = s->intermediate,
      .experts = s->experts,
      .format = s->format,
      .precision = p->precision,
      .activation = s->activation,
      .router_weight_on_input = s->router_weight_on_input,
      .input_global = p->input_global,
      .input_scale_gate_up = input_scale,
      .input_scale_down = input_scale,
      .shards = p->shards,
  };
}

fp4moe_context *problem_context(const problem *p, const char *kernels) {
  return open_context_of((fp4moe_context_desc){
      .kernels = kernels, .max_threads = p->threads, .batch_invariant = p->batch_invariant});
}
