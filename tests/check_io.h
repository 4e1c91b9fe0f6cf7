/* check_io.h - what the tests of files and of checkpoints share (check_io.c). */
#ifndef FP4MOE_CHECK_IO_H
#define FP4MOE_CHECK_IO_H

#include "check.h"
#include "fp4moe_io.h"
#include "random_layer.h"

#define MODEL_FILE "model.safetensors"

/* The other half of suite "io": layers, config.json, loading. */
void check_io_layers(CU_pSuite suite);

/* Families written by the tests (check_io_families.c). */
void check_io_families(CU_pSuite suite);

/* The one layer of the checkpoint, of this family, gives the bits of m. */
void io_same_layer(const random_layer *m, const char *path, const char *family);

/* GGUF files (check_io_gguf.c). */
void check_io_gguf(CU_pSuite suite);

/* Dense matrices (check_io_linear.c). */
void check_io_linear(CU_pSuite suite);

/* One rank of several (check_io_slices.c). */
void check_io_slices(CU_pSuite suite);

/* Suite "data" (check_io_data.c). */
void check_io_data(void);

/* Suite "data classes" (check_io_class.c). */
void check_io_class(void);

/* Suite "floats" (check_io_floats.c). */
void check_io_floats(void);

/* Suite "packed" (check_io_packed.c). */
void check_io_packed(void);

/* Suite "faults" (check_io_faults.c). */
void check_io_faults(void);

/* Suite "modes of loaders" (check_io_modes.c). */
void check_io_modes(void);

/* A directory for the running test, made and removed with all that is in it. */
extern char io_scratch[64];
void io_scratch_open(void);
void io_scratch_close(void);

/* "<io_scratch>/<name>": one of four buffers in turn. */
const char *io_at(const char *name);
size_t io_count_files(void); /* in the directory */
void io_put_text(const char *path, const char *text);

/* Fails unless the status is the wanted one and the text, one line, has these words. */
int io_says(fp4moe_status got, fp4moe_status want, const char *text, const char *words,
            const char *what);

/* A GGUF file of a layer of 3 experts, in NVFP4 with globals. */
void io_put_gguf(const char *path);
/* Its up projection alone, in MXFP4, as the matrix `name`. */
void io_put_gguf_matrix(const char *path, const random_layer *m, const char *name);

/* Path of a file of tests/data/layers, valid until the next call. */
const char *io_data_path(const char *name);
fp4moe_checkpoint *io_open_checkpoint(const char *path); /* NULL: failed, and the test with it */

/* A file in memory, to change and write again. */
enum { BUNDLE_TENSORS = 128, BUNDLE_KEPT = 4 * BUNDLE_TENSORS };
typedef struct bundle {
  fp4moe_tensor_data list[BUNDLE_TENSORS];
  size_t n;
  void *kept[BUNDLE_KEPT]; /* memory behind the list as it was read */
  size_t kept_count;
} bundle;

void bundle_read(bundle *m, const char *path);
void bundle_write(const bundle *m, const char *path);
void bundle_free(bundle *m);

/* The first tensor whose name ends so; there must be one. */
fp4moe_tensor_data *bundle_find(bundle *m, const char *ending);

#endif
