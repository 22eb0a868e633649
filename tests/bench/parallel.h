/* SPDX-License-Identifier: Apache-2.0
 *
 * parallel.h: a parallel for, for benchmarks that drive the kernels without the engine: a fixed number of
 * threads, the caller among them, that share items out by a counter. It must not know what an item is. */
#ifndef TESTS_BENCH_PARALLEL_H
#define TESTS_BENCH_PARALLEL_H

#include <stdint.h>

typedef struct parallel parallel;
typedef void (*parallel_body)(void *context, int64_t item, int32_t thread);

/* Aborts the program if threads cannot be had. */
parallel *parallel_new(int32_t threads);
void parallel_free(parallel *pool);
int32_t parallel_threads(const parallel *pool);

/* body(context, item, thread) for every item 0 .. items - 1; returns when all are done. */
void parallel_for(parallel *pool, int64_t items, parallel_body body, void *context);

#endif
