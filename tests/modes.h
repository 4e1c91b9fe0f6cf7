/* modes.h - calls of the library from a caller whose floating-point mode is not the canonical one.
 *
 * A scene makes calls through IN_MODE and notes what they gave. It is played in the canonical mode
 * and then in every other one that a caller may have: each direction of rounding, with and without
 * flushing of subnormals, and with exceptions that trap. All must note the same bytes, and each
 * call must leave the mode as it was. */
#ifndef FP4MOE_MODES_H
#define FP4MOE_MODES_H

#include <stddef.h>
#include <stdint.h>

#include "check.h"
#include "cpu.h"

typedef struct scene_notes scene_notes;
typedef void scene_fn(const void *arg, scene_notes *notes);

void play_in_modes(const char *name, scene_fn *scene, const void *arg);

/* What a call gave, as bytes. */
void scene_note(scene_notes *notes, const void *data, size_t bytes);

/* A mode that a thread of the running scene may have: they differ from i to i. */
uint64_t scene_mode(size_t i);

/* The part of a mode that a call must keep: not the flags. */
uint64_t mode_without_flags(uint64_t mode);

/* A call that is to succeed, in the mode of thread 0. */
#define IN_MODE(call)                                                                              \
  do {                                                                                             \
    const uint64_t ours = fp4moe_fp_enter();                                                       \
    fp4moe_fp_leave(scene_mode(0));                                                                \
    const fp4moe_status got = (call);                                                              \
    const uint64_t left = fp4moe_fp_enter();                                                       \
    fp4moe_fp_leave(ours);                                                                         \
    CHECK(!got, "%s: %s", #call, fp4moe_error_detail());                                           \
    CHECK(mode_without_flags(left) == mode_without_flags(scene_mode(0)),                           \
          "%s: the caller's mode was %#llx and is %#llx", #call,                                   \
          (unsigned long long)scene_mode(0), (unsigned long long)left);                            \
  } while (0)

#endif
