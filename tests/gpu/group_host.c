/* SPDX-License-Identifier: Apache-2.0
 *
 * group_host.c: self-tests, engines beside each other, bad input, hosts that break the rules, and what a replay costs
 * the host. */
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
    gpu_case c = {0};
    gpu_engine e = {0};
    void *stream = NULL;
    mlar_program *program = NULL;
    size_t bytes;
    int64_t *failures = calloc(1, sizeof *failures);
    mlar_device_scope scope = {0};
    int ok = GPU_MUST(mlar_device_enter(place.device, &scope, NULL)) && gpu_case_open(&c, &place, made) &&
             gpu_engine_open(&e, &place, &config) &&
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
    if (stream != NULL) (void)runtime->stream_destroy(stream);
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

typedef struct attempt {
    mlar_config config;
    mlar_memory memory;
    mlar_arena arena;
    void *host_block;
    mlar_diag diag;
} attempt;

/* An init over `bytes` at `base`, which may be none of the device's. */
static mlar_status try_init(attempt *a, mlar_device *device, void *base, uint64_t bytes) {
    mlar_engine *engine = NULL;
    if (!GPU_MUST(mlar_arena_from_caller(&a->arena, base, bytes, 0, NULL))) return MLAR_OK;
    const mlar_status status = mlar_engine_init(&a->config, device, &a->arena, a->host_block,
                                                a->memory.host_bytes, &engine, &a->diag);
    if (engine != NULL) GPU_MUST(mlar_engine_deinit(engine));
    GPU_MUST(mlar_arena_release(&a->arena, NULL));
    return status;
}

/* What an engine keeps from others while it is there. */
static void beside_an_engine(attempt *a, void *base) {
    mlar_engine *engine = NULL, *second = NULL;
    void *block = aligned_alloc(64, (a->memory.host_bytes + 63) / 64 * 64);
    GPU_MUST(mlar_arena_from_caller(&a->arena, base, a->memory.device_bytes, 0, NULL));
    if (gpu_must(mlar_engine_init(&a->config, place.device, &a->arena, a->host_block, a->memory.host_bytes,
                                  &engine, &a->diag),
                 "init", &a->diag)) {
        gpu_check(mlar_engine_init(&a->config, place.device, &a->arena, block, a->memory.host_bytes, &second,
                                   &a->diag) == MLAR_ERROR_BUSY,
                  "an arena that another engine holds");
        gpu_check(mlar_device_close(place.device) == MLAR_ERROR_BUSY,
                  "closing a device with an engine on it");
        GPU_MUST(mlar_engine_deinit(engine));
    }
    GPU_MUST(mlar_arena_release(&a->arena, NULL));
    free(block);
}

void bad_input(void) {
    case_spec spec = model_spec(51, 4, 8);
    step_case *made = case_new(&spec);
    attempt a = {.config = config_of(made, &variants[0]),
                 .memory = {.struct_size = sizeof a.memory},
                 .diag = {.struct_size = sizeof a.diag}};
    a.config.device = place.info.profile;
    GPU_MUST(mlar_memory_query(&a.config, &a.memory, NULL));
    const uint64_t bytes = a.memory.device_bytes;
    void *host_arena = aligned_alloc(256, (bytes + 255) / 256 * 256), *block = NULL;
    a.host_block = aligned_alloc(64, (a.memory.host_bytes + 63) / 64 * 64);
    gpu_check(try_init(&a, place.device, host_arena, bytes) == MLAR_ERROR_MEMORY_KIND,
              "host memory posing as device memory");
    if (GPU_MUST(mlar_device_allocate(place.device, bytes + 512, &block, NULL))) {
        gpu_check(try_init(&a, place.device, (char *)block + 16, bytes) == MLAR_ERROR_MEMORY_ALIGNMENT,
                  "a misaligned arena");
        gpu_check(try_init(&a, place.device, block, bytes - 1) == MLAR_ERROR_MEMORY_SIZE,
                  "an arena one byte short");
        gpu_check(try_init(&a, NULL, block, bytes) == MLAR_ERROR_ARGUMENT,
                  "no device for a GPU configuration");
        a.config.device.compute_units++;
        gpu_check(try_init(&a, place.device, block, bytes) != MLAR_OK, "a profile that is not this device's");
        a.config.device.compute_units--;
        beside_an_engine(&a, block);
        GPU_MUST(mlar_device_free(place.device, block));
    }
    free(host_arena);
    free(a.host_block);
    case_free(made);
}

/* ---- lists that change after prepare, against the rules ---- */

