/* watch.h - sees whether a kernel keeps what the calling convention says it keeps.
 *
 * A watched row's function goes through a trampoline of any op's signature, which fills the
 * registers that belong to the caller, calls the kernel, and compares: rbx, rbp, r12-r15 and the
 * direction flag of x86-64, x19-x29 and d8-d15 of AArch64; the modes of MXCSR or FPCR (not its
 * flags); and that no upper half of a vector register is left in use, which would slow every SSE
 * instruction that follows. It restores what it finds broken. One thread at a time. */
#ifndef FP4MOE_WATCH_H
#define FP4MOE_WATCH_H

#include "kernel.h"

/* The row with its function behind the trampoline, which calls this row's from now on. */
fp4moe_kernel watch_row(const fp4moe_kernel *row);

/* Fails the test for all that calls have broken since watch_row or the last report. */
void watch_report(void);

/* 1: this machine tells whether upper halves are in use (XINUSE). */
int watch_sees_uppers(void);

#endif
