/* check_places.c - where a context runs and lays its layers: the table's line, that a context takes
 * it, the nearest one, the caller's word before it; and a host of two nodes that is made up, whose
 * bits are those of one. */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "layer_fixture.h"
#include "nodes.h"
#include "table_file.h"

static void save(fp4moe_placement_entry *e, size_t n) {
  table_file_save(&(fp4moe_table){.placement = e, .placements = n});
}

/* ---- The line ---- */

static const fp4moe_placement_entry sample = {{16, 2, 32}, 1234, 4000, FP4MOE_ALL_PUS, 2};

static void round_trip(void) {
  fp4moe_placement_entry e[3] = {sample, sample, sample};
  table_file_open();
  e[1].key.cores = 4;
  e[2].key.nodes = 1, e[2].shards = 1, e[2].placement = FP4MOE_PER_L3;
  save(e, 3);
  fp4moe_table *t = table_file_load();
  CHECK(!t->refused && !t->dropped && t->placements == 3, "%zu placements: %s", t->placements,
        t->report);
  CHECK(!memcmp(&t->placement[0], &e[1], sizeof *e) &&
            !memcmp(&t->placement[1], &e[2], sizeof *e) &&
            !memcmp(&t->placement[2], &e[0], sizeof *e),
        "other entries, or not sorted by key");
  fp4moe_table_free(t);
  scratch_close();
}

/* One word of the line replaced: the line is dropped, for this reason. */
static void dropped(const char *from, const char *to, const char *says) {
  fp4moe_placement_entry e = sample;
  save(&e, 1);
  fp4moe_table *t = table_file_edited("\nplacement ", from, to);
  CHECK(!t->refused && t->dropped == 1 && !t->placements && strstr(t->report, says),
        "\"%s\" -> \"%s\": %zu placements: %s", from, to, t->placements, t->report);
  fp4moe_table_free(t);
}

static void dropped_lines(void) {
  table_file_open();
  dropped("cores=16", "cores=0", "cores");
  dropped("cores=16", "cores=1025", "cores");
  dropped("cores=16 ", "", "cores");
  dropped("nodes=2", "nodes=0", "shards");
  dropped("nodes=2", "nodes=-1", "nodes");
  dropped("pus=32", "pus=x", "pus");
  dropped("ns=1234", "ns=1e9", "ns");
  dropped("noise=4000", "noise=1000001", "noise");
  dropped("word=all_pus", "word=everywhere", "word");
  dropped("word=all_pus", "word=0-3", "word");
  dropped("shards=2", "shards=0", "shards");
  dropped("shards=2", "shards=3", "shards");
  dropped("shards=2", "shards=2 shards=2", "shards");
  dropped("shards=2", "shards=2 color=red", "color");
  scratch_close();
}

static void finds(void) {
  fp4moe_placement_entry e[] = {
      {.key = {4, 1, 8}}, {.key = {16, 1, 32}}, {.key = {16, 2, 32}}, {.key = {16, 2, 16}}};
  const fp4moe_table t = {.placement = e, .placements = 4};
  const struct {
    fp4moe_placement_key key;
    fp4moe_match match;
    int want;
  } cases[] = {{{16, 2, 32}, FP4MOE_MATCH_EXACT, 2},   {{4, 1, 8}, FP4MOE_MATCH_EXACT, 0},
               {{15, 2, 15}, FP4MOE_MATCH_NEAREST, 3}, {{1, 1, 1}, FP4MOE_MATCH_NEAREST, 0},
               {{16, 4, 30}, FP4MOE_MATCH_NEAREST, 2}, {{12, 1, 12}, FP4MOE_MATCH_NEAREST, 1}};
  const fp4moe_placement_entry *got;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    fp4moe_match match = fp4moe_table_place(&t, &cases[i].key, &got);
    CHECK(match == cases[i].match && got == &e[cases[i].want], "case %zu: %d, entry %zd", i,
          (int)match, got ? got - e : -1);
  }
  CHECK(!fp4moe_table_place(NULL, &e->key, &got) && !got, "no table");
}

