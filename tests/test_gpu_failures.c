/* SPDX-License-Identifier: Apache-2.0
 *
 * test_gpu_failures.c: every call into the runtime made to fail once, in turn, over the life of an engine on the
 * stand-in (tests/standin): open, pool, init, capture, step, prepare, replay, rebind, enqueue, inspection, deinit,
 * release, close.
 *
 * The public call in which it happens has to say so, with the runtime's own name and code where it has a diag; the same
 * call made again has to succeed; results have to be right in the end; and nothing may be left. Then the same with a
 * device that is gone from that call on: every call has to come back, and deinit has to let go. And what a prepare or a
 * rebind leaves behind that failed and is not made again. */
#define _POSIX_C_SOURCE 200112L /* posix_memalign */
#include "engine/arena_api.h"
#include "tests/standin/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 2, CAPACITY = 3, OUT_OF_MEMORY = 2, ILLEGAL_ADDRESS = 700, UNKNOWN = 999 };

/* How a life is led, and what happened in it. */
typedef struct life {
    session s;
    step_case *made;
    uint8_t *right, *doubled; /* with the case's scale, and with twice that */
    int32_t policy, route;
    int own_stream, elsewhere,
        inspect; /* a stream of the host's; another device is current; self-test and guards */
    void *stream;
    int error, lasting;
    const char *reported; /* the public call that reported the failure, or NULL */
} life;

/* Failures that nobody is told of, because nothing is lost by them. */
static int is_tolerable(const life *l, const char *call) {
    static const char *const calls[] = {
        "hipDeviceTotalMem", /* info: the figure is 0 */
        "hipDeviceGetName",  /* info: the name is empty */
        "hipMemPoolDestroy", /* the memory was given back by then */
    };
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        if (strcmp(calls[i], call) == 0) return 1;
    /* The caller's device is put back when the pool is gone already. */
    return strcmp(call, "hipSetDevice") == 0 && l->s.control->calls("hipMemPoolDestroy") > 0;
}

static void judge(life *l, const char *call, mlar_status status, const mlar_diag *diag) {
    const char *last = l->s.control->last_call(), *name = mlar_status_name(status);
    if (!l->s.control->failed())
        fail_msg("%s: %s: %s, and no failure was ordered", call, name, diag->message);
    if (l->reported != NULL && !l->lasting)
        fail_msg("%s: %s; %s had reported it already", call, name, l->reported);
    if (l->reported == NULL) l->reported = call;
    mlar_status wanted = l->error == OUT_OF_MEMORY     ? MLAR_ERROR_OUT_OF_MEMORY
                         : l->error == ILLEGAL_ADDRESS ? MLAR_ERROR_DEVICE_LOST
                                                       : MLAR_ERROR_DEVICE;
    if (status != wanted && status != MLAR_ERROR_NO_DEVICE) /* that, where there was no device yet */
        fail_msg("%s: %s, after %s", call, name, last);
    if (strstr(call, "&diag") == NULL) return;
    const char *error = l->error == OUT_OF_MEMORY     ? "hipErrorOutOfMemory"
                        : l->error == ILLEGAL_ADDRESS ? "hipErrorIllegalAddress"
                                                      : "hipErrorUnknown";
    if (strstr(diag->message, error) == NULL || diag->device_error != l->error || diag->status != status)
        fail_msg("%s: the diagnostic is '%s', code %d, after %s", call, diag->message,
                 (int)diag->device_error, last);
}

