/* check.c - the program build/check: runs every suite, counts, and the harness of check.h.
 *
 *   check [SEED] [-f GLOB]...   a GLOB matches a test's, kernel's (fp4moe_ may be left out) or
 *                               suite's name
 *
 * The first line is the seed. The last line of stdout is `N passed, N failed, N skipped`; exit
 * status 1 if one failed. Each test is one, a kernel row in a test is one, a skipped name is one.
 */
#include "check.h"

#include <fnmatch.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cpu.h"
#include "watch.h"

enum { MAX_TESTS = 4096, MAX_SKIPS = 512, MAX_SAID = 5, MAX_GLOBS = 16 };

typedef struct row_test {
  CU_pTest test;
  check_row_fn *run;
  const fp4moe_kernel *row;
} row_test;

static row_test row_tests[MAX_TESTS];
static size_t row_test_count;
static struct { char *name, *why; } skips[MAX_SKIPS];
static size_t skip_count, passed, failed, suite_failed;
static uint64_t seed;
static const char *globs[MAX_GLOBS];
static size_t glob_count;

/* The running test. */
static const char *now_suite = "-", *now_test = "-";
static unsigned now_said;
static int now_skipped;

/* Where a kernel's fault goes on; what it was. Failures that are caught instead of counted. */
static sigjmp_buf after_fault;
static volatile sig_atomic_t can_go_on;
static pthread_t fault_thread;
static char fault_text[96], caught[512];
static int catching;

static void die(const char *what) {
  perror(what);
  exit(2);
}

/* ---- Registering ---- */

CU_pSuite check_suite(const char *name) {
  CU_pSuite suite = CU_add_suite(name, NULL, NULL);
  if (!suite) die(name);
  return suite;
}

void check_test(CU_pSuite suite, const char *name, void (*test)(void)) {
  if (!CU_add_test(suite, name, test)) die(name);
}

/* A fault in here is a failure of the test that runs, and leaves its buffers. */
static void run_watched(check_row_fn *test, const fp4moe_kernel *row) {
  const fp4moe_kernel watched = watch_row(row);
  if (!sigsetjmp(after_fault, 1)) {
    fault_thread = pthread_self();
    can_go_on = 1;
    test(&watched);
  } else {
    check_fail(__FILE__, __LINE__, "%s", fault_text);
    fp4moe_fp_enter();
  }
  can_go_on = 0;
  watch_report();
  CHECK_RELEASE();
}

/* The CUnit function of every row test: finds out which one it is. */
static void run_row(void) {
  CU_pTest test = CU_get_current_test();
  for (size_t i = 0; i < row_test_count; i++)
    if (row_tests[i].test == test) run_watched(row_tests[i].run, row_tests[i].row);
}

const char *check_caught(check_row_fn *test, const fp4moe_kernel *row) {
  static char text[sizeof caught];
  caught[0] = 0;
  catching = 1;
  run_watched(test, row);
  catching = 0;
  return strcpy(text, caught);
}

void check_one_row(CU_pSuite suite, const char *name, const fp4moe_kernel *row,
                   check_row_fn *test) {
  char text[160], why[64];
  if (!fp4moe_cpu_has(row->isa)) {
    snprintf(why, sizeof why, "this CPU has no %s", fp4moe_isa_name(row->isa));
    check_skip(row->name, why);
    return;
  }
  snprintf(text, sizeof text, "%s %s", name, row->name);
  CU_pTest added = CU_add_test(suite, text, run_row);
  if (!added || row_test_count == MAX_TESTS) die(text);
  row_tests[row_test_count++] = (row_test){added, test, row};
}

void check_rows(CU_pSuite suite, const char *name, fp4moe_op op, check_row_fn *test) {
  for (size_t i = 0; i < fp4moe_kernel_count; i++)
    if (fp4moe_kernels[i].op == op) check_one_row(suite, name, &fp4moe_kernels[i], test);
}

const fp4moe_kernel *check_kernel(const char *name) {
  for (size_t i = 0; i < fp4moe_kernel_count; i++)
    if (!strcmp(fp4moe_kernels[i].name, name)) return &fp4moe_kernels[i];
  die(name);
  return NULL;
}

static const fp4moe_kernel *find_c(fp4moe_op op, int format, int act, int form, int kind,
                                   int gated) {
  for (size_t i = 0; i < fp4moe_kernel_count; i++) {
    const fp4moe_kernel *row = &fp4moe_kernels[i];
    if (row->isa == FP4MOE_ISA_c && row->op == op && row->format == format && row->act == act &&
        row->form == form && row->kind == kind && row->gated == gated)
      return row;
  }
  die("no specification row");
  return NULL;
}