/* ---- Contexts ---- */

static void says(fp4moe_context *ctx, const char *what) {
  const fp4moe_layer_desc d = class_desc(&class_words[CLASS_F32_MX], 64, 64, 4);
  fp4moe_problem p = {sizeof p, 1, 1, 0};
  char text[32768];
  for (p.json = 0; p.json < 2; p.json++) {
    CHECK(!fp4moe_explain(ctx, &d, &p, text, sizeof text, NULL), "%s", fp4moe_error_detail());
    CHECK(strstr(text, what), "no \"%s\" in: %.500s", what, text);
  }
}

/* The table's word for this host, for a nearest one, and none where the caller says anything. */
static void context_takes(void) {
  int pu[FP4MOE_MAX_PUS];
  size_t count = 0;
  table_file_open();
  fp4moe_placement_entry e = {fp4moe_host_key(&table_host), 1, 0, FP4MOE_ALL_PUS, 1};
  char word[64];
  if (fp4moe_place(table_host.pu, table_host.pus, FP4MOE_PER_L3, pu)) e.placement = FP4MOE_PER_L3;
  CHECK(!fp4moe_host_place(&table_host, fp4moe_placement_name(e.placement), pu, &count), "%s",
        fp4moe_error_detail());
  if (table_host.quota && table_host.quota < count) count = table_host.quota;
  snprintf(word, sizeof word, "threads: %zu, placement %s; layers in 1 shard", count,
           fp4moe_placement_name(e.placement));
  for (int near = 0; near < 2; near++) {
    e.key.pus += (size_t)near;
    save(&e, 1);
    fp4moe_context *ctx = context_with((fp4moe_context_desc){.table = table_path});
    CHECK(fp4moe_context_threads(ctx) == count, "%zu threads of %zu", fp4moe_context_threads(ctx),
          count);
    says(ctx, word);
    says(ctx, near ? "(table, nearest: of " : "(table, exact)");
    fp4moe_context_destroy(ctx);
  }
  fp4moe_context_desc own[] = {{.table = table_path, .max_threads = 1},
                               {.table = table_path, .placement = "one_node"},
                               {.table = table_path, .no_pin = 1},
                               {.tuned = FP4MOE_TUNED_OFF},
                               {.table = table_path, .parallel_for = fp4moe_pool_run}};
  const char *const want[] = {"placement per_core", "placement one_node", "not pinned",
                              "placement per_core", "the caller's"};
  for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
    fp4moe_context *ctx = context_with(own[i]);
    CHECK(!ctx->placed_by, "case %zu: the table's word", i);
    says(ctx, want[i]);
    fp4moe_context_destroy(ctx);
  }
  scratch_close();
}

/* ---- Two nodes that are made up ---- */

/* This host's PUs, the second half on a node 1 that the system does not have. */
static void make_two_nodes(fp4moe_context *ctx) {
  for (size_t i = 0; i < ctx->host.pus; i++) ctx->host.pu[i].node = 2 * i >= ctx->host.pus;
  ctx->nodes = 2;
  ctx->node[0] = 0;
  ctx->node[1] = 1;
}

/* A shard is asked of each node; where the pages lie is told as it is, here on node 0 or, without
 * libnuma, unknown. */
static void check_nodes(const fp4moe_layer *layer) {
  fp4moe_node_bytes n[4];
  size_t count = 0, asked = 0, on_1 = 0;
  CHECK(!fp4moe_layer_nodes(layer, n, 4, &count) && count <= 4, "%zu nodes", count);
  for (size_t i = 0; i < count && i < 4; i++) {
    if (n[i].node >= 0) asked += n[i].asked > 0;
    if (n[i].node == 1) on_1 += n[i].there;
  }
  CHECK(asked == 2, "asked %zu nodes for memory", asked);
  CHECK(!on_1 || fp4moe_numa_allows(1), "%zu bytes on a node that is not there", on_1);
}

