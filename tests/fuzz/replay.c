/* replay.c - main of a fuzz target without a fuzzer: replay-<target> CORPUS
 *
 * Each file runs in a process of its own, so that a crash or a hang is one failure. ok-* must be
 * taken, bad-* refused, any-* (what once crashed) survived. The last line counts. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fuzz.h"

enum { MOST = 1 << 20, SECONDS = 20 };

static _Noreturn void run(const char *path, const char *name) {
  uint8_t *data = malloc(MOST);
  FILE *file = fopen(path, "rb");
  if (!data || !file) _exit(2);
  size_t size = fread(data, 1, MOST, file);
  alarm(SECONDS);
  LLVMFuzzerTestOneInput(data, size);
  int wrong =
      (!strncmp(name, "ok-", 3) && fuzz_status) || (!strncmp(name, "bad-", 4) && !fuzz_status);
  if (wrong) printf("%s: %s %s\n", path, fp4moe_status_name(fuzz_status), fp4moe_error_detail());
  fflush(stdout);
  _exit(wrong);
}

static int is_seed(const struct dirent *entry) { return entry->d_name[0] != '.'; }

int main(int argc, char **argv) {
  struct dirent **list;
  int n = argc == 2 ? scandir(argv[1], &list, is_seed, alphasort) : -1, failed = 0;
  for (int i = 0; i < n; i++) {
    char path[4096];
    int end = -1;
    snprintf(path, sizeof path, "%s/%s", argv[1], list[i]->d_name);
    pid_t child = fork();
    if (child == 0) run(path, list[i]->d_name);
    if (child > 0) waitpid(child, &end, 0);
    if (end) printf("FAIL %s: ended with %#x\n", path, (unsigned)end), failed++;
    free(list[i]);
  }
  if (n >= 0) free(list);
  if (n <= 0) printf("FAIL %s: no seeds\n", argc == 2 ? argv[1] : "usage: replay CORPUS"), failed++;
  printf("%d passed, %d failed, 0 skipped\n", n > 0 ? n - failed : 0, failed);
  return failed != 0;
}
