/* SPDX-License-Identifier: Apache-2.0
 *
 * test_gpu_threads.c: engines beside each other, each on its own thread and stream; on the stand-in (tests/standin),
 * which proves the host code and never the kernels. */
#include "engine/engine.h"
#include "tests/standin/session.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* ---- two engines, two threads ---- */

enum { ROWS = 3, CAPACITY = 4 };

typedef struct worker {
    step_case *made;
    device_case moved;
    device_engine *run;
    void *stream;
    mlar_program *program;
    int wrong;
} worker;

/* No assertion off the main thread. */
static void *work(void *opaque) {
    worker *w = opaque;
    for (int i = 0; i < 40; i++) {
        mlar_step step = {.struct_size = sizeof step, .rows = ROWS};
        w->wrong += mlar_engine_step(w->run->engine, &step, w->stream) != MLAR_OK;
        w->wrong +=
            mlar_engine_prepare(w->run->engine, 0, &w->moved.bindings, NULL, w->stream, NULL) != MLAR_OK;
        w->wrong += mlar_program_replay(w->program, w->stream) != MLAR_OK;
        w->wrong += mlar_engine_enqueue(w->run->engine, 0, &w->moved.bindings, CAPACITY, &step, w->stream,
                                        NULL) != MLAR_OK;
        w->wrong += mlar_device_wait(w->run->device, w->stream) != MLAR_OK;
    }
    return NULL;
}

static void test_two_engines_on_two_threads(void **state) {
    (void)state;
    session s = session_new();
    worker workers[2] = {0};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        worker *w = &workers[i];
        case_spec spec = engine_case_spec(70u + (uint64_t)i, ROWS, CAPACITY, 40, 200);
        w->made = case_new(&spec);
        w->moved = device_case_new(s.device, w->made);
        mlar_config config = device_engine_config(s.device, (const step_case *const *)&w->made, 1);
        w->run = device_engine_open(s.device, &config);
        w->stream = session_stream(&s, i);
        w->program = device_engine_capture(w->run, 0, &w->moved, CAPACITY);
        device_case_poison(&w->moved);
    }
    for (int i = 0; i < 2; i++) assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    for (int i = 0; i < 2; i++) assert_int_equal(pthread_join(threads[i], NULL), 0);
    for (int i = 0; i < 2; i++) {
        worker *w = &workers[i];
        assert_int_equal(w->wrong, 0);
        device_case_fetch(&w->moved, w->stream);
        uint8_t *got = engine_case_take(w->made);
        device_engine_eager(w->run, 0, &w->moved, NULL);
        engine_case_same(w->made, got, "alone and beside another");
        free(got);
        session_stream_free(&s, w->stream);
        device_engine_close(w->run);
        device_case_free(&w->moved);
        case_free(w->made);
    }
    session_end(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_two_engines_on_two_threads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
