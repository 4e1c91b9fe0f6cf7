/* report.c - the command line of the report and its head (report.h). */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "options.h"
#include "report.h"
#include "report_measure.h"

static const char usage[] =
    "usage: fp4moe-autotune report [--table FILE] [--against FILE]\n"
    "       fp4moe-autotune report --output DIR [--model PRESET ...] [--precision P,...]\n"
    "                              [--tokens LIST] [--no-measure] [--table FILE] [--against FILE]\n"
    "\n"
    "Says what a selection table holds, as Markdown on stdout: what tuning brought to whole layers,\n"
    "winners and runners-up of the races, and whether another run of the tuner here chose alike.\n"
    "With --output it also measures layers and kernels by that table, some minutes, and writes\n"
    "DIR/REPORT.md, the measured lines and, by gnuplot, plots: a roofline, efficiency over tokens,\n"
    "winners against runners-up. Exit status 1: figures that were not to be believed are left out.\n"
    "\n"
    "  --table FILE    default: FP4MOE_TABLE, else /etc/fp4moe/table for root, else\n"
    "                  $XDG_CACHE_HOME/fp4moe/table or ~/.cache/fp4moe/table\n"
    "  --against FILE  another table of this host: the share of picks that agree, and of the others\n"
    "                  those within the noise that the races stored\n"
    "  --output DIR    made where it is missing\n"
    "  --model PRESET  measured; may be repeated; default: gpt-oss-20b and qwen3-30b-a3b\n"
    "  --precision P,...  f32, bf16, int8; default: all\n"
    "  --tokens LIST   of the layers' calls; default: 1,4,16,64,256,2048\n"
    "  --no-measure    what the table says, and no more\n"
    "  --help          this text\n";

typedef struct report_options {
  char table[OPTIONS_PATH];
  const char *against;
  report_wish wish;
  int no_measure;
} report_options;

static void add_model(report_wish *w, const char *name) {
  const preset *p = preset_find(name);
  if (!p) die("--model %s: no such preset; see fp4moe bench --help", name);
  if (w->models == sizeof w->model / sizeof *w->model) die("--model %s: one too many", name);
  w->model[w->models++] = p;
}

/* What only a measured report has goes with --output alone. */
static void check(report_options *o) {
  report_wish *w = &o->wish;
  if (!w->directory && (w->models || w->classes || w->tokens || o->no_measure))
    die("--model, --precision, --tokens and --no-measure go with --output; see %s --help",
        command_name);
  if (!w->models) add_model(w, "gpt-oss-20b"), add_model(w, "qwen3-30b-a3b");
  if (!w->classes) w->classes = ~0u;
  if (!w->tokens) w->tokens = "1,4,16,64,256,2048";
  if (!*o->table) require(fp4moe_table_default_path(o->table, sizeof o->table), NULL);
  w->table = o->table;
}

static void parse(int argc, char **argv, report_options *o) {
  enum { TABLE, AGAINST, OUTPUT, MODEL, PRECISION, TOKENS, NO_MEASURE, HELP };
  static const struct option names[] = {{"table", required_argument, NULL, TABLE},
                                        {"against", required_argument, NULL, AGAINST},
                                        {"output", required_argument, NULL, OUTPUT},
                                        {"model", required_argument, NULL, MODEL},
                                        {"precision", required_argument, NULL, PRECISION},
                                        {"tokens", required_argument, NULL, TOKENS},
                                        {"no-measure", no_argument, NULL, NO_MEASURE},
                                        {"help", no_argument, NULL, HELP},
                                        {0}};
  *o = (report_options){.table = ""};
  for (int c; (c = next_option(argc, argv, names)) >= 0;) {
    if (c == HELP) print_usage(usage);
    if (c == TABLE) options_path("--table", optarg, o->table);
    if (c == AGAINST) o->against = optarg;
    if (c == OUTPUT) o->wish.directory = optarg;
    if (c == MODEL) add_model(&o->wish, optarg);
    if (c == PRECISION) o->wish.classes |= options_classes(optarg);
    if (c == TOKENS) o->wish.tokens = optarg;
    if (c == NO_MEASURE) o->no_measure = 1;
  }
  if (optind < argc) die("%s: not expected; see %s --help", argv[optind], command_name);
  check(o);
}

