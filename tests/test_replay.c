/* SPDX-License-Identifier: Apache-2.0
 *
 * test_replay.c: what changes between replays. A program captured at one row with empty lists serves any step
 * within its capacity, through rebound addresses and rows that stand in memory; nothing of the step before is
 * left. Every test runs over both strategies, both policies, both update routes, and both tails. */
#include "tests/support/check.h"
#include "tests/support/engine_case.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CAPACITY = 5, WINDOW = 40, EXTRA = 150 };

typedef struct way {
    int32_t strategy, policy, route;
    bool tail_zero;
} way;

static void name_way(const way *w, char name[96]) {
    snprintf(name, 96, "%s, %s, route %d, tail %s", w->strategy == MLAR_STRATEGY_GATHER ? "gather" : "direct",
             w->policy == MLAR_POLICY_BALANCED ? "balanced" : "invariant", w->route,
             w->tail_zero ? "zero" : "untouched");
}

static void each_way(void (*test)(const way *)) {
    for (int32_t i = 0; i < 16; i++) {
        const way w = {i & 1 ? MLAR_STRATEGY_GATHER : MLAR_STRATEGY_DIRECT,
                       i & 2 ? MLAR_POLICY_BALANCED : MLAR_POLICY_BATCH_INVARIANT,
                       i & 4 ? MLAR_UPDATE_NODE_PARAMS : MLAR_UPDATE_STEP_BLOCK, (i & 8) != 0};
        char name[96];
        name_way(&w, name);
        print_message("    %s\n", name);
        test(&w);
    }
}

static step_case *make(const way *w, uint64_t seed, int32_t rows) {
    case_spec spec = engine_case_spec(seed, rows, CAPACITY, WINDOW, EXTRA);
    spec.features = CASE_WILD | CASE_SINKS;
    spec.tail_zero = w->tail_zero;
    return case_new(&spec);
}

static engine_case *open_engine(const way *w, const step_case *made, int32_t max_rows) {
    mlar_config config = engine_case_config(&made, 1);
    config.strategy = w->strategy;
    config.policy = w->policy;
    config.update_route = w->route;
    config.max_rows = max_rows;
    config.guard_bytes = 256;
    return engine_case_open(&config);
}

/* The live rows are right, and the others as `tail` says up to the capacity and untouched behind it. */
static void check_all(step_case *made, int32_t rows, const char *what) {
    step_case view = *made;
    reference *expected = reference_new(&made->layer, &made->shape, rows);
    check_result result;
    view.spec.rows = rows;
    if (!check_step(&view, expected, &check_spec_cpu, &result)) fail_msg("%s: %s", what, result.message);
    if (view.spec.tail_zero && !check_tail_is_zero(&view)) fail_msg("%s: the tail is not zero", what);
    if (!check_untouched_beyond(&view, view.spec.tail_zero ? CAPACITY : rows))
        fail_msg("%s: written beyond row %d", what, rows);
    reference_free(expected);
}

/* ---- captured small, replayed large ------------------------------------------------------------------- */

static void captured_at_one_row(const way *w) {
    step_case *first = make(w, 1, 1), *second = make(w, 2, CAPACITY), *third = make(w, 3, CAPACITY);
    engine_case *run = open_engine(w, first, CAPACITY);
    memset((void *)(uintptr_t)first->layer.scope[0].lens, 0, 4); /* at capture nothing is to be read */
    memset((void *)(uintptr_t)first->layer.scope[1].lens, 0, 4);
    mlar_program *program = engine_case_capture(run, 0, first, CAPACITY);
    engine_case_replay(run, program, 0, first, 1);
    check_all(first, 1, "empty lists");
    step_case *const order[] = {second, third, second, first};
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        static const int32_t rows[] = {CAPACITY, 0, 1, CAPACITY, 3, 0, CAPACITY};
        step_case *made = order[i];
        mlar_bindings bindings =
            case_bindings(&made->layer); /* q, out, lse, sink, caches and lists all move */
        MUST(mlar_program_rebind(program, 0, &bindings, NULL, NULL));
        for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
            char what[64];
            if (rows[r] > made->spec.rows) continue; /* lists of other rows are not there to be read */
            snprintf(what, sizeof what, "case %zu at %d rows", i, rows[r]);
            engine_case_replay(run, program, 0, made, rows[r]);
            check_all(made, rows[r], what);
        }
    }
    MUST(mlar_engine_check_guards(run->engine, NULL, NULL));
    engine_case_close(run);
    case_free(first);
    case_free(second);
    case_free(third);
}

