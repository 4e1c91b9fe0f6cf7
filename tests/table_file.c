/* table_file.c - tables in files (table_file.h). */
#include "table_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

fp4moe_host table_host;
fp4moe_isa table_isa;
char table_path[80];

void table_file_open(void) {
  fp4moe_host_read(&table_host);
  table_isa = fp4moe_cpu_best((fp4moe_isa)(FP4MOE_ISAS - 1));
  scratch_open();
  snprintf(table_path, sizeof table_path, "%s/a/table", scratch);
}

void table_file_save(const fp4moe_table *t) {
  CHECK(!fp4moe_table_save(table_path, &table_host, table_isa, t), "%s", fp4moe_error_detail());
}

fp4moe_table *table_file_load(void) {
  fp4moe_table *t = NULL;
  CHECK(!fp4moe_table_load(table_path, &table_host, table_isa, &t), "%s", fp4moe_error_detail());
  return t;
}

fp4moe_table *table_file_edited(const char *after, const char *from, const char *to) {
  size_t bytes;
  char *text = scratch_read(table_path, &bytes), *line = strstr(text, after);
  char *at = line ? strstr(line, from) : NULL;
  if (CHECK(at != NULL, "no \"%s\" after \"%s\" in the table", from, after)) {
    char *out = malloc(bytes + strlen(to) + 1);
    *at = 0;
    snprintf(out, bytes + strlen(to) + 1, "%s%s%s", text, to, at + strlen(from));
    scratch_put_text(table_path, out);
    free(out);
  }
  free(text);
  return table_file_load();
}
