/* SPDX-License-Identifier: Apache-2.0
 *
 * test_gpu.c: the engine on a GPU, through the public API. Run by tests/gpu/run; prints one line per group and exits
 * 1 if anything failed. `test_gpu quick` runs a tenth of it (for the sanitizers). */
#define _POSIX_C_SOURCE 200809L

#include "tests/gpu/gpu_case.h"

#include "engine/gpu/device.h"
#include "engine/gpu/runtime.h"
#include "tests/support/check.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static gpu_place place;
static int quick;

/* ---- configuration of a case ---- */

static const struct variant {
    int32_t strategy, policy, splits;
    const char *name;
} variants[] = {{MLAR_STRATEGY_DIRECT, MLAR_POLICY_BALANCED, 0, "direct, balanced"},
                {MLAR_STRATEGY_GATHER, MLAR_POLICY_BALANCED, 0, "gather, balanced"},
                {MLAR_STRATEGY_DIRECT, MLAR_POLICY_BATCH_INVARIANT, 3, "direct, invariant"},
                {MLAR_STRATEGY_GATHER, MLAR_POLICY_BATCH_INVARIANT, 1, "gather, invariant"}};
enum { VARIANTS = 4 };

static mlar_config config_of(const step_case *made, const struct variant *variant) {
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
    config.kinds[0].scope_count = made->spec.scope_count;
    for (int s = 0; s < made->spec.scope_count; s++)
        config.kinds[0].scope[s] = (mlar_scope_config){.width = made->spec.scope[s].width,
                                                       .layout = made->spec.scope[s].layout,
                                                       .fp8 = made->spec.scope[s].fp8};
    return config;
}

/* d_v follows from the layout: an engine takes v32 in all scopes or in none. */
static case_spec draw(uint64_t seed, const case_bounds *bounds) {
    case_spec spec = case_draw(seed, CASE_ALL, bounds);
    int v32 = 0;
    for (int s = 0; s < spec.scope_count; s++) v32 |= spec.scope[s].layout == MLAR_LAYOUT_V32;
    for (int s = 0; s < spec.scope_count && v32; s++) spec.scope[s].layout = MLAR_LAYOUT_V32;
    return spec;
}

/* ---- groups ---- */

static void check_gather_buffers(gpu_engine *e, const reference *expected, const char *line) {
    static const char *const names[] = {"gather.window", "gather.extra"};
    if (e->memory.row_tile[0] < expected->rows) return; /* several tiles share the buffer */
    for (int s = 0; s < e->config.kinds[0].scope_count; s++) {
        void *address = NULL;
        uint64_t bytes = 0;
        char message[200] = "";
        if (!GPU_MUST(mlar_engine_buffer(e->engine, 0, names[s], &address, &bytes)) || bytes == 0) continue;
        uint16_t *gathered = malloc(bytes);
        GPU_MUST(mlar_device_read(place.device, gathered, address, bytes));
        gpu_check(check_gathered(expected, s, gathered, -1, message, sizeof message), "%s: %s: %s", line, names[s],
                  message);
        free(gathered);
    }
}

static void one_case(uint64_t seed, const case_bounds *bounds, double *worst) {
    case_spec spec = draw(seed, bounds);
    step_case *made = case_new(&spec);
    reference *expected = reference_new(&made->layer, &made->shape, spec.rows);
    char line[400];
    case_describe(&spec, line, sizeof line);
    gpu_case c;
    if (gpu_case_open(&c, &place, made))
        for (int v = 0; v < VARIANTS; v++) {
            mlar_config config = config_of(made, &variants[v]);
            gpu_engine e;
            if (!gpu_engine_open(&e, &place, &config)) continue;
            mlar_stats stats = {.struct_size = sizeof stats};
            check_result result;
            if (gpu_case_enqueue(&e, 0, &c, spec.rows)) {
                gpu_check(check_step(made, expected, &check_spec, &result), "%s, %s: %s", variants[v].name, line,
                          result.message);
                if (result.relative_l2 > *worst) *worst = result.relative_l2;
                gpu_check(spec.tail_zero ? check_tail_is_zero(made) : check_untouched_beyond(made, spec.rows),
                          "%s, %s: tail", variants[v].name, line);
                GPU_MUST(mlar_engine_stats(e.engine, NULL, &stats));
                gpu_check(stats.invalid_indices == expected->invalid, "%s, %s: %llu invalid indices, expected %llu",
                          variants[v].name, line, (unsigned long long)stats.invalid_indices,
                          (unsigned long long)expected->invalid);
                if (variants[v].strategy == MLAR_STRATEGY_GATHER) check_gather_buffers(&e, expected, line);
            }
            gpu_engine_close(&e);
        }
    gpu_case_close(&c);
    reference_free(expected);
    case_free(made);
}

