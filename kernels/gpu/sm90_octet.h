/* SPDX-License-Identifier: Apache-2.0
 *
 * sm90_octet.h: an octet, eight tokens of a tile, in the hands of the warp that fetches it: where its tokens are, their
 * bytes on the way into registers, and from there into shared memory as bf16 keys.
 *
 * A lane's share. Of the fp8 of a token, 16 lanes have 256 at a time, 16 each, so that a warp asks for 256 bytes in a
 * row of two tokens (the memory answers few long pieces sooner than many short ones). Of the 128 bytes of rope, 4 lanes
 * have 64 at a time. Lanes are numbered so that what they write falls on all banks. This file knows no heads, no
 * barriers, and of formats only what sm90_formats.h says. */
#ifndef MLAR_KERNELS_GPU_SM90_OCTET_H
#define MLAR_KERNELS_GPU_SM90_OCTET_H

#include "kernels/gpu/sm90_formats.h"

#define SM90_PAIRS 4 /* of tokens in an octet */

/* The octet's bytes, as a lane has them: of pair j, token 2 j + lane / 4 % 2, bytes 64 (lane / 8) + 16 (lane % 4) of
 * the first 256 fp8, and the same of what lies behind them (of 192, the last eight lanes have what the eight before
 * them have, and do nothing with it); of the rope of token lane / 4, chunk lane % 4 of 16 bytes, or that plus 4 if the
 * token is odd, then the other one. */
typedef struct sm90_raw {
    mlar_u32x4 nope[SM90_PAIRS][2];
    mlar_u32x4 rope[2];
} sm90_raw;

/* The group of 64 columns that a lane has of a pair, first or second. */
template <class format> MLAR_DEVICE int32_t sm90_column_group(int32_t lane, int32_t second) {
    return second ? mlar_min_i32(4 + (lane >> 3), format::groups - 1) : lane >> 3;
}
MLAR_DEVICE int32_t sm90_pair_token(int32_t lane, int32_t j) {
    return 2 * j + (lane >> 2 & 1);
}

/* Where an octet's slots are. */
MLAR_DEVICE uint32_t sm90_slots(const sm90_block *b, int32_t octet_number) {
    return SM90_CONTROL(b, slots) + (uint32_t)(octet_number * 32);
}

/* The table of an octet that there is not: it is asked for like any other, so that no load depends on it, from the
 * queries, which are there if a tile is, and without effect. */
MLAR_DEVICE void sm90_nowhere(const sm90_block *b, uint32_t tokens, int32_t lane) {
    const uint64_t record = sm90_readable(b);
    if (lane < 8) sm90_store8(tokens + 16 * (uint32_t)lane, (uint32_t)record, (uint32_t)(record >> 32));
    mlar_wave_sync();
}

/* Finds the octet's tokens by their slots, into `tokens` in shared memory; scales arrive there later. What does not
 * count is read like the rest, so that no load depends on it: from the queries, which are there if a tile is, and
 * without effect. Reports invalid slots: one head group. */
template <class format>
MLAR_DEVICE uint32_t sm90_locate(const sm90_block *b, int32_t octet_number, uint32_t tokens, int32_t lane) {
    const int32_t slot = (int32_t)sm90_read4(sm90_slots(b, octet_number) + 4 * (uint32_t)(lane & 7));
    const int32_t in_scope = b->control->tiles[octet_number].scope;
    const mlar_scope_params *scope = &b->layer->scope[mlar_max_i32(in_scope, 0)];
    const int32_t counts = in_scope >= 0 && mlar_slot_counts(scope, slot);
    const uint32_t octet = ((uint32_t)mlar_ballot(counts) & SM90_OCTET_COUNTS) |
                           (scope->fp8 == MLAR_FP8_E4M3FNUZ ? SM90_OCTET_FNUZ : 0);
    if (lane < 8) {
        const mlar_slot_place place = mlar_slot_place_of(scope, (uint32_t)slot);
        const uint64_t record = counts ? (uint64_t)(scope->cache + place.record) : sm90_readable(b);
        format::ask_scales(tokens, lane, counts, (const uint8_t *)record, scope->cache + place.scales);
        sm90_store8(tokens + 16 * (uint32_t)lane, (uint32_t)record, (uint32_t)(record >> 32));
        if (!counts && in_scope >= 0 && slot != -1 && b->control->share.head_begin == 0)
            mlar_atomic_add_u64(b->args->invalid_indices, 1);
    }
    return in_scope >= 0 ? octet | SM90_OCTET_EXISTS : 0;
}

/* ---- bytes ---- */

