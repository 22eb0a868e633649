/* SPDX-License-Identifier: Apache-2.0
 *
 * program.c: capture, rebind, replay, destroy.
 *
 * A program's launches point at layer blocks in the arena, so a replay carries nothing; rebinding a layer
 * rewrites its block in stream order. Layer slots are handed out one by one and chained, so programs may come
 * and go in any order. */
#include "arena/fail.h"
#include "engine/bindings.h"
#include "engine/engine.h"
#include "engine/guarding.h"
#include "engine/program.h"
#include "engine/sequence.h"
#include "engine/structs.h"

#include <string.h>

static mlar_program *free_program(mlar_engine *engine, int32_t first, int32_t end) {
    for (int32_t i = first; i < end; i++)
        if (!engine->programs[i].open) return &engine->programs[i];
    return NULL;
}

static int32_t index_of(const mlar_program *program) {
    return (int32_t)(program - program->engine->programs);
}

static void free_layers(mlar_program *program) {
    for (int32_t i = program->first_layer; i >= 0;) {
        mlar_layer_slot *slot = &program->engine->layers[i];
        i = slot->next;
        *slot = (mlar_layer_slot){.program = -1, .next = -1};
    }
    program->first_layer = -1;
}

/* Chains `count` free slots of [first, end) to the program, in order; 0 if there are too few. */
static int take_layers(mlar_program *program, int32_t count, int32_t first, int32_t end) {
    mlar_engine *engine = program->engine;
    int32_t taken = 0, last = -1;
    program->first_layer = -1;
    for (int32_t i = first; i < end && taken < count; i++) {
        if (engine->layers[i].program >= 0) continue;
        engine->layers[i] = (mlar_layer_slot){.program = index_of(program), .next = -1};
        if (last < 0)
            program->first_layer = i;
        else
            engine->layers[last].next = i;
        last = i;
        taken++;
    }
    if (taken == count) return 1;
    free_layers(program);
    return 0;
}

mlar_status mlar_engine_resolve(const mlar_engine *engine, enum mlar_use use, int32_t kind,
                                const mlar_bindings *bindings, int32_t capacity_rows,
                                mlar_layer_params *layer, mlar_diag *diag) {
    int host = use == MLAR_USE_HOST;
    return mlar_bindings_resolve(&engine->layout.dims, kind, bindings, capacity_rows,
                                 host ? engine->arena->base : NULL, host ? engine->arena->bytes : 0, layer,
                                 diag);
}

static mlar_status bind_layers(mlar_program *program, enum mlar_use use, const mlar_bindings *bindings,
                               mlar_diag *diag) {
    mlar_engine *engine = program->engine;
    /* The caller's array is spaced by the caller's sizeof, which a newer header may have grown. */
    const char *at = (const char *)bindings;
    for (int32_t i = program->first_layer; i >= 0; i = engine->layers[i].next, at += bindings->struct_size) {
        mlar_layer_slot *slot = &engine->layers[i];
        const uint32_t size = mlar_struct_size(at);
        if (size != bindings->struct_size)
            return mlar_fail(diag, MLAR_ERROR_STRUCT_SIZE, "bindings.struct_size", size,
                             bindings->struct_size, "bindings.struct_size: %u given, the first layer has %u",
                             size, bindings->struct_size);
        mlar_status status =
            mlar_engine_resolve(engine, use, program->kind, (const mlar_bindings *)(const void *)at,
                                program->capacity_rows, &slot->bound, diag);
        if (status != MLAR_OK) return status;
    }
    return MLAR_OK;
}

/* Setup: the blocks are there before the first replay, whatever its stream. */
static mlar_status write_layers(mlar_program *program, mlar_diag *diag) {
    mlar_engine *engine = program->engine;
    for (int32_t i = program->first_layer; i >= 0; i = engine->layers[i].next) {
        mlar_layer_slot *slot = &engine->layers[i];
        mlar_status status = engine->backend->copy_in(engine->backend_state, mlar_layer_block(engine, i),
                                                      &slot->bound, sizeof slot->bound, NULL, diag);
        if (status != MLAR_OK) return mlar_engine_note(engine, status);
        slot->written = 1;
    }
    return MLAR_OK;
}

