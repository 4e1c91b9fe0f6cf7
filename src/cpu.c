/* cpu.c - ISA detection and floating-point mode (see cpu.h).
 *
 * A suffix of kernels/ needs exactly the bits listed here, and the Makefile compiles it with the
 * flags of the same bits. AVX state is usable only where XCR0 says that the system saves it. */
#include <stdatomic.h>
#include <string.h>

#include "cpu.h"

static const char *const isa_names[FP4MOE_ISAS] = {
    "c",          "avx2", "avxvnni", "avx512", "avx512vnni", "avx512vbmi",
    "avx512bf16", "neon", "dotprod", "i8mm",   "bf16neon",
};

const char *fp4moe_isa_name(fp4moe_isa isa) { return isa_names[isa]; }

#if defined(__x86_64__)
#include <cpuid.h>

#define LAST_ISA FP4MOE_ISA_avx512bf16

/* Register words of the CPUID leaves that we read. */
enum { L1C, L7B, L7C, L7_1A, WORDS };

typedef struct {
  uint8_t word, bit;
} cpu_bit;

#define SSE_AVX2                                                                                   \
  {L1C, 27}, {L1C, 28}, {L1C, 12}, {L1C, 29}, { L7B, 5 }
#define AVX512                                                                                     \
  SSE_AVX2, {L7B, 16}, {L7B, 17}, {L7B, 30}, { L7B, 31 }
/* OSXSAVE, AVX, FMA, F16C, AVX2; F, DQ, BW, VL. The first {0, 0} ends a row. */
static const cpu_bit isa_bits[LAST_ISA + 1][12] = {
    [FP4MOE_ISA_avx2] = {SSE_AVX2},
    [FP4MOE_ISA_avxvnni] = {SSE_AVX2, {L7_1A, 4}},
    [FP4MOE_ISA_avx512] = {AVX512},
    [FP4MOE_ISA_avx512vnni] = {AVX512, {L7C, 11}},
    [FP4MOE_ISA_avx512vbmi] = {AVX512, {L7C, 11}, {L7C, 1}},
    [FP4MOE_ISA_avx512bf16] = {AVX512, {L7_1A, 5}},
};

static uint64_t read_xcr0(void) {
  uint32_t lo, hi;
  __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
  return (uint64_t)hi << 32 | lo;
}

static void read_words(uint32_t words[WORDS]) {
  uint32_t a, b, c, d;
  memset(words, 0, WORDS * sizeof *words);
  if (!__get_cpuid(1, &a, &b, &c, &d)) return;
  words[L1C] = c;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return;
  words[L7B] = b;
  words[L7C] = c;
  if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) words[L7_1A] = a;
}

static int has(const uint32_t words[WORDS], fp4moe_isa isa) {
  enum { YMM = 0x6, ZMM = 0xe6 };
  for (const cpu_bit *b = isa_bits[isa]; b->word || b->bit; b++)
    if (!(words[b->word] >> b->bit & 1)) return 0;
  uint64_t state = isa >= FP4MOE_ISA_avx512 ? ZMM : YMM;
  return isa == FP4MOE_ISA_c || (read_xcr0() & state) == state;
}

/* A selection asks for every kernel, and under a hypervisor CPUID takes some 30 us: it is asked
 * once. Bit i of `known` is ISA i, bit 31 says that the others are there. */
int fp4moe_cpu_has(fp4moe_isa isa) {
  static atomic_uint known;
  unsigned bits = atomic_load_explicit(&known, memory_order_relaxed);
  if (!bits) {
    uint32_t words[WORDS];
    read_words(words);
    bits = 1u << 31;
    for (int i = 0; i <= LAST_ISA; i++) bits |= (unsigned)has(words, (fp4moe_isa)i) << i;
    atomic_store_explicit(&known, bits, memory_order_relaxed);
  }
  return isa <= LAST_ISA && (bits >> isa & 1);
}

void fp4moe_cpu_identify(fp4moe_cpu_id *id) {
  uint32_t a = 0, b = 0, c = 0, d = 0, name[12] = {0};
  memset(id, 0, sizeof *id);
  __get_cpuid(0, &a, &b, &c, &d);
  memcpy(id->vendor, &b, 4);
  memcpy(id->vendor + 4, &d, 4);
  memcpy(id->vendor + 8, &c, 4);
  __get_cpuid(1, &a, &b, &c, &d);
  id->family = (a >> 8 & 15) == 15 ? 15 + (a >> 20 & 255) : a >> 8 & 15;
  id->model = (a >> 4 & 15) | (a >> 16 & 15) << 4;
  id->stepping = a & 15;
  for (uint32_t i = 0; i < 3; i++)
    if (!__get_cpuid(0x80000002 + i, &name[4 * i], &name[4 * i + 1], &name[4 * i + 2],
                     &name[4 * i + 3]))
      name[0] = 0;
  memcpy(id->name, name, sizeof name);
  if (!id->name[0]) strcpy(id->name, "unknown");
}

