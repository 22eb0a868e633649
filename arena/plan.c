/* SPDX-License-Identifier: Apache-2.0
 *
 * plan.c: checks the requests, states the packing problem, and writes the plan that its solution means.
 *
 * plan_place.c decides which buffer lies above which; here the buffers then sink, in that order, as low as
 * the ones below them let them. Doing so once without and once with guard zones gives the same map twice, the
 * second one spread: what guards cost is exactly the difference. */
#include "arena/plan.h"

#include "arena/checked_size.h"
#include "arena/fail.h"
#include "arena/plan_place.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* The requests that need memory, as a packing problem, and which request each item is. */
typedef struct mlar_plan_problem {
    mlar_place_problem place;
    uint8_t request_of[MLAR_PLAN_MAX_REQUESTS];
    bool persistent[MLAR_PLAN_MAX_REQUESTS];
    uint64_t sum_bytes;
} mlar_plan_problem;

static mlar_status fail_request(mlar_diag *diag, mlar_status status, int32_t index, const char *member,
                                int64_t given, int64_t needed, const char *problem, const char *name) {
    char field[64];
    snprintf(field, sizeof field, "requests[%" PRId32 "].%s", index, member);
    return mlar_fail(diag, status, field, given, needed, "buffer %s: %s (%s = %" PRId64 ")",
                     name == NULL ? "(unnamed)" : name, problem, member, given);
}

static mlar_status check_request(const mlar_plan_request *request, int32_t index, mlar_diag *diag) {
    const mlar_status argument = MLAR_ERROR_ARGUMENT;
    const char *name = request->name;
    if (name == NULL) return fail_request(diag, argument, index, "name", 0, 0, "the name is missing", name);
    if (!mlar_is_power_of_two(request->align)) {
        return fail_request(diag, argument, index, "align", mlar_size_for_diag(request->align), 1,
                            "the alignment is not a power of two", name);
    }
    if (request->first_stage < 0) {
        return fail_request(diag, argument, index, "first_stage", request->first_stage, 0,
                            "the first stage is negative", name);
    }
    if (request->last_stage < request->first_stage) {
        return fail_request(diag, argument, index, "last_stage", request->last_stage, request->first_stage,
                            "the last stage comes before the first", name);
    }
    if (mlar_plan_is_persistent(request) && request->first_stage != 0) {
        return fail_request(diag, argument, index, "first_stage", request->first_stage, 0,
                            "a persistent buffer lives from stage 0", name);
    }
    mlar_checked check = {0};
    if (mlar_checked_align_up(&check, request->bytes, request->align) > MLAR_SIZE_LIMIT || check.failed) {
        return fail_request(diag, MLAR_ERROR_OVERFLOW, index, "bytes", mlar_size_for_diag(request->bytes),
                            INT64_MAX, "its bytes, rounded up to its alignment, pass 2^63 - 1", name);
    }
    return MLAR_OK;
}

/* The stages at which the columns of plan_place.h end, ascending: from the end of one column, the next birth
 * and then the first end that follows it. Returns how many; each has a birth of its own, so at most count. */
static int32_t find_columns(const mlar_plan_request *requests, int32_t count,
                            int32_t closing[MLAR_PLAN_MAX_REQUESTS]) {
    int32_t columns = 0;
    for (int32_t closed = -1;; closing[columns++] = closed) {
        int32_t birth = INT32_MAX;
        int32_t end = INT32_MAX;
        for (int32_t i = 0; i < count; i++) {
            int32_t first = requests[i].first_stage;
            if (requests[i].bytes != 0 && first > closed && first < birth) birth = first;
        }
        if (birth == INT32_MAX) return columns; /* no buffer is born that late */
        for (int32_t i = 0; i < count; i++) {
            int32_t last = requests[i].last_stage;
            if (requests[i].bytes != 0 && last >= birth && last < end) end = last;
        }
        closed = end;
    }
}

