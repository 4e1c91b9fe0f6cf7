/* main.c - the program `fp4moe-autotune`: measures the kernels on this machine, writes the table.
 *
 * Run once per machine, when it is quiet. Each problem has two steps: its races, and when all have
 * had theirs the proof of what came out, so that minutes lie between. The table is written whole
 * after each step, so an interrupted run keeps what it has and says how far it came; the next run
 * of the same problems goes on there. Entries of other problems in a table of this host stay; a
 * table of another host is left alone unless --force moves it aside; one of another version moves
 * aside by itself. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "conditions.h"
#include "grid.h"
#include "options.h"
#include "places.h"
#include "report.h"
#include "topology.h"
#include "tune.h"

enum { EXIT_INTERRUPTED = 130 };

static int interrupted; /* set by SIGINT, read between calls */

static void on_interrupt(int signal) {
  (void)signal;
  __atomic_store_n(&interrupted, 1, __ATOMIC_RELAXED);
}

/* Lines for people. */
static int is_plain(const options *o) { return !o->quiet && !o->json; }

static void warn(const char *text) { fprintf(stderr, "warning: %s\n", text); }

/* ---- The table ---- */

static fp4moe_table *load_table(const options *o, const fp4moe_context *ctx) {
  fp4moe_table *old = NULL;
  if (!access(o->output, F_OK))
    require(fp4moe_table_load(o->output, &ctx->host, ctx->isa, &old), NULL);
  return old;
}

static size_t steps(const options *o) { return 2 * o->count; }

/* Takes the entries of a table of this host; returns how many steps an interrupted run of the same
 * list has done. */
static size_t take_old_table(const options *o, const fp4moe_context *ctx, entries *all) {
  char aside[600];
  fp4moe_table *old = load_table(o, ctx);
  size_t done = 0;
  if (!old) return 0;
  if (!old->refused) {
    entries_take(all, old);
    if (old->partial_of == steps(o) && old->partial < steps(o)) done = old->partial;
  } else if (!o->force && old->refused != 1) {
    char why[1024];
    snprintf(why, sizeof why, "%s", old->report);
    fp4moe_table_free(old);
    die("%s is not of this host, and stays; --force moves it aside: %s", o->output, why);
  } else {
    snprintf(aside, sizeof aside, "%s.old", o->output);
    if (is_plain(o)) printf("%s moves to %s: %s", o->output, aside, old->report);
    if (o->json) print_json(json_pack("{s:s, s:s}", "table", o->output, "moved_to", aside));
    if (rename(o->output, aside)) die("rename %s to %s failed", o->output, aside);
  }
  fp4moe_table_free(old);
  return done;
}

static void save(const options *o, const fp4moe_context *ctx, entries *all, size_t done) {
  all->table.partial = done;
  all->table.partial_of = done < steps(o) ? steps(o) : 0;
  if (!all->table.partial_of) all->table.partial = 0;
  fp4moe_table_sort(&all->table);
  require(fp4moe_table_save(o->output, &ctx->host, ctx->isa, &all->table), NULL);
}

/* ---- Reports ---- */

static void say_banned(const char *name, const fp4moe_recipe *r, const char *reason) {
  fprintf(stderr, "banned: %s, %s: %s\n", name, r->gemv ? r->gemv->name : r->gemm->name, reason);
}

/* A step of a problem has ended; `done` steps of all have. */
static void report_step(const options *o, const problem *p, const tune_run *r, double seconds,
                        size_t done, double left) {
  if (o->quiet) return;
  if (o->json) {
    print_json(json_pack("{s:s, s:I, s:I, s:I, s:f, s:f, s:b, s:I, s:I, s:f}", "problem", p->name,
                         "candidates", (json_int_t)r->candidates, "refused", (json_int_t)r->refused,
                         "removed", (json_int_t)r->removed, "noise", r->noise, "seconds", seconds,
                         "unfinished", r->unfinished, "done", (json_int_t)done, "of",
                         (json_int_t)steps(o), "seconds_left", left));
    return;
  }
  printf("%-24s ", p->name);
  if (r->candidates)
    printf("%zu candidates, %zu refused", r->candidates, r->refused);
  else
    printf("proven again, %zu left static", r->removed);
  printf(", noise %.1f %%, %.1f s", 100 * r->noise, seconds);
  if (r->unfinished)
    printf(", not finished");
  else if (done < steps(o))
    printf("; %zu of %zu steps, about %.0f s left", done, steps(o), left);
  printf("\n");
}

static int fits_memory(const preset *p) {
  long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGE_SIZE);
  int matrices = p->activation.gated ? 3 : (int)p->activation.kind == FP4MOE_LINEAR ? 1 : 2;
  double expert = 0.6 * (double)(p->hidden * p->intermediate) * matrices;
  return expert * (double)(p->top_k + 8) < 0.5 * (double)pages * (double)page;
}

