/* run.c - `fp4moe run`: options, and which of the two ways to go: one layer on the tokens of a
 * file (run_input.c), or every layer on random tokens (run_layers.c). */
#include <stdio.h>
#include <string.h>

#include "run.h"

static const char usage[] =
    "usage: fp4moe run CHECKPOINT [--layer L] [--input IO.safetensors] [--output Y.safetensors]\n"
    "                  [[--check NAME] --tolerance T] [--precision P] [--input-global G]\n"
    "                  [--activation NAME] [--alpha A --beta B --limit L --linear-beta C]\n"
    "                  [--router-weight-on-input] [--tokens M]\n"
    "                  [--rank R --ranks N --split experts|intermediate] [--threads N]\n"
    "                  [--verify] [--copy] [--json]\n"
    "\n"
    "Runs MoE layers of CHECKPOINT (a .safetensors or GGUF file, a model directory, or what fp4moe\n"
    "pack made). With --input one layer on the tokens of IO: x [M,H], topk_ids [M,k], topk_weights\n"
    "[M,k]. Without it every FP4 layer in turn on random tokens: time, bandwidth, error against\n"
    "class f32.\n"
    "\n"
    "  --layer L            the layer's number\n"
    "  --input FILE         x (BF16, F16, F32), topk_ids (I32, I64), topk_weights (F32)\n"
    "  --output FILE        writes the result as tensor y (F32)\n"
    "  --check NAME         compares with this tensor (F32) of IO: y, or y_mxfp8, y_w4a4 in class\n"
    "                       mxfp8, nvfp4 when only the tolerance is given; exit status 1 if ...\n"
    "  --tolerance T        ... rel_l2 is above T\n"
    "  --precision P        f32, bf16 (default), int8, mxfp8 (MXFP4) or nvfp4 (NVFP4)\n"
    "  --input-global G     class nvfp4, the global of activations: layer (default), expert, token\n"
    "  --activation NAME    silu, swiglu_oai, swiglustep, gelu, gelu_tanh, situ or relu2, with its\n"
    "                       usual numbers, in place of the checkpoint's\n"
    "  --alpha A --beta B --limit L --linear-beta C   its numbers (limit 0: none)\n"
    "  --router-weight-on-input       x times router weight enters (top-k 1)\n"
    "  --tokens M           with --input: its tokens, repeated to M; without: M random ones (1)\n"
    "  --rank R --ranks N --split WORD  only what rank R of N has: some of the experts (the others'\n"
    "                       ids add nothing) or of the intermediate size\n"
    "  --threads N          default: one per allowed core\n"
    "  --verify             of a packed file: reads all of a layer and tests its checksums\n"
    "  --copy               of a packed file: layers in memory of their own, not a map\n"
    "  --json               one JSON object instead of text\n"
    "  --help               this text\n";

enum {
  LAYER,
  INPUT,
  OUTPUT,
  CHECK,
  TOLERANCE,
  PRECISION,
  INPUT_GLOBAL,
  ACTIVATION,
  ALPHA,
  BETA,
  LIMIT,
  LINEAR_BETA,
  ON_INPUT,
  TOKENS,
  THREADS,
  VERIFY,
  COPY,
  JSON,
  RANK,
  RANKS,
  SPLIT,
  HELP
};

static const struct option options[] = {
    {"layer", required_argument, NULL, LAYER},
    {"input", required_argument, NULL, INPUT},
    {"output", required_argument, NULL, OUTPUT},
    {"check", required_argument, NULL, CHECK},
    {"tolerance", required_argument, NULL, TOLERANCE},
    {"precision", required_argument, NULL, PRECISION},
    {"input-global", required_argument, NULL, INPUT_GLOBAL},
    {"activation", required_argument, NULL, ACTIVATION},
    {"alpha", required_argument, NULL, ALPHA},
    {"beta", required_argument, NULL, BETA},
    {"limit", required_argument, NULL, LIMIT},
    {"linear-beta", required_argument, NULL, LINEAR_BETA},
    {"router-weight-on-input", no_argument, NULL, ON_INPUT},
    {"tokens", required_argument, NULL, TOKENS},
    {"threads", required_argument, NULL, THREADS},
    {"verify", no_argument, NULL, VERIFY},
    {"copy", no_argument, NULL, COPY},
    {"json", no_argument, NULL, JSON},
    {"rank", required_argument, NULL, RANK},
    {"ranks", required_argument, NULL, RANKS},
    {"split", required_argument, NULL, SPLIT},
    {"help", no_argument, NULL, HELP},
    {0},
};

static void take_text(run_options *o, int option, const char *text) {
  const char **const texts[] = {[INPUT] = &o->input,
                                [OUTPUT] = &o->output,
                                [CHECK] = &o->check,
                                [RANK] = &o->slice_words.rank,
                                [RANKS] = &o->slice_words.ranks,
                                [SPLIT] = &o->slice_words.split};
  *texts[option] = text;
}

