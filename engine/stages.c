/* SPDX-License-Identifier: Apache-2.0
 *
 * stages.c: the table of stages. */
#include "engine/stages.h"

#include "engine/buffers.h"

#define BIT(buffer) (1u << (buffer))
#define GATHERED    (BIT(MLAR_BUFFER_GATHER_WINDOW) | BIT(MLAR_BUFFER_GATHER_EXTRA))
#define PARTIAL     (BIT(MLAR_BUFFER_PARTIAL_OUT) | BIT(MLAR_BUFFER_PARTIAL_ML))
#define SCHEDULE    BIT(MLAR_BUFFER_SCHEDULE)

static int when_balanced(const mlar_dims *dims, const mlar_kind_dims *kind) {
    (void)kind;
    return dims->balanced;
}

static int when_gather(const mlar_dims *dims, const mlar_kind_dims *kind) {
    (void)kind;
    return dims->strategy == MLAR_STRATEGY_GATHER;
}

static int when_direct(const mlar_dims *dims, const mlar_kind_dims *kind) {
    (void)kind;
    return dims->strategy == MLAR_STRATEGY_DIRECT;
}

static int when_split(const mlar_dims *dims, const mlar_kind_dims *kind) {
    (void)dims;
    return kind->shape.slot_limit > 0;
}

const mlar_stage mlar_stages[] = {
    {.name = "prepare",
     .id = MLAR_STAGE_PREPARE,
     .at = MLAR_AT_PREPARE,
     .writes = SCHEDULE,
     .when = when_balanced},
    {.name = "gather",
     .id = MLAR_STAGE_GATHER,
     .at = MLAR_AT_GATHER,
     .writes = GATHERED,
     .when = when_gather},
    {.name = "attend",
     .id = MLAR_STAGE_ATTEND_GATHERED,
     .at = MLAR_AT_ATTEND,
     .reads = GATHERED | SCHEDULE,
     .writes = PARTIAL,
     .when = when_gather},
    {.name = "attend",
     .id = MLAR_STAGE_ATTEND_DIRECT,
     .at = MLAR_AT_ATTEND,
     .reads = SCHEDULE,
     .writes = PARTIAL,
     .when = when_direct},
    {.name = "combine",
     .id = MLAR_STAGE_COMBINE,
     .at = MLAR_AT_COMBINE,
     .reads = PARTIAL | SCHEDULE,
     .when = when_split},
};
const int32_t mlar_stage_count = sizeof mlar_stages / sizeof *mlar_stages;

const char *mlar_position_name(enum mlar_position at) {
    static const char *const names[] = {"prepare", "gather", "attend", "combine"};
    return names[at];
}

int32_t mlar_stages_per_tile(const mlar_dims *dims, const mlar_kind_dims *kind) {
    int32_t count = 0;
    for (int32_t i = 0; i < mlar_stage_count; i++)
        count += mlar_stages[i].at != MLAR_AT_PREPARE && mlar_stages[i].when(dims, kind);
    return count;
}
