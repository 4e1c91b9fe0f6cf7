/* options.c - the tuner's command line (options.h). A model is a preset, a directory with a
 * checkpoint, or a shape in numbers. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "options.h"
#include "pool.h"
#include "table.h"

static const char usage[] =
    "usage: fp4moe-autotune [--model PRESET|DIR ...] [--shape H,I,E,TOPK,FORMAT[,ACTIVATION] ...]\n"
    "                       [--linear NxK,FORMAT ...]\n"
    "                       [--precision P,...] [--quick] [--budget TIME] [--threads N]\n"
    "                       [--output FILE] [--force] [--dry-run] [--verify] [--quiet] [--json]\n"
    "       fp4moe-autotune report ...      what a table says; see report --help\n"
    "\n"
    "Measures every kernel that this machine can run on the shapes of the models and writes the\n"
    "selection table that libfp4moe reads. The static order stays wherever it is within 5 % of the\n"
    "fastest or the noise hides more; what is chosen instead races against it a second time after\n"
    "all models had their first, then as a whole layer. Ctrl-C ends it with what it has; the next\n"
    "run with the same models goes on from there.\n"
    "\n"
    "  --model PRESET|DIR  a model's shape, or those of a checkpoint's layers and of its dense FP4\n"
    "                      matrices; may be repeated.\n"
    "                      Without any: gpt-oss-20b and qwen3-30b-a3b with --quick, else every\n"
    "                      preset that fits the memory\n"
    "  --shape LIST        the same in numbers: 2880,2880,32,4,mxfp4,swiglu_oai\n"
    "  --linear NxK,FORMAT a dense matrix [N][K], such as an LM head: 201088x2880,mxfp4\n"
    "  --precision P,...   f32, bf16, int8; default: all\n"
    "  --quick             fewer candidates and rounds: some 20 seconds a model and class\n"
    "  --budget TIME       end after 90s, 10m or 2h, with what is done by then\n"
    "  --threads N         default: one per allowed core\n"
    "  --output FILE       default: FP4MOE_TABLE, else /etc/fp4moe/table for root, else\n"
    "                      $XDG_CACHE_HOME/fp4moe/table or ~/.cache/fp4moe/table\n"
    "  --force             move a table of another host aside, to FILE.old; it is else an error\n"
    "  --dry-run           say what would be measured\n"
    "  --verify            time a sample of the table's picks again; exit 1 where one has lost\n"
    "  --quiet             nothing but warnings and errors\n"
    "  --json              one JSON object a line\n"
    "  --help              this text\n"
    "\n"
    "presets:";

enum { MAX_MODELS = 128 };

typedef struct models {
  preset shape[MAX_MODELS];
  char *name[MAX_MODELS];
  size_t count;
} models;

static _Noreturn void print_help(void) {
  char text[6144];
  size_t n = (size_t)snprintf(text, sizeof text, "%s", usage);
  for (size_t i = 0; i < preset_count; i++)
    n += (size_t)snprintf(text + n, sizeof text - n, "%s%s", i % 5 ? " " : "\n  ", presets[i].name);
  snprintf(text + n, sizeof text - n, "\n");
  print_usage(text);
}

/* ---- Models ---- */

static void add_shape(models *m, const preset *shape, const char *name) {
  if (m->count == MAX_MODELS) die("%s: more than %d models", name, MAX_MODELS);
  m->shape[m->count] = *shape;
  m->name[m->count++] = copy_text(name);
}

static int is_known(const models *m, const fp4moe_layer_desc *d) {
  for (size_t i = 0; i < m->count; i++)
    if (m->shape[i].hidden == d->hidden && m->shape[i].intermediate == d->intermediate &&
        m->shape[i].format == d->format && m->shape[i].activation.gated == d->activation.gated &&
        ((int)m->shape[i].activation.kind == FP4MOE_LINEAR) == fp4moe_is_linear(d))
      return 1;
  return 0;
}

static void add_linear(models *m, size_t n, size_t k, fp4moe_format format, const char *name) {
  const preset shape = {.hidden = n,
                        .intermediate = k,
                        .experts = 65536, /* as many as keep them out of the caches */
                        .top_k = 1,
                        .format = format,
                        .activation.kind = (fp4moe_activation_kind)FP4MOE_LINEAR};
  const fp4moe_layer_desc desc = {
      .hidden = n, .intermediate = k, .format = format, .activation = shape.activation};
  if (!is_known(m, &desc)) add_shape(m, &shape, name);
}

