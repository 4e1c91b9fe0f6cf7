/* conditions.c - reads sysfs and procfs (conditions.h). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conditions.h"

static int read_word(const char *path, char *buf, size_t cap) {
  FILE *f = fopen(path, "re");
  if (!f) return 0;
  int ok = fgets(buf, (int)cap, f) != NULL;
  fclose(f);
  if (ok) buf[strcspn(buf, "\n")] = 0;
  return ok;
}

static int in_cpuinfo(const char *word) {
  char line[4096];
  int found = 0;
  FILE *f = fopen("/proc/cpuinfo", "re");
  while (f && !found && fgets(line, sizeof line, f))
    found = !strncmp(line, "flags", 5) && strstr(line, word);
  if (f) fclose(f);
  return found;
}

void conditions_report(const fp4moe_host *host, void (*line)(const char *text)) {
  char word[128], text[256];
  double load;
  if (read_word("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", word, sizeof word) &&
      strcmp(word, "performance")) {
    snprintf(text, sizeof text, "the CPU governor is \"%.60s\", not performance", word);
    line(text);
  }
  if (read_word("/sys/devices/system/cpu/cpufreq/boost", word, sizeof word) && word[0] == '1')
    line("boost is on: clocks depend on temperature and on the other cores");
  if (getloadavg(&load, 1) == 1 && load > 0.3 * (double)host->allowed_cores) {
    snprintf(text, sizeof text, "the load is %.1f on %zu cores: something else is running", load,
             host->allowed_cores);
    line(text);
  }
  if (host->threads < host->allowed_cores) {
    snprintf(text, sizeof text, "a CPU quota leaves %zu of %zu cores", host->threads,
             host->allowed_cores);
    line(text);
  }
  if (in_cpuinfo(" hypervisor")) line("this is a virtual machine: its neighbours share the memory");
  if (read_word("/sys/kernel/mm/transparent_hugepage/enabled", word, sizeof word) &&
      strstr(word, "[never]"))
    line("transparent huge pages are off: weights lie on 4 KiB pages");
}
