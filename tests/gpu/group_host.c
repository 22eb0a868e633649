/* SPDX-License-Identifier: Apache-2.0
 *
 * group_host.c: self-tests, engines beside each other, bad input, and what a replay costs the host. */
#include "tests/gpu/groups.h"

#include "engine/gpu/device.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void self_tests(void) {
    static const char *const presets[] = {"dsv4-flash", "dsv4-pro", "v32"};
    for (int p = 0; p < 3; p++)
        for (int v = 0; v < VARIANTS; v++) {
            mlar_config config;
            mlar_diag diag = {.struct_size = sizeof diag};
            (void)mlar_config_preset(&config, presets[p], p == 1 ? 1 : 8, NULL);
            config.strategy = variants[v].strategy;
            config.policy = variants[v].policy;
            config.splits = variants[v].splits;
            config.max_rows = 4;
            config.guard_bytes = 256;
            gpu_engine e;
            if (!gpu_engine_open(&e, &place, &config)) continue;
            gpu_must(mlar_engine_selftest(e.engine, NULL, &diag), presets[p], &diag);
            gpu_must(mlar_engine_check_guards(e.engine, NULL, &diag), "guards", &diag);
            gpu_engine_close(&e);
        }
}

/* ---- two engines on two streams, from two threads ---- */

static void *engine_thread(void *arg) {
    enum { ROWS = 8 };
    uint64_t seed = *(uint64_t *)arg;
    case_spec spec = model_spec(seed, ROWS, 16);
    step_case *made = case_new(&spec);
    mlar_config config = config_of(made, &variants[0]);
    const mlar_runtime *runtime = &place.device->runtime;
    gpu_case c;
    gpu_engine e;
    void *stream = NULL;
    mlar_program *program = NULL;
    size_t bytes;
    int64_t *failures = calloc(1, sizeof *failures);
    mlar_device_scope scope;
    GPU_MUST(mlar_device_enter(place.device, &scope, NULL));
    int ok = gpu_case_open(&c, &place, made) && gpu_engine_open(&e, &place, &config) &&
             runtime->stream_create(&stream, MLAR_GPU_STREAM_NON_BLOCKING) == 0 &&
             gpu_case_enqueue(&e, 0, &c, ROWS);
    uint8_t *alone = take_outputs(made, &bytes);
    mlar_step step = {.struct_size = sizeof step, .rows = ROWS};
    ok = ok && mlar_engine_capture(e.engine, 0, &c.bindings, 1, ROWS, &program, NULL) == MLAR_OK;
    for (int i = 0; i < (quick ? 20 : 300) && ok; i++) {
        ok = mlar_engine_step(e.engine, &step, stream) == MLAR_OK &&
             mlar_engine_prepare(e.engine, 0, &c.bindings, NULL, stream, NULL) == MLAR_OK &&
             mlar_program_replay(program, stream) == MLAR_OK;
    }
    ok = ok && runtime->stream_synchronize(stream) == 0 && gpu_case_download(&c);
    uint8_t *together = take_outputs(made, &bytes);
    *failures = !ok || memcmp(alone, together, bytes) != 0;
    (void)runtime->stream_destroy(stream);
    free(alone);
    free(together);
    gpu_engine_close(&e);
    gpu_case_close(&c);
    case_free(made);
    GPU_MUST(mlar_device_leave(place.device, &scope, MLAR_OK, NULL));
    return failures;
}

void two_engines(void) {
    pthread_t threads[2];
    uint64_t seeds[2] = {61, 62};
    for (int i = 0; i < 2; i++) pthread_create(&threads[i], NULL, engine_thread, &seeds[i]);
    for (int i = 0; i < 2; i++) {
        void *failures = NULL;
        pthread_join(threads[i], &failures);
        gpu_check(failures != NULL && *(int64_t *)failures == 0, "engine %d beside another differs", i);
        free(failures);
    }
}

/* ---- bad input ---- */

