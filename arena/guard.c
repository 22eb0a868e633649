/* SPDX-License-Identifier: Apache-2.0
 *
 * guard.c: where the guard zones are, what is in them, and who wrote over them. */
#include "arena/guard.h"

#include "arena/checked_size.h"
#include "arena/fail.h"
#include "arena/hash.h"
#include "arena/shadow.h"

#include <inttypes.h>
#include <string.h>

/* Zones are hashed and compared in pieces of this size, which fit a stack. */
enum { PIECE_BYTES = 512 };

static const char *const side_names[MLAR_GUARD_SIDES] = {
    [MLAR_GUARD_FRONT] = "front", [MLAR_GUARD_BACK] = "back"};

void mlar_guard_pattern(uint64_t offset, uint64_t bytes, void *out) {
    unsigned char *pattern = out;
    for (uint64_t i = 0; i < bytes; i++) {
        /* 1 to 254, different from place to place: zeros and NaN poison are what overruns write most. */
        pattern[i] = (unsigned char)(1 + (((offset + i) * 0x9e3779b97f4a7c15u) >> 56) % 254);
    }
}

/* The zone on that side of a buffer; empty if the plan has no guards or the buffer no memory. The back zone
 * includes what alignment left behind the buffer's last byte. */
static mlar_guard_zone zone_of(const mlar_plan *plan, int32_t index, mlar_guard_side side) {
    const mlar_plan_request *request = &plan->requests[index];
    uint64_t guard = plan->guard_zone_bytes;
    uint64_t begin = plan->offsets[index];
    if (guard == 0 || request->bytes == 0) return (mlar_guard_zone){0, 0};
    if (side == MLAR_GUARD_FRONT) return (mlar_guard_zone){begin - guard, guard};
    mlar_checked check = {0};
    uint64_t span = mlar_checked_align_up(&check, request->bytes, request->align);
    return (mlar_guard_zone){begin + request->bytes, span - request->bytes + guard};
}

static bool meets(int32_t first_a, int32_t last_a, int32_t first_b, int32_t last_b) {
    return first_a <= last_b && first_b <= last_a;
}

bool mlar_guard_zone_of(const mlar_plan *plan, int32_t index, mlar_guard_side side, int32_t first_stage,
                        int32_t last_stage, mlar_guard_zone *zone) {
    const mlar_plan_request *request = &plan->requests[index];
    *zone = zone_of(plan, index, side);
    if (zone->bytes == 0 || !meets(request->first_stage, request->last_stage, first_stage, last_stage)) {
        return false;
    }
    for (int32_t i = 0; i < plan->count; i++) {
        const mlar_plan_request *other = &plan->requests[i];
        if (other->bytes == 0 || !meets(other->first_stage, other->last_stage, first_stage, last_stage))
            continue;
        if (plan->offsets[i] < zone->offset + zone->bytes && zone->offset < plan->offsets[i] + other->bytes) {
            return false;
        }
    }
    return true;
}

static uint64_t smaller(uint64_t a, uint64_t b) {
    return a < b ? a : b;
}

static uint64_t pattern_digest(mlar_guard_zone zone) {
    uint64_t digest = 0;
    for (uint64_t done = 0; done < zone.bytes; done += PIECE_BYTES) {
        unsigned char piece[PIECE_BYTES];
        uint64_t bytes = smaller(PIECE_BYTES, zone.bytes - done);
        mlar_guard_pattern(zone.offset + done, bytes, piece);
        digest = mlar_hash(piece, (size_t)bytes, digest);
    }
    return digest;
}

static uint64_t zone_digest(const unsigned char *zone_bytes, uint64_t count) {
    uint64_t digest = 0;
    for (uint64_t done = 0; done < count; done += PIECE_BYTES) {
        digest = mlar_hash(zone_bytes + done, (size_t)smaller(PIECE_BYTES, count - done), digest);
    }
    return digest;
}

void mlar_guards_init(mlar_guards *guards, const mlar_plan *plan) {
    memset(guards, 0, sizeof *guards);
    guards->plan = plan;
    for (int32_t i = 0; i < plan->count; i++) {
        for (int32_t side = 0; side < MLAR_GUARD_SIDES; side++) {
            guards->digest[i][side] = pattern_digest(zone_of(plan, i, (mlar_guard_side)side));
        }
    }
}

mlar_status mlar_guards_check_zone(const mlar_guards *guards, int32_t index, mlar_guard_side side,
                                   const void *zone_bytes, mlar_diag *diag) {
    const unsigned char *found = zone_bytes;
    mlar_guard_zone zone = zone_of(guards->plan, index, side);
    if (zone_digest(found, zone.bytes) == guards->digest[index][side]) return MLAR_OK;
    /* Which byte, the one nearest to the buffer first. */
    uint64_t distance = 0;
    unsigned char expected = 0;
    uint64_t place = 0;
    for (; distance < zone.bytes; distance++) {
        place = side == MLAR_GUARD_BACK ? distance : zone.bytes - 1 - distance;
        mlar_guard_pattern(zone.offset + place, 1, &expected);
        if (found[place] != expected) break;
    }
    const char *name = guards->plan->requests[index].name;
    return mlar_fail(diag, MLAR_ERROR_GUARD, name, mlar_size_for_diag(distance),
                     mlar_size_for_diag(zone.bytes),
                     "buffer %s: its %s guard zone was overwritten %" PRIu64
                     " bytes from the buffer, arena offset %" PRIu64 " (0x%02x, was 0x%02x)",
                     name, side_names[side], distance, zone.offset + place, found[place], expected);
}

void mlar_guards_fill(const mlar_guards *guards, mlar_arena_core *arena, int32_t first_stage,
                      int32_t last_stage) {
    mlar_arena_expose(arena);
    for (int32_t i = 0; i < guards->plan->count; i++) {
        for (int32_t side = 0; side < MLAR_GUARD_SIDES; side++) {
            mlar_guard_zone zone;
            if (!mlar_guard_zone_of(guards->plan, i, (mlar_guard_side)side, first_stage, last_stage, &zone)) {
                continue;
            }
            mlar_guard_pattern(zone.offset, zone.bytes, arena->base + zone.offset);
        }
    }
    mlar_arena_conceal(arena);
}

mlar_status mlar_guards_check(const mlar_guards *guards, mlar_arena_core *arena, int32_t first_stage,
                              int32_t last_stage, mlar_diag *diag) {
    mlar_status status = MLAR_OK;
    mlar_arena_expose(arena);
    for (int32_t i = 0; status == MLAR_OK && i < guards->plan->count; i++) {
        for (int32_t side = 0; status == MLAR_OK && side < MLAR_GUARD_SIDES; side++) {
            mlar_guard_zone zone;
            if (!mlar_guard_zone_of(guards->plan, i, (mlar_guard_side)side, first_stage, last_stage, &zone)) {
                continue;
            }
            mlar_shadow_define(arena->base + zone.offset, (size_t)zone.bytes);
            status =
                mlar_guards_check_zone(guards, i, (mlar_guard_side)side, arena->base + zone.offset, diag);
        }
    }
    mlar_arena_conceal(arena);
    return status;
}
