/* file.h - regular files read by position.
 *
 * Reads go through pread into the caller's memory, never a map: a file that shrinks is an error
 * here and not a SIGBUS. The size is taken once, at open; all bounds are tested against it. */
#ifndef FP4MOE_IO_FILE_H
#define FP4MOE_IO_FILE_H

#include "fp4moe.h"

struct io_file {
  int fd;
  uint64_t bytes;
  char *path;
};

/* SYSTEM: cannot be opened, or is no regular file (never blocks on a pipe). *file is closed then.
 */
fp4moe_status fp4moe_io_file_open(const char *path, struct io_file *file);
void fp4moe_io_file_close(struct io_file *file);

/* All of [offset, offset + bytes), or an error that names the file and both ends. */
fp4moe_status fp4moe_io_file_read(const struct io_file *file, uint64_t offset, size_t bytes,
                                  void *dst);

/* The whole file in new memory; INVALID above cap bytes. Free with free(). */
fp4moe_status fp4moe_io_file_text(const char *path, size_t cap, char **text, size_t *bytes);

int fp4moe_io_is_directory(const char *path);
int fp4moe_io_exists(const char *path);

/* "dir/name" in new memory; NULL: no memory (fp4moe_fail was called). */
char *fp4moe_io_path_join(const char *dir, const char *name);

/* The directory part of path ("." where it has none), likewise. */
char *fp4moe_io_path_parent(const char *path);

#endif
