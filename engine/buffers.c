/* SPDX-License-Identifier: Apache-2.0
 *
 * buffers.c: the table of buffers. A size is written once, here; the query, init, the printed map and the
 * search for the largest row tile all read it. */
#include "engine/buffers.h"

#include "engine/selftest.h"

#include <stdio.h>

#define UNUSED(x) ((void)(x))

static uint64_t counters_bytes(const mlar_dims *d, const mlar_kind_dims *k, mlar_checked *c) {
    UNUSED(d), UNUSED(k), UNUSED(c);
    return MLAR_SMALL_BLOCK_BYTES;
}

static void counters_shape(const mlar_dims *d, const mlar_kind_dims *k, char *text, size_t size) {
    UNUSED(d), UNUSED(k);
    snprintf(text, size, "u64 invalid_indices");
}

static uint64_t step_bytes(const mlar_dims *d, const mlar_kind_dims *k, mlar_checked *c) {
    UNUSED(d), UNUSED(k), UNUSED(c);
    return MLAR_SMALL_BLOCK_BYTES;
}

static void step_shape(const mlar_dims *d, const mlar_kind_dims *k, char *text, size_t size) {
    UNUSED(d), UNUSED(k);
    snprintf(text, size, "rows of the current step");
}

static uint64_t layers_bytes(const mlar_dims *d, const mlar_kind_dims *k, mlar_checked *c) {
    UNUSED(k);
    return mlar_checked_mul(c, (uint64_t)mlar_layer_slots(d), MLAR_LAYER_BLOCK_BYTES);
}

static void layers_shape(const mlar_dims *d, const mlar_kind_dims *k, char *text, size_t size) {
    UNUSED(k);
    snprintf(text, size, "bindings [layers %d][%d B]", (int)mlar_layer_slots(d), MLAR_LAYER_BLOCK_BYTES);
}

static uint64_t schedule_bytes(const mlar_dims *d, const mlar_kind_dims *k, mlar_checked *c) {
    if (!d->balanced) return 0;
    uint64_t tiles = (uint64_t)k->row_tiles;
    uint64_t heads_and_cuts =
        sizeof(mlar_schedule_head) + ((uint64_t)k->shape.workers + 1) * sizeof(mlar_schedule_cut);
    return mlar_checked_add(c, mlar_checked_mul(c, tiles, heads_and_cuts),
                            mlar_checked_mul(c, (uint64_t)k->shape.max_rows, sizeof(mlar_schedule_row)));
}

static void schedule_shape(const mlar_dims *d, const mlar_kind_dims *k, char *text, size_t size) {
    UNUSED(d);
    snprintf(text, size, "cuts [%d][%d], rows [%d]", (int)k->row_tiles, (int)k->shape.workers + 1,
             (int)k->shape.max_rows);
}

static uint64_t thread_scratch_bytes(const mlar_dims *d, const mlar_kind_dims *k, mlar_checked *c) {
    UNUSED(k);
    return mlar_checked_mul(c, (uint64_t)d->traits.threads, d->traits.thread_scratch_bytes);
}

static void thread_scratch_shape(const mlar_dims *d, const mlar_kind_dims *k, char *text, size_t size) {
    UNUSED(k);
    snprintf(text, size, "[threads %d][%llu B]", (int)d->traits.threads,
             (unsigned long long)d->traits.thread_scratch_bytes);
}

static uint64_t selftest_bytes(const mlar_dims *d, const mlar_kind_dims *k, mlar_checked *c) {
    UNUSED(k), UNUSED(c);
    return d->config.selftest ? mlar_selftest_bytes(d) : 0;
}

static void selftest_shape(const mlar_dims *d, const mlar_kind_dims *k, char *text, size_t size) {
    UNUSED(d), UNUSED(k);
    snprintf(text, size, "synthetic step, two results");
}

static uint64_t gather_bytes(const mlar_dims *d, const mlar_kind_dims *k, int scope, mlar_checked *c) {
    if (d->strategy != MLAR_STRATEGY_GATHER) return 0;
    return mlar_checked_mul3(c, (uint64_t)k->shape.row_tile, (uint64_t)k->width[scope],
                             2u * (uint64_t)k->shape.d_qk);
}

static void gather_shape(const mlar_kind_dims *k, int scope, char *text, size_t size) {
    snprintf(text, size, "bf16 [rows %d][keys %d][d_qk %d]", (int)k->shape.row_tile, (int)k->width[scope],
             (int)k->shape.d_qk);
}

static uint64_t gather_window_bytes(const mlar_dims *d, const mlar_kind_dims *k, mlar_checked *c) {
    return gather_bytes(d, k, MLAR_SCOPE_WINDOW, c);
}

static void gather_window_shape(const mlar_dims *d, const mlar_kind_dims *k, char *text, size_t size) {
    UNUSED(d);
    gather_shape(k, MLAR_SCOPE_WINDOW, text, size);
}

static uint64_t gather_extra_bytes(const mlar_dims *d, const mlar_kind_dims *k, mlar_checked *c) {
    return gather_bytes(d, k, MLAR_SCOPE_EXTRA, c);
}

