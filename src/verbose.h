/* verbose.h - a line about each call, for whoever asks: FP4MOE_VERBOSE, log_calls of a context.
 *
 * Off, a call pays for one test. On, it is timed as for a batch with stats, and the line is made
 * and written by the calling thread when the call has ended (thread 0 of a team). */
#ifndef FP4MOE_VERBOSE_H
#define FP4MOE_VERBOSE_H

#include "call.h"
#include "text.h"

/* Where lines go, from FP4MOE_VERBOSE and the desc. INVALID: a word that means nothing, log_calls
 * without log. SYSTEM: the file cannot be opened. */
fp4moe_status fp4moe_verbose_open(fp4moe_context *ctx);
void fp4moe_verbose_close(fp4moe_context *ctx);

/* Does anybody want lines? */
static inline int fp4moe_is_verbose(const fp4moe_context *ctx) {
  return ctx->verbose_fd >= 0 || ctx->desc.log_calls;
}

/* Says how a call went that took `ns`. */
void fp4moe_verbose_call(const fp4moe_call *call, const fp4moe_stats *stats, uint64_t ns);

/* The recipes that served a call's experts, by bucket; the last is that of experts with wide scales
 * (plan.h). NULL: no expert had so many rows. */
typedef struct fp4moe_used {
  const fp4moe_recipe *recipe[FP4MOE_PHASES][FP4MOE_BUCKETS + 1];
  uint32_t least, most; /* rows of an active expert; 0: none is */
} fp4moe_used;

/* The command that runs a problem like the call's, by the same kernels (replay.c). */
void fp4moe_replay_text(const fp4moe_call *call, const fp4moe_used *used, fp4moe_text *out);

#endif
