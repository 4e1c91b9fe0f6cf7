/* host.h - the machine as the library sees it: the key of tables, the PUs that may be used.
 *
 * Read from CPUID/HWCAP, sysfs, the affinity mask and the cgroup's CPU quota (v1 and v2). What a
 * machine does not tell is 0 or "unknown", never a failure. */
#ifndef FP4MOE_HOST_H
#define FP4MOE_HOST_H

#include <sched.h>

#include "cpu.h"
#include "fp4moe.h"
#include "placement.h"

enum { FP4MOE_MAX_CORES = FP4MOE_MAX_PUS };

typedef struct fp4moe_host {
  fp4moe_cpu_id cpu;
  char cpu_model[64]; /* cpu.name, trimmed */
  char topology[128]; /* whole machine: "packages=1 nodes=1 cores=2 pus=2 l2=1048576 l3=33554432" */
  size_t llc_bytes;   /* one last-level cache; 32 MiB when unknown */
  size_t l2_bytes;    /* one L2; 1 MiB when unknown */
  size_t allowed_cores;          /* physical cores under the affinity mask, before the quota */
  size_t threads;                /* the same, and at most the CPU quota rounded up; >= 1 */
  size_t quota;                  /* CPUs of the quota, rounded up; 0: none */
  size_t pus;                    /* allowed ones */
  fp4moe_pu pu[FP4MOE_MAX_PUS];  /* ascending */
  int core_pu[FP4MOE_MAX_CORES]; /* placement per_core */
  char microcode[32], kernel[64];
} fp4moe_host;

void fp4moe_host_read(fp4moe_host *host);

/* What of the machine may be used: the key of placements. */
typedef struct fp4moe_placement_key {
  size_t cores; /* fp4moe_host.threads */
  size_t nodes; /* that have an allowed PU */
  size_t pus;   /* allowed ones */
} fp4moe_placement_key;
fp4moe_placement_key fp4moe_host_key(const fp4moe_host *host);

/* The PUs of a placement by its word, or of a list such as "8,0-3", in that order. pu
 * [FP4MOE_MAX_PUS]. INVALID: the word, or a PU that is not allowed or stands there twice. */
fp4moe_status fp4moe_host_place(const fp4moe_host *host, const char *text, int *pu, size_t *count);

#endif
