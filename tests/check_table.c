/* check_table.c - the selection table: round trip, every refusal, writers that are killed, finding
 * entries. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "layer_call.h"
#include "table_file.h"

/* Three shapes of C kernels: gemv at 1 row, unpack + gemm at 128. */
static fp4moe_table sample(fp4moe_recipe_entry e[6]) {
  fp4moe_table t = {.recipe = e};
  static const size_t shapes[3][2] = {{64, 96}, {256, 96}, {64, 384}};
  for (size_t i = 0; i < 6; i++) {
    memset(&e[i], 0, sizeof e[i]);
    e[i] = (fp4moe_recipe_entry){.phase = FP4MOE_DOWN,
                                 .format = FP4MOE_MXFP4,
                                 .act = FP4MOE_ACT_BF16,
                                 .gated = 1,
                                 .bucket = i < 3 ? 0 : 7,
                                 .n = shapes[i % 3][0],
                                 .k = shapes[i % 3][1],
                                 .cores = table_host.threads,
                                 .ns = 1000 + i};
    e[i].recipe.panels = 2;
    if (i < 3) {
      e[i].recipe.gemv = check_kernel("fp4moe_gemv_mx_bf16_8x16_c");
      e[i].recipe.prefetch = 512;
    } else {
      e[i].recipe.unpack = check_kernel("fp4moe_unpack_mx_bf16_c");
      e[i].recipe.gemm = check_kernel("fp4moe_gemm_bf16_8x16_c");
      e[i].recipe.k_block = 32;
    }
  }
  t.recipes = 6;
  return t;
}

static void round_trip(void) {
  fp4moe_recipe_entry e[6];
  fp4moe_schedule_entry schedule = {FP4MOE_MXFP4, FP4MOE_ACT_BF16, 64, 96, 77, 30000, {3, 2, 2, 8}};
  table_file_open();
  fp4moe_table t = sample(e);
  fp4moe_gain_entry gains[2] = {
      {FP4MOE_MXFP4, FP4MOE_ACT_BF16, 0, 7, 1, 0, 2, 3, 64, 96, 88, 981000, 40},
      {FP4MOE_MXFP4, FP4MOE_ACT_BF16, 1, 0, 0, 1, 2, 3, 64, 96, 99, 1250000, 7}};
  t.schedule = &schedule;
  t.schedules = 1;
  t.gain = gains;
  t.gains = 2;
  fp4moe_table_sort(&t);
  table_file_save(&t);
  fp4moe_table *got = table_file_load();
  CHECK(!got->refused && !got->dropped && got->recipes == 6 && got->schedules == 1,
        "%zu recipes, %zu schedules: %s", got->recipes, got->schedules, got->report);
  for (size_t i = 0; i < 6; i++)
    CHECK(!memcmp(&got->recipe[i], &e[i], sizeof e[i]), "entry %zu differs", i);
  const fp4moe_schedule_entry *s = &got->schedule[0];
  CHECK(s->hidden == 64 && s->intermediate == 96 && s->ns == 77 && s->noise == 30000 &&
            !memcmp(&s->schedule, &schedule.schedule, sizeof schedule.schedule),
        "schedule differs");
  CHECK(got->gains == 2 && !memcmp(got->gain, gains, sizeof gains) && gains[0].linear == 1,
        "%zu gains, or they differ", got->gains);
  CHECK(!strstr(got->report, "tuned under"), "%s", got->report);
  fp4moe_table_free(got);
  scratch_close();
}

static void refusal(const char *from, const char *to, const char *says) {
  fp4moe_recipe_entry e[6];
  fp4moe_table t = sample(e);
  table_file_save(&t);
  fp4moe_table *got = table_file_edited("", from, to);
  CHECK(got->refused && !got->recipes && strstr(got->report, says), "\"%s\" -> \"%s\": %s", from,
        to, got->report);
  fp4moe_table_free(got);
}

