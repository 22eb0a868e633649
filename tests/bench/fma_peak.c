/* SPDX-License-Identifier: Apache-2.0
 *
 * fma_peak.c: see fma_peak.h. */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */
#include "tests/bench/fma_peak.h"

#include <time.h>

#if defined(__x86_64__)
#include <immintrin.h>

enum { LOOPS = 20000, SUMS = 12, ITEMS_PER_THREAD = 5 };

/* clang-format off */
#define TWELVE(step) step(0) step(1) step(2) step(3) step(4) step(5) step(6) step(7) step(8) step(9) step(10) step(11)
/* clang-format on */

/* The empty statement keeps each sum in a register of its own. */
__attribute__((target("avx512f"))) static void multiply_avx512(void *context, int64_t item, int32_t thread) {
    const __m512 x = _mm512_set1_ps(0.5f);
    __m512 sum[SUMS];
    (void)context;
    (void)item;
    (void)thread;
#define STEP(i) sum[i] = x;
    TWELVE(STEP)
#undef STEP
#define STEP(i)                                                                                              \
    sum[i] = _mm512_fmadd_ps(x, x, sum[i]);                                                                  \
    __asm__ volatile("" : "+v"(sum[i]));
    for (int n = 0; n < LOOPS; ++n) {
        TWELVE(STEP)
    }
#undef STEP
}

__attribute__((target("avx2,fma"))) static void multiply_avx2(void *context, int64_t item, int32_t thread) {
    const __m256 x = _mm256_set1_ps(0.5f);
    __m256 sum[SUMS];
    (void)context;
    (void)item;
    (void)thread;
#define STEP(i) sum[i] = x;
    TWELVE(STEP)
#undef STEP
#define STEP(i)                                                                                              \
    sum[i] = _mm256_fmadd_ps(x, x, sum[i]);                                                                  \
    __asm__ volatile("" : "+x"(sum[i]));
    for (int n = 0; n < LOOPS; ++n) {
        TWELVE(STEP)
    }
#undef STEP
}

double fma_peak_gflops(parallel *pool) {
    const int wide = __builtin_cpu_supports("avx512f") != 0;
    const int64_t items = (int64_t)ITEMS_PER_THREAD * parallel_threads(pool);
    struct timespec begin, end;
    double ns;
    if (!__builtin_cpu_supports("fma")) return 0;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    parallel_for(pool, items, wide ? multiply_avx512 : multiply_avx2, 0);
    clock_gettime(CLOCK_MONOTONIC, &end);
    ns = (double)(end.tv_sec - begin.tv_sec) * 1e9 + (double)(end.tv_nsec - begin.tv_nsec);
    return 2.0 * (wide ? 16 : 8) * SUMS * LOOPS * (double)items / ns;
}

#else

double fma_peak_gflops(parallel *pool) {
    (void)pool;
    return 0;
}

#endif
