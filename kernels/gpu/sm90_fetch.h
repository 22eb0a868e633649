/* SPDX-License-Identifier: Apache-2.0
 *
 * sm90_fetch.h: the fetching warps of the tuned NVIDIA engine for fp8 caches: cache bytes in, bf16 key tiles in shared
 * memory out.
 *
 * Eight warps; each has one octet, eight tokens, of every tile, and needs no other warp for it. A tile's bytes are
 * under way in registers while the tile before is converted: as soon as a pair of tokens has been converted, the same
 * registers are what the same pair of the next tile is asked into. So a whole tile, 36 KB, is always under way,
 * whatever else the block does. The tile after that is looked up meanwhile, and the indices of the one after that are
 * on their way. This file knows no heads, no scores, and no number format. */
#ifndef MLAR_KERNELS_GPU_SM90_FETCH_H
#define MLAR_KERNELS_GPU_SM90_FETCH_H

#include "kernels/gpu/sm90_octet.h"

/* ---- the block's tiles, one at a time ---- */

/* Begins the next tile: asks for what the index list says of the octet's tokens, -1 beyond the list's end. Where the
 * warp stands is kept in shared memory, and so is this: registers are scarce, and a wait for one load into them is one
 * for all, the keys' bytes too. */
MLAR_DEVICE void sm90_next_slots(const sm90_block *b, int32_t octet, int32_t lane) {
    sm90_tiles *const where = &b->control->tiles[octet];
    const uint32_t to = sm90_slots(b, octet) + 4 * (uint32_t)lane;
    const int32_t token = 8 * octet + lane;
    sm90_tiles t = *where;
    if (t.left == 0) sm90_next_run(b, &t);
    if (t.left == 0) {
        t.scope = -1;
    } else {
        if (lane < 8 && token < t.count)
            sm90_copy4(to, t.entries + token);
        else if (lane < 8)
            sm90_store4(to, ~0u);
        t.entries += MLAR_KEY_TILE;
        t.count -= MLAR_KEY_TILE;
        t.left -= 1;
    }
    mlar_wave_sync();
    if (lane == 0) *where = t;
    mlar_wave_sync();
}

/* Where the indices of the share's first tile most likely are: to the L2 cache, while it is looked up how long the
 * lists really are, if it is. Eight lanes, 64 bytes each. */
MLAR_DEVICE void sm90_expect(const sm90_block *b, int32_t lane) {
    const sm90_share *share = &b->control->share;
    const mlar_scope_params *scope = &b->layer->scope[lane >> 2 & 1];
    const int32_t tile =
        share->span.tile - (lane < 4 ? 0 : mlar_ceil_div(b->layer->scope[0].width, MLAR_KEY_TILE));
    const int32_t entry = tile * MLAR_KEY_TILE + 16 * (lane & 3);
    if (mlar_span_has_tiles(&share->span) && lane >> 2 < b->layer->scope_count &&
        scope->list_form == MLAR_LIST_DENSE && entry >= 0 && entry < scope->width)
        sm90_prefetch(scope->indices + share->span.row * scope->index_row_stride + entry);
}

/* Every fetching warp stands before the share's first tile. */
MLAR_DEVICE void sm90_fetch_begin(const sm90_block *b) {
    if (mlar_wave() == SM90_CONSUMERS / 32 && b->control->length[0] < 0) sm90_expect(b, mlar_lane());
    if (mlar_lane() == 0) {
        const sm90_tiles begin = {0, 0, 0, -1, b->control->share.span.row, b->control->share.span.tile, 0};
        b->control->tiles[mlar_wave() - SM90_CONSUMERS / 32] = begin;
    }
    mlar_wave_sync();
}

/* ---- the role ---- */

/* Three rounds look ahead before the first octet is converted. What follows from the thread's number is computed again
 * in each: the compiler would keep it all, and there are no registers for it. */
template <class format, class cache> MLAR_DEVICE void sm90_fetch(const sm90_block *b) {
    sm90_raw raw;
    uint32_t now = 0, next = 0; /* of tile n and the next */
    sm90_fetch_begin(b);
    for (int32_t n = -3; n < 0 || now; ++n) {
        const int32_t thread = (int32_t)sm90_keep((uint32_t)(mlar_thread() - SM90_CONSUMERS));
        const int32_t octet = thread >> 5, lane = thread & 31;
        const uint32_t base = sm90_keep(b->base);
        const uint32_t tokens = base + SM90_AT_CONTROL + (uint32_t)(2 * octet + (n & 1)) * SM90_OCTET_BYTES;
        if (now) {
            const uint32_t to =
                base + SM90_AT_KEYS + (uint32_t)(n & 1) * cache::stage_bytes + (uint32_t)octet * 1024;
            sm90_wait_empty<cache>(b, n, octet >> 2);
            sm90_convert_octet<format>(&raw, tokens, now, tokens ^ SM90_OCTET_BYTES, lane, to);
            if (lane == 0)
                sm90_store1(SM90_CONTROL(b, counts) + 8 * (uint32_t)(n & 1) + (uint32_t)octet,
                            now & SM90_OCTET_COUNTS);
            sm90_fence_async();
            sm90_barrier_arrive(sm90_full(b, n));
        } else if (next) {
            sm90_ask_octet<format>(tokens ^ SM90_OCTET_BYTES, lane, &raw);
        }
        now = next;
        sm90_copy_wait();
        mlar_wave_sync();
        next = sm90_locate<format>(b, octet, tokens, lane);
        mlar_wave_sync();
        sm90_next_slots(b, octet, lane);
    }
}

#endif
