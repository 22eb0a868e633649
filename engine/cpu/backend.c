/* SPDX-License-Identifier: Apache-2.0
 *
 * backend.c: the CPU back end. Launches run at once on the pool; between capture_begin and capture_end they
 * are recorded, and a replay runs the recorded list.
 *
 *     state | programs [max_programs + self-test] | recorded launches [layers x launches of a layer at most]
 *
 * Recorded launches are handed out one by one and chained, as programs come and go. */
#define _POSIX_C_SOURCE 200809L

#include "engine/backend.h"

#include "arena/fail.h"
#include "arena/guard.h"
#include "engine/cpu/float_mode.h"
#include "engine/cpu/threads.h"
#include "engine/sequence.h"
#include "kernels/cpu/kernels.h"
#include "kernels/schedule.h"

#include <string.h>
#include <unistd.h>

typedef struct mlar_recorded {
    mlar_stage_args args;
    enum mlar_stage_id id;
    int32_t kind;
    enum mlar_position at;
    int32_t next; /* of the same program, or of the free list; -1: last */
} mlar_recorded;

typedef struct mlar_cpu_program {
    int32_t first, last; /* -1: nothing recorded */
} mlar_cpu_program;

typedef struct mlar_cpu_state {
    mlar_arena_core *arena;
    const mlar_cpu_kernels *kernels;
    mlar_threads threads;
    mlar_cpu_program *programs;
    mlar_recorded *recorded;
    int32_t free;      /* first recorded launch that nobody uses */
    int32_t recording; /* program under capture, -1: none */
    int32_t updating;  /* next recorded launch to get new arguments, -1: no update is under way */
    pid_t owner;       /* workers exist in this process only */
    int32_t has_workers;
} mlar_cpu_state;

static int32_t recorded_count(const mlar_dims *dims) {
    int32_t most = 0;
    for (int32_t k = 0; k < dims->config.kind_count; k++)
        most = mlar_max_i32(most, mlar_sequence_nodes(dims, k, dims->config.max_rows));
    return mlar_layer_slots(dims) * most;
}

static uint64_t programs_offset(void) {
    return (sizeof(mlar_cpu_state) + 63) / 64 * 64;
}

static uint64_t recorded_offset(const mlar_dims *dims) {
    return programs_offset() + ((uint64_t)mlar_program_slots(dims) * sizeof(mlar_cpu_program) + 63) / 64 * 64;
}

static uint64_t cpu_state_bytes(const mlar_dims *dims, mlar_checked *check) {
    return mlar_checked_add(check, recorded_offset(dims),
                            mlar_checked_mul(check, (uint64_t)recorded_count(dims), sizeof(mlar_recorded)));
}

static mlar_status cpu_init(void *opaque, const mlar_layout *layout, mlar_arena_core *arena,
                            mlar_device *device, mlar_diag *diag) {
    (void)device;
    mlar_cpu_state *state = opaque;
    const mlar_config *config = &layout->dims.config;
    *state = (mlar_cpu_state){.arena = arena, .recording = -1, .updating = -1, .owner = getpid()};
    if (!arena->source.host_visible)
        return mlar_fail(diag, MLAR_ERROR_MEMORY_KIND, "arena", 0, 0,
                         "arena: the CPU needs memory the host can read");
    state->kernels = mlar_cpu_select(config->cpu_isa[0] != 0 ? config->cpu_isa : NULL);
    if (state->kernels == NULL)
        return mlar_fail(diag, MLAR_ERROR_UNSUPPORTED, "cpu_isa", 0, 0,
                         "cpu_isa: '%s' is unknown, not in this build, or not offered by this processor",
                         config->cpu_isa);
    state->programs = (mlar_cpu_program *)(void *)((char *)opaque + programs_offset());
    for (int32_t i = 0; i < mlar_program_slots(&layout->dims); i++)
        state->programs[i] = (mlar_cpu_program){-1, -1};
    state->recorded = (mlar_recorded *)(void *)((char *)opaque + recorded_offset(&layout->dims));
    int32_t count = recorded_count(&layout->dims);
    for (int32_t i = 0; i < count; i++) state->recorded[i].next = i + 1 < count ? i + 1 : -1;
    state->free = count > 0 ? 0 : -1;
    mlar_status status =
        mlar_threads_start(&state->threads, config->threads, config->parallel, config->parallel_context);
    if (status != MLAR_OK)
        return mlar_fail(diag, status, "threads", config->threads, 0,
                         "threads: %d workers could not be started", (int)config->threads);
    state->has_workers = config->parallel == NULL && config->threads > 1;
    return MLAR_OK;
}

static int forked(const mlar_cpu_state *state) {
    return state->has_workers && state->owner != getpid();
}

static mlar_status cpu_deinit(void *opaque) {
    mlar_cpu_state *state = opaque;
    mlar_arena_enter_stage(state->arena, MLAR_STAGE_BETWEEN);
    if (!forked(state)) mlar_threads_stop(&state->threads); /* a child has no workers to stop */
    return MLAR_OK;
}

static mlar_status cpu_ready(void *opaque, mlar_diag *diag) {
    if (!forked(opaque)) return MLAR_OK;
    return mlar_fail(diag, MLAR_ERROR_FORKED, "engine", 0, 0, "engine: %s",
                     mlar_status_string(MLAR_ERROR_FORKED));
}

static mlar_status cpu_idle(void *opaque, void *stream, mlar_diag *diag) {
    (void)opaque, (void)stream, (void)diag;
    return MLAR_OK;
}

/* ---- running ---- */

typedef struct mlar_cpu_job {
    const mlar_cpu_kernels *kernels;
    const mlar_stage_args *args;
    int32_t id;
} mlar_cpu_job;

