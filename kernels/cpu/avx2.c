/* SPDX-License-Identifier: Apache-2.0
 *
 * avx2.c: the CPU back end on AVX2, FMA and F16C: eight lanes, keys and queries as f32. */
#include "kernels/cpu/vector_avx2.h"

#define TILE_PACK 1
#include "kernels/cpu/tile_math.h"
#include "kernels/cpu/tile_queries.h"
#include "kernels/cpu/tile_convert.h"
#include "kernels/cpu/tile_simd.h"

const mlar_cpu_kernels mlar_cpu_kernels_avx2 = {
    .isa = "avx2",
    .gather = tile_gather,
    .attend_gathered = tile_attend_gathered,
    .attend_direct = tile_attend_direct,
    .combine = tile_combine,
};
