/* SPDX-License-Identifier: Apache-2.0
 *
 * attend_wave.hip: the kernels of the CDNA attention engine, one for each source of keys. launch.c says which shapes
 * they serve; the size of a head group is decided on the device, so each holds the engine for all. */
#include "kernels/gpu/attend_wave.h"
#include "kernels/gpu/wave_fp8.h"
#include "kernels/gpu/wave_plain.h"

template <class source> MLAR_DEVICE void attend(const mlar_stage_args *args, mlar_wave_shared<source> *lds) {
    const int32_t heads = mlar_uniform(mlar_heads_per_group_now(args));
    if (heads > 32)
        mlar_wave_attend<64>(args, lds);
    else if (heads > 16)
        mlar_wave_attend<32>(args, lds);
    else
        mlar_wave_attend<16>(args, lds);
}

typedef mlar_wave_plain<false, 512> plain_records;
typedef mlar_wave_plain<true, 512> gathered_rows;
typedef mlar_wave_plain<true, 576> gathered_rows_v32;

#define KERNEL(name, source)                                                                                 \
    MLAR_KERNEL MLAR_BLOCK(MLAR_BLOCK_THREADS) void name(MLAR_BY_VALUE(mlar_stage_args) by_value) {          \
        MLAR_SHARED static mlar_wave_shared<source> lds;                                                     \
        attend(MLAR_ARGS(mlar_stage_args, by_value), &lds);                                                  \
    }

KERNEL(mlar_attend_direct_wave, mlar_wave_fp8)
KERNEL(mlar_attend_direct_wave_bf16, plain_records)
KERNEL(mlar_attend_gathered_wave, gathered_rows)
KERNEL(mlar_attend_gathered_wave_v32, gathered_rows_v32)
