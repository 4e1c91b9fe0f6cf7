/* check_verbose.c - the line per call: what it says of every kind of call, where it goes, and that
 * it changes nothing. That its replay runs is in check_profile.sh. */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "layer_fixture.h"
#include "scratch.h"
#include "team.h"

/* ---- Lines by the callback ---- */

static struct {
  char line[4][4096];
  size_t count;
} heard;

static void hear(void *user, const char *line) {
  (void)user;
  if (heard.count < 4) snprintf(heard.line[heard.count], sizeof heard.line[0], "%s", line);
  heard.count++;
}

static fp4moe_context *logging(const char *kernels, int log_calls, int batch_invariant) {
  memset(&heard, 0, sizeof heard);
  return context_with((fp4moe_context_desc){.max_threads = 3,
                                            .kernels = kernels,
                                            .log = hear,
                                            .log_calls = log_calls,
                                            .batch_invariant = batch_invariant});
}

/* The only line since the last look has the part. */
static void says(const char *part) {
  CHECK(heard.count == 1 && strstr(heard.line[0], part), "%zu lines, \"%s\" not in: %s",
        heard.count, part, heard.line[0]);
}

static fp4moe_layer_desc desc_of(const class_word *w) {
  fp4moe_layer_desc d = class_desc(w, 64, 96, 5);
  d.activation = (fp4moe_activation){FP4MOE_SWIGLU_OAI, 1, 1.702f, 1, 7, 0};
  return d;
}

/* A layer of a class; free both. */
static fp4moe_layer *open_class(fp4moe_context *ctx, const class_word *w, random_layer **m) {
  fp4moe_layer_desc d = desc_of(w);
  *m = random_layer_new(&d, 1, NULL);
  return layer_of(*m, ctx);
}

static void call_once(fp4moe_layer *layer, size_t tokens, size_t threads) {
  problem p = draw(&layer->desc, tokens, 2, 0);
  fp4moe_batch b = batch_of(&p);
  b.threads = threads;
  CHECK(!run(layer, &b), "%s", fp4moe_error_detail());
  drop(&p);
}

static void every_class(void) {
  static const char *const formats[] = {"mxfp4", "nvfp4"};
  static const char *const classes[] = {"f32", "bf16", "int8", "mxfp8", "nvfp4"};
  static const char *const globals[] = {"layer", "expert", "token"};
  for (int i = 0; i < CLASS_WORDS; i++) {
    const class_word *w = &class_words[i];
    char part[256];
    random_layer *m;
    fp4moe_context *ctx = logging(NULL, 1, 0);
    fp4moe_layer *layer = open_class(ctx, w, &m);
    call_once(layer, 3, 2);
    snprintf(part, sizeof part,
             "format=%s class=%s hidden=64 intermediate=96 activation=swiglu_oai gated=1 experts=5 "
             "topk=2 tokens=3 active=",
             formats[w->format], classes[w->precision]);
    says(part);
    snprintf(
        part, sizeof part,
        " fp4moe bench --hidden 64 --intermediate 96 --activation swiglu_oai --alpha 1.70200002 "
        "--beta 1 --limit 7 --experts 5 --topk 2 --format %s --biases --precision %s%s%s "
        "--tokens 3 --threads 2 --kernel fp4moe_quant_%s_",
        formats[w->format], classes[w->precision],
        w->precision == FP4MOE_PRECISION_NVFP4 ? " --input-global " : "",
        w->precision == FP4MOE_PRECISION_NVFP4 ? globals[w->input_global] : "",
        w->precision == FP4MOE_PRECISION_INT8 ? "i8" : classes[w->precision]);
    says(part);
    says(" threads=2 gate_up(n=192,k=64,m=");
    says(" down(n=64,k=96,m=");
    says(",source=static)=fp4moe_gemv_");
    says(" wait2_us=");
    fp4moe_layer_destroy(layer);
    fp4moe_context_destroy(ctx);
    random_layer_free(m);
  }
}

/* Forced kernels, an order of summation, rows enough for the other kind of recipe, no rows. */
static void choices(void) {
  random_layer *m;
  fp4moe_context *ctx = logging("fp4moe_gemm_bf16_8x16_c", 1, 1);
  fp4moe_layer *layer = open_class(ctx, &class_words[CLASS_BF16_MX], &m);
  call_once(layer, 100, 0);
  says(",m=64,source=forced)=fp4moe_unpack_mx_bf16_");
  says(" --threads 3 --batch-invariant --kernel ");
  says(",fp4moe_gemm_bf16_8x16_c");
  memset(&heard, 0, sizeof heard);
  call_once(layer, 0, 0);
  says(" tokens=0 active=0 rows=0..0 threads=3 quant=");
  memset(&heard, 0, sizeof heard);
  problem p = draw(&m->desc, 1, 2, 0);
  fp4moe_batch b = batch_of(&p);
  p.ids[1] = 5;
  CHECK(run(layer, &b) == FP4MOE_INVALID && !heard.count, "a call that failed has %zu lines",
        heard.count);
  drop(&p);
  fp4moe_layer_destroy(layer);
  fp4moe_context_destroy(ctx);
  random_layer_free(m);
}

