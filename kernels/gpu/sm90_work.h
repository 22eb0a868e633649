/* SPDX-License-Identifier: Apache-2.0
 *
 * sm90_work.h: what the warps of the tuned NVIDIA engine share: the block's shared memory, the barriers by which the
 * roles hand data to one another, and the walk over the block's parts that every role makes for itself.
 *
 * A block has 16 warps in four warpgroups: eight warps attend, three copy, five convert. It holds two key tiles of 64
 * tokens; tile number n of the block (counted over all its parts) stands in stage n % 2. An octet is eight tokens of a
 * tile; octet number 8 n + k goes through the ring of raw slots:
 *
 *     copiers     wait raw_empty[slot], ask for the cache's bytes, which arrive at raw_full[slot]
 *     converters  wait raw_full[slot], take the bytes, arrive raw_empty[slot],
 *                 wait empty[stage][half], write bf16 keys and which count, arrive full[stage]
 *     consumers   wait full[stage], scores, softmax, arrive probs[stage] (wide only), P V, arrive empty[stage][half]
 *
 * Each role meets the same tiles in the same order, so that numbers alone say which phase of a barrier is meant. A
 * barrier tells only odd phases from even ones: whoever waits for one must have seen the phase before. Hence a slot has
 * one copier and one converter for good. This file knows no number format and no matrix instruction. */
#ifndef MLAR_KERNELS_GPU_SM90_WORK_H
#define MLAR_KERNELS_GPU_SM90_WORK_H

#include "kernels/gpu/sm90_ptx.h"
#include "kernels/schedule.h"

#define SM90_THREADS      512
#define SM90_GROUP        128 /* threads of a warpgroup */
#define SM90_CONSUMERS    256
#define SM90_COPIERS      3     /* warps: one has the slots of its number mod 3 */
#define SM90_CONVERTERS   5     /* warps: one has the slots of its number mod 5 */
#define SM90_D            512   /* d_qk = d_v: nope 448, rope 64 */
#define SM90_PANEL_BYTES  8192  /* 64 rows of 64 columns (sm90_ptx.h) */
#define SM90_STAGE_BYTES  65536 /* a key tile: 8 panels of 64 tokens */
#define SM90_WIDE_HEADS   64
#define SM90_NARROW_HEADS 32
#define SM90_SCORE_STRIDE 72 /* floats between two heads' partial scores: 8 rows touch all banks once */

/* A raw slot: an octet as it stands in the cache. */
#define SM90_RECORD_BYTES 576  /* a token: 448 fp8, 64 bf16 */
#define SM90_RAW_SCALES   4608 /* 8 bytes a token */
#define SM90_RAW_RECORDS  4672 /* u64 a token: where it is; sm90_fetch.h */
#define SM90_RAW_END      4736 /* u32: not 0: no octet, the converter is done */
#define SM90_RAW_BYTES    4864
#define SM90_WIDE_SLOTS   5 /* multiples of SM90_CONVERTERS */
#define SM90_NARROW_SLOTS 10

/* Byte offsets in shared memory. */
#define SM90_AT_KEYS       0
#define SM90_AT_PROBS      (2 * SM90_STAGE_BYTES)             /* bf16 [heads][64 tokens] */
#define SM90_AT_QUERIES    (SM90_AT_PROBS + SM90_PANEL_BYTES) /* wide: bf16 [8 panels][64 heads][64] */
#define SM90_AT_WIDE_RAW   (SM90_AT_QUERIES + SM90_STAGE_BYTES)
#define SM90_AT_SCORES     SM90_AT_QUERIES /* narrow: f32 [4][32 heads][SM90_SCORE_STRIDE] */
#define SM90_AT_NARROW_RAW (SM90_AT_SCORES + 4 * SM90_NARROW_HEADS * SM90_SCORE_STRIDE * 4)
#define SM90_AT_CONTROL    (SM90_AT_WIDE_RAW + SM90_WIDE_SLOTS * SM90_RAW_BYTES)
#define SM90_SHARED_BYTES  (SM90_AT_CONTROL + 3072)

/* The block's unit: which heads, and its worker's tiles. The grid has a block for every unit (mlar_attend_grid), so a
 * block has at most one. */
typedef struct sm90_share {
    int32_t head_begin, head_end;
    mlar_span span;
} sm90_share;

