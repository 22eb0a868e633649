/* SPDX-License-Identifier: Apache-2.0
 *
 * attend_wave.hip: the kernel of the CDNA attention engine. launch.c says which shapes it serves; the size of
 * a head group is decided on the device, so it holds the engine for each. */
#include "kernels/gpu/attend_wave.h"

MLAR_KERNEL MLAR_BLOCK(MLAR_BLOCK_THREADS) void mlar_attend_direct_wave(MLAR_BY_VALUE(mlar_stage_args)
                                                                            by_value) {
    MLAR_SHARED static mlar_wave_shared lds;
    const mlar_stage_args *args = MLAR_ARGS(mlar_stage_args, by_value);
    const int32_t heads = mlar_uniform(mlar_heads_per_group_now(args));
    if (heads > 32)
        mlar_wave_attend<64>(args, &lds);
    else if (heads > 16)
        mlar_wave_attend<32>(args, &lds);
    else
        mlar_wave_attend<16>(args, &lds);
}
