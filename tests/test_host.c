/* SPDX-License-Identifier: Apache-2.0
 *
 * test_host.c: what a host brings along: its floating-point mode, its own threads, its signals. The mode is
 * kept and changes no bit; a parallel_for of the host's runs the items in whatever order it likes; signals
 * stay the host's. */
#define _GNU_SOURCE /* pthread_sigmask, usleep */
#include "tests/support/check.h"
#include "tests/support/engine_case.h"

#include <fenv.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

static step_case *make(uint64_t seed) {
    case_spec spec = engine_case_spec(seed, 4, 5, 90, 300);
    spec.features = CASE_SPECIALS | CASE_SINKS | CASE_WILD;
    spec.scope[1].layout = MLAR_LAYOUT_DSV4;
    return case_new(&spec);
}

static mlar_config config_of(const step_case *made, int32_t way) {
    mlar_config config = engine_case_config(&made, 1);
    config.policy = way & 1;
    config.strategy = way & 2 ? MLAR_STRATEGY_GATHER : MLAR_STRATEGY_DIRECT;
    return config;
}

/* ---- the floating-point mode --------------------------------------------------------------------------- */

#if defined(__x86_64__)

enum { FTZ = 0x8000, DAZ = 0x0040, MODE_BITS = 0xffc0 };

static const struct {
    const char *name;
    uint32_t mode;
} modes[] = {
    {"flush to zero", 0x1f80 | FTZ},
    {"denormals are zero", 0x1f80 | DAZ},
    {"both", 0x1f80 | FTZ | DAZ},
    {"down", 0x1f80 | 0x2000},
    {"up", 0x1f80 | 0x4000},
    {"towards zero", 0x1f80 | 0x6000},
    {"towards zero, both; invalid, division and overflow trap", 0x1900 | 0x6000 | FTZ | DAZ},
};

/* A whole life of an engine in one mode; every call must leave it as it was. */
static void live(const step_case *original, int32_t way, int32_t threads, uint32_t mode, uint8_t **right,
                 const char *name) {
    step_case *made = make(original->spec.seed);
    mlar_config config = config_of(made, way);
    mlar_bindings bindings = case_bindings(&made->layer);
    mlar_step step = {.struct_size = sizeof step, .rows = made->spec.rows};
    config.threads = threads;
    config.selftest = 1;
    engine_case *run = engine_case_open(&config);
    mlar_program *program = NULL;
    mlar_stats stats = {.struct_size = sizeof stats};
    mlar_status statuses[10];
    uint32_t after[10];
    const uint32_t before = _mm_getcsr();
    int count = 0;
    case_poison_outputs(made);
    _mm_setcsr(mode);
#define CALL(call) (statuses[count] = (call), after[count++] = _mm_getcsr(), _mm_setcsr(mode))
    CALL(mlar_engine_capture(run->engine, 0, &bindings, 1, made->spec.capacity_rows, &program, NULL));
    CALL(mlar_engine_selftest(run->engine, NULL, NULL));
    CALL(mlar_engine_step(run->engine, &step, NULL));
    CALL(mlar_engine_prepare(run->engine, 0, &bindings, NULL, NULL, NULL));
    CALL(mlar_program_replay(program, NULL));
    uint8_t *replayed = engine_case_take(made);
    case_poison_outputs(made);
    CALL(mlar_engine_prepare(run->engine, 0, &bindings, &step, NULL, NULL));
    CALL(mlar_engine_enqueue(run->engine, 0, &bindings, made->spec.capacity_rows, &step, NULL, NULL));
    CALL(mlar_engine_stats(run->engine, NULL, &stats));
    CALL(mlar_program_destroy(program));
#undef CALL
    _mm_setcsr(before);
    for (int i = 0; i < count; i++) {
        if (statuses[i] != MLAR_OK) fail_msg("%s, call %d: %s", name, i, mlar_status_name(statuses[i]));
        if ((after[i] & MODE_BITS) != (mode & MODE_BITS)) fail_msg("%s: call %d left %#x", name, i, after[i]);
    }
    if (*right == NULL) *right = engine_case_take(made);
    engine_case_same(made, *right, name);
    assert_memory_equal(replayed, *right, engine_case_output_bytes(made));
    engine_case_close(run);
    case_free(made);
    free(replayed);
}

