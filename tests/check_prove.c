/* check_prove.c - candidates that are wrong, fault, hang or exit are refused, each with its reason,
 * and the rest is checked all the same (prove.h). */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "prove.h"

enum { GOOD, WRONG, ILLEGAL, FAULT, HANGS, EXITS, KINDS };

static int behave(void *arg, size_t i, char reason[PROVE_REASON]) {
  const int *kind = arg;
  switch (kind[i]) {
  case GOOD:
    return 1;
  case ILLEGAL:
    signal(SIGILL, SIG_DFL);
    raise(SIGILL);
    break;
  case FAULT:
    signal(SIGSEGV, SIG_DFL);
    raise(SIGSEGV);
    break;
  case HANGS:
    for (;;) pause();
  case EXITS:
    _exit(3);
  default:
    snprintf(reason, PROVE_REASON, "rel_l2 3e-2 over 1e-3");
  }
  return 0;
}

static void test_verdicts(void) {
  static const char *const reasons[KINDS] = {"",
                                             "rel_l2 3e-2 over 1e-3",
                                             "killed by SIGILL",
                                             "killed by SIGSEGV",
                                             "no answer within 300 ms",
                                             "ended the process with status 3"};
  int kind[] = {GOOD, ILLEGAL, GOOD, HANGS, WRONG, FAULT, FAULT, GOOD, EXITS, GOOD};
  enum { N = sizeof kind / sizeof *kind };
  prove_verdict verdict[N];
  memset(verdict, 0xff, sizeof verdict);
  if (!CHECK(prove(behave, kind, N, 300, verdict), "no child could be made")) return;
  for (size_t i = 0; i < N; i++) {
    CHECK(verdict[i].ok == (kind[i] == GOOD), "candidate %zu: ok is %d", i, verdict[i].ok);
    CHECK(!strcmp(verdict[i].reason, reasons[kind[i]]), "candidate %zu: \"%s\"", i,
          verdict[i].reason);
  }
}

void check_prove(void) { check_test(check_suite("prove"), "verdicts", test_verdicts); }
