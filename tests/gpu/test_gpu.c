/* SPDX-License-Identifier: Apache-2.0
 *
 * test_gpu.c: the engine on a GPU, through the public API. Run by tests/gpu/run; prints one line per group
 * and exits 1 if anything failed.
 *
 *     test_gpu [full | quick [WORD...]]   quick: a tenth of it, for the sanitizers; groups with one of the words */
#define _POSIX_C_SOURCE 200809L

#include "tests/gpu/groups.h"
#include "tests/support/case_bindings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

gpu_place place;
int quick;

/* ---- what the groups share ---- */

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

/* ---- the groups ---- */

static const struct group {
    const char *name;
    void (*run)(void);
} groups[] = {{"random cases against float64", random_cases},
              {"model shapes against float64", model_cases},
              {"self-test of every preset", self_tests},
              {"replay equals enqueue, step-block", replay_step_block},
              {"replay equals enqueue, node-params", replay_node_params},
              {"captured empty, replayed full", capture_short},
              {"queued steps", queued_steps},
              {"a host's own graph", host_graph},
              {"programs as child graphs", child_graphs},
              {"61 programs, 5 buckets", many_programs},
              {"two engines, two threads", two_engines},
              {"two devices", two_devices},
              {"bad input", bad_input},
              {"memory outside the arena", memory_outside},
              {"host cost of a replay", host_cost}};

static int is_wanted(const char *name, char **words) {
    if (*words == NULL) return 1;
    for (; *words != NULL; words++)
        if (strstr(name, *words) != NULL) return 1;
    return 0;
}

int main(int argc, char **argv) {
    quick = argc > 1 && strcmp(argv[1], "quick") == 0;
    char **words = argv + (argc > 2 ? 2 : argc);
    if (!gpu_open(&place, 0)) return 2;
    printf("%s: %s, %d units, runtime %d (%s)\n", place.info.profile.arch, place.info.name,
           (int)place.info.profile.compute_units, (int)place.info.runtime_version, place.info.runtime);
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        if (!is_wanted(groups[i].name, words)) continue;
        int64_t checks = gpu_checks, failures = gpu_failures;
        double begin = now_us();
        groups[i].run();
        printf("%-38s %8lld checks, %3lld failed, %6.1f s\n", groups[i].name,
               (long long)(gpu_checks - checks), (long long)(gpu_failures - failures),
               1e-6 * (now_us() - begin));
        fflush(stdout);
    }
    gpu_close(&place);
    printf("%lld passed, %lld failed\n", (long long)(gpu_checks - gpu_failures), (long long)gpu_failures);
    return gpu_failures != 0;
}
