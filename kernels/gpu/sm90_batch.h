/* SPDX-License-Identifier: Apache-2.0
 *
 * sm90_batch.h: the fetching warps of the tuned NVIDIA engine for dsv4 caches and up to 32 heads at a time.
 *
 * As in sm90_fetch.h a warp has an octet of every tile, and a tile's bytes are under way in registers while the tile
 * before is converted. But where tokens are is found out for a batch of up to four tiles, a lane a token, instead of
 * for eight tokens by eight lanes: a chain of dependent steps that is as long for the one as for the other. So the
 * first tile's bytes are asked for, and waited for, before anything else is looked up, and what follows is looked up
 * once in four tiles. A batch ends where a list does. Nothing is fenced: mma reads keys as everyone does, and the fence
 * before wgmma is compiled with a membar, while the next tile's loads are under way. The tables lie where the wide role
 * has its probabilities; it has no part in this, and was slower with it where rows are many. */
#ifndef MLAR_KERNELS_GPU_SM90_BATCH_H
#define MLAR_KERNELS_GPU_SM90_BATCH_H

#include "kernels/gpu/sm90_fetch.h"

#define SM90_BATCH 4 /* tiles, 8 tokens of each: a warp */
#define SM90_RING  8 /* tiles in the tables, a power of two: a batch, and the tile under way */

/* What a fetching warp knows of its octets. Tile n stands at n % SM90_RING. */
typedef struct sm90_batches {
    sm90_token tokens[8][SM90_RING][8]; /* [fetching warp][tile] */
    uint32_t octets[8][SM90_RING];      /* which count, and how they are encoded: sm90_formats.h */
    int32_t slots[8][SM90_BATCH][8];    /* what the index list says of the batch last begun ... */
    int32_t begun[8];                   /* ... and how many tiles that has */
} sm90_batches;
static_assert(sm90_dsv4::probs + sizeof(sm90_batches) <= SM90_AT_SCORES, "the tables have their place");

/* Address of a member of them. */
#define SM90_BATCHES(b, member)                                                                              \
    ((b)->base + sm90_dsv4::probs + (uint32_t) __builtin_offsetof(sm90_batches, member))

MLAR_DEVICE uint32_t sm90_batch_tokens(const sm90_block *b, int32_t octet, int32_t n) {
    return SM90_BATCHES(b, tokens) + (uint32_t)(octet * SM90_RING + (n & (SM90_RING - 1))) * SM90_OCTET_BYTES;
}
MLAR_DEVICE uint32_t sm90_batch_octet(const sm90_block *b, int32_t octet, int32_t n) {
    return SM90_BATCHES(b, octets) + (uint32_t)(octet * SM90_RING + (n & (SM90_RING - 1))) * 4;
}
MLAR_DEVICE uint32_t sm90_batch_slot(const sm90_block *b, int32_t octet, int32_t lane) {
    return SM90_BATCHES(b, slots) + (uint32_t)(octet * 32 + lane) * 4;
}

/* Begins the next batch: asks for what the index list says of the octet's tokens, -1 beyond the list's end. */
MLAR_DEVICE void sm90_batch_begin(const sm90_block *b, int32_t octet, int32_t lane) {
    sm90_tiles *const where = &b->control->tiles[octet];
    const uint32_t to = sm90_batch_slot(b, octet, lane);
    const int32_t token = (lane >> 3) * MLAR_KEY_TILE + 8 * octet + (lane & 7);
    sm90_tiles t = *where;
    if (t.left == 0) sm90_next_run(b, &t);
    const int32_t tiles = mlar_min_i32(t.left, SM90_BATCH);
    if (tiles) {
        if (lane >> 3 < tiles && token < t.count)
            sm90_copy4(to, t.entries + token);
        else
            sm90_store4(to, ~0u);
        t.entries += tiles * MLAR_KEY_TILE;
        t.count -= tiles * MLAR_KEY_TILE;
        t.left -= tiles;
    }
    mlar_wave_sync();
    if (lane == 0) {
        *where = t;
        sm90_store4(SM90_BATCHES(b, begun) + 4 * (uint32_t)octet, (uint32_t)tiles);
    }
    mlar_wave_sync();
}

