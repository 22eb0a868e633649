/* SPDX-License-Identifier: Apache-2.0
 *
 * engine.c: lifecycle: lay the engine out in the host block, take the arena, start the back end; and the way
 * back. */
#include "engine/engine.h"

#include "arena/fail.h"
#include "engine/arena_api.h"
#include "engine/guarding.h"
#include "engine/structs.h"

#include <string.h>

/* The host block, part by part. Used with engine = NULL to count bytes and with a base to set pointers. */
static uint64_t lay_out(mlar_engine *engine, const mlar_backend *backend, const mlar_dims *dims,
                        mlar_checked *check) {
    uint64_t programs = (uint64_t)mlar_program_slots(dims), layers = (uint64_t)mlar_layer_slots(dims);
    struct {
        uint64_t bytes, offset;
    } parts[] = {{sizeof(mlar_engine), 0},
                 {mlar_checked_mul(check, programs, sizeof(mlar_program)), 0},
                 {mlar_checked_mul(check, layers, sizeof(mlar_layer_slot)), 0},
                 {backend->state_bytes(dims, check), 0}};
    uint64_t end = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        parts[i].offset = end;
        end = mlar_checked_align_up(check, mlar_checked_add(check, end, parts[i].bytes), MLAR_HOST_ALIGN);
    }
    if (engine != NULL) {
        char *base = (char *)engine;
        engine->programs = (mlar_program *)(void *)(base + parts[1].offset);
        engine->layers = (mlar_layer_slot *)(void *)(base + parts[2].offset);
        engine->backend_state = base + parts[3].offset;
        engine->program_count = (int32_t)programs;
        engine->layer_count = (int32_t)layers;
    }
    return end;
}

uint64_t mlar_engine_host_bytes(const mlar_dims *dims, mlar_checked *check) {
    return lay_out(NULL, mlar_backend_of(dims->config.device.device), dims, check);
}

void *mlar_engine_address(const mlar_engine *engine, enum mlar_buffer_id id, int32_t kind) {
    int32_t index = engine->layout.index[id][mlar_buffers[id].class == MLAR_CLASS_ENGINE ? 0 : kind];
    return index < 0 ? NULL : mlar_arena_pointer(engine->arena, index);
}

mlar_layer_params *mlar_layer_block(const mlar_engine *engine, int32_t layer) {
    char *blocks = mlar_engine_address(engine, MLAR_BUFFER_LAYERS, 0);
    return (mlar_layer_params *)(void *)(blocks + (int64_t)layer * MLAR_LAYER_BLOCK_BYTES);
}

mlar_status mlar_engine_usable(const mlar_engine *engine, mlar_diag *diag) {
    mlar_status status = MLAR_ERROR_STATE; /* after deinit, while the host keeps the block */
    if (engine->backend != NULL) {
        status = engine->backend->ready(engine->backend_state, diag);
        if (status != MLAR_OK || engine->lost == MLAR_OK) return status;
        status = engine->lost;
    }
    return mlar_fail(diag, status, "engine", 0, 0, "engine: %s", mlar_status_string(status));
}

mlar_status mlar_engine_idle(const mlar_engine *engine, void *stream, mlar_diag *diag) {
    mlar_status status = mlar_engine_usable(engine, diag);
    return status == MLAR_OK ? engine->backend->idle(engine->backend_state, stream, diag) : status;
}

mlar_status mlar_engine_note(mlar_engine *engine, mlar_status status) {
    if (status == MLAR_ERROR_DEVICE_LOST) engine->lost = status;
    return status;
}

static mlar_status check_memory(const mlar_layout *layout, const void *memory, uint64_t bytes,
                                mlar_diag *diag) {
    if ((uintptr_t)memory % MLAR_HOST_ALIGN != 0)
        return mlar_fail(diag, MLAR_ERROR_MEMORY_ALIGNMENT, "host_memory",
                         (int64_t)((uintptr_t)memory % MLAR_HOST_ALIGN), MLAR_HOST_ALIGN,
                         "host_memory: %d bytes past a multiple of %d",
                         (int)((uintptr_t)memory % MLAR_HOST_ALIGN), MLAR_HOST_ALIGN);
    if (bytes < layout->host_bytes)
        return mlar_fail(diag, MLAR_ERROR_MEMORY_SIZE, "host_bytes", mlar_size_for_diag(bytes),
                         mlar_size_for_diag(layout->host_bytes),
                         "host_bytes: %llu given, %llu needed, %llu missing", (unsigned long long)bytes,
                         (unsigned long long)layout->host_bytes,
                         (unsigned long long)(layout->host_bytes - bytes));
    return MLAR_OK;
}

static mlar_status check_apart(const mlar_arena_core *arena, const void *memory, uint64_t bytes,
                               mlar_diag *diag) {
    const uintptr_t host = (uintptr_t)memory, device = (uintptr_t)arena->base;
    if (!arena->source.host_visible || host >= device + arena->bytes || device >= host + bytes)
        return MLAR_OK;
    return mlar_fail(diag, MLAR_ERROR_OVERLAP, "host_memory", 0, 0, "host_memory overlaps the arena");
}

