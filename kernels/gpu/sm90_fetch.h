/* SPDX-License-Identifier: Apache-2.0
 *
 * sm90_fetch.h: the fetching warps of the tuned NVIDIA engine: cache bytes in, bf16 key tiles in shared memory out.
 *
 * Eight warps; each has one octet, eight tokens, of every tile, and needs no other warp for it. A tile's bytes are
 * under way in registers while the tile before is converted: as soon as a pair of tokens has been converted, the same
 * registers are what the same pair of the next tile is asked into. So a whole tile, 36 KB, is always under way,
 * whatever else the block does. The tile after that is looked up meanwhile, and the indices of the one after that are
 * on their way.
 *
 * A lane's share. Of the 448 fp8 of a token, 16 lanes have 256 at a time, 16 each, so that a warp asks for 256 bytes in
 * a row of two tokens (the memory answers few long pieces sooner than many short ones). Of the 128 bytes of rope, 4
 * lanes have 64 at a time. Lanes are numbered so that what they write falls on all banks.
 *
 * Conversion is SPEC section 3 to the bit, NaN as 0 (section 5). With p = sign | seven other bits placed at bit 4 of
 * a bf16, p is the value times 2^-120 (OCP) or 2^-119 (FNUZ), subnormals included, and one bf16 product with the
 * scale is exact for scale bytes 4 .. 134. Bytes outside and NaN take a slower way with the same meaning. This file
 * knows no heads, and no scores. */
#ifndef MLAR_KERNELS_GPU_SM90_FETCH_H
#define MLAR_KERNELS_GPU_SM90_FETCH_H

#include "kernels/gpu/sm90_work.h"

#define SM90_PAIRS   4           /* of tokens in an octet */
#define SM90_ROPE_AT 448         /* bytes from the record's begin */
#define SM90_HALVES  0x00800080u /* a byte times this: the byte as exponent of both bf16 of a word */

/* The encoding's power of two as exponent of both bf16 of a word. */
#define SM90_BIAS_OCP  (120 * SM90_HALVES)
#define SM90_BIAS_FNUZ (119 * SM90_HALVES)

/* ---- the block's tiles, one at a time ---- */

/* Begins the next tile: asks for what the index list says of the octet's tokens, -1 beyond the list's end. Where the
 * warp stands is kept in shared memory, and so is this: registers are scarce, and a wait for one load into them is one
 * for all, the keys' bytes too. */
