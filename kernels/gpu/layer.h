/* SPDX-License-Identifier: Apache-2.0
 *
 * layer.h: a launch's layer parameters, brought into LDS, whichever way they travel. Read from there they
 * cost neither registers nor device memory, and it does not matter any more whether they came by value or
 * stand in the arena. */
#ifndef MLAR_KERNELS_GPU_LAYER_H
#define MLAR_KERNELS_GPU_LAYER_H

#include "kernels/gpu/gpu.h"
#include "kernels/schedule.h"

/* By the whole block, of `threads` threads. */
MLAR_DEVICE void mlar_layer_to_lds(const mlar_stage_args *args, mlar_layer_params *layer, int32_t threads) {
    const uint32_t *from = (const uint32_t *)mlar_layer_of(args);
    uint32_t *to = (uint32_t *)layer;
    for (int32_t i = mlar_thread(); i < (int32_t)sizeof(mlar_layer_params) / 4; i += threads) to[i] = from[i];
    mlar_block_sync();
}

#endif