/* The static order's choices for 20 rows of two experts and 40 of a third, which are of both kinds
 * where 17 to 32 rows go by a gemv: all of them are forced in the replay. */
static void replayed_kernels(void) {
  random_layer *m;
  fp4moe_context *ctx = logging(NULL, 1, 0);
  fp4moe_layer *layer = open_class(ctx, &class_words[CLASS_INT8_NV], &m);
  problem p = draw(&m->desc, 40, 2, 0);
  fp4moe_batch b = batch_of(&p);
  for (size_t i = 0; i < 80; i++) p.ids[i] = i % 2 ? 0 : i < 40 ? 1 : 2;
  CHECK(!run(layer, &b), "%s", fp4moe_error_detail());
  says(" rows=20..40 ");
  const char *replay = strstr(heard.line[0], " --kernel "), *at = heard.line[0];
  size_t names = 0;
  for (; replay && (at = strstr(at, "source=static)=")) && at < replay; names++) {
    char name[128];
    at += strlen("source=static)=");
    snprintf(name, sizeof name, "%.*s", (int)strcspn(at, " +"), at);
    CHECK(strstr(replay, name), "%s is not in the replay of: %s", name, heard.line[0]);
  }
  CHECK(names == 4, "%zu choices in: %s", names, heard.line[0]); /* two phases, 32 and 64 rows */
  drop(&p);
  fp4moe_layer_destroy(layer);
  fp4moe_context_destroy(ctx);
  random_layer_free(m);
}

/* ---- Every kind of call ---- */

static void through_router(fp4moe_layer *layer, void *workspace, size_t bytes) {
  float logits[5] = {1, 2, 3, 4, 5}, x[64] = {1}, y[64], weights[2];
  int32_t ids[2];
  fp4moe_router router;
  fp4moe_routing io = {.struct_size = sizeof io,
                       .tokens = 1,
                       .logits = logits,
                       .topk_ids = ids,
                       .ids_dtype = FP4MOE_I32,
                       .topk_weights = weights};
  fp4moe_batch b = {.struct_size = sizeof b, .x = x, .y = y};
  CHECK(!fp4moe_router_preset("gpt-oss", 5, 2, &router) &&
            !fp4moe_layer_forward_routed(layer, &router, &io, &b, workspace, bytes),
        "%s", fp4moe_error_detail());
}

static void through_experts(fp4moe_layer *layer, void *workspace, size_t bytes) {
  float x[2 * 64] = {1}, y[2 * 64];
  int64_t offsets[6] = {0, 1, 1, 2, 2, 2};
  fp4moe_rows in = {.struct_size = sizeof in, .rows = 2, .data = x, .expert_offsets = offsets};
  fp4moe_rows out = {.struct_size = sizeof out, .rows = 2, .data = y};
  CHECK(!fp4moe_experts(layer, &in, &out, NULL, workspace, bytes), "%s", fp4moe_error_detail());
}

static void layer_calls(void) {
  static char workspace[2 << 20];
  random_layer *m;
  fp4moe_context *ctx = logging(NULL, 1, 0);
  fp4moe_layer *layer = open_class(ctx, &class_words[CLASS_F32_MX], &m);
  through_router(layer, workspace, sizeof workspace);
  says("call=routed pid=");
  says(" topk=2 tokens=1 active=2 rows=1..1 ");
  says(" route_us=");
  memset(&heard, 0, sizeof heard);
  through_experts(layer, workspace, sizeof workspace);
  says("call=experts pid=");
  says(" topk=1 tokens=2 active=2 rows=1..1 ");
  fp4moe_layer_destroy(layer);
  fp4moe_context_destroy(ctx);
  random_layer_free(m);
}

