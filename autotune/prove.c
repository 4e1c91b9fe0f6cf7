/* prove.c - one child for many candidates (prove.h): it says which it begins and how each ended, so
 * that when it dies the parent knows of what, and starts another for the rest. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "prove.h"

/* Of the pipe, whole: shorter than PIPE_BUF. */
typedef struct message {
  size_t i;
  prove_verdict verdict;
} message;

static void run_child(int to, prove_check *check, void *arg, size_t first, size_t n) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  signal(SIGINT, SIG_IGN); /* the parent's to handle */
  for (size_t i = first; i < n; i++) {
    message m = {.i = i};
    m.verdict.ok = check(arg, i, m.verdict.reason);
    if (write(to, &m, sizeof m) != (ssize_t)sizeof m) break;
  }
  _exit(0);
}

/* 1: a message came. 0: the pipe's other end is gone. -1: nothing in time. */
static int receive(int from, int timeout_ms, message *m) {
  struct pollfd p = {from, POLLIN, 0};
  for (;;) {
    int ready = poll(&p, 1, timeout_ms);
    if (ready < 0 && errno == EINTR) continue;
    if (ready == 0) return -1;
    ssize_t got = read(from, m, sizeof *m);
    if (got < 0 && errno == EINTR) continue;
    return got == (ssize_t)sizeof *m;
  }
}

static void say_end(prove_verdict *v, int hung, int timeout_ms, int status) {
  v->ok = 0;
  if (hung)
    snprintf(v->reason, sizeof v->reason, "no answer within %d ms", timeout_ms);
  else if (WIFSIGNALED(status))
    snprintf(v->reason, sizeof v->reason, "killed by SIG%s", sigabbrev_np(WTERMSIG(status)));
  else
    snprintf(v->reason, sizeof v->reason, "ended the process with status %d", WEXITSTATUS(status));
}

/* Checks from `first` until all are done or one ends the child; returns the next to check. */
static size_t run_parent(int from, pid_t child, size_t first, size_t n, int timeout_ms,
                         prove_verdict *verdicts) {
  size_t next = first;
  int got = 1, status = 0;
  message m;
  while (next < n && (got = receive(from, timeout_ms, &m)) == 1 && m.i == next)
    verdicts[next++] = m.verdict;
  if (got < 0) kill(child, SIGKILL);
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  if (next < n) say_end(&verdicts[next++], got < 0, timeout_ms, status);
  return next;
}

int prove(prove_check *check, void *arg, size_t n, int timeout_ms, prove_verdict *verdicts) {
  for (size_t next = 0; next < n;) {
    int ends[2];
    if (pipe(ends)) return 0;
    fflush(NULL); /* or the child's copy of a buffer comes out twice */
    pid_t child = fork();
    if (child < 0) {
      int why = errno;
      close(ends[0]), close(ends[1]);
      errno = why;
      return 0;
    }
    if (!child) {
      close(ends[0]);
      run_child(ends[1], check, arg, next, n);
    }
    close(ends[1]);
    next = run_parent(ends[0], child, next, n, timeout_ms, verdicts);
    close(ends[0]);
  }
  return 1;
}
