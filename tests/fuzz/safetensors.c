/* safetensors.c - fuzz target: one .safetensors file as a checkpoint. */
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  fuzz_status = FP4MOE_OK;
  fuzz_checkpoint(fuzz_file(data, size), NULL);
  return 0;
}
