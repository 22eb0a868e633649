/* SPDX-License-Identifier: Apache-2.0
 *
 * test_gpu_states.c: which call is valid when on a GPU (the state table of mlarena.h), what the steady phase must not
 * do, whose device is current, and a device that is lost; on the stand-in (tests/standin), which proves the host code
 * and never the kernels. */
#define _GNU_SOURCE /* posix_memalign, __GLIBC__ */
#include "engine/engine.h"
#include "tests/standin/heap.h"
#include "tests/standin/session.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- a fixture ---- */

enum { ROWS = 3, CAPACITY = 4 };

typedef struct fixture {
    session s;
    step_case *made;
    device_case moved;
    device_engine *run;
    void *stream;
    uint8_t *right;
} fixture;

static void open_engine(fixture *f, const mlar_config *changes) {
    case_spec spec = engine_case_spec(5, ROWS, CAPACITY, 40, 200);
    f->made = case_new(&spec);
    f->moved = device_case_new(f->s.device, f->made);
    mlar_config config = device_engine_config(f->s.device, (const step_case *const *)&f->made, 1);
    if (changes != NULL) {
        config.policy = changes->policy;
        config.update_route = changes->update_route;
        config.guard_bytes = changes->guard_bytes;
        config.selftest = changes->selftest;
    }
    f->run = device_engine_open(f->s.device, &config);
    device_engine_eager(f->run, 0, &f->moved, NULL);
    f->right = engine_case_take(f->made);
}
static fixture open_fixture(const mlar_config *changes) {
    fixture f = {.s = session_new()};
    f.stream = session_stream(&f.s, 1);
    open_engine(&f, changes);
    return f;
}
static void close_engine(fixture *f) {
    device_engine_close(f->run);
    device_case_free(&f->moved);
    case_free(f->made);
    free(f->right);
}
static void close_fixture(fixture *f) {
    close_engine(f);
    session_stream_free(&f->s, f->stream);
    session_end(&f->s);
}
static const mlar_config all_on = {.guard_bytes = 256, .selftest = 1};

static void still_right(fixture *f, mlar_program *program) {
    device_engine_replay(f->run, program, 0, &f->moved, ROWS, f->stream);
    engine_case_same(f->made, f->right, "replay");
    device_engine_eager(f->run, 0, &f->moved, f->stream);
    engine_case_same(f->made, f->right, "eager");
}

/* ---- while the host captures ---- */

