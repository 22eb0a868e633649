/* SPDX-License-Identifier: Apache-2.0
 *
 * combine.hip: merges the parts of split rows, in the order of their tiles, applies the sink, writes out and
 * lse.
 *
 * A wave for each row, head and stretch of columns. A wave has little to do and waits for memory most of the time, also
 * for its instructions, which nobody has fetched before: so there are many waves, and the code is short. Rows of one
 * part are finished already. */
#include "kernels/gpu/attend_common.h"

#define THREADS   256
#define WAVES     (THREADS / MLAR_WAVE)
#define PAIRS     2                       /* of columns, that a lane holds */
#define STRETCH   (2 * PAIRS * MLAR_WAVE) /* columns of a wave */
#define IN_FLIGHT 4                       /* parts whose loads are under way together */

typedef struct head_sums {
    mlar_f32x2 out[PAIRS];
    float m, l;
} head_sums;

/* The first of the two columns of a pair of this lane. */
MLAR_DEVICE int32_t column_of(int32_t stretch, int32_t pair) {
    return stretch * STRETCH + 2 * (pair * MLAR_WAVE + mlar_lane());
}

/* Sums over `parts` workspace slots from `slot` on, for a lane's columns. */
MLAR_DEVICE head_sums merge(const mlar_stage_args *args, int32_t slot, int32_t parts, int32_t head,
                            int32_t stretch) {
    const int64_t first = (int64_t)slot * args->shape.heads + head;
    const float *out = args->partial_out + first * args->shape.d_v, *ml = args->partial_ml + 2 * first;
    const int64_t out_stride = (int64_t)args->shape.heads * args->shape.d_v,
                  ml_stride = 2 * (int64_t)args->shape.heads;
    const int32_t lane = mlar_lane();
    head_sums sums;
    sums.m = -MLAR_INF;
    sums.l = 0.0f;
    MLAR_UNROLL for (int32_t i = 0; i < PAIRS; ++i) sums.out[i].x = sums.out[i].y = 0.0f;
    MLAR_NO_UNROLL for (int32_t p = lane; p < parts; p += MLAR_WAVE) sums.m =
        mlar_max(sums.m, mlar_load_f32(ml + p * ml_stride));
    sums.m = mlar_lanes_max(sums.m, MLAR_WAVE);
    MLAR_NO_UNROLL for (int32_t base = 0; base < parts; base += IN_FLIGHT) {
        mlar_f32x2 part_out[IN_FLIGHT][PAIRS], part_ml[IN_FLIGHT];
        MLAR_UNROLL for (int32_t p = 0; p < IN_FLIGHT; ++p) {
            const int32_t part = mlar_min_i32(base + p, parts - 1); /* beyond the last: loaded, not added */
            part_ml[p] = mlar_load_f32x2(ml + part * ml_stride);
            MLAR_UNROLL for (int32_t i = 0; i < PAIRS; ++i) if (column_of(stretch, i) < args->shape.d_v)
                part_out[p][i] = mlar_load_f32x2(out + part * out_stride + column_of(stretch, i));
        }
        MLAR_UNROLL for (int32_t p = 0; p < IN_FLIGHT; ++p) if (base + p < parts) {
            const float moved = mlar_softmax_moved(part_ml[p].x, sums.m);
            sums.l += moved * part_ml[p].y;
            MLAR_UNROLL for (int32_t i = 0; i < PAIRS; ++i) {
                sums.out[i].x += moved * part_out[p][i].x;
                sums.out[i].y += moved * part_out[p][i].y;
            }
        }
    }
    return sums;
}

MLAR_DEVICE void finish(const mlar_stage_args *args, const mlar_layer_params *layer, int32_t row,
                        int32_t head, int32_t stretch, const head_sums *sums) {
    const float factor = mlar_row_factor(layer, head, sums->m, sums->l);
    const int64_t at = row * layer->out_row_stride + head * layer->out_head_stride;
    MLAR_UNROLL for (int32_t i = 0; i < PAIRS; ++i) {
        const int32_t column = column_of(stretch, i);
        if (column < args->shape.d_v)
            mlar_out_store(layer, at + column, mlar_out_of(sums->out[i].x, factor),
                           mlar_out_of(sums->out[i].y, factor));
    }
    if (stretch == 0 && mlar_lane() == 0) mlar_lse_store(layer, row, head, mlar_lse_of(sums->m, sums->l));
}

MLAR_KERNEL MLAR_BLOCK(THREADS) void mlar_combine(MLAR_BY_VALUE(mlar_stage_args) by_value) {
    MLAR_SHARED static mlar_layer_params layer;
    const mlar_stage_args *args = MLAR_ARGS(mlar_stage_args, by_value);
    const int32_t rows =
        mlar_uniform(mlar_live_rows_within(mlar_live_rows(args), args->row_begin, args->row_count));
    /* policy balanced: if no row was split, there is nothing to do but to have been launched */
    const int32_t slots = args->shape.splits ? 1 : mlar_schedule_head_of(args, args->row_begin)->slots;
    const int32_t heads = args->shape.heads, stretches = mlar_ceil_div(args->shape.d_v, STRETCH);
    const int32_t items = slots ? rows * heads * stretches : 0;
    mlar_layer_to_lds(args, &layer, THREADS);
    mlar_wait_for_last(); /* what was read before, attend's own predecessors wrote */
    for (int32_t item = mlar_block() * WAVES + mlar_wave(); item < items;
         item += mlar_blocks(THREADS) * WAVES) {
        const int32_t stretch = item % stretches, row_head = item / stretches;
        const int32_t row = args->row_begin + row_head / heads, head = row_head % heads;
        const mlar_row_parts parts = mlar_row_parts_of(args, &layer, row);
        if (mlar_uniform(parts.parts) == 1) continue;
        const head_sums sums =
            merge(args, mlar_uniform(parts.first_slot), mlar_uniform(parts.parts), head, stretch);
        finish(args, &layer, row, head, stretch, &sums);
    }
}
