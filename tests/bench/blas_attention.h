/* SPDX-License-Identifier: Apache-2.0
 *
 * blas_attention.h: the same attention as a careful user of a float32 BLAS would write it, for comparison.
 *
 * Per row: the tokens that count are gathered and dequantised (by the library's own gather stage, the fastest
 * there is here), widened to f32, multiplied with q by sgemm, sent through a vectorised softmax, multiplied
 * again by sgemm, normalised and rounded. It must not know the direct strategy. */
#ifndef TESTS_BENCH_BLAS_ATTENTION_H
#define TESTS_BENCH_BLAS_ATTENTION_H

#include <stdint.h>

#include "kernels/cpu/kernels.h"
#include "tests/bench/parallel.h"

/* Which OpenBLAS this is. */
const char *blas_name(void);

/* Floats of workspace for a row of a step. */
uint64_t blas_row_floats(const mlar_shape *shape, int32_t keys);

/* One step. `args` are those of the library's own step with strategy gather; every list is full, every entry
 * counts, values are the whole key or its first d_v elements. workspace: [max(rows,
 * threads)][blas_row_floats]. */
void blas_attend(const mlar_cpu_kernels *gather, mlar_stage_args *args, parallel *pool, float *workspace);

#endif