static void linear_calls(void) {
  static char workspace[2 << 20];
  const fp4moe_linear_desc d = {.n = 40, .k = 96, .experts = 2};
  static const uint8_t codes[40 * 48], scales[40 * 3];
  const fp4moe_projection zeros = {.codes = codes, .scales = scales, .global = 1};
  float x[2 * 96] = {1}, y[4 * 40];
  int32_t ids[4] = {0, 1, 1, 0};
  int64_t offsets[3] = {0, 2, 2};
  fp4moe_context *ctx = logging(NULL, 1, 0);
  fp4moe_linear *linear = linear_of(ctx, d, (fp4moe_projection[]){zeros, zeros});
  fp4moe_rows in = {.struct_size = sizeof in, .rows = 2, .data = x, .expert_offsets = offsets};
  fp4moe_rows out = {.struct_size = sizeof out, .rows = 2, .data = y};
  fp4moe_indexed call = {sizeof call, 2,          2, x, FP4MOE_F32, 1,          0, 0,
                         y,           FP4MOE_F32, 0, 0, ids,        FP4MOE_I32, 0, 0};
  fp4moe_status status =
      fp4moe_matmul_grouped(linear, &in, &out, NULL, workspace, sizeof workspace);
  CHECK(!status, "%s", fp4moe_error_detail());
  says("call=grouped pid=");
  says(" n=40 k=96 experts=2 topk=1 tokens=2 active=1 rows=2..2 ");
  says(
      " fp4moe bench --linear 40,96 --experts 2 --topk 1 --format mxfp4 --precision f32 --tokens 2 ");
  memset(&heard, 0, sizeof heard);
  status = fp4moe_matmul_indexed(linear, &call, NULL, workspace, sizeof workspace);
  CHECK(!status, "%s", fp4moe_error_detail());
  says("call=indexed pid=");
  says(" threads=3 down(n=40,k=96,m=2,source=static)=fp4moe_gemv_mx_f32_");
  fp4moe_linear_destroy(linear);
  fp4moe_context_destroy(ctx);
}

/* A team of two: one line, by thread 0. */
static void teams(void) {
  static char workspace[2 << 20];
  random_layer *m;
  fp4moe_context *ctx = logging(NULL, 1, 0);
  fp4moe_layer *layer = open_class(ctx, &class_words[CLASS_F32_MX], &m);
  problem p = draw(&m->desc, 4, 2, 0);
  forward_call call = {layer, batch_of(&p), workspace, sizeof workspace};
  team_run(2, forward_in_team, &call, FP4MOE_OK);
  says(" tokens=4 active=");
  says(" threads=2 ");
  drop(&p);
  fp4moe_layer_destroy(layer);
  fp4moe_context_destroy(ctx);
  random_layer_free(m);
}

static void silence_and_bits(void) {
  fp4moe_layer_desc d = desc_of(&class_words[CLASS_BF16_MX]);
  random_layer *m = random_layer_new(&d, 1, NULL);
  problem p = draw(&m->desc, 7, 2, 0);
  const fp4moe_batch b = batch_of(&p);
  float *quiet = NULL;
  for (int log_calls = 0; log_calls < 2; log_calls++) {
    fp4moe_context *ctx = logging(NULL, log_calls, 0);
    fp4moe_layer *layer = layer_of(m, ctx);
    if (log_calls)
      gives(layer, &b, quiet, "y with a line");
    else
      quiet = outputs(layer, &b);
    CHECK(heard.count == (size_t)log_calls, "%zu lines with log_calls %d", heard.count, log_calls);
    fp4moe_layer_destroy(layer);
    fp4moe_context_destroy(ctx);
  }
  free(quiet);
  drop(&p);
  random_layer_free(m);
}

/* ---- Lines by FP4MOE_VERBOSE ---- */

static void refusals(void) {
  fp4moe_context *ctx = NULL;
  fp4moe_context_desc d = {.struct_size = sizeof d, .log_calls = 1};
  REFUSED(fp4moe_context_create(&d, &ctx), FP4MOE_INVALID, "log_calls is 1, and log is NULL");
  setenv("FP4MOE_VERBOSE", "yes", 1);
  REFUSED(fp4moe_context_create(NULL, &ctx), FP4MOE_INVALID, "FP4MOE_VERBOSE is \"yes\"");
  setenv("FP4MOE_VERBOSE", "/nonexistent/lines", 1);
  REFUSED(fp4moe_context_create(NULL, &ctx), FP4MOE_SYSTEM,
          "FP4MOE_VERBOSE: /nonexistent/lines: No such file");
  unsetenv("FP4MOE_VERBOSE");
  setenv("FP4MOE_VERBOS", "1", 1);
  REFUSED(fp4moe_context_create(NULL, &ctx), FP4MOE_INVALID, "the nearest is FP4MOE_VERBOSE");
  unsetenv("FP4MOE_VERBOS");
}

enum { THREADS = 4, CALLS = 20 };

