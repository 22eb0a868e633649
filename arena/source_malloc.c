/* SPDX-License-Identifier: Apache-2.0
 *
 * source_malloc.c: the heap as a memory source. The library's only use of malloc, at set-up, for tools and
 * for CPU hosts that do not bring memory of their own. */
#include "arena/arena.h"
#include "arena/checked_size.h"
#include "arena/fail.h"

#include <inttypes.h>
#include <stdlib.h>

static mlar_status malloc_allocate(void *context, uint64_t bytes, uint64_t align, void **base,
                                   mlar_diag *diag) {
    (void)context;
    mlar_checked check = {0};
    if (align < sizeof(void *)) align = sizeof(void *);
    uint64_t rounded = mlar_checked_align_up(&check, bytes, align); /* aligned_alloc wants a multiple */
    if (!check.failed && rounded <= PTRDIFF_MAX) *base = aligned_alloc((size_t)align, (size_t)rounded);
    if (*base != NULL) return MLAR_OK;
    return mlar_fail(diag, MLAR_ERROR_OUT_OF_MEMORY, "arena.bytes", 0, mlar_size_for_diag(bytes),
                     "malloc has no %" PRIu64 " bytes for the arena", bytes);
}

static mlar_status malloc_release(void *context, void *base, uint64_t bytes, mlar_diag *diag) {
    (void)context, (void)bytes, (void)diag;
    free(base);
    return MLAR_OK;
}

mlar_arena_source mlar_arena_source_malloc(void) {
    return (mlar_arena_source){
        .name = "malloc", .allocate = malloc_allocate, .release = malloc_release, .host_visible = true};
}
