/* SPDX-License-Identifier: Apache-2.0
 *
 * fma_peak.h: what the cores' f32 multiply-add units can do, measured: the yardstick of bench_cpu. */
#ifndef TESTS_BENCH_FMA_PEAK_H
#define TESTS_BENCH_FMA_PEAK_H

#include "tests/bench/parallel.h"

/* GFLOP/s of all threads of the pool together, each in a loop of independent multiply-adds in registers, with
 * the widest vectors that the processor offers. Takes a few milliseconds; 0: not known for this processor. */
double fma_peak_gflops(parallel *pool);

#endif
