/* environment.c - reads FP4MOE_* (environment.h). A misspelt variable would be an override that
 * silently does nothing, so every name that begins so must be one of ours. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cpu.h"
#include "environment.h"
#include "status.h"

enum { CPU, KERNEL, TABLE, TUNED, VERBOSE, VARIABLES, NAME_BYTES = 32 };
static const char *const names[VARIABLES] = {"FP4MOE_CPU", "FP4MOE_KERNEL", "FP4MOE_TABLE",
                                             "FP4MOE_TUNED", "FP4MOE_VERBOSE"};

/* Insertions, deletions and exchanges that make b of a (Levenshtein); of longer names the head. */
static size_t edits(const char *a, const char *b) {
  size_t row[NAME_BYTES + 1], n = strnlen(b, NAME_BYTES);
  for (size_t j = 0; j <= n; j++) row[j] = j;
  for (size_t i = 0; i < NAME_BYTES && a[i]; i++) {
    size_t corner = row[0]++;
    for (size_t j = 0; j < n; j++) {
      size_t least = corner + (a[i] != b[j]);
      if (row[j] + 1 < least) least = row[j] + 1;
      if (row[j + 1] + 1 < least) least = row[j + 1] + 1;
      corner = row[j + 1];
      row[j + 1] = least;
    }
  }
  return row[n];
}

static fp4moe_status check_name(const char *entry) {
  char name[64];
  size_t n = strcspn(entry, "="), nearest = 0;
  if (strncmp(entry, "FP4MOE_", 7)) return FP4MOE_OK;
  if (n >= sizeof name) n = sizeof name - 1;
  memcpy(name, entry, n);
  name[n] = 0;
  for (size_t i = 0; i < VARIABLES; i++) {
    if (!strcmp(name, names[i])) return FP4MOE_OK;
    if (edits(name, names[i]) < edits(name, names[nearest])) nearest = i;
  }
  return fp4moe_fail(FP4MOE_INVALID, "there is no variable %s; the nearest is %s", name,
                     names[nearest]);
}

static fp4moe_status read_tuned(const char *word, fp4moe_tuned *tuned) {
  static const char *const words[] = {"", "use", "require", "off"};
  for (int i = FP4MOE_TUNED_USE; i <= FP4MOE_TUNED_OFF; i++)
    if (!strcmp(word, words[i])) {
      *tuned = (fp4moe_tuned)i;
      return FP4MOE_OK;
    }
  return fp4moe_fail(FP4MOE_INVALID, "FP4MOE_TUNED is \"%s\", expected use, require or off", word);
}

static const char *value_of(int variable) {
  const char *text = getenv(names[variable]);
  return text && *text ? text : NULL;
}

fp4moe_status fp4moe_environment_read(fp4moe_environment *e) {
  fp4moe_status status = FP4MOE_OK;
  const char *cpu = value_of(CPU), *tuned = value_of(TUNED);
  int isa = cpu ? fp4moe_isa_parse(cpu) : FP4MOE_ISAS - 1;
  for (char **entry = environ; entry && *entry && !status; entry++) status = check_name(*entry);
  if (status) return status;
  if (isa < 0) return fp4moe_fail(FP4MOE_INVALID, "FP4MOE_CPU is \"%s\", no ISA here", cpu);
  *e = (fp4moe_environment){.table = value_of(TABLE),
                            .kernel = value_of(KERNEL),
                            .verbose = value_of(VERBOSE),
                            .cap = (fp4moe_isa)isa,
                            .tuned = FP4MOE_TUNED_DEFAULT};
  return tuned ? read_tuned(tuned, &e->tuned) : FP4MOE_OK;
}
