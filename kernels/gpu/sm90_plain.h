/* SPDX-License-Identifier: Apache-2.0
 *
 * sm90_plain.h: the fetching warps of the tuned NVIDIA engine for keys that are bf16 already: rows of the gather
 * buffer, 512 or 576 columns wide, or records of a cache of layout bf16, of 512.
 *
 * Eight warps; each has one octet, eight tokens, of every tile, and needs no other warp for it. Bytes go from device to
 * shared memory without passing registers, straight to where the consumers read them; tokens that do not count are not
 * read and become zeros. What is left is NaN, which counts as 0: when an octet has arrived its warp looks for any, and
 * nearly always there is none. A stage is filled again as soon as the consumers have let go of it, even while the octet
 * before is still on its way: so up to two tiles are. This file knows no heads, and no scores. */
#ifndef MLAR_KERNELS_GPU_SM90_PLAIN_H
#define MLAR_KERNELS_GPU_SM90_PLAIN_H

#include "kernels/gpu/sm90_work.h"

/* An octet of some tile. Lanes 0 .. 7 have a token each. */
typedef struct sm90_plain_octet {
    int32_t scope; /* -1: there is no such tile */
    int32_t row;
    int32_t entry; /* this lane's, its place in the list */
    int32_t slot;  /* what the list says there, -1 beyond its end */
} sm90_plain_octet;

/* Where a warp stands; sm90_tiles says what comes after it. */
typedef struct sm90_plain {
    const sm90_block *block;
    int32_t octet, lane;
    int32_t run_row; /* of the run under way */
    sm90_tiles tiles;
} sm90_plain;

/* The next tile; its slots are under way. */
MLAR_DEVICE sm90_plain_octet sm90_plain_next(sm90_plain *p) {
    sm90_tiles *const t = &p->tiles;
    const int32_t token = 8 * p->octet + (p->lane & 7);
    sm90_plain_octet next = {-1, 0, 0, -1};
    if (t->left == 0) {
        p->run_row = t->row;
        sm90_next_run(p->block, t);
        if (t->left == 0) return next;
    }
    next.scope = t->scope;
    next.row = p->run_row;
    next.entry = t->first + token;
    if (token < t->count) next.slot = (int32_t)mlar_load4(t->entries + token);
    t->entries += MLAR_KEY_TILE;
    t->count -= MLAR_KEY_TILE;
    t->first += MLAR_KEY_TILE;
    t->left -= 1;
    return next;
}

/* Address of the lane's token, which counts. */
template <bool gathered>
MLAR_DEVICE uint64_t sm90_plain_record(const sm90_block *b, const sm90_plain_octet *octet) {
    const mlar_scope_params *scope = &b->layer->scope[octet->scope];
    if (gathered)
        return (uint64_t)(b->args->gathered[octet->scope] +
                          mlar_gathered_offset(b->args, scope, octet->row, octet->entry));
    return (uint64_t)(scope->cache + mlar_slot_place_of(scope, (uint32_t)octet->slot).record);
}

/* Where the octet is, in the tile. */
template <class cache> MLAR_DEVICE uint32_t sm90_plain_keys(const sm90_plain *p, int32_t n) {
    return sm90_keys<cache>(p->block, n) + (uint32_t)p->octet * 1024;
}

/* Where a lane's chunks go, of the octet that is at `keys`. Of each token it has one of the first four panels and the
 * same of the next four: number k is of token k / 2. Of a ninth panel, four lanes have a token: numbers 16 and 17.
 * Token t has row t of its octet, where chunk c stands at c ^ t (sm90_ptx.h). */
template <class cache> MLAR_DEVICE constexpr int32_t sm90_plain_chunks(void) {
    return cache::panels > 8 ? 18 : 16;
}
MLAR_DEVICE uint32_t sm90_plain_place(uint32_t keys, int32_t lane, int32_t k) {
    const int32_t ninth = k >= 16, token = ninth ? lane >> 2 : k >> 1;
    const int32_t chunk = ninth ? (lane & 3) + 4 * (k & 1) : lane & 7;
    const int32_t panel = ninth ? 8 : (lane >> 3) + 4 * (k & 1);
    return keys + (uint32_t)(panel * SM90_PANEL_BYTES + token * 128 + (chunk ^ token) * 16);
}

MLAR_DEVICE uint32_t sm90_plain_arrived(const sm90_plain *p, int32_t n) {
    return SM90_CONTROL(p->block, arrived) + (uint32_t)(16 * p->octet + 8 * (n & 1));
}

/* Asks for the octet's bytes as tile n, whose stage is free; returns a bit for each token that counts. Slots of a cache
 * are reported if they are invalid, by one head group; those of gathered rows have been. */
