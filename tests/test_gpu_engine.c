/* SPDX-License-Identifier: Apache-2.0
 *
 * test_gpu_engine.c: an engine on the stand-in (tests/standin) gives what the CPU back end gives, bit for bit: eager,
 * captured, replayed, rebound, in programs of its own and in graphs of the host's. The stand-in's kernels are the
 * CPU's, so this proves the host code (what is launched, with which arguments, in which order), never the kernels. */
#include "engine/engine.h"
#include "engine/sequence.h"
#include "tests/standin/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const int32_t policies[] = {MLAR_POLICY_BALANCED, MLAR_POLICY_BATCH_INVARIANT};
static const int32_t strategies[] = {MLAR_STRATEGY_DIRECT, MLAR_STRATEGY_GATHER};
static const int32_t routes[] = {MLAR_UPDATE_STEP_BLOCK, MLAR_UPDATE_NODE_PARAMS};

/* The same configuration on the CPU: as many workers, so that rows are split alike. */
static uint8_t *on_the_cpu(const mlar_config *config, step_case *made, int32_t rows) {
    mlar_config cpu = *config;
    case_spec saved = made->spec;
    MUST(mlar_device_profile_named(&cpu.device, "cpu", NULL));
    cpu.device.compute_units = config->device.compute_units;
    snprintf(cpu.cpu_isa, sizeof cpu.cpu_isa, "scalar");
    made->spec.rows = rows;
    engine_case_fresh(&cpu, made);
    made->spec = saved;
    return engine_case_take(made);
}

static void random_case(session *s, uint64_t seed, void *stream) {
    const case_bounds bounds = {.rows = 6, .heads = 16, .width = 220, .dims = 1};
    case_spec spec = case_draw(seed, CASE_ALL, &bounds);
    engine_case_unmix(&spec);
    step_case *made = case_new(&spec);
    device_case moved = device_case_new(s->device, made);
    mlar_config config = device_engine_config(s->device, (const step_case *const *)&made, 1);
    config.policy = policies[seed % 2];
    config.strategy = strategies[seed / 2 % 2];
    config.update_route = routes[seed / 4 % 2];
    config.guard_bytes = seed % 3 ? 0 : 256;
    if (seed % 5 == 0) { /* the smallest arena: row tiles, or no splits */
        mlar_memory memory = {.struct_size = sizeof memory};
        MUST(mlar_memory_query(&config, &memory, NULL));
        config.budget_bytes = memory.minimum_budget_bytes;
    }
    mlar_config plain = config; /* the CPU's minimum is another one, and a budget does not change bits ... */
    plain.budget_bytes = 0;
    uint8_t *wanted = config.budget_bytes != 0 && config.policy == MLAR_POLICY_BALANCED
                          ? NULL /* ... except that it changes where rows are cut */
                          : on_the_cpu(&plain, made, spec.rows);
    device_engine *run = device_engine_open(s->device, &config);
    device_engine_eager(run, 0, &moved, stream);
    if (wanted == NULL) wanted = engine_case_take(made);
    engine_case_same(made, wanted, "enqueue");
    mlar_program *program = device_engine_capture(run, 0, &moved, spec.capacity_rows);
    device_engine_replay(run, program, 0, &moved, spec.rows, stream);
    engine_case_same(made, wanted, "replay");
    MUST(mlar_engine_poison_scratch(run->engine, (uint32_t)seed, stream));
    device_engine_replay(run, program, 0, &moved, spec.rows, stream);
    engine_case_same(made, wanted, "replay over poison");
    device_engine_replay(run, program, 0, &moved, 0, stream); /* and another step in between */
    device_engine_replay(run, program, 0, &moved, spec.rows, stream);
    engine_case_same(made, wanted, "replay after another");
    MUST(mlar_engine_check_guards(run->engine, stream, NULL));
    device_engine_close(run);
    device_case_free(&moved);
    free(wanted);
    case_free(made);
}

