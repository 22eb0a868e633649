/* SPDX-License-Identifier: Apache-2.0
 *
 * sm90_fetch.h: the fetching warps of the tuned NVIDIA engine: cache bytes in, bf16 key tiles in shared memory out.
 *
 * Eight warps; a tile is 64 tokens, four neighbouring lanes have one token, each a quarter of it: 16 bytes of every
 * 64 (so each has one chunk under each of the seven scales) and 32 of the 128 bytes of rope. A thread holds its raw
 * quarter in registers and asks for the next tile's chunk as soon as it has converted this tile's, so that a whole
 * tile is under way while the block waits and converts; the index is asked for one tile earlier still.
 *
 * Conversion is SPEC section 3 to the bit, NaN as 0 (section 5). With p = sign | seven other bits placed at bit 4 of
 * a bf16, p is the value times 2^-120 (OCP) or 2^-119 (FNUZ), subnormals included, and one bf16 product with the
 * scale is exact for scale bytes 4 .. 134. Bytes outside and NaN take a slower way with the same meaning. This file
 * knows no heads, and no scores. */
#ifndef MLAR_KERNELS_GPU_SM90_FETCH_H
#define MLAR_KERNELS_GPU_SM90_FETCH_H

#include "kernels/gpu/sm90_work.h"

#define SM90_NOPE_CHUNKS 7 /* one under each scale */
#define SM90_ROPE_CHUNKS 2
#define SM90_NOPE        448
#define SM90_HALVES      0x00800080u /* a byte times this: the byte as exponent of both bf16 of a word */

/* Where the lane's quarter of a token begins, a multiple of 16, plus one if its encoding is FNUZ; 0: the token does not
 * count. Kept in control->record. */
MLAR_DEVICE const uint8_t *sm90_record_bytes(uint64_t record) { return (const uint8_t *)(record & ~15ull); }

/* The encoding's power of two as exponent of both bf16 of a word; 0 for a token that does not count. */
#define SM90_BIAS_OCP  (120 * SM90_HALVES)
#define SM90_BIAS_FNUZ (119 * SM90_HALVES)
MLAR_DEVICE uint32_t sm90_record_bias(uint64_t record) {
    return record & 1 ? SM90_BIAS_FNUZ : record ? SM90_BIAS_OCP : 0;
}

/* ---- conversion ---- */

MLAR_DEVICE uint32_t sm90_scale_byte(mlar_u32x2 scales, int32_t i) {
    return (i < 4 ? scales.x >> 8 * i : scales.y >> 8 * (i - 4)) & 0xff;
}

/* Four fp8 to four bf16 at 2^-120: bytes 0 and 1, then 2 and 3. Each byte is paired with eight copies of its sign. */
MLAR_DEVICE void sm90_place(uint32_t w, uint32_t *low, uint32_t *high) {
    *low = sm90_permute(w, 0x9180u) << 4 & 0x87f087f0u;
    *high = sm90_permute(w, 0xb3a2u) << 4 & 0x87f087f0u;
}

/* Sixteen columns, to two chunks: `scale` is the bf16 factor in both halves, 2^120 (or 2^119) included. */
MLAR_DEVICE void sm90_convert(const uint32_t raw[4], uint32_t scale, uint32_t to0, uint32_t to1) {
    MLAR_UNROLL for (uint32_t i = 0; i < 2; ++i) {
        mlar_u32x4 out;
        sm90_place(raw[2 * i], &out.x, &out.y);
        sm90_place(raw[2 * i + 1], &out.z, &out.w);
        out.x = sm90_mul_bf16x2(out.x, scale), out.y = sm90_mul_bf16x2(out.y, scale);
        out.z = sm90_mul_bf16x2(out.z, scale), out.w = sm90_mul_bf16x2(out.w, scale);
        sm90_store16(i ? to1 : to0, out);
    }
}

