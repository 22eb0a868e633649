/* SPDX-License-Identifier: Apache-2.0
 *
 * inspect.c: what a host can ask of an engine between steps. May block; refused while a stream is captured.
 */
#include "arena/fail.h"
#include "engine/engine.h"
#include "engine/guarding.h"
#include "engine/program.h"
#include "engine/structs.h"

#include <stdio.h>
#include <string.h>

/* Element types in the plan's order. */
static void plan_elements(const mlar_engine *engine, mlar_element elements[MLAR_PLAN_MAX_REQUESTS]) {
    for (int id = 0; id < MLAR_BUFFER_COUNT; id++)
        for (int k = 0; k < MLAR_KINDS_MAX; k++)
            if (engine->layout.index[id][k] >= 0)
                elements[engine->layout.index[id][k]] = mlar_buffers[id].element;
}

static uint64_t high_water(mlar_engine *engine) {
    if (!engine->poisoned || !engine->arena->source.host_visible) return 0;
    mlar_element elements[MLAR_PLAN_MAX_REQUESTS];
    plan_elements(engine, elements);
    return mlar_arena_high_water(engine->arena, elements, engine->poison_seed);
}

mlar_status mlar_engine_stats(mlar_engine *engine, void *stream, mlar_stats *given) {
    if (engine == NULL || given == NULL) return MLAR_ERROR_ARGUMENT;
    mlar_status status = mlar_engine_idle(engine, stream, NULL);
    if (status != MLAR_OK) return status;
    mlar_backend_stats backend = {0};
    status = engine->backend->stats(engine->backend_state, &backend);
    if (status != MLAR_OK) return mlar_engine_note(engine, status);
    mlar_stats stats = {.struct_size = sizeof stats,
                        .host_bytes = engine->host_bytes,
                        .device_bytes = engine->layout.plan.total_bytes,
                        .high_water_bytes = high_water(engine),
                        .steps = engine->counts.steps,
                        .replays = engine->counts.replays,
                        .enqueues = engine->counts.enqueues,
                        .set_blocks = engine->counts.set_blocks,
                        .runtime_calls = backend.runtime_calls,
                        .pool_reserved_bytes = backend.pool_reserved_bytes,
                        .pool_used_bytes = backend.pool_used_bytes,
                        .pool_used_high_bytes = backend.pool_used_high_bytes};
    for (int32_t i = 0; i < engine->program_count; i++) stats.programs += engine->programs[i].open != 0;
    snprintf(stats.backend, sizeof stats.backend, "%s", backend.name);
    snprintf(stats.variant, sizeof stats.variant, "%s", backend.variant != NULL ? backend.variant : "");
    status = engine->backend->copy_out(engine->backend_state, &stats.invalid_indices,
                                       mlar_engine_address(engine, MLAR_BUFFER_COUNTERS, 0),
                                       sizeof stats.invalid_indices, stream, NULL);
    if (status != MLAR_OK) return mlar_engine_note(engine, status);
    return MLAR_STRUCT_WRITE(given, &stats);
}

mlar_status mlar_engine_reset_counters(mlar_engine *engine, void *stream) {
    if (engine == NULL) return MLAR_ERROR_ARGUMENT;
    mlar_status status = mlar_engine_idle(engine, stream, NULL);
    if (status != MLAR_OK) return status;
    return mlar_engine_note(engine,
                            engine->backend->fill(engine->backend_state,
                                                  mlar_engine_address(engine, MLAR_BUFFER_COUNTERS, 0), 0,
                                                  MLAR_SMALL_BLOCK_BYTES, stream, NULL));
}

static mlar_status poison_device(mlar_engine *engine, const mlar_element *elements, uint32_t seed,
                                 void *stream, mlar_diag *diag) {
    mlar_poison_segment segments[MLAR_POISON_MAX_SEGMENTS];
    int32_t count = mlar_poison_segments(&engine->layout.plan, segments);
    for (int32_t i = 0; i < count; i++) {
        mlar_status status = engine->backend->fill(
            engine->backend_state, engine->arena->base + segments[i].offset,
            mlar_poison_word(elements[segments[i].index], seed), segments[i].bytes, stream, diag);
        if (status != MLAR_OK) return mlar_engine_note(engine, status);
    }
    return MLAR_OK;
}

mlar_status mlar_scratch_poison(mlar_engine *engine, uint32_t seed, void *stream, mlar_diag *diag) {
    mlar_status status = mlar_engine_idle(engine, stream, diag);
    if (status != MLAR_OK) return status;
    mlar_element elements[MLAR_PLAN_MAX_REQUESTS];
    plan_elements(engine, elements);
    engine->poisoned = 1;
    engine->poison_seed = seed;
    if (!engine->arena->source.host_visible) return poison_device(engine, elements, seed, stream, diag);
    mlar_arena_poison(engine->arena, elements, seed);
    return MLAR_OK;
}

mlar_status mlar_engine_poison_scratch(mlar_engine *engine, uint32_t seed, void *stream) {
    return engine == NULL ? MLAR_ERROR_ARGUMENT : mlar_scratch_poison(engine, seed, stream, NULL);
}

mlar_status mlar_engine_check_guards(mlar_engine *engine, void *stream, mlar_diag *diag) {
    if (engine == NULL) return mlar_fail_null(diag, "engine");
    mlar_status status = mlar_engine_idle(engine, stream, diag);
    if (status != MLAR_OK) return status;
    return mlar_engine_note(engine, mlar_guarding_check(engine, stream, diag));
}

mlar_status mlar_engine_buffer(mlar_engine *engine, int32_t kind, const char *name, void **address,
                               uint64_t *bytes) {
    if (engine == NULL || name == NULL || address == NULL || bytes == NULL) return MLAR_ERROR_ARGUMENT;
    if (engine->backend == NULL) return MLAR_ERROR_STATE;
    if (kind < -1 || kind >= engine->layout.dims.config.kind_count) return MLAR_ERROR_ARGUMENT;
    for (int id = 0; id < MLAR_BUFFER_COUNT; id++) {
        if (strcmp(mlar_buffers[id].name, name) != 0) continue;
        if ((mlar_buffers[id].class == MLAR_CLASS_ENGINE) != (kind == -1)) return MLAR_ERROR_ARGUMENT;
        int32_t index = engine->layout.index[id][kind < 0 ? 0 : kind];
        *address = mlar_arena_inspect(engine->arena, index); /* NULL if not planned: the index is -1 */
        *bytes = index < 0 ? 0 : engine->layout.plan.requests[index].bytes;
        return MLAR_OK;
    }
    return MLAR_ERROR_ARGUMENT;
}
