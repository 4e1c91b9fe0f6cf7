/* gains.c - means of gain lines (gains.h). */
#include <math.h>

#include "gains.h"
#include "oracle.h"

gain_summary gains_summarise(const fp4moe_table *table, int act) {
  gain_summary s = {0};
  double logs = 0;
  for (size_t i = 0; i < table->gains; i++) {
    const fp4moe_gain_entry *g = &table->gain[i];
    if (act != GAIN_ALL && g->act != act) continue;
    s.count++;
    s.removed += !g->kept;
    if (!g->kept) continue;
    logs += log(g->ratio * 1e-6);
    if (!s.worst || g->ratio < s.worst->ratio) s.worst = g;
    if (!s.best || g->ratio > s.best->ratio) s.best = g;
  }
  if (s.count) s.mean = exp(logs / (double)s.count);
  return s;
}

fp4moe_recipe_key gain_key(const fp4moe_gain_entry *g, int phase) {
  const fp4moe_layer_desc desc = {
      .hidden = g->hidden, .intermediate = g->intermediate, .activation.gated = g->gated};
  fp4moe_recipe_key key = {.phase = phase,
                           .format = g->format,
                           .act = g->act,
                           .gated = g->gated,
                           .bucket = g->bucket,
                           .cores = g->cores};
  fp4moe_phase_shape(&desc, phase, &key.n, &key.k);
  return key;
}