void bad_input(void) {
    case_spec spec = model_spec(51, 4, 8);
    step_case *made = case_new(&spec);
    mlar_config config = config_of(made, &variants[0]);
    config.device = place.info.profile;
    mlar_memory memory = {.struct_size = sizeof memory};
    GPU_MUST(mlar_memory_query(&config, &memory, NULL));
    void *host_block = aligned_alloc(64, (memory.host_bytes + 63) / 64 * 64), *device_block = NULL;
    void *host_arena = aligned_alloc(256, (memory.device_bytes + 255) / 256 * 256);
    mlar_arena arena;
    mlar_engine *engine = NULL;
    mlar_diag diag = {.struct_size = sizeof diag};
#define INIT(device) mlar_engine_init(&config, device, &arena, host_block, memory.host_bytes, &engine, &diag)
    GPU_MUST(mlar_arena_from_caller(&arena, host_arena, memory.device_bytes, 0, NULL));
    gpu_check(INIT(place.device) == MLAR_ERROR_MEMORY_KIND, "host memory posing as device memory");
    GPU_MUST(mlar_arena_release(&arena, NULL));
    GPU_MUST(mlar_device_allocate(place.device, memory.device_bytes + 512, &device_block, NULL));
    GPU_MUST(mlar_arena_from_caller(&arena, (char *)device_block + 16, memory.device_bytes, 0, NULL));
    gpu_check(INIT(place.device) == MLAR_ERROR_MEMORY_ALIGNMENT, "a misaligned arena");
    GPU_MUST(mlar_arena_release(&arena, NULL));
    GPU_MUST(mlar_arena_from_caller(&arena, device_block, memory.device_bytes - 1, 0, NULL));
    gpu_check(INIT(place.device) == MLAR_ERROR_MEMORY_SIZE, "an arena one byte short");
    GPU_MUST(mlar_arena_release(&arena, NULL));
    GPU_MUST(mlar_arena_from_caller(&arena, device_block, memory.device_bytes, 0, NULL));
    gpu_check(INIT(NULL) == MLAR_ERROR_ARGUMENT, "no device for a GPU configuration");
    config.device.compute_units++;
    gpu_check(INIT(place.device) != MLAR_OK, "a profile that is not this device's");
    config.device.compute_units--;
    if (gpu_must(INIT(place.device), "init", &diag)) {
        mlar_engine *second = NULL;
        void *block = aligned_alloc(64, (memory.host_bytes + 63) / 64 * 64);
        gpu_check(mlar_engine_init(&config, place.device, &arena, block, memory.host_bytes, &second, &diag) ==
                      MLAR_ERROR_BUSY,
                  "an arena that another engine holds");
        free(block);
        gpu_check(mlar_device_close(place.device) == MLAR_ERROR_BUSY,
                  "closing a device with an engine on it");
        GPU_MUST(mlar_engine_deinit(engine));
    }
#undef INIT
    GPU_MUST(mlar_arena_release(&arena, NULL));
    GPU_MUST(mlar_device_free(place.device, device_block));
    free(host_arena);
    free(host_block);
    case_free(made);
}

/* ---- what a replay costs the host ---- */

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void host_cost(void) {
    enum { ROWS = 4, SAMPLES = 2001 };
    case_spec spec = model_spec(71, ROWS, 8);
    step_case *made = case_new(&spec);
    gpu_case c;
    if (!gpu_case_open(&c, &place, made)) return;
    for (int32_t route = 0; route < 2; route++) {
        mlar_config config = config_of(made, &variants[2]);
        config.update_route = route;
        gpu_engine e;
        mlar_program *program = NULL;
        void *stream = NULL;
        if (!gpu_engine_open(&e, &place, &config)) continue;
        GPU_MUST(mlar_engine_capture(e.engine, 0, &c.bindings, 1, ROWS, &program, NULL));
        mlar_device_scope scope;
        GPU_MUST(mlar_device_enter(place.device, &scope, NULL));
        (void)place.device->runtime.stream_create(&stream, MLAR_GPU_STREAM_NON_BLOCKING);
        for (int changed = 0; changed < 2; changed++) {
            static double times[SAMPLES];
            uint64_t calls = place.device->calls;
            for (int i = 0; i < SAMPLES; i++) {
                mlar_step step = {.struct_size = sizeof step, .rows = changed ? 1 + i % ROWS : ROWS};
                (void)place.device->runtime.stream_synchronize(stream); /* the device is idle */
                if (!changed && i > 0) {
                    double begin = now_us();
                    GPU_MUST(mlar_program_replay(program, stream));
                    times[i] = now_us() - begin;
                } else {
                    double begin = now_us();
                    mlar_status status = mlar_engine_step(e.engine, &step, stream);
                    if (status == MLAR_OK) status = mlar_program_replay(program, stream);
                    times[i] = now_us() - begin;
                    gpu_check(status == MLAR_OK, "step and replay: %s", mlar_status_name(status));
                }
            }
            (void)place.device->runtime.stream_synchronize(stream);
            qsort(times, SAMPLES, sizeof *times, by_value);
            printf("  %-12s %-30s median %5.2f us, p90 %5.2f us on the host, %.2f runtime calls\n",
                   route ? "node-params" : "step-block",
                   changed ? "rows change every replay" : "nothing changes", times[SAMPLES / 2],
                   times[SAMPLES * 9 / 10], (double)(place.device->calls - calls) / SAMPLES);
        }
        (void)place.device->runtime.stream_destroy(stream);
        GPU_MUST(mlar_device_leave(place.device, &scope, MLAR_OK, NULL));
        gpu_engine_close(&e);
    }
    gpu_case_close(&c);
    case_free(made);
}