static void test_the_mode_is_kept_and_changes_nothing(void **state) {
    (void)state;
    for (int32_t way = 0; way < 4; way++) {
        step_case *made = make(11);
        uint8_t *right = NULL;
        live(made, way, 1, 0x1f80, &right, "the default");
        for (size_t m = 0; m < sizeof modes / sizeof *modes; m++)
            for (int32_t threads = 1; threads <= 3; threads += 2)
                live(made, way, threads, modes[m].mode, &right, modes[m].name);
        case_free(made);
        free(right);
    }
}

#else

static void test_the_mode_is_kept_and_changes_nothing(void **state) {
    (void)state;
    static const int modes[] = {FE_DOWNWARD, FE_UPWARD, FE_TOWARDZERO};
    for (int32_t way = 0; way < 4; way++) {
        step_case *made = make(11);
        mlar_config config = config_of(made, way);
        engine_case_fresh(&config, made);
        uint8_t *right = engine_case_take(made);
        for (size_t m = 0; m < 3; m++) {
            assert_int_equal(fesetround(modes[m]), 0);
            engine_case_fresh(&config, made);
            const int after = fegetround();
            assert_int_equal(fesetround(FE_TONEAREST), 0);
            assert_int_equal(after, modes[m]);
            engine_case_same(made, right, "another rounding");
        }
        case_free(made);
        free(right);
    }
}

#endif

/* Default bindings are the same numbers in every mode. */
static void test_default_scale(void **state) {
    (void)state;
    static const int roundings[] = {FE_DOWNWARD, FE_UPWARD, FE_TOWARDZERO};
    mlar_config config;
    MUST(mlar_config_preset(&config, "dsv4-flash", 8, NULL));
    for (int32_t nope = 64; nope <= 512; nope += 64)
        for (int32_t rope = 0; rope <= 128; rope += 2) {
            mlar_bindings wanted, got;
            config.nope = nope;
            config.rope = rope;
            MUST(mlar_bindings_init(&wanted, &config, 0));
            for (size_t r = 0; r < 3; r++) {
                assert_int_equal(fesetround(roundings[r]), 0);
                const mlar_status status = mlar_bindings_init(&got, &config, 0);
                assert_int_equal(fesetround(FE_TONEAREST), 0);
                MUST(status);
                assert_memory_equal(&got, &wanted, sizeof got);
            }
        }
}

/* ---- the host's own threads ------------------------------------------------------------------------------
 */

typedef struct pool {
    int32_t order; /* 0: forwards, 1: backwards, 2: a thread each */
    int32_t calls, most;
} pool;

typedef struct piece {
    void (*body)(void *arg, int32_t i);
    void *arg;
    int32_t i;
} piece;

static void *run_piece(void *arg) {
    const piece *p = arg;
    p->body(p->arg, p->i);
    return NULL;
}

static void hosts_for(void *context, int32_t count, void (*body)(void *arg, int32_t i), void *arg) {
    pool *p = context;
    p->calls++;
    if (count > p->most) p->most = count;
    if (p->order == 2) {
        pthread_t threads[16];
        piece pieces[16];
        assert_true(count <= 16);
        for (int32_t i = 0; i < count; i++) {
            pieces[i] = (piece){body, arg, i};
            assert_int_equal(pthread_create(&threads[i], NULL, run_piece, &pieces[i]), 0);
        }
        for (int32_t i = 0; i < count; i++) assert_int_equal(pthread_join(threads[i], NULL), 0);
        return;
    }
    for (int32_t i = 0; i < count; i++) body(arg, p->order == 1 ? count - 1 - i : i);
}