static void gather_extra_shape(const mlar_dims *d, const mlar_kind_dims *k, char *text, size_t size) {
    UNUSED(d);
    gather_shape(k, MLAR_SCOPE_EXTRA, text, size);
}

static uint64_t partial_out_bytes(const mlar_dims *d, const mlar_kind_dims *k, mlar_checked *c) {
    UNUSED(d);
    return mlar_checked_mul3(c, (uint64_t)k->shape.slot_limit, (uint64_t)k->shape.heads,
                             4u * (uint64_t)k->shape.d_v);
}

static void partial_out_shape(const mlar_dims *d, const mlar_kind_dims *k, char *text, size_t size) {
    UNUSED(d);
    snprintf(text, size, "f32 [slots %d][heads %d][d_v %d]", (int)k->shape.slot_limit, (int)k->shape.heads,
             (int)k->shape.d_v);
}

static uint64_t partial_ml_bytes(const mlar_dims *d, const mlar_kind_dims *k, mlar_checked *c) {
    UNUSED(d);
    return mlar_checked_mul3(c, (uint64_t)k->shape.slot_limit, (uint64_t)k->shape.heads, 8);
}

static void partial_ml_shape(const mlar_dims *d, const mlar_kind_dims *k, char *text, size_t size) {
    UNUSED(d);
    snprintf(text, size, "f32 [slots %d][heads %d][m, l]", (int)k->shape.slot_limit, (int)k->shape.heads);
}

#define ROW(id, label, cls, elem, fn)                                                                        \
    [id] = {.name = label, .class = cls, .element = elem, .bytes = fn##_bytes, .shape = fn##_shape}
const mlar_buffer mlar_buffers[MLAR_BUFFER_COUNT] = {
    ROW(MLAR_BUFFER_COUNTERS, "counters", MLAR_CLASS_ENGINE, MLAR_ELEMENT_U64, counters),
    ROW(MLAR_BUFFER_STEP, "step", MLAR_CLASS_ENGINE, MLAR_ELEMENT_I32, step),
    ROW(MLAR_BUFFER_LAYERS, "layers", MLAR_CLASS_ENGINE, MLAR_ELEMENT_U64, layers),
    ROW(MLAR_BUFFER_SCHEDULE, "schedule", MLAR_CLASS_KIND, MLAR_ELEMENT_I32, schedule),
    ROW(MLAR_BUFFER_THREAD_SCRATCH, "thread_scratch", MLAR_CLASS_ENGINE, MLAR_ELEMENT_F32, thread_scratch),
    ROW(MLAR_BUFFER_SELFTEST, "selftest", MLAR_CLASS_ENGINE, MLAR_ELEMENT_BF16, selftest),
    ROW(MLAR_BUFFER_GATHER_WINDOW, "gather.window", MLAR_CLASS_SCRATCH, MLAR_ELEMENT_BF16, gather_window),
    ROW(MLAR_BUFFER_GATHER_EXTRA, "gather.extra", MLAR_CLASS_SCRATCH, MLAR_ELEMENT_BF16, gather_extra),
    ROW(MLAR_BUFFER_PARTIAL_OUT, "partial.out", MLAR_CLASS_SCRATCH, MLAR_ELEMENT_F32, partial_out),
    ROW(MLAR_BUFFER_PARTIAL_ML, "partial.ml", MLAR_CLASS_SCRATCH, MLAR_ELEMENT_F32, partial_ml),
};

/* One buffer's share of the arena: a span in whole alignment units and the guard zone behind it. */
static uint64_t share(const mlar_dims *d, const mlar_buffer *buffer, const mlar_kind_dims *k,
                      mlar_checked *c) {
    uint64_t bytes = buffer->bytes(d, k, c);
    if (bytes == 0) return 0;
    return mlar_checked_add(c, mlar_checked_align_up(c, bytes, MLAR_BUFFER_ALIGN),
                            (uint64_t)d->config.guard_bytes);
}

uint64_t mlar_scratch_bytes(const mlar_dims *d, const mlar_kind_dims *k, mlar_checked *c) {
    uint64_t sum = 0;
    for (int i = 0; i < MLAR_BUFFER_COUNT; i++)
        if (mlar_buffers[i].class == MLAR_CLASS_SCRATCH)
            sum = mlar_checked_add(c, sum, share(d, &mlar_buffers[i], k, c));
    return sum;
}

uint64_t mlar_persistent_bytes(const mlar_dims *d, mlar_checked *c) {
    uint64_t sum = (uint64_t)d->config.guard_bytes; /* the zone in front of the first buffer */
    for (int i = 0; i < MLAR_BUFFER_COUNT; i++) {
        if (mlar_buffers[i].class == MLAR_CLASS_SCRATCH) continue;
        int kinds = mlar_buffers[i].class == MLAR_CLASS_KIND ? d->config.kind_count : 1;
        for (int k = 0; k < kinds; k++)
            sum = mlar_checked_add(c, sum, share(d, &mlar_buffers[i], &d->kind[k], c));
    }
    return sum;
}