static void add_item(mlar_plan_problem *problem, mlar_place_item item, int32_t request, bool persistent) {
    mlar_place_problem *place = &problem->place;
    int32_t at = place->count++;
    for (; at > 0 && mlar_place_goes_first(&item, &place->items[at - 1]); at--) {
        place->items[at] = place->items[at - 1];
        problem->request_of[at] = problem->request_of[at - 1];
        problem->persistent[at] = problem->persistent[at - 1];
    }
    place->items[at] = item;
    problem->request_of[at] = (uint8_t)request;
    problem->persistent[at] = persistent;
    for (int32_t column = item.first; column <= item.last; column++) {
        place->load[column] += item.span;
        if (place->load[column] > place->bound) place->bound = place->load[column];
    }
}

static mlar_status state_problem(const mlar_plan_request *requests, int32_t count, mlar_plan_problem *problem,
                                 mlar_diag *diag) {
    int32_t closing[MLAR_PLAN_MAX_REQUESTS];
    mlar_checked check = {0};
    memset(problem, 0, sizeof *problem);
    for (int32_t i = 0; i < count; i++) {
        mlar_status status = check_request(&requests[i], i, diag);
        if (status != MLAR_OK) return status;
        uint64_t span = mlar_checked_align_up(&check, requests[i].bytes, requests[i].align);
        problem->sum_bytes = mlar_checked_add(&check, problem->sum_bytes, span);
        if (problem->sum_bytes > MLAR_SIZE_LIMIT) {
            return fail_request(diag, MLAR_ERROR_OVERFLOW, i, "bytes", mlar_size_for_diag(requests[i].bytes),
                                INT64_MAX, "the sum of the buffers up to this one passes 2^63 - 1",
                                requests[i].name);
        }
    }
    problem->place.columns = find_columns(requests, count, closing);
    for (int32_t i = 0; i < count; i++) {
        if (requests[i].bytes == 0) continue;
        uint64_t span = mlar_checked_align_up(&check, requests[i].bytes, requests[i].align);
        mlar_place_item item = {.span = span, .align = requests[i].align, .last = -1};
        while (closing[item.first] < requests[i].first_stage) item.first++;
        item.last = item.first;
        while (item.last + 1 < problem->place.columns && closing[item.last + 1] <= requests[i].last_stage) {
            item.last++;
        }
        add_item(problem, item, i, mlar_plan_is_persistent(&requests[i]));
    }
    return MLAR_OK;
}

/* Whether item a comes before item b from the bottom up: persistent buffers first if asked for, else by
 * offset. */
static bool lies_below(const mlar_plan_problem *problem, const uint64_t *offsets, bool persistent_first,
                       int32_t a, int32_t b) {
    const mlar_place_item *items = problem->place.items;
    if (persistent_first && problem->persistent[a] != problem->persistent[b]) return problem->persistent[a];
    if (persistent_first && problem->persistent[a]) {
        if (items[a].align != items[b].align) return items[a].align > items[b].align;
        return problem->request_of[a] < problem->request_of[b];
    }
    return offsets[a] < offsets[b];
}

static void order_items(const mlar_plan_problem *problem, const uint64_t *offsets, bool persistent_first,
                        uint8_t order[MLAR_PLAN_MAX_REQUESTS]) {
    for (int32_t i = 0; i < problem->place.count; i++) {
        int32_t at = i;
        for (; at > 0 && lies_below(problem, offsets, persistent_first, i, order[at - 1]); at--) {
            order[at] = order[at - 1];
        }
        order[at] = (uint8_t)i;
    }
}

/* Lets every item, in order, sink onto the ones below it; returns the total. Never higher than the offsets
 * that the order was read from, and never lower with guards than without. */
