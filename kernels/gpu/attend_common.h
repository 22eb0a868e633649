/* SPDX-License-Identifier: Apache-2.0
 *
 * attend_common.h: what every attention engine shares: which key tiles a block does, which of a tile's
 * entries count and where they lie, the rules of the softmax, and how a finished or a partial result is
 * written.
 *
 * The seam. An engine is a block of threads that takes one unit (worker x head group, schedule.h) after
 * another. For each it walks the worker's key tiles in order, cut to sub-tiles of as many tokens as its LDS
 * holds:
 *
 * - mlar_tiles_begin(), by one wave, at the start of a unit;
 * - mlar_tiles_fetch(n), by the same wave: where sub-tile n is; the loads of its index list are under way;
 * - mlar_tiles_resolve(n), later: addresses and validity of its tokens, into LDS;
 * - desc(n), record(n), scales(n), valid(n), by all after the next barrier
 *
 * and keeps (m, l, O) from the sub-tile flagged FIRST to the one flagged LAST, when mlar_part_finish()
 * writes the sums and says what O is to be multiplied with. What lies between, an engine does as it likes:
 * attend_block.h is the portable one. This file knows no matrix instruction and no number format. */
#ifndef MLAR_KERNELS_GPU_ATTEND_COMMON_H
#define MLAR_KERNELS_GPU_ATTEND_COMMON_H

#include "kernels/gpu/layer.h"

/* ---- the walk over sub-tiles ---- */

enum {
    MLAR_TILE_FIRST = 1, /* of a part: begin with an empty softmax and this row's queries */
    MLAR_TILE_LAST = 2,  /* of a part: write it */
    MLAR_TILE_END = 4    /* no sub-tile: the unit is done */
};

typedef struct mlar_tile_desc {
    const int32_t *entries; /* of the list, from the sub-tile's first on */
    int32_t row;
    int32_t slot; /* workspace slot of the part, or -1: it is the whole row */
    int32_t scope;
    int32_t entry; /* place of the first entry in the row's list */
    int32_t count; /* entries; 0 in the only tile of an empty row */
    int32_t flags;
} mlar_tile_desc;

/* Where the walk stands. In LDS, kept by one lane: registers are what engines have least of. */
typedef struct mlar_walk {
    mlar_span span;
    mlar_part part;
    int32_t tile, sub; /* next to hand out, if inside a part */
    int32_t inside;
    int32_t reserved;
} mlar_walk;

#define MLAR_DESC_RING                                                                                       \
    8 /* descriptors live from three sub-tiles ahead until after the slowest wave's output */
#define MLAR_TOKEN_RING 4 /* token tables from two ahead until the softmax */

/* TOKENS of a sub-tile: 16, 32 or 64. In LDS. */
template <int TOKENS> struct mlar_tiles {
    mlar_walk walk;
    mlar_tile_desc desc[MLAR_DESC_RING];
    uint64_t record[MLAR_TOKEN_RING][TOKENS]; /* address of the token's record; 0: the entry does not count */
    uint64_t scales[MLAR_TOKEN_RING][TOKENS];
    uint32_t valid[MLAR_TOKEN_RING][(TOKENS + 31) / 32];
};

/* Entries of a sub-tile that a lane has loaded ahead. */
template <int TOKENS> struct mlar_pending { int32_t slot[TOKENS > MLAR_WAVE ? TOKENS / MLAR_WAVE : 1]; };

/* By one wave: the walk of `worker` begins. */
template <int TOKENS>
MLAR_DEVICE void mlar_tiles_begin(const mlar_stage_args *args, const mlar_layer_params *layer,
                                  mlar_tiles<TOKENS> *tiles, int32_t worker) {
    if (mlar_lane() == 0) {
        tiles->walk.span = mlar_worker_span(args, layer, worker);
        tiles->walk.inside = 0;
    }
    mlar_wave_sync();
}

/* By one lane. */
MLAR_DEVICE void mlar_walk_next(const mlar_stage_args *args, const mlar_layer_params *layer, mlar_walk *walk,
                                mlar_tile_desc *desc, int32_t tokens) {
    int32_t flags = 0, done;
    mlar_tile tile;
    if (!walk->inside) {
        mlar_part part;
        mlar_span span = walk->span;
        if (!mlar_next_part(args, layer, &span, &part)) {
            desc->flags = MLAR_TILE_END;
            desc->scope = 0;
            desc->count = 0;
            return;
        }
        walk->span = span;
        walk->part = part;
        walk->tile = part.tile_begin;
        walk->sub = 0;
        walk->inside = 1;
        flags = MLAR_TILE_FIRST;
    }
    tile = mlar_tile_of(&walk->part.lists, walk->tile);
    done = walk->sub * tokens;
    desc->row = walk->part.row;
    desc->slot = walk->part.slot;
    desc->scope = tile.scope;
    desc->entry = tile.first + done;
    desc->entries = walk->part.lists.entries[tile.scope] + desc->entry;
    desc->count = mlar_min_i32(tile.count - done, tokens);
    walk->sub += 1;
    if (done + tokens >= tile.count) {
        walk->sub = 0;
        walk->tile += 1;
        if (walk->tile >= walk->part.tile_end) {
            walk->inside = 0;
            flags |= MLAR_TILE_LAST;
        }
    }
    desc->flags = flags;
}