static void test_random_cases_equal_the_cpu(void **state) {
    (void)state;
    standin_settings settings = session_settings();
    for (int prompt = 0; prompt < 2; prompt++) {
        settings.prompt = prompt;
        session s = session_begin(MLAR_TEST_STANDIN, &settings);
        MUST(session_open(&s, prompt, MLAR_RUNTIME_WARN, NULL)); /* device 1 while device 0 is current, too */
        assert_int_equal(s.device->runtime.set_device(prompt), 0);
        void *streams[] = {NULL, session_stream(&s, 0), session_stream(&s, 1)};
        assert_int_equal(s.device->runtime.set_device(0), 0);
        for (uint64_t seed = 0; seed < 60; seed++)
            random_case(&s, seed + 1000u * (unsigned)prompt, streams[prompt && seed % 3 == 0 ? 1 : seed % 3]);
        session_stream_free(&s, streams[1]);
        session_stream_free(&s, streams[2]);
        session_end(&s);
    }
}

/* ---- a fixture: three cases of one shape, side by side ---- */

enum { ROWS = 3, CAPACITY = 4, CASES = 3 };

typedef struct fixture {
    session s;
    step_case *made[CASES];
    device_case moved[CASES];
    device_engine *run;
    void *stream;
    uint8_t *right[CASES][CAPACITY + 1]; /* by live rows */
} fixture;

static fixture open_fixture(int32_t policy, int32_t route) {
    fixture f = {.s = session_new()};
    f.stream = session_stream(&f.s, 1);
    for (int i = 0; i < CASES; i++) {
        case_spec spec = engine_case_spec(50u + (uint64_t)i, CAPACITY, CAPACITY, 40, 300);
        f.made[i] = case_new(&spec);
        f.moved[i] = device_case_new(f.s.device, f.made[i]);
    }
    mlar_config config = device_engine_config(f.s.device, (const step_case *const *)f.made, 1);
    config.policy = policy;
    config.update_route = route;
    config.max_programs = config.max_layers = 61;
    config.max_nodes = 256;
    for (int i = 0; i < CASES; i++)
        for (int32_t rows = 0; rows <= CAPACITY; rows++)
            f.right[i][rows] = on_the_cpu(&config, f.made[i], rows);
    f.run = device_engine_open(f.s.device, &config);
    return f;
}

static void close_fixture(fixture *f) {
    device_engine_close(f->run);
    for (int i = 0; i < CASES; i++) {
        device_case_free(&f->moved[i]);
        case_free(f->made[i]);
        for (int32_t rows = 0; rows <= CAPACITY; rows++) free(f->right[i][rows]);
    }
    session_stream_free(&f->s, f->stream);
    session_end(&f->s);
}

static void begin(fixture *f, int which, int32_t rows) {
    mlar_step step = {.struct_size = sizeof step, .rows = rows};
    MUST(mlar_engine_step(f->run->engine, &step, f->stream));
    MUST(mlar_engine_prepare(f->run->engine, 0, &f->moved[which].bindings, NULL, f->stream, NULL));
}

static void fetched(fixture *f, int which, int32_t rows, const char *what) {
    device_case_fetch(&f->moved[which], f->stream);
    engine_case_same(f->made[which], f->right[which][rows], what);
}

/* ---- rebind ---- */

static void test_rebind(void **state) {
    (void)state;
    for (int32_t i = 0; i < 4; i++) {
        fixture f = open_fixture(policies[i % 2], routes[i / 2]);
        mlar_program *program = device_engine_capture(f.run, 0, &f.moved[0], CAPACITY);
        assert_int_equal(f.s.control->calls("hipGraphUpload"), 1); /* not left to the first replay */
        for (int turn = 0; turn < 7; turn++) {
            int which = turn % CASES;
            int32_t rows = turn % (CAPACITY + 1);
            MUST(mlar_program_rebind(program, 0, &f.moved[which].bindings, f.stream, NULL));
            device_engine_replay(f.run, program, 0, &f.moved[which], rows, f.stream);
            engine_case_same(f.made[which], f.right[which][rows], "rebound");
        }
        uint64_t before =
            f.s.control->calls(NULL); /* nothing changed: the question about the stream, no launch */
        MUST(mlar_program_rebind(program, 0, &f.moved[0].bindings, f.stream, NULL));
        assert_int_equal(f.s.control->calls(NULL) - before, 1);
        mlar_bindings other = f.moved[0].bindings;
        mlar_diag diag;
        other.q_row_stride += 8;
        MUST_NAME(MLAR_ERROR_BINDING, "q_row_stride", diag,
                  mlar_program_rebind(program, 0, &other, f.stream, &diag));
        device_engine_replay(f.run, program, 0, &f.moved[0], ROWS, f.stream);
        engine_case_same(f.made[0], f.right[0][ROWS], "after a refused rebind");
        close_fixture(&f);
    }
}

