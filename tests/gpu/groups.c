/* SPDX-License-Identifier: Apache-2.0
 *
 * groups.c: what the groups of checks share: the device under test, configurations, cases, the clock. */
#define _POSIX_C_SOURCE 200809L

#include "tests/gpu/groups.h"

#include "tests/support/case_bindings.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

gpu_place place;
int quick;

const struct variant variants[VARIANTS] = {
    {MLAR_STRATEGY_DIRECT, MLAR_POLICY_BALANCED, 0, "direct, balanced"},
    {MLAR_STRATEGY_GATHER, MLAR_POLICY_BALANCED, 0, "gather, balanced"},
    {MLAR_STRATEGY_DIRECT, MLAR_POLICY_BATCH_INVARIANT, 3, "direct, invariant"},
    {MLAR_STRATEGY_GATHER, MLAR_POLICY_BATCH_INVARIANT, 1, "gather, invariant"}};

mlar_config config_of(const step_case *made, const struct variant *variant) {
    mlar_config config;
    (void)mlar_config_init(&config);
    config.heads = made->spec.heads;
    config.nope = made->spec.nope;
    config.rope = made->spec.rope;
    config.max_rows = made->spec.capacity_rows > 0 ? made->spec.capacity_rows : 1;
    config.max_programs = config.max_layers = 4;
    config.selftest = 0;
    config.strategy = variant->strategy;
    config.policy = variant->policy;
    config.splits = variant->splits;
    config.kind_count = 1;
    config.kinds[0] = case_kind(&made->spec);
    return config;
}

case_spec model_spec(uint64_t seed, int32_t rows, int32_t heads) {
    case_spec spec = {.seed = seed,
                      .features = CASE_WILD,
                      .rows = rows,
                      .capacity_rows = rows,
                      .heads = heads,
                      .nope = 448,
                      .rope = 64,
                      .scope_count = 2,
                      .has_lse = true,
                      .sink = CASE_SINK_ORDINARY,
                      .tail_zero = true};
    for (int s = 0; s < 2; s++)
        spec.scope[s] = (case_scope_spec){
            .block_size = 64, .num_blocks = 40, .width = s ? 256 : 128, .rows_per_len = 1, .has_lens = true};
    return spec;
}

/* The bytes of a case's outputs, to be compared later. */
uint8_t *take_outputs(const step_case *made, size_t *bytes) {
    *bytes = 0;
    for (int32_t i = 0; i < made->buffer_count; i++)
        if (made->buffers[i].is_output) *bytes += made->buffers[i].bytes;
    uint8_t *all = malloc(*bytes + 1), *at = all;
    for (int32_t i = 0; i < made->buffer_count; i++)
        if (made->buffers[i].is_output) {
            memcpy(at, made->buffers[i].memory, made->buffers[i].bytes);
            at += made->buffers[i].bytes;
        }
    return all;
}

double now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e6 * (double)t.tv_sec + 1e-3 * (double)t.tv_nsec;
}