MLAR_DEVICE void sm90_next_slots(const sm90_block *b, int32_t octet, int32_t lane) {
    sm90_tiles *const where = &b->control->tiles[octet];
    const uint32_t to = SM90_CONTROL(b, slots) + (uint32_t)(8 * octet + lane) * 4;
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

/* ---- a warp's octet ---- */

/* What all lanes know of an octet: bit t says that its token t counts. */
#define SM90_OCTET_COUNTS 0xffu
#define SM90_OCTET_FNUZ   0x100u /* the encoding of its scope */
#define SM90_OCTET_EXISTS 0x200u /* its tile does */

/* The octet's bytes, as a lane has them: of pair j, token 2 j + lane / 4 % 2, bytes 64 (lane / 8) + 16 (lane % 4) of
 * the first 256 fp8, and the same of the next 192 (the last eight lanes have what the eight before them have, and do
 * nothing with it); of the rope of token lane / 4, chunk lane % 4 of 16 bytes, or that plus 4 if the token is odd, then
 * the other one. */
typedef struct sm90_raw {
    mlar_u32x4 nope[SM90_PAIRS][2];
    mlar_u32x4 rope[2];
} sm90_raw;

/* Finds the octet's tokens by their slots, into `tokens` in shared memory; scales arrive there later. What does not
 * count is read like the rest, so that no load depends on it: from the queries, which are there if a tile is, and
 * without effect. Reports invalid slots: one head group. */
MLAR_DEVICE uint32_t sm90_locate(const sm90_block *b, int32_t in_scope, uint32_t tokens, int32_t octet_number,
                                 int32_t lane) {
    const int32_t slot =
        (int32_t)sm90_read4(SM90_CONTROL(b, slots) + (uint32_t)(8 * octet_number + (lane & 7)) * 4);
    const mlar_scope_params *scope = &b->layer->scope[mlar_max_i32(in_scope, 0)];
    const int32_t counts = in_scope >= 0 && mlar_slot_counts(scope, slot);
    const uint32_t octet = ((uint32_t)mlar_ballot(counts) & SM90_OCTET_COUNTS) |
                           (scope->fp8 == MLAR_FP8_E4M3FNUZ ? SM90_OCTET_FNUZ : 0);
    if (lane < 8) {
        const uint32_t to = tokens + 16 * (uint32_t)lane;
        uint64_t record;
        if (counts) {
            const mlar_slot_place place = mlar_slot_place_of(scope, (uint32_t)slot);
            record = (uint64_t)(scope->cache + place.record);
            sm90_copy8(to + 8, scope->cache + place.scales);
        } else {
            record = sm90_readable(b);
            sm90_store8(to + 8, 0x7f7f7f7fu, 0x7f7f7f7fu); /* a scale of no trouble */
            if (in_scope >= 0 && slot != -1 && b->control->share.head_begin == 0)
                mlar_atomic_add_u64(b->args->invalid_indices, 1);
        }
        sm90_store8(to, (uint32_t)record, (uint32_t)(record >> 32));
    }
    return in_scope >= 0 ? octet | SM90_OCTET_EXISTS : 0;
}

/* Asks for the lane's share of pair j, and of the rope, which begins `rope_at` bytes into the record. */
MLAR_DEVICE void sm90_ask_pair(uint32_t tokens, int32_t lane, int32_t j, mlar_u32x4 raw[2]) {
    const int32_t group = lane >> 3, first = 64 * group + 16 * (lane & 3);
    const uint64_t record = sm90_read_u64(tokens + 16 * (uint32_t)(2 * j + (lane >> 2 & 1)));
    raw[0] = sm90_load16(record + (uint64_t)first);
    raw[1] = sm90_load16(record + (uint64_t)(group < 3 ? first + 256 : first + 192));
}
MLAR_DEVICE void sm90_ask_rope(uint32_t tokens, int32_t lane, uint32_t rope_at, mlar_u32x4 raw[2]) {
    const int32_t t = lane >> 2, chunk = (lane & 3) + 4 * (t & 1);
    const uint64_t record = sm90_read_u64(tokens + 16 * (uint32_t)t) + rope_at;
    raw[0] = sm90_load16(record + (uint64_t)(16 * chunk));
    raw[1] = sm90_load16(record + (uint64_t)(16 * (chunk ^ 4)));
}

/* ---- conversion ---- */

/* Four fp8 to four bf16 at 2^-120: bytes 0 and 1, then 2 and 3. Each byte is paired with eight copies of its sign. */
MLAR_DEVICE void sm90_place(uint32_t w, uint32_t *low, uint32_t *high) {
    *low = sm90_permute(w, 0x9180u) << 4 & 0x87f087f0u;
    *high = sm90_permute(w, 0xb3a2u) << 4 & 0x87f087f0u;
}

/* Sixteen columns as two chunks: `scale` is the bf16 factor in both halves, 2^120 (or 2^119) included. */
MLAR_DEVICE void sm90_convert(mlar_u32x4 raw, uint32_t scale, mlar_u32x4 out[2]) {
    const uint32_t word[4] = {raw.x, raw.y, raw.z, raw.w};
    MLAR_UNROLL for (int32_t i = 0; i < 2; ++i) {
        sm90_place(word[2 * i], &out[i].x, &out[i].y);
        sm90_place(word[2 * i + 1], &out[i].z, &out[i].w);
        out[i].x = sm90_mul_bf16x2(out[i].x, scale), out[i].y = sm90_mul_bf16x2(out[i].y, scale);
        out[i].z = sm90_mul_bf16x2(out[i].z, scale), out[i].w = sm90_mul_bf16x2(out[i].w, scale);
    }
}
/* Bit 7 of a byte: one of the words has an OCP NaN there. */
MLAR_DEVICE uint32_t sm90_nan_ocp(mlar_u32x4 raw) {
    return ((raw.x & 0x7f7f7f7fu) + 0x01010101u) | ((raw.y & 0x7f7f7f7fu) + 0x01010101u) |
           ((raw.z & 0x7f7f7f7fu) + 0x01010101u) | ((raw.w & 0x7f7f7f7fu) + 0x01010101u);
}

/* Four bytes, those of them that are NaN as 0. */
MLAR_DEVICE uint32_t sm90_without_nan(uint32_t w, int32_t fnuz) {
    const uint32_t nan = fnuz ? w & ~((w & 0x7f7f7f7fu) + 0x7f7f7f7fu) & 0x80808080u
                              : ((w & 0x7f7f7f7fu) + 0x01010101u) & 0x80808080u;
    return w & ~((nan >> 7) * 0xffu);
}

/* The same for any bytes: NaN is taken out first, and the factor is applied in two steps of which only the last can
 * round. e8m0 0 is 2^-127, a subnormal bf16; 255 is NaN, whose columns are all 0. */
MLAR_DEVICE void sm90_convert_any(const uint32_t raw[4], uint32_t byte, int32_t fnuz, uint32_t to0,
                                  uint32_t to1) {
    const uint32_t unplace = fnuz ? 0x7b007b00u : 0x7b807b80u; /* 2^119, 2^120 */
    const uint32_t scale = byte == 255 ? 0 : byte == 0 ? 0x00400040u : byte * SM90_HALVES;
    MLAR_UNROLL for (uint32_t i = 0; i < 4; ++i) {
        uint32_t low, high;
        sm90_place(sm90_without_nan(raw[i], fnuz), &low, &high);
        low = sm90_mul_bf16x2(sm90_mul_bf16x2(low, unplace), scale);
        high = sm90_mul_bf16x2(sm90_mul_bf16x2(high, unplace), scale);
        sm90_store8((i & 2 ? to1 : to0) + 8 * (i & 1), low, high);
    }
}

/* Where a lane's chunks of its first token go, in the octet's part of the tile. Token t has row t of it: the address of
 * row t's chunk c is that of row 0's chunk 0 with t and c in place. */
MLAR_DEVICE uint32_t sm90_nope_place(int32_t lane) {
    return (uint32_t)((lane >> 3) * SM90_PANEL_BYTES + ((lane & 3) * 32 ^ (lane >> 2 & 1) * (128 + 16)));
}
MLAR_DEVICE uint32_t sm90_place_of_pair(uint32_t place, int32_t j) {
    return place ^ (uint32_t)(2 * j * (128 + 16));
}

/* The scale byte of a lane's columns: token 2 j + lane / 4 % 2, the first 256 columns or the next 192. */
MLAR_DEVICE uint32_t sm90_scale_byte(uint32_t tokens, int32_t lane, int32_t j, int32_t second) {
    const int32_t group = second ? 4 + mlar_min_i32(lane >> 3, 2) : lane >> 3;
    return sm90_read1(tokens + (uint32_t)(16 * (2 * j + (lane >> 2 & 1)) + 8 + group));
}

/* The whole octet again, from the cache, by the way that is right for any bytes: rare, so small. */
MLAR_DEVICE void sm90_convert_again(uint32_t tokens, uint32_t octet, int32_t lane, uint32_t to) {
    const int32_t odd = lane >> 2 & 1, group = lane >> 3;
    MLAR_NO_UNROLL for (int32_t k = 0; k < 2 * SM90_PAIRS; ++k) {
        const int32_t j = k >> 1, second = k & 1;
        if (octet >> (2 * j + odd) & 1 && 4 * second + group < 7) {
            const uint64_t from = sm90_read_u64(tokens + 16 * (uint32_t)(2 * j + odd));
            const mlar_u32x4 again =
                sm90_load16(from + (uint64_t)(256 * second + 64 * group + 16 * (lane & 3)));
            const uint32_t word[4] = {again.x, again.y, again.z, again.w};
            const uint32_t to0 = sm90_place_of_pair(to, j) + (uint32_t)(second * 4 * SM90_PANEL_BYTES);
            sm90_convert_any(word, sm90_scale_byte(tokens, lane, j, second), (octet & SM90_OCTET_FNUZ) != 0,
                             to0, to0 ^ 16);
        }
    }
}

/* All ones if the bit is set, else 0. */
MLAR_DEVICE uint32_t sm90_ones_if(uint32_t word, int32_t bit) {
    return (uint32_t)((int32_t)(word << (31 - bit)) >> 31);
}

/* The rope of an octet that has arrived becomes keys at `to`, in the rope's panel. A chunk stays one chunk; the row's
 * number mod 8 is t. */
MLAR_DEVICE void sm90_convert_rope(const sm90_raw *raw, uint32_t octet, int32_t lane, uint32_t to) {
    const int32_t t = lane >> 2, chunk = (lane & 3) + 4 * (t & 1);
    const uint32_t rope = to + (uint32_t)(t * 128 + (chunk ^ t) * 16), counts = sm90_ones_if(octet >> t, 0);
    MLAR_UNROLL for (uint32_t i = 0; i < 2; ++i) {
        const mlar_u32x4 v = raw->rope[i];
        const mlar_u32x4 out = {
            v.x & sm90_ordered_bf16x2(v.x) & counts, v.y & sm90_ordered_bf16x2(v.y) & counts,
            v.z & sm90_ordered_bf16x2(v.z) & counts, v.w & sm90_ordered_bf16x2(v.w) & counts};
        sm90_store16(rope ^ i * 64, out);
    }
}

/* An octet that has arrived becomes keys at `to`; the same one of the next tile is asked for behind it. The short way
 * first: it is right for nearly all tokens, and the test for the others (OCP NaN; FNUZ's is placed as -0, which is 0
 * already) costs less where nothing waits for it. */
MLAR_DEVICE void sm90_convert_octet(sm90_raw *raw, uint32_t tokens, uint32_t octet, uint32_t tokens_next,
                                    int32_t lane, uint32_t to) {
    const uint32_t bias = octet & SM90_OCTET_FNUZ ? SM90_BIAS_FNUZ : SM90_BIAS_OCP;
    const uint32_t place = to + sm90_nope_place(lane);
    mlar_u32x4 out[2];
    uint32_t nan = 0;
    int32_t wide = 0;
    sm90_convert_rope(raw, octet, lane, to + 7 * SM90_PANEL_BYTES);
    MLAR_UNROLL for (int32_t j = 0; j < SM90_PAIRS; ++j) {
        const uint32_t to0 = sm90_place_of_pair(place, j), to1 = to0 ^ 16;
        const uint32_t counts = sm90_ones_if(octet >> (lane >> 2 & 1), 2 * j);
        const uint32_t byte0 = sm90_scale_byte(tokens, lane, j, 0),
                       byte1 = sm90_scale_byte(tokens, lane, j, 1);
        nan |= (sm90_nan_ocp(raw->nope[j][0]) | sm90_nan_ocp(raw->nope[j][1])) & counts;
        wide |= byte0 - 4 > 130 || byte1 - 4 > 130;
        sm90_convert(raw->nope[j][0], (byte0 * SM90_HALVES + bias) & counts, out);
        sm90_store16(to0, out[0]);
        sm90_store16(to1, out[1]);
        sm90_convert(raw->nope[j][1], (byte1 * SM90_HALVES + bias) & counts, out);
        if (lane < 24) {
            sm90_store16(to0 + 4 * SM90_PANEL_BYTES, out[0]);
            sm90_store16(to1 + 4 * SM90_PANEL_BYTES, out[1]);
        }
        sm90_ask_pair(tokens_next, lane, j, raw->nope[j]);
        if (j & 1) mlar_wave_sync(); /* the compiler would ask for all at the end */
    }
    sm90_ask_rope(tokens_next, lane, SM90_ROPE_AT, raw->rope);
    if (mlar_any(wide || (nan & 0x80808080u && !(octet & SM90_OCTET_FNUZ))))
        sm90_convert_again(tokens, octet, lane, place);
}

/* Where the indices of the share's first tile most likely are: to the L2 cache, while it is looked up how long the
 * lists really are. Eight lanes, 64 bytes each. */
MLAR_DEVICE void sm90_expect(const sm90_block *b, int32_t lane) {
    const sm90_share *share = &b->control->share;
    const mlar_scope_params *scope = &b->layer->scope[lane >> 2 & 1];
    const int32_t tile =
        share->span.tile - (lane < 4 ? 0 : mlar_ceil_div(b->layer->scope[0].width, MLAR_KEY_TILE));
    const int32_t entry = tile * MLAR_KEY_TILE + 16 * (lane & 3);
    if (sm90_has_tiles(share) && lane >> 2 < b->layer->scope_count && scope->list_form == MLAR_LIST_DENSE &&
        entry >= 0 && entry < scope->width)
        sm90_prefetch(scope->indices + share->span.row * scope->index_row_stride + entry);
}

/* Every fetching warp stands before the share's first tile. */
MLAR_DEVICE void sm90_fetch_begin(const sm90_block *b) {
    if (mlar_wave() == SM90_CONSUMERS / 32) sm90_expect(b, mlar_lane());
    if (mlar_lane() == 0) {
        const sm90_tiles begin = {0, 0, 0, -1, b->control->share.span.row, b->control->share.span.tile, 0};
        b->control->tiles[mlar_wave() - SM90_CONSUMERS / 32] = begin;
    }
    mlar_wave_sync();
}

/* The role. Three rounds look ahead before the first octet is converted. What follows from the thread's number is
 * computed again in each: the compiler would keep it all, and there are no registers for it. */
MLAR_DEVICE void sm90_fetch(const sm90_block *b) {
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
                base + SM90_AT_KEYS + (uint32_t)(n & 1) * sm90_dsv4::stage_bytes + (uint32_t)octet * 1024;
            sm90_copy_wait_older();
            mlar_wave_sync();
            sm90_barrier_wait(sm90_empty(b, n, octet >> 2), sm90_parity(n) ^ 1);
            sm90_convert_octet(&raw, tokens, now, tokens ^ SM90_OCTET_BYTES, lane, to);
            if (lane == 0)
                sm90_store1(SM90_CONTROL(b, counts) + 8 * (uint32_t)(n & 1) + (uint32_t)octet,
                            now & SM90_OCTET_COUNTS);
            sm90_fence_async();
            sm90_barrier_arrive(sm90_full(b, n));
        } else if (next) {
            MLAR_UNROLL for (int32_t j = 0; j < SM90_PAIRS; ++j)
                sm90_ask_pair(tokens ^ SM90_OCTET_BYTES, lane, j, raw.nope[j]);
            sm90_ask_rope(tokens ^ SM90_OCTET_BYTES, lane, SM90_ROPE_AT, raw.rope);
        }
        now = next;
        sm90_copy_wait();
        mlar_wave_sync();
        next = sm90_locate(b, b->control->tiles[octet].scope, tokens, octet, lane);
        mlar_wave_sync();
        sm90_next_slots(b, octet, lane);
        sm90_copy_commit();
    }
}

#endif
