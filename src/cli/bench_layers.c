/* bench_layers.c - what a bench keeps in memory (bench.h): as many layers as let weights come from
 * there, and fewer experts where it is too small. A second library has layers of its own, of the
 * same weights; the calls of both stream, so each keeps half as many. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "layer.h"
#include "layerfill.h"

double bench_operations(const problem *p, size_t tokens) {
  const preset *s = &p->shape;
  int matrices = problem_is_linear(p) ? 1 : s->activation.gated ? 3 : 2;
  return 2.0 * (double)routing_rows(p->routing, tokens, s->top_k) * matrices *
         (double)(s->hidden * s->intermediate);
}

size_t bench_record_bytes(const problem *p) {
  fp4moe_layer_desc desc = problem_desc(p);
  fp4moe_shape shape;
  fp4moe_shape_of(&desc, &shape);
  return shape.bytes;
}

/* Expected bytes of the distinct experts of a call. */
static double call_bytes(const problem *p, size_t tokens) {
  double experts = routing_experts(p->routing, tokens, p->shape.top_k, p->shape.experts);
  return experts * (double)bench_record_bytes(p);
}

/* Layers between two uses of one, but no more than a round has calls; of both libraries. */
static size_t layers_between(const bench *b) {
  const problem *p = &b->problem;
  double least = INFINITY;
  for (size_t i = 0; i < p->calls; i++) least = fmin(least, call_bytes(p, p->tokens[i]));
  size_t between = (size_t)ceil(4 * (double)b->host.llc_bytes / least);
  size_t samples = (p->calls + 1) * ((size_t)b->sides * p->layers + even_calls(p->routing));
  return between + 1 < samples ? between + 1 : samples;
}

/* The number after `name` in a file of lines "Name:  number ...", `missing` where there is none. */
static double number_in(const char *path, const char *name, double missing) {
  char line[128];
  size_t n = strlen(name);
  FILE *f = fopen(path, "re");
  double value = missing;
  while (f && fgets(line, sizeof line, f))
    if (!strncmp(line, name, n)) value = strtod(line + n, NULL);
  if (f) fclose(f);
  return value;
}

static double available_bytes(void) {
  return 1024 * number_in("/proc/meminfo", "MemAvailable:", INFINITY);
}

process_state bench_look_at_process(void) {
  return (process_state){1024 * number_in("/proc/self/status", "VmRSS:", NAN),
                         (long)number_in("/proc/self/status", "Threads:", 0)};
}

/* Fewer experts where the memory is too small for n layers, with a word about it. */
static void fit_memory(problem *p, size_t n) {
  double room = 0.85 * available_bytes(), each = (double)(n * bench_record_bytes(p));
  size_t all = p->shape.experts;
  if (each * (double)all <= room) return;
  p->shape.experts = (size_t)(room / each);
  if (p->shape.experts < p->shape.top_k)
    die("%s: %zu layers of %.1f GB do not fit the memory", p->name, n,
        (double)bench_record_bytes(p) * (double)all * 1e-9);
  size_t bytes = strlen(p->name);
  snprintf(p->name + bytes, sizeof p->name - bytes, " with %zu of %zu experts", p->shape.experts,
           all);
  fprintf(stderr, "%s: memory is too small for all experts: %s\n", command_name, p->name);
}

void bench_count_layers(bench *b) {
  size_t layers = b->problem.layers, n = layers_between(b);
  int rival = bench_has_rival(b);
  if (rival) n = (n + 1) / 2;
  b->own.count = n > layers ? n : layers;
  if (rival) b->of[AGAINST]->count = b->own.count;
  fit_memory(&b->problem, rival ? 2 * b->own.count + 1 : b->own.count);
}

static void make_layer(const problem *p, rotation *r, size_t i) {
  if (!r->layers) r->layers = allocate(r->count, sizeof *r->layers);
  r->layers[i] = random_layer_of(r->lib, r->context, p, i + 1);
}

void bench_make_layers(bench *b) {
  for (size_t i = 0; i < b->own.count; i++) {
    progress("packing random layers", i, b->own.count);
    make_layer(&b->problem, &b->own, i);
    if (bench_has_rival(b)) make_layer(&b->problem, b->of[AGAINST], i);
  }
}
