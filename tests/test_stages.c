/* SPDX-License-Identifier: Apache-2.0
 *
 * test_stages.c: the table of stages is a sequence: in order, each buffer written before it is read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/buffers.h"
#include "engine/dims.h"
#include "engine/stages.h"
#include "tests/support/engine_case.h"

#include <string.h>

/* Both strategies by both policies, with and without a workspace for split rows. */
static mlar_config variant(int strategy, int policy, int splits) {
    mlar_config config;
    MUST(mlar_config_preset(&config, "dsv4-flash", 8, NULL));
    config.strategy = strategy;
    config.policy = policy;
    config.splits = splits;
    return config;
}

static void test_in_order(void **state) {
    (void)state;
    for (int32_t i = 1; i < mlar_stage_count; i++) assert_true(mlar_stages[i - 1].at <= mlar_stages[i].at);
    for (int32_t i = 0; i < mlar_stage_count; i++)
        assert_string_equal(mlar_stages[i].name, mlar_position_name(mlar_stages[i].at));
}

static void check_sequence(const mlar_config *config, int gathers, int combines) {
    mlar_dims dims;
    mlar_diag diag = {.struct_size = sizeof diag};
    MUST(mlar_dims_resolve(config, &dims, &diag));
    for (int32_t k = 0; k < dims.config.kind_count; k++) {
        uint32_t written = 0, read = 0, at_each[MLAR_POSITION_COUNT] = {0};
        int32_t launches = 0;
        for (int32_t i = 0; i < mlar_stage_count; i++) {
            const mlar_stage *stage = &mlar_stages[i];
            if (!stage->when(&dims, &dims.kind[k])) continue;
            at_each[stage->at]++;
            launches += stage->at != MLAR_AT_PREPARE;
            /* What it reads and somebody writes in this sequence has been written. */
            assert_int_equal(stage->reads & stage->writes, 0);
            read |= stage->reads;
            written |= stage->writes;
        }
        for (int at = 0; at < MLAR_POSITION_COUNT; at++) assert_true(at_each[at] <= 1);
        assert_int_equal(at_each[MLAR_AT_ATTEND], 1);
        assert_int_equal(at_each[MLAR_AT_GATHER], gathers);
        assert_int_equal(at_each[MLAR_AT_COMBINE], combines);
        assert_int_equal(at_each[MLAR_AT_PREPARE], dims.balanced);
        assert_int_equal(mlar_stages_per_tile(&dims, &dims.kind[k]), launches);
        if (combines) assert_int_equal(written & ~read, 0); /* nothing is written for nobody */
    }
}

static void test_every_variant(void **state) {
    (void)state;
    for (int gather = 0; gather < 2; gather++) {
        int strategy = gather ? MLAR_STRATEGY_GATHER : MLAR_STRATEGY_DIRECT;
        mlar_config balanced = variant(strategy, MLAR_POLICY_BALANCED, 0);
        mlar_config whole = variant(strategy, MLAR_POLICY_BATCH_INVARIANT, 1);
        mlar_config split = variant(strategy, MLAR_POLICY_BATCH_INVARIANT, 4);
        check_sequence(&balanced, gather, 1);
        check_sequence(&whole, gather, 0); /* one part: nothing to combine */
        check_sequence(&split, gather, 1);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_in_order), cmocka_unit_test(test_every_variant)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
