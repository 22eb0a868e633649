/* SPDX-License-Identifier: Apache-2.0
 *
 * test_engine.c: the lifecycle, and the state table of mlarena.h: which call is valid when, and what a
 * refused one leaves behind. */
#define _GNU_SOURCE /* fork */
#include "tests/support/check.h"
#include "tests/support/engine_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- init ------------------------------------------------------------------------------------------ */

static void test_a_failed_init_leaves_everything_free(void **state) {
    (void)state;
    mlar_config good = any_config(MLAR_POLICY_BALANCED), bad = good;
    fixture f = open_with(&good);
    mlar_diag diag;
    mlar_engine *engine = (mlar_engine *)(uintptr_t)1;
    mlar_arena arena;
    void *host = malloc(f.run->memory.host_bytes + 64), *aligned = (void *)(((uintptr_t)host + 63) / 64 * 64);
    const uint64_t host_bytes = f.run->memory.host_bytes;
    MUST(mlar_arena_from_malloc(&arena, f.run->memory.device_bytes, NULL));

    snprintf(bad.cpu_isa, sizeof bad.cpu_isa, "mmx");
    MUST_NAME(MLAR_ERROR_UNSUPPORTED, "cpu_isa", diag,
              mlar_engine_init(&bad, NULL, &arena, aligned, host_bytes, &engine, &diag));
    assert_non_null(strstr(diag.message, "mmx"));
    assert_null(engine);
    bad = good;
    bad.heads = 129;
    MUST_NAME(MLAR_ERROR_CONFIG, "heads", diag,
              mlar_engine_init(&bad, NULL, &arena, aligned, host_bytes, &engine, &diag));
    bad = good;
    bad.budget_bytes = 1;
    MUST_NAME(MLAR_ERROR_BUDGET, "budget_bytes", diag,
              mlar_engine_init(&bad, NULL, &arena, aligned, host_bytes, &engine, &diag));
    MUST_BE(MLAR_ERROR_ARGUMENT, mlar_engine_init(NULL, NULL, &arena, aligned, host_bytes, &engine, NULL));
    MUST_BE(MLAR_ERROR_ARGUMENT, mlar_engine_init(&good, NULL, NULL, aligned, host_bytes, &engine, NULL));
    MUST_BE(MLAR_ERROR_ARGUMENT, mlar_engine_init(&good, NULL, &arena, NULL, host_bytes, &engine, NULL));
    MUST_BE(MLAR_ERROR_ARGUMENT, mlar_engine_init(&good, NULL, &arena, aligned, host_bytes, NULL, NULL));
    MUST_NAME(MLAR_ERROR_ARGUMENT, "device", diag,
              mlar_engine_init(&good, (mlar_device *)host, &arena, aligned, host_bytes, &engine, &diag));

    MUST(mlar_engine_init(&good, NULL, &arena, aligned, host_bytes, &engine, &diag)); /* the same memory */
    MUST_BE(MLAR_ERROR_BUSY, mlar_arena_release(&arena, NULL));
    MUST(mlar_engine_deinit(engine));
    MUST(mlar_arena_release(&arena, NULL));
    free(host);
    close_fixture(&f);
}

/* Another init over a held arena, with another host block or the engine's own, disturbs nothing. */
static void test_a_held_arena_is_busy(void **state) {
    (void)state;
    fixture f = open_fixture(MLAR_POLICY_BALANCED);
    mlar_program *program = engine_case_capture(f.run, 0, f.made, CAPACITY);
    mlar_engine *engine = NULL;
    mlar_diag diag;
    void *host = malloc(f.run->memory.host_bytes + 64), *aligned = (void *)(((uintptr_t)host + 63) / 64 * 64);
    MUST_NAME(MLAR_ERROR_BUSY, "arena", diag,
              mlar_engine_init(&f.run->config, NULL, &f.run->arena, aligned, f.run->memory.host_bytes,
                               &engine, &diag));
    MUST_NAME(MLAR_ERROR_BUSY, "arena", diag,
              mlar_engine_init(&f.run->config, NULL, &f.run->arena, f.run->host_memory,
                               f.run->memory.host_bytes, &engine, &diag));
    assert_null(engine);
    MUST_NAME(MLAR_ERROR_BUSY, "arena", diag, mlar_arena_release(&f.run->arena, &diag));
    still_right(&f, program);
    free(host);
    close_fixture(&f);
}

