/* SPDX-License-Identifier: Apache-2.0
 *
 * sm90_fetch_v32.h: the fetching warps of the tuned NVIDIA engine for v32 caches: 512 fp8, their four f32 scales and 64
 * bf16 of rope a token, one behind the other.
 *
 * The walk, the octets, what is under way and a lane's share are sm90_fetch.h's, with a second half of 256 fp8 as the
 * first. Conversion is SPEC section 3 to the bit, NaN as 0 (section 5): a byte placed in a bf16 is the value times
 * 2^-120 (OCP) or 2^-119 (FNUZ), and so is the same in an f32. That times scale * 2^120 (2^119) is the product of the
 * definition, rounded once as there, subnormals included, for every scale of less than 2^8, since the factor is exact;
 * then there is the one rounding to bf16. Larger scales and NaN take a slower way with the same meaning.
 *
 * Where a tile's rope is, its probabilities stand later, for which tokens are columns and not rows: so nothing is
 * written before the tile before in this stage has been read to its end. This file knows no heads, and no scores. */
#ifndef MLAR_KERNELS_GPU_SM90_FETCH_V32_H
#define MLAR_KERNELS_GPU_SM90_FETCH_V32_H

#include "kernels/gpu/sm90_fetch.h"

#define SM90_V32_NOPE    512
#define SM90_V32_ROPE_AT (SM90_V32_NOPE + 16) /* bytes from the record's begin */
/* An octet's scales, [8][4], lie so far behind its tokens. */
#define SM90_V32_SCALES      (sm90_v32::scales - SM90_AT_CONTROL)
#define SM90_V32_LARGE_SCALE (127 + 8) /* exponent from which scales are not ordinary */

/* What the octets' scales are multiplied by: 2^120, 2^119. */
MLAR_DEVICE float sm90_v32_unplace(uint32_t octet) {
    return mlar_power_of_two(octet & SM90_OCTET_FNUZ ? 119 : 120);
}

/* Finds the octet's tokens by their slots, as sm90_locate does; the scales arrive later. What does not count has scales
 * of 0, which make zeros of whatever bytes are read in its place. */
MLAR_DEVICE uint32_t sm90_v32_locate(const sm90_block *b, int32_t in_scope, uint32_t tokens,
                                     int32_t octet_number, int32_t lane) {
    const int32_t slot =
        (int32_t)sm90_read4(SM90_CONTROL(b, slots) + (uint32_t)(8 * octet_number + (lane & 7)) * 4);
    const mlar_scope_params *scope = &b->layer->scope[mlar_max_i32(in_scope, 0)];
    const int32_t counts = in_scope >= 0 && mlar_slot_counts(scope, slot);
    const uint32_t octet = ((uint32_t)mlar_ballot(counts) & SM90_OCTET_COUNTS) |
                           (scope->fp8 == MLAR_FP8_E4M3FNUZ ? SM90_OCTET_FNUZ : 0);
    if (lane < 8) {
        const uint32_t to = tokens + 16 * (uint32_t)lane;
        uint64_t record = sm90_readable(b);
        if (counts)
            record = (uint64_t)(scope->cache + mlar_slot_place_of(scope, (uint32_t)slot).record);
        else if (in_scope >= 0 && slot != -1 && b->control->share.head_begin == 0)
            mlar_atomic_add_u64(b->args->invalid_indices, 1);
        sm90_copy16(tokens + SM90_V32_SCALES + 16 * (uint32_t)lane, (const void *)(record + SM90_V32_NOPE),
                    counts);
        sm90_store8(to, (uint32_t)record, (uint32_t)(record >> 32));
    }
    return in_scope >= 0 ? octet | SM90_OCTET_EXISTS : 0;
}

/* Asks for the lane's share of pair j. */
MLAR_DEVICE void sm90_v32_ask_pair(uint32_t tokens, int32_t lane, int32_t j, mlar_u32x4 raw[2]) {
    const uint64_t from = sm90_read_u64(tokens + 16 * (uint32_t)(2 * j + (lane >> 2 & 1))) +
                          (uint64_t)(64 * (lane >> 3) + 16 * (lane & 3));
    raw[0] = sm90_load16(from);
    raw[1] = sm90_load16(from + 256);
}

