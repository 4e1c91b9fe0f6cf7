/* table.c - fuzz target: a selection table. A first line "@HEADER" stands for the lines that fit
 * this host, so that entries are reached. Whatever a table says, every layer gets a plan. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "oracle.h"
#include "table.h"

static size_t put_header(const fp4moe_host *host, fp4moe_isa isa, char *to) {
  char lines[5][192];
  size_t n = 0;
  fp4moe_table_header(host, isa, lines);
  for (int i = 0; i < 5; i++) n += (size_t)sprintf(to + n, "%s\n", lines[i]);
  return n;
}

static void try_plans(const fp4moe_host *host, fp4moe_isa isa, const fp4moe_table *table) {
  const fp4moe_request request = {.cap = isa};
  const fp4moe_selector selector = {host, &request, table->refused ? NULL : table};
  for (int i = 0; i < 6; i++) {
    const fp4moe_layer_desc desc = {.struct_size = sizeof desc,
                                    .hidden = 64,
                                    .intermediate = 96,
                                    .experts = 4,
                                    .format = (fp4moe_format)(i % 2),
                                    .precision = (fp4moe_precision)(i / 2),
                                    .activation = {.kind = FP4MOE_SILU, .gated = 1}};
    static fp4moe_plan plan;
    if (fp4moe_select(&selector, &desc, &plan)) abort();
  }
}

/* A place that is found is one that a thread can be put on, or says which one is not there. */
static void try_place(const fp4moe_host *host, const fp4moe_table *table) {
  const fp4moe_placement_key key = fp4moe_host_key(host);
  const fp4moe_placement_entry *entry;
  int pu[FP4MOE_MAX_PUS];
  size_t count;
  if (fp4moe_table_place(table, &key, &entry) == FP4MOE_MATCH_NONE) return;
  if (!fp4moe_host_place(host, fp4moe_placement_name(entry->placement), pu, &count) && !count)
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const char word[] = "@HEADER\n";
  static char text[(1 << 18) + 1024];
  static fp4moe_host host;
  const fp4moe_isa isa = fp4moe_cpu_best((fp4moe_isa)(FP4MOE_ISAS - 1));
  size_t n = 0, skip = 0;
  fp4moe_table *table = NULL;
  fuzz_status = FP4MOE_OK;
  if (size > 1 << 18) return 0;
  if (!host.threads) fp4moe_host_read(&host);
  if (size >= sizeof word - 1 && !memcmp(data, word, sizeof word - 1)) {
    n = put_header(&host, isa, text);
    skip = sizeof word - 1;
  }
  memcpy(text + n, data + skip, size - skip);
  if (fuzz_met(fp4moe_table_load(fuzz_file(text, n + size - skip), &host, isa, &table))) return 0;
  try_plans(&host, isa, table);
  if (!table->refused) try_place(&host, table);
  if (table->refused || table->dropped) fuzz_status = FP4MOE_INVALID;
  fp4moe_table_free(table);
  return 0;
}
