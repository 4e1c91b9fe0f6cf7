/* library.h - the public functions that a bench calls: this program's own, and those of another
 * library file (`fp4moe bench --against FILE.so`), another build or version of libfp4moe.so.
 *
 * Everything that both do goes through such a table, so that both do the same. Handles of the other
 * library belong to it and are never looked into; it has threads and memory of its own, and of a
 * struct it reads what struct_size says. */
#ifndef FP4MOE_LIBRARY_H
#define FP4MOE_LIBRARY_H

#include "cli.h"

#define LIBRARY_FUNCTIONS(F)                                                                       \
  F(status_name)                                                                                   \
  F(error_detail)                                                                                  \
  F(context_create)                                                                                \
  F(context_destroy)                                                                               \
  F(context_threads)                                                                               \
  F(layer_begin)                                                                                   \
  F(layer_set_expert)                                                                              \
  F(layer_finish)                                                                                  \
  F(layer_destroy)                                                                                 \
  F(workspace_bytes)                                                                               \
  F(layer_forward)                                                                                 \
  F(linear_begin)                                                                                  \
  F(linear_set_expert)                                                                             \
  F(linear_finish)                                                                                 \
  F(linear_destroy)                                                                                \
  F(linear_workspace_bytes)                                                                        \
  F(matmul_indexed)

#define LIBRARY_MEMBER(name) __typeof__(fp4moe_##name) *name;
typedef struct library {
  const char *path; /* as the user wrote it; NULL: this program's own */
  LIBRARY_FUNCTIONS(LIBRARY_MEMBER)
} library;
#undef LIBRARY_MEMBER

extern const library own_library;

/* Is this --against a file? It has a / or ends in .so. */
int library_is_file(const char *against);

/* Loads a library file, for good. Dies where it is none, or lacks a function of this interface. */
library library_open(const char *path);

/* As require, of a call of this library, on the thread that made it. */
void library_require(const library *l, fp4moe_status status, const char *what);

#endif
