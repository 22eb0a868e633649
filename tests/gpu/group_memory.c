/* SPDX-License-Identifier: Apache-2.0
 *
 * group_memory.c: device memory that the plan does not hold, as the driver's free memory shows it: the context, the
 * loaded code, the pool's rounding, the graphs. Printed, for it is the driver's to decide; checked is that replays
 * take none. Other users of the device would show in these figures. */
#include "tests/gpu/groups.h"

#include "engine/gpu/device.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

typedef int memory_info(size_t *free_bytes, size_t *total_bytes);

/* The engine has no use for this function, so runtime.def does not list it. */
static memory_info *find_memory_info(const mlar_runtime *runtime) {
    const char *name = runtime->vendor->device == MLAR_DEVICE_HIP ? "hipMemGetInfo" : "cuMemGetInfo_v2";
    memory_info *found = NULL;
    *(void **)(void *)&found = dlsym(runtime->library, name);
    return found;
}

static memory_info *free_memory;
static size_t last_free;

/* A line with what has gone since the last one. */
static int64_t taken(const char *what, uint64_t planned_bytes) {
    size_t now = 0, total = 0;
    GPU_MUST(mlar_device_wait(place.device, NULL));
    gpu_check(free_memory(&now, &total) == 0, "%s: free memory", what);
    int64_t bytes = (int64_t)last_free - (int64_t)now;
    last_free = now;
    printf("  %-44s %12lld bytes", what, (long long)bytes);
    if (planned_bytes > 0) printf(", of them planned %llu", (unsigned long long)planned_bytes);
    putchar('\n');
    return bytes;
}

static void one_engine(gpu_case *c, int32_t programs_wanted) {
    enum { PROGRAMS = 61 };
    mlar_program *programs[PROGRAMS] = {NULL};
    mlar_config config = config_of(c->made, &variants[0]);
    config.max_programs = config.max_layers = PROGRAMS;
    gpu_engine e;
    char line[80];
    (void)taken("the test's own tensors", 0);
    if (!gpu_engine_open(&e, &place, &config)) return;
    (void)taken("arena and engine", e.memory.device_bytes);
    mlar_stats stats = {.struct_size = sizeof stats};
    GPU_MUST(mlar_engine_stats(e.engine, NULL, &stats));
    printf("  %-44s %12llu bytes\n", "  of that the pool's reserve",
           (unsigned long long)stats.pool_reserved_bytes);
    int32_t capacity = c->made->spec.capacity_rows;
    for (int32_t i = 0; i < programs_wanted; i++)
        if (!GPU_MUST(mlar_engine_capture(e.engine, 0, &c->bindings, 1, capacity, &programs[i], NULL))) {
            gpu_engine_close(&e);
            return;
        }
    snprintf(line, sizeof line, "%d captured programs", (int)programs_wanted);
    (void)taken(line, 0);
    for (int32_t i = 0; i < programs_wanted; i++) gpu_case_replay(&e, programs[i], 0, c, capacity);
    (void)taken("the first replay of each", 0);
    for (int i = 0; i < (quick ? 100 : 10000); i++)
        GPU_MUST(mlar_program_replay(programs[i % programs_wanted], NULL));
    gpu_check(taken("replays after that", 0) == 0, "replays take device memory");
    gpu_engine_close(&e);
    (void)taken("closed again", 0);
}

void memory_outside(void) {
    case_spec spec = model_spec(81, 16, 64);
    step_case *made = case_new(&spec);
    gpu_case c;
    mlar_device_scope scope;
    free_memory = find_memory_info(&place.device->runtime);
    if (gpu_check(free_memory != NULL, "the runtime tells no free memory") &&
        GPU_MUST(mlar_device_enter(place.device, &scope, NULL))) {
        size_t total = 0;
        gpu_check(free_memory(&last_free, &total) == 0, "free memory");
        printf("  %-44s %12llu bytes\n", "gone before: driver, context, code, other users",
               (unsigned long long)(total - last_free));
        if (gpu_case_open(&c, &place, made)) {
            one_engine(&c, 1);
            one_engine(&c, 61);
        }
        gpu_case_close(&c);
        GPU_MUST(mlar_device_leave(place.device, &scope, MLAR_OK, NULL));
    }
    case_free(made);
}
