/* SPDX-License-Identifier: Apache-2.0
 *
 * threads.c: the pool. Items are taken from a shared counter, so which worker runs which item is open;
 * kernels are written so that it does not matter. */
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

/* About 20 us of looking before sleeping: the gap between two stages of a step is shorter, a wake-up costs
 * more. */
enum { LOOKS = 1000 };

static void pause_briefly(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Returns when there is a job other than `seen`, or the pool stops (0). */
static int await_job(mlar_threads *threads, uint64_t seen) {
    for (int i = 0; i < LOOKS; i++) {
        if (atomic_load_explicit(&threads->generation, memory_order_acquire) != seen) break;
        pause_briefly();
    }
    pthread_mutex_lock(&threads->lock);
    while (atomic_load_explicit(&threads->generation, memory_order_relaxed) == seen && !threads->stop)
        pthread_cond_wait(&threads->wake, &threads->lock);
    int stop = threads->stop;
    pthread_mutex_unlock(&threads->lock);
    return !stop;
}

static void *worker_main(void *arg) {
    mlar_threads *threads = arg;
    pthread_mutex_lock(&threads->lock);
    int32_t worker = ++threads->started; /* 1 .. count - 1; the caller is 0 */
    pthread_mutex_unlock(&threads->lock);
    for (uint64_t seen = 0; await_job(threads, seen);) {
        seen = atomic_load_explicit(&threads->generation, memory_order_relaxed);
        take_items(threads, worker);
        if (atomic_fetch_sub_explicit(&threads->busy, 1, memory_order_acq_rel) == 1) {
            pthread_mutex_lock(&threads->lock); /* the caller may be between its look and its sleep */
            pthread_cond_signal(&threads->done);
            pthread_mutex_unlock(&threads->lock);
        }
    }
    return NULL;
}

static void await_workers(mlar_threads *threads) {
    for (int i = 0; i < LOOKS; i++) {
        if (atomic_load_explicit(&threads->busy, memory_order_acquire) == 0) return;
        pause_briefly();
    }
    pthread_mutex_lock(&threads->lock);
    while (atomic_load_explicit(&threads->busy, memory_order_acquire) > 0)
        pthread_cond_wait(&threads->done, &threads->lock);
    pthread_mutex_unlock(&threads->lock);
}

mlar_status mlar_threads_start(mlar_threads *threads, int32_t count, mlar_parallel_for parallel,
                               void *context) {
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
    pthread_sigmask(SIG_SETMASK, &all,
                    &before); /* inherited by the workers: the host's handlers stay the host's */
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

static void parallel_body(void *arg, int32_t worker) {
    take_items(arg, worker);
}

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
    atomic_store_explicit(&threads->busy, threads->count - 1, memory_order_relaxed);
    pthread_mutex_lock(&threads->lock);
    atomic_fetch_add_explicit(&threads->generation, 1, memory_order_release);
    pthread_cond_broadcast(&threads->wake);
    pthread_mutex_unlock(&threads->lock);
    take_items(threads, 0);
    await_workers(threads);
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
