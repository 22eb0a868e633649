/* SPDX-License-Identifier: Apache-2.0
 *
 * plan.h: turns buffers with lifetimes into offsets in one arena.
 *
 * A request says how many bytes a buffer needs, how they are aligned, and in which stages its contents
 * matter. Buffers whose stages do not meet may share bytes. The plan is a pure function of the requests: no
 * malloc, no clock, no addresses. It knows nothing of attention, of back ends, or of where the arena will
 * live.
 *
 * Words: a buffer's *span* is its bytes rounded up to its alignment; the *lower bound* is the largest sum of
 * spans that are live in one stage, which no placement can beat; the *sum* is what all spans take side by
 * side.
 *
 * Promises: lower_bound <= total - guard <= sum; the totals do not depend on the order of the requests; equal
 * requests give equal offsets on every machine. Several sequences that share an arena (one per layer kind)
 * are planned at once by giving each its own range of stage numbers.
 *
 * Guard zones spread the same map: with guard_zone_bytes = g every buffer has g bytes in front of it and g
 * bytes after its span that no simultaneously live buffer uses (neighbours share a zone). Turning guards on
 * costs exactly guard_bytes. */
#ifndef MLAR_ARENA_PLAN_H
#define MLAR_ARENA_PLAN_H

#include <mlarena/status.h>
#include <stdbool.h>
#include <stdint.h>

enum { MLAR_PLAN_MAX_REQUESTS = 64 };

/* last_stage of a buffer whose contents outlive the step; its first_stage must be 0. */
#define MLAR_STAGE_FOREVER INT32_MAX

typedef struct mlar_plan_request {
    const char *name;    /* for maps and messages; not copied, must outlive the plan */
    uint64_t bytes;      /* 0 is fine: the buffer gets offset 0 and no memory */
    uint64_t align;      /* power of two */
    int32_t first_stage; /* 0 .. last_stage */
    int32_t last_stage;  /* inclusive; MLAR_STAGE_FOREVER = persistent */
} mlar_plan_request;

/* A plain value: copy it freely. */
typedef struct mlar_plan {
    uint64_t total_bytes;       /* what the arena must hold, guards included */
    uint64_t lower_bound_bytes; /* without guards */
    uint64_t sum_bytes;         /* without guards */
    uint64_t guard_bytes;       /* the part of total_bytes that guards cost */
    uint64_t guard_zone_bytes;  /* as given */
    uint64_t align;             /* what the arena's base must be aligned to; 1 if there is no buffer */
    int32_t count;
    int32_t stage_count; /* 1 + the highest stage number named by a request, persistence aside; 0 if none */
    mlar_plan_request requests[MLAR_PLAN_MAX_REQUESTS]; /* as given, in the given order */
    uint64_t offsets[MLAR_PLAN_MAX_REQUESTS];           /* same order */
} mlar_plan;

/* requests[count] -> *plan, which is written only on success.
 * MLAR_ERROR_ARGUMENT: a request outside its domain (diag.field names it); MLAR_ERROR_LIMIT: too many
 * requests; MLAR_ERROR_OVERFLOW: the sum with its guards is above 2^63 - 1. */
mlar_status mlar_plan_make(const mlar_plan_request *requests, int32_t count, uint64_t guard_zone_bytes,
                           mlar_plan *plan, mlar_diag *diag);

static inline bool mlar_plan_is_persistent(const mlar_plan_request *request) {
    return request->last_stage == MLAR_STAGE_FOREVER;
}

static inline bool mlar_plan_is_live(const mlar_plan_request *request, int32_t stage) {
    return request->first_stage <= stage && stage <= request->last_stage;
}

#endif
