/* SPDX-License-Identifier: Apache-2.0
 *
 * graph.c: capture, instantiate, upload, launch, update, destroy.
 *
 * What is deliberately not used: graph exec update (it leaks its arguments, rocm-systems #10713, and has
 * reported success over stale ones, #10714). */
#include "engine/gpu/graph.h"

#include <stddef.h>

mlar_status mlar_graph_begin(mlar_runtime *runtime, void *stream, mlar_diag *diag) {
    /* Thread-local: what the host's other threads allocate meanwhile is not our business. */
    return mlar_runtime_status(runtime, runtime->capture_begin(stream, MLAR_GPU_CAPTURE_THREAD_LOCAL),
                               "hipStreamBeginCapture", diag);
}

static mlar_status instantiate(mlar_runtime *runtime, void *stream, mlar_graph *graph, mlar_diag *diag) {
    size_t count = 0;
    mlar_status status = mlar_runtime_status(runtime, runtime->graph_nodes(graph->graph, NULL, &count),
                                             "hipGraphGetNodes", diag);
    if (status != MLAR_OK) return status;
    graph->node_count = (int32_t)count;
    status = mlar_runtime_status(runtime, runtime->graph_instantiate(&graph->exec, graph->graph, 0),
                                 "hipGraphInstantiateWithFlags", diag);
    if (status != MLAR_OK || runtime->graph_upload == NULL) return status;
    status = mlar_runtime_status(runtime, runtime->graph_upload(graph->exec, stream), "hipGraphUpload", diag);
    if (status != MLAR_OK) return status;
    return mlar_runtime_status(runtime, runtime->stream_synchronize(stream), "hipStreamSynchronize", diag);
}

mlar_status mlar_graph_end(mlar_runtime *runtime, void *stream, int keep, mlar_graph *graph,
                           mlar_diag *diag) {
    *graph = (mlar_graph){.updating = -1};
    mlar_status status = mlar_runtime_status(runtime, runtime->capture_end(stream, &graph->graph),
                                             "hipStreamEndCapture", diag);
    if (status == MLAR_OK && keep) status = instantiate(runtime, stream, graph, diag);
    if (status == MLAR_OK && keep) return MLAR_OK;
    (void)mlar_graph_destroy(runtime, graph, NULL);
    return status;
}

mlar_status mlar_graph_launch(mlar_runtime *runtime, const mlar_graph *graph, void *stream, mlar_diag *diag) {
    return mlar_runtime_status(runtime, runtime->graph_launch(graph->exec, stream), "hipGraphLaunch", diag);
}

mlar_status mlar_graph_nodes(mlar_runtime *runtime, const mlar_graph *graph, void **nodes, size_t count,
                             mlar_diag *diag) {
    return mlar_runtime_status(runtime, runtime->graph_nodes(graph->graph, nodes, &count), "hipGraphGetNodes",
                               diag);
}

mlar_status mlar_graph_set_node(mlar_runtime *runtime, const mlar_graph *graph, void *node,
                                const mlar_kernel_call *call, void **arguments, mlar_diag *diag) {
    mlar_hip_node_params hip = {.block = {call->block, 1, 1},
                                .function = call->function,
                                .grid = {call->grid, 1, 1},
                                .arguments = arguments,
                                .lds_bytes = call->lds_bytes};
    mlar_cuda_node_params cuda = {.function = call->function,
                                  .grid = {call->grid, 1, 1},
                                  .block = {call->block, 1, 1},
                                  .lds_bytes = call->lds_bytes,
                                  .arguments = arguments};
    const void *params =
        runtime->vendor->device == MLAR_DEVICE_HIP ? (const void *)&hip : (const void *)&cuda;
    return mlar_runtime_status(runtime, runtime->graph_node_params(graph->exec, node, params),
                               "hipGraphExecKernelNodeSetParams", diag);
}

mlar_status mlar_graph_destroy(mlar_runtime *runtime, mlar_graph *graph, mlar_diag *diag) {
    int error = MLAR_GPU_SUCCESS, graph_error = MLAR_GPU_SUCCESS;
    if (graph->exec != NULL) error = runtime->graph_exec_destroy(graph->exec);
    if (graph->graph != NULL) graph_error = runtime->graph_destroy(graph->graph);
    *graph = (mlar_graph){.updating = -1};
    return mlar_runtime_status(runtime, error != MLAR_GPU_SUCCESS ? error : graph_error, "hipGraphDestroy",
                               diag);
}
