/* main.c - the program `fp4moe-autotune`: measures the kernels on this machine, writes the table.
 *
 * Run once per machine, when it is quiet. Problems of the named models are measured one after
 * another; the table is written after each, whole, so that an interrupted run keeps what it has.
 * Entries of other problems in a table of this host stay; a table of another host is moved aside,
 * never overwritten. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "grid.h"
#include "layer.h"
#include "topology.h"
#include "tune.h"

static const char usage[] =
    "usage: fp4moe-autotune [--model PRESET ...] [--quick] [--threads N] [--output FILE]\n"
    "\n"
    "Measures every kernel that this machine can run on the shapes of the models and writes the\n"
    "selection table that libfp4moe reads.\n"
    "\n"
    "  --model PRESET   a model's shape, may be repeated; without: gpt-oss-20b and qwen3-30b-a3b\n"
    "                   with --quick, else every preset that fits the memory\n"
    "  --quick          fewer candidates and rounds: under two minutes a model\n"
    "  --threads N      default: one per allowed core\n"
    "  --output FILE    default: FP4MOE_TABLE, else /etc/fp4moe/table for root, else\n"
    "                   $XDG_CACHE_HOME/fp4moe/table or ~/.cache/fp4moe/table\n"
    "  --help           this text\n"
    "\n"
    "presets:";

enum { MAX_MODELS = 64 };

typedef struct options {
  const preset *models[MAX_MODELS];
  size_t count, threads;
  int quick;
  char output[512];
} options;

static void print_help(void) {
  char text[4096];
  size_t n = (size_t)snprintf(text, sizeof text, "%s", usage);
  for (size_t i = 0; i < preset_count; i++)
    n += (size_t)snprintf(text + n, sizeof text - n, "%s%s", i % 5 ? " " : "\n  ", presets[i].name);
  snprintf(text + n, sizeof text - n, "\n");
  print_usage(text);
}

static void add_model(options *o, const char *name) {
  const preset *p = preset_find(name);
  if (!p) die("--model %s: no such preset; see %s --help", name, command_name);
  if (o->count == MAX_MODELS) die("--model %s: more than %d models", name, MAX_MODELS);
  o->models[o->count++] = p;
}

static void add_default_models(options *o) {
  static const char *const quick[] = {"gpt-oss-20b", "qwen3-30b-a3b"};
  for (size_t i = 0; o->quick && i < 2; i++) add_model(o, quick[i]);
  for (size_t i = 0; !o->quick && i < preset_count; i++) add_model(o, presets[i].name);
}

static void parse(int argc, char **argv, options *o) {
  enum { MODEL, QUICK, THREADS, OUTPUT, HELP };
  static const struct option names[] = {{"model", required_argument, NULL, MODEL},
                                        {"quick", no_argument, NULL, QUICK},
                                        {"threads", required_argument, NULL, THREADS},
                                        {"output", required_argument, NULL, OUTPUT},
                                        {"help", no_argument, NULL, HELP},
                                        {0}};
  for (int c; (c = next_option(argc, argv, names)) >= 0;) switch (c) {
    case MODEL:
      add_model(o, optarg);
      break;
    case QUICK:
      o->quick = 1;
      break;
    case THREADS:
      o->threads = parse_size("--threads", optarg, 1, FP4MOE_MAX_CORES);
      break;
    case OUTPUT:
      snprintf(o->output, sizeof o->output, "%s", optarg);
      break;
    default:
      print_help();
    }
  if (optind < argc) die("%s: not expected; see %s --help", argv[optind], command_name);
  if (!o->count) add_default_models(o);
  if (!*o->output) require(fp4moe_table_default_path(o->output, sizeof o->output), NULL);
}

/* Entries of a table of this host are kept; another host's file is moved aside. */
static void take_old_table(const options *o, const fp4moe_context *ctx, tune_result *result) {
  char aside[600];
  fp4moe_table *old;
  if (access(o->output, F_OK)) return;
  require(fp4moe_table_load(o->output, &ctx->host, ctx->isa, &old), NULL);
  if (old->refused) {
    snprintf(aside, sizeof aside, "%s.old", o->output);
    printf("%s is not of this host and moves to %s: %s", o->output, aside, old->report);
    if (rename(o->output, aside)) die("rename %s to %s failed", o->output, aside);
  } else {
    tune_merge(result, old);
  }
  fp4moe_table_free(old);
}

static void save(const options *o, const fp4moe_context *ctx, tune_result *result) {
  fp4moe_table_sort(&result->table);
  require(fp4moe_table_save(o->output, &ctx->host, ctx->isa, &result->table), NULL);
}

static void tune_class(const options *o, fp4moe_context *ctx, const preset *model,
                       fp4moe_precision precision, tune_result *all) {
  problem p = {.shape = *model, .precision = precision, .calls = 1, .layers = 1};
  fp4moe_selector s = {&ctx->host, &ctx->request, NULL};
  tune_result result = {0};
  uint64_t start = fp4moe_now_ns();
  snprintf(p.name, sizeof p.name, "%s %s", model->name, word_of(precision_words, (int)precision));
  fp4moe_layer_desc desc = problem_desc(&p);
  if (!grid_has_choice(&s, &desc)) {
    printf("%-24s only C kernels serve this class here: nothing to choose\n", p.name);
    return;
  }
  tune_problem(ctx, &p, o->quick, &result);
  printf("%-24s %zu candidates, %zu refused by the check, %.1f s\n", p.name, result.candidates,
         result.banned, (double)(fp4moe_now_ns() - start) * 1e-9);
  fflush(stdout);
  tune_merge(&result, &all->table);
  free(all->table.recipe);
  free(all->table.schedule);
  *all = result;
  save(o, ctx, all);
}

static int fits_memory(const preset *p) {
  long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGE_SIZE);
  double expert = 0.6 * (double)(p->hidden * p->intermediate) * (p->activation.gated ? 3 : 2);
  return expert * (double)(p->top_k + 8) < 0.5 * (double)pages * (double)page;
}

int main(int argc, char **argv) {
  static options o;
  tune_result all = {0};
  char difference[320];
  command_name = "fp4moe-autotune";
  setvbuf(stdout, NULL, _IOLBF, 0);
  parse(argc, argv, &o);
  setenv("FP4MOE_TABLE", "none", 1); /* what is measured must not depend on a table */
  fp4moe_context *ctx = open_context(o.threads, NULL);
  printf("host: %s, %s, isa %s, %zu threads\n", ctx->host.cpu_model, ctx->host.topology,
         fp4moe_isa_name(ctx->isa), fp4moe_context_threads(ctx));
  if (!topology_agrees(&ctx->host, difference, sizeof difference))
    printf("warning: %s\n", difference);
  take_old_table(&o, ctx, &all);
  for (size_t i = 0; i < o.count; i++)
    for (int precision = 0; precision <= (int)FP4MOE_PRECISION_INT8; precision++) {
      if (fits_memory(o.models[i]))
        tune_class(&o, ctx, o.models[i], (fp4moe_precision)precision, &all);
      else if (!precision)
        printf("%s: does not fit the memory\n", o.models[i]->name);
    }
  printf("table: %s, %zu recipes, %zu schedules\n", o.output, all.table.recipes,
         all.table.schedules);
  free(all.table.recipe);
  free(all.table.schedule);
  fp4moe_context_destroy(ctx);
  return 0;
}
