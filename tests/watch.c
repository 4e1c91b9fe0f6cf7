/* watch.c - the trampolines (watch.h): nothing but registers, so in assembly. They move no argument
 * but the seventh of store, which x86-64 has on the stack. */
#include "watch.h"

#include "check.h"
#include "cpu.h"

/* What a trampoline is told and what it finds. */
void (*watch_target)(void);
uint32_t watch_uppers;  /* told: 1: the bits of XINUSE are to be read */
uint32_t watch_in_use;  /* all that it has shown */
uint32_t watch_broken;  /* bit i: kept[i] was not kept */
uint64_t watch_mode;    /* MXCSR or FPCR at the call */
uint64_t watch_changed; /* its bits that a kernel changed */

void watch_trampoline(void);

#if defined(__x86_64__)
#include <cpuid.h>

static const char *const kept[] = {"rbx", "rbp", "r12", "r13", "r14", "r15", "the direction flag"};
static const char mode_register[] = "MXCSR";

__asm__(".macro fill reg, i\n"
        "  movabs $0x5eed0000fee1dead + \\i, %\\reg\n"
        ".endm\n"
        ".macro compare reg, i\n"
        "  movabs $0x5eed0000fee1dead + \\i, %rcx\n"
        "  cmp %rcx, %\\reg\n"
        "  je 1f\n"
        "  orl $1 << \\i, watch_broken(%rip)\n"
        "1:\n"
        ".endm\n"
        ".text\n"
        ".globl watch_trampoline\n"
        ".hidden watch_trampoline\n"
        ".type watch_trampoline, @function\n"
        "watch_trampoline:\n"
        "  push %rbp\n"
        "  mov %rsp, %rbp\n"
        "  push %rbx\n"
        "  push %r12\n"
        "  push %r13\n"
        "  push %r14\n"
        "  push %r15\n"
        "  push 16(%rbp)\n" /* the seventh argument; the stack is aligned now */
        "  stmxcsr watch_mode(%rip)\n"
        "  cmpl $0, watch_uppers(%rip)\n"
        "  je 1f\n"
        "  vzeroupper\n"
        "1:\n"
        "  fill rbx, 0\n"
        "  fill rbp, 1\n"
        "  fill r12, 2\n"
        "  fill r13, 3\n"
        "  fill r14, 4\n"
        "  fill r15, 5\n"
        "  call *watch_target(%rip)\n"
        "  compare rbx, 0\n"
        "  compare rbp, 1\n"
        "  compare r12, 2\n"
        "  compare r13, 3\n"
        "  compare r14, 4\n"
        "  compare r15, 5\n"
        "  pushf\n"
        "  pop %rax\n"
        "  cld\n"
        "  test $0x400, %eax\n"
        "  je 1f\n"
        "  orl $1 << 6, watch_broken(%rip)\n"
        "1:\n"
        "  stmxcsr (%rsp)\n"
        "  ldmxcsr watch_mode(%rip)\n"
        "  mov (%rsp), %eax\n"
        "  xor watch_mode(%rip), %eax\n"
        "  and $0xffc0, %eax\n" /* the flags may be raised */
        "  or %eax, watch_changed(%rip)\n"
        "  cmpl $0, watch_uppers(%rip)\n"
        "  je 1f\n"
        "  mov $1, %ecx\n"
        "  xgetbv\n"
        "  and $0x44, %eax\n" /* upper halves of YMM, of ZMM */
        "  or %eax, watch_in_use(%rip)\n"
        "  vzeroupper\n"
        "1:\n"
        "  add $8, %rsp\n"
        "  pop %r15\n"
        "  pop %r14\n"
        "  pop %r13\n"
        "  pop %r12\n"
        "  pop %rbx\n"
        "  pop %rbp\n"
        "  ret\n"
        ".size watch_trampoline, . - watch_trampoline\n");

/* Asked of the machine itself, with an upper half in use and without: not all that have the
 * instruction keep book. Bit 2 of XINUSE: upper halves of YMM. */
int watch_sees_uppers(void) {
  uint32_t a = 0, b, c, d, used, unused;
  if (!fp4moe_cpu_has(FP4MOE_ISA_avx2)) return 0;
  if (!__get_cpuid_count(0xd, 1, &a, &b, &c, &d) || !(a & 4)) return 0;
  __asm__("vpcmpeqd %%ymm0, %%ymm0, %%ymm0\n xgetbv" : "=a"(used), "=d"(d) : "c"(1) : "xmm0");
  __asm__("vzeroupper\n xgetbv" : "=a"(unused), "=d"(d) : "c"(1));
  return (used & 4) != 0 && (unused & 4) == 0;
}

#else
static const char *const kept[] = {"x19", "x20", "x21", "x22", "x23", "x24", "x25",
                                   "x26", "x27", "x28", "x29", "d8",  "d9",  "d10",
                                   "d11", "d12", "d13", "d14", "d15"};
static const char mode_register[] = "FPCR";