static void test_while_the_host_captures(void **state) {
    (void)state;
    fixture f = open_fixture(&all_on);
    const mlar_runtime *runtime = &f.s.device->runtime;
    mlar_engine *engine = f.run->engine;
    mlar_bindings *bindings = &f.moved.bindings;
    mlar_program *program = device_engine_capture(f.run, 0, &f.moved, CAPACITY), *more = NULL;
    mlar_step step = {.struct_size = sizeof step, .rows = ROWS};
    mlar_stats stats = {.struct_size = sizeof stats};
    mlar_diag diag;
    for (int32_t mode = 0; mode < 3; mode++)
        for (int32_t blocking = 0; blocking < 2; blocking++) {
            void *stream = session_stream(&f.s, !blocking), *graph = NULL;
            assert_int_equal(runtime->capture_begin(stream, mode), 0);
            void *const asked[] = {
                stream, NULL}; /* the default stream is not free either, if that one waits for it */
            for (int i = 0; i < 1 + blocking; i++) {
                MUST_BE(MLAR_ERROR_CAPTURING, mlar_engine_step(engine, &step, asked[i]));
                MUST_BE(MLAR_ERROR_CAPTURING, mlar_engine_stats(engine, asked[i], &stats));
                MUST_BE(MLAR_ERROR_CAPTURING, mlar_engine_reset_counters(engine, asked[i]));
                MUST_BE(MLAR_ERROR_CAPTURING, mlar_engine_poison_scratch(engine, 1, asked[i]));
                MUST_NAME(MLAR_ERROR_CAPTURING, i ? "hipStreamIsCapturing" : "stream", diag,
                          mlar_engine_check_guards(engine, asked[i], &diag));
                MUST_BE(MLAR_ERROR_CAPTURING, mlar_engine_selftest(engine, asked[i], &diag));
                MUST_BE(MLAR_ERROR_CAPTURING, mlar_program_rebind(program, 0, bindings, asked[i], &diag));
            }
            if (blocking) {
                MUST_BE(MLAR_ERROR_CAPTURING,
                        mlar_engine_capture(engine, 0, bindings, 1, CAPACITY, &more, &diag));
                MUST_BE(MLAR_ERROR_CAPTURING, mlar_engine_deinit(engine));
                assert_null(more);
            }
            MUST(mlar_engine_prepare(engine, 0, bindings, &step, stream, NULL));
            MUST(mlar_engine_enqueue(engine, 0, bindings, CAPACITY, &step, stream, NULL));
            MUST(mlar_engine_invalidate(engine, stream));
            MUST(mlar_program_destroy(program));
            assert_int_equal(runtime->capture_end(stream, &graph), 0); /* all that has not hurt it */
            assert_int_equal(runtime->graph_destroy(graph), 0);
            session_stream_free(&f.s, stream);
            program = device_engine_capture(f.run, 0, &f.moved, CAPACITY);
            still_right(&f, program);
        }
    close_fixture(&f);
}

/* A capture of the host's that nothing can be asked about (a stream that ignores the default one, as PyTorch's): setup
 * is refused by the runtime, which ends that capture; the engine is as it was. */
static void test_setup_while_an_unseen_stream_is_captured(void **state) {
    (void)state;
    fixture f = open_fixture(NULL);
    const mlar_runtime *runtime = &f.s.device->runtime;
    mlar_program *program = device_engine_capture(f.run, 0, &f.moved, CAPACITY), *more = NULL;
    mlar_diag diag = DIAG_INIT;
    void *graph = NULL;
    for (int32_t mode = 0; mode < 2; mode++) {
        assert_int_equal(runtime->capture_begin(f.stream, mode), 0);
        MUST_BE(MLAR_ERROR_CAPTURING,
                mlar_engine_capture(f.run->engine, 0, &f.moved.bindings, 1, CAPACITY, &more, &diag));
        assert_null(more);
        assert_non_null(strstr(diag.message, "hipErrorStreamCaptureUnsupported"));
        assert_int_equal(runtime->capture_end(f.stream, &graph), 901);
        still_right(&f, program);
        assert_int_equal(device_engine_stats(f.run, f.stream).programs, 1);
    }
    close_fixture(&f);
}

static void *capture_elsewhere(void *opaque) {
    fixture *f = opaque;
    mlar_program *program = NULL;
    mlar_diag diag = DIAG_INIT;
    mlar_status status =
        mlar_engine_capture(f->run->engine, 0, &f->moved.bindings, 1, CAPACITY, &program, &diag);
    return status == MLAR_OK ? program : NULL;
}

/* Another thread's thread-local capture is that thread's business; ours is no business of the host's other threads. */
static void test_captures_of_other_threads(void **state) {
    (void)state;
    fixture f = open_fixture(NULL);
    const mlar_runtime *runtime = &f.s.device->runtime;
    void *graph = NULL, *made = NULL;
    pthread_t thread;
    assert_int_equal(runtime->capture_begin(f.stream, 1), 0);
    assert_int_equal(pthread_create(&thread, NULL, capture_elsewhere, &f), 0);
    assert_int_equal(pthread_join(thread, &made), 0);
    assert_non_null(made);
    assert_int_equal(runtime->capture_end(f.stream, &graph), 0);
    assert_int_equal(runtime->graph_destroy(graph), 0);
    still_right(&f, made);
    close_fixture(&f);
}

