/* SPDX-License-Identifier: Apache-2.0
 *
 * plan_check.c: walks through the stages, sorts the buffers that live in each by address, and looks at
 * neighbours. It trusts neither the totals nor the offsets of the plan, and knows nothing of how they came
 * about; it must not include the planner's internals. */
#include "arena/plan_check.h"

#include "arena/checked_size.h"
#include "arena/fail.h"

#include <inttypes.h>
#include <string.h>

static mlar_status verdict(mlar_diag *diag, const char *field, uint64_t given, uint64_t needed,
                           const char *message) {
    return mlar_fail(diag, MLAR_ERROR_PLAN, field, mlar_size_for_diag(given), mlar_size_for_diag(needed),
                     "%s: %" PRIu64 " instead of %" PRIu64, message, given, needed);
}

static mlar_status verdict_on(mlar_diag *diag, const mlar_plan_request *request, uint64_t given,
                              uint64_t needed, const char *message) {
    return mlar_fail(diag, MLAR_ERROR_PLAN, request->name, mlar_size_for_diag(given),
                     mlar_size_for_diag(needed), "buffer %s: %s (%" PRIu64 ", limit %" PRIu64 ")",
                     request->name, message, given, needed);
}

/* The bytes a buffer may rely on: its own, up to the next multiple of its alignment. */
static uint64_t span_bytes(const mlar_plan_request *request) {
    uint64_t rest = request->bytes % request->align;
    return rest == 0 ? request->bytes : request->bytes + (request->align - rest);
}

static mlar_status check_identity(const mlar_plan_request *requests, int32_t count, const mlar_plan *plan,
                                  mlar_diag *diag) {
    if (plan->count != count) {
        return mlar_fail(diag, MLAR_ERROR_PLAN, "count", plan->count, count,
                         "the plan has %" PRId32 " buffers, the requests %" PRId32, plan->count, count);
    }
    for (int32_t i = 0; i < count; i++) {
        const mlar_plan_request *asked = &requests[i];
        const mlar_plan_request *planned = &plan->requests[i];
        if (asked->name == NULL || asked->align == 0 || (asked->align & (asked->align - 1)) != 0 ||
            asked->first_stage < 0 || asked->last_stage < asked->first_stage ||
            asked->bytes > MLAR_SIZE_LIMIT || span_bytes(asked) > MLAR_SIZE_LIMIT ||
            (asked->last_stage == MLAR_STAGE_FOREVER && asked->first_stage != 0)) {
            return mlar_fail(diag, MLAR_ERROR_PLAN, "requests", i, 0, "request %" PRId32 " is not valid", i);
        }
        if (planned->name != asked->name || planned->bytes != asked->bytes ||
            planned->align != asked->align || planned->first_stage != asked->first_stage ||
            planned->last_stage != asked->last_stage) {
            return mlar_fail(diag, MLAR_ERROR_PLAN, asked->name, i, 0,
                             "buffer %s: the plan was made for another request", asked->name);
        }
    }
    return MLAR_OK;
}

static mlar_status check_bounds(const mlar_plan *plan, mlar_diag *diag) {
    if (plan->total_bytes > MLAR_SIZE_LIMIT) {
        return verdict(diag, "total_bytes", plan->total_bytes, MLAR_SIZE_LIMIT, "the arena's size");
    }
    for (int32_t i = 0; i < plan->count; i++) {
        const mlar_plan_request *request = &plan->requests[i];
        uint64_t offset = plan->offsets[i];
        if (request->bytes == 0) {
            if (offset != 0) return verdict_on(diag, request, offset, 0, "it is empty but has an offset");
            continue;
        }
        if (offset % request->align != 0) {
            return verdict_on(diag, request, offset, request->align, "its offset is misaligned");
        }
        if (offset < plan->guard_zone_bytes) {
            return verdict_on(diag, request, offset, plan->guard_zone_bytes, "no guard zone in front of it");
        }
        if (offset > plan->total_bytes || span_bytes(request) > plan->total_bytes - offset) {
            return verdict_on(diag, request, offset, plan->total_bytes,
                              "it reaches past the end of the arena");
        }
    }
    return MLAR_OK;
}

/* The buffers with memory that are live in `stage`, lowest address first; returns how many. */
static int32_t live_by_address(const mlar_plan *plan, int32_t stage, int32_t live[MLAR_PLAN_MAX_REQUESTS]) {
    int32_t count = 0;
    for (int32_t i = 0; i < plan->count; i++) {
        if (plan->requests[i].bytes == 0 || !mlar_plan_is_live(&plan->requests[i], stage)) continue;
        int32_t at = count++;
        for (; at > 0 && plan->offsets[live[at - 1]] > plan->offsets[i]; at--) live[at] = live[at - 1];
        live[at] = i;
    }
    return count;
}

/* Neighbours in one stage; adds up what they take. Bounds have been checked: every end, and every guard zone,
 * is below 2^63, and two of them do not overflow. */
