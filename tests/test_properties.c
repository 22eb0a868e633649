/* SPDX-License-Identifier: Apache-2.0
 *
 * test_properties.c: random steps through the public API against the float64 reference: layouts, encodings,
 * block sizes, strides, list forms, wild indices and lengths, NaN bytes, odd scales and sinks, f32 and
 * strided outputs, tails, under random strategies, policies, splits, budgets, threads and update routes;
 * eager and replayed. */
#include "kernels/cpu/kernels.h"
#include "tests/support/check.h"
#include "tests/support/engine_case.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int32_t pick(uint64_t *random, const int32_t *from, int32_t count) {
    return from[case_random_below(random, count)];
}
#define PICK(random, ...)                                                                                    \
    pick(random, (const int32_t[]){__VA_ARGS__}, (int32_t)(sizeof((const int32_t[]){__VA_ARGS__}) / 4))

static void draw_engine(uint64_t *random, mlar_config *config) {
    int32_t offered = 0;
    while (mlar_cpu_offered(offered) != NULL) offered++;
    config->strategy = PICK(random, MLAR_STRATEGY_GATHER, MLAR_STRATEGY_DIRECT);
    config->policy = PICK(random, MLAR_POLICY_BALANCED, MLAR_POLICY_BATCH_INVARIANT);
    config->splits = PICK(random, 0, 0, 1, 2, 5, 64);
    config->threads = PICK(random, 1, 1, 2, 4);
    config->update_route = PICK(random, MLAR_UPDATE_STEP_BLOCK, MLAR_UPDATE_NODE_PARAMS);
    config->guard_bytes = PICK(random, 0, 256, 1024);
    config->device.compute_units = PICK(random, 1, 2, 7, 16, 64, 304);
    config->max_rows += PICK(random, 0, 0, 3);
    snprintf(config->cpu_isa, sizeof config->cpu_isa, "%s",
             mlar_cpu_offered(case_random_below(random, offered)));
    if (PICK(random, 0, 1)) { /* somewhere between the minimum and everything */
        mlar_memory memory = {.struct_size = sizeof memory};
        MUST(mlar_memory_query(config, &memory, NULL));
        const uint64_t span = memory.device_bytes - memory.minimum_budget_bytes;
        config->budget_bytes =
            memory.minimum_budget_bytes + span * (uint64_t)case_random_below(random, 5) / 4;
    }
}

static void describe(const step_case *made, const mlar_config *config, char *line, size_t bytes) {
    char about[400];
    snprintf(line, bytes,
             "%s, strategy %d, policy %d, splits %d, %d units, %d threads, budget %lu, route %d\n%s",
             config->cpu_isa, config->strategy, config->policy, config->splits, config->device.compute_units,
             config->threads, (unsigned long)config->budget_bytes, config->update_route,
             case_describe(&made->spec, about, sizeof about));
}

static void check_result_of(step_case *made, const reference *expected, const char *how, const char *line) {
    /* The bf16 rounding of a few elements alone can exceed what holds for many. */
    const bool few = (int64_t)made->spec.rows * made->spec.heads * made->shape.d_v < 1000;
    check_result result;
    if (!check_step(made, expected, few ? &check_spec : &check_spec_cpu, &result))
        fail_msg("%s: %s\n%s", how, result.message, line);
    if (!check_untouched_beyond(made, made->spec.tail_zero ? made->spec.capacity_rows : made->spec.rows))
        fail_msg("%s: wrote outside its outputs\n%s", how, line);
    if (made->spec.tail_zero && !check_tail_is_zero(made))
        fail_msg("%s: rows beyond the live ones are not zero\n%s", how, line);
}

static void check_buffers(engine_case *run, const step_case *made, const reference *expected,
                          const char *line) {
    static const char *const names[] = {"gather.window", "gather.extra"};
    if (run->config.strategy != MLAR_STRATEGY_GATHER || run->memory.row_tile[0] < made->spec.rows) return;
    for (int32_t s = 0; s < made->spec.scope_count; s++) {
        void *address = NULL;
        uint64_t bytes = 0;
        char message[200];
        MUST(mlar_engine_buffer(run->engine, 0, names[s], &address, &bytes));
        if (bytes > 0 && !check_gathered(expected, s, address, -1, message, sizeof message))
            fail_msg("%s\n%s", message, line);
    }
}

static void run_seed(uint64_t seed, uint32_t features, const case_bounds *bounds) {
    uint64_t random = seed * 77 + 5;
    char line[700];
    case_spec spec = case_draw(seed, features, bounds);
    engine_case_unmix(&spec);
    step_case *made = case_new(&spec);
    reference *expected = reference_new(&made->layer, &made->shape, spec.rows);
    mlar_config config = engine_case_config((const step_case *const *)&made, 1);
    draw_engine(&random, &config);
    describe(made, &config, line, sizeof line);
    engine_case *run = engine_case_open(&config);
    mlar_program *program = engine_case_capture(run, 0, made, spec.capacity_rows);
    engine_case_eager(run, 0, made);
    check_result_of(made, expected, "eager", line);
    check_buffers(run, made, expected, line);
    uint8_t *eager = engine_case_take(made);
    MUST(mlar_engine_poison_scratch(run->engine, (uint32_t)seed, NULL));
    engine_case_replay(run, program, 0, made, spec.rows);
    engine_case_same(made, eager, line);
    if (engine_case_stats(run).invalid_indices != 2 * expected->invalid)
        fail_msg("%lu invalid in two steps, expected 2 x %lu\n%s",
                 (unsigned long)engine_case_stats(run).invalid_indices, (unsigned long)expected->invalid,
                 line);
    MUST(mlar_engine_check_guards(run->engine, NULL, NULL));
    engine_case_close(run);
    reference_free(expected);
    case_free(made);
    free(eager);
}

static void sweep(uint64_t first, uint64_t count, uint32_t features, const case_bounds *bounds) {
    if (SANITIZED) count = (count + 4) / 5;
    for (uint64_t seed = first; seed < first + count; seed++) run_seed(seed, features, bounds);
}

static void test_ordinary_steps(void **state) {
    (void)state;
    sweep(20000, 30, 0, NULL);
}

static void test_all_features(void **state) {
    (void)state;
    sweep(30000, 110, CASE_ALL, NULL);
}

static void test_small_steps(void **state) {
    (void)state;
    const case_bounds bounds = {.rows = 9, .heads = 5, .width = 140, .dims = 1};
    sweep(40000, 400, CASE_ALL, &bounds);
}

static void test_many_heads(void **state) {
    (void)state;
    const case_bounds bounds = {.rows = 2, .heads = 128, .width = 200};
    sweep(50000, 25, CASE_ALL & ~(uint32_t)CASE_OVERFLOWS, &bounds);
}

static void test_long_lists(void **state) {
    (void)state;
    const case_bounds bounds = {.rows = 2, .heads = 8, .width = 6000, .dims = 1};
    sweep(60000, 14, CASE_LAYOUTS | CASE_WILD | CASE_RAGGED | CASE_FORMS, &bounds);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ordinary_steps), cmocka_unit_test(test_all_features),
        cmocka_unit_test(test_small_steps),    cmocka_unit_test(test_many_heads),
        cmocka_unit_test(test_long_lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