/* By the same wave: sub-tile `n` of the walk; its entries are on their way into `pending`. */
template <int TOKENS>
MLAR_DEVICE void mlar_tiles_fetch(const mlar_stage_args *args, const mlar_layer_params *layer,
                                  mlar_tiles<TOKENS> *tiles, int32_t n, mlar_pending<TOKENS> *pending) {
    mlar_tile_desc *desc = &tiles->desc[n % MLAR_DESC_RING];
    int32_t count;
    if (mlar_lane() == 0) mlar_walk_next(args, layer, &tiles->walk, desc, TOKENS);
    mlar_wave_sync();
    count = desc->count;
    MLAR_UNROLL for (int32_t k = 0; k < TOKENS; k += MLAR_WAVE) {
        const int32_t token = k + mlar_lane();
        pending->slot[k / MLAR_WAVE] = token < count ? (int32_t)mlar_load4(desc->entries + token) : -1;
    }
}

/* By the same wave: which tokens of sub-tile `n` count, and where they lie. Returns how many entries SPEC
 * section 4 calls invalid. GATHERED: the records are rows of the gather buffer. */
template <int TOKENS, bool GATHERED>
MLAR_DEVICE int32_t mlar_tiles_resolve(const mlar_stage_args *args, const mlar_layer_params *layer,
                                       mlar_tiles<TOKENS> *tiles, int32_t n,
                                       const mlar_pending<TOKENS> *pending) {
    const mlar_tile_desc *desc = &tiles->desc[n % MLAR_DESC_RING];
    const int32_t ring = n % MLAR_TOKEN_RING, count = mlar_uniform(desc->count);
    const mlar_scope_params *scope = &layer->scope[mlar_uniform(desc->scope)];
    int32_t invalid = 0;
    MLAR_UNROLL for (int32_t k = 0; k < TOKENS; k += MLAR_WAVE) {
        const int32_t token = k + mlar_lane(), slot = pending->slot[k / MLAR_WAVE];
        const int32_t valid = token < count && mlar_slot_counts(scope, slot);
        const uint64_t bits = mlar_ballot(valid);
        uint64_t record = 0, scales = 0;
        invalid += mlar_popcount(mlar_ballot(token < count && mlar_slot_is_invalid(scope, slot)));
        if (valid && GATHERED) {
            record = (uint64_t)(args->gathered[desc->scope] +
                                mlar_gathered_offset(args, scope, desc->row, desc->entry + token));
        } else if (valid) {
            const mlar_slot_place place = mlar_slot_place_of(scope, (uint32_t)slot);
            record = (uint64_t)scope->cache + place.record;
            scales = (uint64_t)scope->cache + place.scales;
        }
        if (token < TOKENS) {
            tiles->record[ring][token] = record;
            tiles->scales[ring][token] = scales;
        }
        if (mlar_lane() == 0) {
            tiles->valid[ring][k / 32] = (uint32_t)bits;
            if (MLAR_WAVE == 64 && TOKENS - k > 32) tiles->valid[ring][k / 32 + 1] = (uint32_t)(bits >> 32);
        }
    }
    return invalid;
}

/* By the same wave, at the end of a unit. */
MLAR_DEVICE void mlar_count_invalid(const mlar_stage_args *args, int32_t invalid) {
    if (invalid && mlar_lane() == 0) mlar_atomic_add_u64(args->invalid_indices, (uint64_t)(uint32_t)invalid);
}

/* ---- rules of the softmax ---- */

/* Queries are taken 2^-shift times their value, so that a score below 2^126 does not overflow f32 before
 * `scale` brings it down; exact, but for queries near the smallest normal bf16. */
MLAR_DEVICE int32_t mlar_query_shift(float scale) {
    const int32_t below_one = 127 - (int32_t)(mlar_f32_bits(scale) >> 23 & 255u);
    return mlar_max_i32(0, mlar_min_i32(below_one, 16));
}
MLAR_DEVICE float mlar_power_of_two(int32_t exponent) {
    return mlar_f32_from_bits((uint32_t)(127 + exponent) << 23);
}

/* exp(score - max) of an entry that counts. -inf gives 0 even if max is -inf; NaN stays. */
MLAR_DEVICE float mlar_softmax_weight(float score, float max) {
    return score == -MLAR_INF ? 0.0f : mlar_exp(score - max);
}

