/* SPDX-License-Identifier: Apache-2.0
 *
 * avx512bf16.c: the CPU back end where AVX-512 multiplies pairs of bf16 (VDPBF16PS): the scores take half the
 * instructions; the values take as many as with f32, since each weight is the sum of two bf16. */
#include "kernels/cpu/vector_avx512.h"

#define TILE_PACK       2
#define TILE_VALUE_KEYS 2
#include "kernels/cpu/tile_math.h"
#include "kernels/cpu/tile_queries.h"
#include "kernels/cpu/tile_convert.h"
#include "kernels/cpu/tile_simd.h"

const mlar_cpu_kernels mlar_cpu_kernels_avx512bf16 = {
    .isa = "avx512bf16",
    .gather = tile_gather,
    .attend_gathered = tile_attend_gathered,
    .attend_direct = tile_attend_direct,
    .combine = tile_combine,
};
