/* SPDX-License-Identifier: Apache-2.0
 *
 * avx512.c: the CPU back end on AVX-512 F, BW, DQ and VL: sixteen lanes, keys and queries as f32. */
#include "kernels/cpu/vector_avx512.h"

#define TILE_PACK 1
#include "kernels/cpu/tile_math.h"
#include "kernels/cpu/tile_queries.h"
#include "kernels/cpu/tile_convert.h"
#include "kernels/cpu/tile_simd.h"

const mlar_cpu_kernels mlar_cpu_kernels_avx512 = {
    .isa = "avx512",
    .gather = tile_gather,
    .attend_gathered = tile_attend_gathered,
    .attend_direct = tile_attend_direct,
    .combine = tile_combine,
};
