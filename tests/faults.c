/* faults.c - between the library and libc (faults.h). */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <unistd.h>

#include "faults.h"

faults faulty;

const char *const fault_names[FAULTS] = {"no",     "allocate", "json",  "open",
                                         "create", "read",     "write", "sync",
                                         "close",  "rename",   "lock",  "thread"};

const fault_case read_faults[READ_FAULTS] = {
    {"memory", FAULT_ALLOCATE, ENOMEM, FP4MOE_NO_MEMORY},
    {"interrupted read", FAULT_READ, EINTR, FP4MOE_OK},
    {"short read", FAULT_READ, 0, FP4MOE_OK},
    {"read", FAULT_READ, EIO, FP4MOE_SYSTEM},
    {"end of file", FAULT_READ, FAULT_END, FP4MOE_INVALID},
    {"open", FAULT_OPEN, EMFILE, FP4MOE_SYSTEM},
};

const fault_case write_faults[WRITE_FAULTS] = {
    {"memory", FAULT_ALLOCATE, ENOMEM, FP4MOE_NO_MEMORY},
    {"interrupted write", FAULT_WRITE, EINTR, FP4MOE_OK},
    {"short write", FAULT_WRITE, 0, FP4MOE_OK},
    {"full disk", FAULT_WRITE, ENOSPC, FP4MOE_SYSTEM},
    {"write", FAULT_WRITE, EIO, FP4MOE_SYSTEM},
    {"fsync", FAULT_SYNC, EIO, FP4MOE_SYSTEM},
    {"rename", FAULT_RENAME, EACCES, FP4MOE_SYSTEM},
    {"read-only directory", FAULT_OPEN, EROFS, FP4MOE_SYSTEM},
};

void faults_arm(enum fault fault, int error, long at) {
  faulty = (faults){.armed = 1, .fault = fault, .error = error, .at = at};
}

void faults_disarm(void) { faulty.armed = 0; }

static int fails(enum fault fault) {
  if (!faulty.armed || fault != faulty.fault) return 0;
  const long call = __atomic_fetch_add(&faulty.calls, 1, __ATOMIC_RELAXED);
  const int hit = call == faulty.at || faulty.at < 0 || (faulty.lasts && call > faulty.at);
  if (hit) faulty.hit = 1;
  if (hit && faulty.error > 0) errno = faulty.error;
  return hit;
}

static void *counted(void *memory) {
  if (faulty.armed) faulty.held += memory != NULL; /* else threads may be at it */
  return memory;
}

#define WRAP(type, name, ...)                                                                      \
  type __real_##name(__VA_ARGS__);                                                                 \
  type __wrap_##name(__VA_ARGS__);                                                                 \
  type __wrap_##name(__VA_ARGS__)

/* ---- Memory ---- */

WRAP(void *, malloc, size_t n) { return fails(FAULT_ALLOCATE) ? NULL : counted(__real_malloc(n)); }
WRAP(void *, calloc, size_t n, size_t size) {
  return fails(FAULT_ALLOCATE) ? NULL : counted(__real_calloc(n, size));
}
WRAP(void *, realloc, void *old, size_t n) {
  void *memory = fails(FAULT_ALLOCATE) ? NULL : __real_realloc(old, n);
  return old ? memory : counted(memory);
}
WRAP(void *, aligned_alloc, size_t alignment, size_t n) {
  return fails(FAULT_ALLOCATE) ? NULL : counted(__real_aligned_alloc(alignment, n));
}
WRAP(char *, strdup, const char *text) {
  return fails(FAULT_ALLOCATE) ? NULL : counted(__real_strdup(text));
}
WRAP(char *, strndup, const char *text, size_t n) {
  return fails(FAULT_ALLOCATE) ? NULL : counted(__real_strndup(text, n));
}
WRAP(void, free, void *memory) {
  if (faulty.armed) faulty.held -= memory != NULL;
  __real_free(memory);
}
int __wrap_asprintf(char **text, const char *format, ...);
int __wrap_asprintf(char **text, const char *format, ...) {
  va_list args;
  if (fails(FAULT_ALLOCATE)) return -1;
  va_start(args, format);
  int n = vasprintf(text, format, args);
  va_end(args);
  if (n >= 0) counted(*text);
  return n;
}
WRAP(void *, mmap, void *at, size_t n, int protection, int flags, int fd, off_t offset) {
  if (fails(FAULT_ALLOCATE)) return errno = ENOMEM, MAP_FAILED;
  return __real_mmap(at, n, protection, flags, fd, offset);
}

void *faults_allocate(enum fault fault, size_t alignment, size_t bytes) {
  if (fails(fault)) return NULL;
  return counted(alignment ? __real_aligned_alloc(alignment, bytes) : __real_malloc(bytes));
}

void faults_free(void *memory) { __wrap_free(memory); }

/* ---- Files ---- */

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...) {
  va_list args;
  va_start(args, flags);
  int mode = flags & O_CREAT ? va_arg(args, int) : 0;
  va_end(args);
  if (fails(FAULT_OPEN) || (flags & O_CREAT && fails(FAULT_CREATE))) return -1;
  int fd = __real_open(path, flags, mode);
  if (faulty.armed) faulty.files += fd >= 0;
  return fd;
}
WRAP(int, close, int fd) {
  int fault = fails(FAULT_CLOSE), end = __real_close(fd);
  if (faulty.armed) faulty.files--;
  if (fault) errno = faulty.error;
  return fault ? -1 : end;
}
/* A transfer of n bytes that meets a fault: -1, 0, or fewer bytes. */
static ssize_t meets(size_t n) {
  return faulty.error > 0 ? -1 : faulty.error < 0 ? 0 : (ssize_t)(n / 2);
}
WRAP(ssize_t, pread, int fd, void *to, size_t n, off_t offset) {
  if (!fails(FAULT_READ) || n < 2) return __real_pread(fd, to, n, offset);
  return faulty.error ? meets(n) : __real_pread(fd, to, n / 2, offset);
}
WRAP(ssize_t, pwrite, int fd, const void *from, size_t n, off_t offset) {
  if (!fails(FAULT_WRITE) || n < 2) return __real_pwrite(fd, from, n, offset);
  if (faulty.error != ENOSPC && faulty.error) return meets(n);
  ssize_t put = __real_pwrite(fd, from, n / 2, offset); /* a full disk takes the first half */
  errno = ENOSPC;
  return faulty.error ? -1 : put;
}
WRAP(int, fsync, int fd) { return fails(FAULT_SYNC) ? -1 : __real_fsync(fd); }
WRAP(int, rename, const char *from, const char *to) {
  return fails(FAULT_RENAME) ? -1 : __real_rename(from, to);
}
WRAP(int, flock, int fd, int how) { return fails(FAULT_LOCK) ? -1 : __real_flock(fd, how); }

/* ---- Threads ---- */

WRAP(int, pthread_create, pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
     void *arg) {
  if (fails(FAULT_THREAD)) return EAGAIN;
  return __real_pthread_create(thread, attributes, run, arg);
}
