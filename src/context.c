/* context.c - context life: environment, threads, table, memory (fp4moe.h).
 *
 * The environment is read here and nowhere else. */
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "layer.h"
#include "status.h"

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

/* ---- Environment and request ---- */

static fp4moe_status read_cap(fp4moe_request *request) {
  const char *word = getenv("FP4MOE_CPU");
  request->cap = (fp4moe_isa)(FP4MOE_ISAS - 1);
  if (!word || !*word) return FP4MOE_OK;
  int isa = fp4moe_isa_parse(word);
  if (isa < 0) return fp4moe_fail(FP4MOE_INVALID, "FP4MOE_CPU is \"%s\", no ISA here", word);
  request->cap = (fp4moe_isa)isa;
  return FP4MOE_OK;
}

static fp4moe_status read_globs(fp4moe_context *ctx) {
  const char *globs = ctx->desc.kernels, *origin = "kernels";
  if (!globs) globs = getenv("FP4MOE_KERNEL"), origin = "FP4MOE_KERNEL";
  return globs && *globs ? fp4moe_request_globs(&ctx->request, globs, origin) : FP4MOE_OK;
}

/* ---- Table ---- */

static void log_line(const fp4moe_context *ctx, const char *line) {
  if (ctx->desc.log) ctx->desc.log(ctx->desc.log_user, line);
}

/* Replaces the table; the one before is freed. */
static void use_table(fp4moe_context *ctx, fp4moe_table *table, const char *why) {
  pthread_mutex_lock(&ctx->table_lock);
  fp4moe_table *old = ctx->table;
  ctx->table = table;
  snprintf(ctx->table_why, sizeof ctx->table_why, "%s", why);
  pthread_mutex_unlock(&ctx->table_lock);
  fp4moe_table_free(old);
  if (table && table->refused) {
    char line[512];
    snprintf(line, sizeof line, "table %.200s refused: %.250s", table->path, table->report);
    line[strcspn(line, "\n")] = 0;
    log_line(ctx, line);
  }
}

static fp4moe_status load_table(fp4moe_context *ctx, const char *path, const char *why) {
  fp4moe_table *table;
  fp4moe_status status = fp4moe_table_load(path, &ctx->host, ctx->isa, &table);
  if (!status) use_table(ctx, table, why);
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
  const char *env = getenv("FP4MOE_TABLE");
  if (ctx->desc.table) return load_table(ctx, ctx->desc.table, "named by the caller");
  if (!env || !*env) return search_table(ctx);
  if (!strcmp(env, "none")) {
    use_table(ctx, NULL, "FP4MOE_TABLE=none: static order");
    return FP4MOE_OK;
  }
  if (!strncmp(env, "only:", 5)) {
    fp4moe_status status = load_table(ctx, env + 5, "FP4MOE_TABLE");
    if (status || !ctx->table->refused) return status;
    return fp4moe_fail(FP4MOE_INVALID, "FP4MOE_TABLE=%s is refused: %.*s", env,
                       (int)strcspn(ctx->table->report, "\n"), ctx->table->report);
  }
  return load_table(ctx, env, "FP4MOE_TABLE");
}

fp4moe_status fp4moe_context_reload_table(fp4moe_context *ctx, const char *path) {
  if (!path) return find_table(ctx);
  return load_table(ctx, path, "named by the caller");
}

static void table_text(fp4moe_context *ctx, fp4moe_text *t) {
  const fp4moe_table *table = ctx->table;
  if (!table) {
    fp4moe_text_add(t, "table: none (%s)\n", ctx->table_why);
    return;
  }
  fp4moe_text_add(t, "table: %s (%s), %s%zu recipes, %zu schedules, %zu dropped\n", table->path,
                  ctx->table_why, table->refused ? "REFUSED, " : "", table->recipes,
                  table->schedules, table->dropped);
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
  pthread_mutex_lock(&ctx->table_lock);
  const fp4moe_table *table = ctx->table && !ctx->table->refused ? ctx->table : NULL;
  fp4moe_selector s = {&ctx->host, &ctx->request, table};
  fp4moe_status status = fp4moe_select(&s, desc, plan);
  pthread_mutex_unlock(&ctx->table_lock);
  return status;
}

fp4moe_status fp4moe_context_explain(fp4moe_context *ctx, const fp4moe_layer_desc *desc,
                                     const fp4moe_problem *problem, char *buf, size_t cap,
                                     size_t *needed) {
  fp4moe_problem p;
  char about[2048] = "";
  fp4moe_text t = {buf, cap, 0}, table_about = {about, sizeof about, 0};
  fp4moe_status status = fp4moe_take_struct(&p, sizeof p, problem, "fp4moe_problem");
  if (status) return status;
  pthread_mutex_lock(&ctx->table_lock);
  table_text(ctx, &table_about);
  const fp4moe_table *table = ctx->table && !ctx->table->refused ? ctx->table : NULL;
  fp4moe_selector s = {&ctx->host, &ctx->request, table};
  status = fp4moe_report(&s, desc, &p, about, &t);
  pthread_mutex_unlock(&ctx->table_lock);
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
  return status ? status : fp4moe_context_explain(ctx, &d, problem, buf, cap, needed);
}

fp4moe_status fp4moe_layer_explain(fp4moe_layer *layer, const fp4moe_problem *problem, char *buf,
                                   size_t cap, size_t *needed) {
  return fp4moe_context_explain(layer->ctx, &layer->desc, problem, buf, cap, needed);
}

/* ---- Life ---- */

static fp4moe_status fill_providers(fp4moe_context *ctx) {
  fp4moe_context_desc *d = &ctx->desc;
  if (!d->allocate != !d->release)
    return fp4moe_fail(FP4MOE_INVALID, "allocate and release: one is NULL");
  if (!d->allocate) d->allocate = map_memory, d->release = unmap_memory;
  if (d->max_threads > FP4MOE_MAX_CORES)
    return fp4moe_fail(FP4MOE_INVALID, "max_threads is %zu, expected up to %d", d->max_threads,
                       FP4MOE_MAX_CORES);
  if (!d->max_threads) d->max_threads = ctx->host.threads;
  if (d->parallel_for) return FP4MOE_OK;
  /* More threads than cores: let the system place them. */
  int pins = !d->no_pin && d->max_threads <= ctx->host.allowed_cores;
  ctx->pool = fp4moe_pool_create(d->max_threads, pins ? ctx->host.core_pu : NULL,
                                 d->spin_ns ? d->spin_ns : 50000);
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
  pthread_mutex_init(&ctx->table_lock, NULL);
  fp4moe_status status = fp4moe_take_struct(&ctx->desc, sizeof ctx->desc, desc ? desc : &defaults,
                                            "fp4moe_context_desc");
  fp4moe_host_read(&ctx->host);
  if (!status) status = fill_providers(ctx);
  if (!status) status = read_cap(&ctx->request);
  ctx->isa = fp4moe_cpu_best(ctx->request.cap);
  if (!status) status = read_globs(ctx);
  if (!status) status = find_table(ctx);
  if (status)
    fp4moe_context_destroy(ctx);
  else
    *out = ctx;
  return status;
}

void fp4moe_context_destroy(fp4moe_context *ctx) {
  if (!ctx) return;
  fp4moe_pool_destroy(ctx->pool);
  fp4moe_table_free(ctx->table);
  pthread_mutex_destroy(&ctx->table_lock);
  free(ctx);
}

size_t fp4moe_context_threads(const fp4moe_context *ctx) { return ctx->desc.max_threads; }