/* An engine that lay in its own arena would be overwritten by its first step. */
static void test_the_host_block_is_not_in_the_arena(void **state) {
    (void)state;
    fixture f = open_fixture(MLAR_POLICY_BALANCED);
    const uint64_t device = (f.run->memory.device_bytes + 255) / 256 * 256;
    const uint64_t host = (f.run->memory.host_bytes + 255) / 256 * 256;
    char *block = aligned_alloc(256, device + 2 * host);
    mlar_engine *engine = NULL;
    mlar_arena arena;
    MUST(mlar_arena_from_caller(&arena, block + host, device, 1, NULL));
    const uint64_t at[] = {0, 256, host, device, host + device - 256, host + device};
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        const int apart = at[i] == 0 || at[i] == host + device;
        MUST_BE(apart ? MLAR_OK : MLAR_ERROR_OVERLAP,
                mlar_engine_init(&f.run->config, NULL, &arena, block + at[i], f.run->memory.host_bytes,
                                 &engine, NULL));
        if (apart) MUST(mlar_engine_deinit(engine));
    }
    MUST(mlar_arena_release(&arena, NULL));
    free(block);
    close_fixture(&f);
}

/* Whatever a step may read of the arena before anybody wrote it is zero, whatever the memory held. */
static void test_what_a_step_may_read_starts_at_zero(void **state) {
    (void)state;
    static const char *const names[] = {"counters", "step", "schedule", "schedule"};
    static const int32_t kinds[] = {-1, -1, 0, 1};
    case_spec specs[] = {engine_case_spec(5, ROWS, CAPACITY, 40, 200),
                         engine_case_spec(6, 300, 300, 40, 200)};
    step_case *made[] = {case_new(&specs[0]), case_new(&specs[1])};
    mlar_config config = engine_case_config((const step_case *const *)made, 2);
    config.policy = MLAR_POLICY_BALANCED;
    engine_case *run = engine_case_open(&config);
    for (int i = 0; i < 4; i++) {
        void *address = NULL;
        uint64_t bytes = 0;
        MUST(mlar_engine_buffer(run->engine, kinds[i], names[i], &address, &bytes));
        assert_true(bytes > 0);
        for (uint64_t at = 0; at < bytes; at++) assert_int_equal(((const unsigned char *)address)[at], 0);
    }
    engine_case_close(run);
    for (int i = 0; i < 2; i++) case_free(made[i]);
}

static void test_deinit_gives_everything_back(void **state) {
    (void)state;
    mlar_config config = any_config(MLAR_POLICY_BALANCED);
    config.threads = 3;
    fixture f = open_with(&config);
    engine_case *run = f.run;
    mlar_program *program = engine_case_capture(run, 0, f.made, CAPACITY);
    for (int again = 0; again < 3; again++) {
        mlar_stats stats = {.struct_size = sizeof stats};
        MUST(mlar_engine_deinit(run->engine)); /* with a program open */
        MUST_BE(MLAR_ERROR_STATE, mlar_engine_deinit(run->engine));
        MUST_BE(MLAR_ERROR_STATE, mlar_program_replay(program, NULL));
        MUST_BE(MLAR_ERROR_STATE, mlar_program_destroy(program));
        MUST_BE(MLAR_ERROR_STATE, mlar_engine_step(run->engine, &f.step, NULL));
        MUST_BE(MLAR_ERROR_STATE, mlar_engine_stats(run->engine, NULL, &stats));
        MUST_BE(MLAR_ERROR_STATE, mlar_engine_invalidate(run->engine, NULL));
        void *address = NULL;
        uint64_t bytes = 0;
        MUST_BE(MLAR_ERROR_STATE, mlar_engine_buffer(run->engine, -1, "counters", &address, &bytes));
        MUST_BE(MLAR_ERROR_STATE,
                mlar_engine_enqueue(run->engine, 0, &f.bindings, CAPACITY, &f.step, NULL, NULL));
        MUST(mlar_arena_release(&run->arena, NULL));
        memset(run->host_memory, again * 0x55, run->memory.host_bytes); /* the block is the host's again */
        memset(run->arena_memory, again * 0x33, run->memory.device_bytes);
        MUST(mlar_arena_from_caller(&run->arena, run->arena_memory, run->memory.device_bytes, 1, NULL));
        MUST(mlar_engine_init(&config, NULL, &run->arena, run->host_memory, run->memory.host_bytes,
                              &run->engine, NULL));
        assert_int_equal(engine_case_stats(run).programs, 0);
        program = engine_case_capture(run, 0, f.made, CAPACITY);
        still_right(&f, program);
    }
    close_fixture(&f);
}

