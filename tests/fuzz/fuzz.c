/* fuzz.c - a file in memory, and a checkpoint looked at from all sides (fuzz.h). */
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

fp4moe_status fuzz_status;

fp4moe_status fuzz_met(fp4moe_status status) {
  const char *text = fp4moe_error_detail();
  if (status && (!*text || strchr(text, '\n'))) abort();
  if (!fuzz_status) fuzz_status = status;
  return status;
}

static int number = -1;

int fuzz_file_number(void) { return number; }

const char *fuzz_file(const void *data, size_t bytes) {
  static char path[64];
  if (number < 0) number = memfd_create("fuzz", MFD_CLOEXEC);
  if (number < 0 || ftruncate(number, 0) || pwrite(number, data, bytes, 0) != (ssize_t)bytes)
    abort();
  snprintf(path, sizeof path, "/proc/self/fd/%d", number);
  return path;
}

static void read_ends(const fp4moe_tensors *set) {
  char byte;
  const fp4moe_tensor *t;
  for (size_t i = 0; (t = fp4moe_tensors_at(set, i)); i++) {
    if (fp4moe_tensors_find(set, t->name) != t) abort();
    if (!t->bytes) continue;
    fuzz_met(fp4moe_tensors_read(set, t, 0, 1, &byte));
    fuzz_met(fp4moe_tensors_read(set, t, t->bytes - 1, 1, &byte));
    if (!fp4moe_tensors_read(set, t, t->bytes, 1, &byte)) abort();
  }
}

static fp4moe_context *context(void) {
  static fp4moe_context *shared;
  const fp4moe_context_desc desc = {.struct_size = sizeof desc, .max_threads = 1, .no_pin = 1};
  setenv("FP4MOE_TABLE", "none", 1);
  if (!shared && fp4moe_context_create(&desc, &shared)) abort();
  return shared;
}

void fuzz_checkpoint(const char *path, const fp4moe_open_options *options) {
  fp4moe_checkpoint *checkpoint = NULL;
  if (fuzz_met(fp4moe_checkpoint_open_with(path, options, &checkpoint))) return;
  read_ends(fp4moe_checkpoint_tensors(checkpoint));
  const fp4moe_checkpoint_layer *l;
  for (size_t i = 0; (l = fp4moe_checkpoint_at(checkpoint, i)); i++) {
    fp4moe_layer *layer = NULL;
    fuzz_met(l->status);
    if (l->desc.experts > 64 || l->bytes > 1 << 20) continue;
    if (!fuzz_met(fp4moe_checkpoint_load_layer(checkpoint, i, context(), NULL, &layer)) &&
        !fp4moe_layer_bytes(layer))
      abort();
    fp4moe_layer_destroy(layer);
  }
  fp4moe_checkpoint_close(checkpoint);
}
