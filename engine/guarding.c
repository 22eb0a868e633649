/* SPDX-License-Identifier: Apache-2.0
 *
 * guarding.c: guard zones over the engine's life and around each kind's sequence. */
#include "engine/guarding.h"

#include "arena/fail.h"
#include "engine/structs.h"

/* Device zones travel to the device in pieces of this size, and back whole: a back zone is config.guard_bytes
 * (at most 64 KiB) and what rounds its buffer up to the alignment. */
#define PIECE      1024
#define ZONE_LIMIT (65536 + MLAR_BUFFER_ALIGN)

static int on(const mlar_engine *engine) {
    return engine->layout.plan.guard_zone_bytes > 0;
}

static int host_sees(const mlar_engine *engine) {
    return engine->arena->source.host_visible;
}

static int32_t last_stage(const mlar_engine *engine) {
    return engine->layout.plan.stage_count > 0 ? engine->layout.plan.stage_count - 1 : 0;
}

static mlar_status fill_device_zone(mlar_engine *engine, const mlar_guard_zone *zone, mlar_diag *diag) {
    unsigned char piece[PIECE];
    for (uint64_t done = 0; done < zone->bytes; done += PIECE) {
        uint64_t bytes = zone->bytes - done < PIECE ? zone->bytes - done : PIECE;
        mlar_guard_pattern(zone->offset + done, bytes, piece);
        mlar_status status = engine->backend->copy_in(
            engine->backend_state, engine->arena->base + zone->offset + done, piece, bytes, NULL, diag);
        if (status != MLAR_OK) return status;
    }
    return MLAR_OK;
}

mlar_status mlar_guarding_start(mlar_engine *engine, mlar_diag *diag) {
    if (!on(engine)) return MLAR_OK;
    mlar_guards_init(&engine->guards, &engine->layout.plan);
    if (host_sees(engine)) {
        mlar_guards_fill(&engine->guards, engine->arena, 0, last_stage(engine));
        return MLAR_OK;
    }
    for (int32_t i = 0; i < engine->layout.plan.count; i++)
        for (int side = 0; side < MLAR_GUARD_SIDES; side++) {
            mlar_guard_zone zone;
            if (!mlar_guard_zone_of(&engine->layout.plan, i, (mlar_guard_side)side, 0, last_stage(engine),
                                    &zone))
                continue;
            mlar_status status = fill_device_zone(engine, &zone, diag);
            if (status != MLAR_OK) return status;
        }
    return MLAR_OK;
}

void mlar_guarding_before(mlar_engine *engine, int32_t kind) {
    if (!on(engine) || !host_sees(engine)) return;
    int32_t first = kind * MLAR_POSITION_COUNT;
    mlar_guards_fill(&engine->guards, engine->arena, first, first + MLAR_POSITION_COUNT - 1);
}

mlar_status mlar_guarding_after(mlar_engine *engine, int32_t kind) {
    if (!on(engine) || !host_sees(engine)) return MLAR_OK;
    int32_t first = kind * MLAR_POSITION_COUNT;
    mlar_diag diag = {.struct_size = sizeof diag};
    mlar_status status =
        mlar_guards_check(&engine->guards, engine->arena, first, first + MLAR_POSITION_COUNT - 1, &diag);
    if (status != MLAR_OK && engine->guard_diag.status == MLAR_OK) engine->guard_diag = diag;
    return status;
}

static mlar_status check_device_zones(mlar_engine *engine, void *stream, mlar_diag *diag) {
    unsigned char bytes[ZONE_LIMIT];
    for (int32_t i = 0; i < engine->layout.plan.count; i++)
        for (int side = 0; side < MLAR_GUARD_SIDES; side++) {
            mlar_guard_zone zone;
            if (!mlar_guard_zone_of(&engine->layout.plan, i, (mlar_guard_side)side, 0, last_stage(engine),
                                    &zone))
                continue;
            mlar_status status = engine->backend->copy_out(
                engine->backend_state, bytes, engine->arena->base + zone.offset, zone.bytes, stream, diag);
            if (status != MLAR_OK) return status;
            status = mlar_guards_check_zone(&engine->guards, i, (mlar_guard_side)side, bytes, diag);
            if (status != MLAR_OK) return status;
        }
    return MLAR_OK;
}

mlar_status mlar_guarding_check(mlar_engine *engine, void *stream, mlar_diag *diag) {
    if (!on(engine)) return MLAR_OK;
    if (engine->guard_diag.status != MLAR_OK) {
        if (diag != NULL) (void)MLAR_STRUCT_WRITE(diag, &engine->guard_diag);
        return engine->guard_diag.status;
    }
    if (!host_sees(engine)) return check_device_zones(engine, stream, diag);
    return mlar_guards_check(&engine->guards, engine->arena, 0, last_stage(engine), diag);
}