/* Two placed bf16 times the factor. */
MLAR_DEVICE uint32_t sm90_v32_multiply(uint32_t placed, float factor) {
    return mlar_bf16x2(mlar_f32_from_bits(placed << 16) * factor,
                       mlar_f32_from_bits(placed & 0xffff0000u) * factor);
}

/* Sixteen columns as two chunks. */
MLAR_DEVICE void sm90_v32_convert(mlar_u32x4 raw, float factor, mlar_u32x4 out[2]) {
    const uint32_t word[4] = {raw.x, raw.y, raw.z, raw.w};
    MLAR_UNROLL for (int32_t i = 0; i < 2; ++i) {
        sm90_place(word[2 * i], &out[i].x, &out[i].y);
        sm90_place(word[2 * i + 1], &out[i].z, &out[i].w);
        out[i].x = sm90_v32_multiply(out[i].x, factor), out[i].y = sm90_v32_multiply(out[i].y, factor);
        out[i].z = sm90_v32_multiply(out[i].z, factor), out[i].w = sm90_v32_multiply(out[i].w, factor);
    }
}

/* The same for any bytes and scale: NaN is taken out first, and the value is made before the product. */
MLAR_DEVICE void sm90_v32_convert_any(const uint32_t raw[4], float scale, uint32_t octet, uint32_t to0,
                                      uint32_t to1) {
    const float unplace = sm90_v32_unplace(octet);
    MLAR_UNROLL for (uint32_t i = 0; i < 4; ++i) {
        uint32_t pair[2];
        sm90_place(sm90_without_nan(raw[i], (octet & SM90_OCTET_FNUZ) != 0), &pair[0], &pair[1]);
        MLAR_UNROLL for (int32_t k = 0; k < 2; ++k) {
            pair[k] = mlar_bf16x2(mlar_f32_from_bits(pair[k] << 16) * unplace * scale,
                                  mlar_f32_from_bits(pair[k] & 0xffff0000u) * unplace * scale);
            pair[k] &= sm90_ordered_bf16x2(pair[k]); /* a scale of NaN, 0 * inf */
        }
        sm90_store8((i & 2 ? to1 : to0) + 8 * (i & 1), pair[0], pair[1]);
    }
}

/* The scale of a lane's columns: token 2 j + lane / 4 % 2, the first 256 columns or the second. */
MLAR_DEVICE float sm90_v32_scale(uint32_t tokens, int32_t lane, int32_t j, int32_t second) {
    return sm90_read_f32(tokens + SM90_V32_SCALES +
                         (uint32_t)(16 * (2 * j + (lane >> 2 & 1)) + 8 * second + 4 * (lane >> 4)));
}

/* The whole octet again, from the cache, by the way that is right for any bytes: rare, so small. */
MLAR_DEVICE void sm90_v32_convert_again(uint32_t tokens, uint32_t octet, int32_t lane, uint32_t to) {
    MLAR_NO_UNROLL for (int32_t k = 0; k < 2 * SM90_PAIRS; ++k) {
        const int32_t j = k >> 1, second = k & 1, t = 2 * j + (lane >> 2 & 1);
        if (octet >> t & 1) {
            const uint64_t from = sm90_read_u64(tokens + 16 * (uint32_t)t);
            const mlar_u32x4 again =
                sm90_load16(from + (uint64_t)(256 * second + 64 * (lane >> 3) + 16 * (lane & 3)));
            const uint32_t word[4] = {again.x, again.y, again.z, again.w};
            const uint32_t to0 = sm90_place_of_pair(to, j) + (uint32_t)(second * 4 * SM90_PANEL_BYTES);
            sm90_v32_convert_any(word, sm90_v32_scale(tokens, lane, j, second), octet, to0, to0 ^ 16);
        }
    }
}

