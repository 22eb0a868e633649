/* SPDX-License-Identifier: Apache-2.0
 *
 * sm90_work.h: what the warps of the tuned NVIDIA engine share: the block's shared memory, the barriers by which the
 * roles hand data to one another, and the walk over the block's parts that every role makes for itself.
 *
 * A block has 16 warps in four warpgroups: eight attend, eight fetch. It holds two key tiles of 64 tokens; tile number
 * n of the block (counted over all its parts) stands in stage n % 2. An octet is eight tokens of a tile. A tile's life:
 *
 *     fetchers    wait empty[stage][half], write bf16 keys and which count, an octet each, arrive full[stage]
 *     consumers   wait full[stage], scores, softmax, arrive probs[stage] (wide only), P V, arrive empty[stage][half]
 *
 * Each role meets the same tiles in the same order, so that numbers alone say which phase of a barrier is meant. A
 * barrier tells only odd phases from even ones: whoever waits for one must have seen the phase before. Every thread
 * arrives for itself: one lane in the name of its warp is no faster, and leaves racecheck blind to the other 31. This
 * file knows no number format and no matrix instruction. */
#ifndef MLAR_KERNELS_GPU_SM90_WORK_H
#define MLAR_KERNELS_GPU_SM90_WORK_H

#include "kernels/gpu/attend_common.h"
#include "kernels/gpu/sm90_ptx.h"

#define SM90_THREADS           512
#define SM90_GROUP             128 /* threads of a warpgroup */
#define SM90_CONSUMERS         256
#define SM90_FETCHERS          256
#define SM90_D_V               512
#define SM90_PANEL_BYTES       8192 /* 64 rows of 64 columns (sm90_ptx.h) */
#define SM90_WIDE_HEADS        64
#define SM90_NARROW_HEADS      32
#define SM90_BARRIER_CONSUMERS 1 /* sm90_group_sync's */
#define SM90_BARRIER_LEFT      2
#define SM90_SCORE_STRIDE      72 /* floats between two heads' partial scores: 8 rows touch all banks once */

/* Byte offsets in shared memory: control, key tiles, and what the consumers add. */
#define SM90_AT_CONTROL      0
#define SM90_AT_KEYS         4096
#define SM90_AT_QUERIES      (SM90_AT_KEYS + 18 * SM90_PANEL_BYTES) /* wide: bf16 [panels][64 heads][64] */
#define SM90_AT_SCORES       SM90_AT_QUERIES /* narrow: f32 [4][32 heads][SM90_SCORE_STRIDE] */
#define SM90_AT_NARROW_PROBS (SM90_AT_SCORES + 4 * SM90_NARROW_HEADS * SM90_SCORE_STRIDE * 4)
#define SM90_AT_NINTH        (SM90_AT_NARROW_PROBS + SM90_PANEL_BYTES) /* narrow: sm90_narrow.h */

/* What differs between caches in how tiles lie in shared memory. A key tile is `panels` panels of 64 tokens; so are the
 * queries, of 64 heads. V is a tile's first eight panels. The wide consumers' probabilities of tile n, bf16
 * [heads][64 tokens], are a panel at `probs` + n % 2 * `probs_stride`. */
struct sm90_dsv4 { /* nope 448 + rope 64 */
    static constexpr int32_t panels = 8;
    static constexpr uint32_t stage_bytes = 8 * SM90_PANEL_BYTES;
    static constexpr bool probs_in_keys = false;
    static constexpr uint32_t probs = SM90_AT_KEYS + 2 * stage_bytes, probs_stride = SM90_PANEL_BYTES;
    static constexpr uint32_t shared_bytes = SM90_AT_QUERIES + stage_bytes;
};
/* nope 512 + rope 64. V has no rope: once the scores of a tile are made, nobody reads the rope of its keys any more,
 * and its probabilities take the place. */
struct sm90_v32 {
    static constexpr int32_t panels = 9;
    static constexpr uint32_t stage_bytes = 9 * SM90_PANEL_BYTES;
    static constexpr bool probs_in_keys = true;
    static constexpr uint32_t probs = SM90_AT_KEYS + 8 * SM90_PANEL_BYTES, probs_stride = stage_bytes;
    static constexpr uint32_t scales = SM90_AT_QUERIES + stage_bytes; /* sm90_formats.h */
    static constexpr uint32_t shared_bytes = scales + 8 * 2 * 8 * 16;
};

/* The block's unit: which heads, and its worker's tiles. The grid has a block for every unit (mlar_attend_grid), so a
 * block has at most one. */
typedef struct sm90_share {
    int32_t head_begin, head_end;
    mlar_span span;
} sm90_share;

/* A part as the consuming warps need it: whose row, how many tiles, and where the result goes. */
typedef struct sm90_part {
    int32_t row;
    int32_t tiles; /* 0: there is no further part */
    int32_t slot;  /* of the workspace; -1: the row ends here */
} sm90_part;

