/* SPDX-License-Identifier: Apache-2.0
 *
 * test_programs.c: many programs over one arena. Scratch is shared, so whatever a program leaves there, or
 * another left there before, must not be seen: 61 programs of three layer kinds in shuffled order, on scratch
 * poisoned differently between each, equal to 61 fresh engines bit for bit. */
#include "tests/support/check.h"
#include "tests/support/engine_case.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KINDS = 3, PROGRAMS = 61, ROUNDS = 3, MOST_ROWS = 6 };

static const int32_t extra_of_kind[KINDS] = {0, 90, 330}; /* window only, + top-k, + all compressed */

typedef struct fixture {
    step_case *made[PROGRAMS];
    uint8_t *fresh[PROGRAMS];
    mlar_program *program[PROGRAMS];
} fixture;

static int32_t kind_of(int32_t p) {
    return p % KINDS;
}

static mlar_config config_of(const fixture *f, int32_t strategy, int32_t policy) {
    const step_case *kinds[KINDS] = {f->made[0], f->made[1], f->made[2]};
    mlar_config config = engine_case_config(kinds, KINDS);
    config.strategy = strategy;
    config.policy = policy;
    config.max_rows = MOST_ROWS;
    config.max_programs = PROGRAMS;
    config.max_layers = PROGRAMS;
    config.guard_bytes = 256;
    config.threads = 2;
    return config;
}

static void make_cases(fixture *f) {
    for (int32_t p = 0; p < PROGRAMS; p++) {
        uint64_t random = 77 + (uint64_t)p;
        const int32_t capacity = 1 + case_random_below(&random, MOST_ROWS);
        case_spec spec = engine_case_spec(100 + (uint64_t)p, p % 7 == 3 ? 0 : 1 + p % capacity, capacity, 50,
                                          extra_of_kind[kind_of(p)]);
        spec.features = CASE_WILD | CASE_SPECIALS | CASE_SINKS;
        spec.scope[0].fp8 = MLAR_FP8_E4M3FN;
        f->made[p] = case_new(&spec);
    }
}

static void free_cases(fixture *f) {
    for (int32_t p = 0; p < PROGRAMS; p++) {
        case_free(f->made[p]);
        free(f->fresh[p]);
    }
}

/* Each program alone, in an engine of its own, over memory that nobody used. */
static void run_fresh(fixture *f, const mlar_config *config) {
    for (int32_t p = 0; p < PROGRAMS; p++) {
        engine_case *run = engine_case_open(config);
        mlar_program *program =
            engine_case_capture(run, kind_of(p), f->made[p], f->made[p]->spec.capacity_rows);
        engine_case_replay(run, program, kind_of(p), f->made[p], f->made[p]->spec.rows);
        f->fresh[p] = engine_case_take(f->made[p]);
        engine_case_close(run);
    }
}

static void shuffle(int32_t order[PROGRAMS], uint64_t *random) {
    for (int32_t i = 0; i < PROGRAMS; i++) order[i] = i;
    for (int32_t i = PROGRAMS - 1; i > 0; i--) {
        const int32_t j = case_random_below(random, i + 1), kept = order[i];
        order[i] = order[j];
        order[j] = kept;
    }
}

static void run_shuffled(int32_t strategy, int32_t policy, int32_t route) {
    fixture *f = calloc(1, sizeof *f);
    uint64_t random = 5;
    int32_t order[PROGRAMS];
    assert_non_null(f);
    make_cases(f);
    mlar_config config = config_of(f, strategy, policy);
    config.update_route = route;
    run_fresh(f, &config);
    engine_case *run = engine_case_open(&config);
    shuffle(order, &random);
    for (int32_t i = 0; i < PROGRAMS; i++) {
        const int32_t p = order[i];
        f->program[p] = engine_case_capture(run, kind_of(p), f->made[p], f->made[p]->spec.capacity_rows);
    }
    for (int32_t round = 0; round < ROUNDS; round++) {
        shuffle(order, &random);
        for (int32_t i = 0; i < PROGRAMS; i++) {
            char what[64];
            const int32_t p = order[i];
            snprintf(what, sizeof what, "round %d, place %d, program %d", round, i, p);
            MUST(mlar_engine_poison_scratch(run->engine, (uint32_t)(round * PROGRAMS + i), NULL));
            engine_case_replay(run, f->program[p], kind_of(p), f->made[p], f->made[p]->spec.rows);
            engine_case_same(f->made[p], f->fresh[p], what);
        }
        MUST(mlar_engine_check_guards(run->engine, NULL, NULL));
    }
    assert_int_equal(engine_case_stats(run).programs, PROGRAMS);
    engine_case_close(run);
    free_cases(f);
    free(f);
}

static void test_gather_balanced(void **state) {
    (void)state;
    run_shuffled(MLAR_STRATEGY_GATHER, MLAR_POLICY_BALANCED, MLAR_UPDATE_STEP_BLOCK);
}

static void test_gather_invariant(void **state) {
    (void)state;
    run_shuffled(MLAR_STRATEGY_GATHER, MLAR_POLICY_BATCH_INVARIANT, MLAR_UPDATE_NODE_PARAMS);
}

static void test_direct_balanced(void **state) {
    (void)state;
    run_shuffled(MLAR_STRATEGY_DIRECT, MLAR_POLICY_BALANCED, MLAR_UPDATE_NODE_PARAMS);
}

