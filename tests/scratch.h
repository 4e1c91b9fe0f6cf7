/* scratch.h - a directory for the files of the running test, removed with all that is in it. */
#ifndef FP4MOE_SCRATCH_H
#define FP4MOE_SCRATCH_H

#include <stddef.h>

/* One at a time; its path, without a slash at the end. */
extern char scratch[64];
void scratch_open(void);
void scratch_close(void);

/* "<scratch>/<name>": one of eight buffers in turn. */
const char *scratch_at(const char *name);

/* How many files are in scratch_at(name); "": in the directory itself. */
size_t scratch_files(const char *name);

/* Replaces the file of that path. */
void scratch_put(const char *path, const void *data, size_t bytes);
void scratch_put_text(const char *path, const char *text);

/* The whole of any file, with a zero behind it; freed by the caller. */
char *scratch_read(const char *path, size_t *bytes);

#endif
