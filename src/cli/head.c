/* head.c - the lines above a bench's figures (head.h). */
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "context.h"
#include "head.h"
#include "measure.h"

static void command_text(int argc, char **argv, char *text, size_t cap) {
  size_t n = (size_t)snprintf(text, cap, "fp4moe");
  for (int i = 0; i < argc && n < cap; i++)
    n += (size_t)snprintf(text + n, cap - n, strpbrk(argv[i], " *?[\\") ? " '%s'" : " %s", argv[i]);
}

void head_command(const fp4moe_context *context, int json, int argc, char **argv) {
  const fp4moe_host *host = &context->host;
  const fp4moe_table *table = context->table;
  char command[4096];
  command_text(argc, argv, command, sizeof command);
  if (!json) {
    printf("# %s  # %s, %zu threads\n", command, host->cpu_model, fp4moe_context_threads(context));
    return;
  }
  print_json(json_pack("{ss ss ss ss ss sI sI ss*}", "what", "host", "command", command, "cpu",
                       host->cpu_model, "topology", host->topology, "isa",
                       fp4moe_isa_name(context->isa), "cores", (json_int_t)host->allowed_cores,
                       "threads", (json_int_t)fp4moe_context_threads(context), "table",
                       table && !table->refused ? table->path : NULL));
}

/* The median of one field of all rounds' ceilings. */
static double median(const ceilings *rounds, size_t count, size_t field) {
  double *x = allocate(count, sizeof *x);
  for (size_t r = 0; r < count; r++) memcpy(&x[r], (const char *)&rounds[r] + field, sizeof *x);
  double middle = measure_summarise(x, count).median;
  free(x);
  return middle;
}

ceilings head_limits(const ceilings *rounds, size_t count, size_t threads, int json) {
  ceilings c = {median(rounds, count, offsetof(ceilings, read_gbytes_s)),
                median(rounds, count, offsetof(ceilings, int8_gops)),
                median(rounds, count, offsetof(ceilings, bf16_gflops)),
                median(rounds, count, offsetof(ceilings, f32_gflops))};
  if (json)
    print_json(json_pack("{ss sI sf sf sf sf}", "what", "ceilings", "threads", (json_int_t)threads,
                         "read_gbytes_s", c.read_gbytes_s, "int8_gops", c.int8_gops, "bf16_gflops",
                         c.bf16_gflops, "f32_gflops", c.f32_gflops));
  else
    printf("# limits: read %.1f GB/s, int8 %.0f Gop/s, bf16 %.0f GFLOP/s, f32 %.0f GFLOP/s\n",
           c.read_gbytes_s, c.int8_gops, c.bf16_gflops, c.f32_gflops);
  return c;
}

double class_rate(fp4moe_precision precision, const ceilings *c) {
  const double rates[] = {[FP4MOE_ACT_F32] = c->f32_gflops,
                          [FP4MOE_ACT_BF16] = c->bf16_gflops,
                          [FP4MOE_ACT_I8] = c->int8_gops};
  return rates[fp4moe_act_class_of(precision)];
}
