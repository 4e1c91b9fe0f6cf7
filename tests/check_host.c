/* check_host.c - the machine as the library sees it, overrides of the environment, the pool. */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "layer_call.h"

static void host_is_sane(void) {
  static fp4moe_host host;
  fp4moe_host_read(&host);
  CHECK(host.threads >= 1 && host.threads <= host.allowed_cores, "%zu threads of %zu cores",
        host.threads, host.allowed_cores);
  CHECK(host.llc_bytes >= host.l2_bytes && host.l2_bytes >= 65536, "caches %zu, %zu", host.l2_bytes,
        host.llc_bytes);
  CHECK(strstr(host.topology, "cores=") != NULL, "%s", host.topology);
  for (size_t i = 0; i < host.allowed_cores; i++)
    for (size_t j = 0; j < i; j++)
      CHECK(host.core_pu[i] != host.core_pu[j], "PU %d twice", host.core_pu[i]);
}

static void isa_names(void) {
  for (int i = 0; i < FP4MOE_ISAS; i++) {
    int parsed = fp4moe_isa_parse(fp4moe_isa_name((fp4moe_isa)i));
    CHECK(parsed == i || parsed == -1, "%s is %d", fp4moe_isa_name((fp4moe_isa)i), parsed);
    CHECK(parsed == i || !fp4moe_cpu_has((fp4moe_isa)i), "%s has no word",
          fp4moe_isa_name((fp4moe_isa)i));
  }
  CHECK(fp4moe_isa_parse("c") == FP4MOE_ISA_c && fp4moe_isa_parse("avx3") == -1, "parse");
  CHECK(fp4moe_cpu_best(FP4MOE_ISA_c) == FP4MOE_ISA_c, "a cap of c");
}

/* A context under one environment variable; the expected status and a part of the detail. */
static void under(const char *name, const char *value, fp4moe_status want, const char *text) {
  fp4moe_context *ctx = NULL;
  char *old = check_variable(name, value);
  fp4moe_status got = fp4moe_context_create(NULL, &ctx);
  CHECK(got == want && (!want || strstr(fp4moe_error_detail(), text)), "%s=%s: %s \"%s\"", name,
        value, fp4moe_status_name(got), fp4moe_error_detail());
  fp4moe_context_destroy(ctx);
  free(check_variable(name, old));
  free(old);
}

static void environment(void) {
  under("FP4MOE_CPU", "c", FP4MOE_OK, "");
  under("FP4MOE_CPU", "avx1024", FP4MOE_INVALID, "avx1024");
  under("FP4MOE_KERNEL", "*_c", FP4MOE_OK, "");
  under("FP4MOE_KERNEL", "*_c,*gemw*", FP4MOE_INVALID, "*gemw*");
  under("FP4MOE_TABLE", "none", FP4MOE_OK, "");
  under("FP4MOE_TUNED", "use", FP4MOE_OK, "");
  under("FP4MOE_TUNED", "required", FP4MOE_INVALID, "\"required\"");
  under("FP4MOE_KERNELS", "*_c", FP4MOE_INVALID, "nearest is FP4MOE_KERNEL");
  under("FP4MOE_TUNE", "off", FP4MOE_INVALID, "nearest is FP4MOE_TUNED");
  under("FP4MOE_", "", FP4MOE_INVALID, "no variable FP4MOE_;");
  under("FP4MOE_TABLE", "only:/nonexistent/table", FP4MOE_SYSTEM, "/nonexistent/table");
  under("FP4MOE_TABLE", "/nonexistent/table", FP4MOE_SYSTEM, "/nonexistent/table");
}

/* What fp4moe_explain says of a layer of class bf16; the caller frees it. */
static char *explain(fp4moe_context *ctx, int json) {
  fp4moe_layer_desc d = class_desc(&class_words[CLASS_BF16_MX], 64, 96, 2);
  fp4moe_problem p = {sizeof p, 4, 1, json};
  size_t needed = 0;
  char small[8];
  CHECK(!fp4moe_explain(ctx, &d, &p, small, sizeof small, &needed), "%s", fp4moe_error_detail());
  CHECK(strlen(small) == 7 && needed > 7, "a small buffer: \"%.7s\" of %zu", small, needed);
  char *text = calloc(1, needed + 1);
  CHECK(!fp4moe_explain(ctx, &d, &p, text, needed + 1, NULL), "%s", fp4moe_error_detail());
  CHECK(strlen(text) == needed, "%zu characters, %zu announced", strlen(text), needed);
  return text;
}

static void explains_every_kernel(void) {
  fp4moe_context *ctx = context_with((fp4moe_context_desc){.kernels = "*gemv*_c"});
  for (int json = 0; json < 2; json++) {
    char *text = explain(ctx, json);
    for (size_t i = 0; i < fp4moe_kernel_count; i++)
      CHECK(strstr(text, fp4moe_kernels[i].name), "%s is not named", fp4moe_kernels[i].name);
    CHECK(strstr(text, "others of its op are forced"), "no forced kernel in: %s", text);
    CHECK(strstr(text, "other precision class") && strstr(text, "other weight format"), "reasons");
    CHECK(strstr(text, "static order"), "no source");
    free(text);
  }
  fp4moe_context_destroy(ctx);
}

static void forced_in_vain(void) {
  fp4moe_context *ctx = context_with((fp4moe_context_desc){.kernels = "fp4moe_gemv_nv_*"});
  fp4moe_layer_desc d = class_desc(&class_words[CLASS_BF16_MX], 64, 96, 2);
  fp4moe_problem p = {sizeof p, 4, 1, 0};
  fp4moe_status status = fp4moe_explain(ctx, &d, &p, NULL, 0, NULL);
  CHECK(status == FP4MOE_UNSUPPORTED && strstr(fp4moe_error_detail(), "fp4moe_gemv_mx_bf16"),
        "%s: %s", fp4moe_status_name(status), fp4moe_error_detail());
  fp4moe_context_destroy(ctx);
}

static void count_one(void *arg, size_t i) { atomic_fetch_add((atomic_size_t *)arg + i, 1); }

static void pool_runs_each_once(void) {
  static atomic_size_t counts[50];
  for (size_t threads = 1; threads <= 5; threads++)
    for (uint64_t spin = 1; spin <= 50000; spin += 49999) {
      fp4moe_pool *pool = fp4moe_pool_create(threads, NULL, spin);
      for (size_t n = 0; n <= 50; n += 7)
        for (int round = 0; round < 20; round++) {
          memset(counts, 0, sizeof counts);
          fp4moe_pool_run(pool, n, count_one, counts);
          for (size_t i = 0; i < 50; i++)
            CHECK(atomic_load(&counts[i]) == (i < n), "%zu threads, n %zu: %zu ran %zu times",
                  threads, n, i, atomic_load(&counts[i]));
        }
      fp4moe_pool_destroy(pool);
    }
}

void check_host(void) {
  CU_pSuite s = check_suite("host");
  check_test(s, "host", host_is_sane);
  check_test(s, "ISA names", isa_names);
  check_test(s, "environment", environment);
  check_test(s, "explain", explains_every_kernel);
  check_test(s, "a forced kernel that cannot serve", forced_in_vain);
  check_test(s, "pool", pool_runs_each_once);
}
