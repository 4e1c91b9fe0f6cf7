/* context.c - context life: environment, threads, table, memory (fp4moe.h).
 *
 * A table is read beside the one in use and put in its place under a lock, which selection and
 * explain hold while they look into it: whoever calls sees one table whole. Calls of layers see
 * none at all, only the plan that was made from it. */
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cpu.h"
#include "environment.h"
#include "layer.h"
#include "status.h"
#include "verbose.h"

/* ---- Memory ---- */

enum { HUGE_PAGE = 2 << 20 };

static void *map_memory(void *user, size_t bytes, size_t alignment) {
  size_t room = bytes + alignment;
  uint8_t *at = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  (void)user;
  if (at == MAP_FAILED) return NULL;
  size_t head = (alignment - (size_t)at % alignment) % alignment, page = 4096;
  size_t used = (bytes + page - 1) / page * page;
  if (head) munmap(at, head);
  if (room - head > used) munmap(at + head + used, room - head - used);
  madvise(at + head, used, MADV_HUGEPAGE);
  return at + head;
}

static void unmap_memory(void *user, void *memory, size_t bytes) {
  (void)user;
  munmap(memory, (bytes + 4095) / 4096 * 4096);
}

void *fp4moe_context_allocate(fp4moe_context *ctx, size_t bytes) {
  return ctx->desc.allocate(ctx->desc.allocate_user, bytes, HUGE_PAGE);
}

void fp4moe_context_release(fp4moe_context *ctx, void *memory, size_t bytes) {
  ctx->desc.release(ctx->desc.allocate_user, memory, bytes);
}

/* ---- Request: the desc's fields, then the environment ---- */

/* tuned and a table that contradict each other, unless a field stands against a variable. */
static fp4moe_status check_tuned(const fp4moe_context *ctx, const fp4moe_environment *env) {
  int by_field = ctx->desc.tuned != FP4MOE_TUNED_DEFAULT;
  const char *table = ctx->desc.table ? ctx->desc.table : env->table;
  int none = table && !ctx->desc.table && !strcmp(table, "none");
  int clash = ctx->request.tuned == FP4MOE_TUNED_OFF       ? table && !none
              : ctx->request.tuned == FP4MOE_TUNED_REQUIRE ? none
                                                           : 0;
  if (!clash || (by_field && !ctx->desc.table)) return FP4MOE_OK;
  return fp4moe_fail(FP4MOE_INVALID, "%s %s, and the table is \"%s\"",
                     by_field ? "tuned is" : "FP4MOE_TUNED is",
                     ctx->request.tuned == FP4MOE_TUNED_OFF ? "off" : "require", table);
}

static fp4moe_status make_request(fp4moe_context *ctx) {
  fp4moe_request *r = &ctx->request;
  fp4moe_environment env;
  fp4moe_status status = fp4moe_environment_read(&env);
  if (status) return status;
  if ((unsigned)ctx->desc.tuned > FP4MOE_TUNED_OFF)
    return fp4moe_fail(FP4MOE_INVALID, "tuned is %d, expected USE, REQUIRE or OFF",
                       (int)ctx->desc.tuned);
  r->cap = env.cap;
  r->batch_invariant = ctx->desc.batch_invariant != 0;
  r->tuned = ctx->desc.tuned ? ctx->desc.tuned : env.tuned ? env.tuned : FP4MOE_TUNED_USE;
  ctx->isa = fp4moe_cpu_best(r->cap);
  if ((status = check_tuned(ctx, &env))) return status;
  if (ctx->desc.kernels)
    return *ctx->desc.kernels ? fp4moe_request_globs(r, ctx->desc.kernels, "kernels") : FP4MOE_OK;
  return env.kernel ? fp4moe_request_globs(r, env.kernel, "FP4MOE_KERNEL") : FP4MOE_OK;
}

/* ---- Table ---- */

