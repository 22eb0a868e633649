/* SPDX-License-Identifier: Apache-2.0
 *
 * parallel.c: see parallel.h. Idle threads spin for a moment before they sleep, as those of any program that
 * runs many short loops one after the other do. */
#include "tests/bench/parallel.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

enum { SPINS = 20000 };

struct parallel {
    int32_t threads;
    pthread_t *handles; /* [threads - 1] */
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    atomic_int_fast64_t round; /* a new number starts a loop */
    atomic_int_fast64_t next;  /* the next item */
    atomic_int busy;           /* helpers that have not finished this round */
    atomic_bool stop;
    int64_t items;
    parallel_body body;
    void *context;
};

typedef struct helper {
    parallel *pool;
    int32_t thread;
} helper;

static void work(parallel *pool, int32_t thread) {
    int64_t item;
    while ((item = atomic_fetch_add(&pool->next, 1)) < pool->items) pool->body(pool->context, item, thread);
}

static void *help(void *argument) {
    helper self = *(helper *)argument;
    parallel *pool = self.pool;
    int64_t seen = 0;
    free(argument);
    for (;;) {
        for (int i = 0; i < SPINS && atomic_load(&pool->round) == seen; ++i) {
        }
        if (atomic_load(&pool->round) == seen) {
            pthread_mutex_lock(&pool->mutex);
            while (atomic_load(&pool->round) == seen) pthread_cond_wait(&pool->wake, &pool->mutex);
            pthread_mutex_unlock(&pool->mutex);
        }
        seen = atomic_load(&pool->round);
        if (atomic_load(&pool->stop)) return NULL;
        work(pool, self.thread);
        atomic_fetch_sub(&pool->busy, 1);
    }
}

static void start_round(parallel *pool) {
    pthread_mutex_lock(&pool->mutex);
    atomic_store(&pool->busy, pool->threads - 1);
    atomic_store(&pool->next, 0);
    atomic_fetch_add(&pool->round, 1);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
}

parallel *parallel_new(int32_t threads) {
    parallel *pool = calloc(1, sizeof *pool);
    if (!pool) abort();
    pool->threads = threads;
    pool->handles = calloc((size_t)threads, sizeof *pool->handles);
    if (!pool->handles || pthread_mutex_init(&pool->mutex, NULL) || pthread_cond_init(&pool->wake, NULL))
        abort();
    for (int32_t i = 1; i < threads; ++i) {
        helper *self = malloc(sizeof *self);
        if (!self) abort();
        *self = (helper){pool, i};
        if (pthread_create(&pool->handles[i - 1], NULL, help, self)) abort();
    }
    return pool;
}

void parallel_free(parallel *pool) {
    atomic_store(&pool->stop, true);
    start_round(pool);
    for (int32_t i = 1; i < pool->threads; ++i) pthread_join(pool->handles[i - 1], NULL);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->mutex);
    free(pool->handles);
    free(pool);
}

int32_t parallel_threads(const parallel *pool) {
    return pool->threads;
}

void parallel_for(parallel *pool, int64_t items, parallel_body body, void *context) {
    pool->items = items;
    pool->body = body;
    pool->context = context;
    start_round(pool);
    work(pool, 0);
    while (atomic_load(&pool->busy)) {
    }
}
