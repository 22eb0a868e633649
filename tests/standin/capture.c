/* SPDX-License-Identifier: Apache-2.0
 *
 * capture.c: stream capture with its prohibitions, graphs and executable graphs.
 *
 * While a stream is captured in mode `global`, no thread may make a call that could wait or allocate; in mode
 * `thread-local`, the capturing thread may not; in mode `relaxed` anybody may. A refused call invalidates the capture.
 * The default stream may not be used at all while a stream that waits for it is captured. */
#include "tests/standin/state.h"

#include <string.h>

static int mine(const standin_stream *stream) {
    return pthread_equal(stream->owner, pthread_self());
}

int standin_unsafe(void) {
    int error = 0;
    for (int i = 0; i < MAX_STREAMS; i++) {
        standin_stream *stream = &standin_now.streams[i];
        if (!stream->alive || stream->capture == CAPTURE_NONE || stream->mode == MODE_RELAXED) continue;
        if (stream->mode == MODE_THREAD_LOCAL && !mine(stream)) continue;
        stream->capture = CAPTURE_INVALIDATED;
        error = HIP_CAPTURE_UNSUPPORTED;
    }
    return error;
}

static standin_stream *captured_beside(const standin_stream *stream) {
    if (stream == NULL || stream != &standin_now.defaults[stream->device]) return NULL;
    for (int i = 0; i < MAX_STREAMS; i++) {
        standin_stream *other = &standin_now.streams[i];
        if (other->alive && other->blocking && other->device == stream->device &&
            other->capture != CAPTURE_NONE)
            return other;
    }
    return NULL;
}

int standin_default_use(const standin_stream *stream) {
    standin_stream *captured = captured_beside(stream);
    if (captured == NULL) return 0;
    captured->capture = CAPTURE_INVALIDATED;
    return HIP_CAPTURE_IMPLICIT;
}

/* ---- graphs ---- */

standin_graph *standin_graph_new(int32_t executable, int32_t device) {
    for (int i = 0; i < MAX_GRAPHS; i++) {
        standin_graph *graph = &standin_now.graphs[i];
        if (graph->alive || graph->queued > 0) continue;
        *graph = (standin_graph){.alive = 1, .executable = executable, .device = device};
        return graph;
    }
    return NULL;
}

/* Its nodes go when no launch of it waits any more. */
void standin_graph_end(standin_graph *graph) {
    graph->alive = 0;
    if (graph->queued > 0) return;
    for (standin_node *node = graph->first; node != NULL; node = node->next) node->graph = NULL;
}

standin_node *standin_node_add(standin_graph *graph, const standin_launch *launch,
                               const standin_node *origin) {
    for (int i = 0; i < MAX_NODES; i++) {
        standin_node *node = &standin_now.nodes[i];
        if (node->graph != NULL) continue;
        node->graph = graph;
        node->next = NULL;
        node->origin = origin;
        node->launch = *launch;
        if (graph->last != NULL)
            graph->last->next = node;
        else
            graph->first = node;
        graph->last = node;
        graph->count++;
        return node;
    }
    standin_violate("more graph nodes than the stand-in has room for");
    return NULL;
}

static standin_graph *graph_of(void *handle, int32_t executable) {
    for (int i = 0; i < MAX_GRAPHS; i++)
        if (&standin_now.graphs[i] == handle)
            return standin_now.graphs[i].alive && standin_now.graphs[i].executable == executable ? handle
                                                                                                 : NULL;
    return NULL;
}

/* ---- capture ---- */

static int is_capturing(void *handle, int *status) {
    const standin_stream *stream = standin_stream_of(handle);
    if (stream == NULL) return HIP_CONTEXT_DESTROYED;
    if (status == NULL) return HIP_INVALID_VALUE;
    if (captured_beside(stream) != NULL) return HIP_CAPTURE_IMPLICIT; /* the capture lives on */
    *status = stream->capture;
    return 0;
}

static int capture_begin(void *handle, int mode) {
    standin_stream *stream = standin_stream_of(handle);
    if (stream == NULL) return HIP_CONTEXT_DESTROYED;
    if (handle == NULL) return HIP_CAPTURE_UNSUPPORTED;
    if (mode < MODE_GLOBAL || mode > MODE_RELAXED) return HIP_INVALID_VALUE;
    if (stream->capture != CAPTURE_NONE) return HIP_ILLEGAL_STATE;
    stream->graph = standin_graph_new(0, stream->device);
    if (stream->graph == NULL) return HIP_OUT_OF_MEMORY;
    stream->capture = CAPTURE_ACTIVE;
    stream->mode = mode;
    stream->owner = pthread_self();
    return 0;
}

