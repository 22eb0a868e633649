/* SPDX-License-Identifier: Apache-2.0
 *
 * test_gpu_failures.c: every call into the runtime made to fail once, in turn, over the life of an engine on the stand-in
 * (tests/standin): open, pool, init, capture, step, prepare, replay, rebind, enqueue, inspection, deinit, release, close.
 *
 * The public call in which it happens has to say so, with the runtime's own name and code where it has a diag; the same
 * call made again has to succeed; results have to be right in the end; and nothing may be left. Then the same with a
 * device that is gone from that call on: every call has to come back, and deinit has to let go. */
#define _POSIX_C_SOURCE 200112L /* posix_memalign */
#include "engine/engine.h"
#include "tests/standin/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 2, CAPACITY = 3 };

/* What is the same in all runs. */
typedef struct life {
    session s;
    step_case *made;
    uint8_t *right, *doubled; /* with the case's scale, and with twice that */
    int32_t policy, route, current_device, inspect;
    int own_stream;
    /* of this run */
    int error, lasting, refused;
    int reported;
    const char *where; /* the public call that reported it */
} life;

/* Failures that nobody is told of, because nothing is lost by them. */
static int is_tolerable(const char *call) {
    static const char *const calls[] = {
        "hipDeviceTotalMem",   /* info: the figure is 0 */
        "hipDeviceGetName",    /* info: the name is empty */
        "hipMemPoolDestroy",   /* the memory was given back by then */
        "hipStreamSynchronize" /* before that, likewise: see where below */
    };
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        if (strcmp(calls[i], call) == 0) return 1;
    return 0;
}

static void judge(life *l, const char *call, mlar_status status, const mlar_diag *diag) {
    const char *name = l->error == 2 ? "hipErrorOutOfMemory" : l->error == 700 ? "hipErrorIllegalAddress" : "hipErrorUnknown";
    if (!l->s.control->failed()) fail_msg("%s: %s: %s, and no failure was ordered", call, mlar_status_name(status), diag->message);
    if (l->reported && !l->lasting) fail_msg("%s reports %s a second time, after %s", call, mlar_status_name(status), l->where);
    if (!l->reported) l->where = call;
    l->reported = 1;
    mlar_status wanted = l->error == 2 ? MLAR_ERROR_OUT_OF_MEMORY : l->error == 700 ? MLAR_ERROR_DEVICE_LOST : MLAR_ERROR_DEVICE;
    if (status != wanted && status != MLAR_ERROR_NO_DEVICE) /* that, where there was no device yet */
        fail_msg("%s: %s after %s", call, mlar_status_name(status), l->s.control->last_call());
    if (strstr(call, "&diag") == NULL) return;
    if (strstr(diag->message, name) == NULL || diag->device_error != l->error || diag->status != status)
        fail_msg("%s: the diagnostic is '%s', code %d, after %s", call, diag->message, (int)diag->device_error,
                 l->s.control->last_call());
}

