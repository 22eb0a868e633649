/* SPDX-License-Identifier: Apache-2.0
 *
 * merge.h: how the parts of a row become the row, for one head and the columns of one lane: the same arithmetic in the
 * same order, whoever does it and wherever the parts lie (combine.hip: device memory; sm90_merge.h: the shared memory
 * of a cluster). This file knows neither. */
#ifndef MLAR_KERNELS_GPU_MERGE_H
#define MLAR_KERNELS_GPU_MERGE_H

#include "kernels/gpu/attend_common.h"

/* A head's sums over parts. m is the largest maximum of all parts from the begin. */
typedef struct mlar_merged {
    float out[4];
    float m, l;
} mlar_merged;

/* The parts are taken in their order. Of some that follow one another lane p has part p's (m, l), and so what it
 * weighs; all have their columns of each. */
typedef struct mlar_weights {
    float moved, l; /* this lane's part's */
} mlar_weights;

MLAR_DEVICE mlar_weights mlar_merge_weights(const mlar_merged *sums, const float (&pair)[2]) {
    mlar_weights weights;
    weights.moved = mlar_softmax_moved(pair[0], sums->m);
    weights.l = weights.moved * pair[1];
    return weights;
}

/* Part p's sum is added; returns what its columns weigh. */
MLAR_DEVICE float mlar_merge_weigh(mlar_merged *sums, mlar_weights weights, int32_t p) {
    sums->l += mlar_lane_get_f32(weights.l, p);
    return mlar_lane_get_f32(weights.moved, p);
}

template <int columns>
MLAR_DEVICE void mlar_merge_add(mlar_merged *sums, float weight, const float (&part)[columns]) {
    MLAR_UNROLL for (int32_t i = 0; i < columns; ++i) sums->out[i] += weight * part[i];
}

/* Writes `out`, from `column` on if the lane has any (`mine`), and lse. */
template <int columns>
MLAR_DEVICE void mlar_merge_store(const mlar_layer_params *layer, int32_t row, int32_t head, int32_t column,
                                  int32_t mine, const mlar_merged *sums, float factor) {
    const int64_t at = row * layer->out_row_stride + head * layer->out_head_stride + column;
    float out[columns];
    MLAR_UNROLL for (int32_t i = 0; i < columns; ++i) out[i] = mlar_out_of(sums->out[i], factor);
    if (mine) mlar_out_store(layer, at, out);
    if (column == 0) mlar_lse_store(layer, row, head, mlar_lse_of(sums->m, sums->l));
}

#endif
