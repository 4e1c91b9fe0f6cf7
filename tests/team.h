/* team.h - one call by a team of threads (fp4moe_team), as every test of such calls makes it. */
#ifndef FP4MOE_TEAM_H
#define FP4MOE_TEAM_H

#include "fp4moe.h"

/* A thread's part of the call. */
typedef fp4moe_status team_fn(void *arg, const fp4moe_team *team);

/* fn(arg, team) on each of nth threads (1..16) at once. All must end in `want`, and with the same
 * detail, or the test fails; returns the detail, valid until the next. */
const char *team_run(size_t nth, team_fn *fn, void *arg, fp4moe_status want);

#endif