const fp4moe_kernel *check_spec(const fp4moe_kernel *row) {
  return find_c(row->op, row->format, row->act, row->form, row->kind, row->gated);
}

const fp4moe_kernel *check_c_quant(int act) {
  int format = act == FP4MOE_ACT_MXFP8   ? (int)FP4MOE_MXFP4
               : act == FP4MOE_ACT_NVFP4 ? (int)FP4MOE_NVFP4
                                         : FP4MOE_ANY;
  return find_c(FP4MOE_OP_QUANT, format, act, FP4MOE_ANY, FP4MOE_ANY, FP4MOE_ANY);
}

const fp4moe_kernel *check_c_unpack(int format, int form) {
  for (size_t i = 0; i < fp4moe_kernel_count; i++) {
    const fp4moe_kernel *row = &fp4moe_kernels[i];
    if (row->isa == FP4MOE_ISA_c && row->op == FP4MOE_OP_UNPACK && row->format == format &&
        row->form == form)
      return row;
  }
  die("no unpack row");
  return NULL;
}

/* ---- Failing and skipping ---- */

static void say(const char *file, int line, const char *text) {
  if (now_said++ < MAX_SAID)
    printf("FAIL %s / %s (seed %llu)\n     %s:%d: %s\n", now_suite, now_test,
           (unsigned long long)seed, file, line, text);
}

void check_fail(const char *file, int line, const char *format, ...) {
  char text[512];
  va_list list;
  va_start(list, format);
  vsnprintf(text, sizeof text, format, list);
  va_end(list);
  if (catching) {
    if (!caught[0]) strcpy(caught, text);
    return;
  }
  if (now_said < MAX_SAID) /* CUnit walks its list of failures for each one */
    CU_assertImplementation(CU_FALSE, (unsigned)line, text, file, "", CU_FALSE);
  say(file, line, text);
}

/* Does a glob match the name, or a kernel's without its prefix? */
static int wanted(const char *name) {
  static const char prefix[] = "fp4moe_";
  const char *rest = strncmp(name, prefix, sizeof prefix - 1) ? name : name + sizeof prefix - 1;
  for (size_t i = 0; i < glob_count; i++)
    if (!fnmatch(globs[i], name, 0) || !fnmatch(globs[i], rest, 0)) return 1;
  return !glob_count;
}

void check_skip(const char *name, const char *why) {
  if (catching) {
    snprintf(caught, sizeof caught, "skipped %s: %s", name, why);
    return;
  }
  now_skipped = 1;
  if (CU_get_current_test() == NULL && !wanted(name)) return;
  for (size_t i = 0; i < skip_count; i++)
    if (!strcmp(skips[i].name, name)) return;
  if (skip_count == MAX_SKIPS) die("too many skips");
  skips[skip_count].name = strdup(name);
  skips[skip_count++].why = strdup(why);
}

int check_cannot_fork(const char *name) {
  if (!getenv("CHECK_EMULATED")) return 0;
  check_skip(name, "qemu-user aborts where a program with threads forks");
  return 1;
}

int check_same(const char *file, int line, const void *got, const void *want, size_t count,
               size_t size, const char *what) {
  const uint8_t *g = got, *w = want;
  for (size_t i = 0; i < count; i++) {
    uint64_t x = 0, y = 0;
    if (!memcmp(g + i * size, w + i * size, size)) continue;
    memcpy(&x, g + i * size, size < 8 ? size : 8);
    memcpy(&y, w + i * size, size < 8 ? size : 8);
    check_fail(file, line, "%s, element %zu: %#llx, expected %#llx", what, i, (unsigned long long)x,
               (unsigned long long)y);
    return 0;
  }
  return 1;
}

int check_same_floats(const char *file, int line, const float *got, const float *want, size_t count,
                      const char *what) {
  for (size_t i = 0; i < count; i++) {
    if (!memcmp(got + i, want + i, sizeof *got)) continue;
    if (got[i] != got[i] && want[i] != want[i]) continue;
    check_fail(file, line, "%s, element %zu: %a, expected %a", what, i, (double)got[i],
               (double)want[i]);
    return 0;
  }
  return 1;
}

