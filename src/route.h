/* route.h - one token through a router: fp4moe_route without its checks. */
#ifndef FP4MOE_ROUTE_H
#define FP4MOE_ROUTE_H

#include "fp4moe.h"

#define FP4MOE_ROUTER_GROUPS 256 /* most groups */

/* Logits [experts] to top_k ids and weights, which may have any alignment. The router is valid; the
 * floating-point mode canonical. */
void fp4moe_route_token(const fp4moe_router *router, const void *logits, fp4moe_dtype logits_dtype,
                        void *ids, fp4moe_dtype ids_dtype, void *weights);

#endif
