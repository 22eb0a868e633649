/* SPDX-License-Identifier: Apache-2.0
 *
 * test_inspect.c: what a host can ask between steps: statistics, the counter of invalid indices, buffers by
 * name, the self-test, guard zones and poison; and that an invalidated engine writes everything again. */
#include "arena/shadow.h"
#include "tests/support/check.h"
#include "tests/support/engine_fixture.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- invalidate -------------------------------------------------------------------------------------- */

static void test_invalidate_writes_everything_again(void **state) {
    (void)state;
    for (int32_t policy = 0; policy < 2; policy++) {
        mlar_config config = any_config(policy);
        fixture f = open_with(&config);
        mlar_program *program = engine_case_capture(f.run, 0, f.made, CAPACITY);
        still_right(&f, program);
        const uint64_t before = engine_case_stats(f.run).set_blocks;
        MUST(mlar_engine_step(f.run->engine, &f.step, NULL)); /* nothing new: no launch */
        MUST(mlar_engine_prepare(f.run->engine, 0, &f.bindings, NULL, NULL, NULL));
        MUST(mlar_program_replay(program, NULL));
        assert_int_equal(engine_case_stats(f.run).set_blocks, before);
        /* The host loses the arena's contents and restores nothing. */
        mlar_shadow_show(f.run->arena_memory, f.run->memory.device_bytes);
        memset(f.run->arena_memory, 0xee, f.run->memory.device_bytes);
        MUST(mlar_engine_invalidate(f.run->engine, NULL));
        MUST_BE(MLAR_ERROR_STATE, mlar_program_replay(program, NULL));
        still_right(&f, program);
        assert_int_equal(engine_case_stats(f.run).set_blocks, before + 2); /* the step, the layer */
        close_fixture(&f);
    }
}

/* ---- inspection -------------------------------------------------------------------------------------- */

static void test_stats_count(void **state) {
    (void)state;
    mlar_config config = any_config(MLAR_POLICY_BALANCED);
    snprintf(config.cpu_isa, sizeof config.cpu_isa, "scalar");
    fixture f = open_with(&config);
    mlar_program *program = engine_case_capture(f.run, 0, f.made, CAPACITY);
    for (int i = 0; i < 3; i++) engine_case_replay(f.run, program, 0, f.made, i);
    MUST(mlar_program_replay(program, NULL));
    mlar_stats stats = engine_case_stats(f.run);
    assert_int_equal(stats.programs, 1);
    assert_int_equal(stats.host_bytes, f.run->memory.host_bytes);
    assert_int_equal(stats.device_bytes, f.run->memory.device_bytes);
    assert_int_equal(stats.high_water_bytes, 0);
    assert_int_equal(stats.steps, 3);
    assert_int_equal(stats.replays, 4);
    assert_int_equal(stats.enqueues, 1);
    assert_int_equal(stats.set_blocks, 3);
    assert_int_equal(stats.runtime_calls, 0);
    assert_int_equal(stats.pool_reserved_bytes + stats.pool_used_bytes + stats.pool_used_high_bytes, 0);
    assert_string_equal(stats.backend, "cpu");
    assert_string_equal(stats.variant, "scalar");
    stats.struct_size = sizeof stats - 1;
    MUST_BE(MLAR_ERROR_STRUCT_SIZE, mlar_engine_stats(f.run->engine, NULL, &stats));
    close_fixture(&f);
}

static void test_the_invalid_counter(void **state) {
    (void)state;
    fixture f = open_fixture(MLAR_POLICY_BALANCED);
    int32_t *indices = (int32_t *)(uintptr_t)f.made->layer.scope[1].indices;
    int32_t *lens = (int32_t *)(uintptr_t)f.made->layer.scope[1].lens;
    lens[0] = 10;
    indices[0] = -1; /* padding is no mistake */
    indices[1] = -2;
    indices[2] = INT32_MAX;
    indices[3] = (int32_t)f.made->layer.scope[1].num_slots;
    indices[4] = (int32_t)f.made->layer.scope[1].num_slots - 1;
    indices[10] = -2; /* behind the row's length */
    MUST(mlar_engine_reset_counters(f.run->engine, NULL));
    engine_case_eager(f.run, 0, f.made);
    assert_int_equal(engine_case_stats(f.run).invalid_indices, 3);
    engine_case_eager(f.run, 0, f.made);
    assert_int_equal(engine_case_stats(f.run).invalid_indices, 6);
    MUST(mlar_engine_reset_counters(f.run->engine, NULL));
    assert_int_equal(engine_case_stats(f.run).invalid_indices, 0);
    close_fixture(&f);
}