static void test_null_pointers(void **state) {
    (void)state;
    fixture f = open_fixture(MLAR_POLICY_BALANCED);
    mlar_engine *e = f.run->engine;
    mlar_program *p = NULL;
    mlar_stats stats = {.struct_size = sizeof stats};
    void *address;
    uint64_t bytes;
    const mlar_status results[] = {
        mlar_engine_capture(NULL, 0, &f.bindings, 1, 1, &p, NULL),
        mlar_engine_capture(e, 0, NULL, 1, 1, &p, NULL),
        mlar_engine_capture(e, 0, &f.bindings, 1, 1, NULL, NULL),
        mlar_program_rebind(NULL, 0, &f.bindings, NULL, NULL),
        mlar_engine_step(NULL, &f.step, NULL),
        mlar_engine_step(e, NULL, NULL),
        mlar_engine_prepare(NULL, 0, &f.bindings, &f.step, NULL, NULL),
        mlar_engine_prepare(e, 0, NULL, &f.step, NULL, NULL),
        mlar_program_replay(NULL, NULL),
        mlar_engine_enqueue(NULL, 0, &f.bindings, 1, &f.step, NULL, NULL),
        mlar_engine_enqueue(e, 0, NULL, 1, &f.step, NULL, NULL),
        mlar_engine_enqueue(e, 0, &f.bindings, 1, NULL, NULL, NULL),
        mlar_program_destroy(NULL),
        mlar_engine_invalidate(NULL, NULL),
        mlar_engine_deinit(NULL),
        mlar_engine_selftest(NULL, NULL, NULL),
        mlar_engine_stats(NULL, NULL, &stats),
        mlar_engine_stats(e, NULL, NULL),
        mlar_engine_reset_counters(NULL, NULL),
        mlar_engine_poison_scratch(NULL, 0, NULL),
        mlar_engine_check_guards(NULL, NULL, NULL),
        mlar_engine_buffer(NULL, 0, "step", &address, &bytes),
        mlar_engine_buffer(e, 0, NULL, &address, &bytes),
        mlar_engine_buffer(e, 0, "step", NULL, &bytes),
        mlar_engine_buffer(e, 0, "step", &address, NULL),
        mlar_arena_from_caller(NULL, &f, 1, 1, NULL),
        mlar_arena_from_caller(&f.run->arena, NULL, 1, 1, NULL),
        mlar_arena_from_malloc(NULL, 1, NULL),
        mlar_arena_release(NULL, NULL),
    };
    for (size_t i = 0; i < sizeof results / sizeof *results; i++)
        if (results[i] != MLAR_ERROR_ARGUMENT) fail_msg("call %zu: %s", i, mlar_status_name(results[i]));
    assert_null(mlar_program_graph(NULL));
    close_fixture(&f);
}

/* ---- states ----------------------------------------------------------------------------------------- */

