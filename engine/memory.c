/* SPDX-License-Identifier: Apache-2.0
 *
 * memory.c: dims + tables -> requests -> plan, and the public answer to a size query.
 *
 * Lifetimes are derived here: a scratch buffer lives from the first stage that writes it to the last that
 * reads it, in its own kind's range of stage numbers, so kinds share bytes; persistent buffers live for ever.
 */
#include "engine/memory.h"

#include "arena/fail.h"
#include "arena/fingerprint.h"
#include "engine/engine.h"
#include "engine/stages.h"
#include "engine/structs.h"

#include <mlarena/kv_cache.h>
#include <stdio.h>

/* First and last position whose stage touches the buffer in this kind's sequence; 0 if none does. */
static int lifetime(const mlar_dims *dims, const mlar_kind_dims *kind, int id, int32_t *first,
                    int32_t *last) {
    int found = 0;
    for (int32_t i = 0; i < mlar_stage_count; i++) {
        const mlar_stage *stage = &mlar_stages[i];
        if (((stage->reads | stage->writes) >> id & 1) == 0 || !stage->when(dims, kind)) continue;
        if (!found) *first = (int32_t)stage->at;
        *last = (int32_t)stage->at;
        found = 1;
    }
    return found;
}

static void add_request(mlar_layout *layout, mlar_plan_request *requests, int32_t *count, int id, int32_t k,
                        mlar_checked *check) {
    const mlar_buffer *buffer = &mlar_buffers[id];
    const mlar_kind_dims *kind = &layout->dims.kind[k];
    layout->index[id][k] = -1;
    mlar_plan_request request = {.name = buffer->name,
                                 .bytes = buffer->bytes(&layout->dims, kind, check),
                                 .align = MLAR_BUFFER_ALIGN,
                                 .last_stage = MLAR_STAGE_FOREVER};
    if (request.bytes == 0) return;
    if (buffer->class == MLAR_CLASS_SCRATCH) {
        int32_t first = 0, last = 0;
        if (!lifetime(&layout->dims, kind, id, &first, &last)) return;
        request.first_stage = k * MLAR_POSITION_COUNT + first;
        request.last_stage = k * MLAR_POSITION_COUNT + last;
    }
    layout->index[id][k] = *count;
    requests[(*count)++] = request;
}

mlar_status mlar_layout_make(const mlar_config *config, mlar_layout *layout, mlar_diag *diag) {
    _Static_assert((MLAR_BUFFER_COUNT - MLAR_ENGINE_BUFFERS) * MLAR_KINDS_MAX + MLAR_ENGINE_BUFFERS <=
                       MLAR_PLAN_MAX_REQUESTS,
                   "every buffer has a place");
    _Static_assert((int)MLAR_PLAN_MAX_REQUESTS <= (int)MLAR_BUFFERS_MAX, "every request can be shown");
    mlar_status status = mlar_dims_resolve(config, &layout->dims, diag);
    if (status != MLAR_OK) return status;
    mlar_plan_request requests[MLAR_PLAN_MAX_REQUESTS];
    mlar_checked check = {0};
    int32_t count = 0, kinds = layout->dims.config.kind_count;
    for (int id = 0; id < MLAR_BUFFER_COUNT; id++) {
        int per_kind = mlar_buffers[id].class != MLAR_CLASS_ENGINE;
        for (int32_t k = 0; k < MLAR_KINDS_MAX; k++) {
            if (k > 0 && !per_kind)
                layout->index[id][k] = layout->index[id][0];
            else if (k < kinds)
                add_request(layout, requests, &count, id, k, &check);
            else
                layout->index[id][k] = -1;
        }
    }
    layout->host_bytes = mlar_engine_host_bytes(&layout->dims, &check);
    if (check.failed)
        return mlar_fail(diag, MLAR_ERROR_OVERFLOW, "device_bytes", 0, 0,
                         "device_bytes: does not fit in 64 bits");
    status = mlar_plan_make(requests, count, (uint64_t)layout->dims.config.guard_bytes, &layout->plan, diag);
    if (status != MLAR_OK) return status;
    mlar_config plain = layout->dims.config; /* addresses are no part of an identity */
    plain.parallel = NULL;
    plain.parallel_context = NULL;
    layout->fingerprint = mlar_plan_fingerprint(&plain, sizeof plain, &layout->plan);
    return MLAR_OK;
}

