/* cpu.h - what the processor and the operating system let kernels use, and the floating-point mode
 * in which kernels run. Reads CPUID and XCR0 (x86-64) or HWCAP (AArch64); keeps the answer. */
#ifndef FP4MOE_CPU_H
#define FP4MOE_CPU_H

#include "kernel.h"

/* 1: this machine runs the rows of `isa`, each CPU bit and the register state it needs. */
int fp4moe_cpu_has(fp4moe_isa isa);

/* The last ISA of FP4MOE_CPU's order that this machine runs, at or before `cap`. */
fp4moe_isa fp4moe_cpu_best(fp4moe_isa cap);

/* "c", "avx2", ...; and back: -1 for a word that is no ISA of this architecture. */
const char *fp4moe_isa_name(fp4moe_isa isa);
int fp4moe_isa_parse(const char *word);

/* Vendor, family, model, stepping and name as text; "unknown" where there is none. */
typedef struct fp4moe_cpu_id {
  char vendor[16], name[64];
  unsigned family, model, stepping;
} fp4moe_cpu_id;
void fp4moe_cpu_identify(fp4moe_cpu_id *id);

/* Sets round-to-nearest without flushing and masks exceptions; returns the caller's mode. Whatever
 * computes with floats, text that is parsed included, stands between the two, on every thread.
 * Exported from the shared library for libfp4moe_io only. */
FP4MOE_API uint64_t fp4moe_fp_enter(void);
FP4MOE_API void fp4moe_fp_leave(uint64_t mode);

/* One pause of a spinning thread. */
void fp4moe_cpu_relax(void);

#endif
