/* cli.c - failing, options, progress, JSON (cli.h). */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cli.h"
#include "pool.h"

const char *command_name = "fp4moe";

void die(const char *format, ...) {
  va_list args;
  progress_clear();
  fprintf(stderr, "%s: ", command_name);
  va_start(args, format);
  vfprintf(stderr, format, args);
  va_end(args);
  fputc('\n', stderr);
  exit(EXIT_ERROR);
}

void require(fp4moe_status status, const char *what) {
  if (status)
    die("%s%s%s: %s", what ? what : "", what ? ": " : "", fp4moe_status_name(status),
        fp4moe_error_detail());
}

void *allocate(size_t count, size_t size) {
  void *memory = calloc(count ? count : 1, size);
  if (!memory) die("no memory for %zu x %zu bytes", count, size);
  return memory;
}

void *allocate_workspace(size_t bytes) {
  const size_t page = (size_t)2 << 20, all = (bytes + page) / page * page;
  void *memory = aligned_alloc(page, all);
  if (!memory) die("no memory for a workspace of %zu bytes", bytes);
  madvise(memory, all, MADV_HUGEPAGE);
  return memory;
}

char *copy_text(const char *text) {
  char *copy = strdup(text);
  if (!copy) die("no memory for '%s'", text);
  return copy;
}

int next_option(int argc, char **argv, const struct option *options) {
  opterr = 0;
  int c = getopt_long(argc, argv, ":", options, NULL);
  if (c == ':') die("%s needs a value", argv[optind - 1]);
  if (c == '?' && strncmp(argv[optind - 1], "--", 2) != 0)
    die("unknown option -%c; see %s --help", optopt, command_name);
  if (c == '?')
    die("%s: unknown, or takes no value; see %s --help", argv[optind - 1], command_name);
  return c;
}

const char *last_argument(int argc, char **argv, const char *name) {
  if (optind >= argc) die("%s is missing; see %s --help", name, command_name);
  if (optind + 1 < argc) die("%s: not expected; see %s --help", argv[optind + 1], command_name);
  return argv[optind];
}

int finish_output(int status) {
  if (fflush(stdout) || ferror(stdout)) die("standard output: not all could be written");
  return status;
}

void print_usage(const char *text) {
  fputs(text, stdout);
  exit(finish_output(EXIT_SUCCESS));
}

static void log_line(void *user, const char *line) {
  (void)user;
  progress_clear();
  fprintf(stderr, "%s: %s\n", command_name, line);
}

fp4moe_context *open_context_of(fp4moe_context_desc desc) {
  fp4moe_context *context;
  desc.struct_size = sizeof desc;
  desc.log = log_line;
  require(fp4moe_context_create(&desc, &context), "context");
  return context;
}

fp4moe_context *open_context(size_t threads, const char *kernels) {
  return open_context_of((fp4moe_context_desc){.kernels = kernels, .max_threads = threads});
}

/* ---- Progress ---- */

static int shown; /* a line stands on the terminal */

void progress_at_once(const char *what, size_t done, size_t total) {
  if (!isatty(STDERR_FILENO)) return;
  shown = 1;
  fprintf(stderr, "\r\033[K%s: %zu of %zu", what, done, total);
}

/* As if what is left went as what is done. */
static void progress_left(uint64_t ns, size_t done, size_t total) {
  if (!shown || !done || done > total) return;
  fprintf(stderr, ", about %.0f s left", (double)ns * 1e-9 / (double)done * (double)(total - done));
}

void progress(const char *what, size_t done, size_t total) {
  enum { FIRST_NS = 2000000000, NEXT_NS = 200000000 };
  static const char *work;
  static uint64_t start, last;
  uint64_t now = fp4moe_now_ns();
  if (work != what) start = now;
  work = what;
  if (now - start < FIRST_NS || now - last < NEXT_NS) return;
  last = now;
  progress_at_once(what, done, total);
  progress_left(now - start, done, total);
}

void progress_clear(void) {
  if (shown) fputs("\r\033[K", stderr);
  shown = 0;
}

/* ---- JSON ---- */

static void keep(int failed) {
  if (failed) die("no memory for JSON");
}

void json_append(json_t *list, json_t *value) { keep(json_array_append_new(list, value)); }

void json_put(json_t *object, const char *name, json_t *value) {
  keep(json_object_set_new(object, name, value));
}

void json_merge(json_t *object, json_t *fields) { keep(json_object_update_new(object, fields)); }

void print_json(json_t *value) {
  keep(!value || json_dumpf(value, stdout, JSON_COMPACT | JSON_REAL_PRECISION(7)));
  putchar('\n');
  json_decref(value);
}

json_t *json_number(double x) { return isfinite(x) ? json_real(x) : json_null(); }

json_t *json_names(const char *names) {
  json_t *list = json_array();
  for (size_t n; *names; names += n + (names[n] == ',')) {
    n = strcspn(names, ",");
    json_append(list, json_stringn(names, n));
  }
  return list;
}
