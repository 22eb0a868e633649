/* SPDX-License-Identifier: Apache-2.0
 *
 * test_changed_lists.c: a host that changes the lists' lengths after prepare has seen them, which mlarena.h forbids and
 * a race in a host does all the same. What such a step computes is unspecified. But it ends, it writes nothing
 * but its outputs and its own buffers, and the next step that keeps the rules is right to the bit. */
#include "kernels/cpu/kernels.h"
#include "kernels/schedule.h"
#include "tests/support/check.h"
#include "tests/support/engine_case.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- what a worker has of a list that is another one now ---- */

static void test_a_part_keeps_a_tile(void **state) {
    (void)state;
    static const struct {
        int32_t row, tile, tiles; /* where a part begins, and how many tiles the row has now */
        int32_t end;
    } cases[] = {
        {3, 0, 9, 9}, {3, 5, 9, 9}, {3, 5, 6, 6}, {3, 5, 5, 6}, /* the row's last tiles are the part's */
        {3, 5, 1, 6}, {3, 0, 1, 1}, {4, 0, 9, 7}, /* the row in which the share ends: the cut says where */
        {4, 0, 2, 7}, {4, 0, 7, 7}, {4, 6, 1, 7},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const mlar_span span = {.row = 3, .tile = 5, .end_row = 4, .end_tile = 7};
        const mlar_row_lists lists = {.tiles = cases[i].tiles};
        assert_int_equal(mlar_span_end_in(&span, cases[i].row, cases[i].tile, &lists), cases[i].end);
    }
}

/* ---- whole steps ---- */

/* The lengths of one scope, and what they were. */
typedef struct lengths {
    int32_t *words, count;
    int32_t *kept;
} lengths;

static lengths lengths_of(const step_case *made, int32_t s) {
    const case_scope_spec *spec = &made->spec.scope[s];
    const int32_t rows = made->spec.rows;
    lengths l = {.words = (int32_t *)(uintptr_t)made->layer.scope[s].lens};
    if (l.words == NULL) return l;
    l.count =
        spec->list_form == MLAR_LIST_RAGGED ? rows + 1 : (rows + spec->rows_per_len - 1) / spec->rows_per_len;
    l.kept = malloc((size_t)l.count * sizeof *l.kept + 1);
    assert_non_null(l.kept);
    memcpy(l.kept, l.words, (size_t)l.count * sizeof *l.kept);
    return l;
}

/* Any number is a length; a ragged list's words stay within its entries, which have to be there. */
static void change(uint64_t *random, lengths *l, const case_scope_spec *spec) {
    const int32_t wild[] = {INT32_MIN, -1, 0, 1, spec->width, INT32_MAX};
    for (int32_t i = 0; i < l->count; i++)
        if (spec->list_form == MLAR_LIST_RAGGED)
            l->words[i] = case_random_below(random, l->kept[l->count - 1] + 1);
        else if (case_random_below(random, 3) == 0)
            l->words[i] = wild[case_random_below(random, (int32_t)(sizeof wild / sizeof *wild))];
        else
            l->words[i] = case_random_below(random, spec->width + 1);
}

static void restore(lengths *l) {
    if (l->count > 0) memcpy(l->words, l->kept, (size_t)l->count * sizeof *l->kept);
}

/* One step against the rules: `program`, or launches without one. */
static void changed_step(engine_case *run, mlar_program *program, step_case *made, uint64_t *random) {
    const mlar_bindings bindings = case_bindings(&made->layer);
    const mlar_step step = {.struct_size = sizeof step, .rows = made->spec.rows};
    lengths scopes[MLAR_SCOPES] = {0};
    case_poison_outputs(made);
    MUST(mlar_engine_step(run->engine, &step, NULL));
    MUST(mlar_engine_prepare(run->engine, 0, &bindings, program != NULL ? NULL : &step, NULL, NULL));
    for (int32_t s = 0; s < made->spec.scope_count; s++) {
        scopes[s] = lengths_of(made, s);
        change(random, &scopes[s], &made->spec.scope[s]);
    }
    if (program != NULL)
        MUST(mlar_program_replay(program, NULL));
    else
        MUST(mlar_engine_enqueue(run->engine, 0, &bindings, made->spec.capacity_rows, &step, NULL, NULL));
    for (int32_t s = 0; s < made->spec.scope_count; s++) {
        restore(&scopes[s]);
        free(scopes[s].kept);
    }
}

static void run_seed(uint64_t seed, int32_t strategy, int32_t policy) {
    const case_bounds bounds = {.rows = 9, .heads = 20, .width = 700, .dims = 1};
    uint64_t random = seed * 91 + 3;
    char about[400], line[500];
    int32_t offered = 0;
    while (mlar_cpu_offered(offered) != NULL) offered++;
    case_spec spec = case_draw(seed, CASE_LAYOUTS | CASE_RAGGED | CASE_FORMS | CASE_WILD, &bounds);
    engine_case_unmix(&spec);
    step_case *made = case_new(&spec);
    mlar_config config = engine_case_config((const step_case *const *)&made, 1);
    config.strategy = strategy;
    config.policy = policy;
    config.splits = policy == MLAR_POLICY_BALANCED ? 0 : case_random_below(&random, 5);
    config.threads = 1 + case_random_below(&random, 3);
    config.device.compute_units = 1 + case_random_below(&random, 40);
    config.guard_bytes = 256;
    snprintf(config.cpu_isa, sizeof config.cpu_isa, "%s",
             mlar_cpu_offered(case_random_below(&random, offered)));
    snprintf(line, sizeof line, "strategy %d, policy %d, %s: %s", strategy, policy, config.cpu_isa,
             case_describe(&spec, about, sizeof about));
    engine_case *run = engine_case_open(&config);
    mlar_program *program = engine_case_capture(run, 0, made, spec.capacity_rows);
    engine_case_eager(run, 0, made);
    uint8_t *right = engine_case_take(made);
    for (int32_t i = 0; i < 6; i++) {
        changed_step(run, i % 2 ? program : NULL, made, &random);
        if (!check_untouched_beyond(made, spec.tail_zero ? spec.capacity_rows : spec.rows))
            fail_msg("wrote outside its outputs\n%s", line);
        MUST(mlar_engine_check_guards(run->engine, NULL, NULL));
        engine_case_eager(run, 0, made);
        engine_case_same(made, right, line);
    }
    engine_case_close(run);
    case_free(made);
    free(right);
}

static void test_changed_steps(void **state) {
    (void)state;
    for (uint64_t seed = 70000; seed < (SANITIZED ? 70010 : 70060); seed++)
        for (int32_t strategy = MLAR_STRATEGY_GATHER; strategy <= MLAR_STRATEGY_DIRECT; strategy++)
            for (int32_t policy = MLAR_POLICY_BALANCED; policy <= MLAR_POLICY_BATCH_INVARIANT; policy++)
                run_seed(seed, strategy, policy);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_part_keeps_a_tile),
        cmocka_unit_test(test_changed_steps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
