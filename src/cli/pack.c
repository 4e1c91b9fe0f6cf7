/* pack.c - `fp4moe pack`: all FP4 layers of a checkpoint into one packed file, which `run` and the
 * library then map instead of packing again. Layers that are not FP4 are named and left out. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"
#include "fp4moe_io.h"

static const char usage[] =
    "usage: fp4moe pack CHECKPOINT --output DIR [--rank R --ranks N]\n"
    "\n"
    "Packs the FP4 MoE layers of CHECKPOINT (a .safetensors or GGUF file or a model directory) once,\n"
    "into DIR/" FP4MOE_PACKED_FILE ". DIR is then a checkpoint for the other commands and for\n"
    "fp4moe_checkpoint_open: its layers are mapped and used in place, shared by all processes.\n"
    "The file appears whole or not at all. One expert is in memory at a time.\n"
    "\n"
    "  --output DIR         made if it is not there\n"
    "  --rank R --ranks N   only what rank R of N has of the intermediate size\n"
    "  --help               this text\n";

typedef struct request {
  const char *path, *output;
  fp4moe_slice slice;
} request;

static request parse(int argc, char **argv) {
  enum { OUTPUT, RANK, RANKS, HELP };
  static const struct option options[] = {{"output", required_argument, NULL, OUTPUT},
                                          {"rank", required_argument, NULL, RANK},
                                          {"ranks", required_argument, NULL, RANKS},
                                          {"help", no_argument, NULL, HELP},
                                          {0}};
  request r = {0};
  slice_options words = {0};
  const char **const texts[] = {[OUTPUT] = &r.output, [RANK] = &words.rank, [RANKS] = &words.ranks};
  for (int c; (c = next_option(argc, argv, options)) >= 0;) {
    if (c == HELP) print_usage(usage);
    *texts[c] = optarg;
  }
  if (words.rank || words.ranks) words.split = "intermediate";
  r.path = last_argument(argc, argv, "CHECKPOINT");
  r.slice = parse_slice(&words);
  if (!r.output) die("--output is missing; see %s --help", command_name);
  return r;
}

static void show(void *user, size_t done, size_t total) {
  (void)user;
  progress("experts", done, total);
}

static void name_skipped(const fp4moe_checkpoint *checkpoint) {
  for (size_t i = 0; i < fp4moe_checkpoint_layers(checkpoint); i++) {
    const fp4moe_checkpoint_layer *l = fp4moe_checkpoint_at(checkpoint, i);
    if (l->status && !l->fp4) printf("layer %zu: left out: %s\n", l->layer, l->reason);
  }
}

/* The file as it was written, opened again: what is said here is what it says. */
static void report(const char *file) {
  fp4moe_checkpoint *packed;
  fp4moe_packed_info info;
  require(fp4moe_checkpoint_open(file, &packed), NULL);
  fp4moe_checkpoint_packed(packed, &info);
  printf("%s: %zu layers, %.3f MB, identity %016llx\n", file, fp4moe_checkpoint_layers(packed),
         (double)info.bytes * 1e-6, (unsigned long long)info.identity);
  fp4moe_checkpoint_close(packed);
}

/* Whether the directory was made. One that holds tensors would be two checkpoints at once. */
static int make_directory(const char *dir) {
  static const char *const others[] = {"model.safetensors", "model.safetensors.index.json"};
  if (!mkdir(dir, 0777)) return 1;
  if (errno != EEXIST) die("%s: %s", dir, strerror(errno));
  for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
    char path[4096];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", dir, others[i]);
    if (!stat(path, &st)) die("%s: has %s: choose a directory of its own", dir, others[i]);
  }
  return 0;
}

int command_pack(int argc, char **argv) {
  const request r = parse(argc, argv);
  const char *path = r.path, *output = r.output;
  const fp4moe_pack_options options = {
      .struct_size = sizeof options, .progress = show, .slice = &r.slice};
  char file[4096];
  fp4moe_checkpoint *checkpoint;
  if (snprintf(file, sizeof file, "%s/" FP4MOE_PACKED_FILE, output) >= (int)sizeof file)
    die("--output: the path is too long");
  require(fp4moe_checkpoint_open(path, &checkpoint), NULL);
  int made = make_directory(output);
  fp4moe_status status = fp4moe_checkpoint_pack(checkpoint, file, &options);
  if (status && made) rmdir(output);
  require(status, NULL);
  progress_clear();
  name_skipped(checkpoint);
  fp4moe_checkpoint_close(checkpoint);
  report(file);
  return 0;
}