/* ---- what a step costs ---- */

static void test_nothing_is_launched_for_nothing(void **state) {
    (void)state;
    for (int32_t i = 0; i < 4; i++) {
        fixture f = open_fixture(policies[i % 2], routes[i / 2]);
        const standin_control *control = f.s.control;
        int by_block = routes[i / 2] == MLAR_UPDATE_STEP_BLOCK, balanced = i % 2 == 0;
        mlar_program *program = device_engine_capture(f.run, 0, &f.moved[0], CAPACITY);
        begin(&f, 0, ROWS);
        MUST(mlar_program_replay(program, f.stream)); /* node-params: carries the step into the nodes */
        assert_int_equal(f.s.device->runtime.stream_synchronize(f.stream), 0);

        uint64_t calls = control->calls(NULL), launches = control->calls("hipModuleLaunchKernel");
        MUST(mlar_program_replay(program, f.stream));
        assert_int_equal(control->calls(NULL) - calls, 1);
        assert_int_equal(control->calls("hipModuleLaunchKernel"), launches);
        assert_string_equal(control->last_call(), "hipGraphLaunch");

        mlar_step step = {.struct_size = sizeof step, .rows = ROWS}; /* the same again */
        uint64_t set_blocks = device_engine_stats(f.run, f.stream).set_blocks;
        MUST(mlar_engine_step(f.run->engine, &step, f.stream));
        assert_int_equal(control->calls("hipModuleLaunchKernel"), launches);
        assert_int_equal(device_engine_stats(f.run, f.stream).set_blocks, set_blocks);
        step.rows = 1; /* another */
        MUST(mlar_engine_step(f.run->engine, &step, f.stream));
        assert_int_equal(control->calls("hipModuleLaunchKernel"), launches + (uint64_t)by_block);
        assert_int_equal(device_engine_stats(f.run, f.stream).set_blocks, set_blocks + (uint64_t)by_block);
        MUST(mlar_engine_prepare(f.run->engine, 0, &f.moved[0].bindings, NULL, f.stream, NULL));
        assert_int_equal(control->calls("hipModuleLaunchKernel"), launches + (uint64_t)(by_block + balanced));
        assert_int_equal(f.s.device->runtime.stream_synchronize(f.stream), 0);
        uint64_t updates = control->calls("hipGraphExecKernelNodeSetParams");
        MUST(mlar_program_replay(program, f.stream));
        size_t nodes = 0;
        assert_int_equal(f.s.device->runtime.graph_nodes(mlar_program_graph(program), NULL, &nodes), 0);
        assert_int_equal(control->calls("hipGraphExecKernelNodeSetParams") - updates, by_block ? 0 : nodes);
        fetched(&f, 0, 1, "one row");

        MUST(mlar_engine_invalidate(f.run->engine, f.stream)); /* everything again, once */
        begin(&f, 0, 1);
        launches = control->calls("hipModuleLaunchKernel");
        MUST(mlar_program_replay(program, f.stream));
        assert_int_equal(control->calls("hipModuleLaunchKernel") - launches, by_block);
        fetched(&f, 0, 1, "after invalidate");
        close_fixture(&f);
    }
}

/* stats' figure is what the runtime was really asked, call by call. */
static void test_runtime_calls_are_counted(void **state) {
    (void)state;
    for (int32_t i = 0; i < 4; i++) {
        fixture f = open_fixture(policies[i % 2], routes[i / 2]);
        mlar_program *program = device_engine_capture(f.run, 0, &f.moved[0], CAPACITY);
        assert_int_equal(f.s.device->runtime.set_device(i % 2), 0);
        uint64_t calls = f.s.control->calls(NULL), counted = f.s.device->calls;
        for (int32_t rows = 0; rows <= CAPACITY; rows++) {
            mlar_step step = {.struct_size = sizeof step, .rows = rows};
            begin(&f, 0, rows);
            MUST(mlar_program_replay(program, f.stream));
            if (i % 2 == 0) MUST(mlar_program_replay(program, NULL));
            MUST(mlar_engine_prepare(f.run->engine, 0, &f.moved[0].bindings, &step, f.stream, NULL));
            MUST(
                mlar_engine_enqueue(f.run->engine, 0, &f.moved[0].bindings, CAPACITY, &step, f.stream, NULL));
            uint64_t waiting = f.s.control->calls(NULL);
            assert_int_equal(f.s.device->runtime.set_device(0), 0);
            assert_int_equal(f.s.device->runtime.stream_synchronize(f.stream), 0);
            assert_int_equal(f.s.device->runtime.stream_synchronize(NULL), 0);
            assert_int_equal(f.s.device->runtime.set_device(i % 2), 0);
            calls += f.s.control->calls(NULL) - waiting;
        }
        assert_int_equal(f.s.device->calls - counted, f.s.control->calls(NULL) - calls);
        assert_int_equal(f.s.device->runtime.set_device(0), 0);
        close_fixture(&f);
    }
}

