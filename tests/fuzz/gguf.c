/* gguf.c - fuzz target: one GGUF file as a checkpoint. The magic is not for the fuzzer to find. */
#include <string.h>

#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static uint8_t file[1 << 20];
  fuzz_status = FP4MOE_OK;
  if (size < 4 || size > sizeof file) return 0;
  memcpy(file, data, size);
  memcpy(file, "GGUF", 4);
  fuzz_checkpoint(fuzz_file(file, size), NULL);
  return 0;
}