/* ---- wrong states and wrong streams ---- */

static void test_wrong_states(void **state) {
    (void)state;
    fixture f = open_fixture(NULL);
    mlar_engine *engine = f.run->engine;
    mlar_program *program = device_engine_capture(f.run, 0, &f.moved, ROWS);
    mlar_step step = {.struct_size = sizeof step, .rows = ROWS};
    mlar_diag diag = DIAG_INIT;
    uint64_t launches = f.s.control->calls("hipGraphLaunch");
    MUST_BE(MLAR_ERROR_STATE, mlar_program_replay(program, f.stream)); /* no step */
    MUST(mlar_engine_step(engine, &step, f.stream));
    MUST_BE(MLAR_ERROR_STATE, mlar_program_replay(program, f.stream)); /* no prepare */
    step.rows = CAPACITY;
    MUST(mlar_engine_step(engine, &step, f.stream));
    MUST(mlar_engine_prepare(engine, 0, &f.moved.bindings, NULL, f.stream, NULL));
    MUST_BE(MLAR_ERROR_CAPACITY, mlar_program_replay(program, f.stream));
    step.rows = CAPACITY + 1;
    MUST_BE(MLAR_ERROR_CAPACITY, mlar_engine_step(engine, &step, f.stream));
    MUST_NAME(MLAR_ERROR_STATE, "selftest", diag,
              mlar_engine_selftest(engine, f.stream, &diag)); /* not planned */
    program->fingerprint ^= 1;                                /* captured for another plan */
    step.rows = ROWS;
    MUST(mlar_engine_step(engine, &step, f.stream));
    MUST(mlar_engine_prepare(engine, 0, &f.moved.bindings, NULL, f.stream, NULL));
    MUST_BE(MLAR_ERROR_FINGERPRINT, mlar_program_replay(program, f.stream));
    program->fingerprint ^= 1;
    assert_int_equal(f.s.control->calls("hipGraphLaunch"), launches);
    still_right(&f, device_engine_capture(f.run, 0, &f.moved, CAPACITY));
    MUST(mlar_program_destroy(program));
    MUST_BE(MLAR_ERROR_STATE, mlar_program_destroy(program));
    MUST_BE(MLAR_ERROR_STATE, mlar_program_replay(program, f.stream));
    MUST_NAME(MLAR_ERROR_STATE, "program", diag,
              mlar_program_rebind(program, 0, &f.moved.bindings, f.stream, &diag));
    assert_null(mlar_program_graph(program));
    close_fixture(&f);
}

static void test_streams_that_are_not_the_devices(void **state) {
    (void)state;
    fixture f = open_fixture(NULL);
    mlar_program *program = device_engine_capture(f.run, 0, &f.moved, CAPACITY);
    mlar_step step = {.struct_size = sizeof step, .rows = ROWS};
    mlar_diag diag = DIAG_INIT;
    assert_int_equal(f.s.device->runtime.set_device(1), 0);
    void *other = session_stream(&f.s, 1), *gone = session_stream(&f.s, 1);
    assert_int_equal(f.s.device->runtime.set_device(0), 0);
    session_stream_free(&f.s, gone);
    void *const bad[] = {other, gone};
    for (int i = 0; i < 2; i++) {
        MUST(mlar_engine_step(f.run->engine, &step, f.stream));
        MUST(mlar_engine_prepare(f.run->engine, 0, &f.moved.bindings, NULL, f.stream, NULL));
        MUST_BE(MLAR_ERROR_DEVICE, mlar_program_replay(program, bad[i]));
        MUST_BE(MLAR_ERROR_DEVICE,
                mlar_engine_prepare(f.run->engine, 0, &f.moved.bindings, &step, bad[i], &diag));
        assert_non_null(strstr(diag.message, "hipErrorInvalidHandle"));
        MUST(mlar_engine_prepare(f.run->engine, 0, &f.moved.bindings, &step, f.stream, &diag));
        MUST_BE(MLAR_ERROR_DEVICE,
                mlar_engine_enqueue(f.run->engine, 0, &f.moved.bindings, CAPACITY, &step, bad[i], &diag));
        assert_int_equal(diag.device_error, 400);
        step.rows = 4 - step.rows; /* else nothing would be launched */
        MUST_BE(MLAR_ERROR_DEVICE, mlar_engine_step(f.run->engine, &step, bad[i]));
        still_right(
            &f,
            program); /* nor is the device thought lost: HIP calls an unknown stream's context destroyed */
    }
    session_stream_free(&f.s, other);
    close_fixture(&f);
}

