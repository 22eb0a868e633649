/* SPDX-License-Identifier: Apache-2.0
 *
 * wave_walk.h: the walk over sub-tiles as the CDNA engine takes it: every wave walks for itself, in scalar
 * registers.
 *
 * The portable engine lets one lane walk in LDS (attend_common.h), which costs the wave it belongs to a
 * quarter of its time and all others a wait. Here nothing is handed over: each wave knows the sub-tile, and a
 * lane loads the index of the token that it will load itself, resolves it, and keeps the addresses. This file
 * knows no matrix instruction and no number format. */
#ifndef MLAR_KERNELS_GPU_WAVE_WALK_H
#define MLAR_KERNELS_GPU_WAVE_WALK_H

#include "kernels/gpu/attend_common.h"

/* What stands in memory that nobody writes while the kernel runs, read by the scalar unit. */
#define MLAR_SCALAR __attribute__((address_space(4)))

typedef const MLAR_SCALAR mlar_scope_params *mlar_scalar_scope;

/* A sub-tile; the same in all lanes. flags: MLAR_TILE_*. */
typedef struct mlar_wave_tile {
    const int32_t *entries;
    int32_t row, slot, scope, count, flags;
    int32_t entry; /* place of the first entry in the row's list */
} mlar_wave_tile;

/* Where the walk stands. Tiles of one scope follow one another in its list, and a sub-tile's size divides a
 * tile's, so what a part has in a scope is one run of entries. */
typedef struct mlar_wave_walk {
    mlar_span span;
    const int32_t *entries, *then; /* of the run that is handed out, of the one in scope 1 that follows */
    int32_t left, then_left;
    int32_t entry, then_entry; /* places of these in the lists */
    int32_t scope, row, slot;
    int32_t inside; /* a part */
} mlar_wave_walk;

template <typename T> MLAR_DEVICE T *mlar_uniform_pointer(T *pointer) {
    const uint64_t bits = (uint64_t)pointer;
    return (T *)((uint64_t)(uint32_t)mlar_uniform((int32_t)bits) |
                 (uint64_t)(uint32_t)mlar_uniform((int32_t)(bits >> 32)) << 32);
}

MLAR_DEVICE void mlar_wave_walk_begin(const mlar_stage_args *args, const mlar_layer_params *layer,
                                      mlar_wave_walk *walk, int32_t worker) {
    const mlar_span span = mlar_worker_span(args, layer, worker);
    walk->span.row = mlar_uniform(span.row);
    walk->span.tile = mlar_uniform(span.tile);
    walk->span.end_row = mlar_uniform(span.end_row);
    walk->span.end_tile = mlar_uniform(span.end_tile);
    walk->span.slot = mlar_uniform(span.slot);
    walk->inside = 0;
}

/* The worker's next part; 0 when there is none. */
MLAR_DEVICE int32_t mlar_wave_walk_part(const mlar_stage_args *args, const mlar_layer_params *layer,
                                        mlar_wave_walk *walk) {
    mlar_part part;
    int32_t first, end, window_tiles;
    if (!mlar_uniform(mlar_next_part(args, layer, &walk->span, &part))) return 0;
    window_tiles = mlar_ceil_div(part.lists.length[0], MLAR_KEY_TILE);
    first = mlar_min_i32(part.lists.length[0], part.tile_begin * MLAR_KEY_TILE);
    end = mlar_min_i32(part.lists.length[0], part.tile_end * MLAR_KEY_TILE);
    walk->entries = mlar_uniform_pointer(part.lists.entries[0] + first);
    walk->entry = mlar_uniform(first);
    walk->left = mlar_uniform(end - first);
    first = mlar_max_i32(0, part.tile_begin - window_tiles) * MLAR_KEY_TILE;
    end = mlar_min_i32(part.lists.length[1], (part.tile_end - window_tiles) * MLAR_KEY_TILE);
    walk->then = mlar_uniform_pointer(part.lists.entries[1] + first);
    walk->then_entry = mlar_uniform(first);
    walk->then_left = mlar_uniform(mlar_max_i32(0, end - first));
    walk->row = mlar_uniform(part.row);
    walk->slot = mlar_uniform(part.slot);
    walk->scope = 0;
    walk->inside = 1;
    return 1;
}

/* The next sub-tile, of at most `tokens` entries; of none if the part has none. */
MLAR_DEVICE mlar_wave_tile mlar_wave_walk_next(const mlar_stage_args *args, const mlar_layer_params *layer,
                                               mlar_wave_walk *walk, int32_t tokens) {
    mlar_wave_tile next = {};
    if (!walk->inside) {
        if (!mlar_wave_walk_part(args, layer, walk)) {
            next.flags = MLAR_TILE_END;
            return next;
        }
        next.flags = MLAR_TILE_FIRST;
    }
    if (walk->left == 0 && walk->then_left) {
        walk->entries = walk->then;
        walk->entry = walk->then_entry;
        walk->left = walk->then_left;
        walk->then_left = 0;
        walk->scope = 1;
    }
    next.entries = walk->entries;
    next.entry = walk->entry;
    next.count = mlar_min_i32(walk->left, tokens);
    next.row = walk->row;
    next.slot = walk->slot;
    next.scope = walk->scope;
    walk->entries += next.count;
    walk->entry += next.count;
    walk->left -= next.count;
    if (walk->left + walk->then_left == 0) {
        walk->inside = 0;
        next.flags |= MLAR_TILE_LAST;
    }
    return next;
}

/* A token's place, looked up by its lane. */
typedef struct mlar_wave_place {
    const uint8_t *record, *scales;
    bool counts, invalid; /* SPEC section 4 */
} mlar_wave_place;

/* `slot` is the entry, -1 beyond the sub-tile's last. */
MLAR_DEVICE mlar_wave_place mlar_wave_place_of(mlar_scalar_scope scope, int32_t slot) {
    const uint32_t at = (uint32_t)slot;
    const uint32_t block = (uint32_t)((at * scope->block_magic) >> scope->block_shift);
    const uint32_t offset = at - block * scope->block_size;
    const uint8_t *begin = scope->cache + block * scope->block_stride_bytes;
    mlar_wave_place place;
    place.counts = at < scope->num_slots;
    place.invalid = slot != -1 && !place.counts;
    place.record = begin + (uint64_t)(offset * scope->record_bytes);
    place.scales = begin + (scope->scale_offset_bytes + offset * 8u);
    return place;
}

#endif