static void test_replay_needs_a_step_and_a_prepare(void **state) {
    (void)state;
    for (int32_t policy = 0; policy < 2; policy++) {
        const mlar_status unprepared = policy == MLAR_POLICY_BALANCED ? MLAR_ERROR_STATE : MLAR_OK;
        fixture f = open_fixture(policy);
        mlar_diag diag;
        mlar_program *program = engine_case_capture(f.run, 0, f.made, CAPACITY);
        MUST_BE(MLAR_ERROR_STATE, mlar_program_replay(program, NULL));
        if (policy == MLAR_POLICY_BALANCED)
            MUST_NAME(MLAR_ERROR_STATE, "step", diag,
                      mlar_engine_prepare(f.run->engine, 0, &f.bindings, NULL, NULL, &diag));
        else
            MUST(mlar_engine_prepare(f.run->engine, 0, &f.bindings, NULL, NULL, NULL)); /* does nothing */
        MUST(mlar_engine_step(f.run->engine, &f.step, NULL));
        MUST_BE(unprepared, mlar_program_replay(program, NULL));
        MUST(mlar_engine_prepare(f.run->engine, 0, &f.bindings, NULL, NULL, NULL));
        MUST(mlar_program_replay(program, NULL));
        MUST(mlar_program_replay(program, NULL));             /* every layer of the step may replay */
        MUST(mlar_engine_step(f.run->engine, &f.step, NULL)); /* a new step, whatever its rows */
        MUST_BE(unprepared, mlar_program_replay(program, NULL));
        MUST(mlar_engine_prepare(f.run->engine, 0, &f.bindings, NULL, NULL, NULL));
        /* A schedule for an enqueue's own step is not the replays'. */
        MUST(mlar_engine_prepare(f.run->engine, 0, &f.bindings, &f.step, NULL, NULL));
        MUST_BE(unprepared, mlar_program_replay(program, NULL));
        still_right(&f, program);
        close_fixture(&f);
    }
}

/* By policy balanced an enqueue reads the schedule: without one for this very step it is refused. */
static void test_enqueue_needs_a_prepare(void **state) {
    (void)state;
    fixture f = open_fixture(MLAR_POLICY_BALANCED);
    mlar_engine *e = f.run->engine;
    mlar_diag diag;
    MUST(mlar_engine_invalidate(e, NULL));
    case_poison_outputs(f.made);
    MUST_NAME(MLAR_ERROR_STATE, "prepare", diag,
              mlar_engine_enqueue(e, 0, &f.bindings, CAPACITY, &f.step, NULL, &diag));
    assert_true(check_untouched_beyond(f.made, 0));
    mlar_step fewer = f.step;
    fewer.rows = 1;
    MUST(mlar_engine_prepare(e, 0, &f.bindings, &fewer, NULL, NULL));
    MUST_NAME(MLAR_ERROR_STATE, "prepare", diag,
              mlar_engine_enqueue(e, 0, &f.bindings, CAPACITY, &f.step, NULL, &diag));
    MUST(mlar_engine_enqueue(e, 0, &f.bindings, 1, &fewer, NULL, NULL));
    MUST(mlar_engine_step(e, &f.step, NULL)); /* a schedule for the replays' step serves an equal enqueue */
    MUST(mlar_engine_prepare(e, 0, &f.bindings, NULL, NULL, NULL));
    MUST(mlar_engine_enqueue(e, 0, &f.bindings, CAPACITY, &f.step, NULL, NULL));
    close_fixture(&f);
    f = open_fixture(MLAR_POLICY_BATCH_INVARIANT);
    MUST(mlar_engine_enqueue(f.run->engine, 0, &f.bindings, CAPACITY, &f.step, NULL, NULL));
    close_fixture(&f);
}

/* A fresh balanced engine has no schedule at all. */
static void test_enqueue_on_a_fresh_engine(void **state) {
    (void)state;
    mlar_config config = any_config(MLAR_POLICY_BALANCED);
    case_spec spec = engine_case_spec(5, ROWS, CAPACITY, 40, 200);
    step_case *made = case_new(&spec);
    engine_case *run = engine_case_open(&config);
    mlar_bindings bindings = case_bindings(&made->layer);
    mlar_step step = {.struct_size = sizeof step, .rows = ROWS};
    MUST_BE(MLAR_ERROR_STATE, mlar_engine_enqueue(run->engine, 0, &bindings, CAPACITY, &step, NULL, NULL));
    engine_case_close(run);
    case_free(made);
}

