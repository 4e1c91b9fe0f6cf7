/* scratch.c - the directory of the running test (scratch.h). What fails here ends the run: it is
 * not what any test is about. */
#include "scratch.h"

#include <dirent.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

char scratch[64];

static void die(const char *what) {
  perror(what);
  exit(2);
}

void scratch_open(void) {
  strcpy(scratch, "/tmp/fp4moe-check-XXXXXX");
  if (!mkdtemp(scratch)) die(scratch);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw) {
  (void)st, (void)type, (void)ftw;
  return remove(path);
}

void scratch_close(void) { nftw(scratch, remove_one, 8, FTW_DEPTH | FTW_PHYS); }

const char *scratch_at(const char *name) {
  static char paths[8][160];
  static unsigned next;
  char *path = paths[next++ % 8];
  snprintf(path, sizeof paths[0], "%s/%s", scratch, name);
  return path;
}

size_t scratch_files(const char *name) {
  size_t n = 0;
  DIR *d = opendir(scratch_at(name));
  for (struct dirent *entry; d && (entry = readdir(d));) n += entry->d_name[0] != '.';
  if (d) closedir(d);
  return n;
}

void scratch_put(const char *path, const void *data, size_t bytes) {
  FILE *f = fopen(path, "wb");
  if (!f || fwrite(data, 1, bytes, f) != bytes || fclose(f)) die(path);
}

void scratch_put_text(const char *path, const char *text) { scratch_put(path, text, strlen(text)); }

char *scratch_read(const char *path, size_t *bytes) {
  struct stat st;
  FILE *f = fopen(path, "rb");
  if (!f || fstat(fileno(f), &st)) die(path);
  char *data = malloc((size_t)st.st_size + 1);
  *bytes = fread(data, 1, (size_t)st.st_size, f);
  data[*bytes] = 0;
  fclose(f);
  return data;
}
