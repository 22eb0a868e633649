/* SPDX-License-Identifier: Apache-2.0
 *
 * plan_check.h: an independent judgement of a plan. It shares the planner's types and none of its code. */
#ifndef MLAR_ARENA_PLAN_CHECK_H
#define MLAR_ARENA_PLAN_CHECK_H

#include "arena/plan.h"

/* MLAR_OK, or MLAR_ERROR_PLAN with the first violation found: the plan is for other requests; a buffer is
 * misaligned or reaches past the arena; two buffers that are live in one stage overlap or stand closer than
 * the guard zone; a total is not what the requests and offsets say. Any bit pattern in *plan is safe
 * to pass. */
mlar_status mlar_plan_check(const mlar_plan_request *requests, int32_t count, const mlar_plan *plan,
                            mlar_diag *diag);

#endif