/* The dense FP4 matrices of a checkpoint. */
static void add_linears(models *m, const fp4moe_checkpoint *c) {
  for (size_t i = 0; i < fp4moe_checkpoint_linears(c); i++) {
    const fp4moe_checkpoint_linear *l = fp4moe_checkpoint_linear_at(c, i);
    char name[80];
    snprintf(name, sizeof name, "%zux%zu,%s", l->desc.n, l->desc.k,
             word_of(format_words, (int)l->desc.format));
    if (!l->status) add_linear(m, l->desc.n, l->desc.k, l->desc.format, name);
  }
}

/* Every shape that the layers of a checkpoint have. */
static void add_checkpoint(models *m, const char *path) {
  fp4moe_checkpoint *c;
  size_t before = m->count;
  require(fp4moe_checkpoint_open(path, &c), NULL);
  for (size_t i = 0; i < fp4moe_checkpoint_layers(c); i++) {
    const fp4moe_checkpoint_layer *l = fp4moe_checkpoint_at(c, i);
    if (l->status || is_known(m, &l->desc)) continue;
    preset shape = {.hidden = l->desc.hidden,
                    .intermediate = l->desc.intermediate,
                    .experts = l->desc.experts,
                    .top_k = l->top_k ? l->top_k : 1,
                    .format = l->desc.format,
                    .activation = l->desc.activation};
    add_shape(m, &shape, path);
  }
  add_linears(m, c);
  fp4moe_checkpoint_close(c);
  if (m->count == before) die("--model %s: no layer that can be run, nor a new shape of one", path);
}

static void add_model(models *m, const char *name) {
  const preset *p = preset_find(name);
  struct stat st;
  if (p)
    add_shape(m, p, name);
  else if (!stat(name, &st))
    add_checkpoint(m, name);
  else
    die("--model %s: neither a preset nor a checkpoint; see %s --help", name, command_name);
}

/* H,I,E,TOPK,FORMAT[,ACTIVATION] */
static void add_numbers(models *m, const char *text) {
  preset p = {.top_k = 1};
  activation_flags activation = {0};
  size_t *number[] = {&p.hidden, &p.intermediate, &p.experts, &p.top_k};
  char *list = copy_text(text), *save = NULL, *part = strtok_r(list, ",", &save);
  size_t most = 1 << 20;
  for (int i = 0; i < 4; i++, part = strtok_r(NULL, ",", &save))
    *number[i] = parse_size("--shape", part ? part : "", 1, most);
  if (!part) die("--shape %s: no format; see %s --help", text, command_name);
  p.format = parse_format(part);
  part = strtok_r(NULL, ",", &save);
  activation_take(&activation, ACTIVATION_NAME, "shape", part ? part : "silu");
  activation_set(&activation, &p.activation);
  if (strtok_r(NULL, ",", &save)) die("--shape %s: more than six words", text);
  free(list);
  add_shape(m, &p, text);
}

/* NxK,FORMAT */
static void add_matrix(models *m, const char *text) {
  char *list = copy_text(text), *x = strchr(list, 'x'), *comma = strchr(list, ',');
  size_t most = 1 << 20;
  if (!x || !comma || x > comma)
    die("--linear %s: not NxK,FORMAT; see %s --help", text, command_name);
  *x = *comma = 0;
  size_t n = parse_size("--linear", list, 1, most), k = parse_size("--linear", x + 1, 1, most);
  add_linear(m, n, k, parse_format(comma + 1), text);
  free(list);
}

static void add_default_models(models *m, int quick) {
  static const char *const two[] = {"gpt-oss-20b", "qwen3-30b-a3b"};
  for (size_t i = 0; quick && i < 2; i++) add_model(m, two[i]);
  for (size_t i = 0; !quick && i < preset_count; i++) add_model(m, presets[i].name);
}

