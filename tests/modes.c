/* modes.c - scenes in every floating-point mode (modes.h). */
#include "modes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct scene_notes {
  uint8_t *data;
  size_t used, room;
};

#if defined(__x86_64__)
enum { FLAGS = 0x3f, FLUSH = 0x8040, MASKS = 0x1f80, ROUND = 13 };
static const uint64_t modes[] = {MASKS,
                                 MASKS | FLUSH,
                                 MASKS | 1 << ROUND,
                                 MASKS | 2 << ROUND | FLUSH,
                                 MASKS | 3 << ROUND,
                                 0, /* all exceptions trap, inexact results too */
                                 3 << ROUND | FLUSH};
#else
enum { FLAGS = 0, FLUSH = 1 << 24, ROUND = 22 };
static const uint64_t modes[] = {0,          FLUSH,  1 << ROUND, 2 << ROUND | FLUSH,
                                 3 << ROUND, 1 << 25 /* one NaN for all */};
#endif
enum { MODES = sizeof modes / sizeof *modes };

static size_t now; /* of modes */

uint64_t scene_mode(size_t i) { return now ? modes[1 + (now - 1 + i) % (MODES - 1)] : modes[0]; }

uint64_t mode_without_flags(uint64_t mode) { return mode & ~(uint64_t)FLAGS; }

void scene_note(scene_notes *notes, const void *data, size_t bytes) {
  if (notes->used + bytes > notes->room) {
    notes->room = 2 * (notes->used + bytes);
    notes->data = realloc(notes->data, notes->room);
    if (!notes->data) abort();
  }
  memcpy(notes->data + notes->used, data, bytes);
  notes->used += bytes;
}

void play_in_modes(const char *name, scene_fn *scene, const void *arg) {
  scene_notes want = {0}, got = {0};
  char what[96];
  now = 0;
  scene(arg, &want);
  for (now = 1; now < MODES; now++) {
    got.used = 0;
    scene(arg, &got);
    snprintf(what, sizeof what, "%s, mode %#llx", name, (unsigned long long)modes[now]);
    if (CHECK(got.used == want.used, "%s: %zu bytes, expected %zu", what, got.used, want.used))
      CHECK_SAME(got.data, want.data, want.used / 4, 4, what);
  }
  now = 0;
  free(want.data);
  free(got.data);
}
