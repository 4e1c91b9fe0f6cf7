/* file.c - regular files read by position (see file.h). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/file.h"
#include "status.h"

/* Linux transfers at most 0x7ffff000 bytes a call; stay below it. */
static const size_t most_per_call = (size_t)1 << 30;

static fp4moe_status system_fail(const char *path, const char *what) {
  return fp4moe_fail(FP4MOE_SYSTEM, "%s: %s: %s", path, what, strerror(errno));
}

fp4moe_status fp4moe_io_file_open(const char *path, struct io_file *file) {
  struct stat st;
  *file = (struct io_file){.fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (file->fd < 0) return system_fail(path, "open");
  fp4moe_status status = FP4MOE_OK;
  if (fstat(file->fd, &st) != 0)
    status = system_fail(path, "stat");
  else if (!S_ISREG(st.st_mode))
    status = fp4moe_fail(FP4MOE_SYSTEM, "%s: not a regular file", path);
  else if (!(file->path = strdup(path)))
    status = fp4moe_fail(FP4MOE_NO_MEMORY, "%s: path", path);
  if (status != FP4MOE_OK)
    fp4moe_io_file_close(file);
  else
    file->bytes = (uint64_t)st.st_size;
  return status;
}

void fp4moe_io_file_close(struct io_file *file) {
  if (file->fd >= 0) close(file->fd);
  free(file->path);
  *file = (struct io_file){.fd = -1};
}

fp4moe_status fp4moe_io_file_read(const struct io_file *file, uint64_t offset, size_t bytes,
                                  void *dst) {
  if (offset > file->bytes || bytes > file->bytes - offset)
    return fp4moe_fail(FP4MOE_INVALID, "%s: %zu bytes wanted at %llu, but the file has %llu",
                       file->path, bytes, (unsigned long long)offset,
                       (unsigned long long)file->bytes);
  char *to = dst;
  while (bytes) {
    ssize_t got = pread(file->fd, to, bytes < most_per_call ? bytes : most_per_call, (off_t)offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return system_fail(file->path, "read");
    if (got == 0)
      return fp4moe_fail(FP4MOE_INVALID, "%s: ends at byte %llu, had %llu bytes when opened",
                         file->path, (unsigned long long)offset, (unsigned long long)file->bytes);
    to += got;
    offset += (uint64_t)got;
    bytes -= (size_t)got;
  }
  return FP4MOE_OK;
}

fp4moe_status fp4moe_io_file_text(const char *path, size_t cap, char **text, size_t *bytes) {
  struct io_file file;
  fp4moe_status status = fp4moe_io_file_open(path, &file);
  if (status != FP4MOE_OK) return status;
  char *memory = NULL;
  if (file.bytes > cap)
    status = fp4moe_fail(FP4MOE_INVALID, "%s: %llu bytes, at most %zu are read", path,
                         (unsigned long long)file.bytes, cap);
  else if (!(memory = malloc((size_t)file.bytes + 1)))
    status = fp4moe_fail(FP4MOE_NO_MEMORY, "%s: %llu bytes", path, (unsigned long long)file.bytes);
  else
    status = fp4moe_io_file_read(&file, 0, (size_t)file.bytes, memory);
  *bytes = (size_t)file.bytes;
  fp4moe_io_file_close(&file);
  if (status != FP4MOE_OK) {
    free(memory);
    return status;
  }
  *text = memory;
  return FP4MOE_OK;
}

int fp4moe_io_is_directory(const char *path) {
  struct stat st;
  return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* Anything but a plain "no such file" counts as there: opening it then tells what is wrong. */
int fp4moe_io_exists(const char *path) {
  struct stat st;
  return stat(path, &st) == 0 || (errno != ENOENT && errno != ENOTDIR);
}

char *fp4moe_io_path_join(const char *dir, const char *name) {
  char *path;
  if (asprintf(&path, "%s/%s", dir, name) >= 0) return path;
  fp4moe_fail(FP4MOE_NO_MEMORY, "%s/%s: path", dir, name);
  return NULL;
}

char *fp4moe_io_path_parent(const char *path) {
  const char *slash = strrchr(path, '/');
  char *dir = !slash          ? strdup(".")
              : slash == path ? strdup("/")
                              : strndup(path, (size_t)(slash - path));
  if (!dir) fp4moe_fail(FP4MOE_NO_MEMORY, "%s: path", path);
  return dir;
}
