/* check_io.h - what the tests of files and of checkpoints share (check_io.c). */
#ifndef FP4MOE_CHECK_IO_H
#define FP4MOE_CHECK_IO_H

#include "check.h"
#include "fp4moe_io.h"
#include "layer_call.h"
#include "scratch.h"

#define MODEL_FILE "model.safetensors"

/* ---- The parts of suite "io", and the suites that come with it ---- */

void check_io_tensors(CU_pSuite suite);
void check_io_layers(CU_pSuite suite);
void check_io_config(CU_pSuite suite);
void check_io_families(CU_pSuite suite);
void check_io_gguf(CU_pSuite suite);
void check_io_gguf_headers(CU_pSuite suite);
void check_io_linear(CU_pSuite suite);
void check_io_slices(CU_pSuite suite);

void check_io_data(void);
void check_io_class(void);
void check_io_floats(void);
void check_io_packed(void);
void check_io_packed_refused(CU_pSuite suite);
void check_io_faults(void);
void check_io_modes(void);

/* ---- Checkpoints ---- */

/* Path of a file of tests/data/layers, valid until the next call. */
const char *io_data_path(const char *name);

/* NULL: failed, and the test with it. */
fp4moe_checkpoint *io_open_checkpoint(const char *path);
fp4moe_checkpoint *io_open_with(const char *path, int verify, int copy);

/* Loads layer 0 as it is described, in a context of its own, and destroys it. */
fp4moe_status io_load(const fp4moe_checkpoint *ckpt);

/* Packs a file of the data directory to scratch_at(name). */
void io_pack(const char *source, const char *name);

/* The one layer of the checkpoint, of this family, gives the bits of m (check_io_families.c). */
void io_same_layer(const random_layer *m, const char *path, const char *family);

int io_same_activation(const fp4moe_activation *a, const fp4moe_activation *b);

/* Fails unless the status is the wanted one and the text, one line, has these words. */
int io_says(fp4moe_status got, fp4moe_status want, const char *text, const char *words,
            const char *what);

int io_is_text(const char *path, const char *text); /* of a whole file; 0: there is none */

/* ---- A file in memory, to change and write again ---- */

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

/* Written as scratch_at(MODEL_FILE), and opened as a checkpoint. */
fp4moe_checkpoint *bundle_open(const bundle *m);

/* A file of the data directory, written again as scratch_at(MODEL_FILE). */
void bundle_copy(const char *name);

/* The first tensor whose name ends so; there must be one. */
fp4moe_tensor_data *bundle_find(bundle *m, const char *ending);

/* ---- Inputs and reference outputs, the .io files of the data directory ---- */

/* The call of a file, its rows repeated to `tokens` (0: as they are): x in BF16; y is the test's.
 * Freed by io_batch_free. */
fp4moe_batch io_batch(bundle *io, size_t tokens);
void io_batch_free(fp4moe_batch *b);

/* The most that a class may be off a reference in FP32, by rel_l2: f32, bf16, int8. */
extern const double io_bounds[3];

/* rel_l2 of y [tokens][H] off the reference, its rows repeated. */
double io_error(const fp4moe_tensor_data *reference, size_t tokens, const float *y);

#endif
