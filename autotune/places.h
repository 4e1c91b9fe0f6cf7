/* places.h - where threads run and into how many shards layers are cut: what there is to try on a
 * host, and which is the fastest. */
#ifndef FP4MOE_PLACES_H
#define FP4MOE_PLACES_H

#include "entries.h"
#include "topology.h"
#include "tune.h"

/* The plan of this host, or of the machine that hwloc is told to see (HWLOC_SYNTHETIC). */
size_t places_seen(const fp4moe_host *host, topology_place out[PLACES_MAX]);

/* "per_core, 2 shards" */
enum { PLACE_TEXT = 48 };
void place_text(fp4moe_placement placement, size_t shards, char text[PLACE_TEXT]);

/* Races the host's places on the whole layer of a problem, few and many tokens, in the static
 * order; 1: `best` is the fastest. 0: there is one only, or the run ended before. */
int places_race(tune_run *run, fp4moe_context *context, const problem *p,
                fp4moe_placement_entry *best);

#endif
