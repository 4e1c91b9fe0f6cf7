/* table.c - reads the selection table (table.h).
 *
 * Input is hostile: lines are bounded, every number is checked, an entry that does not parse is
 * dropped by line number. Nothing that stands in a table can do more than pick another kernel of
 * the same class. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "status.h"
#include "table.h"

enum { MAX_BYTES = 8 << 20, REPORT_BYTES = 16384, MAX_WORDS = 24 };

static const char *const format_names[] = {"mxfp4", "nvfp4"};
/* Entries have the first three; the others name quantisers (kernel.h). */
static const char *const class_names[] = {"f32", "bf16", "int8", "mxfp8", "nvfp4"};
static const char *const phase_names[] = {"gate_up", "down"};

const char *fp4moe_format_name(int format) { return format_names[format]; }
const char *fp4moe_class_name(int act) { return class_names[act]; }
const char *fp4moe_phase_name(int phase) { return phase_names[phase]; }

/* ---- Lines ---- */

typedef struct {
  fp4moe_table *table;
  fp4moe_text report;
  size_t line;
  size_t recipe_cap, schedule_cap, gain_cap, placement_cap;
  int no_memory;
  long end;       /* the count of the end line, -1: not seen */
  uint8_t *known; /* [kernel_count] a kernel line names this row and revision */
} reader;

/* key=value words of an entry, each used once. */
typedef struct {
  char *key[MAX_WORDS], *value[MAX_WORDS];
  int used[MAX_WORDS];
  int count;
  const char *wrong; /* the first key that is missing or has a bad value */
} words;

