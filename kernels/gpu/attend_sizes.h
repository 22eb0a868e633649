/* SPDX-License-Identifier: Apache-2.0
 *
 * attend_sizes.h: sizes that kernels and the launch table must agree on: of the portable engine above all. Plain C.
 *
 * A kernel is compiled for head groups of at most H heads (16, 32, 64) and for keys of at most 32 * U columns
 * (U = 16 or 20). The tokens of a sub-tile follow from what fits beside the rest into LDS. */
#ifndef MLAR_KERNELS_GPU_ATTEND_SIZES_H
#define MLAR_KERNELS_GPU_ATTEND_SIZES_H

#define MLAR_BLOCK_THREADS 256
#define MLAR_UNIT_COLUMNS  32 /* columns that a wave owns at a time */
#define MLAR_UNITS_NARROW  16 /* d_qk <= 512 */
#define MLAR_UNITS_WIDE    20 /* d_qk <= 640 */

/* Tokens of a sub-tile, by LDS: sm_90 (227 KB), gfx950 (160 KB), the rest (64 KB). */
#define MLAR_TOKENS_SM_90(heads, units)   ((heads) <= 16 && (units) == MLAR_UNITS_NARROW ? 64 : 32)
#define MLAR_TOKENS_GFX950(heads, units)  ((units) == MLAR_UNITS_NARROW ? 64 : 32)
#define MLAR_TOKENS_GFX90A(heads, units)  ((heads) <= ((units) == MLAR_UNITS_NARROW ? 32 : 16) ? 32 : 16)
#define MLAR_TOKENS_GFX1100(heads, units) ((heads) <= 16 && (units) == MLAR_UNITS_NARROW ? 32 : 16)

/* attend_sm90.hip: threads of a block, and the dynamic shared memory that it asserts to be enough. */
#define MLAR_SM90_THREADS       512
#define MLAR_SM90_LDS_BYTES     217088
#define MLAR_SM90_V32_LDS_BYTES 227328

/* gather.hip: threads of a block, and the blocks that a compute unit is to hold at once. */
#define MLAR_GATHER_THREADS 128
#define MLAR_GATHER_BLOCKS  5

/* combine.hip: blocks, of MLAR_BLOCK_THREADS, that a compute unit is to hold at once. */
#define MLAR_COMBINE_BLOCKS 4

#endif