/* Finds the tokens of the batch last begun, whose tiles are number n and the next, by their slots; scales arrive later.
 * What does not count is read like the rest, so that no load depends on it: from the queries, without effect. So is the
 * tile behind the last, which is asked for like any other, but must not be waited for: the last one is still to be
 * converted. Reports invalid slots: one head group. Returns how many tiles the batch has, 0 if none was left. */
MLAR_DEVICE int32_t sm90_batch_locate(const sm90_block *b, int32_t octet, int32_t lane, int32_t n) {
    const int32_t tiles = (int32_t)sm90_read4(SM90_BATCHES(b, begun) + 4 * (uint32_t)octet), tile = lane >> 3;
    if (tiles == 0) {
        sm90_nowhere(b, sm90_batch_tokens(b, octet, n), lane);
        return 0;
    }
    const int32_t slot = (int32_t)sm90_read4(sm90_batch_slot(b, octet, lane));
    const mlar_scope_params *scope = &b->layer->scope[b->control->tiles[octet].scope];
    const int32_t counts = tile < tiles && mlar_slot_counts(scope, slot);
    const uint32_t all = (uint32_t)mlar_ballot(counts);
    if (tile < tiles) {
        const uint32_t tokens = sm90_batch_tokens(b, octet, n + tile);
        const mlar_slot_place place = mlar_slot_place_of(scope, (uint32_t)slot);
        const uint64_t record = counts ? (uint64_t)(scope->cache + place.record) : sm90_readable(b);
        sm90_format_dsv4::ask_scales(tokens, lane & 7, counts, (const uint8_t *)record,
                                     scope->cache + place.scales);
        sm90_store8(tokens + 16 * (uint32_t)(lane & 7), (uint32_t)record, (uint32_t)(record >> 32));
        if (!counts && slot != -1 && b->control->share.head_begin == 0)
            mlar_atomic_add_u64(b->args->invalid_indices, 1);
        if ((lane & 7) == 0)
            sm90_store4(sm90_batch_octet(b, octet, n + tile),
                        (all >> lane & SM90_OCTET_COUNTS) |
                            (scope->fp8 == MLAR_FP8_E4M3FNUZ ? SM90_OCTET_FNUZ : 0));
    }
    mlar_wave_sync();
    return tiles;
}

/* The role. Round n converts tile n; the one before the first only asks. What follows from the thread's number is
 * computed again in each: the compiler would keep it all, and there are no registers for it. */
MLAR_DEVICE void sm90_fetch_batches(const sm90_block *block) {
    sm90_block here = *block;
    const sm90_block *const b = &here;
    sm90_raw raw;
    int32_t located = 0; /* tiles of which it is known where their tokens are */
    sm90_fetch_begin(b);
    sm90_batch_begin(b, mlar_wave() - SM90_CONSUMERS / 32, mlar_lane());
    for (int32_t n = -1; n < located || n < 0; ++n) {
        const int32_t thread = (int32_t)sm90_keep((uint32_t)(mlar_thread() - SM90_CONSUMERS));
        const int32_t octet = thread >> 5, lane = thread & 31;
        here.base = sm90_keep(here.base);
        sm90_copy_wait();
        mlar_wave_sync();
        int32_t found = 0;
        if (n + 1 == located) {
            found = sm90_batch_locate(b, octet, lane, located);
            located += found;
        }
        const uint32_t tokens_next = sm90_batch_tokens(b, octet, n + 1);
        if (n < 0) {
            if (found) sm90_ask_octet<sm90_format_dsv4>(tokens_next, lane, &raw);
        } else {
            const uint32_t now = sm90_read4(sm90_batch_octet(b, octet, n));
            const uint32_t to = sm90_keys<sm90_dsv4>(b, n) + (uint32_t)octet * 1024;
            sm90_wait_empty<sm90_dsv4>(b, n, octet >> 2);
            sm90_convert_octet<sm90_format_dsv4>(&raw, sm90_batch_tokens(b, octet, n), now, tokens_next, lane,
                                                 to);
            if (lane == 0)
                sm90_store1(SM90_CONTROL(b, counts) + 8 * (uint32_t)(n & 1) + (uint32_t)octet,
                            now & SM90_OCTET_COUNTS);
            sm90_barrier_arrive(sm90_full(b, n));
        }
        if (found) sm90_batch_begin(b, octet, lane);
    }
}

#endif
