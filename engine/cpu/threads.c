/* SPDX-License-Identifier: Apache-2.0
 *
 * threads.c: the pool. Items are taken from a shared counter, so which worker runs which item is open; kernels are
 * written so that it does not matter. */
#define _POSIX_C_SOURCE 200809L

#include "engine/cpu/threads.h"

#include <signal.h>
#include <stddef.h>

/* Workers get no more than this: kernels keep their tiles in the arena, not on the stack. */
#define STACK_BYTES ((size_t)256 * 1024)

static void take_items(mlar_threads *threads, int32_t worker) {
    for (;;) {
        int64_t item = atomic_fetch_add_explicit(&threads->next, 1, memory_order_relaxed);
        if (item >= threads->items) return;
        threads->run(threads->arg, item, worker);
    }
}

static void *worker_main(void *arg) {
    mlar_threads *threads = arg;
    pthread_mutex_lock(&threads->lock);
    int32_t worker = ++threads->started; /* 1 .. count - 1; the caller is 0 */
    uint64_t seen = 0;
    for (;;) {
        while (threads->generation == seen && !threads->stop) pthread_cond_wait(&threads->wake, &threads->lock);
        if (threads->stop) break;
        seen = threads->generation;
        pthread_mutex_unlock(&threads->lock);
        take_items(threads, worker);
        pthread_mutex_lock(&threads->lock);
        if (--threads->busy == 0) pthread_cond_signal(&threads->done);
    }
    pthread_mutex_unlock(&threads->lock);
    return NULL;
}

mlar_status mlar_threads_start(mlar_threads *threads, int32_t count, mlar_parallel_for parallel, void *context) {
    *threads = (mlar_threads){.count = 1, .parallel = parallel, .parallel_context = context};
    pthread_mutex_init(&threads->lock, NULL);
    pthread_cond_init(&threads->wake, NULL);
    pthread_cond_init(&threads->done, NULL);
    if (parallel != NULL) {
        threads->count = count;
        return MLAR_OK;
    }
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0) return MLAR_ERROR_THREAD;
    (void)pthread_attr_setstacksize(&attributes, STACK_BYTES);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* inherited by the workers: the host's handlers stay the host's */
    int failed = 0;
    while (threads->count < count && !failed) {
        failed = pthread_create(&threads->handles[threads->count], &attributes, worker_main, threads) != 0;
        threads->count += !failed;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (!failed) return MLAR_OK;
    mlar_threads_stop(threads);
    return MLAR_ERROR_THREAD;
}

static void parallel_body(void *arg, int32_t worker) { take_items(arg, worker); }

void mlar_threads_run(mlar_threads *threads, int64_t items, mlar_item_fn run, void *arg) {
    if (items <= 0) return;
    threads->run = run;
    threads->arg = arg;
    threads->items = items;
    atomic_store_explicit(&threads->next, 0, memory_order_relaxed);
    int32_t helpers = items - 1 < threads->count - 1 ? (int32_t)(items - 1) : threads->count - 1;
    if (helpers == 0) {
        take_items(threads, 0);
        return;
    }
    if (threads->parallel != NULL) {
        threads->parallel(threads->parallel_context, helpers + 1, parallel_body, threads);
        return;
    }
    pthread_mutex_lock(&threads->lock);
    threads->busy = threads->count - 1;
    threads->generation++;
    pthread_cond_broadcast(&threads->wake);
    pthread_mutex_unlock(&threads->lock);
    take_items(threads, 0);
    pthread_mutex_lock(&threads->lock);
    while (threads->busy > 0) pthread_cond_wait(&threads->done, &threads->lock);
    pthread_mutex_unlock(&threads->lock);
}

void mlar_threads_stop(mlar_threads *threads) {
    if (threads->parallel == NULL) {
        pthread_mutex_lock(&threads->lock);
        threads->stop = 1;
        pthread_cond_broadcast(&threads->wake);
        pthread_mutex_unlock(&threads->lock);
        for (int32_t i = 1; i < threads->count; i++) pthread_join(threads->handles[i], NULL);
    }
    pthread_cond_destroy(&threads->done);
    pthread_cond_destroy(&threads->wake);
    pthread_mutex_destroy(&threads->lock);
}
