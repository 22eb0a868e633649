/* SPDX-License-Identifier: Apache-2.0
 *
 * sequence.c: walks the table of stages and hands every launch to the back end. */
#include "engine/sequence.h"

#include "engine/stages.h"
#include "engine/traits.h"
#include "kernels/schedule.h"

#include <string.h>

static void fill_args(const mlar_engine *engine, int32_t kind, const mlar_carriers *carriers,
                      int32_t capacity_rows, mlar_stage_args *args) {
    const mlar_kind_dims *dims = &engine->layout.dims.kind[kind];
    memset(args, 0, sizeof *args);
    if (carriers->layer_block == NULL) args->layer = *carriers->layer;
    args->layer_block = carriers->layer_block;
    if (carriers->step != NULL) {
        args->rows = carriers->step->rows;
        args->rows_device = carriers->step->rows_device;
    } else {
        args->step_block = mlar_engine_address(engine, MLAR_BUFFER_STEP, kind);
    }
    args->shape = dims->shape;
    args->gathered[MLAR_SCOPE_WINDOW] = mlar_engine_address(engine, MLAR_BUFFER_GATHER_WINDOW, kind);
    args->gathered[MLAR_SCOPE_EXTRA] = mlar_engine_address(engine, MLAR_BUFFER_GATHER_EXTRA, kind);
    args->partial_out = mlar_engine_address(engine, MLAR_BUFFER_PARTIAL_OUT, kind);
    args->partial_ml = mlar_engine_address(engine, MLAR_BUFFER_PARTIAL_ML, kind);
    /* schedule: heads [row_tiles] | cuts [row_tiles][workers + 1] | rows [max_rows] */
    args->schedule = mlar_engine_address(engine, MLAR_BUFFER_SCHEDULE, kind);
    if (args->schedule != NULL) {
        args->cuts = (mlar_schedule_cut *)(args->schedule + dims->row_tiles);
        args->schedule_rows =
            (mlar_schedule_row *)(args->cuts + (int64_t)dims->row_tiles * (dims->shape.workers + 1));
    }
    args->invalid_indices = mlar_engine_address(engine, MLAR_BUFFER_COUNTERS, kind);
    args->thread_scratch = mlar_engine_address(engine, MLAR_BUFFER_THREAD_SCRATCH, kind);
    args->thread_scratch_bytes = engine->layout.dims.traits.thread_scratch_bytes;
    args->capacity_rows = capacity_rows;
}

/* Is the stage one of this row tile's sequence? combine is not, if attention merges by itself (`merged`). */
static int belongs(const mlar_engine *engine, int32_t kind, const mlar_stage *stage, int merged) {
    const mlar_dims *dims = &engine->layout.dims;
    return stage->at != MLAR_AT_PREPARE && stage->when(dims, &dims->kind[kind]) &&
           !(merged && stage->at == MLAR_AT_COMBINE);
}

static mlar_status launch_tile(mlar_engine *engine, int32_t kind, const mlar_stage *stage,
                               const mlar_layer_params *layer, mlar_stage_args *args, int32_t row_begin,
                               void *stream, mlar_diag *diag) {
    args->row_begin = row_begin;
    args->row_count = mlar_min_i32(args->shape.row_tile, args->capacity_rows - row_begin);
    mlar_launch launch = {.id = stage->id, .kind = kind, .at = stage->at, .args = args, .layer = layer};
    return mlar_engine_note(engine, engine->backend->launch(engine->backend_state, &launch, stream, diag));
}

mlar_status mlar_sequence_issue(mlar_engine *engine, int32_t kind, const mlar_carriers *carriers,
                                int32_t capacity_rows, void *stream, mlar_diag *diag) {
    mlar_stage_args args;
    fill_args(engine, kind, carriers, capacity_rows, &args);
    for (int32_t row = 0; row < capacity_rows; row += args.shape.row_tile)
        for (int32_t i = 0, merged = 0; i < mlar_stage_count; i++) {
            const mlar_stage *stage = &mlar_stages[i];
            if (!belongs(engine, kind, stage, merged)) continue;
            mlar_status status = launch_tile(engine, kind, stage, carriers->layer, &args, row, stream, diag);
            if (status != MLAR_OK) return status;
            if (stage->at == MLAR_AT_ATTEND)
                merged = mlar_traits_merges(&engine->layout.dims.config, (int32_t)stage->id, &args,
                                            carriers->layer);
        }
    return MLAR_OK;
}

mlar_status mlar_sequence_prepare(mlar_engine *engine, int32_t kind, const mlar_carriers *carriers,
                                  void *stream, mlar_diag *diag) {
    const mlar_dims *dims = &engine->layout.dims;
    mlar_stage_args args;
    fill_args(engine, kind, carriers, dims->config.max_rows, &args);
    for (int32_t i = 0; i < mlar_stage_count; i++) {
        const mlar_stage *stage = &mlar_stages[i];
        if (stage->at != MLAR_AT_PREPARE || !stage->when(dims, &dims->kind[kind])) continue;
        for (int32_t row = 0; row < args.capacity_rows; row += args.shape.row_tile) {
            mlar_status status = launch_tile(engine, kind, stage, carriers->layer, &args, row, stream, diag);
            if (status != MLAR_OK) return status;
        }
    }
    return MLAR_OK;
}

mlar_status mlar_sequence_set_block(mlar_engine *engine, void *to, const void *from, uint64_t bytes,
                                    void *stream, mlar_diag *diag) {
    mlar_set_block_args block = {.to = to, .bytes = bytes};
    memcpy(block.payload, from, (size_t)bytes);
    mlar_launch launch = {.id = MLAR_STAGE_SET_BLOCK, .kind = -1, .block = &block};
    engine->counts.set_blocks++;
    return mlar_engine_note(engine, engine->backend->launch(engine->backend_state, &launch, stream, diag));
}

int32_t mlar_sequence_nodes(const mlar_dims *dims, int32_t kind, int32_t capacity_rows) {
    const mlar_kind_dims *k = &dims->kind[kind];
    return mlar_ceil_div(capacity_rows, k->shape.row_tile) * mlar_stages_per_tile(dims, k);
}