static void refusals(void) {
  table_file_open();
  refusal("fp4moe-table 3", "fp4moe-table 1", "line 1");
  refusal("fp4moe-table 3", "fp4moe-table 4", "line 1");
  refusal("fp4moe-table 3\narch", "fp4moe-table 2\narch z\narch", "line 2");
  refusal("arch ", "arch z", "line 2");
  refusal("cpu ", "cpu X", "line 3 is \"cpu X");
  refusal("isa ", "isa x", "line 4");
  refusal("cores=", "cores=9", "line 5");
  refusal("end 6\n", "", "no end line");
  refusal("end 6\n", "end 5\n", "end 5");
  refusal("end 6\n", "end 6", "cut off");
  refusal("end 6\n", "end 6\nrecipe x=1\n", "nothing after");
  refusal("end 6\n", "end 6\nend 6\n", "nothing after");
  refusal("end 6\n", "end 6x\n", "end");
  refusal("end 6\n", "end -1\nend 6\n", "nothing after");
  refusal("end 6\n", "end 18446744073709551622\n", "end");
  refusal("arch ", "arch z\narch ", "line 2");
  refusal("soft ", "cpu twice\nsoft ", "a line of a table");
  refusal("recipe phase", "recept phase", "a line of a table");
  refusal("soft ", "partial 3\nsoft ", "partial N of N");
  refusal("soft ", "partial x of 4\nsoft ", "partial N of N");
  scratch_close();
}

static void dropped(const char *from, const char *to, const char *says) {
  fp4moe_recipe_entry e[6];
  fp4moe_table t = sample(e);
  table_file_save(&t);
  fp4moe_table *got = table_file_edited("", from, to);
  CHECK(!got->refused && got->dropped == 1 && got->recipes == 5 && strstr(got->report, says),
        "\"%s\" -> \"%s\": %zu dropped: %s", from, to, got->dropped, got->report);
  fp4moe_table_free(got);
}

static void dropped_entries(void) {
  table_file_open();
  dropped("gemv=fp4moe_gemv_mx_bf16_8x16_c@1", "gemv=fp4moe_gemv_mx_bf16_8x16_c@7", "8x16_c@7");
  dropped("gemv=fp4moe_gemv_mx_bf16_8x16_c@1", "gemv=fp4moe_gone@1", "fp4moe_gone");
  dropped("gemv=fp4moe_gemv_mx_bf16_8x16_c@1", "gemv=fp4moe_gemv_nv_bf16_8x16_c@1", "nv_bf16");
  dropped("gemv=fp4moe_gemv_mx_bf16_8x16_c@1", "gemv=fp4moe_quant_bf16_c@1", "quant");
  dropped("panels=2", "panels=0", "panels");
  dropped("panels=2", "panels=99", "panels");
  dropped("panels=2", "panels=-2", "panels");
  dropped("rows=1 ", "rows=3 ", "rows");
  dropped("format=mxfp4", "format=fp8", "format");
  dropped("k_block=32", "k_block=33", "k_block");
  dropped("unpack=fp4moe_unpack_mx_bf16_c", "unpack=fp4moe_unpack_mx_bf16x4_c", "unpack and gemm");
  dropped("ns=1000", "ns=99999999999999999999999", "ns");
  dropped("ns=1000", "ns=1000 color=red", "color");
  dropped("ns=1000", "ns", "not words");
  dropped("ns=1000", "ns=1000 ns=1000", "ns"); /* twice */
  dropped("ns=1000", "ns=0x10", "ns");
  dropped("ns=1000", "ns=+1", "ns");
  dropped("ns=1000 noise=0", "ns=1000 noise=1000001", "noise");
  dropped("n=64 k=96", "n=4194305 k=96", "n");
  dropped("gated=1", "gated=2", "gated");
  dropped("class=bf16", "class=mxfp8", "class");
  dropped("phase=down", "phase=up", "phase");
  dropped("gemv=fp4moe_gemv_mx_bf16_8x16_c@1", "gemv=fp4moe_gemv_mx_bf16_8x16_c@1x", "c@1x");
  dropped("gemv=fp4moe_gemv_mx_bf16_8x16_c@1", "gemv=fp4moe_gemv_mx_bf16_8x16_c", "8x16_c");
  dropped("gemv=fp4moe_gemv_mx_bf16_8x16_c@1", "gemv=fp4moe_gemv_mx_i8_8x16_c@1", "mx_i8");
  dropped(" gemv=fp4moe_gemv_mx_bf16_8x16_c@1", "", "k_block");
  dropped("unpack=fp4moe_unpack_mx_bf16_c", "unpack=fp4moe_gone", "gone");
  dropped("gemm=fp4moe_gemm_bf16_8x16_c", "gemm=fp4moe_gone", "gone");
  dropped("k_block=32", "k_block=1048608", "k_block");
  dropped("prefetch=512", "prefetch=1048577", "prefetch");
  dropped("n=64 k=96", "n=64 k=4194305", "k");
  dropped("rows=1 cores=", "rows=1 cores=x", "cores");
  dropped("phase=down", "phase=gate_up color=red", "color");
  scratch_close();
}