/* Every length of the case on the device becomes another one. */
static void change_lengths(gpu_case *c, uint64_t *random) {
    const int32_t rows = c->made->spec.rows;
    for (int32_t s = 0; s < c->made->spec.scope_count; s++) {
        int32_t *lens = calloc((size_t)rows, sizeof *lens);
        for (int32_t row = 0; row < rows; row++)
            lens[row] = case_random_below(random, c->made->spec.scope[s].width + 60) - 30;
        GPU_MUST(mlar_device_write(place.device, (void *)(uintptr_t)c->bindings.list[s].lens, lens,
                                   (size_t)rows * sizeof *lens));
        free(lens);
    }
}

/* What such a step computes is unspecified. But it ends, guards are whole, and the next step is right. */
static void changed_step(gpu_engine *e, gpu_case *c, uint64_t *random, const char *what) {
    const int32_t rows = c->made->spec.rows;
    mlar_step step = {.struct_size = sizeof step, .rows = rows};
    mlar_diag diag = {.struct_size = sizeof diag};
    size_t bytes;
    if (!gpu_case_enqueue(e, 0, c, rows)) return;
    uint8_t *right = take_outputs(c->made, &bytes);
    if (gpu_must(mlar_engine_prepare(e->engine, 0, &c->bindings, &step, NULL, &diag), "prepare", &diag)) {
        change_lengths(c, random);
        gpu_must(mlar_engine_enqueue(e->engine, 0, &c->bindings, rows, &step, NULL, &diag), "enqueue", &diag);
        gpu_must(mlar_engine_check_guards(e->engine, NULL, &diag), "guards", &diag);
    }
    if (gpu_case_upload(c) && gpu_case_enqueue(e, 0, c, rows)) {
        uint8_t *after = take_outputs(c->made, &bytes);
        gpu_check(memcmp(right, after, bytes) == 0, "%s: the step after one with changed lists differs",
                  what);
        free(after);
    }
    free(right);
}

void changed_lists(void) {
    static const int32_t heads[] = {8, 24, 64, 128};
    uint64_t random = 81;
    for (size_t h = 0; h < (quick ? 2 : sizeof heads / sizeof *heads); h++)
        for (int32_t rows = 3; rows <= (quick ? 3 : 30); rows *= 10) {
            const case_spec spec = model_spec(81 + h, rows, heads[h]);
            step_case *made = case_new(&spec);
            gpu_case c;
            const int ok = gpu_case_open(&c, &place, made);
            for (int v = 0; v < VARIANTS && ok; v++) {
                mlar_config config = config_of(made, &variants[v]);
                config.guard_bytes = 256;
                gpu_engine e;
                if (!gpu_engine_open(&e, &place, &config)) continue;
                for (int i = 0; i < (quick ? 2 : 20); i++) changed_step(&e, &c, &random, variants[v].name);
                gpu_engine_close(&e);
            }
            gpu_case_close(&c);
            case_free(made);
        }
}

/* ---- what a replay costs the host ---- */

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void host_cost(void) {
    enum { ROWS = 4, SAMPLES = 2001 };
    const int samples = quick ? 101 : SAMPLES;
    case_spec spec = model_spec(71, ROWS, 8);
    step_case *made = case_new(&spec);
    gpu_case c = {0};
    const int ok = gpu_case_open(&c, &place, made);
    for (int32_t route = 0; route < 2 && ok; route++) {
        mlar_config config = config_of(made, &variants[2]);
        config.update_route = route;
        gpu_engine e;
        mlar_program *program = NULL;
        void *stream = NULL;
        if (!gpu_engine_open(&e, &place, &config)) continue;
        mlar_device_scope scope = {0};
        const int ready = GPU_MUST(mlar_engine_capture(e.engine, 0, &c.bindings, 1, ROWS, &program, NULL)) &&
                          GPU_MUST(mlar_device_enter(place.device, &scope, NULL)) &&
                          place.device->runtime.stream_create(&stream, MLAR_GPU_STREAM_NON_BLOCKING) == 0;
        for (int changed = 0; changed < 2 && gpu_check(ready, "a program and a stream"); changed++) {
            static double times[SAMPLES];
            uint64_t calls = place.device->calls;
            for (int i = 0; i < samples; i++) {
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
            qsort(times, (size_t)samples, sizeof *times, by_value);
            printf("  %-12s %-30s median %5.2f us, p90 %5.2f us on the host, %.2f runtime calls\n",
                   route ? "node-params" : "step-block",
                   changed ? "rows change every replay" : "nothing changes", times[samples / 2],
                   times[samples * 9 / 10], (double)(place.device->calls - calls) / samples);
        }
        if (stream != NULL) (void)place.device->runtime.stream_destroy(stream);
        GPU_MUST(mlar_device_leave(place.device, &scope, MLAR_OK, NULL));
        gpu_engine_close(&e);
    }
    gpu_case_close(&c);
    case_free(made);
}
