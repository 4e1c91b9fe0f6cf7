/* host.c - reads the machine (see host.h). */
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "host.h"
#include "status.h"

/* The first line of a file, without memory of its own: what a machine tells must not depend on
 * whether there is any. */
static int read_line(const char *path, char *buf, size_t cap) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t bytes = fd < 0 ? -1 : read(fd, buf, cap - 1);
  if (fd >= 0) close(fd);
  if (bytes <= 0) return 0;
  buf[bytes] = 0;
  buf[strcspn(buf, "\n")] = 0;
  return 1;
}

static long read_cpu_number(int cpu, const char *name, long missing) {
  char path[128], buf[64];
  snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/%s", cpu, name);
  return read_line(path, buf, sizeof buf) ? strtol(buf, NULL, 10) : missing;
}

/* Calls each for every number of a list such as "0-3,8". */
static void for_list(const char *list, void (*each)(int i, void *arg), void *arg) {
  while (*list) {
    char *end;
    long a = strtol(list, &end, 10), b = a;
    if (end == list) return;
    if (*end == '-') b = strtol(end + 1, &end, 10);
    for (long i = a; i <= b && i >= 0; i++) each((int)i, arg);
    list = *end == ',' ? end + 1 : end;
  }
}

/* A line about the cpu's cache of a level (data or unified). 0: there is none. */
static int read_cache(int cpu, long level, const char *what, char *buf, size_t cap) {
  for (int i = 0; i < 8; i++) {
    char name[64], path[128];
    snprintf(name, sizeof name, "cache/index%d/level", i);
    if (read_cpu_number(cpu, name, 0) != level) continue;
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cache/index%d/type", cpu, i);
    if (read_line(path, buf, cap) && !strcmp(buf, "Instruction")) continue;
    snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cache/index%d/%s", cpu, i, what);
    if (read_line(path, buf, cap)) return 1;
  }
  return 0;
}

static size_t cache_bytes(int cpu, long level) {
  char buf[64], *unit;
  if (!read_cache(cpu, level, "size", buf, sizeof buf)) return 0;
  size_t n = strtoul(buf, &unit, 10);
  return *unit == 'K' ? n << 10 : *unit == 'M' ? n << 20 : n;
}

typedef struct {
  int first; /* lowest online PU */
  size_t pus;
  size_t packages, cores;
  long seen_package[64];
  long seen_core[FP4MOE_MAX_CORES];
  cpu_set_t online, allowed;
  fp4moe_host *host;
} scan;

static long package_of(int cpu) { return read_cpu_number(cpu, "topology/physical_package_id", 0); }
static long core_of(int cpu) {
  return package_of(cpu) << 32 | read_cpu_number(cpu, "topology/core_id", cpu);
}

static int is_new(long *seen, size_t *count, size_t cap, long value) {
  for (size_t i = 0; i < *count; i++)
    if (seen[i] == value) return 0;
  if (*count < cap) seen[(*count)++] = value;
  return 1;
}

static void count_online(int cpu, void *arg) {
  scan *s = arg;
  if (!s->pus++) s->first = cpu;
  if (cpu < CPU_SETSIZE) CPU_SET((size_t)cpu, &s->online);
  is_new(s->seen_package, &s->packages, 64, package_of(cpu));
  is_new(s->seen_core, &s->cores, FP4MOE_MAX_CORES, core_of(cpu));
}

typedef struct {
  const cpu_set_t *online;
  int pu;
} lowest;

static void keep_lowest(int cpu, void *arg) {
  lowest *l = arg;
  if (l->pu < 0 && cpu < CPU_SETSIZE && CPU_ISSET((size_t)cpu, l->online)) l->pu = cpu;
}

/* The lowest PU under the cpu's L3 that is online: the system's list names others too. -1: no L3.
 */
static int l3_of(int cpu, const cpu_set_t *online) {
  char list[1024];
  lowest l = {online, -1};
  if (read_cache(cpu, 3, "shared_cpu_list", list, sizeof list)) for_list(list, keep_lowest, &l);
  return l.pu;
}