char *check_variable(const char *name, const char *value) {
  char *old = getenv(name) ? strdup(getenv(name)) : NULL;
  if (value)
    setenv(name, value, 1);
  else
    unsetenv(name);
  return old;
}

/* ---- The run ---- */

static int final_line(void) {
  for (size_t i = 0; i < skip_count; i++) printf("skipped %s: %s\n", skips[i].name, skips[i].why);
  printf("%zu passed, %zu failed, %zu skipped\n", passed, failed, skip_count);
  fflush(stdout);
  return failed != 0;
}

/* A kernel's fault fails its test and the run goes on. Any other one ends it, as what the library
 * holds is lost: stdio is safe enough on the way out. */
static void on_fault(int signal, siginfo_t *info, void *context) {
  (void)context;
  snprintf(fault_text, sizeof fault_text, "SIG%s at address %p", sigabbrev_np(signal),
           info->si_addr);
  if (can_go_on && pthread_equal(pthread_self(), fault_thread)) siglongjmp(after_fault, 1);
  now_said = 0;
  say(__FILE__, __LINE__, fault_text);
  failed++;
  final_line();
  _exit(1);
}

static void on_start(const CU_pTest test, const CU_pSuite suite) {
  now_suite = suite->pName;
  now_test = test->pName;
  now_said = 0;
  now_skipped = 0;
  check_reseed(seed, test->pName);
}

/* Says what CUnit's own assertions found; check_fail has said its part. */
static void on_complete(const CU_pTest test, const CU_pSuite suite, const CU_pFailureRecord first) {
  (void)test, (void)suite;
  if (!now_said)
    for (CU_pFailureRecord f = first; f; f = f->pNext)
      say(f->strFileName, (int)f->uiLineNumber, f->strCondition);
  if (now_said > MAX_SAID) printf("     ... and %u more\n", now_said - MAX_SAID);
  if (first)
    failed++;
  else if (!now_skipped)
    passed++;
}

static void on_suite_start(const CU_pSuite suite) {
  (void)suite;
  suite_failed = failed;
}

static void on_suite(const CU_pSuite suite, const CU_pFailureRecord first) {
  (void)first;
  printf("%-10s %4u tests, %zu failed, at %.1f s\n", suite->pName, suite->uiNumberOfTests,
         failed - suite_failed, (double)clock() / CLOCKS_PER_SEC);
  fflush(stdout);
}

/* The kernel of a row test, or the test's own name. */
static const char *subject(const CU_pTest test) {
  for (size_t i = 0; i < row_test_count; i++)
    if (row_tests[i].test == test) return row_tests[i].row->name;
  return test->pName;
}

static void filter(void) {
  for (CU_pSuite s = CU_get_registry()->pSuite; s; s = s->pNext)
    for (CU_pTest t = s->pTest; t; t = t->pNext)
      CU_set_test_active(t, wanted(t->pName) || wanted(s->pName) || wanted(subject(t)));
}

static void parse(int argc, char **argv) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  seed = (uint64_t)now.tv_nsec ^ (uint64_t)now.tv_sec << 20;
  for (int option; (option = getopt(argc, argv, "f:")) != -1;) {
    if (option != 'f' || glob_count == MAX_GLOBS) exit(2);
    globs[glob_count++] = optarg;
  }
  if (optind < argc) seed = strtoull(argv[optind], NULL, 0);
  printf("seed %llu\n", (unsigned long long)seed);
}

#if defined(CHECK_NO_IO)
void check_io(void) { check_skip("io", "no jansson to build it with"); }
#endif
#if defined(CHECK_NO_TOPOLOGY)
void check_topology(void) { check_skip("topology", "no hwloc to build it with"); }
#endif

int main(int argc, char **argv) {
#define SUITE(name) check_##name,
  static void (*const suites[])(void) = {
#include "suites.inc"
  };
  const int faults[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
  struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
  parse(argc, argv);
  for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) sigaction(faults[i], &action, NULL);
  if (CU_initialize_registry() != CUE_SUCCESS) die("CUnit");
  for (size_t i = 0; i < sizeof suites / sizeof *suites; i++) suites[i]();
  filter();
  CU_set_fail_on_inactive(CU_FALSE);
  CU_set_test_start_handler(on_start);
  CU_set_test_complete_handler(on_complete);
  CU_set_suite_start_handler(on_suite_start);
  CU_set_suite_complete_handler(on_suite);
  fp4moe_fp_enter();
  CU_run_all_tests();
  CU_cleanup_registry();
  return final_line();
}
