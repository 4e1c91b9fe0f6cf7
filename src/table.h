/* table.h - the selection table: what the tuner measured on this machine, as text.
 *
 *   fp4moe-table 3
 *   arch x86_64
 *   cpu AuthenticAMD 25 17 1
 *   isa avx512bf16
 *   topology packages=1 nodes=1 cores=2 pus=2 l2=1048576 l3=33554432
 *   soft microcode=... kernel=... compiler=...
 *   kernel fp4moe_gemv_mx_bf16_1x16_avx512bf16@1        one per row known to the tuner
 *   partial 3 of 12                                    steps done by a run that was interrupted
 *   recipe phase=gate_up format=mxfp4 class=bf16 n=5760 k=2880 gated=1 rows=1 cores=2 ns=1234
 *          noise=4000 gemv=NAME@REV panels=2 prefetch=4096          (on one line)
 *   recipe ... unpack=NAME@REV gemm=NAME@REV panels=4 k_block=0 prefetch=1
 *   schedule format=mxfp4 class=bf16 hidden=2880 intermediate=2880 tokens=1 threads=2 ns=1
 *          noise=30000 workers=2 share=4                 (on one line)
 *   gain format=mxfp4 class=bf16 hidden=2880 intermediate=2880 gated=1 rows=1 cores=2 threads=2
 *          ns=1 ratio=1034000 noise=4000 kept=1          (on one line)
 *   placement cores=32 nodes=2 pus=64 ns=1234 noise=4000 word=all_pus shards=2
 *   end 4                                                entries above; a torn file lacks it
 *
 * The header is taken whole or the file is refused, with the line and both values. An entry whose
 * kernel is gone or revised, or that does not parse, is dropped and reported. rows and tokens name
 * a bucket by its largest m; noise is the bound of the race in millionths: what took up to so much
 * longer than the fastest was equal to it, and where there were two races what they differ by on
 * top of it. Of what was equal the tuner's fixed order chose: that has the least ns, and whatever
 * else was as fast follows 1 ns behind; so does the static order where it lost. A schedule moves no
 * bits, a recipe is never keyed by threads. A gain is evidence and chooses nothing: the whole layer
 * of the entries above against the static order. A placement is of the host, where it has more than
 * one: what may be used of it is the key; word as fp4moe_context_desc.placement, shards of a
 * layer's weights. Version 2 is read as well: it is 3 without gains and placements. */
#ifndef FP4MOE_TABLE_H
#define FP4MOE_TABLE_H

#include "host.h"
#include "plan.h"
#include "text.h"

typedef struct fp4moe_recipe_entry {
  int phase, format, act, gated, bucket;
  size_t n, k, cores;
  uint64_t ns;    /* measured */
  uint32_t noise; /* of its race, in millionths */
  fp4moe_recipe recipe;
} fp4moe_recipe_entry;

typedef struct fp4moe_schedule_entry {
  int format, act;
  size_t hidden, intermediate;
  uint64_t ns;
  uint32_t noise; /* as a recipe's; 0: written before it was stored */
  fp4moe_schedule schedule;
} fp4moe_schedule_entry;

/* The tuner's last step for a shape and its rows per expert: calls of the whole layer, the static
 * order's time over the tuned one's in the same round. What lost gave way to the static order. A
 * linear's line has linear=1. */
typedef struct fp4moe_gain_entry {
  int format, act, gated, bucket;
  int linear; /* 1: of one matrix, N = hidden, K = intermediate: the second phase alone */
  int kept;   /* 0: the static order was faster, and is what these rows have now */
  uint32_t cores, threads;
  size_t hidden, intermediate;
  uint64_t ns;    /* tuned */
  uint32_t ratio; /* static over tuned, the middle of the rounds, in millionths */
  uint32_t noise; /* of the ratio, in millionths */
} fp4moe_gain_entry;

typedef struct fp4moe_placement_entry {
  fp4moe_placement_key key;
  uint64_t ns;
  uint32_t noise;
  fp4moe_placement placement;
  size_t shards;
} fp4moe_placement_entry;