static void log_refusal(const fp4moe_context *ctx, const fp4moe_table *table) {
  char line[512];
  if (!ctx->desc.log || !table || !table->refused) return;
  snprintf(line, sizeof line, "table %.200s refused: %.250s", table->path, table->report);
  line[strcspn(line, "\n")] = 0;
  ctx->desc.log(ctx->desc.log_user, line);
}

/* Puts the table in the place of the one before, which is freed: nobody holds it without the lock.
 */
static void use_table(fp4moe_context *ctx, fp4moe_table *table, const char *why) {
  log_refusal(ctx, table);
  pthread_mutex_lock(&ctx->table_lock);
  fp4moe_table *old = ctx->table;
  ctx->table = table;
  snprintf(ctx->table_why, sizeof ctx->table_why, "%s", why);
  pthread_mutex_unlock(&ctx->table_lock);
  fp4moe_table_free(old);
}

static fp4moe_status load_table(fp4moe_context *ctx, const char *path, const char *why) {
  fp4moe_table *table;
  fp4moe_status status = fp4moe_table_load(path, &ctx->host, ctx->isa, &table);
  if (!status) use_table(ctx, table, why);
  return status;
}

/* FP4MOE_TABLE=only:path: a table that is refused changes nothing. */
static fp4moe_status load_only(fp4moe_context *ctx, const char *path) {
  fp4moe_table *table;
  fp4moe_status status = fp4moe_table_load(path, &ctx->host, ctx->isa, &table);
  if (status) return status;
  if (!table->refused) {
    use_table(ctx, table, "FP4MOE_TABLE");
    return FP4MOE_OK;
  }
  status = fp4moe_fail(FP4MOE_INVALID, "FP4MOE_TABLE=only:%s is refused: %.*s", path,
                       (int)strcspn(table->report, "\n"), table->report);
  fp4moe_table_free(table);
  return status;
}

/* The places where a table is looked for when none was named. */
static fp4moe_status search_table(fp4moe_context *ctx) {
  const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
  char user[512] = "";
  if (cache && *cache)
    snprintf(user, sizeof user, "%s/fp4moe/table", cache);
  else if (home && *home)
    snprintf(user, sizeof user, "%s/.cache/fp4moe/table", home);
  if (*user && !access(user, F_OK)) return load_table(ctx, user, "found in the user's cache");
  if (!access("/etc/fp4moe/table", F_OK))
    return load_table(ctx, "/etc/fp4moe/table", "found in /etc/fp4moe");
  use_table(ctx, NULL, "no table was found: static order");
  return FP4MOE_OK;
}

static fp4moe_status find_table(fp4moe_context *ctx) {
  fp4moe_environment env;
  fp4moe_status status = fp4moe_environment_read(&env);
  if (status) return status;
  if (ctx->request.tuned == FP4MOE_TUNED_OFF) {
    use_table(ctx, NULL, "tuned is off: static order");
    return FP4MOE_OK;
  }
  if (ctx->desc.table) return load_table(ctx, ctx->desc.table, "named by the caller");
  if (!env.table) return search_table(ctx);
  if (!strncmp(env.table, "only:", 5)) return load_only(ctx, env.table + 5);
  if (strcmp(env.table, "none")) return load_table(ctx, env.table, "FP4MOE_TABLE");
  use_table(ctx, NULL, "FP4MOE_TABLE=none: static order");
  return FP4MOE_OK;
}

fp4moe_status fp4moe_context_reload_table(fp4moe_context *ctx, const char *path) {
  if (path && ctx->request.tuned == FP4MOE_TUNED_OFF)
    return fp4moe_fail(FP4MOE_INVALID, "tuned is off, and the table is \"%s\"", path);
  uint64_t mode = fp4moe_fp_enter();
  fp4moe_status status = path ? load_table(ctx, path, "named by the caller") : find_table(ctx);
  fp4moe_fp_leave(mode);
  return status;
}

