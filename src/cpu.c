/* cpu.c - ISA detection and floating-point mode (see cpu.h).
 *
 * A suffix of kernels/ needs exactly the bits that isas.inc gives it, and the Makefile compiles it
 * with the flags of the same bits. AVX state is usable only where XCR0 says that the system saves
 * it. */
#include <stdatomic.h>
#include <string.h>

#include "cpu.h"

/* Bit i of a mask stands for word i of isas.inc. */
enum {
#define X86_BIT(word, ...) PLACE_##word,
#define ARM_BIT(word, ...) PLACE_##word,
#include "isas.inc"
  WORDS
};
enum {
#define X86_BIT(word, ...) word = 1 << PLACE_##word,
#define ARM_BIT(word, ...) word = 1 << PLACE_##word,
#include "isas.inc"
};

static const struct {
  const char *name;
  uint32_t bits;
} isas[] = {
#define ISA(suffix, arch, bits) {#suffix, bits},
#include "isas.inc"
};

const char *fp4moe_isa_name(fp4moe_isa isa) { return isas[isa].name; }

#if defined(__x86_64__)
#include <cpuid.h>

/* Registers as CPUID returns them; what XCR0 must have. */
enum { EAX, EBX, ECX, EDX, REGISTERS };
enum { YMM = 0x6, ZMM = 0xe6, OSXSAVE = 1 << 27 };

static const struct cpu_bit {
  uint32_t mask, leaf, subleaf;
  uint8_t reg, bit, state;
} own_bits[] = {
#define X86_BIT(word, leaf, subleaf, reg, bit, state) {word, leaf, subleaf, reg, bit, state},
#include "isas.inc"
};

static uint64_t read_xcr0(void) {
  uint32_t lo, hi;
  __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
  return (uint64_t)hi << 32 | lo;
}

/* The words that this machine has. Under a hypervisor a leaf takes some 30 us. */
static uint32_t read_bits(void) {
  uint32_t r[REGISTERS] = {0}, leaf = 0, subleaf = 0, bits = 0;
  __get_cpuid(1, &r[EAX], &r[EBX], &r[ECX], &r[EDX]);
  const uint64_t state = r[ECX] & OSXSAVE ? read_xcr0() : 0;
  for (size_t i = 0; i < sizeof own_bits / sizeof *own_bits; i++) {
    const struct cpu_bit *b = &own_bits[i];
    if (b->leaf != leaf || b->subleaf != subleaf) {
      leaf = b->leaf, subleaf = b->subleaf;
      memset(r, 0, sizeof r); /* what is not there has no bits */
      __get_cpuid_count(leaf, subleaf, &r[EAX], &r[EBX], &r[ECX], &r[EDX]);
    }
    if ((r[b->reg] >> b->bit & 1) && (state & b->state) == b->state) bits |= b->mask;
  }
  return bits;
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

#else
#include <sys/auxv.h>

static const struct cpu_bit {
  uint32_t mask;
  uint64_t cap, cap2;
} own_bits[] = {
#define ARM_BIT(word, hwcap, hwcap2) {word, hwcap, hwcap2},
#include "isas.inc"
};

/* The words that this machine has. */
static uint32_t read_bits(void) {
  uint32_t bits = 0;
  for (const struct cpu_bit *b = own_bits; b < own_bits + sizeof own_bits / sizeof *own_bits; b++)
    if (!(b->cap & ~getauxval(AT_HWCAP)) && !(b->cap2 & ~getauxval(AT_HWCAP2))) bits |= b->mask;
  return bits;
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
#endif

/* A selection asks for every kernel: the machine is asked once. The bit above those of the words
 * says that they are there. */
int fp4moe_cpu_has(fp4moe_isa isa) {
  static atomic_uint known;
  unsigned bits = atomic_load_explicit(&known, memory_order_relaxed);
  if (!bits) {
    bits = read_bits() | 1u << WORDS;
    atomic_store_explicit(&known, bits, memory_order_relaxed);
  }
  return !(isas[isa].bits & ~bits);
}

fp4moe_isa fp4moe_cpu_best(fp4moe_isa cap) {
  fp4moe_isa best = FP4MOE_ISA_c;
  for (int i = 0; i <= (int)cap; i++)
    if (fp4moe_cpu_has((fp4moe_isa)i)) best = (fp4moe_isa)i;
  return best;
}

/* 1: all its bits are such as this architecture can have. */
static int is_ours(fp4moe_isa isa) {
  uint32_t ours = 0;
  for (size_t i = 0; i < sizeof own_bits / sizeof *own_bits; i++) ours |= own_bits[i].mask;
  return !(isas[isa].bits & ~ours);
}

int fp4moe_isa_parse(const char *word) {
  for (int i = 0; i < FP4MOE_ISAS; i++)
    if (!strcmp(word, isas[i].name) && is_ours((fp4moe_isa)i)) return i;
  return -1;
}
