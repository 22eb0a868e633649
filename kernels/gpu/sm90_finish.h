/* SPDX-License-Identifier: Apache-2.0
 *
 * sm90_finish.h: the end of a part in the tuned NVIDIA engine: a head's maximum and sum become its factor and lse (or
 * the pair that combine reads), and the accumulators go to `out` or to the workspace, by the rules of attend_common.h.
 * Both consuming roles hold their accumulators alike (sm90_ptx.h: a warp has 16 heads, block by block of 8 columns). */
#ifndef MLAR_KERNELS_GPU_SM90_FINISH_H
#define MLAR_KERNELS_GPU_SM90_FINISH_H

#include "kernels/gpu/sm90_work.h"

/* A head's end: max2 is the maximum in the domain of base 2, sum is of 2^(s - max2). Writes lse, or (m, l) for
 * combine; returns what the accumulators are to be multiplied by. */
MLAR_DEVICE float sm90_finish_head(const sm90_block *b, const sm90_part *part, int32_t head, float max2,
                                   float sum) {
    return mlar_part_finish(b->args, b->layer, part->row, part->slot, head, max2 * MLAR_LN2, sum);
}

/* The warp's accumulators: heads head_begin + first + 0 .. 15 as far as they exist, columns column .. column +
 * 8 blocks - 1. */
template <int blocks>
MLAR_DEVICE void sm90_finish_store(const sm90_block *b, const sm90_part *part, const float *d, int32_t first,
                                   int32_t head_begin, int32_t head_end, int32_t column) {
    const int32_t lane = (int32_t)sm90_keep((uint32_t)mlar_lane()), odd = lane & 1;
    const int32_t is_f32 = part->slot >= 0 || b->layer->out_f32;
    float *const out32 = part->slot >= 0 ? b->args->partial_out : (float *)b->layer->out;
    uint16_t *const out16 = (uint16_t *)b->layer->out;
    const int64_t head_stride = part->slot >= 0 ? SM90_D_V : b->layer->out_head_stride;
    const int64_t begin = part->slot >= 0 ? (int64_t)part->slot * b->args->shape.heads * SM90_D_V
                                          : part->row * b->layer->out_row_stride;
    int64_t at = begin + (head_begin + first + lane / 4) * head_stride + column; /* elements */
    MLAR_UNROLL for (int32_t r = 0; r < 2; ++r, at += 8 * head_stride) {
        const int32_t local = first + lane / 4 + 8 * r, head = head_begin + local;
        const float factor = sm90_read_f32(SM90_CONTROL(b, factor) + 4 * (uint32_t)local);
        if (is_f32) {
            if (head >= head_end) continue;
            MLAR_UNROLL for (int32_t k = 0; k < blocks; ++k)
                mlar_store_f32x2(out32 + at + 8 * k + 2 * (lane & 3), mlar_out_of(d[4 * k + 2 * r], factor),
                                 mlar_out_of(d[4 * k + 2 * r + 1], factor));
        } else {
            /* Of two blocks a lane has 4 bytes each. Neighbours swap, so that the even lanes have 8 bytes of the
             * first block and the odd ones of the second: four lanes write 32 bytes in a row. */
            MLAR_UNROLL for (int32_t k = 0; k < blocks; k += 2) {
                const uint32_t mine0 = mlar_bf16x2(mlar_out_of(d[4 * k + 2 * r], factor),
                                                   mlar_out_of(d[4 * k + 2 * r + 1], factor));
                const uint32_t mine1 = mlar_bf16x2(mlar_out_of(d[4 * k + 4 + 2 * r], factor),
                                                   mlar_out_of(d[4 * k + 5 + 2 * r], factor));
                const uint32_t theirs = mlar_lane_get_u32(odd ? mine0 : mine1, lane ^ 1);
                mlar_u32x2 pair;
                pair.x = odd ? theirs : mine0;
                pair.y = odd ? mine1 : theirs;
                if (head < head_end) *(mlar_u32x2 *)(out16 + at + 8 * (k + odd) + 2 * (lane & 2)) = pair;
            }
        }
    }
}

/* Rows from the live count to the capacity: zeros, lse -inf. By `threads` threads of every block, this one being
 * number `thread`. */
MLAR_DEVICE void sm90_zero_tail(const sm90_block *b, int32_t thread, int32_t threads) {
    const mlar_stage_args *args = b->args;
    const mlar_layer_params *layer = b->layer;
    const int32_t heads = args->shape.heads, chunks = SM90_D_V * (layer->out_f32 ? 4 : 2) / 16;
    const int32_t live = mlar_live_rows_within(mlar_live_rows(args), args->row_begin, args->row_count);
    const int64_t items = (int64_t)(args->row_count - live) * heads * chunks;
    const mlar_u32x4 zero = {0, 0, 0, 0};
    for (int64_t i = (int64_t)mlar_block() * threads + thread; i < items;
         i += (int64_t)mlar_blocks(SM90_THREADS) * threads) {
        const int64_t row = args->row_begin + live + i / chunks / heads;
        const int32_t head = (int32_t)(i / chunks % heads), chunk = (int32_t)(i % chunks);
        const int64_t at = row * layer->out_row_stride + head * layer->out_head_stride;
        if (layer->out_f32)
            mlar_store16((float *)layer->out + at + 4 * chunk, zero);
        else
            mlar_store16((uint16_t *)layer->out + at + 8 * chunk, zero);
        if (chunk == 0 && layer->lse)
            layer->lse[row * layer->lse_row_stride + head * layer->lse_head_stride] = -MLAR_INF;
    }
}

#endif
