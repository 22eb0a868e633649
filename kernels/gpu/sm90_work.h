/* SPDX-License-Identifier: Apache-2.0
 *
 * sm90_work.h: what the warps of the tuned NVIDIA engine share: the block's shared memory, the barriers by which the
 * roles hand tiles to one another, and the walk over the block's parts that every role makes for itself.
 *
 * A block has 16 warps in four warpgroups: two consume, two fetch. It holds two key tiles; tile number n of the block
 * (counted over all its parts) stands in stage n % 2. Its life:
 *
 *     fetchers    wait empty[stage][half], write bf16 keys and the mask, arrive full[stage]
 *     consumers   wait full[stage], scores, softmax, arrive probs[stage] (wide only), P V, arrive empty[stage][half]
 *
 * Each role meets the same tiles in the same order, so that n alone says which phase of a barrier is meant. This file
 * knows no number format and no matrix instruction. */
#ifndef MLAR_KERNELS_GPU_SM90_WORK_H
#define MLAR_KERNELS_GPU_SM90_WORK_H

#include "kernels/gpu/sm90_ptx.h"
#include "kernels/schedule.h"

#define SM90_THREADS      512
#define SM90_GROUP        128 /* threads of a warpgroup */
#define SM90_CONSUMERS    256
#define SM90_D            512 /* d_qk = d_v: nope 448, rope 64 */
#define SM90_PANEL        64  /* columns of a panel (sm90_ptx.h) */
#define SM90_PANEL_BYTES  8192  /* 64 rows */
#define SM90_STAGE_BYTES  65536 /* a key tile: 8 panels of 64 tokens */
#define SM90_WIDE_HEADS   64
#define SM90_NARROW_HEADS 32
#define SM90_SCORE_STRIDE 72 /* floats between two heads' partial scores: 8 rows touch all banks once */

/* Byte offsets in shared memory. */
#define SM90_AT_KEYS    0
#define SM90_AT_QUERIES (2 * SM90_STAGE_BYTES) /* wide: bf16 [8 panels][64 heads][64] */
#define SM90_AT_SCORES  SM90_AT_QUERIES        /* narrow: f32 [8 warps][32 heads][SM90_SCORE_STRIDE] */
#define SM90_AT_PROBS   (SM90_AT_SCORES + 8 * SM90_NARROW_HEADS * SM90_SCORE_STRIDE * 4) /* bf16 [2][64 heads][64] */
#define SM90_AT_CONTROL (SM90_AT_PROBS + 2 * SM90_PANEL_BYTES)
#define SM90_SHARED_BYTES (SM90_AT_CONTROL + 6144)

/* The block's unit: which heads, and its worker's tiles. The grid has a block for every unit (mlar_attend_grid), so a
 * block has at most one. */
typedef struct sm90_share {
    int32_t head_begin, head_end;
    mlar_span span;
} sm90_share;

/* Where a fetching warp stands in the block's tiles (sm90_fetch.h). A run is what a part has of one scope's list. */
typedef struct sm90_tiles {
    const int32_t *entries; /* of the run's next tile */
    int32_t count;          /* entries from there to the list's end */
    int32_t left;           /* tiles of the run */
    int32_t scope;          /* of the run, and so of the tile last begun; -1: none was left */
    int32_t scope_before;   /* of the tile begun before that */
    int32_t row, tile;      /* the tile after the run; the share says which is the last */
} sm90_tiles;

typedef struct sm90_control {
    uint64_t full[2];      /* 8 arrivals: the fetching warps */
    uint64_t empty[2][2];  /* 8 arrivals: the consuming warps; [stage][half of the tokens] */
    uint64_t probs[2];     /* 4 arrivals: the warps that make the probabilities (wide) */
    uint8_t counts[2][8];  /* bit t % 8 of byte t / 8: token t of the stage's tile counts */
    float alpha[2][SM90_WIDE_HEADS]; /* by which the tile's maximum shrinks what was summed before */
    float factor[SM90_WIDE_HEADS];   /* what the sum is multiplied by in the end */
    sm90_share share;
    mlar_layer_params layer;
    /* What the fetching threads cannot keep in registers beside the raw bytes. In shared memory and not left to the
     * compiler: a spilled register is read back behind every load that is under way. */
    sm90_tiles tiles[8];
    uint64_t record[2][SM90_THREADS - SM90_CONSUMERS]; /* [tile % 2]: sm90_fetch.h says what of the lane's token */
} sm90_control;

/* What a role carries along. */
typedef struct sm90_block {
    const mlar_stage_args *args;
    const mlar_layer_params *layer; /* control->layer */
    sm90_control *control;
    uint32_t base; /* address of shared memory */
} sm90_block;

MLAR_DEVICE uint32_t sm90_full(const sm90_block *b, int32_t n) { return sm90_address(&b->control->full[n & 1]); }
MLAR_DEVICE uint32_t sm90_probs(const sm90_block *b, int32_t n) { return sm90_address(&b->control->probs[n & 1]); }
MLAR_DEVICE uint32_t sm90_empty(const sm90_block *b, int32_t n, int32_t half) {
    return sm90_address(&b->control->empty[n & 1][half]);
}
/* Parity of the phase that tile n completes. */
MLAR_DEVICE uint32_t sm90_parity(int32_t n) { return (uint32_t)(n >> 1) & 1; }

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