static int split_words(char *line, words *w) {
  char *save = NULL;
  memset(w, 0, sizeof *w);
  for (char *word = strtok_r(line, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
    char *eq = strchr(word, '=');
    if (!eq || w->count == MAX_WORDS) return 0;
    *eq = 0;
    w->key[w->count] = word;
    w->value[w->count++] = eq + 1;
  }
  return 1;
}

static const char *word(words *w, const char *key) {
  for (int i = 0; i < w->count; i++)
    if (!w->used[i] && !strcmp(w->key[i], key)) {
      w->used[i] = 1;
      return w->value[i];
    }
  return NULL;
}

static int has_word(const words *w, const char *key) {
  for (int i = 0; i < w->count; i++)
    if (!strcmp(w->key[i], key)) return 1;
  return 0;
}

/* Decimal digits and nothing else; UINT64_MAX: it is not that, or too large. */
static uint64_t decimal(const char *text) {
  char *end;
  errno = 0;
  if (!text || *text < '0' || *text > '9') return UINT64_MAX;
  uint64_t n = strtoull(text, &end, 10);
  return errno || *end ? UINT64_MAX : n;
}

static uint64_t number(words *w, const char *key, uint64_t most) {
  uint64_t n = decimal(word(w, key));
  if (n == UINT64_MAX || n > most) {
    if (!w->wrong) w->wrong = key;
    return 0;
  }
  return n;
}

static int choice(words *w, const char *key, const char *const *names, int count) {
  const char *text = word(w, key);
  for (int i = 0; text && i < count; i++)
    if (!strcmp(text, names[i])) return i;
  if (!w->wrong) w->wrong = key;
  return 0;
}

static int bucket_word(words *w, const char *key) {
  uint64_t rows = number(w, key, 1 << (FP4MOE_BUCKETS - 1));
  int bucket = fp4moe_bucket((size_t)rows);
  if (fp4moe_bucket_rows(bucket) != rows && !w->wrong) w->wrong = key;
  return bucket;
}

/* A kernel by name@revision; NULL and wrong when it is gone or revised. */
static const fp4moe_kernel *find_kernel(const char *name) {
  const char *at = strrchr(name, '@');
  if (!at) return NULL;
  for (size_t i = 0; i < fp4moe_kernel_count; i++) {
    const fp4moe_kernel *k = &fp4moe_kernels[i];
    if (strlen(k->name) == (size_t)(at - name) && !strncmp(k->name, name, (size_t)(at - name)) &&
        decimal(at + 1) == k->revision)
      return k;
  }
  return NULL;
}

static const fp4moe_kernel *kernel_word(words *w, const char *key, fp4moe_op op, int format,
                                        int act) {
  const char *name = word(w, key);
  const fp4moe_kernel *k = name ? find_kernel(name) : NULL;
  if (name && (!k || k->op != op || (k->act != FP4MOE_ANY && k->act != act) ||
               (k->format != FP4MOE_ANY && k->format != format))) {
    if (!w->wrong) w->wrong = name;
    return NULL;
  }
  return k;
}

static int words_are_done(words *w) {
  for (int i = 0; i < w->count && !w->wrong; i++)
    if (!w->used[i]) w->wrong = w->key[i];
  return !w->wrong;
}

static void *grow(reader *r, void *items, size_t count, size_t *cap, size_t size) {
  size_t more = *cap ? 2 * *cap : 64;
  if (count < *cap) return items;
  void *grown = realloc(items, more * size);
  if (grown) *cap = more;
  r->no_memory |= !grown;
  return grown;
}

static void read_recipe_kernels(words *w, fp4moe_recipe_entry *e) {
  fp4moe_recipe *r = &e->recipe;
  r->gemv = kernel_word(w, "gemv", FP4MOE_OP_GEMV, e->format, e->act);
  if (!r->gemv) {
    r->unpack = kernel_word(w, "unpack", FP4MOE_OP_UNPACK, e->format, e->act);
    r->gemm = kernel_word(w, "gemm", FP4MOE_OP_GEMM, e->format, e->act);
    r->k_block = (uint32_t)number(w, "k_block", 1 << 20);
    int joined = r->unpack && r->gemm && fp4moe_recipe_joins(r->unpack, r->gemm);
    if (!joined && !w->wrong) w->wrong = "unpack and gemm";
    if (r->k_block % 32 && !w->wrong) w->wrong = "k_block";
  }
  r->panels = (uint32_t)number(w, "panels", FP4MOE_MAX_PANELS);
  r->prefetch = (uint32_t)number(w, "prefetch", 1 << 20);
  uint32_t step = fp4moe_panel_step(e->phase, e->gated);
  if ((!r->panels || r->panels % step) && !w->wrong) w->wrong = "panels";
}

static int read_recipe(reader *r, words *w) {
  fp4moe_recipe_entry e = {0};
  e.phase = choice(w, "phase", phase_names, 2);
  e.format = choice(w, "format", format_names, 2);
  e.act = choice(w, "class", class_names, 3);
  e.n = (size_t)number(w, "n", 1 << 22);
  e.k = (size_t)number(w, "k", 1 << 22);
  e.gated = (int)number(w, "gated", 1);
  e.bucket = bucket_word(w, "rows");
  e.cores = (size_t)number(w, "cores", 1 << 16);
  e.ns = number(w, "ns", UINT64_C(1) << 50);
  e.noise = (uint32_t)number(w, "noise", 1000000);
  read_recipe_kernels(w, &e);
  if (!words_are_done(w)) return 0;
  fp4moe_table *t = r->table;
  void *items = grow(r, t->recipe, t->recipes, &r->recipe_cap, sizeof e);
  if (!items) return 0;
  t->recipe = items;
  t->recipe[t->recipes++] = e;
  return 1;
}

static int read_schedule(reader *r, words *w) {
  fp4moe_schedule_entry e = {0};
  e.format = choice(w, "format", format_names, 2);
  e.act = choice(w, "class", class_names, 3);
  e.hidden = (size_t)number(w, "hidden", 1 << 20);
  e.intermediate = (size_t)number(w, "intermediate", 1 << 20);
  e.ns = number(w, "ns", UINT64_C(1) << 50);
  e.noise = has_word(w, "noise") ? (uint32_t)number(w, "noise", 1000000) : 0;
  e.schedule.bucket = (uint32_t)bucket_word(w, "tokens");
  e.schedule.threads = (uint32_t)number(w, "threads", FP4MOE_MAX_CORES);
  e.schedule.workers = (uint32_t)number(w, "workers", e.schedule.threads);
  e.schedule.share = (uint32_t)number(w, "share", 1 << 16);
  if (!e.schedule.workers && !w->wrong) w->wrong = "workers";
  if (!e.schedule.share && !w->wrong) w->wrong = "share";
  if (!words_are_done(w)) return 0;
  fp4moe_table *t = r->table;
  void *items = grow(r, t->schedule, t->schedules, &r->schedule_cap, sizeof e);
  if (!items) return 0;
  t->schedule = items;
  t->schedule[t->schedules++] = e;
  return 1;
}

static int read_gain(reader *r, words *w) {
  fp4moe_gain_entry e = {0};
  e.format = choice(w, "format", format_names, 2);
  e.act = choice(w, "class", class_names, 3);
  e.hidden = (size_t)number(w, "hidden", 1 << 20);
  e.intermediate = (size_t)number(w, "intermediate", 1 << 20);
  e.gated = (int)number(w, "gated", 1);
  e.bucket = bucket_word(w, "rows");
  e.linear = has_word(w, "linear") ? (int)number(w, "linear", 1) : 0;
  e.cores = (uint32_t)number(w, "cores", 1 << 16);
  e.threads = (uint32_t)number(w, "threads", FP4MOE_MAX_CORES);
  e.ns = number(w, "ns", UINT64_C(1) << 50);
  e.ratio = (uint32_t)number(w, "ratio", UINT32_MAX);
  e.noise = (uint32_t)number(w, "noise", 1000000);
  e.kept = (int)number(w, "kept", 1);
  if (!e.ratio && !w->wrong) w->wrong = "ratio";
  if (!words_are_done(w)) return 0;
  fp4moe_table *t = r->table;
  void *items = grow(r, t->gain, t->gains, &r->gain_cap, sizeof e);
  if (!items) return 0;
  t->gain = items;
  t->gain[t->gains++] = e;
  return 1;
}

static int read_placement(reader *r, words *w) {
  const char *names[FP4MOE_PLACEMENTS];
  for (int i = 0; i < FP4MOE_PLACEMENTS; i++) names[i] = fp4moe_placement_name((fp4moe_placement)i);
  fp4moe_placement_entry e = {0};
  e.key.cores = (size_t)number(w, "cores", FP4MOE_MAX_CORES);
  e.key.nodes = (size_t)number(w, "nodes", FP4MOE_MAX_CORES);
  e.key.pus = (size_t)number(w, "pus", FP4MOE_MAX_PUS);
  e.ns = number(w, "ns", UINT64_C(1) << 50);
  e.noise = (uint32_t)number(w, "noise", 1000000);
  e.placement = (fp4moe_placement)choice(w, "word", names, FP4MOE_PLACEMENTS);
  e.shards = (size_t)number(w, "shards", e.key.nodes);
  if (!e.key.cores && !w->wrong) w->wrong = "cores";
  if (!e.shards && !w->wrong) w->wrong = "shards";
  if (!words_are_done(w)) return 0;
  fp4moe_table *t = r->table;
  void *items = grow(r, t->placement, t->placements, &r->placement_cap, sizeof e);
  if (!items) return 0;
  t->placement = items;
  t->placement[t->placements++] = e;
  return 1;
}

/* 1: the line is of an entry, taken or dropped. */
static int read_entry(reader *r, char *line) {
  static const struct {
    const char *name;
    int (*read)(reader *r, words *w);
  } kinds[] = {{"recipe ", read_recipe},
               {"schedule ", read_schedule},
               {"gain ", read_gain},
               {"placement ", read_placement}};
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    size_t n = strlen(kinds[i].name);
    if (strncmp(line, kinds[i].name, n)) continue;
    words w;
    if (split_words(line + n, &w) && kinds[i].read(r, &w)) return 1;
    r->table->dropped++;
    fp4moe_text_add(&r->report, "line %zu dropped: %s\n", r->line, w.wrong ? w.wrong : "not words");
    return 1;
  }
  return 0;
}

