/* SPDX-License-Identifier: Apache-2.0
 *
 * test_invariance.c: what results do not depend on. By policy batch_invariant a row's bits are its own:
 * whatever rows are beside it, whatever the capacity, the row tile, the threads. By either policy a step's
 * bits are the same each time, whatever lay in the arena. invalid_indices is the same number for every head
 * count, split and strategy. */
#include "tests/support/check.h"
#include "tests/support/engine_case.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 12 };

static step_case *make(int32_t layout, bool out_f32) {
    case_spec spec = engine_case_spec(17, ROWS, ROWS, 90, 400);
    spec.nope = 128;
    spec.features = CASE_WILD | CASE_SPECIALS | CASE_SINKS;
    spec.out_f32 = out_f32;
    for (int32_t s = 0; s < 2; s++) spec.scope[s].layout = layout;
    return case_new(&spec);
}

/* The bindings of rows [first, ...) of a case. */
static mlar_bindings bindings_from(const step_case *made, int32_t first) {
    mlar_bindings b = case_bindings(&made->layer);
    const int64_t element = b.out_type == MLAR_OUT_F32 ? 4 : 2;
    b.q = (const uint16_t *)b.q + first * b.q_row_stride;
    b.out = (char *)b.out + first * b.out_row_stride * element;
    b.lse += first * b.lse_row_stride;
    for (int32_t s = 0; s < made->spec.scope_count; s++) {
        b.list[s].indices += first * b.list[s].row_stride;
        b.list[s].lens += first;
    }
    return b;
}

/* Rows [first, first + rows) as a step of their own, into their own places. */
static void run_rows(engine_case *run, const step_case *made, int32_t first, int32_t rows, int32_t capacity) {
    mlar_bindings b = bindings_from(made, first);
    mlar_step step = {.struct_size = sizeof step, .rows = rows};
    b.tail = MLAR_TAIL_UNTOUCHED;
    MUST(mlar_engine_prepare(run->engine, 0, &b, &step, NULL, NULL));
    MUST(mlar_engine_enqueue(run->engine, 0, &b, capacity, &step, NULL, NULL));
}

/* ---- a row alone and in company -------------------------------------------------------------------------
 */

static void all_groupings(engine_case *run, step_case *made, const uint8_t *right, const char *what) {
    for (int32_t rows = 1; rows <= ROWS; rows++)
        for (int32_t roomy = 0; roomy < 2;
             roomy++) { /* capacity: just enough, or all that there is room for */
            case_poison_outputs(made);
            for (int32_t first = 0; first < ROWS; first += rows) {
                const int32_t now = first + rows > ROWS ? ROWS - first : rows;
                run_rows(run, made, first, now, roomy ? ROWS - first : now);
            }
            engine_case_same(made, right, what);
        }
}

static void test_a_row_does_not_see_its_company(void **state) {
    (void)state;
    static const int32_t layouts[] = {MLAR_LAYOUT_DSV4, MLAR_LAYOUT_V32, MLAR_LAYOUT_BF16};
    for (int32_t l = 0; l < 3; l++)
        for (int32_t splits = 0; splits <= 8; splits = splits ? splits * 2 : 1)
            for (int32_t strategy = MLAR_STRATEGY_GATHER; strategy <= MLAR_STRATEGY_DIRECT; strategy++) {
                step_case *made = make(layouts[l], l == 1);
                mlar_config config = engine_case_config((const step_case *const *)&made, 1);
                char what[96];
                snprintf(what, sizeof what, "layout %d, %d splits, strategy %d", layouts[l], splits,
                         strategy);
                config.policy = MLAR_POLICY_BATCH_INVARIANT;
                config.splits = splits;
                config.strategy = strategy;
                uint8_t *right = NULL;
                for (int32_t variant = 0; variant < 3; variant++) {
                    mlar_memory memory = {.struct_size = sizeof memory};
                    config.threads = 1 + 2 * variant;
                    config.budget_bytes = 0;
                    MUST(mlar_memory_query(&config, &memory, NULL));
                    if (variant == 1) config.budget_bytes = memory.minimum_budget_bytes + 100000;
                    if (splits > 0 && variant == 2) config.max_rows = ROWS + 20;
                    engine_case *run = engine_case_open(&config);
                    case_poison_outputs(made);
                    run_rows(run, made, 0, ROWS, ROWS);
                    if (right == NULL) right = engine_case_take(made);
                    engine_case_same(made, right, what);
                    if (!SANITIZED || (splits == 2 && variant == 1)) all_groupings(run, made, right, what);
                    engine_case_close(run);
                }
                case_free(made);
                free(right);
            }
}

