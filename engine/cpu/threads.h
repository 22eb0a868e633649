/* SPDX-License-Identifier: Apache-2.0
 *
 * threads.h: a fixed pool of workers that runs a counted set of independent items. Started once; after that
 * nothing is created. A worker that has nothing to do looks for the next job for some microseconds, because a
 * step is several jobs in a row, and then sleeps. Knows no attention. */
#ifndef MLAR_ENGINE_CPU_THREADS_H
#define MLAR_ENGINE_CPU_THREADS_H

#include <mlarena/mlarena.h>

#include <pthread.h>
#include <stdatomic.h>

/* item in 0..items-1; worker in 0..threads-1 says whose scratch to use. */
typedef void (*mlar_item_fn)(void *arg, int64_t item, int32_t worker);

typedef struct mlar_threads {
    int32_t count; /* workers, the caller included */
    int32_t started;
    mlar_parallel_for parallel; /* the host's own, or null */
    void *parallel_context;
    mlar_item_fn run; /* the current job */
    void *arg;
    int64_t items;
    _Atomic int64_t next; /* first item that nobody has taken */
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
    _Atomic uint64_t generation; /* counts jobs; raised under lock, so that no sleeper misses it */
    _Atomic int32_t busy;        /* workers that have not finished the current job */
    int32_t stop;                /* guarded by lock */
    pthread_t handles[256];
} mlar_threads;

/* Starts count - 1 workers with all signals blocked. MLAR_ERROR_THREAD if one cannot be started (none is then
 * left). */
mlar_status mlar_threads_start(mlar_threads *threads, int32_t count, mlar_parallel_for parallel,
                               void *context);
/* Runs every item once and returns when all are done; the caller takes part. */
void mlar_threads_run(mlar_threads *threads, int64_t items, mlar_item_fn run, void *arg);
void mlar_threads_stop(mlar_threads *threads);

#endif
