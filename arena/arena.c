/* SPDX-License-Identifier: Apache-2.0
 *
 * arena.c: opens, holds and closes a block of memory, and answers where a buffer is. It computes addresses
 * and never follows them: the block may belong to a device. */
#include "arena/arena.h"

#include "arena/checked_size.h"
#include "arena/fail.h"
#include "arena/shadow.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>

static mlar_status check_base(const void *base, uint64_t align, mlar_diag *diag) {
    uint64_t rest = (uint64_t)(uintptr_t)base & (align - 1);
    if (rest == 0) return MLAR_OK;
    return mlar_fail(diag, MLAR_ERROR_MEMORY_ALIGNMENT, "arena.base", mlar_size_for_diag(rest),
                     mlar_size_for_diag(align),
                     "the arena begins %" PRIu64 " bytes past a multiple of %" PRIu64, rest, align);
}

static mlar_status check_size(uint64_t given, uint64_t needed, mlar_diag *diag) {
    if (given >= needed) return MLAR_OK;
    return mlar_fail(diag, MLAR_ERROR_MEMORY_SIZE, "arena.bytes", mlar_size_for_diag(given),
                     mlar_size_for_diag(needed),
                     "the arena has %" PRIu64 " bytes, %" PRIu64 " are needed: %" PRIu64 " missing", given,
                     needed, needed - given);
}

static mlar_status caller_allocate(void *context, uint64_t bytes, uint64_t align, void **base,
                                   mlar_diag *diag) {
    const mlar_caller_memory *memory = context;
    mlar_status status = check_size(memory->bytes, bytes, diag);
    if (status == MLAR_OK) status = check_base(memory->base, align, diag);
    if (status == MLAR_OK) *base = memory->base;
    return status;
}

static mlar_status caller_release(void *context, void *base, uint64_t bytes, mlar_diag *diag) {
    (void)context, (void)base, (void)bytes, (void)diag; /* it stays the caller's */
    return MLAR_OK;
}

mlar_arena_source mlar_arena_source_caller(mlar_caller_memory *memory, bool host_visible) {
    return (mlar_arena_source){.name = "caller",
                               .allocate = caller_allocate,
                               .release = caller_release,
                               .context = memory,
                               .host_visible = host_visible};
}

mlar_status mlar_arena_open(mlar_arena_core *arena, const mlar_arena_source *source, uint64_t bytes,
                            uint64_t align, mlar_diag *diag) {
    if (arena == NULL || source == NULL || source->allocate == NULL || source->release == NULL) {
        return mlar_fail(diag, MLAR_ERROR_ARGUMENT, "arena", 0, 0, "mlar_arena_open: a pointer is null");
    }
    if (!mlar_is_power_of_two(align)) {
        return mlar_fail(diag, MLAR_ERROR_ARGUMENT, "arena.align", mlar_size_for_diag(align), 1,
                         "the arena's alignment %" PRIu64 " is not a power of two", align);
    }
    if (bytes > MLAR_SIZE_LIMIT) {
        return mlar_fail(diag, MLAR_ERROR_OVERFLOW, "arena.bytes", INT64_MAX, INT64_MAX,
                         "an arena of %" PRIu64 " bytes passes 2^63 - 1", bytes);
    }
    void *base = NULL;
    if (bytes > 0) {
        mlar_status status = source->allocate(source->context, bytes, align, &base, diag);
        if (status != MLAR_OK) return status;
        if (base == NULL || bytes - 1 > UINTPTR_MAX - (uintptr_t)base) {
            if (base != NULL) (void)source->release(source->context, base, bytes, NULL);
            return mlar_fail(diag, MLAR_ERROR_ARGUMENT, "arena.base", 0, mlar_size_for_diag(bytes),
                             "%" PRIu64 " bytes at %p are no memory", bytes, base);
        }
    }
    *arena = (mlar_arena_core){.source = *source, .base = base, .bytes = bytes, .stage = MLAR_STAGE_ANY};
    return MLAR_OK;
}

mlar_status mlar_arena_close(mlar_arena_core *arena, mlar_diag *diag) {
    if (arena == NULL) {
        return mlar_fail(diag, MLAR_ERROR_ARGUMENT, "arena", 0, 0, "mlar_arena_close: the arena is null");
    }
    if (atomic_load(&arena->holder) != NULL) {
        return mlar_fail(diag, MLAR_ERROR_BUSY, "arena", 0, 0, "an engine still holds the arena");
    }
    if (arena->base != NULL) {
        mlar_status status = arena->source.release(arena->source.context, arena->base, arena->bytes, diag);
        if (status != MLAR_OK) return status;
    }
    *arena = (mlar_arena_core){.stage = MLAR_STAGE_ANY};
    return MLAR_OK;
}