/* Where a fetching warp stands in the block's tiles. A run is what a part has of one scope's list. */
typedef struct sm90_tiles {
    const int32_t *entries; /* of the run's next tile */
    int32_t count;          /* entries from there to the list's end */
    int32_t left;           /* tiles of the run */
    int32_t scope;          /* of the run, and so of the tile last begun; -1: none was left (sm90_fetch.h) */
    int32_t row, tile;      /* the tile after the run; the share says which is the last */
    int32_t first;          /* place of the run's first entry in the list */
} sm90_tiles;

/* A token of an octet. */
typedef struct sm90_token {
    uint64_t record; /* where it is; of no meaning if the token does not count */
    uint8_t scales[8];
} sm90_token;
#define SM90_OCTET_BYTES 128 /* eight of them */

typedef struct sm90_control {
    sm90_token
        tokens[8][2]
              [8]; /* [fetching warp][tile % 2]; at the struct's begin, so that addresses differ in bits */
    sm90_tiles tiles[8];             /* [fetching warp] */
    int32_t slots[8][8];             /* [fetching warp]: what the index list says of the tile last begun */
    uint64_t full[2];                /* arrivals: the fetchers' */
    uint64_t empty[2][2];            /* the consumers'; [stage][half of the tokens] */
    uint64_t arrived[8][2];          /* [fetching warp][stage]: 32 (sm90_plain.h) */
    uint64_t probs[2];               /* of the warpgroup that makes the probabilities (wide) */
    uint64_t ended;                  /* of a part: all consumers' (wide) */
    uint8_t counts[2][8];            /* [stage][octet], bit t: its token t counts */
    float alpha[2][SM90_WIDE_HEADS]; /* by which the tile's maximum shrinks what was summed before */
    float factor[SM90_WIDE_HEADS];   /* what the sum is multiplied by in the end */
    sm90_part part[2];               /* [number % 2]: this one and the next */
    uint32_t query_factor;           /* by which queries are multiplied first: a bf16, in both halves */
    float scale2;                    /* by which scores are, to become powers of two */
    sm90_share share;
    mlar_layer_params layer;
    int32_t row_parts; /* of the row, where a cluster merges them: sm90_merge.h */
    int32_t length[2]; /* of that row's lists, as prepare saw them; elsewhere the first is -1 */
} sm90_control;
static_assert(sizeof(sm90_control) <= SM90_AT_KEYS - SM90_AT_CONTROL, "the control block has its place");
static_assert(sizeof(sm90_token) * 8 == SM90_OCTET_BYTES, "an octet's tokens");