/* The same for any bytes: NaN is taken out first, and the factor is applied in two steps of which only the last can
 * round. e8m0 0 is 2^-127, a subnormal bf16; 255 is NaN, whose columns are all 0. */
MLAR_DEVICE void sm90_convert_any(const uint32_t raw[4], uint32_t byte, int32_t fnuz, uint32_t to0, uint32_t to1) {
    const uint32_t unplace = fnuz ? 0x7b007b00u : 0x7b807b80u; /* 2^119, 2^120 */
    const uint32_t scale = byte == 255 ? 0 : byte == 0 ? 0x00400040u : byte * SM90_HALVES;
    MLAR_UNROLL for (uint32_t i = 0; i < 4; ++i) {
        const uint32_t w = raw[i];
        const uint32_t nan = fnuz ? w & ~((w & 0x7f7f7f7fu) + 0x7f7f7f7fu) & 0x80808080u
                                  : ((w & 0x7f7f7f7fu) + 0x01010101u) & 0x80808080u;
        uint32_t low, high;
        sm90_place(w & ~((nan >> 7) * 0xffu), &low, &high);
        low = sm90_mul_bf16x2(sm90_mul_bf16x2(low, unplace), scale);
        high = sm90_mul_bf16x2(sm90_mul_bf16x2(high, unplace), scale);
        sm90_store8((i & 2 ? to1 : to0) + 8 * (i & 1), low, high);
    }
}

/* ---- the block's tiles, one at a time ---- */

/* The next run that has tiles; left stays 0 if there is none. */
MLAR_DEVICE void sm90_next_run(const sm90_block *b, sm90_tiles *t) {
    const mlar_span *span = &b->control->share.span;
    while (t->row < span->end_row || (t->row == span->end_row && t->tile < span->end_tile)) {
        const mlar_row_lists lists = mlar_row_lists_of(b->layer, t->row);
        const int32_t end = t->row == span->end_row ? span->end_tile : lists.tiles;
        const mlar_tile at = mlar_tile_of(&lists, t->tile);
        const int32_t length = at.scope ? lists.length[1] : lists.length[0];
        /* a run ends where its scope's list does; the one tile of an empty row is a run without entries */
        const int32_t run = mlar_max_i32(1, mlar_ceil_div(length - at.first, MLAR_KEY_TILE));
        t->left = mlar_min_i32(run, end - t->tile);
        t->scope = at.scope;
        t->entries = (at.scope ? lists.entries[1] : lists.entries[0]) + at.first;
        t->count = length - at.first;
        t->tile += t->left;
        if (t->tile >= lists.tiles) t->row += 1, t->tile = 0;
        if (t->left > 0) return;
    }
}

/* Begins the next tile. What the index list says of this lane's token in it: a slot, -1 beyond the list's end. */
MLAR_DEVICE int32_t sm90_next_slot(const sm90_block *b, int32_t token) {
    sm90_tiles *where = &b->control->tiles[token / 8];
    sm90_tiles t = *where;
    int32_t slot = -1;
    t.scope_before = t.scope;
    if (t.left == 0) sm90_next_run(b, &t);
    if (t.left == 0)
        t.scope = -1;
    else {
        if (token < t.count) slot = t.entries[token];
        t.entries += MLAR_KEY_TILE;
        t.count -= MLAR_KEY_TILE;
        t.left -= 1;
    }
    mlar_wave_sync();
    if (mlar_lane() == 0) *where = t;
    mlar_wave_sync();
    return slot;
}

/* Finds the token of tile n and asks for its scales: seven e8m0 bytes and one to ignore. Reports it if it is invalid:
 * one lane, one head group. */
