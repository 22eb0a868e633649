/* SPDX-License-Identifier: Apache-2.0
 *
 * test_gpu.c: the engine on a GPU, through the public API. Run by tests/gpu/run; prints one line per group
 * and exits 1 if anything failed.
 *
 *     test_gpu [full | quick [WORD...]]   quick: a tenth of it, for the sanitizers; groups with one of the words */
#include "tests/gpu/groups.h"

#include <stdio.h>
#include <string.h>

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
              {"lists changed after prepare", changed_lists},
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
