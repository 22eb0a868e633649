/* SPDX-License-Identifier: Apache-2.0
 *
 * step.c: the steady phase besides replay: step, prepare, enqueue, invalidate. Launches only; nothing here
 * allocates, blocks or reads device data. */
#include "arena/fail.h"
#include "engine/bindings.h"
#include "engine/engine.h"
#include "engine/guarding.h"
#include "engine/program.h"
#include "engine/sequence.h"
#include "engine/structs.h"

#include <string.h>

static mlar_status read_step(const mlar_step *given, int32_t capacity_rows, mlar_step_params *step,
                             mlar_diag *diag) {
    mlar_step own;
    mlar_status status = MLAR_STRUCT_READ(&own, given);
    if (status != MLAR_OK)
        return mlar_fail(diag, status, "step.struct_size", given->struct_size, sizeof own,
                         "step.struct_size: %u given, this version knows %zu", given->struct_size,
                         sizeof own);
    if (own.rows_device != NULL && (uintptr_t)own.rows_device % 4 != 0)
        return mlar_fail(diag, MLAR_ERROR_BINDING, "rows_device", 0, 4,
                         "rows_device: must be a multiple of 4");
    if (own.rows_device == NULL && (own.rows < 0 || own.rows > capacity_rows))
        return mlar_fail(diag, MLAR_ERROR_CAPACITY, "rows", own.rows, capacity_rows,
                         "rows: %d given, must be 0..%d", (int)own.rows, (int)capacity_rows);
    *step =
        (mlar_step_params){.rows_device = own.rows_device, .rows = own.rows_device != NULL ? 0 : own.rows};
    return MLAR_OK;
}

static mlar_status write_step(mlar_engine *engine, void *stream, mlar_diag *diag) {
    mlar_status status = mlar_sequence_set_block(engine, mlar_engine_address(engine, MLAR_BUFFER_STEP, 0),
                                                 &engine->step, sizeof engine->step, stream, diag);
    engine->step_written = status == MLAR_OK;
    return status;
}

mlar_status mlar_step_begin(mlar_engine *engine, const mlar_step *given, void *stream, mlar_diag *diag) {
    mlar_status status = mlar_engine_idle(engine, stream, diag);
    if (status != MLAR_OK) return status;
    mlar_step_params step;
    if ((status = read_step(given, engine->layout.dims.config.max_rows, &step, diag)) != MLAR_OK)
        return status;
    if (!engine->step_written || memcmp(&step, &engine->step, sizeof step) != 0) {
        engine->step = step;
        engine->step_written = engine->layout.dims.config.update_route == MLAR_UPDATE_NODE_PARAMS;
        if (!engine->step_written && (status = write_step(engine, stream, diag)) != MLAR_OK) return status;
    }
    engine->step_serial++;
    engine->counts.steps++;
    return MLAR_OK;
}

mlar_status mlar_engine_step(mlar_engine *engine, const mlar_step *given, void *stream) {
    if (engine == NULL || given == NULL) return MLAR_ERROR_ARGUMENT;
    return mlar_step_begin(engine, given, stream, NULL);
}