static void run_item(void *arg, int64_t item, int32_t worker) {
    const mlar_cpu_job *job = arg;
    char *scratch = (char *)job->args->thread_scratch + (uint64_t)worker * job->args->thread_scratch_bytes;
    mlar_float_mode mode = mlar_float_mode_enter();
    mlar_cpu_run(job->kernels, job->id, job->args, item, scratch);
    mlar_float_mode_leave(mode);
}

static void run_stage(mlar_cpu_state *state, enum mlar_stage_id id, int32_t kind, enum mlar_position at,
                      const mlar_stage_args *args) {
    mlar_arena_enter_stage(state->arena, kind * MLAR_POSITION_COUNT + (int32_t)at);
    mlar_cpu_job job = {state->kernels, args, (int32_t)id};
    mlar_threads_run(&state->threads, mlar_cpu_items((int32_t)id, args), run_item, &job);
}

static mlar_status record(mlar_cpu_state *state, const mlar_launch *launch, mlar_diag *diag) {
    int32_t index = state->free;
    if (index < 0)
        return mlar_fail(diag, MLAR_ERROR_LIMIT, "max_layers", 0, 0,
                         "max_layers: no launch is left to record in");
    mlar_recorded *recorded = &state->recorded[index];
    state->free = recorded->next;
    recorded->args = *launch->args;
    recorded->id = launch->id;
    recorded->kind = launch->kind;
    recorded->at = launch->at;
    recorded->next = -1;
    mlar_cpu_program *program = &state->programs[state->recording];
    if (program->last < 0)
        program->first = index;
    else
        state->recorded[program->last].next = index;
    program->last = index;
    return MLAR_OK;
}

static mlar_status cpu_launch(void *opaque, const mlar_launch *launch, void *stream, mlar_diag *diag) {
    (void)stream;
    mlar_cpu_state *state = opaque;
    if (state->recording >= 0) return record(state, launch, diag);
    if (state->updating >= 0) {
        mlar_recorded *recorded = &state->recorded[state->updating];
        recorded->args = *launch->args;
        state->updating = recorded->next;
        return MLAR_OK;
    }
    if (launch->block != NULL) {
        mlar_cpu_set_block(launch->block);
        return MLAR_OK;
    }
    run_stage(state, launch->id, launch->kind, launch->at, launch->args);
    return MLAR_OK;
}

/* ---- programs ---- */

static mlar_status cpu_release(void *opaque, int32_t index, mlar_diag *diag) {
    (void)diag;
    mlar_cpu_state *state = opaque;
    mlar_cpu_program *program = &state->programs[index];
    if (program->last >= 0) {
        state->recorded[program->last].next = state->free;
        state->free = program->first;
    }
    *program = (mlar_cpu_program){-1, -1};
    return MLAR_OK;
}

static mlar_status cpu_capture_begin(void *opaque, int32_t index, mlar_diag *diag) {
    (void)diag;
    ((mlar_cpu_state *)opaque)->recording = index;
    return MLAR_OK;
}

static mlar_status cpu_capture_end(void *opaque, int32_t index, int keep, mlar_diag *diag) {
    (void)diag;
    ((mlar_cpu_state *)opaque)->recording = -1;
    return keep ? MLAR_OK : cpu_release(opaque, index, NULL);
}

static mlar_status cpu_update_begin(void *opaque, int32_t index) {
    mlar_cpu_state *state = opaque;
    state->updating = state->programs[index].first;
    return MLAR_OK;
}

static mlar_status cpu_update_end(void *opaque, int32_t index) {
    (void)index;
    ((mlar_cpu_state *)opaque)->updating = -1;
    return MLAR_OK;
}

static mlar_status cpu_replay(void *opaque, int32_t index, void *stream, mlar_diag *diag) {
    (void)stream, (void)diag;
    mlar_cpu_state *state = opaque;
    for (int32_t i = state->programs[index].first; i >= 0; i = state->recorded[i].next) {
        const mlar_recorded *recorded = &state->recorded[i];
        run_stage(state, recorded->id, recorded->kind, recorded->at, &recorded->args);
    }
    return MLAR_OK;
}

static void *cpu_graph(void *opaque, int32_t index) {
    (void)opaque, (void)index;
    return NULL;
}

/* ---- copies: the arena is host memory ---- */

static mlar_status cpu_copy(void *opaque, void *to, const void *from, uint64_t bytes, void *stream,
                            mlar_diag *diag) {
    (void)opaque, (void)stream, (void)diag;
    memcpy(to, from, (size_t)bytes);
    return MLAR_OK;
}

static mlar_status cpu_fill(void *opaque, void *to, uint32_t word, uint64_t bytes, void *stream,
                            mlar_diag *diag) {
    (void)opaque, (void)stream, (void)diag;
    mlar_poison_fill(to, bytes, word);
    return MLAR_OK;
}

static mlar_status cpu_stats(void *opaque, mlar_backend_stats *stats) {
    stats->name = "cpu";
    stats->variant = ((mlar_cpu_state *)opaque)->kernels->isa;
    return MLAR_OK;
}

const mlar_backend mlar_backend_cpu = {
    .state_bytes = cpu_state_bytes,
    .init = cpu_init,
    .deinit = cpu_deinit,
    .ready = cpu_ready,
    .idle = cpu_idle,
    .launch = cpu_launch,
    .capture_begin = cpu_capture_begin,
    .capture_end = cpu_capture_end,
    .update_begin = cpu_update_begin,
    .update_end = cpu_update_end,
    .replay = cpu_replay,
    .release = cpu_release,
    .graph = cpu_graph,
    .copy_in = cpu_copy,
    .copy_out = cpu_copy,
    .fill = cpu_fill,
    .stats = cpu_stats,
};