/* Gate and up lie in turn: a unit has whole pairs. */
static void odd_panels(void) {
  fp4moe_recipe_entry e[6];
  table_file_open();
  fp4moe_table t = sample(e);
  for (int gated = 0; gated < 2; gated++) {
    e[0].phase = FP4MOE_GATE_UP, e[0].gated = gated, e[0].recipe.panels = 3;
    table_file_save(&t);
    fp4moe_table *got = table_file_load();
    CHECK(got->dropped == (size_t)gated && !strstr(got->report, "panels") == !gated,
          "gated %d: %zu dropped: %s", gated, got->dropped, got->report);
    fp4moe_table_free(got);
  }
  scratch_close();
}

/* A schedule that does not parse is dropped by itself; one without noise is of an older tuner. */
static void dropped_schedules(void) {
  static const char *const bad[][2] = {{"schedule format=mxfp4", "schedule format=fp8"},
                                       {"tokens=8", "tokens=9"},
                                       {"threads=2 ns", "threads=x ns"},
                                       {"threads=2 ns", "threads=1025 ns"},
                                       {"ns=77", "ns=-1"},
                                       {"noise=30000", "noise=1000001"},
                                       {"workers=2", "workers=3"},
                                       {"workers=2", "workers=0"},
                                       {"share=8", "share=0"},
                                       {"share=8", "share=65537"},
                                       {"share=8", "share=8 share=8"},
                                       {"hidden=64", "hidden=1048577"},
                                       {"intermediate=96", "intermediate=x"},
                                       {"class=bf16 hidden", "class=mxfp8 hidden"}};
  fp4moe_recipe_entry e[6];
  fp4moe_schedule_entry s = {FP4MOE_MXFP4, FP4MOE_ACT_BF16, 64, 96, 77, 30000, {3, 2, 2, 8}};
  enum { N = sizeof bad / sizeof *bad };
  table_file_open();
  for (size_t i = 0; i <= N; i++) {
    fp4moe_table t = sample(e);
    t.schedule = &s;
    t.schedules = 1;
    table_file_save(&t);
    fp4moe_table *got = i < N ? table_file_edited("", bad[i][0], bad[i][1])
                              : table_file_edited("", " noise=30000", "");
    CHECK(!got->refused && got->dropped == (i < N) && got->recipes == 6 &&
              got->schedules == (i == N),
          "case %zu: %zu dropped: %s", i, got->dropped, got->report);
    if (got->schedules) CHECK(got->schedule->noise == 0, "noise %u", got->schedule->noise);
    fp4moe_table_free(got);
  }
  scratch_close();
}

/* A gain that does not parse is dropped by itself. */
static void dropped_gains(void) {
  static const char *const bad[][2] = {{"ratio=1000000", "ratio=0"},
                                       {"ratio=1000000", "ratio=4294967296"},
                                       {"kept=1", "kept=2"},
                                       {"threads=3", "threads=x"},
                                       {"rows=4 cores", "rows=5 cores"},
                                       {" noise=5", ""},
                                       {"kept=1", "kept=1 kept=1"},
                                       {"gain format=mxfp4", "gain format=fp8"},
                                       {"class=bf16 hidden", "class=mxfp8 hidden"},
                                       {"hidden=64", "hidden=1048577"},
                                       {"intermediate=96", "intermediate=1048577"},
                                       {"gated=1 rows=4 cores", "gated=2 rows=4 cores"},
                                       {"rows=4 cores=2", "rows=4 cores=65537"},
                                       {"threads=3 ns=", "threads=3 ns=x"},
                                       {"gated=1 rows=4 cores", "gated=1 linear=2 rows=4 cores"}};
  fp4moe_recipe_entry e[6];
  fp4moe_gain_entry gain = {FP4MOE_MXFP4, FP4MOE_ACT_BF16, 1, 2, 0, 1, 2, 3, 64, 96,
                            88,           1000000,         5};
  table_file_open();
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    fp4moe_table t = sample(e);
    t.gain = &gain;
    t.gains = 1;
    table_file_save(&t);
    fp4moe_table *got = table_file_edited("", bad[i][0], bad[i][1]);
    CHECK(!got->refused && got->dropped == 1 && got->recipes == 6 && !got->gains,
          "\"%s\" -> \"%s\": %zu dropped: %s", bad[i][0], bad[i][1], got->dropped, got->report);
    fp4moe_table_free(got);
  }
  scratch_close();
}