/* Everything a program launches. By route step-block its arguments never change; by route node-params they
 * carry the bindings and the step, and are issued again to change them. */
static mlar_status issue_layers(mlar_program *program, mlar_diag *diag) {
    mlar_engine *engine = program->engine;
    int by_block = engine->layout.dims.config.update_route == MLAR_UPDATE_STEP_BLOCK;
    program->step = engine->step;
    mlar_status status = MLAR_OK;
    for (int32_t i = program->first_layer; i >= 0 && status == MLAR_OK; i = engine->layers[i].next) {
        mlar_carriers carriers = {.layer = &engine->layers[i].bound,
                                  .layer_block = by_block ? mlar_layer_block(engine, i) : NULL,
                                  .step = by_block ? NULL : &program->step};
        status = mlar_sequence_issue(engine, program->kind, &carriers, program->capacity_rows, NULL, diag);
    }
    return status;
}

static mlar_status record(mlar_program *program, mlar_diag *diag) {
    mlar_engine *engine = program->engine;
    int32_t index = index_of(program);
    mlar_status status = engine->backend->capture_begin(engine->backend_state, index, diag);
    if (status != MLAR_OK) return mlar_engine_note(engine, status);
    status = issue_layers(program, diag);
    mlar_status ended = engine->backend->capture_end(engine->backend_state, index, status == MLAR_OK,
                                                     status == MLAR_OK ? diag : NULL);
    return mlar_engine_note(engine, status == MLAR_OK ? ended : status);
}

mlar_status mlar_program_capture(mlar_engine *engine, enum mlar_use use, int32_t kind,
                                 const mlar_bindings *bindings, int32_t layer_count, int32_t capacity_rows,
                                 mlar_program **result, mlar_diag *diag) {
    const mlar_dims *dims = &engine->layout.dims;
    int32_t programs_end = dims->config.max_programs, layers_end = dims->config.max_layers;
    int32_t programs_first = 0, layers_first = 0;
    if (use == MLAR_USE_SELFTEST) {
        programs_first = programs_end, layers_first = layers_end;
        programs_end = engine->program_count, layers_end = engine->layer_count;
    }
    mlar_program *program = free_program(engine, programs_first, programs_end);
    if (program == NULL)
        return mlar_fail(diag, MLAR_ERROR_LIMIT, "max_programs", programs_end + 1, programs_end,
                         "max_programs: all %d are open", (int)programs_end);
    *program = (mlar_program){.engine = engine,
                              .fingerprint = engine->layout.fingerprint,
                              .kind = kind,
                              .capacity_rows = capacity_rows,
                              .layer_count = layer_count,
                              .first_layer = -1};
    if (!take_layers(program, layer_count, layers_first, layers_end))
        return mlar_fail(diag, MLAR_ERROR_LIMIT, "max_layers", layer_count, layers_end,
                         "max_layers: fewer than %d of %d are free", (int)layer_count, (int)layers_end);
    mlar_status status = bind_layers(program, use, bindings, diag);
    if (status == MLAR_OK) status = write_layers(program, diag);
    if (status == MLAR_OK) status = record(program, diag);
    if (status != MLAR_OK) {
        free_layers(program);
        return status;
    }
    program->open = 1;
    *result = program;
    return MLAR_OK;
}