static void test_steps_are_checked(void **state) {
    (void)state;
    fixture f = open_fixture(MLAR_POLICY_BALANCED);
    mlar_engine *e = f.run->engine;
    mlar_program *program = engine_case_capture(f.run, 0, f.made, 2);
    mlar_diag diag;
    static const int32_t rows[] = {-1, CAPACITY + 1, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < 4; i++) {
        mlar_step step = {.struct_size = sizeof step, .rows = rows[i]};
        MUST_BE(MLAR_ERROR_CAPACITY, mlar_engine_step(e, &step, NULL));
        MUST_NAME(MLAR_ERROR_CAPACITY, "rows", diag,
                  mlar_engine_prepare(e, 0, &f.bindings, &step, NULL, &diag));
        assert_int_equal(diag.given, rows[i]);
        assert_int_equal(diag.needed, CAPACITY);
        MUST_NAME(MLAR_ERROR_CAPACITY, "rows", diag,
                  mlar_engine_enqueue(e, 0, &f.bindings, CAPACITY, &step, NULL, &diag));
    }
    MUST(mlar_engine_step(e, &f.step, NULL));
    MUST(mlar_engine_prepare(e, 0, &f.bindings, NULL, NULL, NULL));
    MUST_BE(MLAR_ERROR_CAPACITY, mlar_program_replay(program, NULL)); /* 3 rows, captured for 2 */
    static const int32_t capacities[] = {0, -1, CAPACITY + 1, INT32_MAX};
    for (size_t i = 0; i < 4; i++) {
        MUST_NAME(MLAR_ERROR_CAPACITY, "capacity_rows", diag,
                  mlar_engine_enqueue(e, 0, &f.bindings, capacities[i], &f.step, NULL, &diag));
        MUST_NAME(MLAR_ERROR_CAPACITY, "capacity_rows", diag,
                  mlar_engine_capture(e, 0, &f.bindings, 1, capacities[i], &program, &diag));
    }
    mlar_step odd = {.struct_size = sizeof odd, .rows_device = (const int32_t *)((uintptr_t)&odd.rows + 1)};
    MUST_BE(MLAR_ERROR_BINDING, mlar_engine_step(e, &odd, NULL));
    MUST_NAME(MLAR_ERROR_BINDING, "rows_device", diag,
              mlar_engine_enqueue(e, 0, &f.bindings, CAPACITY, &odd, NULL, &diag));
    odd.struct_size = 4;
    MUST_BE(MLAR_ERROR_STRUCT_SIZE, mlar_engine_step(e, &odd, NULL));
    MUST_NAME(MLAR_ERROR_STRUCT_SIZE, "step.struct_size", diag,
              mlar_engine_enqueue(e, 0, &f.bindings, CAPACITY, &odd, NULL, &diag));
    static const int32_t kinds[] = {-1, 1, MLAR_KINDS_MAX, INT32_MAX};
    for (size_t i = 0; i < 4; i++) {
        MUST_NAME(MLAR_ERROR_ARGUMENT, "kind", diag,
                  mlar_engine_enqueue(e, kinds[i], &f.bindings, CAPACITY, &f.step, NULL, &diag));
        MUST_NAME(MLAR_ERROR_ARGUMENT, "kind", diag,
                  mlar_engine_prepare(e, kinds[i], &f.bindings, &f.step, NULL, &diag));
        MUST_NAME(MLAR_ERROR_ARGUMENT, "kind", diag,
                  mlar_engine_capture(e, kinds[i], &f.bindings, 1, 1, &program, &diag));
    }
    close_fixture(&f);
}

/* ---- limits ---------------------------------------------------------------------------------------- */

static void test_programs_and_layers_run_out(void **state) {
    (void)state;
    mlar_config config = any_config(MLAR_POLICY_BALANCED);
    config.max_programs = 3;
    config.max_layers = 5;
    fixture f = open_with(&config);
    mlar_engine *e = f.run->engine;
    mlar_bindings layers[6];
    mlar_program *p[4] = {NULL};
    mlar_diag diag;
    for (int i = 0; i < 6; i++) layers[i] = f.bindings;
    MUST_NAME(MLAR_ERROR_LIMIT, "max_layers", diag,
              mlar_engine_capture(e, 0, layers, 6, CAPACITY, &p[0], &diag));
    MUST(mlar_engine_capture(e, 0, layers, 3, CAPACITY, &p[0], NULL));
    MUST_NAME(MLAR_ERROR_LIMIT, "max_layers", diag,
              mlar_engine_capture(e, 0, layers, 3, CAPACITY, &p[1], &diag));
    assert_null(p[1]);
    MUST(mlar_engine_capture(e, 0, layers, 1, CAPACITY, &p[1], NULL));
    MUST(mlar_engine_capture(e, 0, layers, 1, CAPACITY, &p[2], NULL));
    MUST_NAME(MLAR_ERROR_LIMIT, "max_programs", diag,
              mlar_engine_capture(e, 0, layers, 1, CAPACITY, &p[3], &diag));
    assert_int_equal(diag.needed, 3);
    assert_int_equal(engine_case_stats(f.run).programs, 3);
    MUST(mlar_program_destroy(p[0])); /* its three layers go to whoever comes, in any order */
    MUST_BE(MLAR_ERROR_STATE, mlar_program_destroy(p[0]));
    MUST_BE(MLAR_ERROR_STATE, mlar_program_replay(p[0], NULL));
    MUST_BE(MLAR_ERROR_STATE, mlar_program_rebind(p[0], 0, &f.bindings, NULL, NULL));
    MUST(mlar_engine_capture(e, 0, layers, 2, CAPACITY, &p[0], NULL));
    MUST(mlar_program_destroy(p[1]));
    MUST(mlar_engine_capture(e, 0, layers, 2, 1, &p[1], NULL));
    still_right(&f, p[2]);
    still_right(&f, p[0]);
    assert_int_equal(engine_case_stats(f.run).programs, 3);
    close_fixture(&f);
}