__asm__(".macro pattern reg, i\n"
        "  mov \\reg, #\\i\n"
        "  movk \\reg, #0x5eed, lsl #48\n"
        ".endm\n"
        ".macro compare reg, i\n" /* x9: what it is, x11: bits so far */
        "  pattern x10, \\i\n"
        "  cmp \\reg, x10\n"
        "  orr x12, x11, #1 << \\i\n"
        "  csel x11, x11, x12, eq\n"
        ".endm\n"
        ".macro compare_d reg, i\n"
        "  fmov x9, \\reg\n"
        "  compare x9, \\i\n"
        ".endm\n"
        ".macro fill_d reg, i\n"
        "  pattern x9, \\i\n"
        "  fmov \\reg, x9\n"
        ".endm\n"
        ".macro each_x op\n"
        "  \\op x19, 0\n  \\op x20, 1\n  \\op x21, 2\n  \\op x22, 3\n  \\op x23, 4\n"
        "  \\op x24, 5\n  \\op x25, 6\n  \\op x26, 7\n  \\op x27, 8\n  \\op x28, 9\n"
        "  \\op x29, 10\n"
        ".endm\n"
        ".macro each_d op\n"
        "  \\op d8, 11\n  \\op d9, 12\n  \\op d10, 13\n  \\op d11, 14\n"
        "  \\op d12, 15\n  \\op d13, 16\n  \\op d14, 17\n  \\op d15, 18\n"
        ".endm\n"
        ".macro at reg, symbol\n"
        "  adrp \\reg, \\symbol\n"
        "  add \\reg, \\reg, :lo12:\\symbol\n"
        ".endm\n"
        ".text\n"
        ".globl watch_trampoline\n"
        ".hidden watch_trampoline\n"
        ".type watch_trampoline, @function\n"
        "watch_trampoline:\n"
        "  stp x29, x30, [sp, #-160]!\n"
        "  stp x19, x20, [sp, #16]\n"
        "  stp x21, x22, [sp, #32]\n"
        "  stp x23, x24, [sp, #48]\n"
        "  stp x25, x26, [sp, #64]\n"
        "  stp x27, x28, [sp, #80]\n"
        "  stp d8, d9, [sp, #96]\n"
        "  stp d10, d11, [sp, #112]\n"
        "  stp d12, d13, [sp, #128]\n"
        "  stp d14, d15, [sp, #144]\n"
        "  at x9, watch_mode\n"
        "  mrs x10, fpcr\n"
        "  str x10, [x9]\n"
        "  each_x pattern\n"
        "  each_d fill_d\n"
        "  at x9, watch_target\n"
        "  ldr x9, [x9]\n"
        "  blr x9\n"
        "  mov x11, #0\n"
        "  each_x compare\n"
        "  each_d compare_d\n"
        "  at x9, watch_broken\n"
        "  ldr w10, [x9]\n"
        "  orr w10, w10, w11\n"
        "  str w10, [x9]\n"
        "  at x9, watch_mode\n"
        "  ldr x10, [x9]\n"
        "  mrs x11, fpcr\n"
        "  msr fpcr, x10\n"
        "  eor x11, x11, x10\n"
        "  at x9, watch_changed\n"
        "  ldr x10, [x9]\n"
        "  orr x10, x10, x11\n"
        "  str x10, [x9]\n"
        "  ldp x19, x20, [sp, #16]\n"
        "  ldp x21, x22, [sp, #32]\n"
        "  ldp x23, x24, [sp, #48]\n"
        "  ldp x25, x26, [sp, #64]\n"
        "  ldp x27, x28, [sp, #80]\n"
        "  ldp d8, d9, [sp, #96]\n"
        "  ldp d10, d11, [sp, #112]\n"
        "  ldp d12, d13, [sp, #128]\n"
        "  ldp d14, d15, [sp, #144]\n"
        "  ldp x29, x30, [sp], #160\n"
        "  ret\n"
        ".size watch_trampoline, . - watch_trampoline\n");

int watch_sees_uppers(void) { return 0; }
#endif

fp4moe_kernel watch_row(const fp4moe_kernel *row) {
  fp4moe_kernel watched = *row;
  watch_target = (void (*)(void))row->fn.matmul;
  watch_uppers = (uint32_t)watch_sees_uppers();
  watch_in_use = watch_broken = 0;
  watch_changed = 0;
  watched.fn.matmul = (fp4moe_matmul_fn *)watch_trampoline;
  return watched;
}

void watch_report(void) {
  for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
    CHECK(!(watch_broken >> i & 1), "the kernel did not keep %s", kept[i]);
  CHECK(!watch_changed, "the kernel changed %#llx of %s", (unsigned long long)watch_changed,
        mode_register);
  CHECK(!watch_in_use, "the kernel left upper halves of vector registers in use (%#x)",
        watch_in_use);
  watch_in_use = watch_broken = 0;
  watch_changed = 0;
}