/* Counters and the step block start at zero; and the schedule, because attention on sm_90 reads cuts before it knows
 * how many prepare wrote. Layer blocks are written at capture, and what is in scratch never matters. */
static mlar_status clear_persistent(mlar_engine *engine, mlar_diag *diag) {
    static const enum mlar_buffer_id cleared[] = {MLAR_BUFFER_COUNTERS, MLAR_BUFFER_STEP,
                                                  MLAR_BUFFER_SCHEDULE};
    for (size_t i = 0; i < sizeof cleared / sizeof *cleared; i++) {
        const int kinds =
            mlar_buffers[cleared[i]].class == MLAR_CLASS_KIND ? engine->layout.dims.config.kind_count : 1;
        for (int k = 0; k < kinds; k++) {
            const int32_t index = engine->layout.index[cleared[i]][k];
            if (index < 0) continue;
            mlar_status status =
                engine->backend->fill(engine->backend_state, mlar_arena_pointer(engine->arena, index), 0,
                                      engine->layout.plan.requests[index].bytes, NULL, diag);
            if (status != MLAR_OK) return status;
        }
    }
    return MLAR_OK;
}

static void forget_programs(mlar_engine *engine) {
    for (int32_t i = 0; i < engine->program_count; i++)
        engine->programs[i] = (mlar_program){.engine = engine};
    for (int32_t i = 0; i < engine->layer_count; i++)
        engine->layers[i] = (mlar_layer_slot){.program = -1, .next = -1};
}

mlar_status mlar_engine_init(const mlar_config *config, mlar_device *device, mlar_arena *arena,
                             void *host_memory, uint64_t host_bytes, mlar_engine **result, mlar_diag *diag) {
    if (config == NULL || arena == NULL || host_memory == NULL || result == NULL)
        return mlar_fail_null(diag, config == NULL        ? "config"
                                    : arena == NULL       ? "arena"
                                    : host_memory == NULL ? "host_memory"
                                                          : "engine");
    *result = NULL;
    mlar_layout layout;
    mlar_status status = mlar_layout_make(config, &layout, diag);
    if (status != MLAR_OK) return status;
    if ((layout.dims.config.device.device == MLAR_DEVICE_CPU) != (device == NULL))
        return mlar_fail(diag, MLAR_ERROR_ARGUMENT, "device", layout.dims.config.device.device, 0,
                         "device: the configuration is for %s, so a device must %sbe given",
                         layout.dims.config.device.arch, device == NULL ? "" : "not ");
    if ((status = check_memory(&layout, host_memory, host_bytes, diag)) != MLAR_OK) return status;
    if ((status = check_apart(mlar_arena_core_of(arena), host_memory, layout.host_bytes, diag)) != MLAR_OK)
        return status;
    mlar_engine *engine = host_memory;
    /* Held before the block is written: it may be the block of the engine that holds the arena already. */
    if ((status = mlar_arena_hold(mlar_arena_core_of(arena), engine, &layout.plan, diag)) != MLAR_OK)
        return status;
    memset(engine, 0, sizeof *engine);
    engine->layout = layout;
    engine->backend = mlar_backend_of(layout.dims.config.device.device);
    engine->arena = mlar_arena_core_of(arena);
    engine->arena->plan = &engine->layout.plan; /* where it stays */
    engine->host_bytes = layout.host_bytes;
    mlar_checked check = {0};
    (void)lay_out(engine, engine->backend, &engine->layout.dims, &check);
    forget_programs(engine);
    status = engine->backend->init(engine->backend_state, &engine->layout, engine->arena, device, diag);
    if (status != MLAR_OK) {
        (void)mlar_arena_drop(engine->arena, engine, NULL);
        return status;
    }
    status = clear_persistent(engine, diag);
    if (status == MLAR_OK) status = mlar_guarding_start(engine, diag);
    if (status != MLAR_OK) {
        (void)engine->backend->deinit(engine->backend_state);
        (void)mlar_arena_drop(engine->arena, engine, NULL);
        return status;
    }
    *result = engine;
    return MLAR_OK;
}

mlar_status mlar_engine_deinit(mlar_engine *engine) {
    if (engine == NULL) return MLAR_ERROR_ARGUMENT;
    if (engine->backend == NULL) return MLAR_ERROR_STATE;
    mlar_status status = engine->backend->idle(engine->backend_state, NULL, NULL);
    if (status == MLAR_ERROR_CAPTURING) return status;
    for (int32_t i = 0; i < engine->program_count; i++) engine->programs[i].open = 0;
    mlar_status ended = engine->backend->deinit(engine->backend_state);
    mlar_status dropped = mlar_arena_drop(engine->arena, engine, NULL);
    engine->backend = NULL;
    return status != MLAR_OK ? status : ended != MLAR_OK ? ended : dropped;
}
