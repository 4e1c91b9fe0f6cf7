/* check_io_faults.c - every allocation and every system call of reading, packing and writing fails
 * once: an error that says so, nothing leaked, nothing torn.
 *
 * The linker puts the __wrap_ functions below between the library and libc (Makefile: WRAPPED).
 * Armed, they count what is held, and let the call with a given number fail; otherwise they pass
 * everything on. jansson allocates through the same counter. What it
 * tells of a failure is not always the truth (json.h). */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "check_io.h"

/* ---- Between the library and libc ---- */

enum fault { NO_FAULT, ALLOCATE, JSON, OPEN, READ, WRITE, SYNC, CLOSE, RENAME, FAULTS };

static struct {
  int armed, hit;
  enum fault fault;
  int error;      /* errno of the fault; 0: a short transfer; -1: the end of the file */
  long at, calls; /* the call that fails, -1: each; calls so far */
  long held;      /* allocations */
  long files;
} now;

static int fails(enum fault fault) {
  if (!now.armed || fault != now.fault) return 0;
  int hit = now.calls++ == now.at || now.at < 0;
  now.hit |= hit;
  if (hit && now.error > 0) errno = now.error;
  return hit;
}

static void *counted(void *memory) {
  if (now.armed) now.held += memory != NULL; /* else threads may be at it */
  return memory;
}

#define WRAP(type, name, ...)                                                                      \
  type __real_##name(__VA_ARGS__);                                                                 \
  type __wrap_##name(__VA_ARGS__);                                                                 \
  type __wrap_##name(__VA_ARGS__)

WRAP(void *, malloc, size_t n) { return fails(ALLOCATE) ? NULL : counted(__real_malloc(n)); }
WRAP(void *, calloc, size_t n, size_t size) {
  return fails(ALLOCATE) ? NULL : counted(__real_calloc(n, size));
}
WRAP(void *, realloc, void *old, size_t n) {
  void *memory = fails(ALLOCATE) ? NULL : __real_realloc(old, n);
  return old ? memory : counted(memory);
}
WRAP(void *, aligned_alloc, size_t alignment, size_t n) {
  return fails(ALLOCATE) ? NULL : counted(__real_aligned_alloc(alignment, n));
}
WRAP(char *, strdup, const char *text) {
  return fails(ALLOCATE) ? NULL : counted(__real_strdup(text));
}
WRAP(char *, strndup, const char *text, size_t n) {
  return fails(ALLOCATE) ? NULL : counted(__real_strndup(text, n));
}
WRAP(void, free, void *memory) {
  if (now.armed) now.held -= memory != NULL;
  __real_free(memory);
}
int __wrap_asprintf(char **text, const char *format, ...);
int __wrap_asprintf(char **text, const char *format, ...) {
  va_list args;
  if (fails(ALLOCATE)) return -1;
  va_start(args, format);
  int n = vasprintf(text, format, args);
  va_end(args);
  if (n >= 0) counted(*text);
  return n;
}
WRAP(void *, mmap, void *at, size_t n, int protection, int flags, int fd, off_t offset) {
  if (fails(ALLOCATE)) return errno = ENOMEM, MAP_FAILED;
  return __real_mmap(at, n, protection, flags, fd, offset);
}
int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...) {
  va_list args;
  va_start(args, flags);
  int mode = flags & O_CREAT ? va_arg(args, int) : 0;
  va_end(args);
  if (fails(OPEN)) return -1;
  int fd = __real_open(path, flags, mode);
  if (now.armed) now.files += fd >= 0;
  return fd;
}
WRAP(int, close, int fd) {
  int fault = fails(CLOSE), end = __real_close(fd);
  if (now.armed) now.files--;
  if (fault) errno = now.error;
  return fault ? -1 : end;
}
/* A transfer of n bytes that meets a fault: -1, 0, or fewer bytes. */
static ssize_t meets(size_t n) { return now.error > 0 ? -1 : now.error < 0 ? 0 : (ssize_t)(n / 2); }
WRAP(ssize_t, pread, int fd, void *to, size_t n, off_t offset) {
  if (!fails(READ) || n < 2) return __real_pread(fd, to, n, offset);
  return now.error ? meets(n) : __real_pread(fd, to, n / 2, offset);
}
WRAP(ssize_t, pwrite, int fd, const void *from, size_t n, off_t offset) {
  if (!fails(WRITE) || n < 2) return __real_pwrite(fd, from, n, offset);
  if (now.error != ENOSPC && now.error) return meets(n);
  ssize_t put = __real_pwrite(fd, from, n / 2, offset); /* a full disk takes the first half */
  errno = ENOSPC;
  return now.error ? -1 : put;
}
WRAP(int, fsync, int fd) { return fails(SYNC) ? -1 : __real_fsync(fd); }
WRAP(int, rename, const char *from, const char *to) {
  return fails(RENAME) ? -1 : __real_rename(from, to);
}

