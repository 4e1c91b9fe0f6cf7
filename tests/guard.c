/* guard.c - buffers against the wall (check.h): [guard page][canary, data or data, canary][guard
 * page].
 *
 * Data touches the guard page of its side, so a kernel that reads or writes beyond that end faults;
 * what it writes beyond the other end is seen when the buffers are freed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#if __has_include(<valgrind/memcheck.h>)
#include <valgrind/memcheck.h>
#else
#define VALGRIND_MAKE_MEM_UNDEFINED(at, bytes) ((void)(at), (void)(bytes))
#endif

#include "check.h"

enum { CANARY = 0xa5, MAX_BUFFERS = 256 };

typedef struct buffer {
  uint8_t *map, *data;
  size_t mapped, bytes;
} buffer;

static buffer buffers[MAX_BUFFERS];
static size_t buffer_count;

static void die(const char *what) {
  perror(what);
  exit(2);
}

void *check_buffer(size_t bytes, int side) {
  const size_t page = (size_t)sysconf(_SC_PAGESIZE), inner = (bytes + page - 1) / page * page;
  if (buffer_count == MAX_BUFFERS) die("too many buffers");
  buffer *b = &buffers[buffer_count++];
  b->mapped = inner + 2 * page;
  b->map = mmap(NULL, b->mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (b->map == MAP_FAILED) die("mmap");
  if (inner && mprotect(b->map + page, inner, PROT_READ | PROT_WRITE)) die("mprotect");
  b->bytes = bytes;
  b->data = b->map + page + (side == CHECK_AFTER ? inner - bytes : 0);
  memset(b->map + page, CANARY, inner);
  memset(b->data, 0xff, bytes);
  return b->data;
}

/* Undefined under memcheck: has the call written what it reads? */
void *rubbish(size_t bytes) {
  void *data = memset(check_buffer(bytes, CHECK_AFTER), 0xa5, bytes);
  (void)VALGRIND_MAKE_MEM_UNDEFINED(data, bytes);
  return data;
}

void check_readonly(const void *data) {
  const size_t page = (size_t)sysconf(_SC_PAGESIZE);
  for (size_t i = 0; i < buffer_count; i++) {
    buffer *b = &buffers[i];
    if (b->data == data && b->bytes && mprotect(b->map + page, b->mapped - 2 * page, PROT_READ))
      die("mprotect");
  }
}

void check_release(const char *file, int line) {
  const size_t page = (size_t)sysconf(_SC_PAGESIZE);
  for (size_t i = 0; i < buffer_count; i++) {
    buffer *b = &buffers[i];
    for (const uint8_t *p = b->map + page; p < b->map + b->mapped - page; p++) {
      if (p == b->data) p += b->bytes;
      if (p == b->map + b->mapped - page) break;
      if (*p != CANARY) {
        check_fail(file, line, "canary of buffer %zu: offset %td of %zu bytes was written", i,
                   p - b->data, b->bytes);
        break;
      }
    }
    munmap(b->map, b->mapped);
  }
  buffer_count = 0;
}