static void test_a_bad_runtime_is_judged_by_the_configuration(void **state) {
    (void)state;
    standin_settings settings = session_settings();
    settings.version = 70200000;
    session s = session_begin(MLAR_TEST_STANDIN, &settings);
    MUST(session_open(&s, 0, MLAR_RUNTIME_ACCEPT, NULL));
    case_spec spec = engine_case_spec(5, ROWS, CAPACITY, 40, 200);
    step_case *made = case_new(&spec);
    mlar_config config = device_engine_config(s.device, (const step_case *const *)&made, 1);
    mlar_memory memory = {.struct_size = sizeof memory};
    MUST(mlar_memory_query(&config, &memory, NULL));
    mlar_arena arena;
    MUST(mlar_arena_from_pool(&arena, s.device, memory.device_bytes, NULL));
    void *host = NULL;
    mlar_engine *engine = NULL;
    mlar_diag diag = DIAG_INIT;
    assert_int_equal(posix_memalign(&host, 64, (size_t)memory.host_bytes), 0);
    for (int32_t check = MLAR_RUNTIME_WARN; check <= MLAR_RUNTIME_ACCEPT; check++) {
        config.runtime_check = check;
        diag = (mlar_diag)DIAG_INIT;
        mlar_status status =
            mlar_engine_init(&config, s.device, &arena, host, memory.host_bytes, &engine, &diag);
        assert_int_equal(status, check == MLAR_RUNTIME_REFUSE ? MLAR_ERROR_RUNTIME_BLOCKED : MLAR_OK);
        assert_int_equal(diag.status, status);
        assert_int_equal(strstr(diag.message, "clr #279") != NULL, check != MLAR_RUNTIME_ACCEPT);
        if (status == MLAR_OK) MUST(mlar_engine_deinit(engine));
    }
    MUST(mlar_arena_release(&arena, NULL));
    free(host);
    case_free(made);
    session_end(&s);
}

/* ---- the steady phase ---- */

