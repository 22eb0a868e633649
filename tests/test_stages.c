/* SPDX-License-Identifier: Apache-2.0
 *
 * test_stages.c: the table of stages is a sequence: in order, each buffer written before it is read. And what of it a
 * back end gets to launch. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/buffers.h"
#include "engine/dims.h"
#include "engine/engine.h"
#include "engine/sequence.h"
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

/* The table of buffers and what buffers.h says of it for memory.c's bound. */
static void test_engine_buffers_are_counted(void **state) {
    int count = 0;
    (void)state;
    for (int i = 0; i < MLAR_BUFFER_COUNT; i++) count += mlar_buffers[i].class == MLAR_CLASS_ENGINE;
    assert_int_equal(count, MLAR_ENGINE_BUFFERS);
}

/* ---- what is launched ---- */

enum { NOTED = 16 };
static int32_t noted[NOTED], noted_count;

static mlar_status note_launch(void *state, const mlar_launch *launch, void *stream, mlar_diag *diag) {
    (void)state, (void)stream, (void)diag;
    assert_true(noted_count < NOTED);
    noted[noted_count++] = (int32_t)launch->id;
    return MLAR_OK;
}

/* The last stage that a layer of so many rows takes. */
static int32_t last_stage(const mlar_config *config, int32_t wide, int32_t capacity_rows) {
    static const mlar_backend notes = {.launch = note_launch};
    mlar_engine engine = {.backend = &notes};
    mlar_layer_params layer = {.scope_count = 2};
    const mlar_step_params step = {.rows = 1};
    const mlar_carriers carriers = {.layer = &layer, .step = &step};
    mlar_arena_core arena = {.base = (unsigned char *)&layer, .plan = &engine.layout.plan};
    mlar_diag diag = DIAG_INIT;
    for (int s = 0; s < 2; s++) layer.scope[s].layout = MLAR_LAYOUT_DSV4, layer.scope[s].wide = wide;
    MUST(mlar_layout_make(config, &engine.layout, &diag));
    assert_true(engine.layout.dims.kind[0].shape.slot_limit >
                0); /* programs for many rows need a workspace */
    engine.arena = &arena;
    noted_count = 0;
    MUST(mlar_sequence_issue(&engine, 0, &carriers, capacity_rows, NULL, &diag));
    assert_true(noted_count <= mlar_sequence_nodes(&engine.layout.dims, 0, capacity_rows));
    return noted[noted_count - 1];
}

/* Where clusters merge the parts of rows, nothing is left to combine: for few rows, on a device that has clusters. */
static void test_combine_only_for_the_unmerged(void **state) {
    (void)state;
    mlar_config config = variant(MLAR_STRATEGY_DIRECT, MLAR_POLICY_BALANCED, 0);
    MUST(mlar_device_profile_named(&config.device, "h100", NULL));
    config.kind_count = 1;
    config.kinds[0].scope_count = 2;
    config.kinds[0].scope[0].width = 128;
    config.kinds[0].scope[1] = config.kinds[0].scope[0];
    config.kinds[0].scope[1].width = 512;
    config.heads = 16;
    config.max_rows = 64;
    assert_int_equal(last_stage(&config, 1, 1), MLAR_STAGE_ATTEND_DIRECT);
    assert_int_equal(last_stage(&config, 1, 22), MLAR_STAGE_ATTEND_DIRECT);
    assert_int_equal(last_stage(&config, 1, 23), MLAR_STAGE_COMBINE);
    assert_int_equal(last_stage(&config, 0, 1), MLAR_STAGE_COMBINE); /* the portable kernels do not merge */
    config.strategy = MLAR_STRATEGY_GATHER;
    assert_int_equal(last_stage(&config, 0, 1), MLAR_STAGE_ATTEND_GATHERED);
    config.strategy = MLAR_STRATEGY_DIRECT;
    config.kinds[0].scope[1].width = 8192; /* all units together are faster */
    assert_int_equal(last_stage(&config, 1, 1), MLAR_STAGE_COMBINE);
    config.kinds[0].scope[1].width = 512;
    config.policy = MLAR_POLICY_BATCH_INVARIANT;
    assert_int_equal(last_stage(&config, 1, 1), MLAR_STAGE_COMBINE);
    config.policy = MLAR_POLICY_BALANCED;
    MUST(mlar_device_profile_named(&config.device, "mi300x", NULL));
    assert_int_equal(last_stage(&config, 1, 1), MLAR_STAGE_COMBINE);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_in_order), cmocka_unit_test(test_every_variant),
                                       cmocka_unit_test(test_engine_buffers_are_counted),
                                       cmocka_unit_test(test_combine_only_for_the_unmerged)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
