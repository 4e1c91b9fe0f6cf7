/* faulty_main.c - a program between the calls of faults.c: what the linker puts before its main.
 *
 * FAULT="KIND ERROR AT" arms: the AT-th call of that kind fails with that errno, FAULT_ALWAYS each;
 * the errors "short" and "end" are a short transfer and the end of the file. jansson allocates as
 * kind json. At the end of the program, wherever that is, descriptor 3 gets one line: whether the
 * call was reached, and how many of its kind there were. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "faults.h"

static const struct {
  const char *name;
  int number;
} errors[] = {{"ENOMEM", ENOMEM}, {"EINTR", EINTR}, {"EIO", EIO},       {"ENOSPC", ENOSPC},
              {"EMFILE", EMFILE}, {"EROFS", EROFS}, {"EACCES", EACCES}, {"ENOLCK", ENOLCK},
              {"EAGAIN", EAGAIN}, {"short", 0},     {"end", FAULT_END}};

int __real_main(int argc, char **argv);
int __wrap_main(int argc, char **argv);

static pid_t self; /* children that the program forks say nothing */

static void tell(void) {
  if (getpid() == self && dprintf(3, "%d %ld\n", faulty.hit, faulty.calls) < 0) _exit(99);
}

static void *json_allocate(size_t n) { return faults_allocate(FAULT_JSON, 0, n); }

static void arm(const char *text) {
  char kind[16], error[16];
  long at;
  size_t k = 0, e = 0;
  if (sscanf(text, "%15s %15s %ld", kind, error, &at) != 3) _exit(98);
  while (k < FAULTS && strcmp(fault_names[k], kind) != 0) k++;
  while (e < sizeof errors / sizeof *errors && strcmp(errors[e].name, error) != 0) e++;
  if (k == FAULTS || e == sizeof errors / sizeof *errors) _exit(98);
  faults_arm((enum fault)k, errors[e].number, at);
}

int __wrap_main(int argc, char **argv) {
  self = getpid();
  if (!getenv("FAULT") || atexit(tell)) _exit(98);
  json_set_alloc_funcs(json_allocate, faults_free);
  arm(getenv("FAULT"));
  return __real_main(argc, argv);
}