static void test_the_steady_phase_allocates_nothing(void **state) {
    (void)state;
    static const char *const allocating[] = {
        "hipMalloc",          "hipMallocFromPoolAsync",   "hipMemPoolCreate",
        "hipModuleLoadData",  "hipStreamCreateWithFlags", "hipGraphInstantiateWithFlags",
        "hipMemcpyHtoDAsync", "hipMemcpyDtoHAsync",       "hipStreamBeginCapture"};
    for (int32_t route = 0; route < 2; route++) {
        mlar_config changes = {.update_route = route};
        fixture f = open_fixture(&changes);
        mlar_program *program = device_engine_capture(f.run, 0, &f.moved, CAPACITY);
        still_right(&f, program);
        const mlar_stats before = device_engine_stats(f.run, f.stream);
        const unsigned long heap = heap_calls;
        uint64_t asked = 0, now = 0, waits = f.s.control->calls("hipStreamSynchronize");
        for (size_t i = 0; i < sizeof allocating / sizeof *allocating; i++)
            asked += f.s.control->calls(allocating[i]);
        for (int i = 0; i < 1000; i++) {
            mlar_step step = {.struct_size = sizeof step, .rows = i % (CAPACITY + 1)};
            MUST(mlar_engine_step(f.run->engine, &step, f.stream));
            MUST(mlar_engine_prepare(f.run->engine, 0, &f.moved.bindings, NULL, f.stream, NULL));
            MUST(mlar_program_replay(program, f.stream));
            MUST(mlar_engine_prepare(f.run->engine, 0, &f.moved.bindings, &step, f.stream, NULL));
            MUST(mlar_engine_enqueue(f.run->engine, 0, &f.moved.bindings, CAPACITY, &step, f.stream, NULL));
            MUST(mlar_program_rebind(program, 0, &f.moved.bindings, f.stream, NULL));
            if (route == MLAR_UPDATE_NODE_PARAMS || i % 100 == 0) { /* that route wants no replay in flight */
                assert_int_equal(f.s.device->runtime.stream_synchronize(f.stream), 0);
                waits++;
            }
        }
        for (size_t i = 0; i < sizeof allocating / sizeof *allocating; i++)
            now += f.s.control->calls(allocating[i]);
        assert_int_equal(now, asked);
        assert_int_equal(f.s.control->calls("hipStreamSynchronize"), waits);
        assert_int_equal(heap_calls, heap);
        assert_int_equal(f.s.device->runtime.stream_synchronize(f.stream), 0);
        const mlar_stats after = device_engine_stats(f.run, f.stream);
        assert_int_equal(after.pool_used_bytes, before.pool_used_bytes);
        assert_int_equal(after.pool_used_high_bytes, before.pool_used_high_bytes);
        assert_int_equal(after.pool_reserved_bytes, before.pool_reserved_bytes);
        still_right(&f, program);
        close_fixture(&f);
    }
}

/* ---- the caller's current device ---- */

#define KEEPS(call)                                                                                          \
    do {                                                                                                     \
        MUST(call);                                                                                          \
        assert_int_equal(f.s.control->current_device(), 1);                                                  \
    } while (0)

static void test_the_callers_device_stays_current(void **state) {
    (void)state;
    for (int32_t route = 0; route < 2; route++) {
        mlar_config changes = all_on;
        changes.update_route = route;
        fixture f = {.s = session_new()};
        f.stream = session_stream(&f.s, 0);
        MUST(mlar_device_close(f.s.device));
        assert_int_equal(f.s.device == f.s.memory, 1);
        assert_int_equal(f.s.control->current_device(), 0);
        MUST(session_open(&f.s, 0, MLAR_RUNTIME_WARN, NULL));
        assert_int_equal(f.s.device->runtime.set_device(1), 0);
        MUST(mlar_device_close(f.s.device));
        KEEPS(session_open(&f.s, 0, MLAR_RUNTIME_WARN, NULL));
        open_engine(&f, &changes); /* pool, allocate, write, init, prepare, enqueue, wait and read */
        assert_int_equal(f.s.control->current_device(), 1);
        void *const streams[] = {f.stream, NULL};
        for (int i = 0; i < 2; i++) {
            mlar_engine *engine = f.run->engine;
            mlar_program *program = NULL;
            mlar_step step = {.struct_size = sizeof step, .rows = ROWS};
            mlar_stats stats = {.struct_size = sizeof stats};
            mlar_bindings again = f.moved.bindings;
            again.scale *= 2;
            device_case_poison(&f.moved);
            KEEPS(mlar_engine_capture(engine, 0, &again, 1, CAPACITY, &program, NULL));
            KEEPS(mlar_engine_step(engine, &step, streams[i]));
            KEEPS(mlar_program_rebind(program, 0, &f.moved.bindings, streams[i], NULL));
            KEEPS(mlar_engine_prepare(engine, 0, &f.moved.bindings, NULL, streams[i], NULL));
            KEEPS(mlar_program_replay(program, streams[i]));
            device_case_fetch(&f.moved, streams[i]);
            engine_case_same(f.made, f.right, "replay for another device than the current one");
            device_engine_eager(f.run, 0, &f.moved, streams[i]);
            engine_case_same(f.made, f.right, "eager for another device than the current one");
            KEEPS(mlar_engine_stats(engine, streams[i], &stats));
            KEEPS(mlar_engine_reset_counters(engine, streams[i]));
            KEEPS(mlar_engine_poison_scratch(engine, 3, streams[i]));
            KEEPS(mlar_engine_check_guards(engine, streams[i], NULL));
            KEEPS(mlar_engine_selftest(engine, streams[i], NULL));
            KEEPS(mlar_engine_invalidate(engine, streams[i]));
            KEEPS(mlar_program_destroy(program));
        }
        close_engine(&f);
        assert_int_equal(f.s.control->current_device(), 1);
        session_stream_free(&f.s, f.stream);
        session_end(&f.s);
    }
}

