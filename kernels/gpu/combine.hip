/* SPDX-License-Identifier: Apache-2.0
 *
 * combine.hip: merges the parts of split rows, in the order of their tiles, applies the sink, writes out and
 * lse.
 *
 * A wave for each row, head and stretch of columns, of which a lane has a few neighbours. A wave has little to do and
 * waits for memory most of the time, also for its instructions, which nobody has fetched before: so there are many
 * waves, all that registers allow; the code is short; the sums are asked for before it is known what they weigh; and
 * what attention does not write is read before its end. Rows of one part are finished already. */
#include "kernels/gpu/attend_sizes.h"
#include "kernels/gpu/merge.h"

#define THREADS   MLAR_BLOCK_THREADS
#define WAVES     (THREADS / MLAR_WAVE)
#define IN_FLIGHT 6 /* parts whose loads are under way together */

/* Sums over the row's parts: m and l; out of the lane's columns from `column` on, if it has any (`mine`). */
template <int columns>
MLAR_DEVICE mlar_merged merge(const mlar_stage_args *args, mlar_row_parts row, int32_t head, int32_t column,
                              int32_t mine) {
    const int32_t out_stride = args->shape.heads * args->shape.d_v, ml_stride = 2 * args->shape.heads;
    const int64_t first = (int64_t)row.first_slot * args->shape.heads + head;
    const float *const out = args->partial_out + first * args->shape.d_v + column;
    const float *const ml = args->partial_ml + 2 * first;
    const int32_t lane = mlar_lane(), parts = row.parts;
    mlar_merged sums = {{0.0f, 0.0f, 0.0f, 0.0f}, -MLAR_INF, 0.0f};
    float pair[2], part[IN_FLIGHT][columns]; /* a lane's (m, l); the columns */
    mlar_load_fresh(pair, ml + lane * ml_stride, lane < parts);
    MLAR_UNROLL for (int32_t p = 0; p < IN_FLIGHT; ++p)
        mlar_load_fresh(part[p], out + p * out_stride, mine && p < parts);
    sums.m = lane < parts ? pair[0] : -MLAR_INF;
    MLAR_NO_UNROLL for (int32_t p = lane + MLAR_WAVE; p < parts; p += MLAR_WAVE) {
        float more[2];
        mlar_load_fresh(more, ml + p * ml_stride, 1);
        sums.m = mlar_max(sums.m, more[0]);
    }
    sums.m = mlar_lanes_max(sums.m, MLAR_WAVE);
    MLAR_NO_UNROLL for (int32_t base = 0;;) {
        const mlar_weights weights = mlar_merge_weights(&sums, pair);
        MLAR_UNROLL for (int32_t p = 0; p < IN_FLIGHT; ++p) if (base + p < parts)
            mlar_merge_add(&sums, mlar_merge_weigh(&sums, weights, p), part[p]);
        base += IN_FLIGHT;
        if (base >= parts) return sums;
        mlar_load_fresh(pair, ml + (base + lane) * ml_stride, lane < IN_FLIGHT && base + lane < parts);
        MLAR_UNROLL for (int32_t p = 0; p < IN_FLIGHT; ++p)
            mlar_load_fresh(part[p], out + (base + p) * out_stride, mine && base + p < parts);
    }
}

/* One wave's stretch of a row and head: merged, finished, written. */
template <int columns>
MLAR_DEVICE void finish_stretch(const mlar_stage_args *args, const mlar_layer_params *layer, int32_t row,
                                mlar_row_parts parts, int32_t head, int32_t stretch) {
    const int32_t column = (stretch * MLAR_WAVE + mlar_lane()) * columns, mine = column < args->shape.d_v;
    const mlar_merged sums = merge<columns>(args, parts, head, column, mine);
    mlar_merge_store<columns>(layer, row, head, column, mine, &sums,
                              mlar_row_factor(layer, head, sums.m, sums.l));
}

MLAR_KERNEL MLAR_BLOCKS(THREADS,
                        MLAR_COMBINE_BLOCKS) void mlar_combine(MLAR_BY_VALUE(mlar_stage_args) by_value) {
    MLAR_SHARED static mlar_layer_params layer;
    const mlar_stage_args *args = MLAR_ARGS(mlar_stage_args, by_value);
    const int32_t rows =
        mlar_uniform(mlar_live_rows_within(mlar_live_rows(args), args->row_begin, args->row_count));
    /* policy balanced: if no row was split, there is nothing to do but to have been launched */
    const int32_t slots = args->shape.splits ? 1 : mlar_schedule_head_of(args, args->row_begin)->slots;
    const int32_t heads = args->shape.heads, d_v = args->shape.d_v;
    const int32_t columns = d_v % 4 ? 2 : 4; /* 16 bytes a lane where heads begin at multiples of that */
    const int32_t stretches = mlar_ceil_div(d_v, columns * MLAR_WAVE);
    const int32_t items = slots ? rows * heads * stretches : 0;
    mlar_row_parts parts = {0, 1};
    mlar_layer_to_lds(args, &layer, THREADS);
    /* One item behind: an item's parts are looked up before the item ahead of it is merged, the first one's before
     * attention's end (what is read until then, attention's own predecessors wrote). */
    for (int32_t item = -1, next = mlar_block() * WAVES + mlar_wave();;) {
        mlar_row_parts next_parts = {0, 1};
        if (next < items)
            next_parts = mlar_row_parts_of(args, &layer, args->row_begin + next / stretches / heads);
        if (item < 0) {
            mlar_wait_for_last();
        } else if (mlar_uniform(parts.parts) > 1) {
            const int32_t row_head = item / stretches, stretch = item % stretches;
            const int32_t row = args->row_begin + row_head / heads, head = row_head % heads;
            if (columns == 4)
                finish_stretch<4>(args, &layer, row, parts, head, stretch);
            else
                finish_stretch<2>(args, &layer, row, parts, head, stretch);
        }
        if (next >= items) return;
        item = next;
        parts = next_parts;
        next += mlar_blocks(THREADS) * WAVES;
    }
}