static void random_cases(void) {
    double worst = 0;
    case_bounds large = {.rows = 40, .heads = 128, .width = 700};
    for (uint64_t seed = 1; seed <= (quick ? 12u : 150u); seed++) one_case(seed, NULL, &worst);
    for (uint64_t seed = 1000; seed < (quick ? 1002u : 1030u); seed++) one_case(seed, &large, &worst);
    printf("  worst relative L2 %.2e\n", worst);
}

/* The tuned shapes: dsv4 448 + 64, block 64, 8 to 128 heads. */
static void model_cases(void) {
    static const int32_t heads[] = {1, 8, 16, 32, 40, 64, 128};
    double worst = 0;
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++)
        for (uint64_t n = 0; n < (quick ? 1u : 6u); n++) {
            case_bounds bounds = {.rows = n % 2 ? 20 : 3, .heads = 128, .width = 640};
            case_spec spec = case_draw(77 + n, CASE_WILD | CASE_SPECIALS | CASE_SINKS | CASE_QUERIES, &bounds);
            spec.heads = heads[i];
            spec.nope = 448;
            spec.rope = 64;
            spec.scope_count = 2;
            for (int s = 0; s < 2; s++)
                spec.scope[s] = (case_scope_spec){.block_size = 64, .num_blocks = 30, .width = s ? 512 : 128,
                                                  .rows_per_len = 1, .has_lens = true, .stride_extra_bytes = 64,
                                                  .fp8 = n == 5 ? MLAR_FP8_E4M3FNUZ : MLAR_FP8_E4M3FN};
            step_case *made = case_new(&spec);
            reference *expected = reference_new(&made->layer, &made->shape, spec.rows);
            gpu_case c;
            if (gpu_case_open(&c, &place, made))
                for (int v = 0; v < VARIANTS; v++) {
                    mlar_config config = config_of(made, &variants[v]);
                    gpu_engine e;
                    check_result result;
                    if (!gpu_engine_open(&e, &place, &config)) continue;
                    if (gpu_case_enqueue(&e, 0, &c, spec.rows)) {
                        gpu_check(check_step(made, expected, &check_spec, &result), "%d heads, %s: %s", heads[i],
                                  variants[v].name, result.message);
                        if (result.relative_l2 > worst) worst = result.relative_l2;
                    }
                    gpu_engine_close(&e);
                }
            gpu_case_close(&c);
            reference_free(expected);
            case_free(made);
        }
    printf("  worst relative L2 %.2e\n", worst);
}

