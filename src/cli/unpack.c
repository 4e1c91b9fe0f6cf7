/* unpack.c - `fp4moe unpack`: an FP4 tensor of a checkpoint as floats, in a file of its own. To
 * look at weights, or to give them to a program that knows no FP4. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"
#include "fp4moe_io.h"
#include "io/floats.h"

static const char usage[] =
    "usage: fp4moe unpack CHECKPOINT --tensor NAME --output F.safetensors [--dtype f32|bf16]\n"
    "\n"
    "Writes the weights of an FP4 tensor of CHECKPOINT (.safetensors, GGUF or a model directory),\n"
    "of an expert or any other layer: code x block scale x global, whose tensors are found by name.\n"
    "Axes stay as stored: fused experts that are transposed or interleaved come out so.\n"
    "\n"
    "  --tensor NAME   the tensor of the codes: *.weight, *.weight_packed, *_blocks, *gate_up_proj\n"
    "  --output FILE   the file to write, with one tensor\n"
    "  --dtype D       f32 (default) or bf16: the exact product, rounded once to nearest even\n"
    "  --help          this text\n";

typedef struct unpack_options {
  const char *path, *tensor, *output;
  fp4moe_dtype dtype;
} unpack_options;

static fp4moe_dtype parse_dtype(const char *text) {
  if (!strcmp(text, "f32")) return FP4MOE_F32;
  if (!strcmp(text, "bf16")) return FP4MOE_BF16;
  die("--dtype %s: not one of f32 bf16", text);
}

static unpack_options parse(int argc, char **argv) {
  enum { TENSOR, OUTPUT, DTYPE, HELP };
  static const struct option options[] = {{"tensor", required_argument, NULL, TENSOR},
                                          {"output", required_argument, NULL, OUTPUT},
                                          {"dtype", required_argument, NULL, DTYPE},
                                          {"help", no_argument, NULL, HELP},
                                          {0}};
  unpack_options o = {.dtype = FP4MOE_F32};
  for (int c; (c = next_option(argc, argv, options)) >= 0;) {
    if (c == HELP) print_usage(usage);
    if (c == TENSOR) o.tensor = optarg;
    if (c == OUTPUT) o.output = optarg;
    if (c == DTYPE) o.dtype = parse_dtype(optarg);
  }
  o.path = last_argument(argc, argv, "CHECKPOINT");
  if (!o.tensor) die("--tensor is missing; see %s --help", command_name);
  if (!o.output) die("--output is missing; see %s --help", command_name);
  return o;
}

static void report(const struct io_fp4 *f, const fp4moe_tensor_data *data, const char *output) {
  printf("%s: %s, scales %s%s%s\n", f->codes->name, word_of(format_words, (int)f->format),
         f->scales ? f->scales->name : "in its blocks", f->global ? ", global " : "",
         f->global ? f->global->name : "");
  printf("%s: %s %s [", output, data->name, data->dtype);
  for (size_t i = 0; i < data->rank; i++) printf("%s%zu", i ? "," : "", data->shape[i]);
  printf("]\n");
}

int command_unpack(int argc, char **argv) {
  unpack_options o = parse(argc, argv);
  fp4moe_tensors *tensors;
  struct io_fp4 found;
  require(fp4moe_tensors_open(o.path, &tensors), NULL);
  if (!fp4moe_tensors_find(tensors, o.tensor)) die("%s: no tensor %s", o.path, o.tensor);
  require(fp4moe_io_fp4_find(tensors, o.tensor, &found), NULL);
  void *floats = allocate(fp4moe_io_fp4_count(&found), o.dtype == FP4MOE_BF16 ? 2 : 4);
  require(fp4moe_io_fp4_read(tensors, &found, o.dtype, floats), NULL);
  fp4moe_tensor_data data = {.name = found.name,
                             .dtype = o.dtype == FP4MOE_BF16 ? "BF16" : "F32",
                             .rank = found.rank,
                             .shape = found.shape,
                             .data = floats};
  require(fp4moe_tensors_write(o.output, &data, 1), NULL);
  report(&found, &data, o.output);
  free(floats);
  fp4moe_io_fp4_release(&found);
  fp4moe_tensors_close(tensors);
  return 0;
}
