/* SPDX-License-Identifier: Apache-2.0
 *
 * backend.c: the GPU back end. Launches go to the host's stream; between capture_begin and capture_end they
 * go to a stream of our own that is being captured, and a program is the graph that comes of it.
 *
 *     state | graphs [programs] | node handles [programs][nodes at most] (route node-params only)
 *
 * Steady functions make no call but the launches themselves and, before them, one question about the current
 * device; `calls` counts both. */
#include "engine/gpu/backend.h"

#include "arena/fail.h"
#include "engine/gpu/device.h"
#include "engine/gpu/graph.h"
#include "engine/gpu/pool.h"
#include "engine/sequence.h"

#include <stdatomic.h>
#include <string.h>

typedef struct mlar_gpu_state {
    mlar_device *device;
    mlar_arena_core *arena;
    void *capture_stream;
    mlar_graph *graphs;
    void **nodes;
    int32_t program_count;
    int32_t node_limit;
    int32_t recording; /* program under capture, -1: none */
    int32_t updating;  /* program under update, -1: none */
} mlar_gpu_state;

/* ---- layout of the state ---- */

static int32_t node_limit(const mlar_dims *dims) {
    return dims->config.update_route == MLAR_UPDATE_NODE_PARAMS ? dims->config.max_nodes : 0;
}

static uint64_t graphs_offset(void) {
    return (sizeof(mlar_gpu_state) + 63) / 64 * 64;
}

static uint64_t nodes_offset(const mlar_dims *dims) {
    return graphs_offset() + ((uint64_t)mlar_program_slots(dims) * sizeof(mlar_graph) + 63) / 64 * 64;
}

static uint64_t gpu_state_bytes(const mlar_dims *dims, mlar_checked *check) {
    uint64_t nodes = (uint64_t)mlar_program_slots(dims) * (uint64_t)node_limit(dims);
    return mlar_checked_add(check, nodes_offset(dims), mlar_checked_mul(check, nodes, sizeof(void *)));
}

/* ---- init and deinit ---- */

static mlar_status check_profile(const mlar_device_profile *wanted, const mlar_device *device,
                                 mlar_diag *diag) {
    const mlar_device_profile *found = &device->profile;
    if (wanted->device == found->device && strcmp(wanted->arch, found->arch) == 0 &&
        wanted->compute_units == found->compute_units && wanted->wave_size == found->wave_size)
        return MLAR_OK;
    return mlar_fail(diag, MLAR_ERROR_UNSUPPORTED, "device", found->compute_units, wanted->compute_units,
                     "device: planned for %s with %d units, found %s with %d", wanted->arch,
                     (int)wanted->compute_units, found->arch, (int)found->compute_units);
}

static mlar_status gpu_init(void *opaque, const mlar_layout *layout, mlar_arena_core *arena,
                            mlar_device *device, mlar_diag *diag) {
    mlar_gpu_state *state = opaque;
    *state = (mlar_gpu_state){.device = device, .arena = arena, .recording = -1, .updating = -1};
    mlar_status status = check_profile(&layout->dims.config.device, device, diag);
    if (status == MLAR_OK) status = mlar_device_judge(device, layout->dims.config.runtime_check, diag);
    if (status != MLAR_OK) return status;
    if (arena->source.host_visible)
        return mlar_fail(diag, MLAR_ERROR_MEMORY_KIND, "arena", 0, 0,
                         "arena: a GPU engine needs device memory");
    mlar_device_scope scope;
    if ((status = mlar_device_enter(device, &scope, diag)) != MLAR_OK) return status;
    status = mlar_device_check_memory(device, arena->base, layout->plan.total_bytes, "arena", diag);
    if (status == MLAR_OK)
        status = mlar_runtime_status(
            &device->runtime,
            device->runtime.stream_create(&state->capture_stream, MLAR_GPU_STREAM_NON_BLOCKING),
            "hipStreamCreateWithFlags", diag);
    int created = status == MLAR_OK;
    status = mlar_device_leave(device, &scope, status, diag);
    if (created && status != MLAR_OK) (void)device->runtime.stream_destroy(state->capture_stream);
    if (status != MLAR_OK) return status;
    state->program_count = mlar_program_slots(&layout->dims);
    state->node_limit = node_limit(&layout->dims);
    state->graphs = (mlar_graph *)(void *)((char *)opaque + graphs_offset());
    for (int32_t i = 0; i < state->program_count; i++) state->graphs[i] = (mlar_graph){.updating = -1};
    state->nodes = (void **)(void *)((char *)opaque + nodes_offset(&layout->dims));
    atomic_fetch_add(&device->users, 1);
    return MLAR_OK;
}

static mlar_status gpu_deinit(void *opaque) {
    mlar_gpu_state *state = opaque;
    mlar_runtime *runtime = &state->device->runtime;
    mlar_device_scope scope;
    mlar_status status = mlar_device_enter(state->device, &scope, NULL);
    int entered = status == MLAR_OK; /* destroying does without, if need be */
    for (int32_t i = 0; i < state->program_count; i++) {
        mlar_status destroyed = mlar_graph_destroy(runtime, &state->graphs[i], NULL);
        if (status == MLAR_OK) status = destroyed;
    }
    int error = runtime->stream_destroy(state->capture_stream);
    if (status == MLAR_OK) status = mlar_runtime_status(runtime, error, "hipStreamDestroy", NULL);
    if (entered) status = mlar_device_leave(state->device, &scope, status, NULL);
    atomic_fetch_sub(&state->device->users, 1);
    return status;
}

