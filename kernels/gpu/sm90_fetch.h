/* SPDX-License-Identifier: Apache-2.0
 *
 * sm90_fetch.h: the fetching warps of the tuned NVIDIA engine: cache bytes in, bf16 key tiles in shared memory out.
 *
 * Copiers look up tokens and ask for their bytes, a whole token at a time: 32 lanes with 16 bytes each reach the 576
 * of one record, then the next, which the memory answers twice as fast as eight records at once. The bytes land in a
 * ring of raw slots, so that about 24 KB are always under way whatever else the block does. Converters take an octet
 * into registers, four lanes a token, each a quarter of it: 16 bytes of every 64 (one chunk under each of the seven
 * scales) and 32 of the 128 bytes of rope.
 *
 * Conversion is SPEC section 3 to the bit, NaN as 0 (section 5). With p = sign | seven other bits placed at bit 4 of
 * a bf16, p is the value times 2^-120 (OCP) or 2^-119 (FNUZ), subnormals included, and one bf16 product with the
 * scale is exact for scale bytes 4 .. 134. Bytes outside and NaN take a slower way with the same meaning. This file
 * knows no heads, and no scores. */
#ifndef MLAR_KERNELS_GPU_SM90_FETCH_H
#define MLAR_KERNELS_GPU_SM90_FETCH_H

#include "kernels/gpu/sm90_work.h"

#define SM90_NOPE_CHUNKS 7 /* of a lane; one under each scale */
#define SM90_ROPE_CHUNKS 2
#define SM90_HALVES      0x00800080u /* a byte times this: the byte as exponent of both bf16 of a word */

/* A token in a slot: the address of its record, a multiple of 16, plus one if its encoding is FNUZ; 0: it does not
 * count, and its bytes are left over from another. */
MLAR_DEVICE const uint8_t *sm90_record_bytes(uint64_t record) {
    return (const uint8_t *)(record & ~15ull);
}

/* The encoding's power of two as exponent of both bf16 of a word; 0 for a token that does not count. */
#define SM90_BIAS_OCP  (120 * SM90_HALVES)
#define SM90_BIAS_FNUZ (119 * SM90_HALVES)
MLAR_DEVICE uint32_t sm90_record_bias(uint64_t record) {
    return record & 1 ? SM90_BIAS_FNUZ : record ? SM90_BIAS_OCP : 0;
}

/* ---- the ring ---- */

/* A place in the ring of raw slots, and the parity of the phases that complete there this time round. */
typedef struct sm90_ring {
    int32_t slot;
    uint32_t parity;
} sm90_ring;

MLAR_DEVICE void sm90_ring_on(const sm90_block *b, sm90_ring *ring, int32_t by) {
    ring->slot += by;
    while (ring->slot >= b->slots) ring->slot -= b->slots, ring->parity ^= 1;
}
MLAR_DEVICE uint32_t sm90_raw_full(const sm90_block *b, const sm90_ring *ring) {
    return SM90_CONTROL(b, raw_full) + 8 * (uint32_t)ring->slot;
}
MLAR_DEVICE uint32_t sm90_raw_empty(const sm90_block *b, const sm90_ring *ring) {
    return SM90_CONTROL(b, raw_empty) + 8 * (uint32_t)ring->slot;
}
MLAR_DEVICE uint32_t sm90_raw(const sm90_block *b, const sm90_ring *ring) {
    return b->raw + (uint32_t)ring->slot * SM90_RAW_BYTES;
}

/* ---- the block's tiles, one at a time ---- */

/* A run is what a part has of one scope's list. */
typedef struct sm90_tiles {
    const int32_t *entries; /* of the run's next tile */
    int32_t count;          /* entries from there to the list's end */
    int32_t left;           /* tiles of the run */
    int32_t scope;          /* of the run, and so of the tile last begun; -1: none was left */
    int32_t row, tile;      /* the tile after the run; the share says which is the last */
} sm90_tiles;

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

/* Begins the next tile: what the index list says of the lane's two tokens, -1 beyond the list's end. */
MLAR_DEVICE void sm90_next_slots(const sm90_block *b, sm90_tiles *t, int32_t slot[2]) {
    slot[0] = slot[1] = -1;
    if (t->left == 0) sm90_next_run(b, t);
    if (t->left == 0) {
        t->scope = -1;
        return;
    }
    MLAR_UNROLL for (int32_t h = 0; h < 2; ++h) if (32 * h + mlar_lane() < t->count) slot[h] =
        t->entries[32 * h + mlar_lane()];
    t->entries += MLAR_KEY_TILE;
    t->count -= MLAR_KEY_TILE;
    t->left -= 1;
}