/* ---- many programs, nothing waited for ---- */

static void test_61_programs_over_one_arena(void **state) {
    (void)state;
    fixture f = open_fixture(MLAR_POLICY_BALANCED, MLAR_UPDATE_STEP_BLOCK);
    mlar_program *programs[61], *refused = NULL;
    mlar_diag diag;
    for (int i = 0; i < 61; i++) programs[i] = device_engine_capture(f.run, 0, &f.moved[i % CASES], CAPACITY);
    MUST_NAME(MLAR_ERROR_LIMIT, "max_programs", diag,
              mlar_engine_capture(f.run->engine, 0, &f.moved[0].bindings, 1, CAPACITY, &refused, &diag));
    const mlar_stats before = device_engine_stats(f.run, f.stream);
    assert_int_equal(before.programs, 61);
    for (int32_t rows = 0; rows <= CAPACITY; rows++) {
        for (int which = 0; which < CASES; which++) device_case_poison(&f.moved[which]);
        for (int i = 0; i < 61; i++) {
            begin(&f, i % CASES, rows);
            MUST(mlar_program_replay(programs[i], f.stream));
        }
        for (int which = 0; which < CASES; which++) fetched(&f, which, rows, "one of 61");
    }
    const mlar_stats after = device_engine_stats(f.run, f.stream);
    assert_string_equal(after.backend, "hip");
    assert_int_equal(after.pool_used_bytes, f.run->memory.device_bytes);
    assert_int_equal(after.pool_used_high_bytes, before.pool_used_high_bytes);
    assert_int_equal(after.pool_reserved_bytes, before.pool_reserved_bytes);
    assert_int_equal(after.replays - before.replays, 5 * 61);
    assert_string_equal(after.variant, "gfx942");
    MUST(mlar_program_destroy(programs[7]));
    programs[7] =
        device_engine_capture(f.run, 0, &f.moved[2], CAPACITY); /* its slot and layer are free again */
    device_engine_replay(f.run, programs[7], 0, &f.moved[2], ROWS, f.stream);
    engine_case_same(f.made[2], f.right[2][ROWS], "in a reused slot");
    close_fixture(&f);
}

/* Different steps, queued one behind the other, before anything runs: each replay sees its own. */
static void test_steps_queued_back_to_back(void **state) {
    (void)state;
    fixture f = open_fixture(MLAR_POLICY_BALANCED, MLAR_UPDATE_STEP_BLOCK);
    mlar_program *programs[CASES];
    for (int i = 0; i < CASES; i++) programs[i] = device_engine_capture(f.run, 0, &f.moved[i], CAPACITY);
    for (int32_t turn = 0; turn < 5; turn++) {
        for (int i = 0; i < CASES; i++) device_case_poison(&f.moved[i]);
        for (int i = 0; i < CASES; i++) {
            begin(&f, i, (turn + 2 * i) % (CAPACITY + 1));
            MUST(mlar_program_replay(programs[i], f.stream));
        }
        assert_true(f.s.control->queued() >= 3 * CASES);
        for (int i = 0; i < CASES; i++) fetched(&f, i, (turn + 2 * i) % (CAPACITY + 1), "queued");
    }
    /* Rebound in between, too: the block is written in stream order. */
    for (int i = 0; i < CASES; i++) device_case_poison(&f.moved[i]);
    for (int i = 0; i < CASES; i++) {
        MUST(mlar_program_rebind(programs[0], 0, &f.moved[i].bindings, f.stream, NULL));
        begin(&f, i, i + 1);
        MUST(mlar_program_replay(programs[0], f.stream));
    }
    for (int i = 0; i < CASES; i++) fetched(&f, i, i + 1, "queued and rebound");
    close_fixture(&f);
}

