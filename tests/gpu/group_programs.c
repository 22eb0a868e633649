/* SPDX-License-Identifier: Apache-2.0
 *
 * group_programs.c: what is captured and replayed equals what is enqueued, bit for bit. */
#include "tests/gpu/groups.h"

#include "engine/gpu/device.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- replay equals enqueue ---- */

enum { MOVING_ROWS = 24, MOVING_CAPACITY = 12, MOVING_CASES = 2 };

/* Two steps of one shape in different memory, and the program that is moved from one to the other. */
typedef struct moving {
    step_case *made[MOVING_CASES];
    gpu_case cases[MOVING_CASES];
    gpu_engine e;
    mlar_program *program;
    int at; /* the case that the program is bound to */
} moving;

static int holds_lengths(const case_buffer *buffer) {
    return strcmp(buffer->name, "window_lens") == 0 || strcmp(buffer->name, "extra_lens") == 0;
}

/* New lengths on the device, some below 0 and above the width. */
static int write_lengths(gpu_case *c, uint64_t *state) {
    for (int32_t i = 0; i < c->made->buffer_count; i++) {
        case_buffer *buffer = &c->made->buffers[i];
        if (!holds_lengths(buffer)) continue;
        int32_t *lens = (int32_t *)(void *)(buffer->memory + buffer->begin_bytes);
        size_t count = (buffer->bytes - buffer->begin_bytes) / sizeof *lens;
        for (size_t n = 0; n < count; n++) lens[n] = case_random_below(state, 262) - 3;
        if (!GPU_MUST(mlar_device_write(place.device, c->buffer[i], buffer->memory, buffer->bytes))) return 0;
    }
    return 1;
}

/* The next replay's case, lengths and rows. */
static int32_t move_on(moving *m, int i, uint64_t *state) {
    m->at = case_random_below(state, MOVING_CASES);
    if (i % 8 == 0) write_lengths(&m->cases[m->at], state);
    GPU_MUST(mlar_program_rebind(m->program, 0, &m->cases[m->at].bindings, NULL, NULL));
    return case_random_below(state, MOVING_CAPACITY + 1);
}

static void compare_with_enqueue(moving *m, int i, int32_t rows, const char *variant) {
    gpu_case *c = &m->cases[m->at];
    size_t bytes;
    GPU_MUST(mlar_engine_poison_scratch(m->e.engine, (uint32_t)i, NULL));
    gpu_case_replay(&m->e, m->program, 0, c, rows);
    uint8_t *replayed = take_outputs(c->made, &bytes);
    GPU_MUST(mlar_engine_poison_scratch(m->e.engine, 1000u + (uint32_t)i, NULL));
    gpu_case_enqueue(&m->e, 0, c, rows);
    uint8_t *enqueued = take_outputs(c->made, &bytes);
    gpu_check(memcmp(replayed, enqueued, bytes) == 0, "replay %d at %d rows differs (%s)", i, rows, variant);
    free(replayed);
    free(enqueued);
}

static void replay_many(moving *m, int32_t route, const char *variant) {
    int replays = quick ? 200 : 10000;
    mlar_stats before = {.struct_size = sizeof before}, after = before;
    GPU_MUST(mlar_engine_stats(m->e.engine, NULL, &before));
    uint64_t state = 9;
    for (int i = 0; i < replays; i++) {
        int32_t rows = move_on(m, i, &state);
        if (i % (replays / 20) == 0) {
            compare_with_enqueue(m, i, rows, variant);
            continue;
        }
        mlar_step step = {.struct_size = sizeof step, .rows = rows};
        mlar_status status = mlar_engine_step(m->e.engine, &step, NULL);
        if (status == MLAR_OK)
            status = mlar_engine_prepare(m->e.engine, 0, &m->cases[m->at].bindings, NULL, NULL, NULL);
        if (status == MLAR_OK) status = mlar_program_replay(m->program, NULL);
        if (route == MLAR_UPDATE_NODE_PARAMS) GPU_MUST(mlar_device_wait(place.device, NULL));
        gpu_check(status == MLAR_OK, "replay %d: %s", i, mlar_status_name(status));
    }
    GPU_MUST(mlar_engine_stats(m->e.engine, NULL, &after));
    gpu_check(before.pool_used_high_bytes == after.pool_used_high_bytes &&
                  before.pool_reserved_bytes == after.pool_reserved_bytes,
              "the pool grew: %llu -> %llu", (unsigned long long)before.pool_used_high_bytes,
              (unsigned long long)after.pool_used_high_bytes);
}