/* Version 2 had no gains; its entries are read as they stand. */
static void earlier_version(void) {
  fp4moe_recipe_entry e[6];
  table_file_open();
  fp4moe_table t = sample(e);
  table_file_save(&t);
  fp4moe_table *got = table_file_edited("", "fp4moe-table 3", "fp4moe-table 2");
  CHECK(!got->refused && !got->dropped && got->recipes == 6, "%s", got->report);
  fp4moe_table_free(got);
  scratch_close();
}

static void soft_lines(void) {
  fp4moe_recipe_entry e[6];
  table_file_open();
  fp4moe_table t = sample(e);
  table_file_save(&t);
  fp4moe_table *got = table_file_edited("", "kernel=", "kernel=9.9-");
  CHECK(!got->refused && got->recipes == 6 && strstr(got->report, "tuned under"), "%s",
        got->report);
  fp4moe_table_free(got);
  table_file_save(&t);
  got = table_file_edited("", "kernel fp4moe_store_c@1\n", "");
  CHECK(!got->refused && strstr(got->report, "not known to the tuner: fp4moe_store_c"), "%s",
        got->report);
  fp4moe_table_free(got);
  scratch_close();
}

/* Cut off anywhere, a table is refused; only the whole one is not. */
static void torn(void) {
  fp4moe_recipe_entry e[6];
  size_t n;
  table_file_open();
  fp4moe_table t = sample(e);
  table_file_save(&t);
  char *text = scratch_read(table_path, &n);
  for (size_t cut = 0; cut <= n; cut += cut + 40 < n ? 1 + check_below(23) : 1) {
    scratch_put(table_path, text, cut);
    fp4moe_table *got = table_file_load();
    CHECK((got->refused != 0) == (cut < n) && got->recipes == (cut < n ? 0 : 6),
          "%zu of %zu bytes: %s", cut, n, got->report);
    fp4moe_table_free(got);
  }
  free(text);
  scratch_close();
}

/* Entries go by name@revision: the tables of a release with other kernels, in another order, serve
 * as far as they name what is here. The same entry twice is no harm. */
static void other_release(void) {
  fp4moe_recipe_entry e[6], mixed[8];
  table_file_open();
  fp4moe_table t = sample(e);
  static const size_t order[8] = {5, 0, 3, 0, 1, 4, 2, 5};
  for (size_t i = 0; i < 8; i++) mixed[i] = e[order[i]];
  t.recipe = mixed;
  t.recipes = 8;
  table_file_save(&t);
  fp4moe_table *got = table_file_edited("", "kernel fp4moe_store_c@1\n", "kernel fp4moe_old_c@3\n");
  fp4moe_table_free(got);
  got = table_file_edited("", "kernel fp4moe_combine_c@1\n", "");
  CHECK(!got->refused && !got->dropped && got->recipes == 8, "%zu recipes: %s", got->recipes,
        got->report);
  CHECK(strstr(got->report, "not known to the tuner: fp4moe_store_c@1"), "%s", got->report);
  for (size_t i = 1; i < got->recipes; i++)
    CHECK(got->recipe[i - 1].n <= got->recipe[i].n, "entry %zu is not sorted", i);
  for (size_t i = 0; i < 6; i++) {
    fp4moe_recipe_key key = {e[i].phase,  e[i].format, e[i].act, e[i].gated,
                             e[i].bucket, e[i].n,      e[i].k,   e[i].cores};
    size_t first, count;
    CHECK(fp4moe_table_find(got, &key, &first, &count) == FP4MOE_MATCH_EXACT &&
              got->recipe[first].ns == e[i].ns,
          "entry %zu is not found", i);
  }
  fp4moe_table_free(got);
  scratch_close();
}