static void test_nodes_run_out(void **state) {
    (void)state;
    mlar_config config = any_config(MLAR_POLICY_BALANCED);
    config.max_layers = 64;
    config.max_nodes = 8;
    config.strategy = MLAR_STRATEGY_GATHER; /* gather, attend, combine: two layers are six kernels */
    fixture f = open_with(&config);
    mlar_bindings layers[3] = {f.bindings, f.bindings, f.bindings};
    mlar_program *program = NULL;
    mlar_diag diag;
    MUST_NAME(MLAR_ERROR_LIMIT, "max_nodes", diag,
              mlar_engine_capture(f.run->engine, 0, layers, 3, CAPACITY, &program, &diag));
    assert_int_equal(diag.given, 9);
    assert_int_equal(diag.needed, 8);
    MUST_NAME(MLAR_ERROR_LIMIT, "max_nodes", diag,
              mlar_engine_capture(f.run->engine, 0, layers, INT32_MAX, CAPACITY, &program, &diag));
    MUST_NAME(MLAR_ERROR_ARGUMENT, "layer_count", diag,
              mlar_engine_capture(f.run->engine, 0, layers, 0, CAPACITY, &program, &diag));
    MUST(mlar_engine_capture(f.run->engine, 0, layers, 2, CAPACITY, &program, NULL));
    MUST_NAME(MLAR_ERROR_ARGUMENT, "layer", diag, mlar_program_rebind(program, 2, &f.bindings, NULL, &diag));
    MUST_NAME(MLAR_ERROR_ARGUMENT, "layer", diag, mlar_program_rebind(program, -1, &f.bindings, NULL, &diag));
    assert_null(mlar_program_graph(program)); /* the CPU has none */
    still_right(&f, program);
    close_fixture(&f);
}

static void test_no_programs_at_all(void **state) {
    (void)state;
    mlar_config config = any_config(MLAR_POLICY_BALANCED);
    config.max_programs = config.max_layers = 0;
    fixture f = open_with(&config); /* runs eagerly */
    mlar_program *program = NULL;
    mlar_diag diag;
    MUST_NAME(MLAR_ERROR_LIMIT, "max_programs", diag,
              mlar_engine_capture(f.run->engine, 0, &f.bindings, 1, 1, &program, &diag));
    close_fixture(&f);
}

/* A capture that fails at its last layer leaves no program, no layer taken, and the others as they were. */
static void test_a_failed_capture_leaves_the_engine_as_it_was(void **state) {
    (void)state;
    for (int32_t route = 0; route < 2; route++) {
        mlar_config config = any_config(MLAR_POLICY_BALANCED);
        config.update_route = route;
        config.max_programs = 2;
        config.max_layers = 4;
        fixture f = open_with(&config);
        mlar_program *good = engine_case_capture(f.run, 0, f.made, CAPACITY), *bad = good;
        mlar_bindings layers[3] = {f.bindings, f.bindings, f.bindings};
        mlar_diag diag;
        MUST(mlar_engine_step(f.run->engine, &f.step, NULL));
        MUST(mlar_engine_prepare(f.run->engine, 0, &f.bindings, NULL, NULL, NULL));
        layers[2].q = NULL;
        for (int i = 0; i < 5; i++) {
            MUST_NAME(MLAR_ERROR_BINDING, "q", diag,
                      mlar_engine_capture(f.run->engine, 0, layers, 3, CAPACITY, &bad, &diag));
            assert_null(bad);
        }
        assert_int_equal(engine_case_stats(f.run).programs, 1);
        case_poison_outputs(f.made);
        MUST(mlar_program_replay(good, NULL)); /* the step in flight goes on */
        engine_case_same(f.made, f.right, "replay after a failed capture");
        layers[2] = f.bindings;
        MUST(mlar_engine_capture(f.run->engine, 0, layers, 3, CAPACITY, &bad, NULL));
        still_right(&f, bad);
        still_right(&f, good);
        close_fixture(&f);
    }
}

