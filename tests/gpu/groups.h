/* SPDX-License-Identifier: Apache-2.0
 *
 * groups.h: the groups of checks that test_gpu.c runs, and what they share (groups.c). */
#ifndef TESTS_GPU_GROUPS_H
#define TESTS_GPU_GROUPS_H

#include "tests/gpu/gpu_case.h"

extern gpu_place place; /* the GPU under test */
extern int quick;       /* a tenth of the checks, for the sanitizers */

struct variant {
    int32_t strategy, policy, splits;
    const char *name;
};
enum { VARIANTS = 4 };
extern const struct variant variants[VARIANTS];

/* One kind of layer with the case's own shape. */
mlar_config config_of(const step_case *made, const struct variant *variant);
/* 448 + 64, 128 + 256 entries, ordinary values, some wild indices. */
case_spec model_spec(uint64_t seed, int32_t rows, int32_t heads);
/* The bytes of a case's outputs, to be compared and freed. */
uint8_t *take_outputs(const step_case *made, size_t *bytes);
double now_us(void);

/* group_cases.c: results against a float64 evaluation */
void random_cases(void);
void model_cases(void);
/* group_programs.c: replays, queues, graphs */
void replay_step_block(void);
void replay_node_params(void);
void capture_short(void);
void queued_steps(void);
void host_graph(void);
void child_graphs(void);
void many_programs(void);
/* group_devices.c: two GPUs */
void two_devices(void);
/* group_memory.c: what lies outside the arena */
void memory_outside(void);
/* group_host.c: self-tests, threads, bad input, broken rules, host cost */
void self_tests(void);
void two_engines(void);
void bad_input(void);
void changed_lists(void);
void host_cost(void);

#endif