MLAR_DEVICE mlar_u32x2 sm90_locate(const sm90_block *b, int32_t n, int32_t in_scope, int32_t slot, int32_t thread) {
    const mlar_scope_params *scope = &b->layer->scope[in_scope];
    mlar_u32x2 scales;
    uint64_t record = 0;
    scales.x = scales.y = 127 * 0x01010101u;
    if (in_scope >= 0) {
        if (mlar_slot_counts(scope, slot)) {
            const mlar_slot_place place = mlar_slot_place_of(scope, (uint32_t)slot);
            record = (uint64_t)(scope->cache + place.record + 16 * (thread & 3)) + (scope->fp8 == MLAR_FP8_E4M3FNUZ);
            scales = sm90_load8(scope->cache + place.scales);
        } else if (slot != -1 && (thread & 3) == 0 && b->control->share.head_begin == 0) {
            mlar_atomic_add_u64(b->args->invalid_indices, 1);
        }
    }
    b->control->record[n & 1][thread] = record;
    return scales;
}

/* ---- chunks ---- */

/* Asks for chunks first .. end - 1 of a token, if it counts: seven of nope, then two of rope. */
template <int first, int end> MLAR_DEVICE void sm90_ask(uint64_t record, mlar_u32x4 *raw) {
    if (!record) return;
    MLAR_UNROLL for (int32_t i = first; i < end; ++i) raw[i] = sm90_load16(sm90_record_bytes(record) + 64 * i);
}

/* Converts chunks first .. end - 1 of nope to their two places, given in the first panel. The short way first: it is
 * right for nearly all tokens, and the test for the others (OCP NaN; FNUZ's is placed as -0, which is 0 already) costs
 * less where nothing waits for it. */
template <int first, int end>
MLAR_DEVICE void sm90_convert_chunks(const mlar_u32x4 *raw, mlar_u32x2 scales, const uint64_t *record, uint32_t to0,
                                     uint32_t to1) {
    const uint32_t bias = sm90_record_bias(*record);
    /* A token that does not count keeps the bytes of the one before it and gets the factor 0. */
    const uint32_t factor = bias ? SM90_HALVES : 0;
    uint32_t nan = 0;
    int32_t wide = 0;
    MLAR_UNROLL for (int32_t i = first; i < end; ++i) {
        const uint32_t word[4] = {raw[i].x, raw[i].y, raw[i].z, raw[i].w}, byte = sm90_scale_byte(scales, i);
        MLAR_UNROLL for (int32_t k = 0; k < 4; ++k) nan |= (word[k] & 0x7f7f7f7fu) + 0x01010101u;
        wide |= byte - 4 > 130;
        sm90_convert(word, byte * factor + bias, to0 + (uint32_t)i * SM90_PANEL_BYTES,
                     to1 + (uint32_t)i * SM90_PANEL_BYTES);
    }
    if (wide || (nan & 0x80808080u && bias == SM90_BIAS_OCP)) {
        MLAR_NO_UNROLL for (int32_t i = first; i < end; ++i) { /* reads again: less code and fewer registers */
            const mlar_u32x4 again = sm90_load16(sm90_record_bytes(*record) + 64 * i);
            const uint32_t word[4] = {again.x, again.y, again.z, again.w};
            sm90_convert_any(word, sm90_scale_byte(scales, i), (int32_t)(*record & 1),
                             to0 + (uint32_t)i * SM90_PANEL_BYTES, to1 + (uint32_t)i * SM90_PANEL_BYTES);
        }
    }
}

/* Copies the two rope chunks, NaN as 0, to their places. */
MLAR_DEVICE void sm90_convert_rope(const mlar_u32x4 *raw, uint64_t record, uint32_t to) {
    const uint32_t mask = record ? ~0u : 0;
    MLAR_UNROLL for (uint32_t i = 0; i < SM90_ROPE_CHUNKS; ++i) {
        const mlar_u32x4 v = raw[SM90_NOPE_CHUNKS + i];
        const mlar_u32x4 out = {v.x & sm90_ordered_bf16x2(v.x) & mask, v.y & sm90_ordered_bf16x2(v.y) & mask,
                                v.z & sm90_ordered_bf16x2(v.z) & mask, v.w & sm90_ordered_bf16x2(v.w) & mask};
        sm90_store16(to ^ i * 64, out);
    }
}