static void test_captured_at_one_row_with_empty_lists(void **state) {
    (void)state;
    each_way(captured_at_one_row);
}

/* ---- a step that is not noticed -------------------------------------------------------------------------
 */

/* Each change alone must be seen by the next replay, and a replay that repeats a step must repeat its bits.
 */
static void nothing_is_stale(const way *w) {
    step_case *made = make(w, 4, CAPACITY), *other = make(w, 5, CAPACITY);
    engine_case *run = open_engine(w, made, CAPACITY);
    mlar_program *program = engine_case_capture(run, 0, made, CAPACITY);
    uint8_t *full, *few;
    engine_case_replay(run, program, 0, made, CAPACITY);
    full = engine_case_take(made);
    engine_case_replay(run, program, 0, made, 2);
    few = engine_case_take(made);
    assert_memory_not_equal(full, few, engine_case_output_bytes(made));
    engine_case_replay(run, program, 0, made, CAPACITY); /* up again */
    engine_case_same(made, full, "back to all rows");
    engine_case_replay(run, program, 0, made, 2);
    engine_case_same(made, few, "back to two rows");

    mlar_bindings bindings = case_bindings(&made->layer); /* q alone moves */
    bindings.q = other->layer.q;
    MUST(mlar_program_rebind(program, 0, &bindings, NULL, NULL));
    step_case mixed = *made;
    mixed.layer.q = other->layer.q;
    case_poison_outputs(made);
    MUST(mlar_program_replay(program, NULL)); /* in the same step */
    check_all(&mixed, 2, "rebound within a step");

    bindings = case_bindings(&made->layer); /* contents alone change: nothing is to be told */
    MUST(mlar_program_rebind(program, 0, &bindings, NULL, NULL));
    int32_t *lens = (int32_t *)(uintptr_t)made->layer.scope[1].lens;
    const int32_t kept = lens[0];
    lens[0] = kept > 3 ? 1 : 9;
    engine_case_replay(run, program, 0, made, 2);
    check_all(made, 2, "another length");
    lens[0] = kept;
    bindings.scale *= 2;
    MUST(mlar_program_rebind(program, 0, &bindings, NULL, NULL));
    mixed = *made;
    mixed.layer.scale *= 2;
    engine_case_replay(run, program, 0, made, 2);
    check_all(&mixed, 2, "another scale");
    bindings = case_bindings(&made->layer);
    MUST(mlar_program_rebind(program, 0, &bindings, NULL, NULL));
    engine_case_replay(run, program, 0, made, CAPACITY);
    engine_case_same(made, full, "as at first");
    engine_case_close(run);
    case_free(made);
    case_free(other);
    free(full);
    free(few);
}

static void test_nothing_is_stale(void **state) {
    (void)state;
    each_way(nothing_is_stale);
}

/* Telling the engine what it knows costs no launch; telling it something new costs one. */
static void test_only_changes_travel(void **state) {
    (void)state;
    const way w = {MLAR_STRATEGY_DIRECT, MLAR_POLICY_BATCH_INVARIANT, MLAR_UPDATE_STEP_BLOCK, true};
    step_case *made = make(&w, 6, CAPACITY);
    engine_case *run = open_engine(&w, made, CAPACITY);
    mlar_program *program = engine_case_capture(run, 0, made, CAPACITY);
    mlar_bindings bindings = case_bindings(&made->layer);
    engine_case_replay(run, program, 0, made, 3);
    const uint64_t before = engine_case_stats(run).set_blocks;
    for (int i = 0; i < 5; i++) {
        engine_case_replay(run, program, 0, made, 3);
        MUST(mlar_program_rebind(program, 0, &bindings, NULL, NULL));
    }
    assert_int_equal(engine_case_stats(run).set_blocks, before);
    engine_case_replay(run, program, 0, made, 2);
    assert_int_equal(engine_case_stats(run).set_blocks, before + 1);
    bindings.scale += 1;
    MUST(mlar_program_rebind(program, 0, &bindings, NULL, NULL));
    assert_int_equal(engine_case_stats(run).set_blocks, before + 2);
    engine_case_close(run);
    case_free(made);
}

