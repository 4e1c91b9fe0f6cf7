/* report_measure.c - benches as child processes (report_measure.h): each starts with a heap and a
 * pool of its own, as the program `fp4moe bench` does. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/problem.h"
#include "grid.h"
#include "report_measure.h"

enum { TRIES = 3, MAX_ARGS = 16, PATH_BYTES = 700 };

static _Noreturn void run_child(const char *path, int argc, char **argv) {
  if (!freopen(path, "w", stdout)) die("%s: %s", path, strerror(errno));
  command_name = "fp4moe bench";
  optind = 1;
  exit(command_bench(argc, argv));
}

/* The bench's exit status; its output goes to the file. */
static int run_bench(const char *path, int argc, char **argv) {
  int status = 0;
  fprintf(stderr, "%s: fp4moe", command_name);
  for (int i = 0; i < argc; i++) fprintf(stderr, " %s", argv[i]);
  fputc('\n', stderr);
  fflush(NULL);
  pid_t child = fork();
  if (child < 0) die("fork: %s", strerror(errno));
  if (!child) run_child(path, argc, argv);
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  return WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_ERROR;
}

static void take_lines(json_t *lines, const char *path) {
  char *line = NULL;
  size_t cap = 0;
  FILE *f = fopen(path, "re");
  while (f && getline(&line, &cap, f) > 0) {
    json_t *value = json_loads(line, 0, NULL);
    if (!value) die("%s: a line that is not JSON", path);
    json_append(lines, value);
  }
  if (f) fclose(f);
  free(line);
}

static void append_file(const char *from, const char *to) {
  char block[4096];
  FILE *in = fopen(from, "re"), *out = fopen(to, "ae");
  if (!in || !out) die("%s: %s", to, strerror(errno));
  for (size_t n; (n = fread(block, 1, sizeof block, in)) > 0;) fwrite(block, 1, n, out);
  fclose(in);
  if (fclose(out)) die("%s: %s", to, strerror(errno));
  unlink(from);
}

/* One bench, added to the file `name` of the directory. */
static void measure(report_wish *w, json_t *lines, const char *name, char **argv) {
  char file[PATH_BYTES], fresh[PATH_BYTES];
  int argc = 0, status = EXIT_CHECK;
  while (argv[argc]) argc++;
  snprintf(file, sizeof file, "%s/%s.jsonl", w->directory, name);
  snprintf(fresh, sizeof fresh, "%s/.lines", w->directory);
  for (int i = 0; i < TRIES && status == EXIT_CHECK; i++) status = run_bench(fresh, argc, argv);
  if (status == EXIT_ERROR) die("%s: a bench failed", name);
  if (status == EXIT_CHECK) {
    fprintf(stderr, "%s: left out: no figures of %s that can be believed: is the machine busy?\n",
            command_name, name);
    unlink(fresh);
    w->left_out++;
    return;
  }
  take_lines(lines, fresh);
  append_file(fresh, file);
}

static const int class_order[] = {FP4MOE_PRECISION_BF16, FP4MOE_PRECISION_INT8,
                                  FP4MOE_PRECISION_F32};

static void measure_layers(const fp4moe_context *ctx, report_wish *w, json_t *lines,
                           const preset *model) {
  const fp4moe_selector s = {&ctx->host, &ctx->request, NULL};
  for (size_t i = 0; i < sizeof class_order / sizeof *class_order; i++) {
    const int p = class_order[i];
    const problem wanted = {.shape = *model, .precision = (fp4moe_precision)p};
    const fp4moe_layer_desc desc = problem_desc(&wanted);
    char name[160], tokens[256];
    const char *class = word_of(precision_words, p);
    if (!(w->classes >> p & 1)) continue;
    if (!grid_has_choice(&s, &desc)) {
      fprintf(stderr, "%s: left out: %s %s: only C kernels serve it here\n", command_name,
              model->name, class);
      continue;
    }
    snprintf(name, sizeof name, "%s-%s", model->name, class);
    snprintf(tokens, sizeof tokens, "%s", w->tokens);
    char *argv[MAX_ARGS] = {
        "bench",    "--model", (char *)model->name, "--precision", (char *)class,
        "--tokens", tokens,    "--against",         "static",      "--json"};
    measure(w, lines, name, argv);
  }
}

static void measure_kernels(report_wish *w, json_t *lines, const preset *model) {
  for (int op = 0; op < FP4MOE_OPS; op++) {
    char name[160];
    char *argv[MAX_ARGS] = {
        "bench", "--op", (char *)fp4moe_op_name((fp4moe_op)op), "--model", (char *)model->name,
        "--json"};
    snprintf(name, sizeof name, "ops-%s", model->name);
    measure(w, lines, name, argv);
  }
}

/* Lines of an earlier report would come before those of this one. */
static void clear(const report_wish *w) {
  char path[PATH_BYTES];
  for (size_t m = 0; m < w->models; m++) {
    snprintf(path, sizeof path, "%s/ops-%s.jsonl", w->directory, w->model[m]->name);
    unlink(path);
    for (int p = 0; p <= FP4MOE_PRECISION_INT8; p++) {
      snprintf(path, sizeof path, "%s/%s-%s.jsonl", w->directory, w->model[m]->name,
               word_of(precision_words, p));
      unlink(path);
    }
  }
}

json_t *report_measure(const fp4moe_context *ctx, report_wish *w) {
  char only[PATH_BYTES];
  json_t *lines = json_array();
  clear(w);
  snprintf(only, sizeof only, "only:%s", w->table);
  setenv("FP4MOE_TABLE", only, 1); /* the children's */
  for (size_t i = 0; i < w->models; i++) measure_layers(ctx, w, lines, w->model[i]);
  for (size_t i = 0; i < w->models; i++) measure_kernels(w, lines, w->model[i]);
  return lines;
}
