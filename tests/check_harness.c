/* check_harness.c - the harness itself: every way in which a kernel can break its contract is seen.
 *
 * Kernels that are broken on purpose, one way each, are run as a row's test runs them. What the
 * harness then says is compared; a kernel that keeps to everything must raise no word. And a run
 * with a seed and a glob is the same run again. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "cpu.h"
#include "watch.h"

enum { BYTES = 64, SUMS = 16 }; /* of the weights; of acc */

/* ---- What a test of a row does, in small ---- */

static int side;

static void drive(const fp4moe_kernel *row) {
  uint8_t *weights = check_buffer(BYTES, side);
  float *acc = check_buffer(SUMS * sizeof *acc, side);
  memset(weights, 1, BYTES);
  check_readonly(weights);
  fp4moe_matmul t = {.m = 1, .panels = 1, .weights = weights, .acc = acc};
  row->fn.matmul(&t);
  for (size_t i = 0; i < SUMS; i++) CHECK(acc[i] == (float)i, "sum %zu is %g", i, (double)acc[i]);
  CHECK_RELEASE();
}

/* ---- Kernels ---- */

static void right(const fp4moe_matmul *t) {
  for (size_t i = 0; i < SUMS; i++) t->acc[i] = (float)i;
}

static void touch(const uint8_t *byte) { (void)*(const volatile uint8_t *)byte; }

static void reads_behind(const fp4moe_matmul *t) {
  touch(t->weights + BYTES);
  right(t);
}

static void reads_before(const fp4moe_matmul *t) {
  touch(t->weights - 1);
  right(t);
}

static void writes_input(const fp4moe_matmul *t) {
  *(volatile uint8_t *)(uintptr_t)t->weights = 1;
  right(t);
}

static void writes_behind(const fp4moe_matmul *t) {
  right(t);
  ((volatile float *)t->acc)[SUMS] = 1;
}

static void writes_before(const fp4moe_matmul *t) {
  right(t);
  ((volatile float *)t->acc)[-1] = 1;
}

static void writes_nothing(const fp4moe_matmul *t) { (void)t; }

static void divides_by_zero(const fp4moe_matmul *t) {
  right(t);
  raise(SIGFPE); /* AArch64 has no trap for it */
}

static void off_its_file(const fp4moe_matmul *t) {
  right(t);
  raise(SIGBUS);
}

/* ---- Kernels that do not keep a register or a mode: leaves in assembly ---- */

