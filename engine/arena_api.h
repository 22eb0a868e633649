/* SPDX-License-Identifier: Apache-2.0
 *
 * arena_api.h: the public mlar_arena is opaque storage for the arena module's own struct. */
#ifndef MLAR_ENGINE_ARENA_API_H
#define MLAR_ENGINE_ARENA_API_H

#include "arena/arena.h"

#include <mlarena/mlarena.h>

/* What the opaque words of a public arena hold; the core comes first. */
typedef struct mlar_arena_body {
    mlar_arena_core core;
    mlar_caller_memory caller; /* from_caller */
    mlar_device *device;       /* from_pool */
    void *pool;
    int32_t pool_emptied; /* its block was given back, it itself was not yet */
    int32_t reserved;
} mlar_arena_body;

_Static_assert(sizeof(mlar_arena_body) <= sizeof(mlar_arena), "the public struct has room");

static inline mlar_arena_body *mlar_arena_body_of(mlar_arena *arena) {
    return (mlar_arena_body *)(void *)arena;
}
static inline mlar_arena_core *mlar_arena_core_of(mlar_arena *arena) {
    return &mlar_arena_body_of(arena)->core;
}

#endif
