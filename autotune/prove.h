/* prove.h - checks candidates where they can do no harm: in a child process.
 *
 * A candidate that is wrong, faults or hangs costs its own place and gives its reason; the run goes
 * on. The child is a fork, so it has the caller's data and a thread pool of its own. */
#ifndef FP4MOE_PROVE_H
#define FP4MOE_PROVE_H

#include <stddef.h>

enum { PROVE_REASON = 120 };

typedef struct prove_verdict {
  int ok;
  char reason[PROVE_REASON]; /* of a refusal: "rel_l2 3e-2 over 1e-3", "killed by SIGILL", ... */
} prove_verdict;

/* 1: candidate i holds. 0: `reason` says what is wrong. Runs in the child. */
typedef int prove_check(void *arg, size_t i, char reason[PROVE_REASON]);

/* Checks candidates 0..n-1, each within timeout_ms. 0: no child could be made, and nothing is
 * proven; errno is fork's or pipe's. */
int prove(prove_check *check, void *arg, size_t n, int timeout_ms, prove_verdict *verdicts);

#endif