/* What a role carries along. */
typedef struct sm90_block {
    const mlar_stage_args *args;
    const mlar_layer_params *layer; /* control->layer */
    sm90_control *control;
    uint32_t base; /* address of shared memory */
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

/* Where tile n's keys are. */
template <class cache> MLAR_DEVICE uint32_t sm90_keys(const sm90_block *b, int32_t n) {
    return b->base + SM90_AT_KEYS + (uint32_t)(n & 1) * cache::stage_bytes;
}

/* May one half of tile n's stage be written? Where probabilities are among keys, tokens are columns, not rows: then
 * nothing may be written before all has been read. */
template <class cache> MLAR_DEVICE uint32_t sm90_emptied(const sm90_block *b, int32_t n, int32_t half) {
    return sm90_empty(b, n, cache::probs_in_keys ? 1 : half);
}
template <class cache> MLAR_DEVICE int32_t sm90_is_empty(const sm90_block *b, int32_t n, int32_t half) {
    return sm90_barrier_passed(sm90_emptied<cache>(b, n, half), sm90_parity(n) ^ 1);
}
template <class cache> MLAR_DEVICE void sm90_wait_empty(const sm90_block *b, int32_t n, int32_t half) {
    sm90_barrier_wait(sm90_emptied<cache>(b, n, half), sm90_parity(n) ^ 1);
}

/* This thread has read its last of one half of tile n's tokens, half 0 first: if anyone waits for that. */
template <class cache> MLAR_DEVICE void sm90_release(const sm90_block *b, int32_t n, int32_t half) {
    if (half == 1 || !cache::probs_in_keys) sm90_barrier_arrive(sm90_empty(b, n, half));
}

/* An address, a multiple of 16, from where the bytes of any record can be read, if the block has a tile: that of its
 * queries. */
MLAR_DEVICE uint64_t sm90_readable(const sm90_block *b) {
    return (uint64_t)(b->layer->q + b->control->share.span.row * b->layer->q_row_stride);
}

/* ---- parts ---- */

/* The block's share, by one warp. Policy balanced: a launch can do nothing before it has read the schedule, each step
 * of which is a long way off; so all that may be wanted is read at once. A lane looks where the unit lies if there
 * is one head group for it and one for each lane before it, and the lane that turns out to be right goes on. */
MLAR_DEVICE void sm90_share_of(const mlar_stage_args *args, sm90_share *to) {
    sm90_share share = {0, 0, {0, 0, -1, 0, 0}}; /* nothing to do */
    if (args->shape.splits == 0) {
        const int32_t groups = mlar_lane() + 1, worker = mlar_block() / groups;
        const mlar_u32x4 words = sm90_load16((uint64_t)mlar_schedule_head_of(args, args->row_begin));
        const mlar_schedule_head head = {(int32_t)words.x, (int32_t)words.y, (int32_t)words.z,
                                         (int32_t)words.w};
        const mlar_schedule_cut *cut =
            mlar_schedule_cuts_of(args, args->row_begin) + mlar_min_i32(worker, args->shape.workers - 1);
        const mlar_schedule_cut from = cut[0], end = cut[1];
        if ((groups - 1) * head.heads_per_group >= args->shape.heads ||
            groups * head.heads_per_group < args->shape.heads)
            return;
        if (worker < head.workers) {
            share.head_begin = (mlar_block() - worker * groups) * head.heads_per_group;
            share.head_end = mlar_min_i32(share.head_begin + head.heads_per_group, args->shape.heads);
            share.span = mlar_span_between(args, &head, from, end);
        }
    } else if (mlar_lane()) {
        return;
    } else if (mlar_block() < mlar_attend_units(args, mlar_live_rows(args))) {
        const mlar_unit unit = mlar_unit_of(args, mlar_block());
        share.head_begin = unit.head_begin;
        share.head_end = unit.head_end;
        share.span = mlar_worker_span(args, mlar_layer_of(args), unit.worker);
    }
    *to = share;
}

/* The lists of a row of the share. All roles ask here and nowhere else: a block whose roles count different tiles never
 * ends. So dense lists have the lengths that prepare saw, by policy balanced, whatever has become of them since. */
MLAR_DEVICE mlar_row_lists sm90_lists_of(const sm90_block *b, int32_t row) {
    if (b->args->shape.splits || !mlar_lists_are_dense(b->layer)) return mlar_row_lists_of(b->layer, row);
    return mlar_row_lists_known(
        b->layer, row, b->control->length[0] >= 0 ? b->control->length : b->args->schedule_rows[row].length);
}

/* Part number `index` of the share: each is of another row, the first of the share's own. By one consuming thread,
 * while the part before is under way: it takes a few dependent loads, and registers that no other thread has.
 * `merged`: in a cluster, whose blocks have a part each. */
template <bool merged = false> MLAR_DEVICE void sm90_find_part(const sm90_block *b, int32_t index) {
    const int32_t is_first = index == 0;
    mlar_span span = b->control->share.span;
    sm90_part found = {0, 0, -1};
    span.row += index;
    if (!is_first) span.tile = 0;
    if ((is_first || !merged) && mlar_span_has_tiles(&span)) {
        const mlar_part part = mlar_part_of(b->args, &span, sm90_lists_of(b, span.row));
        found.row = part.row;
        found.tiles = part.tile_end - part.tile_begin;
        if (!merged) { /* else the row's parts are merged here, or it ends here */
            found.slot = part.slot;
            /* the first part's slot, if it begins inside its row, counts from the row's first: mlar_span_between() */
            if (is_first && part.tile_begin > 0 && b->args->shape.splits == 0)
                found.slot += b->args->schedule_rows[part.row].first_slot;
        }
    }
    b->control->part[index & 1] = found;
}

/* ---- runs ---- */

/* The next run; left stays 0 if there is none. */
MLAR_DEVICE void sm90_next_run(const sm90_block *b, sm90_tiles *t) {
    mlar_span span = b->control->share.span;
    span.row = t->row, span.tile = t->tile;
    if (mlar_span_has_tiles(&span)) {
        const mlar_row_lists lists = sm90_lists_of(b, t->row);
        const int32_t end = mlar_span_end_in(&span, t->row, t->tile, &lists);
        const mlar_tile at = mlar_tile_of(&lists, t->tile);
        const int32_t length = at.scope ? lists.length[1] : lists.length[0];
        /* a run ends where its scope's list does; a tile behind that is one without entries, as an empty row's is */
        const int32_t run = mlar_max_i32(1, mlar_ceil_div(length - at.first, MLAR_KEY_TILE));
        t->left = mlar_min_i32(run, end - t->tile);
        t->scope = at.scope;
        t->entries = (at.scope ? lists.entries[1] : lists.entries[0]) + at.first;
        t->count = length - at.first;
        t->first = at.first;
        t->tile += t->left;
        if (t->tile >= end) t->row += 1, t->tile = 0;
    }
}

#endif