/* Why the problem cannot be tuned here; NULL: it can. */
static const char *why_not(fp4moe_context *ctx, const problem *p) {
  fp4moe_selector s = {&ctx->host, &ctx->request, NULL};
  fp4moe_layer_desc desc = problem_desc(p);
  if (!grid_has_choice(&s, &desc)) return "only C kernels serve this class here: nothing to choose";
  return fits_memory(&p->shape) ? NULL : "does not fit the memory";
}

/* 1: the problem can be tuned; why not is said. */
static int is_worth(const options *o, fp4moe_context *ctx, const problem *p) {
  const char *why = why_not(ctx, p);
  if (why && o->json) print_json(json_pack("{s:s, s:s}", "problem", p->name, "left_out", why));
  if (why && is_plain(o)) printf("%-24s %s\n", p->name, why);
  return !why;
}

/* ---- Placements ---- */

/* Everything that follows runs as the entry says. */
static void take_place(const options *o, fp4moe_context **ctx, const fp4moe_placement_entry *e) {
  fp4moe_context_destroy(*ctx);
  *ctx = open_context_of((fp4moe_context_desc){.placement = fp4moe_placement_name(e->placement)});
  for (size_t i = 0; i < o->count; i++) o->problems[i].shards = e->shards;
}

static void report_place(const options *o, const tune_run *r, const fp4moe_placement_entry *e) {
  char text[PLACE_TEXT];
  place_text(e->placement, e->shards, text);
  if (o->json)
    print_json(json_pack("{s:s, s:I, s:I, s:f}", "placement", fp4moe_placement_name(e->placement),
                         "shards", (json_int_t)e->shards, "candidates", (json_int_t)r->candidates,
                         "noise", r->noise));
  else if (!o->quiet)
    printf("%-24s %s: the best of %zu, noise %.1f %%\n", "placement", text, r->candidates,
           100 * r->noise);
}

/* Races what this host has, where that is more than one and the caller has said nothing; not again
 * where an earlier run of the same list has. */
static void settle_place(const options *o, fp4moe_context **ctx, tune_run run, int again,
                         entries *all) {
  fp4moe_placement_key key = fp4moe_host_key(&(*ctx)->host);
  const fp4moe_placement_entry *known;
  fp4moe_placement_entry e;
  size_t i = 0;
  if (o->threads) return;
  if (again && fp4moe_table_place(&all->table, &key, &known) == FP4MOE_MATCH_EXACT) {
    take_place(o, ctx, known);
    return;
  }
  while (i < o->count && !is_worth(o, *ctx, &o->problems[i])) i++;
  if (i == o->count || !places_race(&run, *ctx, &o->problems[i], &e)) return;
  entries_set_placement(all, &e);
  report_place(o, &run, &e);
  take_place(o, ctx, &e);
}

static void list_places(const fp4moe_host *host) {
  static topology_place places[PLACES_MAX];
  char text[PLACE_TEXT];
  size_t n = places_seen(host, places);
  for (size_t i = 0; i < n && n > 1; i++) {
    place_text(places[i].threads.placement, places[i].shards, text);
    printf("%-24s %s, %zu threads on %zu nodes\n", "placement", text, places[i].threads.count,
           places[i].nodes);
  }
}

/* ---- Ways to run ---- */

static int dry_run(const options *o, fp4moe_context *ctx) {
  tune_run run = {.quick = o->quick};
  size_t total = 0;
  if (!o->threads) list_places(&ctx->host);
  for (size_t i = 0; i < o->count; i++) {
    if (!is_worth(o, ctx, &o->problems[i])) continue;
    size_t n = tune_size(&run, ctx, &o->problems[i]);
    total += n;
    if (o->json)
      print_json(
          json_pack("{s:s, s:I}", "problem", o->problems[i].name, "candidates", (json_int_t)n));
    else
      printf("%-24s %zu candidates\n", o->problems[i].name, n);
  }
  if (o->json)
    print_json(json_pack("{s:s, s:I}", "would_write", o->output, "candidates", (json_int_t)total));
  else
    printf("%zu candidates in all; would write %s\n", total, o->output);
  return EXIT_SUCCESS;
}

