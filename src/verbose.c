/* verbose.c - a line about each call (verbose.h).
 *
 *   fp4moe: call=forward pid=9 format=mxfp4 class=bf16 hidden=2880 intermediate=2880
 *     activation=swiglu_oai gated=1 experts=32 topk=4 tokens=16 active=28 rows=1..5 threads=2
 *     gate_up(n=5760,k=2880,m=2,source=static)=KERNEL[+KERNEL] ... down(...)=... quant=KERNEL ...
 *     ms=11.832 prepare_us=21.4 phase1_us=... wait1_us=... phase2_us=... wait2_us=... gbytes_s=11.9
 *     replay=FP4MOE_TABLE=none fp4moe bench ...                       (all on one line)
 *
 * m is a bucket of rows per expert, by its largest (128 and more). Of a linear there is n, k and
 * down. wait1 and wait2 are sums over workers. A line is one write(2) of at most PIPE_BUF bytes to
 * a descriptor that appends, so lines of threads and processes do not mix. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "activation.h"
#include "environment.h"
#include "status.h"
#include "verbose.h"

/* ---- Where lines go ---- */

static fp4moe_status open_file(const char *word, int *fd) {
  if (!strpbrk(word, "/."))
    return fp4moe_fail(FP4MOE_INVALID,
                       "FP4MOE_VERBOSE is \"%s\", expected 0, 1 (stderr) or a file, with a / or . "
                       "in its name",
                       word);
  *fd = open(word, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  return *fd >= 0 ? FP4MOE_OK
                  : fp4moe_fail(FP4MOE_SYSTEM, "FP4MOE_VERBOSE: %s: %s", word, strerror(errno));
}

fp4moe_status fp4moe_verbose_open(fp4moe_context *ctx) {
  fp4moe_environment env;
  fp4moe_status status = fp4moe_environment_read(&env);
  if (status) return status;
  if (ctx->desc.log_calls && !ctx->desc.log)
    return fp4moe_fail(FP4MOE_INVALID, "log_calls is %d, and log is NULL", ctx->desc.log_calls);
  if (!env.verbose || !strcmp(env.verbose, "0")) return FP4MOE_OK;
  if (strcmp(env.verbose, "1")) return open_file(env.verbose, &ctx->verbose_fd);
  ctx->verbose_fd = STDERR_FILENO;
  return FP4MOE_OK;
}

void fp4moe_verbose_close(fp4moe_context *ctx) {
  if (ctx->verbose_fd > STDERR_FILENO) close(ctx->verbose_fd);
  ctx->verbose_fd = -1;
}

/* ---- The line ---- */

static const char *call_name(const fp4moe_call *c) {
  if (fp4moe_is_linear(&c->layer->desc)) return fp4moe_call_by_expert(c) ? "grouped" : "indexed";
  return fp4moe_call_by_expert(c) ? "experts" : c->routed ? "routed" : "forward";
}

static void add_problem(const fp4moe_call *c, fp4moe_text *t) {
  const fp4moe_layer_desc *d = &c->layer->desc;
  const char *format = fp4moe_format_name((int)d->format);
  fp4moe_text_add(t, "call=%s pid=%ld format=%s class=%s ", call_name(c), (long)getpid(), format,
                  fp4moe_class_name((int)c->plan->quant_class));
  if (fp4moe_is_linear(d))
    fp4moe_text_add(t, "n=%zu k=%zu", d->hidden, d->intermediate);
  else
    fp4moe_text_add(t, "hidden=%zu intermediate=%zu activation=%s gated=%d", d->hidden,
                    d->intermediate, fp4moe_activation_name(d->activation.kind),
                    d->activation.gated);
  fp4moe_text_add(t, " experts=%zu topk=%zu tokens=%zu", d->experts, c->batch.top_k,
                  c->batch.tokens);
}

static void find_used(const fp4moe_call *c, fp4moe_used *used) {
  *used = (fp4moe_used){.least = c->actives ? UINT32_MAX : 0};
  for (size_t i = 0; i < c->actives; i++) {
    const fp4moe_active *a = &c->active[i];
    if (a->total < used->least) used->least = a->total;
    if (a->total > used->most) used->most = a->total;
    for (int p = fp4moe_first_phase(&c->layer->desc); p < FP4MOE_PHASES; p++)
      used->recipe[p][a->recipe[p] == &c->plan->wide[p] ? FP4MOE_BUCKETS
                                                        : fp4moe_bucket(a->total)] = a->recipe[p];
  }
}

static void add_recipe(const fp4moe_call *c, int phase, int bucket, const fp4moe_recipe *r,
                       fp4moe_text *t) {
  size_t n, k;
  fp4moe_phase_shape(&c->layer->desc, phase, &n, &k);
  fp4moe_text_add(t, " %s(n=%zu,k=%zu,", fp4moe_phase_name(phase), n, k);
  if (bucket == FP4MOE_BUCKETS)
    fp4moe_text_add(t, "wide)=");
  else
    fp4moe_text_add(t, "m=%zu,source=%s)=", fp4moe_bucket_rows(bucket),
                    fp4moe_source_name((fp4moe_source)c->plan->source[phase][bucket]));
  if (r->gemv)
    fp4moe_text_add(t, "%s", r->gemv->name);
  else
    fp4moe_text_add(t, "%s+%s", r->unpack->name, r->gemm->name);
}

static void add_kernels(const fp4moe_call *c, const fp4moe_used *used, fp4moe_text *t) {
  const fp4moe_plan *p = c->plan;
  for (int phase = 0; phase < FP4MOE_PHASES; phase++)
    for (int b = 0; b <= FP4MOE_BUCKETS; b++)
      if (used->recipe[phase][b]) add_recipe(c, phase, b, used->recipe[phase][b], t);
  fp4moe_text_add(t, " quant=%s", p->quant->name);
  if (p->act) fp4moe_text_add(t, " act=%s", p->act->name);
  fp4moe_text_add(t, " combine=%s store=%s", p->combine->name, p->store->name);
}

static double us(uint64_t ns) { return (double)ns * 1e-3; }

static void add_times(const fp4moe_call *c, const fp4moe_stats *s, uint64_t ns, fp4moe_text *t) {
  fp4moe_text_add(t, " ms=%.3f", (double)ns * 1e-6);
  if (c->routed) fp4moe_text_add(t, " route_us=%.1f", us(c->route_ns));
  fp4moe_text_add(t,
                  " prepare_us=%.1f phase1_us=%.1f wait1_us=%.1f phase2_us=%.1f wait2_us=%.1f "
                  "gbytes_s=%.2f",
                  us(s->prepare_ns), us(s->phase1_ns), us(s->phase1_wait_ns), us(s->phase2_ns),
                  us(s->phase2_wait_ns), ns ? (double)s->weight_bytes / (double)ns : 0);
}

/* Cuts a line that is too long, visibly. */
static size_t end_line(fp4moe_text *t) {
  size_t most = t->cap - 2; /* a newline, or the final 0 and room for both */
  if (t->needed > most) memcpy(t->buf + most - 3, "...", 3);
  return t->needed > most ? most : t->needed;
}

void fp4moe_verbose_call(const fp4moe_call *c, const fp4moe_stats *stats, uint64_t ns) {
  static const char head[] = "fp4moe: ";
  const fp4moe_context *ctx = c->layer->ctx;
  char line[PIPE_BUF];
  fp4moe_text t = {line, sizeof line, 0};
  fp4moe_used used;
  find_used(c, &used);
  fp4moe_text_add(&t, "%s", head);
  add_problem(c, &t);
  fp4moe_text_add(&t, " active=%zu rows=%u..%u threads=%zu", c->actives, used.least, used.most,
                  c->workers);
  add_kernels(c, &used, &t);
  add_times(c, stats, ns, &t);
  fp4moe_text_add(&t, " replay=");
  fp4moe_replay_text(c, &used, &t);
  size_t n = end_line(&t);
  line[n] = '\n';
  ssize_t written = ctx->verbose_fd < 0 ? 0 : write(ctx->verbose_fd, line, n + 1);
  (void)written; /* a full disk is no failure of the call's */
  line[n] = 0;
  if (ctx->desc.log_calls) ctx->desc.log(ctx->desc.log_user, line + sizeof head - 1);
}