/* ---- Header ---- */

void fp4moe_table_header(const fp4moe_host *host, fp4moe_isa isa, char lines[5][192]) {
#if defined(__x86_64__)
  const char *arch = "x86_64";
#else
  const char *arch = "aarch64";
#endif
  snprintf(lines[0], 192, "fp4moe-table 3");
  snprintf(lines[1], 192, "arch %s", arch);
  snprintf(lines[2], 192, "cpu %s %u %u %u", host->cpu.vendor, host->cpu.family, host->cpu.model,
           host->cpu.stepping);
  snprintf(lines[3], 192, "isa %s", fp4moe_isa_name(isa));
  snprintf(lines[4], 192, "topology %s", host->topology);
}

void fp4moe_table_soft(const fp4moe_host *host, char line[192]) {
  snprintf(line, 192, "soft microcode=%s kernel=%s compiler=%s", host->microcode, host->kernel,
#if defined(__clang__)
           "clang-" __clang_version__
#else
           "gcc-" __VERSION__
#endif
  );
  for (char *c = line + 5; *c; c++)
    if (*c == ' ' && strncmp(c, " kernel=", 8) && strncmp(c, " compiler=", 10)) *c = '_';
}

static void refuse(reader *r, const char *have, const char *want) {
  r->table->refused = r->line ? r->line : 1;
  r->table->recipes = r->table->schedules = r->table->gains = r->table->placements = 0;
  r->report.needed = 0;
  fp4moe_text_add(&r->report, "line %zu is \"%.120s\", this host and version have \"%.120s\"\n",
                  r->line, have, want);
}