typedef struct sm90_control {
    uint64_t raw_full
        [SM90_NARROW_SLOTS]; /* 33 arrivals: a copier's lanes as their bytes land, and one for the rest */
    uint64_t raw_empty[SM90_NARROW_SLOTS]; /* 1: the converter */
    uint64_t full[2];                      /* 8: a tile's octets */
    uint64_t empty[2][2];                  /* 8: the consuming warps; [stage][half of the tokens] */
    uint64_t probs[2];                     /* 4: the warps that make the probabilities (wide) */
    uint64_t begun;                        /* 3: the copiers have asked for their first keys */
    uint8_t counts[2][8];                  /* [stage][octet], bit t: its token t counts */
    float alpha[2][SM90_WIDE_HEADS];       /* by which the tile's maximum shrinks what was summed before */
    float factor[SM90_WIDE_HEADS];         /* what the sum is multiplied by in the end */
    sm90_share share;
    mlar_layer_params layer;
    uint64_t from[SM90_COPIERS]
                 [MLAR_KEY_TILE]; /* a copier's tokens: where their records are; 0: does not count */
} sm90_control;

/* What a role carries along. */
typedef struct sm90_block {
    const mlar_stage_args *args;
    const mlar_layer_params *layer; /* control->layer */
    sm90_control *control;
    uint32_t base; /* address of shared memory */
    uint32_t raw;  /* address of the first raw slot */
    int32_t slots; /* of the ring */
} sm90_block;

/* Address of a member of the control struct. */
#define SM90_CONTROL(b, member)                                                                              \
    ((b)->base + SM90_AT_CONTROL + (uint32_t) __builtin_offsetof(sm90_control, member))

MLAR_DEVICE uint32_t sm90_full(const sm90_block *b, int32_t n) {
    return SM90_CONTROL(b, full) + 8 * (uint32_t)(n & 1);
}
MLAR_DEVICE uint32_t sm90_probs(const sm90_block *b, int32_t n) {
    return SM90_CONTROL(b, probs) + 8 * (uint32_t)(n & 1);
}
MLAR_DEVICE uint32_t sm90_empty(const sm90_block *b, int32_t n, int32_t half) {
    return SM90_CONTROL(b, empty) + 16 * (uint32_t)(n & 1) + 8 * (uint32_t)half;
}
/* Parity of the phase that tile n completes. */
MLAR_DEVICE uint32_t sm90_parity(int32_t n) {
    return (uint32_t)(n >> 1) & 1;
}

/* This warp has read its last of one half of tile n's tokens. */
MLAR_DEVICE void sm90_release(const sm90_block *b, int32_t n, int32_t half) {
    if (mlar_lane() == 0) sm90_barrier_arrive(sm90_empty(b, n, half));
}

/* ---- parts ---- */

MLAR_DEVICE sm90_share sm90_share_of(const mlar_stage_args *args) {
    const int32_t live = args->shape.splits ? mlar_live_rows(args) : 0;
    sm90_share share = {0, 0, {0, 0, -1, 0, 0}}; /* nothing to do */
    if (mlar_block() < mlar_attend_units(args, live)) {
        const mlar_unit unit = mlar_unit_of(args, mlar_block());
        share.head_begin = unit.head_begin;
        share.head_end = unit.head_end;
        share.span = mlar_worker_span(args, mlar_layer_of(args), unit.worker);
    }
    return share;
}

/* A part as the consuming warps need it: whose row, how many tiles, and where the result goes. */
typedef struct sm90_part {
    int32_t row;
    int32_t tiles; /* 0: there is no further part */
    int32_t slot;  /* of the workspace; -1: the row ends here */
} sm90_part;

/* Part number `index` of the share: each is of another row, the first of the share's own. */
MLAR_DEVICE sm90_part sm90_part_of(const sm90_block *b, int32_t index) {
    mlar_span span = b->control->share.span;
    sm90_part result = {0, 0, -1};
    mlar_part part;
    span.row += index;
    if (index) span.tile = 0;
    if (mlar_next_part(b->args, b->layer, &span, &part)) {
        result.row = part.row;
        result.tiles = part.tile_end - part.tile_begin;
        result.slot = part.slot;
    }
    return result;
}

#endif