static void made_up_nodes(void) {
  fp4moe_layer_desc d = class_desc(&class_words[CLASS_BF16_MX], 352, 160, 4);
  random_layer *m = random_layer_new(&d, 1, NULL);
  problem p = draw(&d, 9, 2, 0);
  const fp4moe_batch b = batch_of(&p);
  float *want = NULL;
  for (size_t shards = 1; shards < 4; shards++) { /* one; two; two, and the table says one */
    fp4moe_context *ctx = context_of(0);
    if (shards > 1) make_two_nodes(ctx);
    if (shards == 3) ctx->placed_by = FP4MOE_MATCH_EXACT, ctx->placed.shards = 1;
    fp4moe_layer *layer = layer_of(m, ctx);
    size_t most = shards == 2 ? 2 : shards == 3 ? 1 : ctx->nodes ? ctx->nodes : 1;
    CHECK(layer->shards == most, "%zu shards, expected %zu", layer->shards, most);
    if (shards == 2) check_nodes(layer);
    if (want)
      gives(layer, &b, want, "two nodes");
    else
      want = outputs(layer, &b);
    fp4moe_layer_destroy(layer);
    fp4moe_context_destroy(ctx);
  }
  free(want);
  drop(&p);
  random_layer_free(m);
}

/* All threads on one node of two: one shard, and it is asked of that node. */
static void one_of_two_nodes(void) {
  fp4moe_layer_desc d = class_desc(&class_words[CLASS_F32_MX], 64, 64, 1);
  fp4moe_context *ctx = context_of(1);
  if (ctx->host.pus < 2 || !fp4moe_numa_works()) {
    check_skip("one of two nodes", "one PU, or no libnuma");
  } else {
    int pu = ctx->host.pu[0].pu, here = ctx->host.pu[0].node;
    fp4moe_layer *layer = NULL;
    for (size_t i = 1; i < ctx->host.pus; i++) ctx->host.pu[i].node = here + 1;
    ctx->nodes = 0;
    fp4moe_places_nodes(ctx, &pu, 1);
    CHECK(ctx->nodes == 1 && ctx->node[0] == here, "%zu nodes", ctx->nodes);
    CHECK(!fp4moe_layer_begin(ctx, &d, &layer), "%s", fp4moe_error_detail());
    CHECK(layer->shards == 1 && layer->shard[0].node == here, "node %d", layer->shard[0].node);
    fp4moe_layer_destroy(layer);
  }
  fp4moe_context_destroy(ctx);
}

/* On each PU a thread knows the node that sysfs tells of it. */
static void knows_its_node(void) {
  static fp4moe_host host;
  cpu_set_t before, one;
  fp4moe_host_read(&host);
  CHECK(!sched_getaffinity(0, sizeof before, &before), "affinity");
  for (size_t i = 0; i < host.pus; i++) {
    CPU_ZERO(&one);
    CPU_SET((size_t)host.pu[i].pu, &one);
    CHECK(!sched_setaffinity(0, sizeof one, &one), "affinity of PU %d", host.pu[i].pu);
    CHECK(fp4moe_numa_here() == host.pu[i].node, "PU %d: node %d, expected %d", host.pu[i].pu,
          fp4moe_numa_here(), host.pu[i].node);
  }
  CHECK(!sched_setaffinity(0, sizeof before, &before), "affinity");
}

void check_places(void) {
  CU_pSuite s = check_suite("places");
  check_test(s, "placement lines", round_trip);
  check_test(s, "dropped placement lines", dropped_lines);
  check_test(s, "nearest placement", finds);
  check_test(s, "a context takes the table's", context_takes);
  check_test(s, "two nodes that are made up", made_up_nodes);
  check_test(s, "threads on one node of two", one_of_two_nodes);
  check_test(s, "a thread knows its node", knows_its_node);
}