/* Captured once, replayed many times while rows, lengths and every pointer change: equal to enqueue, bit for bit, whose
 * kernels may be others, since it has room for more rows; the pool does not grow. */
static void replay_equals_enqueue(int32_t route) {
    moving m = {0};
    int ok = 1;
    for (int i = 0; i < MOVING_CASES; i++) {
        case_spec spec = model_spec(5 + (uint64_t)i, MOVING_ROWS, 16);
        spec.tail_zero = false; /* their tails are not of one length */
        m.made[i] = case_new(&spec);
        ok = ok && gpu_case_open(&m.cases[i], &place, m.made[i]);
    }
    for (int v = 0; v < VARIANTS && ok; v++) {
        mlar_config config = config_of(m.made[0], &variants[v]);
        config.update_route = route;
        if (!gpu_engine_open(&m.e, &place, &config)) continue;
        if (GPU_MUST(mlar_engine_capture(m.e.engine, 0, &m.cases[0].bindings, 1, MOVING_CAPACITY, &m.program,
                                         NULL)))
            replay_many(&m, route, variants[v].name);
        gpu_engine_close(&m.e);
    }
    for (int i = 0; i < MOVING_CASES; i++) {
        gpu_case_close(&m.cases[i]);
        case_free(m.made[i]);
    }
}

void replay_step_block(void) {
    replay_equals_enqueue(MLAR_UPDATE_STEP_BLOCK);
}
void replay_node_params(void) {
    replay_equals_enqueue(MLAR_UPDATE_NODE_PARAMS);
}

/* Captured while every list is empty and one row is live, replayed with full lists and every row. */
void capture_short(void) {
    enum { ROWS = 20 };
    case_spec spec = model_spec(21, ROWS, 16);
    step_case *made = case_new(&spec), *nothing = case_new(&spec);
    gpu_case c = {0}, before = {0};
    for (int32_t i = 0; i < nothing->buffer_count; i++)
        if (holds_lengths(&nothing->buffers[i]))
            memset(nothing->buffers[i].memory, 0, nothing->buffers[i].bytes);
    const int ok = gpu_case_open(&c, &place, made) && gpu_case_open(&before, &place, nothing);
    for (int v = 0; v < VARIANTS && ok; v++) {
        mlar_config config = config_of(made, &variants[v]);
        gpu_engine e;
        mlar_program *program = NULL;
        size_t bytes;
        if (!gpu_engine_open(&e, &place, &config)) continue;
        mlar_step one = {.struct_size = sizeof one, .rows = 1};
        GPU_MUST(mlar_engine_step(e.engine, &one, NULL));
        if (GPU_MUST(mlar_engine_capture(e.engine, 0, &before.bindings, 1, ROWS, &program, NULL))) {
            gpu_case_replay(&e, program, 0, &before, 1);
            GPU_MUST(mlar_program_rebind(program, 0, &c.bindings, NULL, NULL));
            for (int32_t rows = ROWS; rows >= 0; rows -= rows == ROWS ? ROWS - 1 : 1) {
                gpu_case_replay(&e, program, 0, &c, rows);
                uint8_t *replayed = take_outputs(made, &bytes);
                gpu_case_enqueue(&e, 0, &c, rows);
                uint8_t *enqueued = take_outputs(made, &bytes);
                gpu_check(memcmp(replayed, enqueued, bytes) == 0, "captured empty, replayed at %d rows (%s)",
                          rows, variants[v].name);
                free(replayed);
                free(enqueued);
            }
        }
        gpu_engine_close(&e);
    }
    gpu_case_close(&c);
    gpu_case_close(&before);
    case_free(made);
    case_free(nothing);
}

