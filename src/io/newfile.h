/* newfile.h - a file that appears whole or not at all.
 *
 * It grows under a name of its own beside the target (O_EXCL, so that nobody's file is
 * overwritten). commit makes it durable and moves it over the target; abandon removes it. One of
 * the two must follow a successful open. */
#ifndef FP4MOE_IO_NEWFILE_H
#define FP4MOE_IO_NEWFILE_H

#include "fp4moe.h"

struct io_newfile {
  int fd;
  const char *path; /* the target: the caller's */
  char *temporary;
};

/* SYSTEM: nothing is left behind. All errors name the target. */
fp4moe_status fp4moe_io_newfile_open(const char *path, struct io_newfile *file);

/* Writes at an offset; bytes that nothing was written to read as zero. */
fp4moe_status fp4moe_io_newfile_write(const struct io_newfile *file, uint64_t offset,
                                      const void *data, size_t bytes);

/* SYSTEM: the target is as before and the temporary file is gone. */
fp4moe_status fp4moe_io_newfile_commit(struct io_newfile *file);
void fp4moe_io_newfile_abandon(struct io_newfile *file);

#endif