/* ---- What is done ---- */

static fp4moe_context *context;
static const char *source, *target; /* paths */

static fp4moe_status load(int copy) {
  const fp4moe_open_options options = {sizeof options, 1, copy};
  fp4moe_checkpoint *ckpt = NULL;
  fp4moe_layer *layer = NULL;
  fp4moe_status status = fp4moe_checkpoint_open_with(source, &options, &ckpt);
  if (status) return status;
  status = fp4moe_checkpoint_at(ckpt, 0)->status;
  if (!status) status = fp4moe_checkpoint_load_layer(ckpt, 0, context, NULL, &layer);
  fp4moe_layer_destroy(layer);
  fp4moe_checkpoint_close(ckpt);
  return status;
}

static fp4moe_status load_mapped(void) { return load(0); }
static fp4moe_status load_copied(void) { return load(1); }

static fp4moe_status pack(void) {
  fp4moe_checkpoint *ckpt = NULL;
  fp4moe_status status = fp4moe_checkpoint_open(source, &ckpt);
  if (!status) status = fp4moe_checkpoint_pack(ckpt, target, NULL);
  fp4moe_checkpoint_close(ckpt);
  return status;
}

static fp4moe_status write_tensors(void) {
  static const size_t shape[] = {1000};
  static const char data[1000];
  const fp4moe_tensor_data list[] = {{"a", "U8", 1, shape, data}, {"b", "U8", 1, shape, data}};
  return fp4moe_tensors_write(target, list, 2);
}

typedef fp4moe_status operation(void);

static fp4moe_status armed(operation *run, enum fault fault, int error, long at) {
  memset(&now, 0, sizeof now);
  now.fault = fault;
  now.error = error;
  now.at = at;
  now.armed = 1;
  fp4moe_status status = run();
  now.armed = 0;
  return status;
}

/* ---- What must hold ---- */

static int is_old(void) {
  char text[4] = "";
  FILE *file = fopen(target, "rb");
  size_t bytes = file ? fread(text, 1, sizeof text, file) : 0;
  if (file) fclose(file);
  return bytes == 3 && !memcmp(text, "old", 3);
}

static void check_end(const char *what, fp4moe_status status, fp4moe_status want) {
  const char *text = fp4moe_error_detail();
  CHECK(!status || status == want, "%s %ld: %s '%s'", what, now.at, fp4moe_status_name(status),
        text);
  CHECK(!status || (*text && !strchr(text, '\n')), "%s %ld: '%s'", what, now.at, text);
  CHECK(!now.held && !now.files, "%s %ld: %ld allocations and %ld files are left, %s '%s'", what,
        now.at, now.held, now.files, fp4moe_status_name(status), text);
  if (!target) return;
  CHECK(io_count_files() == 2, "%s %ld: %zu files", what, now.at, io_count_files());
  CHECK(is_old() == (status != 0), "%s %ld: the file is %s", what, now.at,
        is_old() ? "old" : "new");
}