/* Many steps queued without waiting, each with other rows and (rebound) outputs: every one gets its own. */
void queued_steps(void) {
    enum { ROWS = 12, QUEUED = 16 };
    step_case *made[QUEUED];
    gpu_case cases[QUEUED] = {0};
    gpu_engine e = {0};
    mlar_program *program = NULL;
    int ok = 1;
    for (int i = 0; i < QUEUED; i++) {
        case_spec spec = model_spec(100 + (uint64_t)i, ROWS, 8);
        made[i] = case_new(&spec);
        ok = ok && gpu_case_open(&cases[i], &place, made[i]);
    }
    mlar_config config = config_of(made[0], &variants[0]);
    if (ok && gpu_engine_open(&e, &place, &config) &&
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
            gpu_check(memcmp(queued, alone, bytes) == 0, "queued step %d differs from the same step alone",
                      i);
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
void host_graph(void) {
    enum { ROWS = 6, LAYERS = 61, ROUNDS = 9 };
    case_spec spec = model_spec(31, ROWS, 16);
    step_case *made = case_new(&spec);
    gpu_case c = {0};
    gpu_engine e = {0};
    mlar_config config = config_of(made, &variants[0]);
    const mlar_runtime *runtime = &place.device->runtime;
    mlar_device_scope scope = {0};
    void *stream = NULL, *graph = NULL, *exec = NULL;
    size_t nodes = 0, bytes;
    uint8_t *eager = NULL, *replayed = NULL;
    mlar_step step = {.struct_size = sizeof step, .rows = ROWS};
    int ok = gpu_case_open(&c, &place, made) && gpu_engine_open(&e, &place, &config) &&
             gpu_case_enqueue(&e, 0, &c, ROWS) && GPU_MUST(mlar_device_enter(place.device, &scope, NULL)) &&
             gpu_check(runtime->stream_create(&stream, MLAR_GPU_STREAM_NON_BLOCKING) == 0, "a stream");
    if (!ok) goto close;
    eager = take_outputs(made, &bytes);
    ok = runtime->capture_begin(stream, 0 /* global, as PyTorch does */) == 0;
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
    replayed = take_outputs(made, &bytes);
    gpu_check(memcmp(eager, replayed, bytes) == 0, "the host's graph gives other bits than eager");
    printf("  %zu nodes\n", nodes);
close:
    if (exec != NULL) (void)runtime->graph_exec_destroy(exec);
    if (graph != NULL) (void)runtime->graph_destroy(graph);
    if (stream != NULL) (void)runtime->stream_destroy(stream);
    GPU_MUST(mlar_device_leave(place.device, &scope, MLAR_OK, NULL));
    free(eager);
    free(replayed);
    gpu_engine_close(&e);
    gpu_case_close(&c);
    case_free(made);
}

/* ---- programs as children of a host's graph ---- */

typedef int new_graph(void **graph, unsigned flags);
typedef int add_child(void **node, void *graph, void *const *after, size_t count, void *child);

/* The engine has no use for these two, so runtime.def does not list them. */
static void find_in_runtime(void *function, const char *hip, const char *cuda) {
    const mlar_runtime *runtime = &place.device->runtime;
    *(void **)function = dlsym(runtime->library, runtime->vendor->device == MLAR_DEVICE_HIP ? hip : cuda);
}

/* Two programs, one behind the other, as the only nodes of a graph that the host launches. */
static int launch_children(mlar_program *const programs[2], void *stream) {
    const mlar_runtime *runtime = &place.device->runtime;
    new_graph *create = NULL;
    add_child *add = NULL;
    void *graph = NULL, *exec = NULL, *nodes[2] = {NULL, NULL};
    find_in_runtime(&create, "hipGraphCreate", "cuGraphCreate");
    find_in_runtime(&add, "hipGraphAddChildGraphNode", "cuGraphAddChildGraphNode");
    if (!gpu_check(create != NULL && add != NULL, "the runtime has no child graphs")) return 0;
    int ok = create(&graph, 0) == 0;
    for (int i = 0; i < 2 && ok; i++)
        ok = add(&nodes[i], graph, nodes, i > 0 ? 1 : 0, mlar_program_graph(programs[i])) == 0;
    ok = ok && runtime->graph_instantiate(&exec, graph, 0) == 0 && runtime->graph_launch(exec, stream) == 0 &&
         runtime->stream_synchronize(stream) == 0;
    if (exec != NULL) (void)runtime->graph_exec_destroy(exec);
    if (graph != NULL) (void)runtime->graph_destroy(graph);
    return gpu_check(ok, "a graph with two programs as children");
}

void child_graphs(void) {
    enum { ROWS = 7, PROGRAMS = 2 };
    step_case *made[PROGRAMS];
    gpu_case cases[PROGRAMS] = {0};
    gpu_engine e = {0};
    mlar_program *programs[PROGRAMS] = {NULL};
    uint8_t *replayed[PROGRAMS] = {NULL};
    size_t bytes;
    int ok = 1;
    for (int i = 0; i < PROGRAMS; i++) {
        case_spec spec = model_spec(91 + (uint64_t)i, ROWS, 16);
        made[i] = case_new(&spec);
        ok = ok && gpu_case_open(&cases[i], &place, made[i]);
    }
    mlar_config config =
        config_of(made[0], &variants[2]); /* splits without prepare: each has its own lengths */
    mlar_step step = {.struct_size = sizeof step, .rows = ROWS - 1};
    ok = ok && gpu_engine_open(&e, &place, &config);
    for (int i = 0; i < PROGRAMS && ok; i++) {
        ok = GPU_MUST(mlar_engine_capture(e.engine, 0, &cases[i].bindings, 1, ROWS, &programs[i], NULL)) &&
             gpu_case_replay(&e, programs[i], 0, &cases[i], step.rows);
        replayed[i] = take_outputs(made[i], &bytes);
        case_poison_outputs(made[i]);
        gpu_case_upload(&cases[i]);
    }
    mlar_device_scope scope;
    if (ok && GPU_MUST(mlar_device_enter(place.device, &scope, NULL))) {
        ok = GPU_MUST(mlar_engine_step(e.engine, &step, NULL)) && launch_children(programs, NULL);
        GPU_MUST(mlar_device_leave(place.device, &scope, MLAR_OK, NULL));
    }
    for (int i = 0; i < PROGRAMS && ok; i++) {
        gpu_case_download(&cases[i]);
        uint8_t *child = take_outputs(made[i], &bytes);
        gpu_check(memcmp(child, replayed[i], bytes) == 0, "program %d as a child gives other bits", i);
        free(child);
    }
    gpu_engine_close(&e);
    for (int i = 0; i < PROGRAMS; i++) {
        gpu_case_close(&cases[i]);
        case_free(made[i]);
        free(replayed[i]);
    }
}

/* 61 programs of one engine, and several capacities over one arena with fewer live rows than the bucket. By their
 * capacity they may be of other kernels than the enqueue; the bits are the same. */
void many_programs(void) {
    enum { PROGRAMS = 61, ROWS = 80 };
    static const int32_t buckets[] = {1, 2, 8, 40, ROWS};
    case_spec spec = model_spec(41, ROWS, 8);
    spec.tail_zero = false;
    step_case *made = case_new(&spec);
    mlar_config config = config_of(made, &variants[0]);
    config.max_programs = config.max_layers = PROGRAMS;
    gpu_case c = {0};
    gpu_engine e = {0};
    mlar_program *programs[PROGRAMS] = {NULL};
    int ok = gpu_case_open(&c, &place, made) && gpu_engine_open(&e, &place, &config);
    for (int i = 0; i < PROGRAMS && ok; i++)
        ok = GPU_MUST(mlar_engine_capture(e.engine, 0, &c.bindings, 1, buckets[i % 5], &programs[i], NULL));
    for (int i = 0; i < PROGRAMS && ok; i++) {
        size_t bytes;
        int32_t rows = 1 + i % buckets[i % 5];
        gpu_case_replay(&e, programs[i], 0, &c, rows);
        uint8_t *replayed = take_outputs(made, &bytes);
        gpu_case_enqueue(&e, 0, &c, rows);
        uint8_t *enqueued = take_outputs(made, &bytes);
        gpu_check(memcmp(replayed, enqueued, bytes) == 0, "program %d (bucket %d, %d rows) differs", i,
                  buckets[i % 5], rows);
        free(replayed);
        free(enqueued);
    }
    mlar_step step = {.struct_size = sizeof step, .rows = 3};
    if (ok && GPU_MUST(mlar_engine_step(e.engine, &step, NULL)) &&
        GPU_MUST(mlar_engine_prepare(e.engine, 0, &c.bindings, NULL, NULL, NULL)))
        gpu_check(mlar_program_replay(programs[0], NULL) == MLAR_ERROR_CAPACITY, "3 rows into a bucket of 1");
    gpu_engine_close(&e);
    gpu_case_close(&c);
    case_free(made);
}