static mlar_status gpu_ready(void *opaque, mlar_diag *diag) {
    mlar_runtime *runtime = &((mlar_gpu_state *)opaque)->device->runtime;
    return mlar_runtime_status(runtime, runtime->lost, "device", diag);
}

static mlar_status gpu_idle(void *opaque, void *stream, mlar_diag *diag) {
    return mlar_device_idle(((mlar_gpu_state *)opaque)->device, stream, diag);
}

/* ---- launches ---- */

/* With what only CUDA has: clusters, and launches that begin before the one ahead of them has ended. */
static int launch_now(const mlar_runtime *runtime, const mlar_kernel_call *call, void **arguments,
                      void *stream) {
    mlar_cuda_launch_attribute attributes[2];
    mlar_cuda_launch_config config = {.grid = {call->grid, 1, 1},
                                      .block = {call->block, 1, 1},
                                      .lds_bytes = call->lds_bytes,
                                      .stream = stream,
                                      .attributes = attributes};
    if (call->cluster > 1)
        attributes[config.attribute_count++] = (mlar_cuda_launch_attribute){
            .id = MLAR_CUDA_ATTRIBUTE_CLUSTER, .value = {(int32_t)call->cluster, 1, 1}};
    if (call->overlaps && runtime->launch_extended != NULL &&
        runtime->driver_version >= MLAR_CUDA_VERSION_OVERLAP)
        attributes[config.attribute_count++] =
            (mlar_cuda_launch_attribute){.id = MLAR_CUDA_ATTRIBUTE_OVERLAP, .value = {1}};
    if (config.attribute_count > 0) return runtime->launch_extended(&config, call->function, arguments, NULL);
    return runtime->launch(call->function, call->grid, 1, 1, call->block, 1, 1, call->lds_bytes, stream,
                           arguments, NULL);
}

static mlar_status launch_call(mlar_gpu_state *state, const mlar_kernel_call *call, void *argument,
                               void *stream, mlar_diag *diag) {
    void *arguments[] = {argument};
    if (state->updating >= 0) {
        mlar_graph *graph = &state->graphs[state->updating];
        void **nodes = state->nodes + (int64_t)state->updating * state->node_limit;
        if (graph->updating >= graph->node_count) return MLAR_ERROR_LIMIT;
        mlar_device_count_calls(state->device, 1);
        return mlar_graph_set_node(&state->device->runtime, graph, nodes[graph->updating++], call, arguments,
                                   diag);
    }
    mlar_device_count_calls(state->device, 1);
    int error = launch_now(&state->device->runtime, call, arguments,
                           state->recording >= 0 ? state->capture_stream : stream);
    return mlar_runtime_status(&state->device->runtime, error, "hipModuleLaunchKernel", diag);
}

static mlar_status gpu_launch(void *opaque, const mlar_launch *launch, void *stream, mlar_diag *diag) {
    mlar_gpu_state *state = opaque;
    mlar_kernel_call call;
    mlar_status status = mlar_modules_call(&state->device->modules, (int32_t)launch->id, launch->args,
                                           launch->layer, &call, diag);
    if (status != MLAR_OK) return status;
    const void *argument = launch->block != NULL ? (const void *)launch->block : (const void *)launch->args;
    mlar_device_scope scope;
    if ((status = mlar_device_enter(state->device, &scope, diag)) != MLAR_OK) return status;
    status = launch_call(state, &call, (void *)(uintptr_t)argument, stream, diag);
    return mlar_device_leave(state->device, &scope, status, diag);
}

/* ---- programs ---- */

static mlar_status gpu_capture_begin(void *opaque, int32_t index, mlar_diag *diag) {
    mlar_gpu_state *state = opaque;
    mlar_runtime *runtime = &state->device->runtime;
    mlar_device_scope scope;
    mlar_status status = mlar_device_enter(state->device, &scope, diag);
    if (status != MLAR_OK) return status;
    status = mlar_graph_begin(runtime, state->capture_stream, diag);
    int begun = status == MLAR_OK;
    status = mlar_device_leave(state->device, &scope, status, diag);
    if (status == MLAR_OK)
        state->recording = index;
    else if (begun)
        (void)mlar_graph_end(runtime, state->capture_stream, 0, &state->graphs[index], NULL);
    return status;
}