static void test_direct_invariant(void **state) {
    (void)state;
    run_shuffled(MLAR_STRATEGY_DIRECT, MLAR_POLICY_BATCH_INVARIANT, MLAR_UPDATE_STEP_BLOCK);
}

/* A step of a model: one step, one prepare a kind, then every layer of every kind. The schedule is shared. */
static void test_layers_of_a_kind_share_one_prepare(void **state) {
    (void)state;
    enum { LAYERS = 4, ROWS = 5 };
    step_case *made[KINDS][LAYERS];
    uint8_t *right[KINDS][LAYERS];
    mlar_program *program[KINDS];
    for (int32_t k = 0; k < KINDS; k++)
        for (int32_t l = 0; l < LAYERS; l++) {
            case_spec spec =
                engine_case_spec(40 + (uint64_t)(k * LAYERS + l), ROWS, ROWS, 50, extra_of_kind[k]);
            for (int32_t s = 0; s < spec.scope_count; s++) spec.scope[s].has_lens = false; /* equal lengths */
            made[k][l] = case_new(&spec);
        }
    const step_case *kinds[KINDS] = {made[0][0], made[1][0], made[2][0]};
    mlar_config config = engine_case_config(kinds, KINDS);
    config.max_layers = KINDS * LAYERS;
    engine_case *run = engine_case_open(&config);
    for (int32_t k = 0; k < KINDS; k++) {
        mlar_bindings layers[LAYERS];
        for (int32_t l = 0; l < LAYERS; l++) {
            layers[l] = case_bindings(&made[k][l]->layer);
            engine_case_eager(run, k, made[k][l]);
            right[k][l] = engine_case_take(made[k][l]);
        }
        MUST(mlar_engine_capture(run->engine, k, layers, LAYERS, ROWS, &program[k], NULL));
    }
    for (int again = 0; again < 3; again++) {
        mlar_step step = {.struct_size = sizeof step, .rows = ROWS};
        MUST(mlar_engine_step(run->engine, &step, NULL));
        for (int32_t k = 0; k < KINDS; k++) {
            mlar_bindings bindings = case_bindings(&made[k][0]->layer);
            MUST(mlar_engine_prepare(run->engine, k, &bindings, NULL, NULL, NULL));
            for (int32_t l = 0; l < LAYERS; l++) case_poison_outputs(made[k][l]);
        }
        for (int32_t k = KINDS - 1; k >= 0; k--) MUST(mlar_program_replay(program[k], NULL));
        for (int32_t k = 0; k < KINDS; k++)
            for (int32_t l = 0; l < LAYERS; l++) engine_case_same(made[k][l], right[k][l], "layer");
    }
    /* Rebinding one layer moves that one alone. */
    mlar_bindings bindings = case_bindings(&made[1][0]->layer);
    bindings.out = made[1][2]->layer.out;
    bindings.lse = made[1][2]->layer.lse;
    MUST(mlar_program_rebind(program[1], 2, &bindings, NULL, NULL));
    for (int32_t l = 0; l < LAYERS; l++) case_poison_outputs(made[1][l]);
    MUST(mlar_program_replay(program[1], NULL));
    for (int32_t l = 0; l < LAYERS; l++) engine_case_same(made[1][l], right[1][l == 2 ? 0 : l], "rebound");
    for (int32_t k = 0; k < KINDS; k++)
        for (int32_t l = 0; l < LAYERS; l++) {
            case_free(made[k][l]);
            free(right[k][l]);
        }
    engine_case_close(run);
}

/* One graph for each batch bucket: the same bindings, captured for several capacities, one step for all. */
static void test_buckets(void **state) {
    (void)state;
    enum { BUCKETS = 4 };
    static const int32_t capacities[BUCKETS] = {1, 2, 4, 8};
    case_spec spec = engine_case_spec(9, 8, 8, 50, 200);
    spec.tail_zero = false;
    step_case *made = case_new(&spec);
    for (int32_t policy = 0; policy < 2; policy++) {
        mlar_config config = engine_case_config((const step_case *const *)&made, 1);
        config.policy = policy;
        engine_case *run = engine_case_open(&config);
        mlar_program *bucket[BUCKETS];
        for (int b = 0; b < BUCKETS; b++) bucket[b] = engine_case_capture(run, 0, made, capacities[b]);
        for (int32_t rows = 0; rows <= 8; rows++) {
            uint8_t *first = NULL;
            for (int b = 0; b < BUCKETS; b++) {
                mlar_bindings bindings = case_bindings(&made->layer);
                mlar_step step = {.struct_size = sizeof step, .rows = rows};
                case_poison_outputs(made);
                MUST(mlar_engine_step(run->engine, &step, NULL));
                MUST(mlar_engine_prepare(run->engine, 0, &bindings, NULL, NULL, NULL));
                MUST_BE(rows > capacities[b] ? MLAR_ERROR_CAPACITY : MLAR_OK,
                        mlar_program_replay(bucket[b], NULL));
                if (rows > capacities[b]) continue;
                if (first == NULL) first = engine_case_take(made);
                engine_case_same(made, first, "a larger bucket");
                assert_true(check_untouched_beyond(made, rows));
            }
            free(first);
        }
        engine_case_close(run);
    }
    case_free(made);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gather_balanced),
        cmocka_unit_test(test_gather_invariant),
        cmocka_unit_test(test_direct_balanced),
        cmocka_unit_test(test_direct_invariant),
        cmocka_unit_test(test_layers_of_a_kind_share_one_prepare),
        cmocka_unit_test(test_buckets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