static void test_buffers_by_name(void **state) {
    (void)state;
    mlar_config config = any_config(MLAR_POLICY_BALANCED);
    config.strategy = MLAR_STRATEGY_GATHER;
    fixture f = open_with(&config);
    const mlar_memory *memory = &f.run->memory;
    void *address = NULL;
    uint64_t bytes = 0;
    for (int32_t b = 0; b < memory->buffer_count; b++) {
        const mlar_buffer_info *info = &memory->buffers[b];
        MUST(mlar_engine_buffer(f.run->engine, info->kind, info->name, &address, &bytes));
        assert_ptr_equal(address, (char *)f.run->arena_memory + info->offset_bytes);
        assert_int_equal(bytes, info->bytes);
        MUST_BE(MLAR_ERROR_ARGUMENT,
                mlar_engine_buffer(f.run->engine, info->kind < 0 ? 0 : -1, info->name, &address, &bytes));
        /* Every byte may be looked at, sanitizers or not. */
        uint32_t sum = 0;
        for (uint64_t i = 0; i < bytes; i++) sum += ((volatile unsigned char *)address)[i];
        (void)sum;
    }
    MUST_BE(MLAR_ERROR_ARGUMENT, mlar_engine_buffer(f.run->engine, 0, "gather", &address, &bytes));
    MUST_BE(MLAR_ERROR_ARGUMENT, mlar_engine_buffer(f.run->engine, 1, "gather.window", &address, &bytes));
    MUST_BE(MLAR_ERROR_ARGUMENT, mlar_engine_buffer(f.run->engine, -2, "step", &address, &bytes));
    MUST(mlar_engine_buffer(f.run->engine, -1, "selftest", &address, &bytes)); /* known, not planned */
    assert_int_equal(bytes, 0);
    assert_null(address);
    reference *expected = reference_new(&f.made->layer, &f.made->shape, ROWS);
    for (int32_t s = 0; s < 2; s++) {
        char message[200];
        MUST(mlar_engine_buffer(f.run->engine, 0, s ? "gather.extra" : "gather.window", &address, &bytes));
        if (!check_gathered(expected, s, address, -1, message, sizeof message)) fail_msg("%s", message);
    }
    reference_free(expected);
    close_fixture(&f);
}

static void test_the_selftest(void **state) {
    (void)state;
    for (int32_t i = 0; i < 8; i++) {
        mlar_config config = any_config(i & 1);
        config.strategy = i & 2 ? MLAR_STRATEGY_GATHER : MLAR_STRATEGY_DIRECT;
        config.update_route = i & 4 ? MLAR_UPDATE_NODE_PARAMS : MLAR_UPDATE_STEP_BLOCK;
        mlar_diag diag;
        fixture f = open_with(&config);
        MUST_NAME(MLAR_ERROR_STATE, "selftest", diag, mlar_engine_selftest(f.run->engine, NULL, &diag));
        close_fixture(&f);
        config.selftest = 1;
        config.max_programs = config.max_layers = 1;
        config.kinds[1] = config.kinds[0];
        config.kinds[1].scope_count = 1;
        config.kinds[2] = config.kinds[0];
        config.kinds[2].scope[1] = (mlar_scope_config){.width = 100, .layout = MLAR_LAYOUT_BF16};
        config.kinds[3] = config.kinds[1];
        config.kinds[3].scope[0].width = 0;
        config.kind_count = 4;
        f = open_with(&config);
        mlar_program *program = engine_case_capture(f.run, 0, f.made, CAPACITY); /* all that there is */
        still_right(&f, program);
        const mlar_stats before = engine_case_stats(f.run);
        MUST_BE(MLAR_OK, mlar_engine_selftest(f.run->engine, NULL, &diag));
        const mlar_stats after = engine_case_stats(f.run);
        assert_int_equal(after.invalid_indices, before.invalid_indices);
        assert_int_equal(after.replays, before.replays);
        assert_int_equal(after.steps, before.steps);
        assert_int_equal(after.programs, 1);
        MUST_BE(MLAR_ERROR_STATE, mlar_program_replay(program, NULL)); /* its schedule and step are gone */
        still_right(&f, program);
        close_fixture(&f);
    }
}

/* A host's pool that spoils the self-test: nothing runs, or its workspace changes behind one of the stages. */
typedef struct spoiler {
    int is_idle;
    int32_t calls, spoiled_call; /* counted while `workspace` is known */
    unsigned char *workspace;
    uint64_t bytes;
    const uint32_t *scratch; /* what stages find there, each word once */
    uint32_t seen[32];
    int32_t seen_count;
} spoiler;

static void look(spoiler *s) {
    int32_t i = 0;
    mlar_shadow_show(s->scratch, sizeof *s->scratch);
    const uint32_t word = *s->scratch;
    mlar_shadow_define(&word, sizeof word); /* for MemorySanitizer poison is nothing that was written */
    while (i < s->seen_count && s->seen[i] != word) i++;
    if (i < s->seen_count || s->seen_count == 32) return;
    s->seen[s->seen_count++] = word;
}