/* The nope of an octet that has arrived becomes keys at `to`; the same of the next tile is asked for behind it. */
MLAR_DEVICE void sm90_v32_convert_nope(sm90_raw *raw, uint32_t tokens, uint32_t octet, uint32_t tokens_next,
                                       int32_t lane, uint32_t to) {
    const float unplace = sm90_v32_unplace(octet);
    const uint32_t place = to + sm90_nope_place(lane);
    mlar_u32x4 out[2];
    uint32_t nan = 0;
    int32_t large = 0;
    MLAR_UNROLL for (int32_t j = 0; j < SM90_PAIRS; ++j) {
        const uint32_t to0 = sm90_place_of_pair(place, j), to1 = to0 ^ 16;
        const float scale0 = sm90_v32_scale(tokens, lane, j, 0), scale1 = sm90_v32_scale(tokens, lane, j, 1);
        nan |= (sm90_nan_ocp(raw->nope[j][0]) | sm90_nan_ocp(raw->nope[j][1])) &
               sm90_ones_if(octet >> (lane >> 2 & 1), 2 * j);
        large |= (mlar_f32_bits(scale0) >> 23 & 255) >= SM90_V32_LARGE_SCALE ||
                 (mlar_f32_bits(scale1) >> 23 & 255) >= SM90_V32_LARGE_SCALE;
        sm90_v32_convert(raw->nope[j][0], scale0 * unplace, out);
        sm90_store16(to0, out[0]);
        sm90_store16(to1, out[1]);
        sm90_v32_convert(raw->nope[j][1], scale1 * unplace, out);
        sm90_store16(to0 + 4 * SM90_PANEL_BYTES, out[0]);
        sm90_store16(to1 + 4 * SM90_PANEL_BYTES, out[1]);
        sm90_v32_ask_pair(tokens_next, lane, j, raw->nope[j]);
        if (j & 1) mlar_wave_sync(); /* the compiler would ask for all at the end */
    }
    if (mlar_any(large || (nan & 0x80808080u && !(octet & SM90_OCTET_FNUZ))))
        sm90_v32_convert_again(tokens, octet, lane, place);
}

/* The role, as sm90_fetch. */
MLAR_DEVICE void sm90_fetch_v32(const sm90_block *b) {
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
                base + SM90_AT_KEYS + (uint32_t)(n & 1) * sm90_v32::stage_bytes + (uint32_t)octet * 1024;
            sm90_copy_wait_older();
            mlar_wave_sync();
            sm90_barrier_wait(sm90_empty(b, n, 1), sm90_parity(n) ^ 1); /* and so the first half */
            sm90_convert_rope(&raw, now, lane, to + 8 * SM90_PANEL_BYTES);
            sm90_v32_convert_nope(&raw, tokens, now, tokens ^ SM90_OCTET_BYTES, lane, to);
            sm90_ask_rope(tokens ^ SM90_OCTET_BYTES, lane, SM90_V32_ROPE_AT, raw.rope);
            if (lane == 0)
                sm90_store1(SM90_CONTROL(b, counts) + 8 * (uint32_t)(n & 1) + (uint32_t)octet,
                            now & SM90_OCTET_COUNTS);
            sm90_fence_async();
            sm90_barrier_arrive(sm90_full(b, n));
        } else if (next) {
            MLAR_UNROLL for (int32_t j = 0; j < SM90_PAIRS; ++j)
                sm90_v32_ask_pair(tokens ^ SM90_OCTET_BYTES, lane, j, raw.nope[j]);
            sm90_ask_rope(tokens ^ SM90_OCTET_BYTES, lane, SM90_V32_ROPE_AT, raw.rope);
        }
        now = next;
        sm90_copy_wait();
        mlar_wave_sync();
        next = sm90_v32_locate(b, b->control->tiles[octet].scope, tokens, octet, lane);
        mlar_wave_sync();
        sm90_next_slots(b, octet, lane);
        sm90_copy_commit();
    }
}

#endif