/* Asks for the lane's share of pair j, and of the rope. */
template <class format>
MLAR_DEVICE mlar_u32x4 sm90_ask(uint32_t tokens, int32_t lane, int32_t j, int32_t second) {
    return sm90_load16(sm90_read_u64(tokens + 16 * (uint32_t)sm90_pair_token(lane, j)) +
                       (uint64_t)(64 * sm90_column_group<format>(lane, second) + 16 * (lane & 3)));
}
template <class format>
MLAR_DEVICE void sm90_ask_pair(uint32_t tokens, int32_t lane, int32_t j, mlar_u32x4 raw[2]) {
    raw[0] = sm90_ask<format>(tokens, lane, j, 0);
    raw[1] = sm90_ask<format>(tokens, lane, j, 1);
}
template <class format> MLAR_DEVICE void sm90_ask_rope(uint32_t tokens, int32_t lane, mlar_u32x4 raw[2]) {
    const int32_t t = lane >> 2, chunk = (lane & 3) + 4 * (t & 1);
    const uint64_t record = sm90_read_u64(tokens + 16 * (uint32_t)t) + format::rope_at;
    raw[0] = sm90_load16(record + (uint64_t)(16 * chunk));
    raw[1] = sm90_load16(record + (uint64_t)(16 * (chunk ^ 4)));
}
template <class format> MLAR_DEVICE void sm90_ask_octet(uint32_t tokens, int32_t lane, sm90_raw *raw) {
    MLAR_UNROLL for (int32_t j = 0; j < SM90_PAIRS; ++j) sm90_ask_pair<format>(tokens, lane, j, raw->nope[j]);
    sm90_ask_rope<format>(tokens, lane, raw->rope);
}

/* ---- keys ---- */

/* Where a lane's chunks of its first token go, in the octet's part of the tile. Token t has row t of it: the address of
 * row t's chunk c is that of row 0's chunk 0 with t and c in place. */
MLAR_DEVICE uint32_t sm90_nope_place(int32_t lane) {
    return (uint32_t)((lane >> 3) * SM90_PANEL_BYTES + ((lane & 3) * 32 ^ (lane >> 2 & 1) * (128 + 16)));
}
MLAR_DEVICE uint32_t sm90_place_of_pair(uint32_t place, int32_t j) {
    return place ^ (uint32_t)(2 * j * (128 + 16));
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

/* The whole nope again, from the cache, by the way that is right for any bytes: rare, so small. */
template <class format>
MLAR_DEVICE void sm90_convert_again(uint32_t tokens, uint32_t octet, int32_t lane, uint32_t place) {
    MLAR_NO_UNROLL for (int32_t k = 0; k < 2 * SM90_PAIRS; ++k) {
        const int32_t j = k >> 1, second = k & 1, token = sm90_pair_token(lane, j);
        if (octet >> token & 1 && 4 * second + (lane >> 3) < format::groups) {
            const uint32_t to = sm90_place_of_pair(place, j) + (uint32_t)(second * 4 * SM90_PANEL_BYTES);
            const mlar_u32x4 raw = sm90_ask<format>(tokens, lane, j, second);
            const uint32_t word[4] = {raw.x, raw.y, raw.z, raw.w};
            const typename format::scale scale =
                format::scale_of(tokens, token, sm90_column_group<format>(lane, second));
            MLAR_UNROLL for (uint32_t i = 0; i < 4; ++i) {
                const mlar_u32x2 out = sm90_convert_any<format>(word[i], scale, octet);
                sm90_store8((i & 2 ? to ^ 16 : to) + 8 * (i & 1), out.x, out.y);
            }
        }
    }
}

/* An octet that has arrived becomes keys at `to`; the same one of the warp's next tile is asked for behind it. The
 * short way first: it is right for nearly all tokens, and the test for the others costs less where nothing waits for
 * it. */
template <class format>
MLAR_DEVICE void sm90_convert_octet(sm90_raw *raw, uint32_t tokens, uint32_t octet, uint32_t tokens_next,
                                    int32_t lane, uint32_t to) {
    const uint32_t place = to + sm90_nope_place(lane);
    mlar_u32x4 out[2];
    uint32_t nan = 0;
    int32_t unusual = 0;
    sm90_convert_rope(raw, octet, lane, to + format::groups * SM90_PANEL_BYTES);
    MLAR_UNROLL for (int32_t j = 0; j < SM90_PAIRS; ++j) {
        const int32_t token = sm90_pair_token(lane, j);
        const uint32_t to0 = sm90_place_of_pair(place, j), to1 = to0 ^ 16;
        const uint32_t counts = sm90_ones_if(octet >> (lane >> 2 & 1), 2 * j);
        const typename format::scale scale0 =
                                         format::scale_of(tokens, token, sm90_column_group<format>(lane, 0)),
                                     scale1 =
                                         format::scale_of(tokens, token, sm90_column_group<format>(lane, 1));
        nan |= (sm90_nan_ocp(raw->nope[j][0]) | sm90_nan_ocp(raw->nope[j][1])) & counts;
        unusual |= format::is_unusual(scale0) || format::is_unusual(scale1);
        sm90_convert<format>(raw->nope[j][0], format::factor_of(scale0, octet, counts), out);
        sm90_store16(to0, out[0]);
        sm90_store16(to1, out[1]);
        sm90_convert<format>(raw->nope[j][1], format::factor_of(scale1, octet, counts), out);
        if (4 + (lane >> 3) < format::groups) {
            sm90_store16(to0 + 4 * SM90_PANEL_BYTES, out[0]);
            sm90_store16(to1 + 4 * SM90_PANEL_BYTES, out[1]);
        }
        sm90_ask_pair<format>(tokens_next, lane, j, raw->nope[j]);
        if (j & 1) mlar_wave_sync(); /* the compiler would ask for all at the end */
    }
    sm90_ask_rope<format>(tokens_next, lane, raw->rope);
    if (mlar_any(unusual || (nan & 0x80808080u && !(octet & SM90_OCTET_FNUZ))))
        sm90_convert_again<format>(tokens, octet, lane, place);
}

#endif
