/* SPDX-License-Identifier: Apache-2.0
 *
 * arena_api.c: the public arenas over host memory. Pools are opened in engine/gpu/pool.c. */
#include "engine/arena_api.h"

#include "arena/fail.h"

#include <string.h>

/* Alignment is judged at init, against the plan: opening asks for none. */
#define NO_ALIGNMENT 1
/* What malloc memory is aligned to: the alignment of every plan. */
#define ARENA_ALIGNMENT 256

static mlar_status open_source(mlar_arena *arena, const mlar_arena_source *source, uint64_t bytes,
                               uint64_t align, mlar_diag *diag) {
    return mlar_arena_open(mlar_arena_core_of(arena), source, bytes, align, diag);
}

mlar_status mlar_arena_from_caller(mlar_arena *arena, void *base, uint64_t bytes, int32_t host_visible,
                                   mlar_diag *diag) {
    if (arena == NULL || base == NULL) return mlar_fail_null(diag, arena == NULL ? "arena" : "base");
    memset(arena, 0, sizeof *arena);
    mlar_arena_body *body = mlar_arena_body_of(arena);
    body->caller = (mlar_caller_memory){base, bytes};
    mlar_arena_source source = mlar_arena_source_caller(&body->caller, host_visible != 0);
    return open_source(arena, &source, bytes, NO_ALIGNMENT, diag);
}

mlar_status mlar_arena_from_malloc(mlar_arena *arena, uint64_t bytes, mlar_diag *diag) {
    if (arena == NULL) return mlar_fail_null(diag, "arena");
    memset(arena, 0, sizeof *arena);
    mlar_arena_source source = mlar_arena_source_malloc();
    return open_source(arena, &source, bytes, ARENA_ALIGNMENT, diag);
}

mlar_status mlar_arena_release(mlar_arena *arena, mlar_diag *diag) {
    if (arena == NULL) return mlar_fail_null(diag, "arena");
    mlar_arena_body *body = mlar_arena_body_of(arena);
    if (body->device != NULL)
        body->core.source.context = body; /* it may have been moved since it was opened */
    return mlar_arena_close(&body->core, diag);
}