static const char without_gains[] = "fp4moe-table 2";

static void read_line(reader *r, char *line, char header[5][192], const char *soft) {
  if (r->line <= 5) {
    if (strcmp(line, header[r->line - 1]) && (r->line > 1 || strcmp(line, without_gains)))
      refuse(r, line, header[r->line - 1]);
  } else if (!strncmp(line, "soft ", 5)) {
    if (strcmp(line, soft))
      fp4moe_text_add(&r->report, "tuned under \"%.120s\", now \"%.120s\"\n", line + 5, soft + 5);
  } else if (!strncmp(line, "partial ", 8)) {
    if (sscanf(line, "partial %4zu of %4zu", &r->table->partial, &r->table->partial_of) != 2)
      refuse(r, line, "partial N of N");
  } else if (!strncmp(line, "kernel ", 7)) {
    const fp4moe_kernel *k = find_kernel(line + 7);
    if (k) r->known[k - fp4moe_kernels] = 1;
  } else if (!strncmp(line, "end ", 4) && r->end < 0) {
    r->end = (long)(decimal(line + 4) & LONG_MAX);
  } else if (!read_entry(r, line)) {
    refuse(r, line, "a line of a table");
  }
}

/* ---- Load ---- */

static void list_new_rows(reader *r) {
  for (size_t i = 0; i < fp4moe_kernel_count; i++)
    if (!r->known[i] && fp4moe_cpu_has(fp4moe_kernels[i].isa))
      fp4moe_text_add(&r->report, "not known to the tuner: %s@%u\n", fp4moe_kernels[i].name,
                      fp4moe_kernels[i].revision);
}