static void spoiling_for(void *context, int32_t count, void (*body)(void *arg, int32_t i), void *arg) {
    spoiler *s = context;
    if (s->scratch != NULL) look(s);
    if (!s->is_idle)
        for (int32_t i = 0; i < count; i++) body(arg, i);
    if (s->workspace == NULL || s->calls++ != s->spoiled_call) return;
    mlar_shadow_show(s->workspace, s->bytes);
    for (uint64_t i = 0; i < s->bytes; i++) s->workspace[i] ^= 0x40;
}

static void test_the_selftest_can_fail(void **state) {
    (void)state;
    for (int32_t strategy = MLAR_STRATEGY_GATHER; strategy <= MLAR_STRATEGY_DIRECT; strategy++) {
        spoiler s = {.spoiled_call = -1};
        mlar_diag diag = DIAG_INIT;
        mlar_config config = any_config(MLAR_POLICY_BALANCED);
        config.strategy = strategy;
        config.selftest = 1;
        config.threads = 2;
        config.parallel = spoiling_for;
        config.parallel_context = &s;
        fixture f = open_with(&config);
        mlar_engine *engine = f.run->engine;
        void *workspace = NULL;
        MUST(mlar_engine_buffer(engine, -1, "selftest", &workspace, &s.bytes));
        s.workspace = workspace;
        MUST_BE(MLAR_OK, mlar_engine_selftest(engine, NULL, &diag));
        const int32_t calls = s.calls;
        /* Scratch is poisoned four times, before replay and enqueue at all rows and at one, and never alike. */
        void *scratch = NULL;
        uint64_t scratch_bytes = 0;
        MUST(mlar_engine_buffer(engine, 0, strategy == MLAR_STRATEGY_GATHER ? "gather.window" : "partial.out",
                                &scratch, &scratch_bytes));
        assert_true(scratch_bytes >= sizeof *s.scratch);
        s.scratch = scratch;
        MUST_BE(MLAR_OK, mlar_engine_selftest(engine, NULL, &diag));
        assert_true(s.seen_count >= 4);
        s.scratch = NULL;
        int32_t noticed = 0;
        assert_true(calls >= 4);
        for (int32_t call = 0; call < calls; call++) {
            s.calls = 0;
            s.spoiled_call = call;
            const mlar_status status = mlar_engine_selftest(engine, NULL, &diag);
            if (status != MLAR_OK) assert_int_equal(status, MLAR_ERROR_SELFTEST);
            noticed += status != MLAR_OK;
        }
        assert_true(noticed >= 2); /* at least where a result is there already: at all rows, and at one */
        s.spoiled_call = -1;
        s.is_idle = 1;
        MUST_NAME(MLAR_ERROR_SELFTEST, "kinds[0].out", diag, mlar_engine_selftest(engine, NULL, &diag));
        s.is_idle = 0;
        MUST_BE(MLAR_OK, mlar_engine_selftest(engine, NULL, &diag));
        close_fixture(&f);
    }
}

/* ---- guards and poison -------------------------------------------------------------------------------- */

/* What the sanitizers would have caught, were it not for the lifted poison. */
static void flip(unsigned char *at) {
    mlar_shadow_show(at, 1);
    *at ^= 0x40;
}

static void test_a_planted_overrun_is_named(void **state) {
    (void)state;
    mlar_config config = any_config(MLAR_POLICY_BALANCED);
    config.guard_bytes = 512;
    config.strategy = MLAR_STRATEGY_GATHER;
    fixture f = open_with(&config);
    mlar_diag diag;
    MUST(mlar_engine_check_guards(f.run->engine, NULL, NULL));
    for (int32_t b = 0; b < f.run->memory.buffer_count; b++) {
        const mlar_buffer_info *info = &f.run->memory.buffers[b];
        unsigned char *behind = (unsigned char *)f.run->arena_memory + info->offset_bytes + info->bytes;
        if (!info->persistent) continue; /* scratch zones are checked around each step, below */
        flip(behind);
        MUST_NAME(MLAR_ERROR_GUARD, info->name, diag, mlar_engine_check_guards(f.run->engine, NULL, &diag));
        assert_non_null(strstr(diag.message, "back"));
        assert_int_equal(diag.given, 0);
        flip(behind);
        MUST(mlar_engine_check_guards(f.run->engine, NULL, NULL));
    }
    close_fixture(&f);
}

/* A host whose parallel_for scribbles behind a scratch buffer while a stage runs. */
typedef struct scribbler {
    unsigned char *at;
    int armed;
} scribbler;