static void test_a_hosts_parallel_for(void **state) {
    (void)state;
    for (int32_t way = 0; way < 4; way++) {
        step_case *made = make(12);
        mlar_config config = config_of(made, way);
        engine_case_fresh(&config, made);
        uint8_t *right = engine_case_take(made);
        for (int32_t order = 0; order < 3; order++) {
            pool p = {.order = order};
            config.threads = 5;
            config.parallel = hosts_for;
            config.parallel_context = &p;
            engine_case *run = engine_case_open(&config);
            mlar_program *program = engine_case_capture(run, 0, made, made->spec.capacity_rows);
            for (int again = 0; again < 3; again++) {
                engine_case_replay(run, program, 0, made, made->spec.rows);
                engine_case_same(made, right, "the host's parallel_for");
            }
            engine_case_close(run);
            assert_true(p.calls > 0);
            assert_true(p.most > 1 && p.most <= 5);
        }
        case_free(made);
        free(right);
    }
}

/* ---- two engines on two threads ---------------------------------------------------------------------------
 */

typedef struct other_host {
    step_case *made;
    const uint8_t *right;
    int32_t way;
    int32_t differs;
} other_host;

static void *run_host(void *arg) {
    other_host *host = arg; /* cmocka asserts belong to the main thread */
    mlar_config config = config_of(host->made, host->way);
    config.threads = 2;
    for (int i = 0; i < 10; i++) {
        engine_case_fresh(&config, host->made);
        uint8_t *got = engine_case_take(host->made);
        host->differs |= memcmp(got, host->right, engine_case_output_bytes(host->made)) != 0;
        free(got);
    }
    return NULL;
}

static void test_engines_on_different_threads(void **state) {
    (void)state;
    enum { HOSTS = 3 };
    other_host hosts[HOSTS];
    uint8_t *right[HOSTS];
    pthread_t threads[HOSTS];
    for (int32_t h = 0; h < HOSTS; h++) {
        hosts[h] = (other_host){.made = make(20 + (uint64_t)h), .way = h};
        mlar_config config = config_of(hosts[h].made, h);
        engine_case_fresh(&config, hosts[h].made);
        hosts[h].right = right[h] = engine_case_take(hosts[h].made);
    }
    for (int32_t h = 0; h < HOSTS; h++)
        assert_int_equal(pthread_create(&threads[h], NULL, run_host, &hosts[h]), 0);
    for (int32_t h = 0; h < HOSTS; h++) assert_int_equal(pthread_join(threads[h], NULL), 0);
    for (int32_t h = 0; h < HOSTS; h++) {
        assert_int_equal(hosts[h].differs, 0);
        case_free(hosts[h].made);
        free(right[h]);
    }
}

/* ---- signals
 * ----------------------------------------------------------------------------------------------- */

static volatile sig_atomic_t handled;

static void handle(int number) {
    (void)number;
    handled = 1;
}

/* A signal that the host blocks in its only thread stays pending: no worker takes it. */
static void test_workers_take_no_signals(void **state) {
    (void)state;
    step_case *made = make(13);
    mlar_config config = config_of(made, 0);
    config.threads = 4;
    sigset_t usr1, before, after, pending;
    struct sigaction action = {.sa_handler = handle}, old;
    assert_int_equal(sigaction(SIGUSR1, &action, &old), 0);
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    assert_int_equal(pthread_sigmask(SIG_UNBLOCK, &usr1, NULL), 0);
    engine_case *run = engine_case_open(&config);
    assert_int_equal(pthread_sigmask(SIG_BLOCK, &usr1, &before), 0);
    assert_int_equal(sigismember(&before, SIGUSR1), 0); /* init left the caller's mask alone */
    handled = 0;
    assert_int_equal(kill(getpid(), SIGUSR1), 0);
    engine_case_eager(run, 0, made);
    usleep(20000);
    assert_int_equal(handled, 0);
    assert_int_equal(sigpending(&pending), 0);
    assert_int_equal(sigismember(&pending, SIGUSR1), 1);
    engine_case_close(run);
    assert_int_equal(pthread_sigmask(SIG_SETMASK, &before, &after), 0); /* now it is handled */
    assert_int_equal(handled, 1);
    assert_int_equal(sigaction(SIGUSR1, &old, NULL), 0);
    case_free(made);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_mode_is_kept_and_changes_nothing),
        cmocka_unit_test(test_default_scale),
        cmocka_unit_test(test_a_hosts_parallel_for),
        cmocka_unit_test(test_engines_on_different_threads),
        cmocka_unit_test(test_workers_take_no_signals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
