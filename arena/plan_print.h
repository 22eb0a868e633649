/* SPDX-License-Identifier: Apache-2.0
 *
 * plan_print.h: a plan as people (a text table) and programs (JSON) read it, handed piece by piece to a
 * function of the caller's. No allocation, no limit on the length of names. */
#ifndef MLAR_ARENA_PLAN_PRINT_H
#define MLAR_ARENA_PLAN_PRINT_H

#include "arena/plan.h"

#include <stddef.h>
#include <stdint.h>

typedef void (*mlar_plan_write)(void *context, const char *text, size_t bytes);

/* A plan and the words around it, which the planner does not know. */
typedef struct mlar_plan_view {
    const mlar_plan *plan;
    const char *const *stage_names; /* stage_name_count names, or NULL: stages are shown by number */
    int32_t stage_name_count;
    const char *const *shapes; /* one per buffer ("f32 [rows 64][heads 8]"), each may be NULL; or NULL */
} mlar_plan_view;

/* One line per buffer, lowest address first, and a closing line with the totals. */
void mlar_plan_print_table(const mlar_plan_view *view, mlar_plan_write write, void *context);

/* One JSON object, buffers in the plan's order, no newline at its end (it can stand inside another document):
 *   {"plan_schema": 1, "total_bytes", "lower_bound_bytes", "sum_bytes", "guard_bytes", "guard_zone_bytes",
 * "align_bytes", "stage_count", "stages": [names], "buffers": [{"name", "offset_bytes", "bytes",
 * "align_bytes", "first_stage", "last_stage" (inclusive), "persistent", "shape" (if given)}]} */
void mlar_plan_print_json(const mlar_plan_view *view, mlar_plan_write write, void *context);

#endif