/* A public call: if it fails, it was ordered to, and it works when it is made again. */
#define TRY(call)                                                                                               \
    do {                                                                                                        \
        diag = (mlar_diag)DIAG_INIT;                                                                            \
        mlar_status status_ = (call);                                                                           \
        if (status_ == MLAR_OK) break;                                                                          \
        judge(l, #call, status_, &diag);                                                                        \
        if (l->lasting) goto lost;                                                                              \
        diag = (mlar_diag)DIAG_INIT;                                                                            \
        status_ = (call);                                                                                       \
        if (status_ != MLAR_OK)                                                                                 \
            fail_msg("again, after %s: %s: %s: %s", l->s.control->last_call(), #call, mlar_status_name(status_), \
                     diag.message);                                                                             \
    } while (0)
/* One that does its work whatever it reports. */
#define TRY_ONCE(call)                                                                                          \
    do {                                                                                                        \
        mlar_status status_ = (call);                                                                           \
        if (status_ != MLAR_OK) judge(l, #call, status_, &diag);                                                \
    } while (0)

static void fetch_and_compare(life *l, device_case *moved, mlar_device *device, void *stream, const uint8_t *wanted,
                              const char *what) {
    mlar_diag diag;
    TRY(mlar_device_wait(device, stream));
    for (int32_t i = 0; i < l->made->buffer_count; i++) {
        const case_buffer *buffer = &l->made->buffers[i];
        if (buffer->is_output) TRY(mlar_device_read(device, buffer->memory, moved->on_device[i], buffer->bytes));
    }
    engine_case_same(l->made, wanted, what);
lost:
    return;
}

/* What an engine goes through between init and deinit. Returns 0 if the device was lost on the way. */
static int use_engine(life *l, mlar_engine *engine, device_case *moved, mlar_device *device, void *stream) {
    mlar_diag diag;
    mlar_program *program = NULL;
    mlar_step step = {.struct_size = sizeof step, .rows = ROWS};
    mlar_stats stats = {.struct_size = sizeof stats};
    mlar_bindings doubled = moved->bindings;
    doubled.scale *= 2;
    TRY(mlar_engine_capture(engine, 0, &moved->bindings, 1, CAPACITY, &program, &diag));
    TRY(mlar_engine_step(engine, &step, stream));
    TRY(mlar_engine_prepare(engine, 0, &moved->bindings, NULL, stream, &diag));
    TRY(mlar_program_replay(program, stream));
    fetch_and_compare(l, moved, device, stream, l->right, "replay");
    TRY(mlar_program_rebind(program, 0, &doubled, stream, &diag));
    TRY(mlar_program_replay(program, stream));
    fetch_and_compare(l, moved, device, stream, l->doubled, "rebound");
    TRY(mlar_program_rebind(program, 0, &moved->bindings, stream, &diag));
    step.rows = 1;
    TRY(mlar_engine_step(engine, &step, stream));
    step.rows = ROWS;
    TRY(mlar_engine_step(engine, &step, stream));
    TRY(mlar_engine_prepare(engine, 0, &moved->bindings, NULL, stream, &diag));
    TRY(mlar_program_replay(program, stream));
    fetch_and_compare(l, moved, device, stream, l->right, "rebound again");
    TRY(mlar_engine_prepare(engine, 0, &doubled, &step, stream, &diag));
    TRY(mlar_engine_enqueue(engine, 0, &doubled, CAPACITY, &step, stream, &diag));
    fetch_and_compare(l, moved, device, stream, l->doubled, "enqueue");
    TRY(mlar_engine_stats(engine, stream, &stats));
    TRY(mlar_engine_reset_counters(engine, stream));
    if (l->inspect) {
        TRY(mlar_engine_poison_scratch(engine, 5, stream));
        TRY(mlar_engine_check_guards(engine, stream, &diag));
        TRY(mlar_engine_selftest(engine, stream, &diag));
    }
    TRY_ONCE(mlar_program_destroy(program));
    program = NULL;
    TRY(mlar_engine_capture(engine, 0, &moved->bindings, 1, CAPACITY, &program, &diag)); /* left for deinit */
    TRY(mlar_engine_step(engine, &step, stream));
    TRY(mlar_engine_prepare(engine, 0, &moved->bindings, NULL, stream, &diag));
    TRY(mlar_program_replay(program, stream));
    TRY(mlar_device_wait(device, stream));
    return 1;
lost:
    return 0;
}

/* One whole life, from open to close. */
static void live(life *l) {
    mlar_diag diag;
    mlar_device *device = NULL;
    mlar_device_options options = {
        .struct_size = sizeof options, .device = MLAR_DEVICE_HIP, .library = l->s.library};
    mlar_device_info info = {.struct_size = sizeof info};
    mlar_memory memory = {.struct_size = sizeof memory};
    mlar_arena arena = {{0}};
    mlar_engine *engine = NULL;
    void *host = NULL;
    device_case moved = {.made = l->made};
    step_case there = *l->made;

    TRY(mlar_device_open(l->s.memory, mlar_device_bytes(), &options, &device, &diag));
    TRY(mlar_device_info_of(device, &info));
    mlar_config config = engine_case_config((const step_case *const *)&l->made, 1);
    config.device = info.profile;
    config.policy = l->policy;
    config.update_route = l->route;
    config.selftest = l->inspect;
    config.guard_bytes = l->inspect ? 256 : 0;
    TRY(mlar_memory_query(&config, &memory, &diag));
    TRY(mlar_arena_from_pool(&arena, device, memory.device_bytes, &diag));
    assert_int_equal(posix_memalign(&host, 64, (size_t)memory.host_bytes), 0);
    for (int32_t i = 0; i < l->made->buffer_count; i++) {
        const case_buffer *buffer = &l->made->buffers[i];
        TRY(mlar_device_allocate(device, buffer->bytes, &moved.on_device[i], &diag));
        TRY(mlar_device_write(device, moved.on_device[i], buffer->memory, buffer->bytes));
        void *pointer = (char *)moved.on_device[i] + buffer->begin_bytes;
        memcpy((char *)&there.layer + buffer->pointer_at, &pointer, sizeof pointer);
    }
    moved.bindings = engine_case_bindings(&there);
    TRY(mlar_engine_init(&config, device, &arena, host, memory.host_bytes, &engine, &diag));
    void *stream = l->own_stream ? engine->backend->graph == NULL ? NULL : l->s.memory : NULL;
    stream = NULL;
    (void)use_engine(l, engine, &moved, device, stream);
lost:
    if (engine != NULL) TRY_ONCE(mlar_engine_deinit(engine));
    for (int i = 0; i < 2 && arena.opaque[0] != 0; i++) { /* again if it could not be released at once */
        diag = (mlar_diag)DIAG_INIT;
        mlar_status status = mlar_arena_release(&arena, &diag);
        if (status == MLAR_OK) break;
        judge(l, "mlar_arena_release(&arena, &diag)", status, &diag);
        if (i == 1) fail_msg("the arena could not be released: %s", diag.message);
    }
    for (int32_t i = 0; device != NULL && i < l->made->buffer_count; i++)
        if (mlar_device_free(device, moved.on_device[i]) != MLAR_OK && l->s.control->failed() && !l->lasting) {
            l->reported = 1; /* done all the same, unless it was refused: by a capture, or for want of a device */
            (void)mlar_device_free(device, moved.on_device[i]);
        }
    if (device != NULL) TRY_ONCE(mlar_device_close(device));
    free(host);
}

/* Lives once for every call, until a life is over before the ordered failure. Returns how many. */
static uint64_t sweep(life *l, int error, int lasting, uint64_t stride) {
    const standin_settings settings = session_settings();
    uint64_t lives = 0;
    for (uint64_t nth = 1;; nth += stride, lives++) {
        char text[160];
        l->s.control->reset(&settings);
        l->error = error;
        l->lasting = lasting;
        l->reported = 0;
        l->where = "";
        case_poison_outputs(l->made);
        if (l->current_device) {
            /* not through the library: the library has to find it so, and to leave it so */
            int (*set)(int) = NULL;
            (void)set;
        }
        l->s.control->fail_call(nth, error, lasting, 0);
        live(l);
        if (!l->s.control->failed()) break;
        if (!l->reported && !is_tolerable(l->s.control->last_call()))
            fail_msg("call %d, %s, failed and nobody said so", (int)nth, l->s.control->last_call());
        if (!lasting && l->s.control->alive(text, sizeof text) != 0)
            fail_msg("call %d, %s, failed in %s: still alive: %s", (int)nth, l->s.control->last_call(), l->where, text);
        if (l->s.control->violation() != NULL)
            fail_msg("call %d, %s: %s", (int)nth, l->s.control->last_call(), l->s.control->violation());
        assert_int_equal(l->s.control->current_device(), l->current_device);
    }
    assert_false(l->reported);
    return lives;
}