/* ---- Writers that are killed ---- */

/* Saves tables of 6 and 5 entries in turn until it is killed. */
static _Noreturn void write_on(fp4moe_recipe_entry e[6], int short_first) {
  fp4moe_table t = sample(e);
  if (!short_first) t.recipes = 5;
  for (;;) {
    t.recipes = 11 - t.recipes;
    if (fp4moe_table_save(table_path, &table_host, table_isa, &t)) _exit(1);
  }
}

/* After each kill the table is one of the two; at most one temporary file is left, and the next
 * writer removes it. */
static void killed_writers(void) {
  enum { KILLS = 1000 };
  fp4moe_recipe_entry e[6];
  size_t of_five = 0, left = 0;
  table_file_open();
  fp4moe_table t = sample(e);
  table_file_save(&t);
  for (int i = 0; i < KILLS; i++) {
    int status;
    pid_t child = fork();
    if (!child) write_on(e, i % 2);
    usleep((useconds_t)check_below(3000));
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    CHECK(WIFSIGNALED(status), "the writer failed by itself: %#x", (unsigned)status);
    fp4moe_table *got = table_file_load();
    CHECK(!got->refused && !got->dropped && (got->recipes == 6 || got->recipes == 5),
          "kill %d: %zu recipes: %s", i, got->recipes, got->report);
    of_five += got->recipes == 5;
    fp4moe_table_free(got);
    size_t files = scratch_files("a");
    left += files == 3;
    CHECK(files <= 3, "kill %d: %zu files", i, files);
  }
  CHECK(of_five && of_five < KILLS && left, "%zu kills, %zu short tables, %zu temporary files",
        (size_t)KILLS, of_five, left);
  table_file_save(&t);
  CHECK(scratch_files("a") == 2, "%zu files after a save", scratch_files("a"));
  scratch_close();
}

static void finds_nearest(void) {
  fp4moe_recipe_entry e[6];
  table_file_open();
  fp4moe_table t = sample(e);
  fp4moe_table_sort(&t);
  const struct {
    size_t n, k, cores;
    fp4moe_match match;
    size_t got_n, got_k;
  } cases[] = {{64, 96, table_host.threads, FP4MOE_MATCH_EXACT, 64, 96},
               {64, 96, table_host.threads + 3, FP4MOE_MATCH_NEAREST, 64, 96},
               {208, 96, 1, FP4MOE_MATCH_NEAREST, 256, 96},
               {64, 192, 1, FP4MOE_MATCH_NEAREST, 64, 384}, /* a tie: the larger K */
               {64, 2048, 1, FP4MOE_MATCH_NONE, 0, 0},
               {8192, 8192, 1, FP4MOE_MATCH_NONE, 0, 0}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    fp4moe_recipe_key key = {FP4MOE_DOWN, FP4MOE_MXFP4, FP4MOE_ACT_BF16, 1,
                             0,           cases[i].n,   cases[i].k,      cases[i].cores};
    size_t first, count;
    fp4moe_match got = fp4moe_table_find(&t, &key, &first, &count);
    CHECK(got == cases[i].match && count == (got != FP4MOE_MATCH_NONE), "case %zu: %d, %zu", i,
          (int)got, count);
    if (got)
      CHECK(t.recipe[first].n == cases[i].got_n && t.recipe[first].k == cases[i].got_k,
            "case %zu: %zux%zu", i, t.recipe[first].n, t.recipe[first].k);
  }
  fp4moe_recipe_key key = {FP4MOE_DOWN, FP4MOE_MXFP4, FP4MOE_ACT_BF16,   1, 3,
                           64,          96,           table_host.threads};
  for (size_t partial = 0; partial < 2; partial++) { /* rows for which the tuner left none */
    size_t first, count;
    t.partial_of = partial;
    fp4moe_match got = fp4moe_table_find(&t, &key, &first, &count);
    CHECK(got == (partial ? FP4MOE_MATCH_NONE : FP4MOE_MATCH_PROVEN) && !count, "partial %zu: %d",
          partial, (int)got);
  }
  scratch_close();
}

