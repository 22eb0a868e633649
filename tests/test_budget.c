/* SPDX-License-Identifier: Apache-2.0
 *
 * test_budget.c: budgets swept from the minimum to unlimited. Each runs and is kept, a larger one never gives
 * a smaller row tile, one byte below the minimum is refused with the exact minimum, and by policy
 * batch_invariant no budget changes a bit. */
#include "tests/support/check.h"
#include "tests/support/engine_case.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 21, KINDS = 3 };

static const struct shape {
    const char *name;
    int32_t strategy, policy, splits, guard_bytes, max_nodes;
} shapes[] = {
    {"gather, balanced", MLAR_STRATEGY_GATHER, MLAR_POLICY_BALANCED, 0, 0, 128},
    {"gather, balanced, guards", MLAR_STRATEGY_GATHER, MLAR_POLICY_BALANCED, 0, 512, 128},
    {"gather, invariant", MLAR_STRATEGY_GATHER, MLAR_POLICY_BATCH_INVARIANT, 3, 0, 128},
    {"gather, invariant, few nodes", MLAR_STRATEGY_GATHER, MLAR_POLICY_BATCH_INVARIANT, 1, 0, 8},
    {"direct, balanced", MLAR_STRATEGY_DIRECT, MLAR_POLICY_BALANCED, 0, 0, 128},
    {"direct, invariant", MLAR_STRATEGY_DIRECT, MLAR_POLICY_BATCH_INVARIANT, 4, 0, 128},
    {"direct, invariant, guards", MLAR_STRATEGY_DIRECT, MLAR_POLICY_BATCH_INVARIANT, 2, 256, 128},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

typedef struct fixture {
    step_case *made[KINDS];
    reference *expected[KINDS];
} fixture;

static fixture the;

static int set_up(void **state) {
    (void)state;
    static const int32_t extra[KINDS] = {0, 130, 400};
    for (int32_t k = 0; k < KINDS; k++) {
        case_spec spec = engine_case_spec(10 + (uint64_t)k, ROWS, ROWS, 70, extra[k]);
        the.made[k] = case_new(&spec);
        the.expected[k] = reference_new(&the.made[k]->layer, &the.made[k]->shape, ROWS);
    }
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    for (int32_t k = 0; k < KINDS; k++) {
        case_free(the.made[k]);
        reference_free(the.expected[k]);
    }
    return 0;
}

static mlar_config config_of(const struct shape *shape) {
    mlar_config config = engine_case_config((const step_case *const *)the.made, KINDS);
    config.strategy = shape->strategy;
    config.policy = shape->policy;
    config.splits = shape->splits;
    config.guard_bytes = shape->guard_bytes;
    config.max_nodes = shape->max_nodes;
    return config;
}

static mlar_memory query(const mlar_config *config, const char *name) {
    mlar_memory memory = {.struct_size = sizeof memory};
    mlar_diag diag = DIAG_INIT;
    if (mlar_memory_query(config, &memory, &diag) != MLAR_OK) fail_msg("%s: %s", name, diag.message);
    return memory;
}

static void refused_below(mlar_config config, uint64_t minimum, const char *name) {
    mlar_memory memory = {.struct_size = sizeof memory};
    mlar_diag diag;
    char number[32];
    snprintf(number, sizeof number, "%lu", (unsigned long)minimum);
    const uint64_t budgets[] = {minimum - 1, minimum / 2, 1};
    for (size_t i = 0; i < 3; i++) {
        config.budget_bytes = budgets[i];
        MUST_NAME(MLAR_ERROR_BUDGET, "budget_bytes", diag, mlar_memory_query(&config, &memory, &diag));
        assert_int_equal(diag.given, budgets[i]);
        assert_int_equal(diag.needed, minimum);
        if (!strstr(diag.message, number)) fail_msg("%s: '%s'", name, diag.message);
    }
}

/* Every budget of the sweep, without running. Returns how many different plans there are. */
static int32_t sweep(mlar_config config, const char *name, uint64_t step) {
    mlar_memory free_of_limits = query(&config, name), before = {0};
    const uint64_t minimum = free_of_limits.minimum_budget_bytes;
    int32_t plans = 0;
    refused_below(config, minimum, name);
    for (uint64_t budget = minimum; budget < free_of_limits.device_bytes + 2 * step; budget += step) {
        config.budget_bytes = budget;
        mlar_memory memory = query(&config, name);
        if (memory.device_bytes > budget)
            fail_msg("%s: %lu bytes with a budget of %lu", name, memory.device_bytes, budget);
        assert_int_equal(memory.minimum_budget_bytes, minimum);
        for (int32_t k = 0; k < config.kind_count; k++)
            if (memory.row_tile[k] < before.row_tile[k])
                fail_msg("%s: budget %lu gives kind %d a tile of %d, a smaller one %d", name, budget, k,
                         memory.row_tile[k], before.row_tile[k]);
        if (budget == minimum &&
            memory.device_bytes != minimum) /* less would have done: it is not the minimum */
            fail_msg("%s: the minimum is %lu, and takes %lu bytes", name, minimum, memory.device_bytes);
        plans += memory.device_bytes != before.device_bytes;
        before = memory;
    }
    for (int32_t k = 0; k < config.kind_count; k++)
        assert_int_equal(before.row_tile[k], free_of_limits.row_tile[k]);
    assert_int_equal(before.device_bytes, free_of_limits.device_bytes);
    return plans;
}

static void test_every_budget_is_kept(void **state) {
    (void)state;
    for (int32_t i = 0; i < SHAPES; i++) {
        mlar_config config = config_of(&shapes[i]);
        int32_t plans = sweep(config, shapes[i].name, 256);
        if (shapes[i].strategy == MLAR_STRATEGY_GATHER && plans < 3)
            fail_msg("%s: %d", shapes[i].name, plans);
        (void)sweep(config, shapes[i].name, 1001);
    }
}

static void test_presets(void **state) {
    (void)state;
    static const char *const names[] = {"dsv4-flash", "dsv4-pro", "v32"};
    for (int i = 0; i < 3; i++)
        for (int32_t policy = 0; policy < 2; policy++)
            for (int32_t strategy = MLAR_STRATEGY_GATHER; strategy <= MLAR_STRATEGY_DIRECT; strategy++) {
                mlar_config config;
                MUST(mlar_config_preset(&config, names[i], 8, NULL));
                config.max_rows = 64;
                config.policy = policy;
                config.strategy = strategy;
                mlar_memory memory = query(&config, names[i]);
                (void)sweep(config, names[i], memory.device_bytes / 500 + 1);
            }
}

/* Tiles count kernels too: a layer never takes more than max_nodes. */
static void test_nodes_limit_the_tiles(void **state) {
    (void)state;
    mlar_config config = config_of(&shapes[0]);
    config.max_rows = 1000;
    config.max_nodes = 8;
    config.budget_bytes = query(&config, "8 nodes").minimum_budget_bytes;
    assert_true(query(&config, "8 nodes").row_tile[2] >= 500); /* 3 kernels a tile, 2 tiles */
    config.budget_bytes = 0;
    config.max_nodes = 128;
    config.budget_bytes = query(&config, "128 nodes").minimum_budget_bytes;
    assert_true(query(&config, "128 nodes").row_tile[2] <= 25);
}

/* What the smallest, some middle and the largest budgets compute. */
static void test_every_budget_runs(void **state) {
    (void)state;
    for (int32_t i = 0; i < SHAPES; i++) {
        const struct shape *shape = &shapes[i];
        mlar_config config = config_of(shape);
        mlar_memory limitless = query(&config, shape->name);
        const uint64_t minimum = limitless.minimum_budget_bytes, span = limitless.device_bytes - minimum;
        uint8_t *first[KINDS] = {NULL};
        for (uint64_t part = 0; part <= 8; part++) {
            config.budget_bytes = part == 8 ? 0 : minimum + span * part * part / 49;
            engine_case *run = engine_case_open(&config);
            for (int32_t k = 0; k < KINDS; k++) {
                step_case *made = the.made[k];
                check_result result;
                mlar_program *program = engine_case_capture(run, k, made, ROWS);
                engine_case_replay(run, program, k, made, ROWS);
                if (!check_step(made, the.expected[k], &check_spec_cpu, &result))
                    fail_msg("%s, budget %lu, kind %d: %s", shape->name, config.budget_bytes, k,
                             result.message);
                if (shape->policy == MLAR_POLICY_BATCH_INVARIANT) {
                    if (first[k] == NULL) first[k] = engine_case_take(made);
                    engine_case_same(made, first[k], shape->name);
                }
            }
            MUST(mlar_engine_check_guards(run->engine, NULL, NULL));
            engine_case_close(run);
        }
        for (int32_t k = 0; k < KINDS; k++) free(first[k]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_budget_is_kept),
        cmocka_unit_test(test_presets),
        cmocka_unit_test(test_nodes_limit_the_tiles),
        cmocka_unit_test(test_every_budget_runs),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