/* A public call: if it fails, that was ordered, and it works when it is made again. */
#define TRY(call)                                                                                            \
    do {                                                                                                     \
        diag = (mlar_diag)DIAG_INIT;                                                                         \
        mlar_status status_ = (call);                                                                        \
        if (status_ == MLAR_OK) break;                                                                       \
        judge(l, #call, status_, &diag);                                                                     \
        if (l->lasting) goto lost;                                                                           \
        diag = (mlar_diag)DIAG_INIT;                                                                         \
        status_ = (call);                                                                                    \
        if (status_ != MLAR_OK)                                                                              \
            fail_msg("%s fails again after %s had failed: %s: %s", #call, l->s.control->last_call(),         \
                     mlar_status_name(status_), diag.message);                                               \
    } while (0)

/* One that does its work whatever it reports. */
static void once(life *l, const char *call, mlar_status status) {
    const mlar_diag none = DIAG_INIT;
    if (status != MLAR_OK) judge(l, call, status, &none);
}

static void fetch_and_compare(life *l, device_case *moved, const uint8_t *wanted, const char *what) {
    mlar_diag diag;
    TRY(mlar_device_wait(moved->device, l->stream));
    for (int32_t i = 0; i < l->made->buffer_count; i++) {
        const case_buffer *b = &l->made->buffers[i];
        if (b->is_output) TRY(mlar_device_read(moved->device, b->memory, moved->on_device[i], b->bytes));
    }
    engine_case_same(l->made, wanted, what);
lost:
    return;
}

/* What an engine goes through between init and deinit. */
static void use_engine(life *l, mlar_engine *engine, device_case *moved) {
    mlar_diag diag;
    mlar_program *program = NULL;
    mlar_step step = {.struct_size = sizeof step, .rows = ROWS};
    mlar_stats stats = {.struct_size = sizeof stats};
    mlar_bindings *first = &moved->bindings, doubled = *first;
    doubled.scale *= 2;
    TRY(mlar_engine_capture(engine, 0, first, 1, CAPACITY, &program, &diag));
    TRY(mlar_engine_step(engine, &step, l->stream));
    TRY(mlar_engine_prepare(engine, 0, first, NULL, l->stream, &diag));
    TRY(mlar_program_replay(program, l->stream));
    fetch_and_compare(l, moved, l->right, "replay");
    TRY(mlar_program_rebind(program, 0, &doubled, l->stream, &diag));
    TRY(mlar_program_replay(program, l->stream));
    fetch_and_compare(l, moved, l->doubled, "rebound");
    TRY(mlar_program_rebind(program, 0, first, l->stream, &diag));
    step.rows = 1;
    TRY(mlar_engine_step(engine, &step, l->stream));
    step.rows = ROWS;
    TRY(mlar_engine_step(engine, &step, l->stream));
    TRY(mlar_engine_prepare(engine, 0, first, NULL, l->stream, &diag));
    TRY(mlar_program_replay(program, l->stream));
    fetch_and_compare(l, moved, l->right, "rebound again");
    TRY(mlar_engine_prepare(engine, 0, &doubled, &step, l->stream, &diag));
    TRY(mlar_engine_enqueue(engine, 0, &doubled, CAPACITY, &step, l->stream, &diag));
    fetch_and_compare(l, moved, l->doubled, "enqueue");
    TRY(mlar_engine_stats(engine, l->stream, &stats));
    TRY(mlar_engine_reset_counters(engine, l->stream));
    if (l->inspect) {
        TRY(mlar_engine_poison_scratch(engine, 5, l->stream));
        TRY(mlar_engine_check_guards(engine, l->stream, &diag));
        TRY(mlar_engine_selftest(engine, l->stream, &diag));
    }
    once(l, "destroy", mlar_program_destroy(program));
    TRY(mlar_engine_capture(engine, 0, first, 1, CAPACITY, &program, &diag)); /* this one is left to deinit */
    TRY(mlar_engine_step(engine, &step, l->stream));
    TRY(mlar_engine_prepare(engine, 0, first, NULL, l->stream, &diag));
    TRY(mlar_program_replay(program, l->stream));
    fetch_and_compare(l, moved, l->right, "captured again");
lost:
    return;
}

static void let_go(life *l, mlar_arena *arena, device_case *moved) {
    for (int turn = 0; mlar_arena_core_of(arena)->base != NULL; turn++) {
        mlar_diag diag = DIAG_INIT;
        mlar_status status = mlar_arena_release(arena, &diag);
        if (status == MLAR_OK) break;
        if (turn > 0) fail_msg("the arena could not be released: %s", diag.message);
        judge(l, "mlar_arena_release(arena, &diag)", status, &diag);
    }
    if (moved->device == NULL) return;
    for (int32_t i = 0; i < l->made->buffer_count; i++) {
        mlar_status status = mlar_device_free(moved->device, moved->on_device[i]);
        once(l, "free", status);
        /* Whether it was freed before the error is not known: what was not is found by counting. */
        if (status != MLAR_OK) (void)mlar_device_free(moved->device, moved->on_device[i]);
    }
    once(l, "close", mlar_device_close(moved->device));
}

/* From open to close. */
static void live(life *l) {
    mlar_diag diag;
    mlar_device_options options = {
        .struct_size = sizeof options, .device = MLAR_DEVICE_HIP, .library = l->s.library};
    mlar_device_info info = {.struct_size = sizeof info};
    mlar_memory memory = {.struct_size = sizeof memory};
    mlar_arena arena = {{0}};
    mlar_engine *engine = NULL;
    void *host = NULL;
    device_case moved = {.made = l->made};
    step_case there = *l->made;
    TRY(mlar_device_open(l->s.memory, mlar_device_bytes(), &options, &moved.device, &diag));
    TRY(mlar_device_info_of(moved.device, &info));
    mlar_config config = engine_case_config((const step_case *const *)&l->made, 1);
    config.device = info.profile;
    config.policy = l->policy;
    config.update_route = l->route;
    config.selftest = l->inspect;
    config.guard_bytes = l->inspect ? 256 : 0;
    TRY(mlar_memory_query(&config, &memory, &diag));
    assert_int_equal(posix_memalign(&host, 64, (size_t)memory.host_bytes), 0);
    TRY(mlar_arena_from_pool(&arena, moved.device, memory.device_bytes, &diag));
    for (int32_t i = 0; i < l->made->buffer_count; i++) {
        const case_buffer *b = &l->made->buffers[i];
        TRY(mlar_device_allocate(moved.device, b->bytes, &moved.on_device[i], &diag));
        TRY(mlar_device_write(moved.device, moved.on_device[i], b->memory, b->bytes));
        case_point(&there.layer, b, moved.on_device[i]);
    }
    moved.bindings = case_bindings(&there.layer);
    TRY(mlar_engine_init(&config, moved.device, &arena, host, memory.host_bytes, &engine, &diag));
    use_engine(l, engine, &moved);
lost:
    if (engine != NULL) once(l, "deinit", mlar_engine_deinit(engine));
    let_go(l, &arena, &moved);
    free(host);
}

/* Lives once for every stride-th call, until a life is over before the ordered failure. Returns how often. */
static int sweep(life *l, int error, int lasting, uint64_t stride) {
    const standin_settings settings = session_settings();
    const standin_control *control = l->s.control;
    l->error = error;
    l->lasting = lasting;
    for (uint64_t nth = 1;; nth += stride) {
        char text[160];
        control->reset(&settings);
        control->make_current(0);
        l->stream = l->own_stream ? control->new_stream(1) : NULL;
        control->make_current(l->elsewhere);
        l->reported = NULL;
        case_poison_outputs(l->made);
        control->fail_call(nth, error, lasting);
        live(l);
        if (l->stream != NULL) control->end_stream(l->stream);
        const char *last = control->last_call();
        if (control->violation() != NULL) fail_msg("call %d, %s: %s", (int)nth, last, control->violation());
        if (!lasting && control->alive(text, sizeof text) != 0)
            fail_msg("call %d, %s: still alive: %s", (int)nth, last, text);
        if (!control->failed()) {
            assert_null(l->reported);
            return (int)(nth / stride);
        }
        if (l->reported == NULL && !is_tolerable(l, last))
            fail_msg("call %d, %s, failed and nobody said so", (int)nth, last);
        if (!lasting && strcmp(last, "hipSetDevice") != 0)
            assert_int_equal(control->current_device(), l->elsewhere);
    }
}

/* ---- the runs ---- */

static uint8_t *on_the_cpu(const mlar_config *like, step_case *made, float scale) {
    mlar_config config = engine_case_config((const step_case *const *)&made, 1);
    const float saved = made->layer.scale;
    config.policy = like->policy;
    config.device.compute_units = session_settings().units;
    snprintf(config.cpu_isa, sizeof config.cpu_isa, "scalar");
    made->layer.scale *= scale;
    engine_case_fresh(&config, made);
    made->layer.scale = saved;
    return engine_case_take(made);
}

static life begin(int32_t which) {
    standin_settings settings = session_settings();
    life l = {.s = session_begin(MLAR_TEST_STANDIN, &settings),
              .policy = which % 2 ? MLAR_POLICY_BATCH_INVARIANT : MLAR_POLICY_BALANCED,
              .route = which / 2 % 2 ? MLAR_UPDATE_NODE_PARAMS : MLAR_UPDATE_STEP_BLOCK,
              .own_stream = which % 3 != 0,
              .elsewhere = which % 4 == 1 || which % 4 == 2};
    case_spec spec = engine_case_spec(9, ROWS, CAPACITY, 40, 100);
    l.made = case_new(&spec);
    mlar_config like = {.policy = l.policy};
    l.right = on_the_cpu(&like, l.made, 1);
    l.doubled = on_the_cpu(&like, l.made, 2);
    return l;
}

static void end(life *l) {
    free(l->right);
    free(l->doubled);
    case_free(l->made);
    standin_settings settings = session_settings();
    l->s.control->reset(&settings);
    session_end(&l->s);
}

static void test_every_call_fails_once(void **state) {
    (void)state;
    for (int32_t which = 0; which < 4; which++) {
        life l = begin(which);
        const int lives = sweep(&l, which % 2 ? OUT_OF_MEMORY : UNKNOWN, 0, 1);
        assert_true(lives > 150);
        printf("policy %d, route %d: %d calls, each failed once\n", (int)l.policy, (int)l.route, lives);
        end(&l);
    }
}

static void test_the_device_is_lost_at_every_call(void **state) {
    (void)state;
    for (int32_t which = 0; which < 4; which++) {
        life l = begin(which);
        const int lives = sweep(&l, ILLEGAL_ADDRESS, 1, 1);
        assert_true(lives > 150);
        printf("policy %d, route %d: lost at each of %d calls\n", (int)l.policy, (int)l.route, lives);
        end(&l);
    }
}

/* Self-test, poison and guards: thousands of copies, so not at every call of theirs. */
static void test_inspection_fails(void **state) {
    (void)state;
    for (int32_t which = 0; which < 4; which++) {
        life l = begin(which);
        l.inspect = 1;
        printf("%d failures during inspection\n", sweep(&l, UNKNOWN, 0, 13));
        printf("%d losses during inspection\n", sweep(&l, ILLEGAL_ADDRESS, 1, 23));
        end(&l);
    }
}

/* ---- what a failed call leaves behind ---- */

typedef struct fixture {
    session s;
    step_case *made;
    device_case moved, other;
    device_engine *run;
    mlar_program *program;
    uint8_t *right;
} fixture;

/* In row tiles of one row, so that prepare is several launches. */
static fixture open_fixture(void) {
    fixture f = {.s = session_new()};
    case_spec spec = engine_case_spec(5, ROWS, CAPACITY, 40, 200);
    mlar_memory memory = {.struct_size = sizeof memory};
    f.made = case_new(&spec);
    f.moved = device_case_new(f.s.device, f.made);
    f.other = device_case_new(f.s.device, f.made);
    mlar_config config = device_engine_config(f.s.device, (const step_case *const *)&f.made, 1);
    config.strategy = MLAR_STRATEGY_GATHER;
    MUST(mlar_memory_query(&config, &memory, NULL));
    config.budget_bytes = memory.minimum_budget_bytes;
    f.run = device_engine_open(f.s.device, &config);
    assert_int_equal(f.run->memory.row_tile[0], 1);
    f.program = device_engine_capture(f.run, 0, &f.moved, CAPACITY);
    device_engine_replay(f.run, f.program, 0, &f.moved, ROWS, NULL);
    f.right = engine_case_take(f.made);
    return f;
}

static void close_fixture(fixture *f) {
    device_engine_close(f->run);
    device_case_free(&f->moved);
    device_case_free(&f->other);
    case_free(f->made);
    free(f->right);
    session_end(&f->s);
}

/* A schedule that is half another step's serves neither. */
static void test_a_failed_prepare_leaves_no_schedule(void **state) {
    (void)state;
    fixture f = open_fixture();
    const mlar_step step = {.struct_size = sizeof step, .rows = ROWS},
                    one = {.struct_size = sizeof one, .rows = 1};
    int32_t refused = 0;
    for (uint64_t call = 1;; call++) {
        MUST(mlar_engine_step(f.run->engine, &step, NULL));
        MUST(mlar_engine_prepare(f.run->engine, 0, &f.moved.bindings, NULL, NULL, NULL));
        f.s.control->fail_call(call, UNKNOWN, 0);
        const mlar_status status = mlar_engine_prepare(f.run->engine, 0, &f.moved.bindings, &one, NULL, NULL);
        const int failed = f.s.control->failed();
        f.s.control->fail_call(0, 0, 0);
        if (!failed) break;
        assert_int_equal(status, MLAR_ERROR_DEVICE);
        device_case_poison(&f.moved);
        const mlar_status replayed = mlar_program_replay(f.program, NULL);
        if (replayed == MLAR_OK) {
            device_case_fetch(&f.moved, NULL);
            engine_case_same(f.made, f.right, "replay after a prepare that failed");
        } else {
            assert_int_equal(replayed, MLAR_ERROR_STATE);
            refused++;
        }
    }
    assert_true(refused > 0);
    close_fixture(&f);
}

static void test_a_failed_rebind_changes_nothing(void **state) {
    (void)state;
    fixture f = open_fixture();
    int32_t refused = 0;
    for (uint64_t call = 1;; call++) {
        MUST(mlar_program_rebind(f.program, 0, &f.moved.bindings, NULL, NULL));
        f.s.control->fail_call(call, UNKNOWN, 0);
        const mlar_status status = mlar_program_rebind(f.program, 0, &f.other.bindings, NULL, NULL);
        const int failed = f.s.control->failed();
        f.s.control->fail_call(0, 0, 0);
        if (!failed) break;
        assert_int_equal(status, MLAR_ERROR_DEVICE);
        device_case_poison(&f.moved);
        device_case_poison(&f.other);
        MUST(mlar_program_replay(f.program, NULL));
        device_case_fetch(&f.moved, NULL);
        engine_case_same(f.made, f.right, "replay after a rebind that failed");
        refused++;
    }
    assert_true(refused > 0);
    close_fixture(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_call_fails_once),
        cmocka_unit_test(test_the_device_is_lost_at_every_call),
        cmocka_unit_test(test_inspection_fails),
        cmocka_unit_test(test_a_failed_prepare_leaves_no_schedule),
        cmocka_unit_test(test_a_failed_rebind_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
