/* fuzz.h - what the fuzz targets share (fuzz.c).
 *
 * tests/fuzz/<name>.c is one target: LLVMFuzzerTestOneInput over one format, through the calls that
 * a program makes. `make fuzz` links each with libFuzzer and the sanitizers; `make check` links the
 * same files with replay.c and goes over tests/fuzz/corpus/<name>. seeds.py makes the seeds; an
 * input that crashed joins them as any-<what>. */
#ifndef FP4MOE_FUZZ_H
#define FP4MOE_FUZZ_H

#include "fp4moe_io.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The worst that the last input met: what a seed's name is judged by. */
extern fp4moe_status fuzz_status;

/* Aborts where a failure left no one-line text. Keeps the first failure in fuzz_status. */
fp4moe_status fuzz_met(fp4moe_status status);

/* A file of these bytes, without a place in any directory; its path, valid until the next call. */
const char *fuzz_file(const void *data, size_t bytes);
int fuzz_file_number(void); /* its descriptor */

/* Opens the file as a checkpoint, reads the ends of each tensor, loads what is not large. */
void fuzz_checkpoint(const char *path, const fp4moe_open_options *options);

#endif
