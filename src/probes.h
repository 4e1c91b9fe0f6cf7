/* probes.h - static probes (USDT) of provider fp4moe, for perf probe and bpftrace:
 *
 *   layer_begin(tokens, top_k, experts, "mxfp4", "bf16", hidden, intermediate)
 *   layer_end(tokens, active experts, packed bytes, ns, "gate_up kernel", "down kernel", status)
 *   choice("gate_up", n, k, rows, "gemv or gemm", "exact", "unpack", "mxfp4", "bf16")
 *
 * layer_end has the kernels of the expert with most rows (of a linear, whose hidden and
 * intermediate are N and K, the second only); choice comes once per phase and bucket when a layer
 * is finished or replanned. A probe that nobody has attached to is a nop behind a test of its
 * semaphore. `make USDT=0`, or a system without <sys/sdt.h>, leaves them out. */
#ifndef FP4MOE_PROBES_H
#define FP4MOE_PROBES_H

#include "call.h"

#if defined(FP4MOE_USDT)
int fp4moe_probes_end(void); /* has somebody attached to layer_end, and wants ns? */
void fp4moe_probe_begin(const fp4moe_call *call);
void fp4moe_probe_end(const fp4moe_call *call, fp4moe_status status, uint64_t ns);
void fp4moe_probe_choices(const fp4moe_layer_desc *desc, const fp4moe_plan *plan);
#else
static inline int fp4moe_probes_end(void) { return 0; }
static inline void fp4moe_probe_begin(const fp4moe_call *call) { (void)call; }
static inline void fp4moe_probe_end(const fp4moe_call *call, fp4moe_status status, uint64_t ns) {
  (void)call, (void)status, (void)ns;
}
static inline void fp4moe_probe_choices(const fp4moe_layer_desc *desc, const fp4moe_plan *plan) {
  (void)desc, (void)plan;
}
#endif

#endif