uint64_t fp4moe_fp_enter(void) {
  uint32_t old, canonical = 0x1f80;
  __asm__ volatile("stmxcsr %0" : "=m"(old));
  __asm__ volatile("ldmxcsr %0" ::"m"(canonical));
  return old;
}

void fp4moe_fp_leave(uint64_t mode) {
  uint32_t old = (uint32_t)mode;
  __asm__ volatile("ldmxcsr %0" ::"m"(old));
}

void fp4moe_cpu_relax(void) { __builtin_ia32_pause(); }

static int isa_is_ours(int isa) { return isa <= LAST_ISA; }

#else
#include <sys/auxv.h>

#define LAST_ISA FP4MOE_ISA_bf16neon

/* Bits of HWCAP and HWCAP2 (asm/hwcap.h). What the compiler takes for armv8.2-a goes with SDOT:
 * CRC32, ATOMICS, ASIMDRDM. */
static const struct {
  uint64_t cap, cap2;
} isa_bits[LAST_ISA + 1] = {
#define ASIMD    (UINT64_C(1) << 1)
#define ASIMDDP                                                                                    \
  (ASIMD | UINT64_C(1) << 7 | UINT64_C(1) << 8 | UINT64_C(1) << 12 | UINT64_C(1) << 20)
#define I8MM (UINT64_C(1) << 13)
#define BF16 (UINT64_C(1) << 14)
    [FP4MOE_ISA_neon] = {ASIMD, 0},
    [FP4MOE_ISA_dotprod] = {ASIMDDP, 0},
    [FP4MOE_ISA_i8mm] = {ASIMDDP, I8MM},
    [FP4MOE_ISA_bf16neon] = {ASIMDDP, I8MM | BF16},
};

int fp4moe_cpu_has(fp4moe_isa isa) {
  if (isa == FP4MOE_ISA_c) return 1;
  if (!isa_bits[isa].cap) return 0;
  return !(isa_bits[isa].cap & ~getauxval(AT_HWCAP)) &&
         !(isa_bits[isa].cap2 & ~getauxval(AT_HWCAP2));
}

void fp4moe_cpu_identify(fp4moe_cpu_id *id) {
  uint64_t midr = 0;
  memset(id, 0, sizeof *id);
  if (getauxval(AT_HWCAP) >> 11 & 1) /* CPUID registers are readable */
    __asm__("mrs %0, MIDR_EL1" : "=r"(midr));
  strcpy(id->vendor, "arm");
  strcpy(id->name, "unknown");
  id->family = (unsigned)(midr >> 24 & 255);
  id->model = (unsigned)(midr >> 4 & 0xfff);
  id->stepping = (unsigned)((midr >> 20 & 15) << 4 | (midr & 15));
}

uint64_t fp4moe_fp_enter(void) {
  uint64_t old;
  __asm__ volatile("mrs %0, fpcr" : "=r"(old));
  __asm__ volatile("msr fpcr, %0" ::"r"(UINT64_C(0)));
  return old;
}

void fp4moe_fp_leave(uint64_t mode) { __asm__ volatile("msr fpcr, %0" ::"r"(mode)); }

void fp4moe_cpu_relax(void) { __asm__ volatile("yield"); }

static int isa_is_ours(int isa) { return isa == FP4MOE_ISA_c || isa >= FP4MOE_ISA_neon; }
#endif

fp4moe_isa fp4moe_cpu_best(fp4moe_isa cap) {
  fp4moe_isa best = FP4MOE_ISA_c;
  for (int i = 0; i <= (int)cap; i++)
    if (fp4moe_cpu_has((fp4moe_isa)i)) best = (fp4moe_isa)i;
  return best;
}

int fp4moe_isa_parse(const char *word) {
  for (int i = 0; i < FP4MOE_ISAS; i++)
    if (!strcmp(word, isa_names[i]) && isa_is_ours(i)) return i;
  return -1;
}
