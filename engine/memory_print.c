/* SPDX-License-Identifier: Apache-2.0
 *
 * memory_print.c: the map of a size query, as the arena module prints plans. Each kind of layer has its own
 * stages, so a buffer of kind 1 shows as "gather.window[1]" and its stages as "gather[1]". */
#include "arena/fail.h"
#include "arena/plan_print.h"
#include "engine/dims.h"
#include "engine/structs.h"

#include <stdio.h>

enum { NAME_BYTES = 40 };

typedef struct mlar_printable {
    mlar_plan plan;
    char names[MLAR_BUFFERS_MAX][NAME_BYTES];
    char stages[MLAR_KINDS_MAX * MLAR_POSITION_COUNT][NAME_BYTES];
    const char *stage_names[MLAR_KINDS_MAX * MLAR_POSITION_COUNT];
    const char *shapes[MLAR_BUFFERS_MAX];
} mlar_printable;

static void label(char *text, const char *name, int32_t kind, int32_t kinds) {
    if (kind < 0 || kinds == 1)
        snprintf(text, NAME_BYTES, "%s", name);
    else
        snprintf(text, NAME_BYTES, "%s[%d]", name, (int)kind);
}

static void make_printable(const mlar_memory *memory, mlar_printable *p) {
    int32_t kinds = 1;
    for (int32_t i = 0; i < memory->buffer_count; i++)
        if (memory->buffers[i].kind + 1 > kinds) kinds = memory->buffers[i].kind + 1;
    p->plan = (mlar_plan){.total_bytes = memory->device_bytes,
                          .lower_bound_bytes = memory->lower_bound_bytes,
                          .guard_bytes = memory->guard_bytes,
                          .guard_zone_bytes = memory->guard_zone_bytes,
                          .align = memory->device_align_bytes,
                          .count = memory->buffer_count,
                          .stage_count = kinds * memory->stage_count};
    for (int32_t i = 0; i < memory->buffer_count; i++) {
        const mlar_buffer_info *info = &memory->buffers[i];
        label(p->names[i], info->name, info->kind, kinds);
        int32_t base = info->kind < 0 ? 0 : info->kind * memory->stage_count;
        p->plan.requests[i] = (mlar_plan_request){
            .name = p->names[i],
            .bytes = info->bytes,
            .align = info->align_bytes,
            .first_stage = info->persistent ? 0 : base + info->first_stage,
            .last_stage = info->persistent ? MLAR_STAGE_FOREVER : base + info->last_stage};
        p->plan.offsets[i] = info->offset_bytes;
        p->plan.sum_bytes += (info->bytes + info->align_bytes - 1) / info->align_bytes * info->align_bytes;
        p->shapes[i] = info->shape;
    }
    for (int32_t s = 0; s < p->plan.stage_count; s++) {
        label(p->stages[s], memory->stages[s % memory->stage_count], s / memory->stage_count, kinds);
        p->stage_names[s] = p->stages[s];
    }
}

/* Whoever filled it in: terminated, and within the tables that it indexes. */
static int is_printable(const mlar_buffer_info *info) {
    return memchr(info->name, 0, sizeof info->name) != NULL &&
           memchr(info->shape, 0, sizeof info->shape) != NULL && info->kind >= -1 &&
           info->kind < MLAR_KINDS_MAX && info->align_bytes != 0 &&
           (info->persistent || (info->first_stage >= 0 && info->first_stage <= info->last_stage &&
                                 info->last_stage < MLAR_POSITION_COUNT));
}

mlar_status mlar_memory_print(const mlar_memory *given, int32_t json, mlar_write write, void *context) {
    if (given == NULL || write == NULL) return MLAR_ERROR_ARGUMENT;
    mlar_memory memory;
    mlar_status status = MLAR_STRUCT_READ(&memory, given);
    if (status != MLAR_OK) return status;
    if (memory.buffer_count < 0 || memory.buffer_count > MLAR_BUFFERS_MAX ||
        memory.stage_count != MLAR_POSITION_COUNT)
        return MLAR_ERROR_ARGUMENT;
    for (int32_t i = 0; i < memory.buffer_count; i++)
        if (!is_printable(&memory.buffers[i])) return MLAR_ERROR_ARGUMENT;
    for (int32_t i = 0; i < memory.stage_count; i++)
        if (memchr(memory.stages[i], 0, sizeof memory.stages[i]) == NULL) return MLAR_ERROR_ARGUMENT;
    mlar_printable printable;
    make_printable(&memory, &printable);
    mlar_plan_view view = {.plan = &printable.plan,
                           .stage_names = printable.stage_names,
                           .stage_name_count = printable.plan.stage_count,
                           .shapes = printable.shapes};
    if (json)
        mlar_plan_print_json(&view, write, context);
    else
        mlar_plan_print_table(&view, write, context);
    return MLAR_OK;
}