static int verify(const options *o, fp4moe_context **context) {
  fp4moe_context *ctx = *context;
  fp4moe_table *table = load_table(o, ctx);
  tune_run run = {
      .quick = o->quick, .quiet = o->quiet, .json = o->json, .interrupted = &interrupted};
  size_t beaten = 0;
  if (!table || table->refused)
    die("%s: %s", o->output, table ? table->report : "no such table; tune first");
  fp4moe_placement_key key = fp4moe_host_key(&ctx->host);
  const fp4moe_placement_entry *known;
  if (!o->threads && fp4moe_table_place(table, &key, &known) == FP4MOE_MATCH_EXACT)
    take_place(o, context, known);
  ctx = *context;
  for (size_t i = 0; i < o->count && !run.unfinished; i++)
    if (is_worth(o, ctx, &o->problems[i])) beaten += tune_verify(&run, ctx, &o->problems[i], table);
  fp4moe_table_free(table);
  if (o->json) print_json(json_pack("{s:I, s:f}", "lost", (json_int_t)beaten, "noise", run.noise));
  if (is_plain(o)) printf("%zu picks have lost, noise %.1f %%\n", beaten, 100 * run.noise);
  return beaten ? EXIT_CHECK : EXIT_SUCCESS;
}

static void run_step(tune_run *run, fp4moe_context *ctx, const problem *p, int again,
                     entries *all) {
  entries fresh = {.table = {.path = ""}};
  if (again) {
    tune_prove(run, ctx, p, all);
    return;
  }
  tune_problem(run, ctx, p, &fresh);
  entries_take(all, &fresh.table);
  entries_free(&fresh);
}

static int tune(const options *o, fp4moe_context **context) {
  entries all = {.table = {.path = ""}};
  size_t first = take_old_table(o, *context, &all), done = first;
  uint64_t start = fp4moe_now_ns();
  tune_run start_run = {.quick = o->quick,
                        .deadline_ns = o->budget_ns ? start + o->budget_ns : 0,
                        .interrupted = &interrupted,
                        .quiet = o->quiet,
                        .banned = say_banned};
  settle_place(o, context, start_run, first > 0, &all);
  fp4moe_context *ctx = *context;
  if (first && is_plain(o))
    printf("goes on after %zu of %zu steps that an earlier run has done\n", first, steps(o));
  for (; done < steps(o); done++) {
    const problem *p = &o->problems[done % o->count];
    tune_run run = start_run;
    if (done < o->count ? !is_worth(o, ctx, p) : why_not(ctx, p) != NULL) continue;
    uint64_t began = fp4moe_now_ns();
    run_step(&run, ctx, p, done >= o->count, &all);
    size_t after = done + !run.unfinished;
    save(o, ctx, &all, after);
    double now = (double)fp4moe_now_ns(), each = (now - (double)start) / (double)(done + 1 - first);
    report_step(o, p, &run, (now - (double)began) * 1e-9, after,
                each * (double)(steps(o) - after) * 1e-9);
    fflush(stdout);
    if (run.unfinished) break;
  }
  if (done == steps(o)) save(o, ctx, &all, done);
  if (o->json)
    print_json(json_pack("{s:s, s:I, s:I, s:b}", "table", o->output, "recipes",
                         (json_int_t)all.table.recipes, "schedules",
                         (json_int_t)all.table.schedules, "finished", done == steps(o)));
  if (is_plain(o))
    printf("table: %s, %zu recipes, %zu schedules%s\n", o->output, all.table.recipes,
           all.table.schedules, done < steps(o) ? "; not finished: run it again to go on" : "");
  entries_free(&all);
  return interrupted ? EXIT_INTERRUPTED : EXIT_SUCCESS;
}

int main(int argc, char **argv) {
  if (argc > 1 && !strcmp(argv[1], "report")) return command_report(argc - 1, argv + 1);
  static options o;
  char difference[320];
  struct sigaction act = {.sa_handler = on_interrupt, .sa_flags = SA_RESTART};
  command_name = "fp4moe-autotune";
  setvbuf(stdout, NULL, _IOLBF, 0);
  options_parse(argc, argv, &o);
  sigaction(SIGINT, &act, NULL);
  sigaction(SIGTERM, &act, NULL);
  setenv("FP4MOE_TABLE", "none", 1); /* what is measured must not depend on a table */
  fp4moe_context *ctx = open_context(o.threads, NULL);
  if (o.json)
    print_json(json_pack("{s:s, s:s, s:s, s:I}", "host", ctx->host.cpu_model, "topology",
                         ctx->host.topology, "isa", fp4moe_isa_name(ctx->isa), "threads",
                         (json_int_t)fp4moe_context_threads(ctx)));
  if (is_plain(&o))
    printf("host: %s, %s, isa %s, %zu threads\n", ctx->host.cpu_model, ctx->host.topology,
           fp4moe_isa_name(ctx->isa), fp4moe_context_threads(ctx));
  if (!topology_agrees(&ctx->host, difference, sizeof difference)) warn(difference);
  conditions_report(&ctx->host, warn);
  int status = o.dry_run ? dry_run(&o, ctx) : o.verify ? verify(&o, &ctx) : tune(&o, &ctx);
  fp4moe_context_destroy(ctx);
  free(o.problems);
  return finish_output(status);
}