static void table_text(fp4moe_context *ctx, fp4moe_text *t) {
  const fp4moe_table *table = ctx->table;
  if (!table) {
    fp4moe_text_add(t, "table: none (%s)\n", ctx->table_why);
    return;
  }
  fp4moe_text_add(t, "table: %s (%s), %s%zu recipes, %zu schedules, %zu placements, %zu dropped\n",
                  table->path, ctx->table_why, table->refused ? "REFUSED, " : "", table->recipes,
                  table->schedules, table->placements, table->dropped);
  fp4moe_text_add(t, "%s", table->report);
}

static fp4moe_status finish_text(fp4moe_text *t, size_t *needed) {
  if (needed) *needed = t->needed;
  if (t->cap && t->needed >= t->cap) t->buf[t->cap - 1] = 0;
  return FP4MOE_OK;
}

fp4moe_status fp4moe_context_table(fp4moe_context *ctx, char *buf, size_t cap, size_t *needed) {
  fp4moe_text t = {buf, cap, 0};
  pthread_mutex_lock(&ctx->table_lock);
  table_text(ctx, &t);
  pthread_mutex_unlock(&ctx->table_lock);
  return finish_text(&t, needed);
}

/* ---- Selection ---- */

fp4moe_status fp4moe_context_select(fp4moe_context *ctx, const fp4moe_layer_desc *desc,
                                    fp4moe_plan *plan) {
  uint64_t mode = fp4moe_fp_enter();
  pthread_mutex_lock(&ctx->table_lock);
  const fp4moe_table *table = ctx->table && !ctx->table->refused ? ctx->table : NULL;
  fp4moe_selector s = {&ctx->host, &ctx->request, table};
  fp4moe_status status = fp4moe_select(&s, desc, plan);
  pthread_mutex_unlock(&ctx->table_lock);
  fp4moe_fp_leave(mode);
  return status;
}

/* layer: NULL = none. */
static fp4moe_status explain(fp4moe_context *ctx, const fp4moe_layer_desc *desc,
                             const fp4moe_problem *problem, const fp4moe_layer *layer, char *buf,
                             size_t cap, size_t *needed) {
  const fp4moe_plan *running = layer ? fp4moe_layer_plan(layer) : NULL;
  fp4moe_problem p;
  char about[2048] = "";
  fp4moe_text t = {buf, cap, 0}, table_about = {about, sizeof about, 0};
  fp4moe_status status = fp4moe_take_struct(&p, sizeof p, problem, "fp4moe_problem");
  if (!status && layer) status = fp4moe_shards_text(layer, &table_about);
  if (status) return status;
  uint64_t mode = fp4moe_fp_enter();
  fp4moe_places_text(ctx, &table_about);
  pthread_mutex_lock(&ctx->table_lock);
  table_text(ctx, &table_about);
  const fp4moe_table *table = ctx->table && !ctx->table->refused ? ctx->table : NULL;
  fp4moe_selector s = {&ctx->host, &ctx->request, table};
  status = fp4moe_report(&s, desc, &p, about, running, &t);
  pthread_mutex_unlock(&ctx->table_lock);
  fp4moe_fp_leave(mode);
  return status ? status : finish_text(&t, needed);
}

fp4moe_status fp4moe_explain(fp4moe_context *ctx, const fp4moe_layer_desc *desc,
                             const fp4moe_problem *problem, char *buf, size_t cap, size_t *needed) {
  fp4moe_layer_desc d;
  fp4moe_status status = fp4moe_take_struct(&d, sizeof d, desc, "fp4moe_layer_desc");
  if (status) return status;
  if (d.input_scale_gate_up == 0 && d.input_scale_down == 0 && fp4moe_reads_layer_scales(&d))
    d.input_scale_gate_up = d.input_scale_down = 1; /* not known yet, and they choose nothing */
  status = fp4moe_layer_desc_check(&d);
  return status ? status : explain(ctx, &d, problem, NULL, buf, cap, needed);
}

