/* trace.c - around every call: what observers learn of it, lines (verbose.h) and probes (probes.h).
 *
 * Every public way to multiply ends in fp4moe_call_run, and forward.c knows of no observer. Without
 * one a call pays for a few tests. Of a team, thread 0 speaks. Observers move no bits. */
#include "probes.h"
#include "verbose.h"

fp4moe_status fp4moe_call_run(fp4moe_call *c, void *workspace, size_t bytes) {
  const fp4moe_team *team = c->batch.team;
  int others = team && team->ith, lines = !others && fp4moe_is_verbose(c->layer->ctx);
  int timed = !others && (lines || fp4moe_probes_end());
  fp4moe_stats own = {.struct_size = sizeof own};
  if (lines && !c->batch.stats) c->batch.stats = &own;
  if (!others) fp4moe_probe_begin(c);
  uint64_t start = timed ? fp4moe_now_ns() : 0;
  fp4moe_status status = fp4moe_call_do(c, workspace, bytes);
  uint64_t ns = timed ? fp4moe_now_ns() - start : 0;
  if (!others) fp4moe_probe_end(c, status, ns);
  if (lines && !status) fp4moe_verbose_call(c, c->batch.tokens ? c->batch.stats : &own, ns);
  return status;
}