/* ---- copying ---- */

/* What a copier's lane knows of a token of the tile. */
typedef struct sm90_token {
    uint64_t record;
    const uint8_t *scales;
} sm90_token;

/* Finds a token by its slot. Reports it if it is invalid: one copier, one head group. */
MLAR_DEVICE sm90_token sm90_locate(const sm90_block *b, int32_t in_scope, int32_t slot, int32_t report) {
    const mlar_scope_params *scope = &b->layer->scope[in_scope];
    sm90_token token = {0, 0};
    if (mlar_slot_counts(scope, slot)) {
        const mlar_slot_place place = mlar_slot_place_of(scope, (uint32_t)slot);
        token.record = (uint64_t)(scope->cache + place.record) + (scope->fp8 == MLAR_FP8_E4M3FNUZ);
        token.scales = scope->cache + place.scales;
    } else if (slot != -1 && report) {
        mlar_atomic_add_u64(b->args->invalid_indices, 1);
    }
    return token;
}

/* Asks for octet k of the tile, whose tokens lanes 8 k % 32 ... 8 k % 32 + 7 know, and hands the slot over. Two tokens
 * at a time, half a warp each. */
MLAR_DEVICE void sm90_copy_octet(const sm90_block *b, const sm90_ring *ring, uint32_t from, int32_t k,
                                 sm90_token token) {
    const int32_t lane = mlar_lane(), half = lane >> 4;
    const uint32_t raw = sm90_raw(b, ring), full = sm90_raw_full(b, ring);
    const uint32_t to = raw + (uint32_t)(half * SM90_RECORD_BYTES + 16 * (lane & 15));
    uint64_t pair[4], last;
    from += 64 * (uint32_t)k;
    MLAR_UNROLL for (uint32_t i = 0; i < 4; ++i) pair[i] = sm90_read_u64(from + 16 * i + 8 * (uint32_t)half);
    last = sm90_read_u64(from + 8 * (uint32_t)(lane >> 2));
    MLAR_UNROLL for (uint32_t i = 0; i < 4; ++i) if (pair[i]) {
        const uint8_t *record = (const uint8_t *)pair[i] + 16 * (lane & 15);
        sm90_copy16(to + 2 * i * SM90_RECORD_BYTES, record, 1);
        sm90_copy16(to + 2 * i * SM90_RECORD_BYTES + 256, record + 256, 1);
    }
    if (last) { /* the last 64 bytes of each of the eight */
        const int32_t at = 512 + 16 * (lane & 3);
        sm90_copy16(raw + (uint32_t)((lane >> 2) * SM90_RECORD_BYTES + at), (const uint8_t *)last + at, 1);
    }
    if (lane >> 3 == (k & 3)) {
        const uint32_t t = (uint32_t)lane & 7;
        if (token.record) sm90_copy8(raw + SM90_RAW_SCALES + 8 * t, token.scales);
        sm90_store8(raw + SM90_RAW_RECORDS + 8 * t, (uint32_t)token.record, (uint32_t)(token.record >> 32));
    }
    if (lane == 0) sm90_store4(raw + SM90_RAW_END, 0);
    sm90_barrier_arrive_copied(full);
    mlar_wave_sync();
    if (lane == 0) sm90_barrier_arrive(full);
}

/* Copier `copier`: of the block's octets those that fall on its slots. Its lanes know all tokens of a tile, two each:
 * slot[h] is what the list says of token 32 h + lane of the next tile, asked for one tile ahead. */