static int capture_end(void *handle, void **graph, int ordered) {
    standin_stream *stream = standin_stream_of(handle);
    if (stream == NULL) return HIP_CONTEXT_DESTROYED;
    if (graph == NULL) return HIP_INVALID_VALUE;
    if (stream->capture == CAPTURE_NONE) return HIP_ILLEGAL_STATE;
    if (stream->mode != MODE_RELAXED && !mine(stream)) return HIP_CAPTURE_WRONG_THREAD;
    int invalidated = stream->capture == CAPTURE_INVALIDATED || ordered;
    stream->capture = CAPTURE_NONE;
    *graph = invalidated ? NULL : stream->graph;
    if (invalidated) standin_graph_end(stream->graph);
    return invalidated ? HIP_CAPTURE_INVALIDATED : 0;
}

HIP(hipStreamIsCapturing, (void *stream, int *status), is_capturing(stream, status))
HIP(hipStreamBeginCapture, (void *stream, int mode), capture_begin(stream, mode))
/* The capture ends even where this fails. */
HIP_RELEASE(hipStreamEndCapture, (void *stream, void **graph), capture_end(stream, graph, ordered))

/* ---- using graphs ---- */

static int graph_nodes(void *handle, void **nodes, size_t *count) {
    const standin_graph *graph = graph_of(handle, 0);
    if (graph == NULL || count == NULL) return HIP_INVALID_VALUE;
    size_t i = 0;
    for (standin_node *node = graph->first; nodes != NULL && node != NULL && i < *count; node = node->next)
        nodes[i++] = node;
    *count = nodes == NULL ? graph->count : i;
    return 0;
}

static int instantiate(void **exec, void *handle, unsigned long long flags) {
    const standin_graph *graph = graph_of(handle, 0);
    if (graph == NULL || exec == NULL || flags != 0) return HIP_INVALID_VALUE;
    standin_graph *made = standin_graph_new(1, graph->device);
    if (made == NULL) return HIP_OUT_OF_MEMORY;
    for (const standin_node *node = graph->first; node != NULL; node = node->next)
        if (standin_node_add(made, &node->launch, node) == NULL) {
            standin_graph_end(made);
            return HIP_OUT_OF_MEMORY;
        }
    *exec = made;
    return 0;
}

static int graph_launch(void *handle, void *stream_handle) {
    standin_graph *exec = graph_of(handle, 1);
    standin_stream *stream = standin_stream_of(stream_handle);
    if (exec == NULL) return HIP_INVALID_VALUE;
    if (stream == NULL) return HIP_CONTEXT_DESTROYED;
    if (stream->device != exec->device) return HIP_INVALID_HANDLE;
    int error = standin_default_use(stream);
    if (error != 0) return error;
    if (stream->capture == CAPTURE_INVALIDATED) return HIP_CAPTURE_INVALIDATED;
    if (stream->capture == CAPTURE_ACTIVE) { /* its nodes become the host's */
        for (const standin_node *node = exec->first; node != NULL; node = node->next)
            if (standin_node_add(stream->graph, &node->launch, NULL) == NULL) return HIP_OUT_OF_MEMORY;
        return 0;
    }
    exec->queued++;
    standin_queue(stream, OP_GRAPH)->exec = exec;
    standin_queued(stream);
    return 0;
}

static int set_params(void *handle, const void *node_handle, const mlar_hip_node_params *params) {
    standin_graph *exec = graph_of(handle, 1);
    if (exec == NULL || params == NULL) return HIP_INVALID_VALUE;
    if (exec->queued > 0) standin_violate("a graph was updated while a launch of it waited");
    for (standin_node *node = exec->first; node != NULL; node = node->next) {
        if (node->origin != node_handle) continue;
        if (node->origin->graph == NULL || !node->origin->graph->alive) return HIP_INVALID_VALUE;
        return standin_fill_launch(&node->launch, params->function, params->grid, params->block,
                                   params->lds_bytes, params->arguments, params->extra, exec->device);
    }
    return HIP_INVALID_VALUE;
}

static int graph_destroy(void *handle, int32_t executable) {
    standin_graph *graph = graph_of(handle, executable);
    if (graph == NULL) return HIP_INVALID_VALUE;
    standin_graph_end(graph);
    return 0;
}

HIP(hipGraphGetNodes, (void *graph, void **nodes, size_t *count), graph_nodes(graph, nodes, count))
HIP(hipGraphInstantiateWithFlags, (void **exec, void *graph, unsigned long long flags),
    instantiate(exec, graph, flags))
HIP(hipGraphLaunch, (void *exec, void *stream), graph_launch(exec, stream))
HIP(hipGraphExecKernelNodeSetParams, (void *exec, void *node, const void *params),
    set_params(exec, node, params))
HIP_RELEASE(hipGraphExecDestroy, (void *exec), graph_destroy(exec, 1))
HIP_RELEASE(hipGraphDestroy, (void *graph), graph_destroy(graph, 0))
#ifndef STANDIN_OLD
static int upload(void *exec, void *stream) {
    return graph_of(exec, 1) == NULL || standin_stream_of(stream) == NULL ? HIP_INVALID_VALUE : 0;
}

HIP(hipGraphUpload, (void *exec, void *stream), upload(exec, stream))
#endif
