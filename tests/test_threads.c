/* SPDX-License-Identifier: Apache-2.0
 *
 * test_threads.c: the CPU back end's pool: every item once, each worker its own number, jobs in a row. */
#define _POSIX_C_SOURCE 200809L

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/cpu/threads.h"
#include "tests/support/engine_case.h"

#include <signal.h>
#include <string.h>
#include <time.h>

enum { ITEMS = 1000, WORKERS_MAX = 16 };

typedef struct job {
    _Atomic int32_t runs[ITEMS];
    _Atomic int32_t inside[WORKERS_MAX]; /* items that a worker is in: never two */
    _Atomic int32_t wrong;
    int32_t workers;
} job;

static void item(void *arg, int64_t i, int32_t worker) {
    job *j = arg;
    if (worker < 0 || worker >= j->workers || i < 0 || i >= ITEMS) {
        atomic_fetch_add(&j->wrong, 1);
        return;
    }
    if (atomic_fetch_add(&j->inside[worker], 1) != 0) atomic_fetch_add(&j->wrong, 1);
    atomic_fetch_add(&j->runs[i], 1);
    atomic_fetch_sub(&j->inside[worker], 1);
}

static void expect(job *j, int64_t items, int32_t times) {
    for (int64_t i = 0; i < ITEMS; i++) assert_int_equal(j->runs[i], i < items ? times : 0);
    assert_int_equal(j->wrong, 0);
}

static void run_jobs(mlar_threads *threads, int32_t workers) {
    static const int64_t sizes[] = {0, 1, 2, ITEMS};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        job j;
        memset(&j, 0, sizeof j);
        j.workers = workers;
        for (int times = 1; times <= 50; times++) {
            mlar_threads_run(threads, sizes[s], item, &j);
            expect(&j, sizes[s], times); /* all done when it returns */
        }
    }
}

static void test_every_item_once(void **state) {
    (void)state;
    static const int32_t counts[] = {1, 2, 3, WORKERS_MAX};
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        mlar_threads threads;
        MUST(mlar_threads_start(&threads, counts[c], NULL, NULL));
        run_jobs(&threads, counts[c]);
        mlar_threads_stop(&threads);
    }
}

/* A worker that has gone to sleep wakes for the next job. */
static void test_sleepers_wake(void **state) {
    (void)state;
    mlar_threads threads;
    MUST(mlar_threads_start(&threads, 3, NULL, NULL));
    for (int i = 0; i < 5; i++) {
        struct timespec pause = {0, 5 * 1000 * 1000};
        nanosleep(&pause, NULL);
        job j;
        memset(&j, 0, sizeof j);
        j.workers = 3;
        mlar_threads_run(&threads, ITEMS, item, &j);
        expect(&j, ITEMS, 1);
    }
    mlar_threads_stop(&threads);
}

typedef struct host {
    int32_t calls, count;
} host;

/* A host's own loop, here without threads and backwards. */
static void host_parallel(void *context, int32_t count, void (*body)(void *arg, int32_t i), void *arg) {
    host *h = context;
    h->calls++;
    h->count = count;
    for (int32_t i = count - 1; i >= 0; i--) body(arg, i);
}

static void test_the_hosts_own_loop(void **state) {
    (void)state;
    host h = {0};
    mlar_threads threads;
    MUST(mlar_threads_start(&threads, 4, host_parallel, &h));
    run_jobs(&threads, 4);
    assert_true(h.calls > 0);
    assert_true(h.count >= 1 && h.count <= 4);
    mlar_threads_stop(&threads);
}

static void signal_item(void *arg, int64_t i, int32_t worker) {
    (void)i;
    sigset_t blocked;
    sigemptyset(&blocked);
    pthread_sigmask(SIG_BLOCK, NULL, &blocked);
    if (worker != 0 && !(sigismember(&blocked, SIGINT) && sigismember(&blocked, SIGUSR1)))
        atomic_fetch_add((_Atomic int32_t *)arg, 1);
}

/* A host's signals go to the host's threads. */
static void test_workers_take_no_signals(void **state) {
    (void)state;
    mlar_threads threads;
    _Atomic int32_t open = 0;
    sigset_t before, after;
    pthread_sigmask(SIG_BLOCK, NULL, &before);
    MUST(mlar_threads_start(&threads, 4, NULL, NULL));
    pthread_sigmask(SIG_BLOCK, NULL, &after);
    assert_int_equal(sigismember(&before, SIGINT), sigismember(&after, SIGINT));
    for (int i = 0; i < 50; i++) mlar_threads_run(&threads, ITEMS, signal_item, (void *)&open);
    assert_int_equal(open, 0);
    mlar_threads_stop(&threads);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_item_once), cmocka_unit_test(test_sleepers_wake),
        cmocka_unit_test(test_the_hosts_own_loop), cmocka_unit_test(test_workers_take_no_signals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
