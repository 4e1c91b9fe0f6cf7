/* ceilings.h - the machine's limits, measured: read bandwidth and the dot rate of each class.
 *
 * A round takes about 0.1 s, so that it can stand in every round of a bench: what a shared host
 * gives changes by the minute, and efficiency means something only against the same minute. */
#ifndef FP4MOE_CEILINGS_H
#define FP4MOE_CEILINGS_H

#include <stddef.h>
#include <stdint.h>

#include "host.h"

/* Sums over all threads; a multiply-add is two operations. bf16 is the faster of BF16 dots and FP32
 * FMA, for both serve that class. */
typedef struct ceilings {
  double read_gbytes_s, int8_gops, bf16_gflops, f32_gflops;
} ceilings;

typedef struct ceilings_meter ceilings_meter;

enum { CEILING_WINDOWS = 4 };

/* Bytes that a round reads: 8 last-level caches in whole huge pages. */
size_t ceilings_window_bytes(const fp4moe_host *host);

/* Makes the threads, pinned like the library's. What lies above `cap` is not measured: a layer
 * under FP4MOE_CPU cannot reach it. windows: memory of the caller's that rounds read in turn,
 * ceilings_window_bytes each from a 64-byte boundary, of different pages; NULL: memory of its own,
 * CEILING_WINDOWS times as much. NULL result: no memory. */
ceilings_meter *ceilings_open(const fp4moe_host *host, fp4moe_isa cap, size_t threads,
                              const uint8_t *const windows[CEILING_WINDOWS]);
ceilings ceilings_measure(ceilings_meter *meter);
void ceilings_close(ceilings_meter *meter);

/* A loop that does nothing but what its ceiling counts, in ceiling_<isa>.c. Returns a value that
 * depends on all of it.
 *   read  n bytes at `at`: 64-byte aligned, n a multiple of 1 KiB
 *   dot   n steps of CEILING_CHAINS independent accumulators, of CEILING_YMM where there are 16
 *         registers, of CEILING_NEON on AArch64; `at` is not used. int8 on AVX2 without VNNI:
 *         CEILING_PAIRS x CEILING_PRODUCTS */
typedef uint64_t ceiling_loop(const uint8_t *at, size_t n);

enum {
  CEILING_CHAINS = 16,
  CEILING_YMM = 12,
  CEILING_NEON = 24,
  CEILING_PAIRS = 6,
  CEILING_PRODUCTS = 10
};

ceiling_loop ceiling_read_c, ceiling_int8_c, ceiling_f32_c;
ceiling_loop ceiling_read_avx2, ceiling_int8_avx2, ceiling_f32_avx2, ceiling_int8_avxvnni;
ceiling_loop ceiling_read_ahead_avx512, ceiling_read_4_avx512;
ceiling_loop ceiling_int8_avx512, ceiling_f32_avx512;
ceiling_loop ceiling_int8_avx512vnni, ceiling_bf16_avx512bf16;
ceiling_loop ceiling_read_neon, ceiling_int8_neon, ceiling_f32_neon;
ceiling_loop ceiling_int8_dotprod, ceiling_int8_i8mm, ceiling_bf16_bf16neon;

#endif
