/* table_write.c - writes the selection table: whole, or not at all.
 *
 * The text is made in memory, goes to a temporary file beside the target, is synced, and takes the
 * target's name by rename; a lock file keeps two writers apart. A reader sees the old table or the
 * new one. The temporary file of a writer that was killed has the same name, and the next writer
 * removes it. */
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

static void add_recipe(fp4moe_text *t, const fp4moe_recipe_entry *e) {
  const fp4moe_recipe *r = &e->recipe;
  fp4moe_text_add(
      t,
      "recipe phase=%s format=%s class=%s n=%zu k=%zu gated=%d rows=%zu cores=%zu ns=%" PRIu64
      " noise=%u",
      fp4moe_phase_name(e->phase), fp4moe_format_name(e->format), fp4moe_class_name(e->act), e->n,
      e->k, e->gated, fp4moe_bucket_rows(e->bucket), e->cores, e->ns, e->noise);
  if (r->gemv)
    fp4moe_text_add(t, " gemv=%s@%u", r->gemv->name, r->gemv->revision);
  else
    fp4moe_text_add(t, " unpack=%s@%u gemm=%s@%u k_block=%u", r->unpack->name, r->unpack->revision,
                    r->gemm->name, r->gemm->revision, r->k_block);
  fp4moe_text_add(t, " panels=%u prefetch=%u\n", r->panels, r->prefetch);
}

static void add_schedule(fp4moe_text *t, const fp4moe_schedule_entry *e) {
  fp4moe_text_add(
      t,
      "schedule format=%s class=%s hidden=%zu intermediate=%zu tokens=%zu threads=%u ns=%" PRIu64
      " noise=%u workers=%u share=%u\n",
      fp4moe_format_name(e->format), fp4moe_class_name(e->act), e->hidden, e->intermediate,
      fp4moe_bucket_rows((int)e->schedule.bucket), e->schedule.threads, e->ns, e->noise,
      e->schedule.workers, e->schedule.share);
}

static void add_gain(fp4moe_text *t, const fp4moe_gain_entry *e) {
  fp4moe_text_add(t,
                  "gain format=%s class=%s hidden=%zu intermediate=%zu gated=%d%s rows=%zu "
                  "cores=%u threads=%u ns=%" PRIu64 " ratio=%u noise=%u kept=%d\n",
                  fp4moe_format_name(e->format), fp4moe_class_name(e->act), e->hidden,
                  e->intermediate, e->gated, e->linear ? " linear=1" : "",
                  fp4moe_bucket_rows(e->bucket), e->cores, e->threads, e->ns, e->ratio, e->noise,
                  e->kept);
}

static void add_placement(fp4moe_text *t, const fp4moe_placement_entry *e) {
  fp4moe_text_add(
      t, "placement cores=%zu nodes=%zu pus=%zu ns=%" PRIu64 " noise=%u word=%s shards=%zu\n",
      e->key.cores, e->key.nodes, e->key.pus, e->ns, e->noise, fp4moe_placement_name(e->placement),
      e->shards);
}

static void add_table(fp4moe_text *text, const fp4moe_host *host, fp4moe_isa isa,
                      const fp4moe_table *t) {
  char header[5][192], soft[192];
  fp4moe_table_header(host, isa, header);
  fp4moe_table_soft(host, soft);
  for (int i = 0; i < 5; i++) fp4moe_text_add(text, "%s\n", header[i]);
  fp4moe_text_add(text, "%s\n", soft);
  if (t->partial_of) fp4moe_text_add(text, "partial %zu of %zu\n", t->partial, t->partial_of);
  for (size_t i = 0; i < fp4moe_kernel_count; i++)
    if (fp4moe_cpu_has(fp4moe_kernels[i].isa))
      fp4moe_text_add(text, "kernel %s@%u\n", fp4moe_kernels[i].name, fp4moe_kernels[i].revision);
  for (size_t i = 0; i < t->recipes; i++) add_recipe(text, &t->recipe[i]);
  for (size_t i = 0; i < t->schedules; i++) add_schedule(text, &t->schedule[i]);
  for (size_t i = 0; i < t->gains; i++) add_gain(text, &t->gain[i]);
  for (size_t i = 0; i < t->placements; i++) add_placement(text, &t->placement[i]);
  fp4moe_text_add(text, "end %zu\n", t->recipes + t->schedules + t->gains + t->placements);
}

/* The table's text in new memory; NULL: none. */
static char *make_text(const fp4moe_host *host, fp4moe_isa isa, const fp4moe_table *table,
                       size_t *bytes) {
  fp4moe_text text = {0};
  add_table(&text, host, isa, table);
  *bytes = text.needed;
  text = (fp4moe_text){malloc(*bytes + 1), *bytes + 1, 0};
  if (text.buf) add_table(&text, host, isa, table);
  return text.buf;
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

static int write_bytes(int fd, const char *text, size_t bytes) {
  for (size_t done = 0; done < bytes;) {
    ssize_t put = pwrite(fd, text + done, bytes - done, (off_t)done);
    if (put < 0 && errno == EINTR) continue;
    if (put == 0) errno = ENOSPC;
    if (put <= 0) return -1;
    done += (size_t)put;
  }
  return 0;
}

static fp4moe_status write_temporary(const char *temporary, const char *text, size_t bytes) {
  if (unlink(temporary) && errno != ENOENT) return failed("remove", temporary);
  int fd = open(temporary, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
  if (fd < 0) return failed("write", temporary);
  int bad = write_bytes(fd, text, bytes) || fsync(fd);
  fp4moe_status status = bad ? failed("write", temporary) : FP4MOE_OK;
  if (close(fd) && !bad) status = failed("close", temporary);
  return status;
}

static int lock_file(int fd) {
  int end;
  while ((end = flock(fd, LOCK_EX)) && errno == EINTR) continue;
  return end;
}

/* Under the lock file of the path. */
static fp4moe_status replace(const char *path, const char *text, size_t bytes) {
  char lock[PATH_BYTES], temporary[PATH_BYTES];
  snprintf(lock, sizeof lock, "%s.lock", path);
  snprintf(temporary, sizeof temporary, "%s.tmp", path);
  int fd = open(lock, O_CREAT | O_RDWR | O_CLOEXEC, 0644);
  if (fd < 0 || lock_file(fd)) {
    fp4moe_status status = failed("lock", lock);
    if (fd >= 0) close(fd);
    return status;
  }
  fp4moe_status status = write_temporary(temporary, text, bytes);
  if (!status && rename(temporary, path)) status = failed("rename to", path);
  if (status) unlink(temporary);
  close(fd);
  return status;
}

fp4moe_status fp4moe_table_save(const char *path, const fp4moe_host *host, fp4moe_isa isa,
                                const fp4moe_table *table) {
  size_t bytes;
  if (strlen(path) + 32 > PATH_BYTES)
    return fp4moe_fail(FP4MOE_INVALID, "the table's path is too long");
  char *text = make_text(host, isa, table, &bytes);
  if (!text) return fp4moe_fail(FP4MOE_NO_MEMORY, "table %s: %zu bytes of text", path, bytes);
  make_directories(path);
  fp4moe_status status = replace(path, text, bytes);
  free(text);
  return status;
}