/* Other rows' contents change nothing either: a neighbour of NaNs, with other lengths. */
static void test_a_row_does_not_see_its_neighbours_contents(void **state) {
    (void)state;
    for (int32_t strategy = MLAR_STRATEGY_GATHER; strategy <= MLAR_STRATEGY_DIRECT; strategy++) {
        step_case *made = make(MLAR_LAYOUT_DSV4, false);
        mlar_config config = engine_case_config((const step_case *const *)&made, 1);
        config.policy = MLAR_POLICY_BATCH_INVARIANT;
        config.strategy = strategy;
        engine_case *run = engine_case_open(&config);
        case_poison_outputs(made);
        run_rows(run, made, 0, ROWS, ROWS);
        uint8_t *right = engine_case_take(made);
        for (int32_t row = 1; row < ROWS; row += 2) {
            memset((uint16_t *)(uintptr_t)made->layer.q + row * made->layer.q_row_stride, 0xff,
                   (size_t)(made->layer.q_head_stride * (made->spec.heads - 1) + made->shape.d_qk) * 2);
            ((int32_t *)(uintptr_t)made->layer.scope[0].lens)[row] = row % 5 * 20;
            ((int32_t *)(uintptr_t)made->layer.scope[1].lens)[row] = 0;
        }
        run_rows(run, made, 0, ROWS, ROWS);
        const size_t row_bytes = (size_t)made->layer.out_row_stride * 2;
        for (size_t row = 0; row < ROWS; row += 2)
            assert_memory_equal((char *)made->layer.out + row * row_bytes, right + row * row_bytes,
                                row_bytes);
        engine_case_close(run);
        case_free(made);
        free(right);
    }
}

/* ---- the same every time ----------------------------------------------------------------------------------
 */

static void test_what_lay_in_the_arena_does_not_matter(void **state) {
    (void)state;
    static const int dirt[] = {0x00, 0xff, 0x7f, 0x80, 0x01};
    for (int32_t way = 0; way < 4; way++) {
        step_case *made = make(MLAR_LAYOUT_DSV4, false);
        mlar_config config = engine_case_config((const step_case *const *)&made, 1);
        uint8_t *right = NULL;
        config.policy = way & 1;
        config.strategy = way & 2 ? MLAR_STRATEGY_GATHER : MLAR_STRATEGY_DIRECT;
        for (int32_t i = 0; i < 15; i++) {
            config.threads = 1 + i / 5;
            engine_case *run = engine_case_open(&config);
            MUST(mlar_engine_deinit(run->engine)); /* once more, over other dirt */
            memset(run->arena_memory, dirt[i % 5], run->memory.device_bytes);
            memset(run->host_memory, dirt[i % 5], run->memory.host_bytes);
            MUST(mlar_engine_init(&config, NULL, &run->arena, run->host_memory, run->memory.host_bytes,
                                  &run->engine, NULL));
            engine_case_eager(run, 0, made);
            if (right == NULL) right = engine_case_take(made);
            engine_case_same(made, right, "over dirt");
            mlar_program *program = engine_case_capture(run, 0, made, ROWS);
            engine_case_replay(run, program, 0, made, ROWS);
            engine_case_same(made, right, "replayed over dirt");
            assert_int_equal(engine_case_stats(run).steps, 1);
            engine_case_close(run);
        }
        case_free(made);
        free(right);
    }
}

/* ---- the counter
 * --------------------------------------------------------------------------------------------- */

static void test_invalid_indices_are_counted_once(void **state) {
    (void)state;
    static const int32_t heads[] = {1, 3, 16, 64, 128};
    uint64_t wanted = 0;
    for (int32_t i = 0; i < 5; i++) {
        case_spec spec = engine_case_spec(23, 7, 7, 130, 500);
        spec.features = CASE_WILD;
        spec.heads =
            heads[i]; /* lists and caches are drawn before the queries: the same for every head count */
        step_case *made = case_new(&spec);
        reference *expected = reference_new(&made->layer, &made->shape, 7);
        if (i == 0) wanted = expected->invalid;
        assert_true(wanted > 10);
        assert_int_equal(expected->invalid, wanted);
        for (int32_t splits = -1; splits <= 16; splits = splits < 1 ? splits + 1 : 4 * splits)
            for (int32_t strategy = MLAR_STRATEGY_GATHER; strategy <= MLAR_STRATEGY_DIRECT; strategy++)
                for (int32_t units = 1; units <= 64; units *= 8) {
                    mlar_config config = engine_case_config((const step_case *const *)&made, 1);
                    config.policy = splits < 0 ? MLAR_POLICY_BALANCED : MLAR_POLICY_BATCH_INVARIANT;
                    config.splits = splits < 0 ? 0 : splits;
                    config.strategy = strategy;
                    config.device.compute_units = units;
                    config.threads = 1 + units / 8 % 3;
                    engine_case *run = engine_case_open(&config);
                    engine_case_eager(run, 0, made);
                    if (engine_case_stats(run).invalid_indices != wanted)
                        fail_msg("%d heads, %d splits, strategy %d, %d units: %lu, expected %lu", heads[i],
                                 splits, strategy, units,
                                 (unsigned long)engine_case_stats(run).invalid_indices,
                                 (unsigned long)wanted);
                    engine_case_close(run);
                }
        reference_free(expected);
        case_free(made);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_row_does_not_see_its_company),
        cmocka_unit_test(test_a_row_does_not_see_its_neighbours_contents),
        cmocka_unit_test(test_what_lay_in_the_arena_does_not_matter),
        cmocka_unit_test(test_invalid_indices_are_counted_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