static void add_allowed(int cpu, void *arg) {
  scan *s = arg;
  if (cpu >= CPU_SETSIZE || !CPU_ISSET((size_t)cpu, &s->allowed)) return;
  if (s->host->pus == FP4MOE_MAX_PUS) return;
  fp4moe_pu *pu = &s->host->pu[s->host->pus++];
  pu->pu = cpu;
  pu->core = (int)read_cpu_number(cpu, "topology/thread_siblings_list", cpu);
  pu->l3 = l3_of(cpu, &s->online);
  pu->speed = (int)read_cpu_number(cpu, "cpu_capacity", 0);
}

static void count_node(int node, void *arg) {
  (void)node;
  ++*(size_t *)arg;
}

/* What a list of PUs, such as those of a node, says about the allowed ones. */
typedef struct {
  fp4moe_host *host;
  size_t field; /* an int of fp4moe_pu */
  int value;
} mark;

static void set_field(int cpu, void *arg) {
  const mark *m = arg;
  for (size_t i = 0; i < m->host->pus; i++)
    if (m->host->pu[i].pu == cpu)
      memcpy((char *)&m->host->pu[i] + m->field, &m->value, sizeof m->value);
}

static void mark_list(const char *path, mark m) {
  char list[1024];
  if (read_line(path, list, sizeof list)) for_list(list, set_field, &m);
}

static void mark_node(int node, void *arg) {
  char path[64];
  snprintf(path, sizeof path, "/sys/devices/system/node/node%d/cpulist", node);
  mark_list(path, (mark){arg, offsetof(fp4moe_pu, node), node});
}

/* x86 hybrids name their kinds of core; elsewhere cpu_capacity tells. */
static void mark_kinds(fp4moe_host *host) {
  size_t speed = offsetof(fp4moe_pu, speed);
  mark_list("/sys/devices/cpu_core/cpus", (mark){host, speed, 2});
  mark_list("/sys/devices/cpu_atom/cpus", (mark){host, speed, 1});
}

static double quota_of(const char *quota_path, const char *period_path) {
  char q[64], p[64];
  if (!read_line(quota_path, q, sizeof q) || !strncmp(q, "max", 3)) return 0;
  double quota = strtod(q, NULL), period = 0;
  char *space = strchr(q, ' '); /* v2: "quota period" in one file */
  if (space)
    period = strtod(space, NULL);
  else if (period_path && read_line(period_path, p, sizeof p))
    period = strtod(p, NULL);
  return quota > 0 && period > 0 ? quota / period : 0;
}

/* CPUs granted by the cgroup as seen from inside, 0 = no limit. */
static double cpu_quota(void) {
  double v2 = quota_of("/sys/fs/cgroup/cpu.max", NULL);
  return v2 > 0 ? v2
                : quota_of("/sys/fs/cgroup/cpu/cpu.cfs_quota_us",
                           "/sys/fs/cgroup/cpu/cpu.cfs_period_us");
}

static void read_soft(fp4moe_host *host) {
  struct utsname u;
  strcpy(host->kernel, "unknown");
  if (!uname(&u)) snprintf(host->kernel, sizeof host->kernel, "%.63s", u.release);
  if (!read_line("/sys/devices/system/cpu/cpu0/microcode/version", host->microcode,
                 sizeof host->microcode))
    strcpy(host->microcode, "unknown");
}

static void read_allowed(fp4moe_host *host, scan *s, const char *online, const char *nodes) {
  if (sched_getaffinity(0, sizeof s->allowed, &s->allowed)) CPU_ZERO(&s->allowed);
  for_list(online, add_allowed, s);
  if (!host->pus) host->pu[host->pus++] = (fp4moe_pu){s->first, s->first, -1, 0, 0};
  for_list(nodes, mark_node, host);
  mark_kinds(host);
  size_t cores = fp4moe_place(host->pu, host->pus, FP4MOE_PER_CORE, host->core_pu);
  double quota = cpu_quota();
  host->quota = quota > 0.001 ? (size_t)(quota + 0.999) : quota > 0;
  host->allowed_cores = cores;
  host->threads = host->quota && host->quota < cores ? host->quota : cores;
}