static void test_several_layers_in_one_program(void **state) {
    (void)state;
    for (int32_t r = 0; r < 2; r++) {
        fixture f = open_fixture(MLAR_POLICY_BATCH_INVARIANT, routes[r]);
        mlar_bindings bindings[CASES];
        mlar_program *program = NULL;
        for (int i = 0; i < CASES; i++) bindings[i] = f.moved[i].bindings;
        MUST(mlar_engine_capture(f.run->engine, 0, bindings, CASES, CAPACITY, &program, NULL));
        for (int32_t rows = 0; rows <= CAPACITY; rows++) {
            for (int i = 0; i < CASES; i++) device_case_poison(&f.moved[i]);
            begin(&f, 0, rows);
            MUST(mlar_program_replay(program, f.stream));
            for (int i = 0; i < CASES; i++) fetched(&f, i, rows, "one layer of three");
        }
        close_fixture(&f);
    }
}

/* Live rows in device memory: read when the work runs. */
static void test_rows_on_the_device(void **state) {
    (void)state;
    for (int32_t r = 0; r < 2; r++) {
        fixture f = open_fixture(MLAR_POLICY_BALANCED, routes[r]);
        mlar_program *program = device_engine_capture(f.run, 0, &f.moved[0], CAPACITY);
        void *address = NULL;
        MUST(mlar_device_allocate(f.s.device, 4, &address, NULL));
        mlar_step step = {.struct_size = sizeof step, .rows_device = address};
        for (int32_t rows = CAPACITY + 3; rows >= 0; rows--) {
            MUST(mlar_device_write(f.s.device, address, &rows, 4));
            device_case_poison(&f.moved[0]);
            MUST(mlar_engine_step(f.run->engine, &step, f.stream));
            MUST(mlar_engine_prepare(f.run->engine, 0, &f.moved[0].bindings, NULL, f.stream, NULL));
            MUST(mlar_program_replay(program, f.stream));
            fetched(&f, 0, rows < CAPACITY ? rows : CAPACITY, "rows on the device");
        }
        MUST(mlar_device_free(f.s.device, address));
        close_fixture(&f);
    }
}

/* ---- graphs of the host's ---- */

/* 61 layers, prepared and enqueued into a stream that the host captures, in every mode; launched later, twice. */
static void test_enqueued_into_a_graph_of_the_hosts(void **state) {
    (void)state;
    for (int32_t mode = 0; mode < 3; mode++)
        for (int32_t p = 0; p < 2; p++) {
            fixture f = open_fixture(policies[p], MLAR_UPDATE_STEP_BLOCK);
            const mlar_runtime *runtime = &f.s.device->runtime;
            void *own = session_stream(&f.s, mode != 1), *graph = NULL, *exec = NULL;
            mlar_step step = {.struct_size = sizeof step, .rows = ROWS};
            uint64_t copies = f.s.control->calls("hipMemcpyHtoDAsync");
            assert_int_equal(runtime->capture_begin(own, mode), 0);
            for (int i = 0; i < 61; i++) {
                const mlar_bindings *bindings = &f.moved[i % CASES].bindings;
                MUST(mlar_engine_prepare(f.run->engine, 0, bindings, &step, own, NULL));
                MUST(mlar_engine_enqueue(f.run->engine, 0, bindings, CAPACITY, &step, own, NULL));
            }
            assert_int_equal(runtime->capture_end(own, &graph), 0);
            assert_int_equal(f.s.control->calls("hipMemcpyHtoDAsync"), copies);
            assert_int_equal(f.s.control->queued(), 0);
            size_t nodes = 0;
            assert_int_equal(runtime->graph_nodes(graph, NULL, &nodes), 0);
            assert_true(nodes >= 61 * (size_t)(p == 0 ? 3 : 2));
            assert_int_equal(runtime->graph_instantiate(&exec, graph, 0), 0);
            for (int turn = 0; turn < 2; turn++) {
                for (int i = 0; i < CASES; i++) device_case_poison(&f.moved[i]);
                MUST(mlar_engine_poison_scratch(f.run->engine, 9u + (uint32_t)turn, NULL));
                assert_int_equal(runtime->graph_launch(exec, f.stream), 0);
                for (int i = 0; i < CASES; i++) fetched(&f, i, ROWS, "in the host's graph");
            }
            assert_int_equal(runtime->graph_exec_destroy(exec), 0);
            assert_int_equal(runtime->graph_destroy(graph), 0);
            session_stream_free(&f.s, own);
            close_fixture(&f);
        }
}