/* ---- rows in memory --------------------------------------------------------------------------------------
 */

/* The count stands in memory: read when the step runs, clamped to 0 .. capacity. prepare is not told a
 * capacity, so its lists are there for max_rows rows. */
static void rows_in_memory(const way *w) {
    enum { LESS = 3 };
    step_case *made = make(w, 7, CAPACITY);
    engine_case *run = open_engine(w, made, CAPACITY);
    mlar_program *program = engine_case_capture(run, 0, made, CAPACITY),
                 *less = engine_case_capture(run, 0, made, LESS);
    mlar_bindings bindings = case_bindings(&made->layer);
    static const int32_t counts[] = {0,       1,  CAPACITY, 2,        LESS,     CAPACITY + 1,
                                     INT_MAX, -1, INT_MIN,  CAPACITY, LESS + 1, 0};
    int32_t *count = malloc(sizeof *count); /* to the byte, for the sanitizers */
    assert_non_null(count);
    *count = 4;
    mlar_step step = {.struct_size = sizeof step, .rows = -77, .rows_device = count};
    MUST(mlar_engine_step(run->engine, &step, NULL));
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        char what[64];
        const int32_t rows = counts[i] < 0 ? 0 : counts[i] > CAPACITY ? CAPACITY : counts[i];
        const int32_t fewer = rows > LESS ? LESS : rows;
        *count = counts[i];
        snprintf(what, sizeof what, "%d rows in memory", counts[i]);
        MUST(mlar_engine_prepare(run->engine, 0, &bindings, NULL, NULL, NULL));
        case_poison_outputs(made);
        MUST(mlar_program_replay(program, NULL));
        check_all(made, rows, what);

        case_poison_outputs(made); /* a program that takes fewer writes no row past its capacity */
        MUST(mlar_program_replay(less, NULL));
        step_case view = *made;
        view.spec.capacity_rows = LESS;
        reference *expected = reference_new(&made->layer, &made->shape, fewer);
        check_result result;
        if (!check_step(&view, expected, &check_spec_cpu, &result))
            fail_msg("%s, less: %s", what, result.message);
        if (!check_untouched_beyond(&view, w->tail_zero ? LESS : fewer))
            fail_msg("%s: past the capacity", what);
        view.spec.rows = fewer;
        if (w->tail_zero && !check_tail_is_zero(&view)) fail_msg("%s: the tail is not zero", what);
        reference_free(expected);

        case_poison_outputs(made);
        MUST(mlar_engine_prepare(run->engine, 0, &bindings, &step, NULL, NULL));
        MUST(mlar_engine_enqueue(run->engine, 0, &bindings, CAPACITY, &step, NULL, NULL));
        check_all(made, rows, what);
    }
    MUST(mlar_engine_check_guards(run->engine, NULL, NULL));
    engine_case_close(run);
    case_free(made);
    free(count);
}

static void test_rows_in_memory(void **state) {
    (void)state;
    each_way(rows_in_memory);
}

/* ---- eager, first, thousandth
 * ------------------------------------------------------------------------------ */

static void a_thousand_times(const way *w) {
    step_case *made = make(w, 8, 3);
    engine_case *run = open_engine(w, made, CAPACITY);
    mlar_program *program = engine_case_capture(run, 0, made, CAPACITY);
    engine_case_eager(run, 0, made);
    uint8_t *right = engine_case_take(made);
    engine_case_replay(run, program, 0, made, 3);
    engine_case_same(made, right, "the first replay");
    for (int i = 0; i < (SANITIZED ? 100 : 1000); i++) MUST(mlar_program_replay(program, NULL));
    case_poison_outputs(made);
    MUST(mlar_program_replay(program, NULL));
    engine_case_same(made, right, "the thousandth replay");
    engine_case_close(run);
    case_free(made);
    free(right);
}

static void test_a_thousand_times(void **state) {
    (void)state;
    each_way(a_thousand_times);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_captured_at_one_row_with_empty_lists),
        cmocka_unit_test(test_nothing_is_stale),
        cmocka_unit_test(test_only_changes_travel),
        cmocka_unit_test(test_rows_in_memory),
        cmocka_unit_test(test_a_thousand_times),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
