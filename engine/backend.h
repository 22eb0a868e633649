/* SPDX-License-Identifier: Apache-2.0
 *
 * backend.h: what a back end provides. The engine decides what is launched, in which order, with which
 * arguments; a back end decides how: at once, recorded, or captured into a device graph. It knows no
 * bindings, budgets or plans beyond the layout it is given. Its state lives in the host block, state_bytes of
 * it, and it allocates nothing else of its own. */
#ifndef MLAR_ENGINE_BACKEND_H
#define MLAR_ENGINE_BACKEND_H

#include "arena/arena.h"
#include "arena/checked_size.h"
#include "engine/memory.h"

#include <mlarena/mlarena.h>

/* One kernel launch. Exactly one of the two argument blocks is set; both are copied before the call returns.
 */
typedef struct mlar_launch {
    enum mlar_stage_id id;
    int32_t kind; /* whose buffers are live; -1: only persistent ones */
    enum mlar_position at;
    const mlar_stage_args *args;
    const mlar_layer_params *layer;   /* the host's copy of what args refer to: which kernel serves it */
    const mlar_set_block_args *block; /* set_block */
} mlar_launch;

/* What a back end adds to mlar_stats. */
typedef struct mlar_backend_stats {
    uint64_t runtime_calls, pool_reserved_bytes, pool_used_bytes, pool_used_high_bytes;
    const char *name;    /* "cpu", "hip", "cuda" */
    const char *variant; /* of the kernels */
} mlar_backend_stats;

typedef struct mlar_backend {
    uint64_t (*state_bytes)(const mlar_dims *dims, mlar_checked *check);
    mlar_status (*init)(void *state, const mlar_layout *layout, mlar_arena_core *arena, mlar_device *device,
                        mlar_diag *diag);
    /* Everything is released whatever happens; the status is what the device said on the way. */
    mlar_status (*deinit)(void *state);
    /* MLAR_OK, or why nothing can run any more (FORKED, DEVICE_LOST). Cheap: every public call asks. */
    mlar_status (*ready)(void *state, mlar_diag *diag);
    /* MLAR_OK; MLAR_ERROR_CAPTURING while the host captures the stream; or why the device cannot say. */
    mlar_status (*idle)(void *state, void *stream, mlar_diag *diag);
    mlar_status (*launch)(void *state, const mlar_launch *launch, void *stream, mlar_diag *diag);
    /* Between begin and end, launches without a stream become the body of program `index` instead of running.
     */
    mlar_status (*capture_begin)(void *state, int32_t index, mlar_diag *diag);
    mlar_status (*capture_end)(void *state, int32_t index, int keep, mlar_diag *diag);
    /* Between these, the same launches in the same order give program `index` new arguments (route
     * node-params). The program must not be in flight. */
    mlar_status (*update_begin)(void *state, int32_t index);
    mlar_status (*update_end)(void *state, int32_t index);
    mlar_status (*replay)(void *state, int32_t index, void *stream, mlar_diag *diag);
    mlar_status (*release)(void *state, int32_t index, mlar_diag *diag);
    void *(*graph)(void *state, int32_t index);
    /* Setup and inspection only; they block until done. */
    mlar_status (*copy_in)(void *state, void *to, const void *from, uint64_t bytes, void *stream,
                           mlar_diag *diag);
    mlar_status (*copy_out)(void *state, void *to, const void *from, uint64_t bytes, void *stream,
                            mlar_diag *diag);
    /* `word` again and again; `to` and `bytes` are multiples of 4. */
    mlar_status (*fill)(void *state, void *to, uint32_t word, uint64_t bytes, void *stream, mlar_diag *diag);
    mlar_status (*stats)(void *state, mlar_backend_stats *stats);
} mlar_backend;

extern const mlar_backend mlar_backend_cpu;

/* The back end of a device kind, or null if this build lacks it. */
const mlar_backend *mlar_backend_of(int32_t device);

#endif