static void describe_buffers(const mlar_layout *layout, mlar_memory *memory) {
    for (int id = 0; id < MLAR_BUFFER_COUNT; id++) {
        const mlar_buffer *buffer = &mlar_buffers[id];
        int kinds = buffer->class == MLAR_CLASS_ENGINE ? 1 : layout->dims.config.kind_count;
        for (int k = 0; k < kinds; k++) {
            int32_t index = layout->index[id][k];
            if (index < 0) continue;
            const mlar_plan_request *request = &layout->plan.requests[index];
            mlar_buffer_info *info = &memory->buffers[memory->buffer_count++];
            int scratch = buffer->class == MLAR_CLASS_SCRATCH;
            *info = (mlar_buffer_info){
                .offset_bytes = layout->plan.offsets[index],
                .bytes = request->bytes,
                .align_bytes = request->align,
                .kind = buffer->class == MLAR_CLASS_ENGINE ? -1 : k,
                .first_stage = scratch ? request->first_stage % MLAR_POSITION_COUNT : 0,
                .last_stage = scratch ? request->last_stage % MLAR_POSITION_COUNT : MLAR_POSITION_COUNT - 1,
                .persistent = !scratch};
            snprintf(info->name, sizeof info->name, "%s", buffer->name);
            buffer->shape(&layout->dims, &layout->dims.kind[k], info->shape, sizeof info->shape);
            if (!scratch) memory->persistent_bytes += request->bytes;
        }
    }
}

mlar_status mlar_memory_query(const mlar_config *config, mlar_memory *given, mlar_diag *diag) {
    if (config == NULL || given == NULL) return mlar_fail_null(diag, config == NULL ? "config" : "memory");
    mlar_layout layout;
    mlar_status status = mlar_layout_make(config, &layout, diag);
    if (status != MLAR_OK) return status;
    mlar_memory memory = {.struct_size = sizeof memory,
                          .strategy = layout.dims.strategy,
                          .host_bytes = layout.host_bytes,
                          .host_align_bytes = MLAR_HOST_ALIGN,
                          .device_bytes = layout.plan.total_bytes,
                          .device_align_bytes = layout.plan.align,
                          .lower_bound_bytes = layout.plan.lower_bound_bytes,
                          .guard_bytes = layout.plan.guard_bytes,
                          .guard_zone_bytes = layout.plan.guard_zone_bytes,
                          .minimum_budget_bytes = layout.dims.minimum_budget_bytes,
                          .full_pool_bytes_per_slot = 2u * (uint64_t)layout.dims.kind[0].shape.d_qk,
                          .fingerprint = layout.fingerprint,
                          .stage_count = MLAR_POSITION_COUNT};
    for (int p = 0; p < MLAR_POSITION_COUNT; p++)
        snprintf(memory.stages[p], sizeof memory.stages[p], "%s", mlar_position_name((enum mlar_position)p));
    for (int k = 0; k < layout.dims.config.kind_count; k++) {
        memory.row_tile[k] = layout.dims.kind[k].shape.row_tile;
        memory.slots[k] = layout.dims.kind[k].shape.slot_limit;
    }
    describe_buffers(&layout, &memory);
    status = MLAR_STRUCT_WRITE(given, &memory);
    return status == MLAR_OK
               ? MLAR_OK
               : mlar_fail(diag, status, "memory.struct_size", given->struct_size, sizeof memory,
                           "memory.struct_size: %u given, this version knows %zu", given->struct_size,
                           sizeof memory);
}