/* Above FP4MOE_MANY_N all N are one; the halves of gate/up do not matter to down. */
static void finds_for_heads(void) {
  fp4moe_recipe_entry e[6];
  table_file_open();
  fp4moe_table t = sample(e);
  const size_t shapes[4][3] = {{6144, 3072, 1}, {1024, 3072, 1}, {1024, 3072, 0}, {512, 512, 1}};
  for (int i = 0; i < 4; i++) e[i].n = shapes[i][0], e[i].k = shapes[i][1];
  e[2].gated = 0, e[3].phase = FP4MOE_GATE_UP, e[3].bucket = 0;
  fp4moe_table_sort(&t);
  const struct {
    int phase, gated;
    size_t n, k;
    fp4moe_match match;
    size_t got_n;
    int got_gated;
  } cases[] = {{FP4MOE_DOWN, 0, 201088, 3072, FP4MOE_MATCH_NEAREST, 6144, 1},
               {FP4MOE_DOWN, 1, 201088, 768, FP4MOE_MATCH_NEAREST, 6144, 1},
               {FP4MOE_DOWN, 1, 201088, 700, FP4MOE_MATCH_NONE, 0, 0},
               {FP4MOE_DOWN, 0, 1024, 3072, FP4MOE_MATCH_EXACT, 1024, 0},
               {FP4MOE_DOWN, 1, 1024, 3072, FP4MOE_MATCH_EXACT, 1024, 1},
               {FP4MOE_DOWN, 0, 6144, 3072, FP4MOE_MATCH_EXACT, 6144, 1},
               {FP4MOE_GATE_UP, 1, 512, 512, FP4MOE_MATCH_EXACT, 512, 1},
               {FP4MOE_GATE_UP, 0, 512, 512, FP4MOE_MATCH_NONE, 0, 0}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    fp4moe_recipe_key key = {
        cases[i].phase, FP4MOE_MXFP4, FP4MOE_ACT_BF16,         cases[i].gated, 0,
        cases[i].n,     cases[i].k,   table_host.allowed_cores};
    size_t first, count;
    fp4moe_match got = fp4moe_table_find(&t, &key, &first, &count);
    CHECK(got == cases[i].match && count == (got != FP4MOE_MATCH_NONE), "case %zu: %d, %zu", i,
          (int)got, count);
    if (got)
      CHECK(t.recipe[first].n == cases[i].got_n && t.recipe[first].gated == cases[i].got_gated,
            "case %zu: n %zu gated %d", i, t.recipe[first].n, t.recipe[first].gated);
  }
  scratch_close();
}

/* The plan takes the table's recipe, and falls back where it is not eligible. */
static void plan_takes_recipes(void) {
  fp4moe_recipe_entry e[6];
  table_file_open();
  fp4moe_table t = sample(e);
  table_file_save(&t);
  fp4moe_layer_desc d = class_desc(&class_words[CLASS_BF16_MX], 64, 96, 2);
  fp4moe_context *ctx = context_with((fp4moe_context_desc){.table = table_path});
  fp4moe_plan plan;
  char text[4096];
  CHECK(!fp4moe_context_select(ctx, &d, &plan), "%s", fp4moe_error_detail());
  CHECK(plan.recipe[FP4MOE_DOWN][0].gemv == check_kernel("fp4moe_gemv_mx_bf16_8x16_c"), "gemv");
  CHECK(plan.recipe[FP4MOE_DOWN][7].gemm == check_kernel("fp4moe_gemm_bf16_8x16_c"), "gemm");
  CHECK(!fp4moe_context_table(ctx, text, sizeof text, NULL) && strstr(text, "6 recipes"), "%s",
        text);
  fp4moe_table *bad = table_file_edited("", "cpu ", "cpu X");
  fp4moe_table_free(bad);
  CHECK(!fp4moe_context_reload_table(ctx, table_path), "%s", fp4moe_error_detail());
  CHECK(!fp4moe_context_table(ctx, text, sizeof text, NULL) && strstr(text, "REFUSED"), "%s", text);
  CHECK(!fp4moe_context_select(ctx, &d, &plan), "%s", fp4moe_error_detail());
  CHECK(fp4moe_context_reload_table(ctx, "/nonexistent") == FP4MOE_SYSTEM, "a missing file");
  fp4moe_context_destroy(ctx);
  scratch_close();
}