/* ---- guards on the device ---- */

static void test_a_guard_zone_on_the_device(void **state) {
    (void)state;
    fixture f = open_fixture(&all_on);
    mlar_program *program = device_engine_capture(f.run, 0, &f.moved, CAPACITY);
    still_right(&f, program);
    MUST(mlar_engine_check_guards(f.run->engine, f.stream, NULL));
    void *address = NULL;
    uint64_t bytes = 0;
    MUST(mlar_engine_buffer(f.run->engine, -1, "step", &address, &bytes));
    const unsigned char wrong = 0x11;
    mlar_diag diag = DIAG_INIT;
    MUST(mlar_device_write(f.s.device, (char *)address + bytes, &wrong, 1));
    MUST_BE(MLAR_ERROR_GUARD, mlar_engine_check_guards(f.run->engine, f.stream, &diag));
    if (strstr(diag.message, "step") == NULL) fail_msg("%s", diag.message);
    close_fixture(&f);
}

/* ---- a device that is lost ---- */

static void lost_everywhere(fixture *f, mlar_program *program, int error) {
    mlar_engine *engine = f->run->engine;
    mlar_bindings *bindings = &f->moved.bindings;
    mlar_step step = {.struct_size = sizeof step, .rows = 1};
    mlar_stats stats = {.struct_size = sizeof stats};
    mlar_program *more = NULL;
    mlar_diag diag;
    uint64_t calls = f->s.control->calls(NULL);
#define LOST(call)                                                                                           \
    do {                                                                                                     \
        MUST_NAME(MLAR_ERROR_DEVICE_LOST, "device", diag, call);                                             \
        assert_int_equal(diag.device_error, error); /* what the runtime said first */                        \
        assert_non_null(strstr(diag.message, "hipError"));                                                   \
    } while (0)
    LOST(mlar_engine_capture(engine, 0, bindings, 1, CAPACITY, &more, &diag));
    LOST(mlar_program_rebind(program, 0, bindings, f->stream, &diag));
    LOST(mlar_engine_prepare(engine, 0, bindings, &step, f->stream, &diag));
    LOST(mlar_engine_enqueue(engine, 0, bindings, CAPACITY, &step, f->stream, &diag));
    LOST(mlar_engine_selftest(engine, f->stream, &diag));
    LOST(mlar_engine_check_guards(engine, f->stream, &diag));
    MUST_BE(MLAR_ERROR_DEVICE_LOST, mlar_engine_step(engine, &step, f->stream));
    MUST_BE(MLAR_ERROR_DEVICE_LOST, mlar_program_replay(program, f->stream));
    MUST_BE(MLAR_ERROR_DEVICE_LOST, mlar_engine_stats(engine, f->stream, &stats));
    MUST_BE(MLAR_ERROR_DEVICE_LOST, mlar_engine_poison_scratch(engine, 1, f->stream));
    MUST(mlar_engine_invalidate(engine, f->stream));
    assert_int_equal(f->s.control->calls(NULL), calls); /* the device is left alone */
}