mlar_status mlar_engine_prepare(mlar_engine *engine, int32_t kind, const mlar_bindings *bindings,
                                const mlar_step *given, void *stream, mlar_diag *diag) {
    if (engine == NULL || bindings == NULL)
        return mlar_fail_null(diag, engine == NULL ? "engine" : "bindings");
    mlar_status status = mlar_engine_usable(engine, diag);
    if (status != MLAR_OK) return status;
    int32_t max_rows = engine->layout.dims.config.max_rows;
    mlar_layer_params lists;
    status = mlar_lists_resolve(&engine->layout.dims, kind, bindings, &lists, diag);
    if (status != MLAR_OK) return status;
    mlar_step_params step;
    if (given != NULL && (status = read_step(given, max_rows, &step, diag)) != MLAR_OK) return status;
    if (!engine->layout.dims.balanced) return MLAR_OK;
    if (given == NULL && !engine->step_written)
        return mlar_fail(diag, MLAR_ERROR_STATE, "step", 0, 0, "step: none was begun with mlar_engine_step");
    if (given == NULL && engine->layout.dims.config.update_route == MLAR_UPDATE_NODE_PARAMS)
        step = engine->step;
    int by_block = given == NULL && engine->layout.dims.config.update_route == MLAR_UPDATE_STEP_BLOCK;
    mlar_carriers carriers = {.layer = &lists, .step = by_block ? NULL : &step};
    /* A schedule of which a part is another step's serves neither step. */
    engine->prepared[kind] = 0;
    engine->prepared_serial[kind] = 0;
    if ((status = mlar_sequence_prepare(engine, kind, &carriers, stream, diag)) != MLAR_OK) return status;
    /* A schedule made for an enqueue's own step is not the replays' step's. */
    engine->prepared_serial[kind] = given == NULL ? engine->step_serial : 0;
    engine->prepared_step[kind] = given == NULL ? engine->step : step;
    engine->prepared[kind] = 1;
    return MLAR_OK;
}

mlar_status mlar_step_enqueue(mlar_engine *engine, enum mlar_use use, int32_t kind,
                              const mlar_bindings *bindings, int32_t capacity_rows, const mlar_step *given,
                              void *stream, mlar_diag *diag) {
    if (engine == NULL || bindings == NULL || given == NULL)
        return mlar_fail_null(diag, engine == NULL ? "engine" : bindings == NULL ? "bindings" : "step");
    mlar_status status = mlar_engine_usable(engine, diag);
    if (status != MLAR_OK) return status;
    int32_t max_rows = engine->layout.dims.config.max_rows;
    if (capacity_rows < 1 || capacity_rows > max_rows)
        return mlar_fail(diag, MLAR_ERROR_CAPACITY, "capacity_rows", capacity_rows, max_rows,
                         "capacity_rows: %d given, must be 1..%d (max_rows)", (int)capacity_rows,
                         (int)max_rows);
    mlar_step_params step;
    mlar_layer_params layer;
    if ((status = read_step(given, capacity_rows, &step, diag)) != MLAR_OK) return status;
    status = mlar_engine_resolve(engine, use, kind, bindings, capacity_rows, &layer, diag);
    if (status != MLAR_OK) return status;
    if (engine->layout.dims.balanced &&
        (!engine->prepared[kind] || memcmp(&engine->prepared_step[kind], &step, sizeof step) != 0))
        return mlar_fail(diag, MLAR_ERROR_STATE, "prepare", engine->prepared_step[kind].rows, step.rows,
                         "prepare: policy balanced needs one for this step (%d rows) and kind first",
                         (int)step.rows);
    mlar_carriers carriers = {.layer = &layer, .step = &step};
    mlar_guarding_before(engine, kind);
    if ((status = mlar_sequence_issue(engine, kind, &carriers, capacity_rows, stream, diag)) != MLAR_OK)
        return status;
    engine->counts.enqueues++;
    return mlar_guarding_after(engine, kind);
}

mlar_status mlar_engine_enqueue(mlar_engine *engine, int32_t kind, const mlar_bindings *bindings,
                                int32_t capacity_rows, const mlar_step *step, void *stream, mlar_diag *diag) {
    return mlar_step_enqueue(engine, MLAR_USE_HOST, kind, bindings, capacity_rows, step, stream, diag);
}

mlar_status mlar_engine_invalidate(mlar_engine *engine, void *stream) {
    (void)stream;
    if (engine == NULL) return MLAR_ERROR_ARGUMENT;
    if (engine->backend == NULL) return MLAR_ERROR_STATE;
    engine->step_written = 0;
    for (int32_t i = 0; i < engine->layer_count; i++) engine->layers[i].written = 0;
    memset(engine->prepared_serial, 0, sizeof engine->prepared_serial);
    memset(engine->prepared, 0, sizeof engine->prepared);
    return MLAR_OK;
}