/* ---- fork ------------------------------------------------------------------------------------------- */

/* Runs in the child: exits with the number of the first call that did not answer as it should. */
static int in_the_child(fixture *f, mlar_program *program, mlar_status wanted) {
    mlar_engine *e = f->run->engine;
    mlar_program *other = NULL;
    mlar_stats stats = {.struct_size = sizeof stats};
    const mlar_status results[] = {
        mlar_engine_capture(e, 0, &f->bindings, 1, CAPACITY, &other, NULL),
        mlar_engine_step(e, &f->step, NULL),
        mlar_engine_prepare(e, 0, &f->bindings, NULL, NULL, NULL),
        mlar_program_replay(program, NULL),
        mlar_program_rebind(program, 0, &f->bindings, NULL, NULL),
        mlar_engine_prepare(e, 0, &f->bindings, &f->step, NULL, NULL),
        mlar_engine_enqueue(e, 0, &f->bindings, CAPACITY, &f->step, NULL, NULL),
        mlar_engine_selftest(e, NULL, NULL),
        mlar_engine_stats(e, NULL, &stats),
        mlar_engine_check_guards(e, NULL, NULL),
        mlar_engine_poison_scratch(e, 1, NULL),
        mlar_engine_reset_counters(e, NULL),
    };
    const int count = sizeof results / sizeof *results;
    for (int i = 0; i < count; i++)
        if (results[i] != wanted) return 1 + i;
    if (mlar_engine_invalidate(e, NULL) != MLAR_OK) return 101;
    if (mlar_program_destroy(program) != MLAR_OK) return 102;
    if (mlar_engine_deinit(e) != MLAR_OK) return 103; /* there is no worker to wait for */
    return 0;
}

static void test_a_forked_child_is_told(void **state) {
    (void)state;
    for (int32_t threads = 1; threads <= 4; threads += 3) {
        mlar_config config = any_config(MLAR_POLICY_BALANCED);
        config.threads = threads;
        config.selftest = 1;
        fixture f = open_with(&config);
        mlar_program *program = engine_case_capture(f.run, 0, f.made, CAPACITY);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            alarm(20);
            _exit(in_the_child(&f, program, threads > 1 ? MLAR_ERROR_FORKED : MLAR_OK));
        }
        int result = -1;
        assert_int_equal(waitpid(child, &result, 0), child);
        if (!WIFEXITED(result) || WEXITSTATUS(result) != 0)
            fail_msg("%d threads: the child ended with %#x", threads, result);
        still_right(&f, program); /* the parent is as it was */
        close_fixture(&f);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_failed_init_leaves_everything_free),
        cmocka_unit_test(test_a_held_arena_is_busy),
        cmocka_unit_test(test_the_host_block_is_not_in_the_arena),
        cmocka_unit_test(test_what_a_step_may_read_starts_at_zero),
        cmocka_unit_test(test_deinit_gives_everything_back),
        cmocka_unit_test(test_null_pointers),
        cmocka_unit_test(test_replay_needs_a_step_and_a_prepare),
        cmocka_unit_test(test_enqueue_needs_a_prepare),
        cmocka_unit_test(test_enqueue_on_a_fresh_engine),
        cmocka_unit_test(test_steps_are_checked),
        cmocka_unit_test(test_programs_and_layers_run_out),
        cmocka_unit_test(test_nodes_run_out),
        cmocka_unit_test(test_no_programs_at_all),
        cmocka_unit_test(test_a_failed_capture_leaves_the_engine_as_it_was),
        cmocka_unit_test(test_a_forked_child_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
