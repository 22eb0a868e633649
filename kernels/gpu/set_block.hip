/* SPDX-License-Identifier: Apache-2.0
 *
 * set_block.hip: writes one block of step or layer parameters into the arena. The payload is the kernel's
 * argument, so stream order alone protects whatever reads the block before and after. One block of 64
 * threads. */
#include "kernels/gpu/gpu.h"

MLAR_KERNEL MLAR_BLOCK(64) void mlar_set_block(MLAR_BY_VALUE(mlar_set_block_args) by_value) {
    const mlar_set_block_args *args = MLAR_ARGS(mlar_set_block_args, by_value);
    const uint64_t words = args->bytes / 8;
    for (uint64_t i = (uint64_t)mlar_thread(); i < words; i += 64)
        ((MLAR_GLOBAL uint64_t *)args->to)[i] = args->payload[i];
}