static mlar_status check_stage(const mlar_plan *plan, int32_t stage, uint64_t *live_bytes, mlar_diag *diag) {
    int32_t live[MLAR_PLAN_MAX_REQUESTS];
    int32_t count = live_by_address(plan, stage, live);
    *live_bytes = 0;
    for (int32_t i = 0; i < count; i++) {
        const mlar_plan_request *lower = &plan->requests[live[i]];
        *live_bytes += span_bytes(lower);
        if (i + 1 == count) break;
        const mlar_plan_request *upper = &plan->requests[live[i + 1]];
        uint64_t end = plan->offsets[live[i]] + span_bytes(lower) + plan->guard_zone_bytes;
        if (plan->offsets[live[i + 1]] >= end) continue;
        return mlar_fail(diag, MLAR_ERROR_PLAN, upper->name, mlar_size_for_diag(plan->offsets[live[i + 1]]),
                         mlar_size_for_diag(end),
                         "buffer %s at %" PRIu64 " lies in buffer %s or its guard zone, which end at %" PRIu64
                         ": both are live in stage %" PRId32,
                         upper->name, plan->offsets[live[i + 1]], lower->name, end, stage);
    }
    return MLAR_OK;
}

static mlar_status check_totals(const mlar_plan *plan, uint64_t lower_bound_bytes, mlar_diag *diag) {
    mlar_checked check = {0};
    uint64_t sum_bytes = 0;
    uint64_t needed = 0;
    uint64_t align = 1;
    int32_t stage_count = 0;
    for (int32_t i = 0; i < plan->count; i++) {
        const mlar_plan_request *request = &plan->requests[i];
        sum_bytes = mlar_checked_add(&check, sum_bytes, span_bytes(request));
        uint64_t end = plan->offsets[i] + span_bytes(request) + plan->guard_zone_bytes;
        if (request->bytes != 0 && end > needed) needed = end;
        if (request->bytes != 0 && request->align > align) align = request->align;
        if (request->last_stage != MLAR_STAGE_FOREVER && request->last_stage + 1 > stage_count) {
            stage_count = request->last_stage + 1;
        }
    }
    if (plan->total_bytes != needed) {
        return verdict(diag, "total_bytes", plan->total_bytes, needed, "the arena's size");
    }
    if (check.failed || plan->sum_bytes != sum_bytes) {
        return verdict(diag, "sum_bytes", plan->sum_bytes, sum_bytes, "the sum of the buffers");
    }
    if (plan->lower_bound_bytes != lower_bound_bytes) {
        return verdict(diag, "lower_bound_bytes", plan->lower_bound_bytes, lower_bound_bytes,
                       "the lower bound");
    }
    if (plan->align != align) return verdict(diag, "align", plan->align, align, "the arena's alignment");
    if (plan->stage_count != stage_count) {
        return mlar_fail(diag, MLAR_ERROR_PLAN, "stage_count", plan->stage_count, stage_count,
                         "%" PRId32 " stages instead of %" PRId32, plan->stage_count, stage_count);
    }
    if (plan->guard_bytes > plan->total_bytes || (plan->guard_zone_bytes == 0 && plan->guard_bytes != 0)) {
        return verdict(diag, "guard_bytes", plan->guard_bytes, 0, "guard bytes");
    }
    uint64_t without_guards = plan->total_bytes - plan->guard_bytes;
    if (without_guards < lower_bound_bytes) {
        return verdict(diag, "guard_bytes", without_guards, lower_bound_bytes,
                       "the arena without its guards is smaller than the lower bound");
    }
    if (without_guards > sum_bytes) {
        return verdict(diag, "guard_bytes", without_guards, sum_bytes,
                       "the arena without its guards is larger than the sum");
    }
    return MLAR_OK;
}

mlar_status mlar_plan_check(const mlar_plan_request *requests, int32_t count, const mlar_plan *plan,
                            mlar_diag *diag) {
    if (plan == NULL || count < 0 || count > MLAR_PLAN_MAX_REQUESTS || (count > 0 && requests == NULL)) {
        return mlar_fail(diag, MLAR_ERROR_ARGUMENT, "plan", count, MLAR_PLAN_MAX_REQUESTS,
                         "mlar_plan_check: a pointer is null or the count is outside 0..%d",
                         MLAR_PLAN_MAX_REQUESTS);
    }
    mlar_status status = check_identity(requests, count, plan, diag);
    if (status == MLAR_OK) status = check_bounds(plan, diag);
    uint64_t lower_bound_bytes = 0;
    /* Two buffers that ever live together do so in the stage in which the later one is born. */
    for (int32_t i = 0; status == MLAR_OK && i < count; i++) {
        uint64_t live_bytes = 0;
        status = check_stage(plan, requests[i].first_stage, &live_bytes, diag);
        if (live_bytes > lower_bound_bytes) lower_bound_bytes = live_bytes;
    }
    return status != MLAR_OK ? status : check_totals(plan, lower_bound_bytes, diag);
}
