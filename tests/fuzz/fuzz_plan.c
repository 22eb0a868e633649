/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_plan.c: bytes -> requests -> plan. A plan that is made must satisfy the checker, be the same when made
 * again, and have the same totals for the reversed requests; a refusal must have a reason. Then one buffer is
 * moved, and the checker must find exactly what a comparison of all pairs finds. Any disagreement traps.
 *
 * Input: guard code, moved buffer, distance of the move (8 bytes), then 7 bytes a request:
 * size (2 bytes), its shift, alignment code, first stage, length of life, rarely special cases. */
#include "arena/plan.h"
#include "arena/plan_check.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { HEAD_BYTES = 10, REQUEST_BYTES = 7 };

#define REQUIRE(condition)                                                                                   \
    do {                                                                                                     \
        if (!(condition)) __builtin_trap();                                                                  \
    } while (0)

static const uint64_t guards[] = {0, 0, 1, 16, 256, 1000, 65536, (uint64_t)1 << 40, INT64_MAX, UINT64_MAX};

static mlar_plan_request make_request(const uint8_t *bytes) {
    mlar_plan_request request = {.name = "fuzzed"};
    request.bytes = (uint64_t)(bytes[0] | bytes[1] << 8) << bytes[2] % 64;
    request.align = (uint64_t)1 << bytes[3] % 64;
    if (bytes[3] > 250) request.align = bytes[3] - 251u; /* 0 to 4 */
    request.first_stage = bytes[4] % 128;
    request.last_stage = request.first_stage + bytes[5] % 16;
    switch (bytes[6]) {
    case 0:
        request.last_stage = MLAR_STAGE_FOREVER;
        break;
    case 1:
        request.first_stage = 0, request.last_stage = MLAR_STAGE_FOREVER;
        break;
    case 2:
        request.first_stage = INT32_MIN;
        break;
    case 3:
        request.last_stage = request.first_stage - 1;
        break;
    case 4:
        request.name = NULL;
        break;
    case 5:
        request.bytes = UINT64_MAX - bytes[0];
        break;
    case 6:
        request.last_stage = MLAR_STAGE_FOREVER - 1;
        break;
    default:
        break;
    }
    return request;
}

static int is_valid(const mlar_plan_request *r) {
    return r->name != NULL && r->align != 0 && (r->align & (r->align - 1)) == 0 && r->first_stage >= 0 &&
           r->first_stage <= r->last_stage && (r->last_stage != MLAR_STAGE_FOREVER || r->first_stage == 0);
}

static uint64_t span_of(const mlar_plan_request *r) {
    return (r->bytes + r->align - 1) & ~(r->align - 1);
}

/* Why a refusal was right; sizes are estimated from above in floating point. */
static void check_refusal(mlar_status status, const mlar_plan_request *requests, int32_t count,
                          uint64_t guard) {
    int valid = 1;
    double most = (double)guard;
    for (int32_t i = 0; i < count; i++) {
        valid = valid && is_valid(&requests[i]);
        most += (double)requests[i].bytes + 2.0 * (double)requests[i].align + (double)guard;
    }
    if (status == MLAR_ERROR_ARGUMENT) {
        REQUIRE(!valid);
    } else {
        REQUIRE(status == MLAR_ERROR_OVERFLOW && most >= 9.2e18);
    }
}

/* The checker's judgement of offsets, made the slow way. Totals other than the size are taken to be right. */
static int offsets_are_good(const mlar_plan *plan) {
    uint64_t guard = plan->guard_zone_bytes, needed = 0;
    for (int32_t i = 0; i < plan->count; i++) {
        const mlar_plan_request *r = &plan->requests[i];
        uint64_t begin = plan->offsets[i], span = span_of(r);
        if (r->bytes == 0 && begin != 0) return 0;
        if (r->bytes == 0) continue;
        if (begin % r->align != 0 || begin < guard || begin > INT64_MAX || begin + span > INT64_MAX) return 0;
        if (begin + span + guard > needed) needed = begin + span + guard;
        for (int32_t j = 0; j < i; j++) {
            const mlar_plan_request *other = &plan->requests[j];
            if (other->bytes == 0 || other->first_stage > r->last_stage ||
                r->first_stage > other->last_stage) {
                continue;
            }
            uint64_t other_begin = plan->offsets[j];
            if (begin < other_begin + span_of(other) + guard && other_begin < begin + span + guard) return 0;
        }
    }
    return plan->total_bytes == needed;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static mlar_plan plan, again;
    mlar_plan_request requests[MLAR_PLAN_MAX_REQUESTS], reversed[MLAR_PLAN_MAX_REQUESTS];
    if (size < HEAD_BYTES) return 0;
    uint64_t guard = guards[data[0] % (sizeof guards / sizeof guards[0])];
    int32_t count = 0;
    for (size_t at = HEAD_BYTES; at + REQUEST_BYTES <= size && count < MLAR_PLAN_MAX_REQUESTS;
         at += REQUEST_BYTES) {
        requests[count++] = make_request(data + at);
    }
    for (int32_t i = 0; i < count; i++) reversed[i] = requests[count - 1 - i];

    mlar_diag diag = {.struct_size = sizeof diag};
    mlar_status status = mlar_plan_make(requests, count, guard, &plan, &diag);
    if (status != MLAR_OK) {
        REQUIRE(diag.status == status && diag.message[0] != '\0');
        check_refusal(status, requests, count, guard);
        return 0;
    }
    REQUIRE(mlar_plan_check(requests, count, &plan, NULL) == MLAR_OK);
    REQUIRE(offsets_are_good(&plan));
    REQUIRE(mlar_plan_make(requests, count, guard, &again, NULL) == MLAR_OK);
    REQUIRE(memcmp(&plan, &again, sizeof plan) == 0);
    REQUIRE(mlar_plan_make(reversed, count, guard, &again, NULL) == MLAR_OK);
    REQUIRE(plan.total_bytes == again.total_bytes && plan.guard_bytes == again.guard_bytes);
    REQUIRE(plan.lower_bound_bytes == again.lower_bound_bytes && plan.sum_bytes == again.sum_bytes);

    if (count > 0) {
        uint64_t distance = 0;
        for (int i = 0; i < 8; i++) distance |= (uint64_t)data[2 + i] << (8 * i);
        plan.offsets[data[1] % count] += distance;
        REQUIRE((mlar_plan_check(requests, count, &plan, NULL) == MLAR_OK) == offsets_are_good(&plan));
    }
    return 0;
}