static uint64_t settle(mlar_checked *check, const mlar_place_problem *place, const uint8_t *order,
                       uint64_t guard_zone_bytes, uint64_t offsets[MLAR_PLAN_MAX_REQUESTS]) {
    uint64_t total = 0;
    for (int32_t i = 0; i < place->count; i++) {
        const mlar_place_item *item = &place->items[order[i]];
        uint64_t floor = guard_zone_bytes;
        for (int32_t j = 0; j < i; j++) {
            const mlar_place_item *below = &place->items[order[j]];
            if (!mlar_place_conflict(item, below)) continue;
            uint64_t end = mlar_checked_add(check, offsets[order[j]], below->span);
            end = mlar_checked_add(check, end, guard_zone_bytes);
            if (end > floor) floor = end;
        }
        offsets[order[i]] = mlar_checked_align_up(check, floor, item->align);
        uint64_t end = mlar_checked_add(check, offsets[order[i]], item->span);
        end = mlar_checked_add(check, end, guard_zone_bytes);
        if (end > total) total = end;
    }
    return total;
}

mlar_status mlar_plan_make(const mlar_plan_request *requests, int32_t count, uint64_t guard_zone_bytes,
                           mlar_plan *plan, mlar_diag *diag) {
    mlar_plan_problem problem;
    uint64_t placed[MLAR_PLAN_MAX_REQUESTS];
    uint64_t offsets[MLAR_PLAN_MAX_REQUESTS];
    uint8_t order[MLAR_PLAN_MAX_REQUESTS] = {0};
    if (plan == NULL || count < 0 || (count > 0 && requests == NULL)) {
        return mlar_fail(diag, MLAR_ERROR_ARGUMENT, "plan", count, 0,
                         "mlar_plan_make: a pointer is null or the count is negative");
    }
    if (count > MLAR_PLAN_MAX_REQUESTS) {
        return mlar_fail(diag, MLAR_ERROR_LIMIT, "count", count, MLAR_PLAN_MAX_REQUESTS,
                         "%" PRId32 " buffers, a plan holds %d", count, MLAR_PLAN_MAX_REQUESTS);
    }
    mlar_status status = state_problem(requests, count, &problem, diag);
    if (status != MLAR_OK) return status;

    const mlar_place_problem *place = &problem.place;
    mlar_checked check = {0};
    uint64_t placed_bytes = mlar_place(place, placed);
    order_items(&problem, placed, true, order);
    uint64_t packed_bytes = settle(&check, place, order, 0, offsets);
    if (packed_bytes > placed_bytes) { /* mixed alignments: persistent buffers lie better elsewhere */
        order_items(&problem, placed, false, order);
        packed_bytes = settle(&check, place, order, 0, offsets);
    }
    uint64_t total_bytes = packed_bytes;
    if (guard_zone_bytes != 0) total_bytes = settle(&check, place, order, guard_zone_bytes, offsets);
    if (check.failed || total_bytes > MLAR_SIZE_LIMIT) {
        return mlar_fail(diag, MLAR_ERROR_OVERFLOW, "guard_zone_bytes", mlar_size_for_diag(guard_zone_bytes),
                         INT64_MAX, "guard zones of %" PRIu64 " bytes take the arena past 2^63 - 1 bytes",
                         guard_zone_bytes);
    }

    memset(plan, 0, sizeof *plan);
    plan->total_bytes = total_bytes;
    plan->lower_bound_bytes = place->bound;
    plan->sum_bytes = problem.sum_bytes;
    plan->guard_bytes = total_bytes - packed_bytes;
    plan->guard_zone_bytes = guard_zone_bytes;
    plan->align = 1;
    plan->count = count;
    for (int32_t i = 0; i < count; i++) {
        plan->requests[i] = requests[i];
        if (requests[i].bytes != 0 && requests[i].align > plan->align) plan->align = requests[i].align;
        if (!mlar_plan_is_persistent(&requests[i]) && requests[i].last_stage >= plan->stage_count) {
            plan->stage_count = requests[i].last_stage + 1;
        }
    }
    for (int32_t i = 0; i < place->count; i++) plan->offsets[problem.request_of[i]] = offsets[i];
    return MLAR_OK;
}
