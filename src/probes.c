/* probes.c - the probes' places (probes.h). A semaphore is raised by the tracer while it listens;
 * their names are those that <sys/sdt.h> wants. */
#include "probes.h"

#if defined(FP4MOE_USDT)
#define _SDT_HAS_SEMAPHORES 1
#include <sys/sdt.h>

#define SEMAPHORE(probe)                                                                           \
  __attribute__((section(".probes"))) volatile unsigned short fp4moe_##probe##_semaphore;
SEMAPHORE(layer_begin)
SEMAPHORE(layer_end)
SEMAPHORE(choice)

int fp4moe_probes_end(void) { return fp4moe_layer_end_semaphore != 0; }

void fp4moe_probe_begin(const fp4moe_call *c) {
  const fp4moe_layer_desc *d = &c->layer->desc;
  if (!fp4moe_layer_begin_semaphore) return;
  STAP_PROBE7(fp4moe, layer_begin, c->batch.tokens, c->batch.top_k, d->experts,
              fp4moe_format_name((int)d->format), fp4moe_class_name((int)c->plan->quant_class),
              d->hidden, d->intermediate);
}

static const char *matmul_name(const fp4moe_recipe *r) {
  return !r ? "" : r->gemv ? r->gemv->name : r->gemm ? r->gemm->name : "";
}

void fp4moe_probe_end(const fp4moe_call *c, fp4moe_status status, uint64_t ns) {
  static const fp4moe_active none;
  const fp4moe_active *most = &none;
  if (!fp4moe_layer_end_semaphore) return;
  for (size_t i = 0; i < c->actives; i++)
    if (c->active[i].total > most->total) most = &c->active[i];
  size_t bytes = c->actives * (fp4moe_layer_bytes(c->layer) / c->layer->desc.experts);
  STAP_PROBE7(fp4moe, layer_end, c->batch.tokens, c->actives, bytes, ns,
              matmul_name(most->recipe[FP4MOE_GATE_UP]), matmul_name(most->recipe[FP4MOE_DOWN]),
              (int)status);
}

void fp4moe_probe_choices(const fp4moe_layer_desc *d, const fp4moe_plan *plan) {
  if (!fp4moe_choice_semaphore) return;
  for (int phase = fp4moe_first_phase(d); phase < FP4MOE_PHASES; phase++)
    for (int b = 0; b < FP4MOE_BUCKETS; b++) {
      const fp4moe_recipe *r = &plan->recipe[phase][b];
      size_t n, k;
      fp4moe_phase_shape(d, phase, &n, &k);
      STAP_PROBE9(fp4moe, choice, fp4moe_phase_name(phase), n, k, fp4moe_bucket_rows(b),
                  matmul_name(r), fp4moe_source_name((fp4moe_source)plan->source[phase][b]),
                  r->unpack ? r->unpack->name : "", fp4moe_format_name((int)d->format),
                  fp4moe_class_name((int)plan->quant_class));
    }
}
#endif
