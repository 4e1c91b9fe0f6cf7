/* faults.h - calls of libc that fail when a test wants them to.
 *
 * The linker puts the functions of faults.c between the library and libc (Makefile: WRAPPED). While
 * armed they count what is held and let the call with a given number fail; otherwise they pass
 * everything on. Only calls of our own objects are seen, and only one thread may make them while
 * armed: a forward call allocates nothing, so threads of a pool may run. */
#ifndef FP4MOE_FAULTS_H
#define FP4MOE_FAULTS_H

#include <stddef.h>

#include "fp4moe.h"

enum fault {
  FAULT_NO,
  FAULT_ALLOCATE,
  FAULT_JSON, /* an allocation of jansson, where the test gives it faults_json */
  FAULT_OPEN,
  FAULT_CREATE, /* an open that makes the file */
  FAULT_READ,
  FAULT_WRITE,
  FAULT_SYNC,
  FAULT_CLOSE,
  FAULT_RENAME,
  FAULT_LOCK,
  FAULT_THREAD,
  FAULTS
};

extern const char *const fault_names[FAULTS]; /* "no", "allocate", ... */

/* error: the errno of the fault; 0: a short transfer; FAULT_END: the end of the file. */
enum { FAULT_END = -1, FAULT_ALWAYS = -1 };

typedef struct faults {
  int armed, hit;
  enum fault fault;
  int error;
  long at, calls;   /* the call that fails, FAULT_ALWAYS: each; calls so far */
  int lasts;        /* set once armed: those after it fail too */
  long held, files; /* allocations and descriptors taken while armed and not given back */
} faults;
extern faults faulty;

/* What whoever reads a file must bear, and whoever replaces one: any call of that kind may fail.
 * OK: the call is made again. */
typedef struct fault_case {
  const char *what;
  enum fault fault;
  int error;
  fp4moe_status want;
} fault_case;
enum { READ_FAULTS = 6, WRITE_FAULTS = 8 };
extern const fault_case read_faults[READ_FAULTS], write_faults[WRITE_FAULTS];

void faults_arm(enum fault fault, int error, long at);
void faults_disarm(void);

/* An allocation that is counted and may fail, for allocators that a test gives away. */
void *faults_allocate(enum fault fault, size_t alignment, size_t bytes);
void faults_free(void *memory);

#endif
