/* report.c - the command line of the report and its head (report.h). */
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "presets.h"
#include "report.h"

static const char usage[] =
    "usage: fp4moe-autotune report [--table FILE] [--against FILE]\n"
    "\n"
    "Says what a selection table holds, as Markdown on stdout: what tuning brought to whole layers,\n"
    "and whether another run of the tuner on this host chose alike.\n"
    "\n"
    "  --table FILE    default: FP4MOE_TABLE, else /etc/fp4moe/table for root, else\n"
    "                  $XDG_CACHE_HOME/fp4moe/table or ~/.cache/fp4moe/table\n"
    "  --against FILE  another table of this host: the share of picks that agree, and of the others\n"
    "                  those within the noise that the races stored\n"
    "  --help          this text\n";

typedef struct report_options {
  char table[512];
  const char *against;
} report_options;

static void parse(int argc, char **argv, report_options *o) {
  enum { TABLE, AGAINST, HELP };
  static const struct option names[] = {{"table", required_argument, NULL, TABLE},
                                        {"against", required_argument, NULL, AGAINST},
                                        {"help", no_argument, NULL, HELP},
                                        {0}};
  *o = (report_options){.table = ""};
  for (int c; (c = next_option(argc, argv, names)) >= 0;) {
    if (c == HELP) print_usage(usage);
    if (c == TABLE)
      snprintf(o->table, sizeof o->table, "%s", optarg);
    else
      o->against = optarg;
  }
  if (optind < argc) die("%s: not expected; see %s --help", argv[optind], command_name);
  if (!*o->table) require(fp4moe_table_default_path(o->table, sizeof o->table), NULL);
}

static fp4moe_table *load(const fp4moe_context *ctx, const char *path) {
  fp4moe_table *table;
  require(fp4moe_table_load(path, &ctx->host, ctx->isa, &table), NULL);
  if (table->refused) die("%s: %s", path, table->report);
  return table;
}

void report_shape(char text[REPORT_SHAPE], int format, size_t hidden, size_t intermediate,
                  int gated) {
  size_t n = 0;
  for (size_t i = 0; i < preset_count && n < REPORT_SHAPE / 2; i++)
    if (presets[i].hidden == hidden && presets[i].intermediate == intermediate &&
        (int)presets[i].format == format && presets[i].activation.gated == gated)
      n += (size_t)snprintf(text + n, REPORT_SHAPE - n, "%s%s", n ? ", " : "", presets[i].name);
  if (!n)
    snprintf(text, REPORT_SHAPE, "%zu x %zu%s", hidden, intermediate, gated ? "" : ", ungated");
}

static void head(FILE *out, const fp4moe_context *ctx, const fp4moe_table *t) {
  fprintf(out, "# The selection table of %s\n\n", ctx->host.cpu_model);
  fprintf(out, "    table     %s\n    topology  %s\n    isa       %s\n", t->path,
          ctx->host.topology, fp4moe_isa_name(ctx->isa));
  fprintf(out, "    entries   %zu recipes, %zu schedules, %zu layers tuned against static\n",
          t->recipes, t->schedules, t->gains);
  if (t->partial_of)
    fprintf(out, "    partial   %zu of %zu problems: its run was interrupted\n", t->partial,
            t->partial_of);
  for (const char *line = t->report, *end; (end = strchr(line, '\n')); line = end + 1)
    fprintf(out, "    note      %.*s\n", (int)(end - line), line);
  fprintf(out, "\n");
}

int command_report(int argc, char **argv) {
  report_options o;
  command_name = "fp4moe-autotune report";
  parse(argc, argv, &o);
  setenv("FP4MOE_TABLE", "none", 1); /* the report names its tables */
  fp4moe_context *ctx = open_context(0, NULL);
  fp4moe_table *table = load(ctx, o.table), *other = o.against ? load(ctx, o.against) : NULL;
  head(stdout, ctx, table);
  report_gains(stdout, table);
  if (other) report_against(stdout, ctx, table, other);
  fp4moe_table_free(other);
  fp4moe_table_free(table);
  fp4moe_context_destroy(ctx);
  return EXIT_SUCCESS;
}