static void read_text(reader *r, char *text, size_t bytes, const fp4moe_host *host,
                      fp4moe_isa isa) {
  char header[5][192], soft[192], *end = text + bytes;
  fp4moe_table_header(host, isa, header);
  fp4moe_table_soft(host, soft);
  while (text < end && !r->table->refused && !r->no_memory) {
    char *newline = memchr(text, '\n', (size_t)(end - text));
    r->line++;
    if (!newline || memchr(text, 0, (size_t)(newline - text))) {
      refuse(r, "a line that is cut off or binary", "text");
      return;
    }
    *newline = 0;
    if (r->end >= 0) refuse(r, text, "nothing after the end line");
    if (!r->table->refused) read_line(r, text, header, soft);
    text = newline + 1;
  }
  fp4moe_table *t = r->table;
  size_t entries = t->recipes + t->schedules + t->gains + t->placements + t->dropped;
  if (!t->refused && (r->line < 5 || r->end != (long)entries)) {
    char have[64];
    snprintf(have, sizeof have, "%s %ld", r->end < 0 ? "no end line," : "end", r->end);
    refuse(r, have, "an end line with the number of entries");
  }
}

static fp4moe_status system_fail(const char *path) {
  return fp4moe_fail(FP4MOE_SYSTEM, "table %s: %s", path, strerror(errno));
}

/* All that is there: a file that shrinks meanwhile lacks its end line. */
static fp4moe_status read_bytes(int fd, const char *path, char *text, size_t most, size_t *bytes) {
  for (*bytes = 0; *bytes < most;) {
    ssize_t got = pread(fd, text + *bytes, most - *bytes, (off_t)*bytes);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return system_fail(path);
    if (got == 0) break;
    *bytes += (size_t)got;
  }
  return FP4MOE_OK;
}

static fp4moe_status read_open(int fd, const char *path, char **text, size_t *bytes) {
  struct stat st;
  if (fd < 0 || fstat(fd, &st)) return system_fail(path);
  if (!S_ISREG(st.st_mode) || st.st_size > MAX_BYTES)
    return fp4moe_fail(FP4MOE_INVALID, "table %s: not a regular file of up to %d bytes", path,
                       MAX_BYTES);
  *text = malloc((size_t)st.st_size + 1);
  if (!*text) return fp4moe_fail(FP4MOE_NO_MEMORY, "table %s", path);
  return read_bytes(fd, path, *text, (size_t)st.st_size, bytes);
}

/* Never blocks, not on a pipe either. */
static fp4moe_status read_file(const char *path, char **text, size_t *bytes) {
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  fp4moe_status status = read_open(fd, path, text, bytes);
  if (fd >= 0) close(fd);
  return status;
}

/* The table of a text that was read, or no memory for it. */
static int read_table(reader *r, const char *path, char *text, size_t bytes,
                      const fp4moe_host *host, fp4moe_isa isa) {
  char *report = calloc(1, REPORT_BYTES);
  r->table = calloc(1, sizeof *r->table);
  r->known = calloc(fp4moe_kernel_count, 1);
  if (r->table) r->table->report = report;
  if (!r->table) free(report);
  if (!r->table || !r->known || !report) return 0;
  snprintf(r->table->path, sizeof r->table->path, "%s", path);
  r->report = (fp4moe_text){report, REPORT_BYTES, 0};
  read_text(r, text, bytes, host, isa);
  if (!r->table->refused) list_new_rows(r);
  fp4moe_table_sort(r->table);
  return !r->no_memory;
}

fp4moe_status fp4moe_table_load(const char *path, const fp4moe_host *host, fp4moe_isa isa,
                                fp4moe_table **out) {
  char *text = NULL;
  size_t bytes = 0;
  reader r = {.end = -1};
  fp4moe_status status = read_file(path, &text, &bytes);
  if (!status && !read_table(&r, path, text, bytes, host, isa))
    status = fp4moe_fail(FP4MOE_NO_MEMORY, "table %s", path);
  if (status)
    fp4moe_table_free(r.table);
  else
    *out = r.table;
  free(r.known);
  free(text);
  return status;
}

void fp4moe_table_free(fp4moe_table *table) {
  if (!table) return;
  free(table->report);
  free(table->recipe);
  free(table->schedule);
  free(table->gain);
  free(table->placement);
  free(table);
}