static void *many_calls(void *layer) {
  static _Thread_local char workspace[1 << 19];
  float x[64] = {1}, y[64], weights[2] = {0.5f, 0.5f};
  int32_t ids[2] = {0, 3};
  const problem p = {1, 2, 64, x, y, weights, ids};
  fp4moe_batch b = batch_of(&p);
  b.threads = 1;
  for (int i = 0; i < CALLS; i++)
    if (fp4moe_layer_forward(layer, &b, workspace, sizeof workspace)) return layer;
  return NULL;
}

/* Whole lines in a file, up to the first that is not. */
static size_t whole_lines(const char *path) {
  static char line[8192];
  FILE *f = fopen(path, "re");
  size_t n = 0;
  int whole = f != NULL;
  for (; whole && fgets(line, sizeof line, f); n += (size_t)whole) {
    const char *replay = strstr(line, " replay=FP4MOE_TABLE=");
    whole = !strncmp(line, "fp4moe: call=forward pid=", 25) && replay && strchr(replay, '\n') &&
            !strstr(line + 1, "fp4moe: ");
    CHECK(whole, "line %zu: %.300s", n, line);
  }
  if (f) fclose(f);
  return n;
}

/* Threads, and the child of a fork, write into one file. */
static void one_file(void) {
  random_layer *m;
  pthread_t thread[THREADS];
  size_t want = (THREADS + 1) * CALLS;
  scratch_open();
  const char *path = scratch_at("lines");
  setenv("FP4MOE_VERBOSE", path, 1);
  fp4moe_context *ctx = logging(NULL, 0, 0);
  unsetenv("FP4MOE_VERBOSE");
  fp4moe_layer *layer = open_class(ctx, &class_words[CLASS_F32_MX], &m);
  pid_t child = check_cannot_fork("lines of the child of a fork") ? -1 : fork();
  if (!child) _exit(many_calls(layer) != NULL);
  for (int i = 0; i < THREADS; i++) pthread_create(&thread[i], NULL, many_calls, layer);
  for (int i = 0; i < THREADS; i++) pthread_join(thread[i], NULL);
  int status = 0;
  if (child > 0) waitpid(child, &status, 0);
  size_t lines = whole_lines(path);
  CHECK(!status && lines == want - (child < 0 ? CALLS : 0), "%zu lines, status %d", lines, status);
  CHECK(!heard.count, "the callback heard %zu lines", heard.count);
  fp4moe_layer_destroy(layer);
  fp4moe_context_destroy(ctx);
  random_layer_free(m);
  scratch_close();
}

/* Packets that are a whole line each. */
static size_t whole_packets(int socket) {
  static char line[8192];
  size_t packets = 0;
  for (ssize_t n; (n = recv(socket, line, sizeof line, MSG_DONTWAIT)) > 0; packets++)
    CHECK(!strncmp(line, "fp4moe: call=forward ", 21) &&
              memchr(line, '\n', (size_t)n) == line + n - 1,
          "packet %zu: %.*s", packets, (int)n, line);
  return packets;
}

/* 1: stderr, one write for a line; 0: nothing. */
static void standard_error(void) {
  for (int on = 0; on < 2; on++) {
    random_layer *m;
    int ends[2], old = dup(STDERR_FILENO);
    CHECK(!socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), "no sockets");
    setenv("FP4MOE_VERBOSE", on ? "1" : "0", 1);
    fp4moe_context *ctx = logging(NULL, 0, 0);
    unsetenv("FP4MOE_VERBOSE");
    fp4moe_layer *layer = open_class(ctx, &class_words[CLASS_F32_MX], &m);
    dup2(ends[0], STDERR_FILENO);
    void *failed = many_calls(layer);
    dup2(old, STDERR_FILENO);
    fp4moe_layer_destroy(layer);
    fp4moe_context_destroy(ctx); /* stderr stays open */
    size_t packets = whole_packets(ends[1]);
    CHECK(!failed && packets == (on ? CALLS : 0) && fcntl(STDERR_FILENO, F_GETFD) >= 0,
          "FP4MOE_VERBOSE=%d: %zu lines", on, packets);
    for (int i = 0; i < 2; i++) close(ends[i]);
    close(old);
    random_layer_free(m);
  }
}

void check_verbose(void) {
  CU_pSuite suite = check_suite("verbose");
  check_test(suite, "a line in every class", every_class);
  check_test(suite, "a line's choices", choices);
  check_test(suite, "a line's replay", replayed_kernels);
  check_test(suite, "a line of every call of a layer", layer_calls);
  check_test(suite, "a line of every call of a linear", linear_calls);
  check_test(suite, "a team's line", teams);
  check_test(suite, "lines move no bits", silence_and_bits);
  check_test(suite, "FP4MOE_VERBOSE refused", refusals);
  check_test(suite, "lines of threads and processes", one_file);
  check_test(suite, "lines to stderr", standard_error);
}