/* Each call of this kind fails once, until none is left to fail. */
static void each(const char *what, operation *run, enum fault fault, int error,
                 fp4moe_status want) {
  long at = 0, failed = 0;
  for (now.hit = 1; now.hit && at < 3000; at++) {
    if (target) io_put_text(target, "old");
    fp4moe_status status = armed(run, fault, error, at);
    failed += status != 0;
    check_end(what, status, fault == JSON && status ? status : want);
    if (now.hit && want && (fault == READ || fault == WRITE || fault == RENAME))
      CHECK(status, "%s %ld: the fault went unseen", what, at);
  }
  CHECK(at > 1 && at < 3000 && !failed == !want, "%s: %ld calls, %ld failed", what, at - 1, failed);
}

static void *json_allocate(size_t n) { return fails(JSON) ? NULL : counted(__real_malloc(n)); }

static void begin(const char *layer, const char *name) {
  static char paths[2][160];
  io_scratch_open();
  json_set_alloc_funcs(json_allocate, __wrap_free);
  snprintf(paths[0], sizeof paths[0], "%s", io_data_path(layer));
  source = paths[0];
  if (name) snprintf(paths[1], sizeof paths[1], "%s", io_at(name));
  target = name ? paths[1] : NULL;
  if (name) io_put_text(io_at("bystander"), "x");
  CHECK(!fp4moe_context_create(NULL, &context), "%s", fp4moe_error_detail());
}

static void end(void) {
  fp4moe_context_destroy(context);
  json_set_alloc_funcs(malloc, free);
  io_scratch_close();
}

/* ---- Tests ---- */

static void read_faults(operation *run) {
  each("memory", run, ALLOCATE, ENOMEM, FP4MOE_NO_MEMORY);
  if (run != load_copied) each("JSON", run, JSON, ENOMEM, FP4MOE_NO_MEMORY);
  each("interrupted read", run, READ, EINTR, FP4MOE_OK);
  each("short read", run, READ, 0, FP4MOE_OK);
  each("EIO", run, READ, EIO, FP4MOE_SYSTEM);
  each("end of file", run, READ, -1, FP4MOE_INVALID);
  each("EMFILE", run, OPEN, EMFILE, FP4MOE_SYSTEM);
}

static void test_load(void) {
  begin("dsv4_mxfp4", NULL);
  read_faults(load_mapped);
  end();
  begin("llama4_nvfp4_modelopt", NULL);
  read_faults(load_mapped);
  end();
}

static void test_packed(void) {
  begin("dsv4_mxfp4", "p");
  CHECK(!pack(), "%s", fp4moe_error_detail());
  source = target;
  target = NULL;
  read_faults(load_copied);
  each("short read", load_mapped, READ, 0, FP4MOE_OK);
  each("EIO", load_mapped, READ, EIO, FP4MOE_SYSTEM);
  end();
}

static void write_faults(operation *run) {
  each("memory", run, ALLOCATE, ENOMEM, FP4MOE_NO_MEMORY);
  if (run != load_copied) each("JSON", run, JSON, ENOMEM, FP4MOE_NO_MEMORY);
  each("interrupted write", run, WRITE, EINTR, FP4MOE_OK);
  each("short write", run, WRITE, 0, FP4MOE_OK);
  each("ENOSPC", run, WRITE, ENOSPC, FP4MOE_SYSTEM);
  each("EIO", run, WRITE, EIO, FP4MOE_SYSTEM);
  each("fsync", run, SYNC, EIO, FP4MOE_SYSTEM);
  each("close", run, CLOSE, EIO, FP4MOE_SYSTEM);
  each("read-only directory", run, OPEN, EROFS, FP4MOE_SYSTEM);
  each("rename", run, RENAME, EACCES, FP4MOE_SYSTEM);
}

static void test_pack(void) {
  begin("dsv4_mxfp4", "p");
  write_faults(pack);
  end();
}

static void test_write(void) {
  begin("dsv4_mxfp4", "p");
  write_faults(write_tensors);
  end();
}

void check_io_faults(void) {
  CU_pSuite suite = check_suite("faults");
  check_test(suite, "load", test_load);
  check_test(suite, "load packed", test_packed);
  check_test(suite, "pack", test_pack);
  check_test(suite, "write", test_write);
}