/* Tile n stands: says which of the warp's eight tokens count, and hands it over. */
MLAR_DEVICE void sm90_publish(const sm90_block *b, int32_t n, int32_t counts, int32_t warp) {
    uint32_t bits = (uint32_t)mlar_ballot(counts) & 0x11111111u; /* one of a token's four lanes */
    bits = (bits | bits >> 3) & 0x03030303u;
    bits = (bits | bits >> 6) & 0x000f000fu;
    bits = (bits | bits >> 12) & 0xffu;
    if (mlar_lane() == 0) b->control->counts[n & 1][warp] = (uint8_t)bits;
    sm90_fence_async();
    mlar_wave_sync();
    if (mlar_lane() == 0) sm90_barrier_arrive(sm90_full(b, n));
}

/* ---- the role ---- */

MLAR_DEVICE void sm90_fetch(const sm90_block *b) {
    const int32_t thread = mlar_thread() - SM90_CONSUMERS, quarter = thread & 3, token = thread >> 2;
    /* A nope chunk becomes two chunks of 16 bytes, a rope chunk stays one. */
    const uint32_t keys = b->base + SM90_AT_KEYS + (uint32_t)token * 128;
    const uint32_t nope = keys + (uint32_t)((2 * quarter) ^ (token & 7)) * 16;
    const uint32_t rope = keys + SM90_NOPE_CHUNKS * SM90_PANEL_BYTES + (uint32_t)(quarter ^ (token & 7)) * 16;
    sm90_tiles *const tiles = &b->control->tiles[token / 8];
    mlar_u32x4 raw[SM90_NOPE_CHUNKS + SM90_ROPE_CHUNKS];
    mlar_u32x2 now = {0, 0}, next;
    int32_t slot = -1;

    MLAR_UNROLL for (int32_t i = 0; i < SM90_NOPE_CHUNKS + SM90_ROPE_CHUNKS; ++i)
        raw[i].x = raw[i].y = raw[i].z = raw[i].w = 0;
    if (mlar_lane() == 0) {
        tiles->left = 0;
        tiles->scope = -1;
        tiles->row = b->control->share.span.row;
        tiles->tile = b->control->share.span.tile;
    }
    mlar_wave_sync();

    /* Round n converts tile n, asks for tile n + 1, and looks up the slots of tile n + 2. */
    for (int32_t n = -2; n < 0 || tiles->scope_before >= 0; ++n) {
        const uint32_t stage = (uint32_t)(n & 1) * SM90_STAGE_BYTES;
        const uint64_t *const record = &b->control->record[n & 1][thread];
        const uint64_t *const asked = &b->control->record[~n & 1][thread];
        next = sm90_locate(b, n + 1, tiles->scope, slot, thread);
        slot = sm90_next_slot(b, token);
        if (n >= 0) {
            sm90_barrier_wait(sm90_empty(b, n, thread >= SM90_GROUP), sm90_parity(n) ^ 1);
            sm90_convert_chunks<0, 4>(raw, now, record, nope + stage, (nope ^ 16) + stage);
        }
        sm90_ask<0, 4>(*asked, raw);
        if (n >= 0) sm90_convert_chunks<4, SM90_NOPE_CHUNKS>(raw, now, record, nope + stage, (nope ^ 16) + stage);
        sm90_ask<4, SM90_NOPE_CHUNKS>(*asked, raw);
        if (n >= 0) sm90_convert_rope(raw, *record, rope + stage);
        sm90_ask<SM90_NOPE_CHUNKS, SM90_NOPE_CHUNKS + SM90_ROPE_CHUNKS>(*asked, raw);
        if (n >= 0) sm90_publish(b, n, *record != 0, thread >> 5);
        now = next;
    }
}

#endif