/* What moves sums from one maximum to another; both are -inf when there was nothing to move. */
MLAR_DEVICE float mlar_softmax_moved(float from, float to) {
    return from == to ? 1.0f : mlar_exp(from - to);
}

/* ---- results ---- */

MLAR_DEVICE float mlar_sink_of(const mlar_layer_params *layer, int32_t head) {
    return layer->sink ? mlar_load_f32(layer->sink + head) : -MLAR_INF;
}

/* What the sums of a finished row are multiplied with; l == 0 says that nothing counted. */
MLAR_DEVICE float mlar_factor_of(const mlar_layer_params *layer, float sink, float m, float l) {
    return l == 0.0f ? 0.0f : 1.0f / (l + (layer->sink ? mlar_exp(sink - m) : 0.0f));
}
MLAR_DEVICE float mlar_row_factor(const mlar_layer_params *layer, int32_t head, float m, float l) {
    return mlar_factor_of(layer, mlar_sink_of(layer, head), m, l);
}

/* Natural, without the sink. */
MLAR_DEVICE float mlar_lse_of(float m, float l) {
    return l == 0.0f ? -MLAR_INF : m + mlar_log(l);
}

/* A sum times the factor. What a sink of +inf leaves is +0, whatever the sign of the sum. */
MLAR_DEVICE float mlar_out_of(float sum, float factor) {
    return factor == 0.0f ? 0.0f : sum * factor;
}

MLAR_DEVICE void mlar_lse_store(const mlar_layer_params *layer, int32_t row, int32_t head, float lse) {
    if (layer->lse)
        mlar_store_f32(layer->lse + row * layer->lse_row_stride + head * layer->lse_head_stride, lse);
}

/* Two neighbouring elements of `out`, the first of an even column, `at` elements from its begin. */
MLAR_DEVICE void mlar_out_store(const mlar_layer_params *layer, int64_t at, float first, float second) {
    if (layer->out_f32)
        mlar_store_f32x2((float *)layer->out + at, first, second);
    else
        mlar_store4((uint16_t *)layer->out + at, mlar_bf16x2(first, second));
}

/* The same of two, or of four from a column that is a multiple of four. */
MLAR_DEVICE void mlar_out_store(const mlar_layer_params *layer, int64_t at, const float (&out)[2]) {
    mlar_out_store(layer, at, out[0], out[1]);
}
MLAR_DEVICE void mlar_out_store(const mlar_layer_params *layer, int64_t at, const float (&out)[4]) {
    if (layer->out_f32) {
        mlar_f32x4 four;
        four.x = out[0], four.y = out[1], four.z = out[2], four.w = out[3];
        *(MLAR_GLOBAL mlar_f32x4 *)((float *)layer->out + at) = four;
    } else {
        mlar_u32x2 pair;
        pair.x = mlar_bf16x2(out[0], out[1]), pair.y = mlar_bf16x2(out[2], out[3]);
        *(MLAR_GLOBAL mlar_u32x2 *)((uint16_t *)layer->out + at) = pair;
    }
}

/* One head's (m, l) of a part, by one lane. Returns what O is to be multiplied with. */
MLAR_DEVICE float mlar_part_finish(const mlar_stage_args *args, const mlar_layer_params *layer, int32_t row,
                                   int32_t slot, int32_t head, float m, float l) {
    if (slot >= 0) {
        mlar_store_f32x2(args->partial_ml + 2 * ((int64_t)slot * args->shape.heads + head), m, l);
        return 1.0f;
    }
    mlar_lse_store(layer, row, head, mlar_lse_of(m, l));
    return mlar_row_factor(layer, head, m, l);
}

/* tail_zero: rows of this row tile beyond the live ones get out = 0, lse = -inf. By the whole grid, a wave
 * for each row and head. */
MLAR_DEVICE void mlar_tail_zero(const mlar_stage_args *args, const mlar_layer_params *layer, int32_t live,
                                int32_t threads) {
    const int32_t first = args->row_begin + mlar_live_rows_within(live, args->row_begin, args->row_count);
    const int32_t waves = threads / MLAR_WAVE, heads = args->shape.heads;
    const int64_t count = (int64_t)(args->row_begin + args->row_count - first) * heads;
    if (!layer->tail_zero) return;
    for (int64_t i = (int64_t)mlar_block() * waves + mlar_wave(); i < count;
         i += (int64_t)mlar_blocks(threads) * waves) {
        const int32_t row = first + (int32_t)(i / heads), head = (int32_t)(i % heads);
        const int64_t at = row * layer->out_row_stride + head * layer->out_head_stride;
        for (int32_t column = 2 * mlar_lane(); column < args->shape.d_v; column += 2 * MLAR_WAVE)
            mlar_out_store(layer, at + column, 0.0f, 0.0f);
        if (mlar_lane() == 0) mlar_lse_store(layer, row, head, -MLAR_INF);
    }
}

#endif
