/* SPDX-License-Identifier: Apache-2.0
 *
 * graph.h: a captured device graph: the only code that touches a graph API. */
#ifndef MLAR_ENGINE_GPU_GRAPH_H
#define MLAR_ENGINE_GPU_GRAPH_H

#include "engine/gpu/modules.h"
#include "engine/gpu/runtime.h"

/* One program's graph. node_count counts kernels, in launch order. */
typedef struct mlar_graph {
    void *graph;
    void *exec;
    int32_t node_count;
    int32_t updating; /* next node to get new parameters, while an update is under way */
} mlar_graph;

/* Launches on `stream` between begin and end become the graph. On failure nothing is left. */
mlar_status mlar_graph_begin(mlar_runtime *runtime, void *stream, mlar_diag *diag);
/* keep = 0 discards what was captured. Instantiates and, where the runtime can, uploads. */
mlar_status mlar_graph_end(mlar_runtime *runtime, void *stream, int keep, mlar_graph *graph, mlar_diag *diag);
mlar_status mlar_graph_launch(mlar_runtime *runtime, const mlar_graph *graph, void *stream, mlar_diag *diag);
/* Gives node `index` another argument. Never while a launch of the graph is in flight (clr #138). `nodes` is
 * scratch for the graph's node handles, in launch order, filled by mlar_graph_nodes. */
mlar_status mlar_graph_set_node(mlar_runtime *runtime, const mlar_graph *graph, void *node,
                                const mlar_kernel_call *call, void **arguments, mlar_diag *diag);
mlar_status mlar_graph_nodes(mlar_runtime *runtime, const mlar_graph *graph, void **nodes, size_t count,
                             mlar_diag *diag);
mlar_status mlar_graph_destroy(mlar_runtime *runtime, mlar_graph *graph, mlar_diag *diag);

#endif