#define LEAF(name, text)                                                                           \
  fp4moe_matmul_fn name;                                                                           \
  __asm__(".text\n.globl " #name "\n.hidden " #name "\n.type " #name ", %function\n" #name         \
          ":\n" text "\n ret\n.size " #name ", . - " #name "\n")

#if defined(__x86_64__)
#define NO_INSTRUCTION "ud2"
#define FLUSHES        "movl $0x9fc0, -8(%rsp)\n ldmxcsr -8(%rsp)"
#define ROUNDS_UP      "movl $0x5f80, -8(%rsp)\n ldmxcsr -8(%rsp)"
#define MODE           "of MXCSR"
#define SPOILED(LEAVE)                                                                             \
  LEAVE(rbx, "not %rbx")                                                                           \
  LEAVE(rbp, "not %rbp")                                                                           \
  LEAVE(r12, "not %r12")                                                                           \
  LEAVE(r13, "not %r13")                                                                           \
  LEAVE(r14, "not %r14")                                                                           \
  LEAVE(r15, "not %r15")                                                                           \
  LEAVE(direction, "std")
LEAF(leaves_ymm, "vpcmpeqd %ymm7, %ymm7, %ymm7");
LEAF(leaves_zmm, "vpternlogd $255, %zmm7, %zmm7, %zmm7");
#else
#define NO_INSTRUCTION ".inst 0"
#define FLUSHES        "mov x9, #0x1000000\n msr fpcr, x9"
#define ROUNDS_UP      "mov x9, #0x400000\n msr fpcr, x9"
#define MODE           "of FPCR"
#define SPOILED(LEAVE)                                                                             \
  LEAVE(x19, "mvn x19, x19")                                                                       \
  LEAVE(x20, "mvn x20, x20")                                                                       \
  LEAVE(x21, "mvn x21, x21")                                                                       \
  LEAVE(x22, "mvn x22, x22")                                                                       \
  LEAVE(x23, "mvn x23, x23")                                                                       \
  LEAVE(x24, "mvn x24, x24")                                                                       \
  LEAVE(x25, "mvn x25, x25")                                                                       \
  LEAVE(x26, "mvn x26, x26")                                                                       \
  LEAVE(x27, "mvn x27, x27")                                                                       \
  LEAVE(x28, "mvn x28, x28")                                                                       \
  LEAVE(x29, "mvn x29, x29")                                                                       \
  LEAVE(d8, "movi d8, #0")                                                                         \
  LEAVE(d9, "movi d9, #0")                                                                         \
  LEAVE(d10, "movi d10, #0")                                                                       \
  LEAVE(d11, "movi d11, #0")                                                                       \
  LEAVE(d12, "movi d12, #0")                                                                       \
  LEAVE(d13, "movi d13, #0")                                                                       \
  LEAVE(d14, "movi d14, #0")                                                                       \
  LEAVE(d15, "movi d15, #0")
#endif
LEAF(no_instruction, NO_INSTRUCTION);
LEAF(flushes, FLUSHES);
LEAF(rounds_up, ROUNDS_UP);
#define SPOILING(name, text) LEAF(spoils_##name, text);
SPOILED(SPOILING)

/* ---- What must be said of each ---- */

typedef struct broken {
  const char *name;
  fp4moe_matmul_fn *fn;
  int side;
  const char *says; /* "": nothing */
} broken;

static void check_broken(const broken *b, check_row_fn *test) {
  const fp4moe_kernel row = {.name = b->name, .fn.matmul = b->fn};
  side = b->side;
  const char *said = check_caught(test, &row);
  CHECK(*b->says ? strstr(said, b->says) != NULL : !*said, "%s: \"%s\", expected \"%s\"", b->name,
        said, b->says);
}

static void test_memory(void) {
  static const broken kernels[] = {
      {"right", right, CHECK_BEFORE, ""},
      {"right", right, CHECK_AFTER, ""},
      {"reads behind", reads_behind, CHECK_AFTER, "SIGSEGV"},
      {"reads before", reads_before, CHECK_BEFORE, "SIGSEGV"},
      {"writes input", writes_input, CHECK_AFTER, "SIGSEGV"},
      {"writes behind", writes_behind, CHECK_AFTER, "SIGSEGV"},
      {"writes behind", writes_behind, CHECK_BEFORE, "offset 64 of 64 bytes was written"},
      {"writes before", writes_before, CHECK_BEFORE, "SIGSEGV"},
      {"writes before", writes_before, CHECK_AFTER, "offset -4 of 64 bytes was written"},
      {"writes nothing", writes_nothing, CHECK_AFTER, "sum 0 is"},
  };
  for (size_t i = 0; i < sizeof kernels / sizeof *kernels; i++) check_broken(&kernels[i], drive);
}

static void test_signals(void) {
  static const broken kernels[] = {
      {"no instruction", no_instruction, CHECK_AFTER, "SIGILL"},
      {"divides by zero", divides_by_zero, CHECK_AFTER, "SIGFPE"},
      {"off its file", off_its_file, CHECK_AFTER, "SIGBUS"},
  };
  for (size_t i = 0; i < sizeof kernels / sizeof *kernels; i++) check_broken(&kernels[i], drive);
}

/* Calls and looks at no result: what is left is what the trampoline sees. */
static void just_call(const fp4moe_kernel *row) { row->fn.matmul(&(fp4moe_matmul){0}); }

static void test_registers(void) {
#define KEPT(name, text) {#name, spoils_##name, 0, "did not keep"},
  static const broken kernels[] = {SPOILED(KEPT)};
  for (size_t i = 0; i < sizeof kernels / sizeof *kernels; i++) {
    check_broken(&kernels[i], just_call);
    check_broken(&(broken){kernels[i].name, kernels[i].fn, 0, kernels[i].name}, just_call);
  }
  check_broken(&(broken){"flushes", flushes, 0, MODE}, just_call);
  check_broken(&(broken){"rounds up", rounds_up, 0, MODE}, just_call);
}

#if defined(__x86_64__)
static void test_uppers(void) {
  if (!watch_sees_uppers()) {
    check_skip("upper halves of vector registers", "this machine does not tell (XINUSE)");
    return;
  }
  check_broken(&(broken){"leaves ymm", leaves_ymm, 0, "upper halves"}, just_call);
  if (fp4moe_cpu_has(FP4MOE_ISA_avx512))
    check_broken(&(broken){"leaves zmm", leaves_zmm, 0, "upper halves"}, just_call);
}
#endif

/* ---- Again ---- */

/* What `check ARGUMENTS` prints, up to its times; owned by the caller. */
static char *output_of(const char *arguments) {
  enum { MOST = 1 << 16 };
  char command[512], self[256] = "", *text = calloc(1, MOST), *time;
  CHECK(readlink("/proc/self/exe", self, sizeof self - 1) > 0, "no /proc/self/exe");
  snprintf(command, sizeof command, "'%s' %s 2>&1", self, arguments);
  FILE *run = popen(command, "r");
  CHECK(run && fread(text, 1, MOST - 1, run), "'%s' says nothing", command);
  if (run) pclose(run);
  while ((time = strstr(text, ", at ")) != NULL)
    memmove(time, strchr(time, '\n'), 1 + strlen(strchr(time, '\n')));
  return text;
}

static void test_again(void) {
  if (check_cannot_fork("runs by seed and glob")) return;
  char *first = output_of("77 -f combine_c"), *second = output_of("77 -f combine_c");
  char *other = output_of("77 -f fp4moe_combine_c");
  const char *end = strstr(first, " passed, 0 failed, 0 skipped\n");
  CHECK(!strncmp(first, "seed 77\n", 8) && end && end[-1] > '0', "\"%s\"", first);
  CHECK(!strcmp(first, second), "\"%s\", then \"%s\"", first, second);
  CHECK(!strcmp(first, other), "\"%s\", with fp4moe_ \"%s\"", first, other);
  free(first);
  free(second);
  free(other);
}

/* Registers a row of a CPU that this is not. */
static void register_foreign(const fp4moe_kernel *row) { check_one_row(NULL, "never", row, drive); }

static void test_skipped(void) {
#if defined(__x86_64__)
  const fp4moe_kernel row = {.name = "fp4moe_foreign_neon", .isa = FP4MOE_ISA_neon};
#else
  const fp4moe_kernel row = {.name = "fp4moe_foreign_avx2", .isa = FP4MOE_ISA_avx2};
#endif
  const char *said = check_caught(register_foreign, &row);
  CHECK(!strcmp(said, "skipped fp4moe_foreign_neon: this CPU has no neon") ||
            !strcmp(said, "skipped fp4moe_foreign_avx2: this CPU has no avx2"),
        "\"%s\"", said);
}

void check_harness(void) {
  CU_pSuite suite = check_suite("harness");
  check_test(suite, "memory of broken kernels", test_memory);
  check_test(suite, "faults of broken kernels", test_signals);
  check_test(suite, "registers of broken kernels", test_registers);
#if defined(__x86_64__)
  check_test(suite, "upper halves of broken kernels", test_uppers);
#endif
  check_test(suite, "rows of another CPU", test_skipped);
  check_test(suite, "runs by seed and glob", test_again);
}