/* A program's graph is there for the host, and a replay into a captured stream becomes part of the host's graph. */
static void test_a_program_in_a_graph_of_the_hosts(void **state) {
    (void)state;
    fixture f = open_fixture(MLAR_POLICY_BALANCED, MLAR_UPDATE_STEP_BLOCK);
    const mlar_runtime *runtime = &f.s.device->runtime;
    mlar_program *program = device_engine_capture(f.run, 0, &f.moved[0], CAPACITY);
    size_t nodes = 0, recorded = 0;
    assert_non_null(mlar_program_graph(program));
    assert_int_equal(runtime->graph_nodes(mlar_program_graph(program), NULL, &nodes), 0);
    assert_int_equal(nodes, mlar_sequence_nodes(&f.run->engine->layout.dims, 0, CAPACITY));
    begin(&f, 0, ROWS);
    void *graph = NULL, *exec = NULL;
    assert_int_equal(runtime->stream_synchronize(f.stream), 0);
    assert_int_equal(runtime->capture_begin(f.stream, 0), 0);
    MUST(mlar_program_replay(program, f.stream));
    assert_int_equal(runtime->capture_end(f.stream, &graph), 0);
    assert_int_equal(runtime->graph_nodes(graph, NULL, &recorded), 0);
    assert_int_equal(recorded, nodes);
    assert_int_equal(runtime->graph_instantiate(&exec, graph, 0), 0);
    for (int32_t rows = 0; rows <= CAPACITY; rows++) { /* it follows the engine's step */
        device_case_poison(&f.moved[0]);
        begin(&f, 0, rows);
        assert_int_equal(runtime->graph_launch(exec, f.stream), 0);
        fetched(&f, 0, rows, "a child of the host's graph");
    }
    assert_int_equal(runtime->graph_exec_destroy(exec), 0);
    assert_int_equal(runtime->graph_destroy(graph), 0);
    close_fixture(&f);
}

/* ---- the engine's own test ---- */

static void test_selftest(void **state) {
    (void)state;
    for (int32_t i = 0; i < 8; i++) {
        session s = session_new();
        case_spec spec[2] = {engine_case_spec(1, 3, 4, 40, 0), engine_case_spec(2, 3, 4, 40, 200)};
        step_case *made[2] = {case_new(&spec[0]), case_new(&spec[1])};
        mlar_config config = device_engine_config(s.device, (const step_case *const *)made, 2);
        config.selftest = 1;
        config.policy = policies[i % 2];
        config.strategy = strategies[i / 2 % 2];
        config.update_route = routes[i / 4];
        config.guard_bytes = 256;
        device_engine *run = device_engine_open(s.device, &config);
        mlar_diag diag = DIAG_INIT;
        if (mlar_engine_selftest(run->engine, NULL, &diag) != MLAR_OK) fail_msg("%s", diag.message);
        void *stream = session_stream(&s, 1);
        if (mlar_engine_selftest(run->engine, stream, &diag) != MLAR_OK) fail_msg("%s", diag.message);
        assert_int_equal(device_engine_stats(run, stream).programs, 0);
        assert_int_equal(device_engine_stats(run, stream).replays, 0);
        MUST(mlar_engine_check_guards(run->engine, stream, &diag));
        session_stream_free(&s, stream);
        device_engine_close(run);
        case_free(made[0]);
        case_free(made[1]);
        session_end(&s);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_cases_equal_the_cpu),
        cmocka_unit_test(test_rebind),
        cmocka_unit_test(test_nothing_is_launched_for_nothing),
        cmocka_unit_test(test_runtime_calls_are_counted),
        cmocka_unit_test(test_61_programs_over_one_arena),
        cmocka_unit_test(test_steps_queued_back_to_back),
        cmocka_unit_test(test_several_layers_in_one_program),
        cmocka_unit_test(test_rows_on_the_device),
        cmocka_unit_test(test_enqueued_into_a_graph_of_the_hosts),
        cmocka_unit_test(test_a_program_in_a_graph_of_the_hosts),
        cmocka_unit_test(test_selftest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