mlar_status mlar_engine_capture(mlar_engine *engine, int32_t kind, const mlar_bindings *bindings,
                                int32_t layer_count, int32_t capacity_rows, mlar_program **program,
                                mlar_diag *diag) {
    if (engine == NULL || bindings == NULL || program == NULL)
        return mlar_fail_null(diag, engine == NULL ? "engine" : bindings == NULL ? "bindings" : "program");
    *program = NULL;
    mlar_status status = mlar_engine_idle(engine, NULL, diag);
    if (status != MLAR_OK) return status;
    const mlar_dims *dims = &engine->layout.dims;
    if (kind < 0 || kind >= dims->config.kind_count)
        return mlar_fail(diag, MLAR_ERROR_ARGUMENT, "kind", kind, dims->config.kind_count - 1,
                         "kind: %d given, the configuration has 0..%d", (int)kind,
                         (int)dims->config.kind_count - 1);
    if (layer_count < 1)
        return mlar_fail(diag, MLAR_ERROR_ARGUMENT, "layer_count", layer_count, 1,
                         "layer_count: %d given, at least 1", (int)layer_count);
    if (capacity_rows < 1 || capacity_rows > dims->config.max_rows)
        return mlar_fail(diag, MLAR_ERROR_CAPACITY, "capacity_rows", capacity_rows, dims->config.max_rows,
                         "capacity_rows: %d given, must be 1..%d (max_rows)", (int)capacity_rows,
                         (int)dims->config.max_rows);
    int64_t nodes = (int64_t)layer_count * mlar_sequence_nodes(dims, kind, capacity_rows);
    if (nodes > dims->config.max_nodes)
        return mlar_fail(diag, MLAR_ERROR_LIMIT, "max_nodes", nodes, dims->config.max_nodes,
                         "max_nodes: %d layers need %lld kernels, the limit is %d", (int)layer_count,
                         (long long)nodes, (int)dims->config.max_nodes);
    return mlar_program_capture(engine, MLAR_USE_HOST, kind, bindings, layer_count, capacity_rows, program,
                                diag);
}

static mlar_status open_program(const mlar_program *program, mlar_diag *diag) {
    mlar_status status = MLAR_OK;
    if (program == NULL)
        status = MLAR_ERROR_ARGUMENT;
    else if (program->engine == NULL || !program->open)
        status = MLAR_ERROR_STATE;
    if (status == MLAR_OK) return mlar_engine_usable(program->engine, diag);
    return mlar_fail(diag, status, "program", 0, 0, "program: %s", mlar_status_string(status));
}

/* Layers whose block is not what it should be: rebound, or forgotten by an invalidate. */
static mlar_status write_changes(mlar_program *program, void *stream, mlar_diag *diag) {
    mlar_engine *engine = program->engine;
    for (int32_t i = program->first_layer; i >= 0; i = engine->layers[i].next) {
        mlar_layer_slot *slot = &engine->layers[i];
        if (slot->written) continue;
        mlar_status status = mlar_sequence_set_block(engine, mlar_layer_block(engine, i), &slot->bound,
                                                     sizeof slot->bound, stream, diag);
        if (status != MLAR_OK) return status;
        slot->written = 1;
    }
    return MLAR_OK;
}

/* Route node-params: new arguments if the step or a layer has changed. */
static mlar_status update_nodes(mlar_program *program, mlar_diag *diag) {
    mlar_engine *engine = program->engine;
    int changed = memcmp(&program->step, &engine->step, sizeof engine->step) != 0;
    for (int32_t i = program->first_layer; i >= 0; i = engine->layers[i].next)
        changed |= !engine->layers[i].written;
    if (!changed) return MLAR_OK;
    mlar_status status = engine->backend->update_begin(engine->backend_state, index_of(program));
    if (status == MLAR_OK) status = issue_layers(program, diag);
    mlar_status ended = engine->backend->update_end(engine->backend_state, index_of(program));
    if (status == MLAR_OK) status = ended;
    /* Half an update is none: the next replay starts again. */
    for (int32_t i = program->first_layer; i >= 0; i = engine->layers[i].next)
        engine->layers[i].written = status == MLAR_OK;
    return mlar_engine_note(engine, status);
}