static mlar_status gpu_capture_end(void *opaque, int32_t index, int keep, mlar_diag *diag) {
    mlar_gpu_state *state = opaque;
    mlar_graph *graph = &state->graphs[index];
    mlar_runtime *runtime = &state->device->runtime;
    state->recording = -1;
    mlar_device_scope scope;
    mlar_status entered = mlar_device_enter(state->device, &scope, diag);
    keep = keep && entered == MLAR_OK; /* a capture that was begun has to be ended all the same */
    mlar_status status = mlar_graph_end(runtime, state->capture_stream, keep, graph, keep ? diag : NULL);
    if (entered != MLAR_OK) return entered;
    if (status == MLAR_OK && keep && state->node_limit > 0)
        status = mlar_graph_nodes(runtime, graph, state->nodes + (int64_t)index * state->node_limit,
                                  (size_t)state->node_limit, diag);
    status = mlar_device_leave(state->device, &scope, status, diag);
    if (status != MLAR_OK) (void)mlar_graph_destroy(runtime, graph, NULL);
    return status;
}

static mlar_status gpu_update_begin(void *opaque, int32_t index) {
    mlar_gpu_state *state = opaque;
    state->updating = index;
    state->graphs[index].updating = 0;
    return MLAR_OK;
}

static mlar_status gpu_update_end(void *opaque, int32_t index) {
    mlar_gpu_state *state = opaque;
    int complete = state->graphs[index].updating == state->graphs[index].node_count;
    state->graphs[index].updating = -1;
    state->updating = -1;
    return complete ? MLAR_OK : MLAR_ERROR_DEVICE;
}

/* One call when nothing has changed. The stream says which device; for the default stream it must be current.
 */
static mlar_status gpu_replay(void *opaque, int32_t index, void *stream, mlar_diag *diag) {
    mlar_gpu_state *state = opaque;
    mlar_device_scope scope;
    mlar_status status = stream == NULL ? mlar_device_enter(state->device, &scope, diag) : MLAR_OK;
    if (status != MLAR_OK) return status;
    mlar_device_count_calls(state->device, 1);
    status = mlar_graph_launch(&state->device->runtime, &state->graphs[index], stream, diag);
    return stream == NULL ? mlar_device_leave(state->device, &scope, status, diag) : status;
}

static mlar_status gpu_release(void *opaque, int32_t index, mlar_diag *diag) {
    mlar_gpu_state *state = opaque;
    mlar_device_scope scope;
    mlar_status entered = mlar_device_enter(state->device, &scope, diag);
    mlar_status status =
        mlar_graph_destroy(&state->device->runtime, &state->graphs[index], entered == MLAR_OK ? diag : NULL);
    return entered != MLAR_OK ? entered : mlar_device_leave(state->device, &scope, status, diag);
}

static void *gpu_graph(void *opaque, int32_t index) {
    return ((mlar_gpu_state *)opaque)->graphs[index].graph;
}

/* ---- copies and inspection ---- */

static mlar_status gpu_copy(mlar_gpu_state *state, int in, void *to, const void *from, uint64_t bytes,
                            void *stream, mlar_diag *diag) {
    mlar_device_scope scope;
    mlar_status status = mlar_device_enter(state->device, &scope, diag);
    if (status != MLAR_OK) return status;
    status = mlar_device_transfer(state->device, in, to, from, bytes, stream, diag);
    return mlar_device_leave(state->device, &scope, status, diag);
}

static mlar_status gpu_copy_in(void *opaque, void *to, const void *from, uint64_t bytes, void *stream,
                               mlar_diag *diag) {
    return gpu_copy(opaque, 1, to, from, bytes, stream, diag);
}

static mlar_status gpu_copy_out(void *opaque, void *to, const void *from, uint64_t bytes, void *stream,
                                mlar_diag *diag) {
    return gpu_copy(opaque, 0, to, from, bytes, stream, diag);
}

static mlar_status gpu_fill(void *opaque, void *to, uint32_t word, uint64_t bytes, void *stream,
                            mlar_diag *diag) {
    mlar_gpu_state *state = opaque;
    mlar_device_scope scope;
    mlar_status status = mlar_device_enter(state->device, &scope, diag);
    if (status != MLAR_OK) return status;
    status = mlar_device_fill(state->device, to, word, bytes, stream, diag);
    return mlar_device_leave(state->device, &scope, status, diag);
}

static mlar_status gpu_stats(void *opaque, mlar_backend_stats *stats) {
    mlar_gpu_state *state = opaque;
    stats->runtime_calls = state->device->calls;
    stats->name = state->device->runtime.vendor->name;
    stats->variant = state->device->modules.arch;
    mlar_device_scope scope;
    mlar_status status = mlar_device_enter(state->device, &scope, NULL);
    if (status != MLAR_OK) return status;
    status = mlar_pool_attributes(state->arena, state->device, stats);
    return mlar_device_leave(state->device, &scope, status, NULL);
}

const mlar_backend mlar_backend_gpu = {
    .state_bytes = gpu_state_bytes,
    .init = gpu_init,
    .deinit = gpu_deinit,
    .ready = gpu_ready,
    .idle = gpu_idle,
    .launch = gpu_launch,
    .capture_begin = gpu_capture_begin,
    .capture_end = gpu_capture_end,
    .update_begin = gpu_update_begin,
    .update_end = gpu_update_end,
    .replay = gpu_replay,
    .release = gpu_release,
    .graph = gpu_graph,
    .copy_in = gpu_copy_in,
    .copy_out = gpu_copy_out,
    .fill = gpu_fill,
    .stats = gpu_stats,
};
