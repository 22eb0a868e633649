/* SPDX-License-Identifier: Apache-2.0
 *
 * test_dims.c: what a configuration is resolved to: the sizes that no query shows and only kernels see. */
#include "engine/dims.h"
#include "tests/support/engine_case.h"

/* What a split costs is known where it was measured: for the kernels and head dimensions of the models on sm_90, the
 * direct strategy. It has to arrive in every kind's shape; elsewhere merging counts as free. */
static void test_what_a_split_costs_reaches_the_shape(void **state) {
    (void)state;
    static const struct {
        const char *profile, *preset;
        int32_t rope, strategy, known;
    } cases[] = {
        {"h100", "dsv4-flash", 64, MLAR_STRATEGY_DIRECT, 1},
        {"h200", "v32", 64, MLAR_STRATEGY_DIRECT, 1},
        {"h100", "dsv4-flash", 64, MLAR_STRATEGY_GATHER, 0},
        {"h100", "dsv4-flash", 32, MLAR_STRATEGY_DIRECT, 0},
        {"mi300x", "dsv4-flash", 64, MLAR_STRATEGY_DIRECT, 0},
        {"cpu", "dsv4-flash", 64, MLAR_STRATEGY_DIRECT, 0},
        {"rx7900xtx", "v32", 64, MLAR_STRATEGY_DIRECT, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mlar_config config;
        mlar_dims dims;
        MUST(mlar_config_preset(&config, cases[i].preset, 1, NULL));
        MUST(mlar_device_profile_named(&config.device, cases[i].profile, NULL));
        config.rope = cases[i].rope;
        config.strategy = cases[i].strategy;
        MUST(mlar_dims_resolve(&config, &dims, NULL));
        for (int32_t k = 0; k < dims.config.kind_count; k++)
            if ((dims.kind[k].shape.merged_elements_per_tile > 0) != cases[i].known)
                fail_msg("case %zu, kind %d: %d", i, (int)k,
                         (int)dims.kind[k].shape.merged_elements_per_tile);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_what_a_split_costs_reaches_the_shape)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
