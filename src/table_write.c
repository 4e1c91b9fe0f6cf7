/* table_write.c - writes the selection table: whole, or not at all.
 *
 * The text goes to a temporary file beside the target, is synced, and takes the target's name by
 * rename; a lock file keeps two writers apart. A reader sees the old table or the new one. The
 * temporary file of a writer that was killed has the same name, and the next writer removes it. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "status.h"
#include "table.h"

enum { PATH_BYTES = 600 };

fp4moe_status fp4moe_table_default_path(char *buf, size_t cap) {
  const char *env = getenv("FP4MOE_TABLE"), *cache = getenv("XDG_CACHE_HOME");
  const char *home = getenv("HOME");
  int n;
  if (env && !strcmp(env, "none"))
    return fp4moe_fail(FP4MOE_INVALID, "FP4MOE_TABLE is none: name a file to write");
  if (env && *env)
    n = snprintf(buf, cap, "%s", strncmp(env, "only:", 5) ? env : env + 5);
  else if (!geteuid())
    n = snprintf(buf, cap, "/etc/fp4moe/table");
  else if (cache && *cache)
    n = snprintf(buf, cap, "%s/fp4moe/table", cache);
  else if (home && *home)
    n = snprintf(buf, cap, "%s/.cache/fp4moe/table", home);
  else
    return fp4moe_fail(FP4MOE_INVALID, "neither HOME nor XDG_CACHE_HOME is set: name a file");
  if ((size_t)n >= cap) return fp4moe_fail(FP4MOE_INVALID, "the table's path is too long");
  return FP4MOE_OK;
}

static void write_recipe(FILE *f, const fp4moe_recipe_entry *e) {
  const fp4moe_recipe *r = &e->recipe;
  fprintf(f,
          "recipe phase=%s format=%s class=%s n=%zu k=%zu gated=%d rows=%zu cores=%zu ns=%" PRIu64
          " noise=%u",
          fp4moe_phase_name(e->phase), fp4moe_format_name(e->format), fp4moe_class_name(e->act),
          e->n, e->k, e->gated, fp4moe_bucket_rows(e->bucket), e->cores, e->ns, e->noise);
  if (r->gemv)
    fprintf(f, " gemv=%s@%u", r->gemv->name, r->gemv->revision);
  else
    fprintf(f, " unpack=%s@%u gemm=%s@%u k_block=%u", r->unpack->name, r->unpack->revision,
            r->gemm->name, r->gemm->revision, r->k_block);
  fprintf(f, " panels=%u prefetch=%u\n", r->panels, r->prefetch);
}

static void write_schedule(FILE *f, const fp4moe_schedule_entry *e) {
  fprintf(
      f,
      "schedule format=%s class=%s hidden=%zu intermediate=%zu tokens=%zu threads=%u ns=%" PRIu64
      " workers=%u share=%u\n",
      fp4moe_format_name(e->format), fp4moe_class_name(e->act), e->hidden, e->intermediate,
      fp4moe_bucket_rows((int)e->schedule.bucket), e->schedule.threads, e->ns, e->schedule.workers,
      e->schedule.share);
}

static void write_gain(FILE *f, const fp4moe_gain_entry *e) {
  fprintf(f,
          "gain format=%s class=%s hidden=%zu intermediate=%zu gated=%d%s rows=%zu cores=%u "
          "threads=%u ns=%" PRIu64 " ratio=%u noise=%u kept=%d\n",
          fp4moe_format_name(e->format), fp4moe_class_name(e->act), e->hidden, e->intermediate,
          e->gated, e->linear ? " linear=1" : "", fp4moe_bucket_rows(e->bucket), e->cores,
          e->threads, e->ns, e->ratio, e->noise, e->kept);
}

static void write_placement(FILE *f, const fp4moe_placement_entry *e) {
  fprintf(f, "placement cores=%zu nodes=%zu pus=%zu ns=%" PRIu64 " noise=%u word=%s shards=%zu\n",
          e->key.cores, e->key.nodes, e->key.pus, e->ns, e->noise,
          fp4moe_placement_name(e->placement), e->shards);
}

static void write_text(FILE *f, const fp4moe_host *host, fp4moe_isa isa, const fp4moe_table *t) {
  char header[5][192], soft[192];
  fp4moe_table_header(host, isa, header);
  fp4moe_table_soft(host, soft);
  for (int i = 0; i < 5; i++) fprintf(f, "%s\n", header[i]);
  fprintf(f, "%s\n", soft);
  if (t->partial_of) fprintf(f, "partial %zu of %zu\n", t->partial, t->partial_of);
  for (size_t i = 0; i < fp4moe_kernel_count; i++)
    if (fp4moe_cpu_has(fp4moe_kernels[i].isa))
      fprintf(f, "kernel %s@%u\n", fp4moe_kernels[i].name, fp4moe_kernels[i].revision);
  for (size_t i = 0; i < t->recipes; i++) write_recipe(f, &t->recipe[i]);
  for (size_t i = 0; i < t->schedules; i++) write_schedule(f, &t->schedule[i]);
  for (size_t i = 0; i < t->gains; i++) write_gain(f, &t->gain[i]);
  for (size_t i = 0; i < t->placements; i++) write_placement(f, &t->placement[i]);
  fprintf(f, "end %zu\n", t->recipes + t->schedules + t->gains + t->placements);
}

static void make_directories(const char *path) {
  char dir[PATH_BYTES];
  snprintf(dir, sizeof dir, "%s", path);
  for (char *c = dir + 1; *c; c++)
    if (*c == '/') {
      *c = 0;
      mkdir(dir, 0755); /* an error shows when the file is opened */
      *c = '/';
    }
}

static fp4moe_status failed(const char *what, const char *path) {
  return fp4moe_fail(FP4MOE_SYSTEM, "%s %s: %s", what, path, strerror(errno));
}

static fp4moe_status write_temporary(const char *temporary, const fp4moe_host *host, fp4moe_isa isa,
                                     const fp4moe_table *table) {
  if (unlink(temporary) && errno != ENOENT) return failed("remove", temporary);
  int fd = open(temporary, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
  FILE *f = fd < 0 ? NULL : fdopen(fd, "w");
  if (!f) return failed("write", temporary);
  write_text(f, host, isa, table);
  int bad = fflush(f) || ferror(f) || fsync(fileno(f));
  fp4moe_status status = bad ? failed("write", temporary) : FP4MOE_OK;
  if (fclose(f) && !bad) status = failed("close", temporary);
  return status;
}

fp4moe_status fp4moe_table_save(const char *path, const fp4moe_host *host, fp4moe_isa isa,
                                const fp4moe_table *table) {
  char lock[PATH_BYTES], temporary[PATH_BYTES];
  if (strlen(path) + 32 > PATH_BYTES)
    return fp4moe_fail(FP4MOE_INVALID, "the table's path is too long");
  snprintf(lock, sizeof lock, "%s.lock", path);
  snprintf(temporary, sizeof temporary, "%s.tmp", path);
  make_directories(path);
  int fd = open(lock, O_CREAT | O_RDWR | O_CLOEXEC, 0644);
  if (fd < 0 || flock(fd, LOCK_EX)) {
    fp4moe_status status = failed("lock", lock);
    if (fd >= 0) close(fd);
    return status;
  }
  fp4moe_status status = write_temporary(temporary, host, isa, table);
  if (!status && rename(temporary, path)) status = failed("rename to", path);
  if (status) unlink(temporary);
  close(fd);
  return status;
}