/* The bytes of a case's outputs, to be compared later. */
static uint8_t *take_outputs(const step_case *made, size_t *bytes) {
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

static case_spec model_spec(uint64_t seed, int32_t rows, int32_t heads) {
    case_spec spec = {.seed = seed, .features = CASE_WILD, .rows = rows, .capacity_rows = rows, .heads = heads,
                      .nope = 448, .rope = 64, .scope_count = 2, .has_lse = true, .sink = CASE_SINK_ORDINARY,
                      .tail_zero = true};
    for (int s = 0; s < 2; s++)
        spec.scope[s] = (case_scope_spec){.block_size = 64, .num_blocks = 40, .width = s ? 256 : 128,
                                          .rows_per_len = 1, .has_lens = true};
    return spec;
}

/* Captured once, replayed many times with changing rows: equal to enqueue, bit for bit; the pool does not grow. */
static void replay_equals_enqueue(int32_t route) {
    enum { ROWS = 24 };
    int replays = quick ? 200 : 10000;
    case_spec spec = model_spec(5, ROWS, 16);
    step_case *made = case_new(&spec);
    gpu_case c;
    if (!gpu_case_open(&c, &place, made)) return;
    for (int v = 0; v < 2; v++) {
        mlar_config config = config_of(made, &variants[v]);
        config.update_route = route;
        gpu_engine e;
        mlar_program *program = NULL;
        if (!gpu_engine_open(&e, &place, &config)) continue;
        mlar_stats before = {.struct_size = sizeof before}, after = before;
        if (GPU_MUST(mlar_engine_capture(e.engine, 0, &c.bindings, 1, ROWS, &program, NULL))) {
            GPU_MUST(mlar_engine_stats(e.engine, NULL, &before));
            uint64_t state = 9;
            for (int i = 0; i < replays; i++) {
                int32_t rows = case_random_below(&state, ROWS + 1);
                if (i % (replays / 20) != 0) {
                    mlar_step step = {.struct_size = sizeof step, .rows = rows};
                    mlar_status status = mlar_engine_step(e.engine, &step, NULL);
                    if (status == MLAR_OK) status = mlar_engine_prepare(e.engine, 0, &c.bindings, NULL, NULL, NULL);
                    if (status == MLAR_OK) status = mlar_program_replay(program, NULL);
                    if (route == MLAR_UPDATE_NODE_PARAMS) GPU_MUST(mlar_device_wait(place.device, NULL));
                    gpu_check(status == MLAR_OK, "replay %d: %s", i, mlar_status_name(status));
                    continue;
                }
                size_t bytes;
                GPU_MUST(mlar_engine_poison_scratch(e.engine, (uint32_t)i, NULL));
                gpu_case_replay(&e, program, 0, &c, rows);
                uint8_t *replayed = take_outputs(made, &bytes);
                GPU_MUST(mlar_engine_poison_scratch(e.engine, 1000u + (uint32_t)i, NULL));
                gpu_case_enqueue(&e, 0, &c, rows);
                uint8_t *enqueued = take_outputs(made, &bytes);
                gpu_check(memcmp(replayed, enqueued, bytes) == 0, "replay %d at %d rows differs (%s)", i, rows,
                          variants[v].name);
                free(replayed);
                free(enqueued);
            }
            GPU_MUST(mlar_engine_stats(e.engine, NULL, &after));
            gpu_check(before.pool_used_high_bytes == after.pool_used_high_bytes &&
                          before.pool_reserved_bytes == after.pool_reserved_bytes,
                      "the pool grew: %llu -> %llu", (unsigned long long)before.pool_used_high_bytes,
                      (unsigned long long)after.pool_used_high_bytes);
        }
        gpu_engine_close(&e);
    }
    gpu_case_close(&c);
    case_free(made);
}

static void replay_step_block(void) { replay_equals_enqueue(MLAR_UPDATE_STEP_BLOCK); }
static void replay_node_params(void) { replay_equals_enqueue(MLAR_UPDATE_NODE_PARAMS); }

/* Many steps queued without waiting, each with other rows and (rebound) outputs: every one gets its own. */
static void queued_steps(void) {
    enum { ROWS = 12, QUEUED = 16 };
    step_case *made[QUEUED];
    gpu_case cases[QUEUED];
    for (int i = 0; i < QUEUED; i++) {
        case_spec spec = model_spec(100 + (uint64_t)i, ROWS, 8);
        made[i] = case_new(&spec);
        if (!gpu_case_open(&cases[i], &place, made[i])) return;
    }
    mlar_config config = config_of(made[0], &variants[0]);
    gpu_engine e;
    mlar_program *program = NULL;
    if (gpu_engine_open(&e, &place, &config) &&
        GPU_MUST(mlar_engine_capture(e.engine, 0, &cases[0].bindings, 1, ROWS, &program, NULL))) {
        for (int i = 0; i < QUEUED; i++) {
            mlar_step step = {.struct_size = sizeof step, .rows = 1 + i % ROWS};
            GPU_MUST(mlar_program_rebind(program, 0, &cases[i].bindings, NULL, NULL));
            GPU_MUST(mlar_engine_step(e.engine, &step, NULL));
            GPU_MUST(mlar_engine_prepare(e.engine, 0, &cases[i].bindings, NULL, NULL, NULL));
            GPU_MUST(mlar_program_replay(program, NULL));
        }
        GPU_MUST(mlar_device_wait(place.device, NULL));
        for (int i = 0; i < QUEUED; i++) {
            size_t bytes;
            gpu_case_download(&cases[i]);
            uint8_t *queued = take_outputs(made[i], &bytes);
            gpu_case_enqueue(&e, 0, &cases[i], 1 + i % ROWS);
            uint8_t *alone = take_outputs(made[i], &bytes);
            gpu_check(memcmp(queued, alone, bytes) == 0, "queued step %d differs from the same step alone", i);
            free(queued);
            free(alone);
        }
    }
    gpu_engine_close(&e);
    for (int i = 0; i < QUEUED; i++) {
        gpu_case_close(&cases[i]);
        case_free(made[i]);
    }
}

/* A host captures 61 layers x 9 steps of enqueues into one graph of its own and replays it. */
static void host_graph(void) {
    enum { ROWS = 6, LAYERS = 61, ROUNDS = 9 };
    case_spec spec = model_spec(31, ROWS, 16);
    step_case *made = case_new(&spec);
    gpu_case c;
    gpu_engine e;
    mlar_config config = config_of(made, &variants[0]);
    const mlar_runtime *runtime = &place.device->runtime;
    void *stream = NULL, *graph = NULL, *exec = NULL;
    size_t nodes = 0, bytes;
    if (!gpu_case_open(&c, &place, made) || !gpu_engine_open(&e, &place, &config)) return;
    gpu_case_enqueue(&e, 0, &c, ROWS);
    uint8_t *eager = take_outputs(made, &bytes);
    mlar_device_scope scope = mlar_device_enter(place.device);
    mlar_step step = {.struct_size = sizeof step, .rows = ROWS};
    int ok = runtime->stream_create(&stream, MLAR_GPU_STREAM_NON_BLOCKING) == 0 &&
             runtime->capture_begin(stream, 0 /* global, as PyTorch does */) == 0;
    for (int i = 0; i < LAYERS * ROUNDS && ok; i++) {
        ok &= GPU_MUST(mlar_engine_prepare(e.engine, 0, &c.bindings, &step, stream, NULL));
        ok &= GPU_MUST(mlar_engine_enqueue(e.engine, 0, &c.bindings, ROWS, &step, stream, NULL));
    }
    gpu_check(mlar_engine_reset_counters(e.engine, stream) == MLAR_ERROR_CAPTURING,
              "inspection during a capture is refused");
    ok = ok && runtime->capture_end(stream, &graph) == 0 && runtime->graph_nodes(graph, NULL, &nodes) == 0 &&
         runtime->graph_instantiate(&exec, graph, 0) == 0;
    case_poison_outputs(made);
    gpu_case_upload(&c);
    ok = ok && runtime->graph_launch(exec, stream) == 0 && runtime->graph_launch(exec, stream) == 0 &&
         runtime->stream_synchronize(stream) == 0;
    gpu_check(ok, "the host's capture or replay failed");
    gpu_check(nodes >= 1000, "%zu nodes in the host's graph", nodes);
    gpu_case_download(&c);
    uint8_t *replayed = take_outputs(made, &bytes);
    gpu_check(memcmp(eager, replayed, bytes) == 0, "the host's graph gives other bits than eager");
    if (exec != NULL) (void)runtime->graph_exec_destroy(exec);
    if (graph != NULL) (void)runtime->graph_destroy(graph);
    (void)runtime->stream_destroy(stream);
    mlar_device_leave(place.device, &scope);
    printf("  %zu nodes\n", nodes);
    free(eager);
    free(replayed);
    gpu_engine_close(&e);
    gpu_case_close(&c);
    case_free(made);
}

/* 61 programs of one engine, and several capacities over one arena with fewer live rows than the bucket. */
static void many_programs(void) {
    enum { PROGRAMS = 61, ROWS = 16 };
    static const int32_t buckets[] = {1, 2, 4, 8, 16};
    case_spec spec = model_spec(41, ROWS, 8);
    spec.tail_zero = false;
    step_case *made = case_new(&spec);
    mlar_config config = config_of(made, &variants[0]);
    config.max_programs = config.max_layers = PROGRAMS;
    gpu_case c;
    gpu_engine e;
    mlar_program *programs[PROGRAMS] = {NULL};
    if (!gpu_case_open(&c, &place, made) || !gpu_engine_open(&e, &place, &config)) return;
    for (int i = 0; i < PROGRAMS; i++)
        GPU_MUST(mlar_engine_capture(e.engine, 0, &c.bindings, 1, buckets[i % 5], &programs[i], NULL));
    for (int i = 0; i < PROGRAMS; i++) {
        size_t bytes;
        int32_t rows = 1 + i % buckets[i % 5];
        gpu_case_replay(&e, programs[i], 0, &c, rows);
        uint8_t *replayed = take_outputs(made, &bytes);
        gpu_case_enqueue(&e, 0, &c, rows);
        uint8_t *enqueued = take_outputs(made, &bytes);
        gpu_check(memcmp(replayed, enqueued, bytes) == 0, "program %d (bucket %d, %d rows) differs", i, buckets[i % 5], rows);
        free(replayed);
        free(enqueued);
    }
    mlar_step step = {.struct_size = sizeof step, .rows = 3};
    GPU_MUST(mlar_engine_step(e.engine, &step, NULL));
    GPU_MUST(mlar_engine_prepare(e.engine, 0, &c.bindings, NULL, NULL, NULL));
    gpu_check(mlar_program_replay(programs[0], NULL) == MLAR_ERROR_CAPACITY, "3 rows into a bucket of 1");
    gpu_engine_close(&e);
    gpu_case_close(&c);
    case_free(made);
}

static void self_tests(void) {
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
    mlar_device_scope scope = mlar_device_enter(place.device);
    int ok = gpu_case_open(&c, &place, made) && gpu_engine_open(&e, &place, &config) &&
             runtime->stream_create(&stream, MLAR_GPU_STREAM_NON_BLOCKING) == 0 && gpu_case_enqueue(&e, 0, &c, ROWS);
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
    mlar_device_leave(place.device, &scope);
    return failures;
}

static void two_engines(void) {
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

static void bad_input(void) {
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
        gpu_check(mlar_device_close(place.device) == MLAR_ERROR_BUSY, "closing a device with an engine on it");
        GPU_MUST(mlar_engine_deinit(engine));
    }
#undef INIT
    GPU_MUST(mlar_arena_release(&arena, NULL));
    GPU_MUST(mlar_device_free(place.device, device_block));
    free(host_arena);
    free(host_block);
    case_free(made);
}

/* ---- what lies outside the arena, and what a replay costs the host ---- */

static double now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e6 * (double)t.tv_sec + 1e-3 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void host_cost(void) {
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
        mlar_device_scope scope = mlar_device_enter(place.device);
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
                   route ? "node-params" : "step-block", changed ? "rows change every replay" : "nothing changes",
                   times[SAMPLES / 2], times[SAMPLES * 9 / 10],
                   (double)(place.device->calls - calls) / SAMPLES);
        }
        (void)place.device->runtime.stream_destroy(stream);
        mlar_device_leave(place.device, &scope);
        gpu_engine_close(&e);
    }
    gpu_case_close(&c);
    case_free(made);
}