/* Class by class, the one that most people run first. */
static void make_problems(options *o, const models *m, unsigned classes) {
  static const fp4moe_precision order[] = {FP4MOE_PRECISION_BF16, FP4MOE_PRECISION_INT8,
                                           FP4MOE_PRECISION_F32};
  o->problems = allocate(MAX_PROBLEMS, sizeof *o->problems);
  for (size_t c = 0; c < sizeof order / sizeof *order; c++)
    for (size_t i = 0; i < m->count && (classes >> order[c] & 1); i++) {
      problem *p = &o->problems[o->count++];
      *p = (problem){.shape = m->shape[i], .precision = order[c], .calls = 1, .layers = 1};
      snprintf(p->name, sizeof p->name, "%.80s %s", m->name[i],
               word_of(precision_words, (int)order[c]));
    }
}

/* ---- Flags ---- */

static uint64_t parse_time(const char *text) {
  char *unit;
  double n = strtod(text, &unit);
  double seconds = !strcmp(unit, "s") ? 1 : !strcmp(unit, "m") ? 60 : !strcmp(unit, "h") ? 3600 : 0;
  if (unit == text || seconds == 0 || !(n > 0) || n * seconds > 1e6)
    die("--budget %s: not a time such as 90s, 10m or 2h", text);
  return (uint64_t)(n * seconds * 1e9);
}

unsigned options_classes(const char *text) {
  unsigned classes = 0;
  char *list = copy_text(text);
  for (char *save, *w = strtok_r(list, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
    fp4moe_precision p = parse_precision(w);
    if (p > FP4MOE_PRECISION_INT8)
      die("--precision %s: runs the kernels of class bf16, tune that", w);
    classes |= 1u << p;
  }
  free(list);
  if (!classes) die("--precision: no class");
  return classes;
}

void options_path(const char *option, const char *text, char path[OPTIONS_PATH]) {
  if (snprintf(path, OPTIONS_PATH, "%s", text) >= OPTIONS_PATH)
    die("%s: a path of %zu bytes, at most %d", option, strlen(text), OPTIONS_PATH - 1);
}

enum { FLAG, MODEL, SHAPE, LINEAR, PRECISION, BUDGET, THREADS, OUTPUT, HELP };

static void take(options *o, models *m, unsigned *classes, int option) {
  switch (option) {
  case MODEL:
    add_model(m, optarg);
    break;
  case SHAPE:
    add_numbers(m, optarg);
    break;
  case LINEAR:
    add_matrix(m, optarg);
    break;
  case PRECISION:
    *classes = options_classes(optarg);
    break;
  case BUDGET:
    o->budget_ns = parse_time(optarg);
    break;
  case THREADS:
    o->threads = parse_size("--threads", optarg, 1, FP4MOE_MAX_CORES);
    break;
  case OUTPUT:
    options_path("--output", optarg, o->output);
    break;
  case HELP:
    print_help();
  default: /* FLAG: getopt has set it */
    break;
  }
}

void options_parse(int argc, char **argv, options *o) {
  const struct option names[] = {{"model", required_argument, NULL, MODEL},
                                 {"shape", required_argument, NULL, SHAPE},
                                 {"linear", required_argument, NULL, LINEAR},
                                 {"precision", required_argument, NULL, PRECISION},
                                 {"budget", required_argument, NULL, BUDGET},
                                 {"threads", required_argument, NULL, THREADS},
                                 {"output", required_argument, NULL, OUTPUT},
                                 {"help", no_argument, NULL, HELP},
                                 {"quick", no_argument, &o->quick, 1},
                                 {"quiet", no_argument, &o->quiet, 1},
                                 {"json", no_argument, &o->json, 1},
                                 {"dry-run", no_argument, &o->dry_run, 1},
                                 {"verify", no_argument, &o->verify, 1},
                                 {"force", no_argument, &o->force, 1},
                                 {0}};
  models *m = allocate(1, sizeof *m);
  unsigned classes = ~0u;
  for (int c; (c = next_option(argc, argv, names)) >= 0;) take(o, m, &classes, c);
  if (optind < argc) die("%s: not expected; see %s --help", argv[optind], command_name);
  if (!m->count) add_default_models(m, o->quick);
  make_problems(o, m, classes);
  for (size_t i = 0; i < m->count; i++) free(m->name[i]);
  free(m);
  if (!*o->output) require(fp4moe_table_default_path(o->output, sizeof o->output), NULL);
}