fp4moe_status fp4moe_layer_explain(fp4moe_layer *layer, const fp4moe_problem *problem, char *buf,
                                   size_t cap, size_t *needed) {
  return explain(layer->ctx, &layer->desc, problem, layer, buf, cap, needed);
}

/* ---- Life ---- */

static fp4moe_status fill_providers(fp4moe_context *ctx) {
  fp4moe_context_desc *d = &ctx->desc;
  const fp4moe_host *host = &ctx->host;
  int pu[FP4MOE_MAX_PUS];
  size_t count;
  if (!d->allocate != !d->release)
    return fp4moe_fail(FP4MOE_INVALID, "allocate and release: one is NULL");
  ctx->caller_memory = d->allocate != NULL;
  if (!d->allocate) d->allocate = map_memory, d->release = unmap_memory;
  if (d->max_threads > FP4MOE_MAX_CORES)
    return fp4moe_fail(FP4MOE_INVALID, "max_threads is %zu, expected up to %d", d->max_threads,
                       FP4MOE_MAX_CORES);
  fp4moe_status status = fp4moe_places_find(ctx, pu, &count);
  if (status) return status;
  if (!d->max_threads) d->max_threads = host->quota && host->quota < count ? host->quota : count;
  /* More threads than cores: let the system place them. */
  ctx->pinned = !d->parallel_for && !d->no_pin && d->max_threads <= count;
  const int *pins = ctx->pinned ? pu : NULL;
  fp4moe_places_nodes(ctx, pins, d->max_threads);
  if (d->parallel_for) return FP4MOE_OK;
  ctx->pool = fp4moe_pool_create(d->max_threads, pins, d->spin_ns ? d->spin_ns : 50000);
  if (!ctx->pool) return fp4moe_fail(FP4MOE_NO_MEMORY, "a pool of %zu threads", d->max_threads);
  d->parallel_for = fp4moe_pool_run;
  d->pool = ctx->pool;
  return FP4MOE_OK;
}

fp4moe_status fp4moe_context_create(const fp4moe_context_desc *desc, fp4moe_context **out) {
  static const fp4moe_context_desc defaults = {.struct_size = sizeof defaults};
  if (!out) return fp4moe_fail(FP4MOE_INVALID, "context: NULL");
  fp4moe_context *ctx = calloc(1, sizeof *ctx);
  if (!ctx) return fp4moe_fail(FP4MOE_NO_MEMORY, "a context of %zu bytes", sizeof *ctx);
  ctx->verbose_fd = -1;
  pthread_mutex_init(&ctx->table_lock, NULL);
  fp4moe_status status = fp4moe_take_struct(&ctx->desc, sizeof ctx->desc, desc ? desc : &defaults,
                                            "fp4moe_context_desc");
  if (!status && ctx->desc.table && !(ctx->desc.table = strdup(ctx->desc.table)))
    status = fp4moe_fail(FP4MOE_NO_MEMORY, "the table's path");
  uint64_t mode = fp4moe_fp_enter();
  fp4moe_host_read(&ctx->host);
  if (!status) status = make_request(ctx);
  if (!status) status = find_table(ctx);
  if (!status) status = fill_providers(ctx);
  if (!status) status = fp4moe_verbose_open(ctx);
  fp4moe_fp_leave(mode);
  if (status)
    fp4moe_context_destroy(ctx);
  else
    *out = ctx;
  return status;
}

void fp4moe_context_destroy(fp4moe_context *ctx) {
  if (!ctx) return;
  fp4moe_pool_destroy(ctx->pool);
  fp4moe_verbose_close(ctx);
  fp4moe_table_free(ctx->table);
  pthread_mutex_destroy(&ctx->table_lock);
  free((char *)(uintptr_t)ctx->desc.table);
  free(ctx);
}

size_t fp4moe_context_threads(const fp4moe_context *ctx) { return ctx->desc.max_threads; }