void fp4moe_host_read(fp4moe_host *host) {
  scan all = {0}, *s = &all;
  char online[1024] = "0", nodes[1024] = "0";
  size_t node_count = 0;
  memset(host, 0, sizeof *host);
  host->threads = host->allowed_cores = 1;
  fp4moe_cpu_identify(&host->cpu);
  const char *name = host->cpu.name + strspn(host->cpu.name, " ");
  snprintf(host->cpu_model, sizeof host->cpu_model, "%s", name);
  for (size_t n = strlen(host->cpu_model); n && host->cpu_model[n - 1] == ' '; n--)
    host->cpu_model[n - 1] = 0;
  read_soft(host);
  s->host = host;
  read_line("/sys/devices/system/cpu/online", online, sizeof online);
  read_line("/sys/devices/system/node/online", nodes, sizeof nodes);
  for_list(online, count_online, s);
  for_list(nodes, count_node, &node_count);
  size_t l2 = cache_bytes(s->first, 2), l3 = cache_bytes(s->first, 3);
  snprintf(host->topology, sizeof host->topology,
           "packages=%zu nodes=%zu cores=%zu pus=%zu l2=%zu l3=%zu", s->packages, node_count,
           s->cores, s->pus, l2, l3);
  host->l2_bytes = l2 ? l2 : (size_t)1 << 20;
  host->llc_bytes = l3 ? l3 : l2 ? l2 : (size_t)32 << 20;
  read_allowed(host, s, online, nodes);
}

/* ---- Placements ---- */

fp4moe_placement_key fp4moe_host_key(const fp4moe_host *host) {
  fp4moe_placement_key key = {.cores = host->threads, .pus = host->pus};
  for (size_t i = 0; i < host->pus; i++) {
    size_t j = 0;
    while (host->pu[j].node != host->pu[i].node) j++;
    key.nodes += j == i;
  }
  return key;
}

static fp4moe_status add_pu(const fp4moe_host *host, long number, int *pu, size_t *count) {
  int allowed = 0, twice = 0;
  for (size_t i = 0; i < host->pus; i++) allowed |= host->pu[i].pu == number;
  for (size_t i = 0; i < *count; i++) twice |= pu[i] == number;
  if (!allowed || twice)
    return fp4moe_fail(FP4MOE_INVALID, "placement: PU %ld %s", number,
                       twice ? "stands there twice" : "is not there or not allowed");
  pu[(*count)++] = (int)number;
  return FP4MOE_OK;
}

static fp4moe_status place_list(const fp4moe_host *host, const char *text, int *pu, size_t *count) {
  fp4moe_status status = FP4MOE_OK;
  for (const char *at = text; !status && (at == text || *at++ == ',');) {
    char *end;
    if (*at < '0' || *at > '9') break;
    long a = strtol(at, &end, 10), b = a;
    if (*end == '-' && end[1] >= '0' && end[1] <= '9') b = strtol(end + 1, &end, 10);
    for (long i = a; i <= b && !status; i++) status = add_pu(host, i, pu, count);
    if (!status && a <= b && !*end) return FP4MOE_OK;
    if (a > b) break;
    at = end;
  }
  return status ? status
                : fp4moe_fail(FP4MOE_INVALID,
                              "placement is \"%s\", expected per_core, all_nodes, one_node, "
                              "fast_cores, per_l3, all_pus or a list of PUs",
                              text);
}

fp4moe_status fp4moe_host_place(const fp4moe_host *host, const char *text, int *pu, size_t *count) {
  *count = 0;
  for (int i = 0; i < FP4MOE_PLACEMENTS; i++) {
    if (strcmp(text, fp4moe_placement_name((fp4moe_placement)i))) continue;
    *count = fp4moe_place(host->pu, host->pus, (fp4moe_placement)i, pu);
    if (*count) return FP4MOE_OK;
    return fp4moe_fail(FP4MOE_INVALID, "placement %s: this machine tells of none", text);
  }
  return place_list(host, text, pu, count);
}