mlar_status mlar_arena_hold(mlar_arena_core *arena, const void *holder, const mlar_plan *plan,
                            mlar_diag *diag) {
    if (arena == NULL || holder == NULL || plan == NULL) {
        return mlar_fail(diag, MLAR_ERROR_ARGUMENT, "arena", 0, 0, "mlar_arena_hold: a pointer is null");
    }
    const void *nobody = NULL;
    if (!atomic_compare_exchange_strong(&arena->holder, &nobody, holder)) {
        return mlar_fail(diag, MLAR_ERROR_BUSY, "arena", 0, 0, "another engine holds the arena");
    }
    mlar_status status = check_size(arena->bytes, plan->total_bytes, diag);
    if (status == MLAR_OK) status = check_base(arena->base, plan->align, diag);
    if (status != MLAR_OK) {
        atomic_store(&arena->holder, NULL);
        return status;
    }
    arena->plan = plan;
    arena->stage = MLAR_STAGE_ANY;
    return MLAR_OK;
}

mlar_status mlar_arena_drop(mlar_arena_core *arena, const void *holder, mlar_diag *diag) {
    if (arena == NULL || holder == NULL) {
        return mlar_fail(diag, MLAR_ERROR_ARGUMENT, "arena", 0, 0, "mlar_arena_drop: a pointer is null");
    }
    if (atomic_load(&arena->holder) != holder) {
        return mlar_fail(diag, MLAR_ERROR_STATE, "arena", 0, 0, "the arena is not held by this engine");
    }
    mlar_arena_enter_stage(arena, MLAR_STAGE_ANY);
    arena->plan = NULL;
    atomic_store(&arena->holder, NULL); /* last: from here on somebody else may hold it */
    return MLAR_OK;
}

void *mlar_arena_pointer(const mlar_arena_core *arena, int32_t index) {
    const mlar_plan *plan = arena->plan;
    if (plan == NULL || index < 0 || index >= plan->count || plan->requests[index].bytes == 0) return NULL;
    return arena->base + plan->offsets[index];
}

/* ---- what the sanitizers are told ------------------------------------------------------------ */

static bool is_live(const mlar_plan_request *request, int32_t stage) {
    return mlar_plan_is_persistent(request) || mlar_plan_is_live(request, stage);
}

/* The live buffers by address; returns how many. */
static int32_t live_by_address(const mlar_plan *plan, int32_t stage, uint8_t live[MLAR_PLAN_MAX_REQUESTS]) {
    int32_t count = 0;
    for (int32_t i = 0; i < plan->count; i++) {
        if (plan->requests[i].bytes == 0 || !is_live(&plan->requests[i], stage)) continue;
        int32_t at = count++;
        for (; at > 0 && plan->offsets[live[at - 1]] > plan->offsets[i]; at--) live[at] = live[at - 1];
        live[at] = (uint8_t)i;
    }
    return count;
}

/* Constant where there is no sanitizer: entering a stage then costs one store. */
static bool has_shadow(const mlar_arena_core *arena) {
    return MLAR_SHADOW_ACTIVE && arena->source.host_visible && arena->base != NULL;
}

void mlar_arena_expose(mlar_arena_core *arena) {
    if (has_shadow(arena)) mlar_shadow_show(arena->base, arena->bytes);
}

void *mlar_arena_inspect(mlar_arena_core *arena, int32_t index) {
    void *address = mlar_arena_pointer(arena, index);
    mlar_arena_expose(arena);
    if (has_shadow(arena) && address != NULL) mlar_shadow_define(address, arena->plan->requests[index].bytes);
    return address;
}

void mlar_arena_conceal(mlar_arena_core *arena) {
    const mlar_plan *plan = arena->plan;
    if (!has_shadow(arena) || plan == NULL || arena->stage == MLAR_STAGE_ANY) return;
    uint8_t live[MLAR_PLAN_MAX_REQUESTS];
    int32_t count = live_by_address(plan, arena->stage, live);
    uint64_t end = 0;
    for (int32_t i = 0; i < count; i++) {
        uint64_t offset = plan->offsets[live[i]];
        mlar_shadow_hide(arena->base + end, offset - end);
        end = offset + plan->requests[live[i]].bytes;
        mlar_shadow_show(arena->base + offset, end - offset);
    }
    mlar_shadow_hide(arena->base + end, arena->bytes - end);
}

void mlar_arena_enter_stage(mlar_arena_core *arena, int32_t stage) {
    arena->stage = stage;
    if (!has_shadow(arena) || arena->plan == NULL) return;
    mlar_arena_expose(arena);
    mlar_arena_conceal(arena);
    for (int32_t i = 0; i < arena->plan->count; i++) {
        const mlar_plan_request *request = &arena->plan->requests[i];
        if (mlar_plan_is_persistent(request) || request->first_stage != stage) continue;
        mlar_shadow_undefine(arena->base + arena->plan->offsets[i], request->bytes);
    }
}