mlar_status mlar_program_rebind(mlar_program *program, int32_t layer, const mlar_bindings *bindings,
                                void *stream, mlar_diag *diag) {
    mlar_status status = open_program(program, diag);
    if (status == MLAR_OK) status = mlar_engine_idle(program->engine, stream, diag);
    if (status != MLAR_OK) return status;
    if (layer < 0 || layer >= program->layer_count)
        return mlar_fail(diag, MLAR_ERROR_ARGUMENT, "layer", layer, program->layer_count - 1,
                         "layer: %d given, the program has 0..%d", (int)layer, (int)program->layer_count - 1);
    mlar_engine *engine = program->engine;
    int32_t index = program->first_layer;
    while (layer-- > 0) index = engine->layers[index].next;
    mlar_layer_slot *slot = &engine->layers[index];
    mlar_layer_params bound;
    status = mlar_engine_resolve(engine, MLAR_USE_HOST, program->kind, bindings, program->capacity_rows,
                                 &bound, diag);
    if (status == MLAR_OK) status = mlar_bindings_same_shape(&slot->bound, &bound, diag);
    if (status != MLAR_OK) return status;
    /* alignment beyond what was captured is not made use of: another kernel may have other stages behind it */
    for (int s = 0; s < bound.scope_count; s++) bound.scope[s].wide = slot->bound.scope[s].wide;
    if (slot->written && memcmp(&slot->bound, &bound, sizeof bound) == 0) return MLAR_OK;
    const mlar_layer_params before = slot->bound;
    slot->bound = bound;
    slot->written = 0;
    if (engine->layout.dims.config.update_route != MLAR_UPDATE_STEP_BLOCK) return MLAR_OK;
    status = write_changes(program, stream, diag);
    /* a failed one was never asked for: the next replay writes what was there */
    if (status != MLAR_OK) slot->bound = before, slot->written = 0;
    return status;
}

mlar_status mlar_program_run(mlar_program *program, void *stream, mlar_diag *diag) {
    mlar_status status = open_program(program, diag);
    if (status != MLAR_OK) return status;
    mlar_engine *engine = program->engine;
    if (program->fingerprint != engine->layout.fingerprint) return MLAR_ERROR_FINGERPRINT;
    if (engine->step_serial == 0 || !engine->step_written) return MLAR_ERROR_STATE;
    if (engine->step.rows_device == NULL && engine->step.rows > program->capacity_rows)
        return MLAR_ERROR_CAPACITY;
    if (engine->layout.dims.balanced && engine->prepared_serial[program->kind] != engine->step_serial)
        return MLAR_ERROR_STATE;
    status = engine->layout.dims.config.update_route == MLAR_UPDATE_STEP_BLOCK
                 ? write_changes(program, stream, diag)
                 : update_nodes(program, diag);
    if (status != MLAR_OK) return status;
    mlar_guarding_before(engine, program->kind);
    status = mlar_engine_note(
        engine, engine->backend->replay(engine->backend_state, index_of(program), stream, diag));
    if (status != MLAR_OK) return status;
    engine->counts.replays++;
    return mlar_guarding_after(engine, program->kind);
}

mlar_status mlar_program_replay(mlar_program *program, void *stream) {
    return mlar_program_run(program, stream, NULL);
}

void *mlar_program_graph(const mlar_program *program) {
    if (program == NULL || !program->open) return NULL;
    return program->engine->backend->graph(program->engine->backend_state, index_of(program));
}

mlar_status mlar_program_end(mlar_program *program, mlar_diag *diag) {
    mlar_engine *engine = program->engine;
    mlar_status status = engine->backend->release(engine->backend_state, index_of(program), diag);
    free_layers(program);
    program->open = 0;
    return status;
}

mlar_status mlar_program_destroy(mlar_program *program) {
    if (program == NULL) return MLAR_ERROR_ARGUMENT;
    if (program->engine == NULL || !program->open) return MLAR_ERROR_STATE;
    return mlar_program_end(program, NULL);
}
