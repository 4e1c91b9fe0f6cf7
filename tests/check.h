/* check.h - the test harness: CUnit underneath, and what every test of a kernel needs.
 *
 * tests/check_<x>.c exports check_<x>(), which registers its suite. A test that goes over kernels
 * is registered once per row of kernels.inc (check_rows), so a failure names its kernel; a row that
 * this CPU cannot run counts as skipped, never as passed. Every test draws from the seed and its
 * own name: `build/check SEED -f NAME` repeats one exactly. A kernel's fault, which is how guard
 * pages and read-only inputs report, fails the test that names it; any other ends the run. */
#ifndef FP4MOE_CHECK_H
#define FP4MOE_CHECK_H

#include <CUnit/CUnit.h>
#include <stddef.h>
#include <stdint.h>

#include "kernel.h"

/* ---- The suites ---- */

#define SUITE(name) void check_##name(void);
#include "suites.inc"

/* ---- Registering ---- */

CU_pSuite check_suite(const char *name);

void check_test(CU_pSuite suite, const char *name, void (*test)(void));

/* One test "name kernel" for each row of `op` that this CPU runs. */
typedef void check_row_fn(const fp4moe_kernel *row);
void check_rows(CU_pSuite suite, const char *name, fp4moe_op op, check_row_fn *test);

/* The same for one row, which need not be in kernels.inc. The row that a test gets is a watched
 * copy (watch.h). */
void check_one_row(CU_pSuite suite, const char *name, const fp4moe_kernel *row, check_row_fn *test);

#if defined(__x86_64__)
enum { CHECK_EVEX_ROWS = 4 };
extern const fp4moe_kernel check_evex_rows[CHECK_EVEX_ROWS]; /* evex_avx512vnni.c */
#endif

/* The row of kernels.inc with this name: there must be one. */
const fp4moe_kernel *check_kernel(const char *name);

/* The _c row of the same op, format, class, form and kind. */
const fp4moe_kernel *check_spec(const fp4moe_kernel *row);

/* The _c row that quantises to class `act`, or unpacks `format` into `form`. */
const fp4moe_kernel *check_c_quant(int act);
const fp4moe_kernel *check_c_unpack(int format, int form);

/* ---- Failing and skipping: inside of a running test ---- */

/* Says where and why, with the test and the seed; the first few of a test only. */
void check_fail(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* CHECK(condition, "k %zu: %g", k, x): fails and goes on; its value is that of the condition. */
#define CHECK(condition, ...) ((condition) ? 1 : (check_fail(__FILE__, __LINE__, __VA_ARGS__), 0))

/* Runs a row's test as check_rows does, but what fails there only becomes the text that is
 * returned: the first failure, or what was skipped, "" if there was neither. For tests of the
 * harness. */
const char *check_caught(check_row_fn *test, const fp4moe_kernel *row);

/* The running test, or before the run a kernel, is not a pass: `name` was not tried. */
void check_skip(const char *name, const char *why);

/* 1, and `name` is skipped: under an emulator (CHECK_EMULATED is set) that cannot fork. */
int check_cannot_fork(const char *name);

/* Equal bytes; the text names the first element of `size` bytes that differs. */
#define CHECK_SAME(got, want, count, size, what)                                                   \
  check_same(__FILE__, __LINE__, got, want, count, size, what)
int check_same(const char *file, int line, const void *got, const void *want, size_t count,
               size_t size, const char *what);

/* Equal bits, but any NaN is any NaN. */
#define CHECK_SAME_FLOATS(got, want, count, what)                                                  \
  check_same_floats(__FILE__, __LINE__, got, want, count, what)
int check_same_floats(const char *file, int line, const float *got, const float *want, size_t count,
                      const char *what);

/* ---- The environment ---- */

/* Sets a variable, or removes it where the value is NULL. What it was: a copy, to be set again. */
char *check_variable(const char *name, const char *value);

/* ---- Random ---- */

uint64_t check_random(void);
size_t check_below(size_t n); /* 0 .. n - 1 */
float check_uniform(float low, float high);
float check_float(void); /* any 32 bits: subnormals, infinities and NaN too */
void check_reseed(uint64_t seed, const char *name); /* as at the begin of a test of that name */

/* ---- Buffers against the wall ---- */

/* Which end touches an unmapped page. */
enum { CHECK_BEFORE, CHECK_AFTER, CHECK_SIDES };

/* `bytes` filled with 0xff (NaN), at the guard page of that side; the other side has a canary. The
 * alignment is 64, with CHECK_AFTER as far as `bytes` has it. */
void *check_buffer(size_t bytes, int side);
/* A workspace against the wall, full of rubbish; freed by CHECK_RELEASE. */
void *rubbish(size_t bytes);

/* Writing to the buffer is a fault from now on. */
void check_readonly(const void *buffer);

/* Fails if a canary was touched; frees all buffers. */
#define CHECK_RELEASE() check_release(__FILE__, __LINE__)
void check_release(const char *file, int line);

#endif