template <class cache, bool gathered>
MLAR_DEVICE uint32_t sm90_plain_ask(const sm90_plain *p, int32_t n, const sm90_plain_octet *octet) {
    const sm90_block *b = p->block;
    const int32_t lane = p->lane,
                  counts = lane < 8 && mlar_slot_counts(&b->layer->scope[octet->scope], octet->slot);
    const uint32_t all = (uint32_t)mlar_ballot(counts), keys = sm90_plain_keys<cache>(p, n);
    const uint64_t record = counts ? sm90_plain_record<gathered>(b, octet) : sm90_readable(b);
    if (!gathered && lane < 8 && !counts && octet->slot != -1 && b->control->share.head_begin == 0)
        mlar_atomic_add_u64(b->args->invalid_indices, 1);
    MLAR_UNROLL for (int32_t t = 0; t < 8; ++t) {
        const uint64_t low = mlar_lane_get_u32((uint32_t)record, t),
                       high = mlar_lane_get_u32((uint32_t)(record >> 32), t);
        const uint8_t *from = (const uint8_t *)(high << 32 | low) + 16 * lane;
        const int32_t present = all >> t & 1;
        sm90_copy16(sm90_plain_place(keys, lane, 2 * t), from, present);
        sm90_copy16(sm90_plain_place(keys, lane, 2 * t + 1), from + 512, present);
    }
    if (cache::panels > 8) {
        const uint64_t low = mlar_lane_get_u32((uint32_t)record, lane >> 2),
                       high = mlar_lane_get_u32((uint32_t)(record >> 32), lane >> 2);
        const uint8_t *from = (const uint8_t *)(high << 32 | low) + 1024 + 16 * (lane & 3);
        const int32_t present = all >> (lane >> 2) & 1;
        sm90_copy16(sm90_plain_place(keys, lane, 16), from, present);
        sm90_copy16(sm90_plain_place(keys, lane, 17), from + 64, present);
    }
    sm90_copy_arrive(sm90_plain_arrived(p, n));
    return all;
}

/* NaN to 0 in what this lane asked for, which has arrived. */
template <class cache> MLAR_DEVICE void sm90_plain_mend(const sm90_plain *p, int32_t n) {
    const uint32_t keys = sm90_plain_keys<cache>(p, n);
    uint32_t ordered = ~0u;
    MLAR_UNROLL for (int32_t k = 0; k < sm90_plain_chunks<cache>(); ++k) {
        const mlar_u32x4 v = sm90_read16(sm90_plain_place(keys, p->lane, k));
        ordered &= sm90_ordered_bf16x2(v.x) & sm90_ordered_bf16x2(v.y) & sm90_ordered_bf16x2(v.z) &
                   sm90_ordered_bf16x2(v.w);
    }
    if (ordered == ~0u) return;
    MLAR_NO_UNROLL for (int32_t k = 0; k < sm90_plain_chunks<cache>(); ++k) {
        const uint32_t at = sm90_plain_place(keys, p->lane, k);
        const mlar_u32x4 v = sm90_read16(at);
        const mlar_u32x4 out = {v.x & sm90_ordered_bf16x2(v.x), v.y & sm90_ordered_bf16x2(v.y),
                                v.z & sm90_ordered_bf16x2(v.z), v.w & sm90_ordered_bf16x2(v.w)};
        sm90_store16(at, out);
    }
}

/* The role. The kernel of the gather strategy is there before gather has ended (launch.h): nothing of the buffer is
 * asked for until it has. */
template <class cache, bool gathered> MLAR_DEVICE void sm90_fetch_plain(const sm90_block *b) {
    const int32_t thread = mlar_thread() - SM90_CONSUMERS;
    const mlar_span *span = &b->control->share.span;
    sm90_plain plain = {b, thread >> 5, thread & 31, 0, {0, 0, 0, -1, span->row, span->tile, 0}};
    sm90_plain *const p = &plain;
    if (p->lane < 2) sm90_barrier_init(sm90_plain_arrived(p, p->lane), 32);
    sm90_barrier_init_done();
    mlar_wave_sync();
    sm90_plain_octet now = sm90_plain_next(p), next;
    if (gathered) mlar_wait_for_last();
    uint32_t counts = now.scope < 0 ? 0 : sm90_plain_ask<cache, gathered>(p, 0, &now), counts_next = 0;
    next = sm90_plain_next(p);
    for (int32_t n = 0; now.scope >= 0; ++n, now = next, counts = counts_next, next = sm90_plain_next(p)) {
        int32_t to_ask = next.scope >= 0;
        while (to_ask && !sm90_barrier_passed(sm90_plain_arrived(p, n), sm90_parity(n)))
            if (sm90_is_empty<cache>(b, n + 1, p->octet >> 2)) {
                counts_next = sm90_plain_ask<cache, gathered>(p, n + 1, &next);
                to_ask = 0;
            }
        sm90_barrier_wait(sm90_plain_arrived(p, n), sm90_parity(n));
        sm90_plain_mend<cache>(p, n);
        if (p->lane == 0) sm90_store1(SM90_CONTROL(b, counts) + (uint32_t)(8 * (n & 1) + p->octet), counts);
        sm90_fence_async();
        sm90_barrier_arrive(sm90_full(b, n));
        if (to_ask) {
            sm90_wait_empty<cache>(b, n + 1, p->octet >> 2);
            counts_next = sm90_plain_ask<cache, gathered>(p, n + 1, &next);
        }
    }
}

#endif