static const struct group {
    const char *name;
    void (*run)(void);
} groups[] = {{"random cases against float64", random_cases},
              {"model shapes against float64", model_cases},
              {"self-test of every preset", self_tests},
              {"replay equals enqueue, step-block", replay_step_block},
              {"replay equals enqueue, node-params", replay_node_params},
              {"queued steps", queued_steps},
              {"a host's own graph", host_graph},
              {"61 programs, 5 buckets", many_programs},
              {"two engines, two threads", two_engines},
              {"bad input", bad_input},
              {"host cost of a replay", host_cost}};

int main(int argc, char **argv) {
    quick = argc > 1 && strcmp(argv[1], "quick") == 0;
    const char *only = argc > 2 ? argv[2] : NULL;
    if (!gpu_open(&place)) return 2;
    printf("%s: %s, %d units, runtime %d (%s)\n", place.info.profile.arch, place.info.name,
           (int)place.info.profile.compute_units, (int)place.info.runtime_version, place.info.runtime);
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        if (only != NULL && strstr(groups[i].name, only) == NULL) continue;
        int64_t checks = gpu_checks, failures = gpu_failures;
        double begin = now_us();
        groups[i].run();
        printf("%-38s %8lld checks, %3lld failed, %6.1f s\n", groups[i].name, (long long)(gpu_checks - checks),
               (long long)(gpu_failures - failures), 1e-6 * (now_us() - begin));
        fflush(stdout);
    }
    gpu_close(&place);
    printf("%lld passed, %lld failed\n", (long long)(gpu_checks - gpu_failures), (long long)gpu_failures);
    return gpu_failures != 0;
}
