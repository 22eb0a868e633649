/* SPDX-License-Identifier: Apache-2.0
 *
 * arena.h: one block of memory from some source, and a plan laid over it: the pointers of a plan's buffers.
 *
 * The block may be device memory. Nothing here dereferences it; only guard.h and shadow.h do, and only where
 * the source says that the host may. An arena is never adjusted: a misaligned base is refused, a block one
 * byte short is refused, a block of exactly the planned size works.
 *
 * Life: open (a source gives the block) -> hold (one engine lays its plan over it) -> drop -> close. */
#ifndef MLAR_ARENA_ARENA_H
#define MLAR_ARENA_ARENA_H

#include "arena/plan.h"

#include <mlarena/status.h>
#include <stdbool.h>
#include <stdint.h>

/* Where a block comes from. allocate gives at least `bytes` at a multiple of `align`, or fails and fills
 * diag; release takes the block back, or fails likewise and may be called again. The table is copied into the
 * arena, the context is not. */
typedef struct mlar_arena_source {
    const char *name; /* "caller", "malloc", ... */
    mlar_status (*allocate)(void *context, uint64_t bytes, uint64_t align, void **base, mlar_diag *diag);
    mlar_status (*release)(void *context, void *base, uint64_t bytes, mlar_diag *diag);
    void *context;
    bool host_visible; /* the host may read and write the block */
} mlar_arena_source;

/* Context of the caller source: memory that stays the caller's. */
typedef struct mlar_caller_memory {
    void *base;
    uint64_t bytes;
} mlar_caller_memory;

/* *memory is read by mlar_arena_open alone. host_visible = false for a device pointer. */
mlar_arena_source mlar_arena_source_caller(mlar_caller_memory *memory, bool host_visible);
/* For tools and the CPU: the library's only use of malloc, at set-up (arena/source_malloc.c). */
mlar_arena_source mlar_arena_source_malloc(void);

/* The arena as the inside of the library sees it; the public mlar_arena of <mlarena/mlarena.h> wraps one. */
typedef struct mlar_arena_core {
    mlar_arena_source source;
    unsigned char *base; /* NULL only if bytes is 0 */
    uint64_t bytes;
    _Atomic(const void *) holder; /* the engine that holds the arena, or NULL */
    const mlar_plan *plan;        /* the holder's plan, or NULL */
    int32_t stage;                /* the stage entered last: what sanitizer builds let the program touch */
    int32_t reserved;             /* 0 */
} mlar_arena_core;

#define MLAR_STAGE_BETWEEN (-1) /* between steps: only persistent buffers are live */
#define MLAR_STAGE_ANY     (-2) /* everything may be touched: what hold leaves behind */

/* Takes `bytes` from the source. Writes *arena only on success; the status is the source's. */
mlar_status mlar_arena_open(mlar_arena_core *arena, const mlar_arena_source *source, uint64_t bytes,
                            uint64_t align, mlar_diag *diag);
/* Gives the block back. MLAR_ERROR_BUSY while an engine holds it; the source's status where it does not take it
 * now: the arena is open then. Closing a closed or zeroed arena is fine. */
mlar_status mlar_arena_close(mlar_arena_core *arena, mlar_diag *diag);

/* Lays a plan over the arena for one holder; the plan must stay where it is until the drop.
 * MLAR_ERROR_BUSY: held already; MLAR_ERROR_MEMORY_ALIGNMENT: the base is not a multiple of plan->align;
 * MLAR_ERROR_MEMORY_SIZE: diag.given and diag.needed are the exact bytes. On failure nothing has changed. */
mlar_status mlar_arena_hold(mlar_arena_core *arena, const void *holder, const mlar_plan *plan,
                            mlar_diag *diag);
/* Ends the hold. MLAR_ERROR_STATE if holder does not hold the arena. */
mlar_status mlar_arena_drop(mlar_arena_core *arena, const void *holder, mlar_diag *diag);

/* The address of the plan's buffer `index` in a held arena; NULL for a buffer of 0 bytes. */
void *mlar_arena_pointer(const mlar_arena_core *arena, int32_t index);

/* Tells the sanitizers which buffers may be touched from here on: those live in `stage`, or one of the two
 * above. Under MemorySanitizer a buffer born in this stage counts as uninitialised. In builds without a
 * sanitizer, and for memory that the host cannot see, this only notes the stage. */
void mlar_arena_enter_stage(mlar_arena_core *arena, int32_t stage);

/* For those who look at the whole arena (guards, poison): lift what enter_stage hid, and hide it again. */
void mlar_arena_expose(mlar_arena_core *arena);
void mlar_arena_conceal(mlar_arena_core *arena);

/* mlar_arena_pointer for a host that wants to look, dead buffer or not: nothing is hidden until the next stage begins,
 * and what the buffer holds counts as written. */
void *mlar_arena_inspect(mlar_arena_core *arena, int32_t index);

#endif
