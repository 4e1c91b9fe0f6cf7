/* conditions.h - what about this machine, now, makes figures less than they could be. */
#ifndef FP4MOE_CONDITIONS_H
#define FP4MOE_CONDITIONS_H

#include "host.h"

/* Calls `line` for each: governor, boost, load, CPU quota, virtual machine, huge pages. What a
 * machine does not tell is not warned about. */
void conditions_report(const fp4moe_host *host, void (*line)(const char *text));

#endif