static void scribbling_for(void *context, int32_t count, void (*body)(void *arg, int32_t i), void *arg) {
    scribbler *s = context;
    for (int32_t i = 0; i < count; i++) body(arg, i);
    if (s->armed && s->at != NULL) {
        flip(s->at);
        s->armed = 0;
    }
}

/* Neighbours share the zone between them: the byte lies behind the one that is named, or in front of it. */
static void names_a_neighbour(const engine_case *run, const mlar_diag *diag, const unsigned char *at) {
    const uint64_t offset = (uint64_t)(at - (const unsigned char *)run->arena_memory);
    for (int32_t b = 0; b < run->memory.buffer_count; b++) {
        const mlar_buffer_info *info = &run->memory.buffers[b];
        if (strcmp(info->name, diag->field) != 0) continue;
        const uint64_t end = info->offset_bytes + info->bytes;
        if (strstr(diag->message, "back") && offset == end + (uint64_t)diag->given) return;
        if (strstr(diag->message, "front") && offset + 1 + (uint64_t)diag->given == info->offset_bytes)
            return;
    }
    fail_msg("'%s' for byte %lu", diag->message, offset);
}

static void test_an_overrun_within_a_step_is_named(void **state) {
    (void)state;
    scribbler s = {0};
    mlar_config config = any_config(MLAR_POLICY_BALANCED);
    config.guard_bytes = 256;
    config.strategy = MLAR_STRATEGY_GATHER;
    config.threads = 2;
    config.parallel = scribbling_for;
    config.parallel_context = &s;
    int32_t named = 0;
    for (int32_t b = 0; b < 16; b++) {
        fixture f = open_with(&config);
        mlar_diag diag;
        if (b < f.run->memory.buffer_count && !f.run->memory.buffers[b].persistent) {
            const mlar_buffer_info *info = &f.run->memory.buffers[b];
            mlar_program *program = engine_case_capture(f.run, 0, f.made, CAPACITY);
            s.at = (unsigned char *)f.run->arena_memory + info->offset_bytes + info->bytes;
            MUST(mlar_engine_step(f.run->engine, &f.step, NULL));
            MUST(mlar_engine_prepare(f.run->engine, 0, &f.bindings, NULL, NULL, NULL));
            s.armed = 1;
            MUST_BE(MLAR_ERROR_GUARD, mlar_program_replay(program, NULL));
            diag = (mlar_diag)DIAG_INIT;
            MUST_BE(MLAR_ERROR_GUARD, mlar_engine_check_guards(f.run->engine, NULL, &diag)); /* it was kept */
            names_a_neighbour(f.run, &diag, s.at);
            named++;
            s.at = NULL;
        }
        close_fixture(&f);
    }
    assert_int_equal(named, 4); /* two gather buffers, two partial ones */
}

static void test_poison_changes_nothing_and_shows_the_high_water(void **state) {
    (void)state;
    for (int32_t strategy = MLAR_STRATEGY_GATHER; strategy <= MLAR_STRATEGY_DIRECT; strategy++) {
        mlar_config config = any_config(MLAR_POLICY_BALANCED);
        config.strategy = strategy;
        fixture f = open_with(&config);
        mlar_program *program = engine_case_capture(f.run, 0, f.made, CAPACITY);
        uint64_t scratch = 0;
        for (int32_t b = 0; b < f.run->memory.buffer_count; b++) {
            const mlar_buffer_info *info = &f.run->memory.buffers[b];
            if (!info->persistent && info->offset_bytes + info->bytes > scratch)
                scratch = info->offset_bytes + info->bytes;
        }
        for (uint32_t seed = 0; seed < 5; seed++) {
            MUST(mlar_engine_poison_scratch(f.run->engine, seed, NULL));
            assert_int_equal(engine_case_stats(f.run).high_water_bytes, 0);
            engine_case_replay(f.run, program, 0, f.made, ROWS);
            engine_case_same(f.made, f.right, "poisoned");
            const uint64_t mark = engine_case_stats(f.run).high_water_bytes;
            if (mark == 0 || mark > scratch) fail_msg("high water %lu of %lu", mark, scratch);
        }
        close_fixture(&f);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_invalidate_writes_everything_again),
        cmocka_unit_test(test_stats_count),
        cmocka_unit_test(test_the_invalid_counter),
        cmocka_unit_test(test_buffers_by_name),
        cmocka_unit_test(test_the_selftest),
        cmocka_unit_test(test_the_selftest_can_fail),
        cmocka_unit_test(test_a_planted_overrun_is_named),
        cmocka_unit_test(test_an_overrun_within_a_step_is_named),
        cmocka_unit_test(test_poison_changes_nothing_and_shows_the_high_water),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