/* A directory that cannot be written leaves the old table as it was. */
static void failed_writes(void) {
  fp4moe_recipe_entry e[6];
  table_file_open();
  fp4moe_table t = sample(e);
  table_file_save(&t);
  char long_path[700];
  memset(long_path, 'x', sizeof long_path - 1);
  long_path[sizeof long_path - 1] = 0;
  CHECK(fp4moe_table_save(long_path, &table_host, table_isa, &t) == FP4MOE_INVALID, "a long path");
  CHECK(fp4moe_table_save("/proc/fp4moe/table", &table_host, table_isa, &t) == FP4MOE_SYSTEM,
        "/proc");
  char inside[128];
  snprintf(inside, sizeof inside, "%s/under-a-file", table_path);
  CHECK(fp4moe_table_save(inside, &table_host, table_isa, &t) == FP4MOE_SYSTEM, "under a file");
  fp4moe_table *got = table_file_load();
  CHECK(!got->refused && got->recipes == 6, "%s", got->report);
  fp4moe_table_free(got);
  scratch_close();
}

/* What is no table at all: a byte 0, a directory, a file beyond all sense. */
static void no_tables(void) {
  fp4moe_recipe_entry e[6];
  fp4moe_table *got = NULL;
  table_file_open();
  fp4moe_table t = sample(e);
  table_file_save(&t);
  size_t n;
  char *text = scratch_read(table_path, &n);
  text[20] = 0;
  scratch_put(table_path, text, n);
  free(text);
  got = table_file_load();
  CHECK(got->refused == 2 && strstr(got->report, "cut off or binary"), "%zu: %s", got->refused,
        got->report);
  fp4moe_table_free(got);
  CHECK(!truncate(table_path, (8 << 20) + 1), "truncate");
  CHECK(fp4moe_table_load(table_path, &table_host, table_isa, &got) == FP4MOE_INVALID &&
            strstr(fp4moe_error_detail(), "regular"),
        "a large file: %s", fp4moe_error_detail());
  CHECK(fp4moe_table_load(scratch, &table_host, table_isa, &got) == FP4MOE_INVALID &&
            strstr(fp4moe_error_detail(), "regular"),
        "a directory: %s", fp4moe_error_detail());
  scratch_close();
}

/* Any bytes: refused or read, never a crash. */
static void hostile_bytes(void) {
  fp4moe_recipe_entry e[6];
  table_file_open();
  fp4moe_table t = sample(e);
  table_file_save(&t);
  size_t n;
  char *text = scratch_read(table_path, &n), *copy = malloc(n);
  for (int i = 0; i < 300; i++) {
    memcpy(copy, text, n);
    for (int j = 0; j < 4; j++) copy[check_below(n)] = (char)check_random();
    scratch_put(table_path, copy, check_below(2) ? n : check_below(n));
    fp4moe_table *got = table_file_load();
    CHECK(got->recipes <= 6, "%zu recipes", got->recipes);
    fp4moe_table_free(got);
  }
  free(copy);
  free(text);
  scratch_close();
}

void check_table(void) {
  CU_pSuite s = check_suite("table");
  check_test(s, "round trip", round_trip);
  check_test(s, "refusals", refusals);
  check_test(s, "dropped entries", dropped_entries);
  check_test(s, "odd panels", odd_panels);
  check_test(s, "dropped schedules", dropped_schedules);
  check_test(s, "dropped gains", dropped_gains);
  check_test(s, "earlier version", earlier_version);
  check_test(s, "soft lines", soft_lines);
  check_test(s, "torn", torn);
  check_test(s, "another release", other_release);
  check_test(s, "killed writers", killed_writers);
  check_test(s, "nearest", finds_nearest);
  check_test(s, "nearest to an LM head", finds_for_heads);
  check_test(s, "plan", plan_takes_recipes);
  check_test(s, "failed writes", failed_writes);
  check_test(s, "no tables", no_tables);
  check_test(s, "hostile bytes", hostile_bytes);
}