static fp4moe_table *load(const fp4moe_context *ctx, const char *path) {
  fp4moe_table *table;
  require(fp4moe_table_load(path, &ctx->host, ctx->isa, &table), NULL);
  if (table->refused) die("%s: %s", path, table->report);
  return table;
}

void report_shape(char text[REPORT_SHAPE], const fp4moe_gain_entry *g) {
  size_t n = 0;
  for (size_t i = 0; i < preset_count && !g->linear && n < REPORT_SHAPE / 2; i++) {
    const preset *p = &presets[i];
    if (p->hidden == g->hidden && p->intermediate == g->intermediate &&
        (int)p->format == g->format && p->activation.gated == g->gated)
      n += (size_t)snprintf(text + n, REPORT_SHAPE - n, "%s%s", n ? ", " : "", p->name);
  }
  if (!n)
    snprintf(text, REPORT_SHAPE, "%s%zu x %zu%s", g->linear ? "linear " : "", g->hidden,
             g->intermediate, g->gated || g->linear ? "" : ", ungated");
}

static void head(FILE *out, const fp4moe_context *ctx, const fp4moe_table *t) {
  fprintf(out, "# The selection table of %s\n\n", ctx->host.cpu_model);
  fprintf(out, "    table     %s\n    topology  %s\n    isa       %s\n", t->path,
          ctx->host.topology, fp4moe_isa_name(ctx->isa));
  fprintf(out, "    entries   %zu recipes, %zu schedules, %zu layers tuned against static\n",
          t->recipes, t->schedules, t->gains);
  if (t->partial_of)
    fprintf(out, "    partial   %zu of %zu steps: its run was interrupted\n", t->partial,
            t->partial_of);
  for (const char *line = t->report, *end; (end = strchr(line, '\n')); line = end + 1)
    fprintf(out, "    note      %.*s\n", (int)(end - line), line);
  fprintf(out, "\n");
}

static void write_report(FILE *out, const fp4moe_context *ctx, const fp4moe_table *table,
                         const fp4moe_table *other, const json_t *lines, unsigned plots) {
  head(out, ctx, table);
  for (int i = 0; i < REPORT_PLOTS; i++)
    if (plots >> i & 1)
      fprintf(out, "![%s](%s)\n\n%s\n\n", report_plot_names[i], report_plot_names[i],
              report_plot_captions[i]);
  report_gains(out, table);
  if (lines) report_layers(out, lines);
  if (other) report_against(out, ctx, table, other);
  if (table->recipes) report_picks(out, table);
  if (lines) report_kernels(out, lines);
}

/* Into the directory; the Markdown comes last, so that it names what is there. */
static void write_directory(report_options *o, const fp4moe_context *ctx, const fp4moe_table *table,
                            const fp4moe_table *other) {
  const char *directory = o->wish.directory;
  char path[700];
  if (mkdir(directory, 0755) && errno != EEXIST) die("%s: %s", directory, strerror(errno));
  snprintf(path, sizeof path, "%s/REPORT.md", directory);
  FILE *out = fopen(path, "we"); /* early: a directory that cannot be written costs no minutes */
  if (!out) die("%s: %s", path, strerror(errno));
  json_t *lines = o->no_measure ? NULL : report_measure(ctx, &o->wish);
  write_report(out, ctx, table, other, lines, report_plot(directory, ctx, table, lines));
  if (fclose(out)) die("%s: %s", path, strerror(errno));
  json_decref(lines);
  printf("%s\n", path);
}

int command_report(int argc, char **argv) {
  report_options o;
  command_name = "fp4moe-autotune report";
  parse(argc, argv, &o);
  setenv("FP4MOE_TABLE", "none", 1); /* the report names its tables */
  fp4moe_context *ctx = open_context(0, NULL);
  fp4moe_table *table = load(ctx, o.table), *other = o.against ? load(ctx, o.against) : NULL;
  if (o.wish.directory)
    write_directory(&o, ctx, table, other);
  else
    write_report(stdout, ctx, table, other, NULL, 0);
  fp4moe_table_free(other);
  fp4moe_table_free(table);
  fp4moe_context_destroy(ctx);
  return o.wish.left_out ? EXIT_CHECK : EXIT_SUCCESS;
}