MLAR_DEVICE void sm90_copy(const sm90_block *b, int32_t copier) {
    const int32_t lane = mlar_lane(), report = copier == 0 && b->control->share.head_begin == 0;
    sm90_tiles tiles = {0, 0, 0, 0, b->control->share.span.row, b->control->share.span.tile};
    sm90_ring ring = {0, 0};
    const uint32_t from = SM90_CONTROL(b, from) + (uint32_t)copier * 8 * MLAR_KEY_TILE;
    int32_t slot[2], begun = 0;
    sm90_next_slots(b, &tiles, slot);
    while (tiles.scope >= 0) {
        const int32_t scope = tiles.scope;
        sm90_token token[2];
        MLAR_UNROLL for (int32_t h = 0; h < 2; ++h) {
            const uint64_t record = (token[h] = sm90_locate(b, scope, slot[h], report)).record & ~15ull;
            sm90_store8(from + 8 * (uint32_t)(32 * h + lane), (uint32_t)record, (uint32_t)(record >> 32));
        }
        mlar_wave_sync();
        sm90_next_slots(b, &tiles, slot);
        MLAR_NO_UNROLL for (int32_t k = 0; k < 8; ++k) {
            if (ring.slot % SM90_COPIERS == copier) {
                sm90_barrier_wait(sm90_raw_empty(b, &ring), ring.parity ^ 1);
                sm90_copy_octet(b, &ring, from, k, k < 4 ? token[0] : token[1]);
                if (!begun && lane == 0) sm90_barrier_arrive(SM90_CONTROL(b, begun));
                begun = 1;
            }
            sm90_ring_on(b, &ring, 1);
        }
        mlar_wave_sync();
    }
    MLAR_NO_UNROLL for (int32_t i = 0; i < SM90_CONVERTERS; ++i) { /* one end for each converter */
        if (ring.slot % SM90_COPIERS == copier) {
            sm90_barrier_wait(sm90_raw_empty(b, &ring), ring.parity ^ 1);
            if (lane == 0) sm90_store4(sm90_raw(b, &ring) + SM90_RAW_END, 1);
            sm90_barrier_arrive_copied(sm90_raw_full(b, &ring));
            if (lane == 0) sm90_barrier_arrive(sm90_raw_full(b, &ring));
        }
        sm90_ring_on(b, &ring, 1);
    }
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
MLAR_DEVICE void sm90_convert_any(const uint32_t raw[4], uint32_t byte, int32_t fnuz, uint32_t to0,
                                  uint32_t to1) {
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

/* A lane's seven nope chunks to their two places, given in the first panel. The short way first: it is right for nearly
 * all tokens, and the test for the others (OCP NaN; FNUZ's is placed as -0, which is 0 already) costs less where
 * nothing waits for it. `from` is the lane's first byte in the cache. */
MLAR_DEVICE void sm90_convert_nope(const mlar_u32x4 *raw, mlar_u32x2 scales, uint64_t record,
                                   const uint8_t *from, uint32_t to0, uint32_t to1) {
    const uint32_t bias = sm90_record_bias(record);
    const uint32_t factor = bias ? SM90_HALVES : 0; /* 0: whatever the bytes are */
    uint32_t nan = 0;
    int32_t wide = 0;
    MLAR_UNROLL for (int32_t i = 0; i < SM90_NOPE_CHUNKS; ++i) {
        const uint32_t word[4] = {raw[i].x, raw[i].y, raw[i].z, raw[i].w}, byte = sm90_scale_byte(scales, i);
        MLAR_UNROLL for (int32_t k = 0; k < 4; ++k) nan |= (word[k] & 0x7f7f7f7fu) + 0x01010101u;
        wide |= byte - 4 > 130;
        sm90_convert(word, byte * factor + bias, to0 + (uint32_t)i * SM90_PANEL_BYTES,
                     to1 + (uint32_t)i * SM90_PANEL_BYTES);
    }
    if (bias && (wide || (nan & 0x80808080u && bias == SM90_BIAS_OCP))) {
        MLAR_NO_UNROLL for (int32_t i = 0; i < SM90_NOPE_CHUNKS;
                            ++i) { /* reads again: less code, fewer registers */
            const mlar_u32x4 again = mlar_load16(from + 64 * i);
            const uint32_t word[4] = {again.x, again.y, again.z, again.w};
            sm90_convert_any(word, sm90_scale_byte(scales, i), (int32_t)(record & 1),
                             to0 + (uint32_t)i * SM90_PANEL_BYTES, to1 + (uint32_t)i * SM90_PANEL_BYTES);
        }
    }
}

/* Copies the two rope chunks, NaN as 0, to their places. */
MLAR_DEVICE void sm90_convert_rope(const mlar_u32x4 *raw, uint64_t record, uint32_t to) {
    const uint32_t mask = record ? ~0u : 0;
    MLAR_UNROLL for (uint32_t i = 0; i < SM90_ROPE_CHUNKS; ++i) {
        const mlar_u32x4 v = raw[i];
        const mlar_u32x4 out = {v.x & sm90_ordered_bf16x2(v.x) & mask, v.y & sm90_ordered_bf16x2(v.y) & mask,
                                v.z & sm90_ordered_bf16x2(v.z) & mask, v.w & sm90_ordered_bf16x2(v.w) & mask};
        sm90_store16(to ^ i * 64, out);
    }
}

/* Converter `converter`: octets converter, converter + SM90_CONVERTERS, ... of the block. Before them one pass over
 * nothing: while the first bytes are on their way it fetches the code, which else would take as long again as the
 * first conversion itself. */
MLAR_DEVICE void sm90_convert_octets(const sm90_block *b, int32_t converter) {
    const int32_t lane = mlar_lane(), quarter = lane & 3, t = lane >> 2;
    /* A nope chunk becomes two chunks of 16 bytes, a rope chunk stays one. The row's number mod 8 is t. */
    const uint32_t nope = (uint32_t)(t * 128 + ((2 * quarter) ^ t) * 16);
    const uint32_t rope = (uint32_t)(t * 128 + (quarter ^ t) * 16 + SM90_NOPE_CHUNKS * SM90_PANEL_BYTES);
    sm90_ring ring = {converter, 0}; /* both rings have at least as many slots */
    for (int32_t octet = converter - SM90_CONVERTERS;; octet += SM90_CONVERTERS) {
        const int32_t real = octet >= 0, place = real ? octet : converter, n = place >> 3, k = place & 7;
        const uint32_t from = sm90_raw(b, &ring) + (uint32_t)(t * SM90_RECORD_BYTES + 16 * quarter);
        const uint32_t to =
            b->base + SM90_AT_KEYS + (uint32_t)(n & 1) * SM90_STAGE_BYTES + (uint32_t)k * 1024;
        mlar_u32x4 raw[SM90_NOPE_CHUNKS + SM90_ROPE_CHUNKS];
        mlar_u32x2 scales;
        uint64_t record;
        uint32_t bits;
        if (real) {
            sm90_barrier_wait(sm90_raw_full(b, &ring), ring.parity);
            if (sm90_read4(sm90_raw(b, &ring) + SM90_RAW_END)) {
                if (lane == 0) sm90_barrier_arrive(sm90_raw_empty(b, &ring));
                break;
            }
        }
        scales = sm90_read8(sm90_raw(b, &ring) + SM90_RAW_SCALES + 8 * (uint32_t)t);
        record = real ? sm90_read_u64(sm90_raw(b, &ring) + SM90_RAW_RECORDS + 8 * (uint32_t)t) : 0;
        MLAR_UNROLL for (int32_t i = 0; i < SM90_NOPE_CHUNKS + SM90_ROPE_CHUNKS; ++i) raw[i] =
            sm90_read16(from + (uint32_t)(64 * i));
        mlar_wave_sync();
        if (real) {
            if (lane == 0) sm90_barrier_arrive(sm90_raw_empty(b, &ring));
            sm90_ring_on(b, &ring, SM90_CONVERTERS);
            sm90_barrier_wait(sm90_empty(b, n, k >> 2), sm90_parity(n) ^ 1);
        }
        sm90_convert_nope(raw, scales, record, sm90_record_bytes(record) + 16 * quarter, to + nope,
                          to + (nope ^ 16));
        sm90_convert_rope(raw + SM90_NOPE_CHUNKS, record, to + rope);
        bits = (uint32_t)mlar_ballot(record != 0) & 0x11111111u; /* one of a token's four lanes */
        bits = (bits | bits >> 3) & 0x03030303u;
        bits = (bits | bits >> 6) & 0x000f000fu;
        bits = (bits | bits >> 12) & 0xffu;
        if (lane == 0) sm90_store1(SM90_CONTROL(b, counts) + 8 * (uint32_t)(n & 1) + (uint32_t)k, bits);
        sm90_fence_async();
        mlar_wave_sync();
        if (real && lane == 0) sm90_barrier_arrive(sm90_full(b, n));
    }
}

#endif
