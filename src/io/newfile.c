/* newfile.c - temporary file, fsync, rename, fsync of the directory (newfile.h). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/file.h"
#include "io/newfile.h"
#include "status.h"

static fp4moe_status write_fail(const struct io_newfile *file, int error) {
  return fp4moe_fail(FP4MOE_SYSTEM, "%s: write: %s", file->path, strerror(error));
}

/* A new file "path.tmp.<process>.<n>" with the permissions that any new file gets. */
fp4moe_status fp4moe_io_newfile_open(const char *path, struct io_newfile *file) {
  int error = ENOMEM;
  *file = (struct io_newfile){.fd = -1, .path = path};
  for (unsigned n = 0; n < 1000; n++) {
    if (asprintf(&file->temporary, "%s.tmp.%ld.%u", path, (long)getpid(), n) < 0)
      return fp4moe_fail(FP4MOE_NO_MEMORY, "%s: temporary file", path);
    file->fd = open(file->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (file->fd >= 0) return FP4MOE_OK;
    error = errno;
    free(file->temporary);
    if (error != EEXIST) break;
  }
  return fp4moe_fail(FP4MOE_SYSTEM, "%s: temporary file: %s", path, strerror(error));
}

fp4moe_status fp4moe_io_newfile_write(const struct io_newfile *file, uint64_t offset,
                                      const void *data, size_t bytes) {
  const char *from = data;
  while (bytes) {
    ssize_t put = pwrite(file->fd, from, bytes < (1u << 30) ? bytes : 1u << 30, (off_t)offset);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return write_fail(file, put < 0 ? errno : ENOSPC);
    from += put;
    offset += (uint64_t)put;
    bytes -= (size_t)put;
  }
  return FP4MOE_OK;
}

static void sync_parent(const char *path) {
  char *dir = fp4moe_io_path_parent(path);
  int fd = dir ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
  if (fd >= 0) {
    fsync(fd);
    close(fd);
  }
  free(dir);
}

fp4moe_status fp4moe_io_newfile_commit(struct io_newfile *file) {
  int error = fsync(file->fd) ? errno : 0;
  if (close(file->fd) && !error) error = errno;
  file->fd = -1;
  if (!error && rename(file->temporary, file->path)) error = errno;
  if (error) {
    fp4moe_io_newfile_abandon(file);
    return write_fail(file, error);
  }
  free(file->temporary);
  sync_parent(file->path);
  return FP4MOE_OK;
}

void fp4moe_io_newfile_abandon(struct io_newfile *file) {
  if (file->fd >= 0) close(file->fd);
  unlink(file->temporary);
  free(file->temporary);
}