typedef struct fp4moe_table {
  char path[512];
  size_t refused; /* the line that does not fit: no entry is used. 0: none; 1: the version's */
  size_t partial, partial_of; /* steps done by a run that was interrupted; 0, 0: none was */
  char *report; /* lines: refusal, dropped entries, soft differences, rows not yet tuned */
  size_t recipes, schedules, gains, placements, dropped;
  fp4moe_recipe_entry *recipe; /* sorted: key, then ns */
  fp4moe_schedule_entry *schedule;
  fp4moe_gain_entry *gain;
  fp4moe_placement_entry *placement;
} fp4moe_table;

/* Reads a table. A table that is refused is FP4MOE_OK with `refused`. SYSTEM: cannot be read. */
fp4moe_status fp4moe_table_load(const char *path, const fp4moe_host *host, fp4moe_isa isa,
                                fp4moe_table **table);
void fp4moe_table_free(fp4moe_table *table);

/* Writes a table for this host: temporary file, fsync, rename, under a lock file; directories of
 * the path are made. SYSTEM: nothing has changed. */
fp4moe_status fp4moe_table_save(const char *path, const fp4moe_host *host, fp4moe_isa isa,
                                const fp4moe_table *table);

/* 1: entries of the same phase, class, shape, rows and cores, which raced with each other. */
int fp4moe_same_race(const fp4moe_recipe_entry *a, const fp4moe_recipe_entry *b);

/* How a recipe entry answers a key. */
typedef enum fp4moe_match {
  FP4MOE_MATCH_NONE = 0,
  FP4MOE_MATCH_NEAREST,
  FP4MOE_MATCH_PROVEN, /* the static order: the tuner of exactly this shape found nothing faster */
  FP4MOE_MATCH_EXACT
} fp4moe_match;

typedef struct fp4moe_recipe_key {
  int phase, format, act, gated, bucket;
  size_t n, k, cores;
} fp4moe_recipe_key;

/* Above it N is as far as it: rows of panels stream by, and a matmul's speed then depends on K and
 * m. So an LM head finds entries of MoE layers. */
enum { FP4MOE_MANY_N = 4096 };

/* The (N, K, cores) among the entries that serves the key: the exact shape, else the least
 * |log2 N ratio| + |log2 K ratio| up to 2.0 (ties to the larger K); then the nearest core count.
 * Down has one half whether gate/up has two or not: entries of the other gating serve it too where
 * those of its own are no nearer. *first, *count: its candidates by measured time, none where the
 * shape was tuned to the end on as many cores and has entries for other rows only. */
fp4moe_match fp4moe_table_find(const fp4moe_table *table, const fp4moe_recipe_key *key,
                               size_t *first, size_t *count);

/* The placement of a host: EXACT, or NEAREST by cores, then nodes, then PUs. NONE: there is none.
 */
fp4moe_match fp4moe_table_place(const fp4moe_table *table, const fp4moe_placement_key *key,
                                const fp4moe_placement_entry **entry);

/* The lines that must fit, and the one that may differ; entries in key order, then by time. */
void fp4moe_table_header(const fp4moe_host *host, fp4moe_isa isa, char lines[5][192]);
void fp4moe_table_soft(const fp4moe_host *host, char line[192]);
void fp4moe_table_sort(fp4moe_table *table);

/* The order of two recipes that are as fast as each other with the rows of a bucket: tiles that do
 * not wait (fp4moe_tile_waits), then kernels.inc, no K blocks, the usual panels and prefetch
 * (plan.h), and what is near to that. < 0: a stands first. */
int fp4moe_recipe_order(const fp4moe_recipe *a, const fp4moe_recipe *b, int bucket);

const char *fp4moe_format_name(int format); /* "mxfp4", "nvfp4" */
const char *fp4moe_class_name(int act);     /* "f32", "bf16", "int8", "mxfp8", "nvfp4" */
const char *fp4moe_phase_name(int phase);   /* "gate_up", "down" */

/* The default path to write: FP4MOE_TABLE's, else root /etc/fp4moe/table, else the cache's. */
fp4moe_status fp4moe_table_default_path(char *buf, size_t cap);

#endif