enum {
    LOST_AT_STEP,
    LOST_AT_PREPARE,
    LOST_AT_REPLAY,
    LOST_AT_STATS,
    LOST_AT_CAPTURE,
    LOST_UNSEEN,
    LOST_CASES
};

static void test_a_lost_device(void **state) {
    (void)state;
    for (int at = 0; at < LOST_CASES * 2; at++) {
        mlar_config changes = all_on;
        changes.update_route = at % 2;
        fixture f = open_fixture(&changes);
        mlar_engine *engine = f.run->engine;
        mlar_program *program = device_engine_capture(f.run, 0, &f.moved, CAPACITY), *more = NULL;
        mlar_step step = {.struct_size = sizeof step, .rows = 1};
        mlar_stats stats = {.struct_size = sizeof stats};
        const int error = at % 2 ? 719 : 700;
        still_right(&f, program);
        MUST(mlar_engine_step(engine, &step, f.stream));
        MUST(mlar_engine_prepare(engine, 0, &f.moved.bindings, NULL, f.stream, NULL));
        f.s.control->fail_call(1, error, 1);
        step.rows = 2;
        switch (at / 2) {
        case LOST_AT_STEP:
            MUST_BE(MLAR_ERROR_DEVICE_LOST, mlar_engine_step(engine, &step, f.stream));
            break;
        case LOST_AT_PREPARE:
            MUST_BE(MLAR_ERROR_DEVICE_LOST,
                    mlar_engine_prepare(engine, 0, &f.moved.bindings, &step, f.stream, NULL));
            break;
        case LOST_AT_REPLAY:
            MUST_BE(MLAR_ERROR_DEVICE_LOST, mlar_program_replay(program, f.stream));
            break;
        case LOST_AT_STATS:
            MUST_BE(MLAR_ERROR_DEVICE_LOST, mlar_engine_stats(engine, f.stream, &stats));
            break;
        case LOST_AT_CAPTURE:
            MUST_BE(MLAR_ERROR_DEVICE_LOST,
                    mlar_engine_capture(engine, 0, &f.moved.bindings, 1, CAPACITY, &more, NULL));
            break;
        default:
            break; /* deinit is the first to hear of it */
        }
        if (at / 2 != LOST_UNSEEN) lost_everywhere(&f, program, error);
        MUST_BE(MLAR_ERROR_DEVICE_LOST, mlar_engine_deinit(engine));
        MUST_BE(MLAR_ERROR_STATE, mlar_engine_deinit(engine));
        MUST_BE(MLAR_ERROR_STATE, mlar_program_replay(program, f.stream));
        MUST(mlar_arena_release(&f.run->arena, NULL)); /* the device took it along */
        MUST_BE(MLAR_ERROR_DEVICE_LOST, mlar_device_free(f.s.device, f.moved.on_device[0]));
        MUST_BE(MLAR_ERROR_DEVICE_LOST, mlar_device_close(f.s.device));
        f.s.device = NULL;
        free(f.run->host_memory);
        free(f.run);
        case_free(f.made);
        free(f.right);
        standin_settings settings = session_settings();
        f.s.control->reset(&settings); /* what was alive there went down with it */
        session_end(&f.s);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_while_the_host_captures),
        cmocka_unit_test(test_setup_while_an_unseen_stream_is_captured),
        cmocka_unit_test(test_captures_of_other_threads),
        cmocka_unit_test(test_wrong_states),
        cmocka_unit_test(test_streams_that_are_not_the_devices),
        cmocka_unit_test(test_a_bad_runtime_is_judged_by_the_configuration),
        cmocka_unit_test(test_the_steady_phase_allocates_nothing),
        cmocka_unit_test(test_the_callers_device_stays_current),
        cmocka_unit_test(test_a_guard_zone_on_the_device),
        cmocka_unit_test(test_a_lost_device),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