static void take(run_options *o, int option, const char *text) {
  switch (option) {
  case LAYER:
    o->layer = parse_size("--layer", text, 0, SIZE_MAX - 1);
    break;
  case TOLERANCE:
    o->tolerance = parse_number("--tolerance", text);
    break;
  case PRECISION:
    o->precision = parse_precision(text);
    break;
  case INPUT_GLOBAL:
    o->input_global = parse_input_global(text);
    break;
  case ACTIVATION:
  case ALPHA:
  case BETA:
  case LIMIT:
  case LINEAR_BETA:
    activation_take(&o->activation, option - ACTIVATION, options[option].name, text);
    break;
  case ON_INPUT:
    o->router_weight_on_input = 1;
    break;
  case TOKENS:
    o->tokens = parse_size("--tokens", text, 1, 1 << 20);
    break;
  case THREADS:
    o->threads = parse_size("--threads", text, 1, 1024);
    break;
  case VERIFY:
    o->open.verify = 1;
    break;
  case COPY:
    o->open.copy = 1;
    break;
  case JSON:
    o->json = 1;
    break;
  default:
    take_text(o, option, text);
  }
}

/* An option that means nothing without another. */
static void require_with(unsigned seen, int option, int other) {
  if (seen & 1u << option && !(seen & 1u << other))
    die("--%s needs --%s", options[option].name, options[other].name);
}

/* The tensor that a class's output is compared with: computed with the class's quantisers. */
static const char *own_reference(fp4moe_precision precision) {
  return precision == FP4MOE_PRECISION_MXFP8   ? "y_mxfp8"
         : precision == FP4MOE_PRECISION_NVFP4 ? "y_w4a4"
                                               : "y";
}

static run_options parse(int argc, char **argv) {
  run_options o = {.layer = SIZE_MAX,
                   .precision = FP4MOE_PRECISION_BF16,
                   .open.struct_size = sizeof(fp4moe_open_options)};
  for (int c; (c = next_option(argc, argv, options)) >= 0;) {
    if (c == HELP) print_usage(usage);
    take(&o, c, optarg);
    o.seen |= 1u << c;
  }
  o.path = last_argument(argc, argv, "CHECKPOINT");
  o.slice = parse_slice(&o.slice_words);
  require_with(o.seen, OUTPUT, INPUT);
  require_with(o.seen, CHECK, INPUT);
  require_with(o.seen, CHECK, TOLERANCE);
  require_with(o.seen, TOLERANCE, INPUT);
  if (o.seen & 1u << TOLERANCE && !o.check) o.check = own_reference(o.precision);
  return o;
}

fp4moe_layer_desc run_desc(const run_options *o, const fp4moe_checkpoint_layer *l) {
  fp4moe_layer_desc desc = l->desc;
  fp4moe_activation *a = &desc.activation;
  if (l->status && !(l->fp4 && o->seen & 1u << ACTIVATION))
    die("layer %zu: %s: %s", l->layer, fp4moe_status_name(l->status), l->reason);
  int gated = a->gated; /* which the tensors say */
  activation_set(&o->activation, a);
  a->gated = gated;
  if (o->router_weight_on_input) desc.router_weight_on_input = 1;
  desc.precision = o->precision;
  desc.input_global = o->input_global;
  return desc;
}

fp4moe_layer_desc run_load(const run_state *r, size_t i, const fp4moe_layer_desc *whole,
                           fp4moe_layer **layer) {
  const fp4moe_slice *slice = &r->options.slice;
  fp4moe_layer_desc part;
  require(fp4moe_slice_desc(slice, whole, &part, NULL), "slice");
  require(fp4moe_checkpoint_load_slice(r->checkpoint, i, r->context, whole, slice, layer), NULL);
  return part;
}

timing run_time(fp4moe_layer *layer, const fp4moe_batch *batch, void *workspace,
                size_t workspace_bytes, trial *redraw) {
  enum { MOST = 10, ENOUGH_NS = 1000000000 };
  double ms[MOST], bytes[MOST];
  size_t n = 0;
  uint64_t begin = fp4moe_now_ns(), now = begin;
  while (n < MOST && now - begin < ENOUGH_NS) {
    if (redraw) trial_draw(redraw, batch->tokens);
    uint64_t start = fp4moe_now_ns();
    require(fp4moe_layer_forward(layer, batch, workspace, workspace_bytes), "forward");
    now = fp4moe_now_ns();
    ms[n] = (double)(now - start) * 1e-6;
    bytes[n++] = (double)batch->stats->weight_bytes;
  }
  size_t first = n > 1;
  return (timing){measure_summarise(ms + first, n - first).median,
                  measure_summarise(bytes + first, n - first).median};
}

int command_run(int argc, char **argv) {
  run_state r = {.options = parse(argc, argv)};
  require(fp4moe_checkpoint_open_with(r.options.path, &r.options.open, &r.checkpoint), NULL);
  r.context = open_context(r.options.threads, NULL);
  int status = r.options.input ? run_input(&r) : run_layers(&r);
  fp4moe_context_destroy(r.context);
  fp4moe_checkpoint_close(r.checkpoint);
  return status;
}
