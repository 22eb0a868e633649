/* SPDX-License-Identifier: Apache-2.0
 *
 * recorded.c: see recorded.h. */
#include "recorded.h"

#include "configure.h"
#include "format.h"

#include <stdlib.h>
#include <string.h>

enum { DEFAULT_REPLAYS = 100, TIMED_STEPS = 25 };

const stepfile_scope *recorded_scope(const stepfile *step, int s) {
    return s == 0 ? &step->window : &step->extra;
}

int recorded_scope_count(const stepfile *step) {
    return step->extra.present ? 2 : 1;
}

/* ---- tensors and bindings from the file ---- */

static uint64_t lens_count(const stepfile *step, const stepfile_scope *scope) {
    return ((uint64_t)step->rows + scope->rows_per_len - 1) / scope->rows_per_len;
}

static void describe(const stepfile *step, const recorded_tensors *t, mlar_bindings *b) {
    b->q = t->q;
    b->q_head_stride = t->q_stride;
    b->q_row_stride = (int64_t)t->q_stride * step->heads;
    b->out = t->out;
    b->out_head_stride = t->out_stride;
    b->out_row_stride = (int64_t)t->out_stride * step->heads;
    b->lse = t->lse;
    b->attn_sink = t->sink;
    b->scale = (float)step->scale;
    for (int s = 0; s < recorded_scope_count(step); s++) {
        const stepfile_scope *scope = recorded_scope(step, s);
        b->cache[s] = (mlar_cache){t->cache[s], scope->block_stride_bytes, (int64_t)scope->num_blocks,
                                   (int32_t)scope->block_size_tokens, 0};
        b->list[s] = (mlar_index_list){.indices = t->indices[s],
                                       .lens = t->lens[s],
                                       .row_stride = scope->width,
                                       .rows_per_len = (int32_t)scope->rows_per_len,
                                       .form = MLAR_LIST_DENSE};
    }
}

void recorded_free(place *p, const stepfile *step, recorded_tensors *t) {
    place_free(p, t->q, t->padded_q != NULL ? t->padded_q : step->q);
    free(t->padded_q);
    place_free(p, t->sink, step->attn_sink);
    for (int s = 0; s < recorded_scope_count(step); s++) {
        const stepfile_scope *scope = recorded_scope(step, s);
        place_free(p, t->cache[s], scope->cache);
        place_free(p, t->indices[s], scope->indices);
        place_free(p, t->lens[s], scope->lens);
    }
    place_free(p, t->out, NULL);
    place_free(p, t->lse, NULL);
}

static uint32_t padded(uint32_t elements) {
    return (elements + 7) / 8 * 8;
}

/* Heads of q where the library wants them: a file's are as far apart as they are long. */
static const uint16_t *place_heads(const stepfile *step, recorded_tensors *t, uint64_t row_heads) {
    if (t->q_stride == step->d_qk) return step->q;
    t->padded_q = stepfile_allocate(row_heads * t->q_stride * 2);
    for (uint64_t i = 0; t->padded_q != NULL && i < row_heads; i++)
        memcpy(t->padded_q + i * t->q_stride, step->q + i * step->d_qk, (size_t)step->d_qk * 2);
    return t->padded_q;
}

int recorded_upload(place *p, const stepfile *step, recorded_tensors *t) {
    memset(t, 0, sizeof *t);
    uint64_t row_heads = (uint64_t)step->rows * step->heads;
    t->q_stride = padded(step->d_qk);
    t->out_stride = padded(step->d_v);
    t->out_bytes = row_heads * t->out_stride * 2;
    t->lse_bytes = row_heads * 4;
    t->q = place_upload(p, place_heads(step, t, row_heads), row_heads * t->q_stride * 2);
    t->sink = place_upload(p, step->attn_sink, (uint64_t)step->heads * 4);
    uint64_t capacity =
        step->rows > 0 ? 1 : step->heads; /* a program takes at least one row, and zeroes its tail */
    t->out = place_allocate(p, t->out_bytes + capacity * t->out_stride * 2);
    t->lse = place_allocate(p, t->lse_bytes + capacity * 4);
    int failed =
        t->q == NULL || t->out == NULL || t->lse == NULL || (step->attn_sink != NULL && t->sink == NULL);
    for (int s = 0; s < recorded_scope_count(step); s++) {
        const stepfile_scope *scope = recorded_scope(step, s);
        t->cache[s] = place_upload(p, scope->cache, scope->num_blocks * scope->block_stride_bytes);
        t->indices[s] = place_upload(p, scope->indices, (uint64_t)step->rows * scope->width * 4);
        t->lens[s] = place_upload(p, scope->lens, lens_count(step, scope) * 4);
        failed = failed || t->cache[s] == NULL || t->indices[s] == NULL ||
                 (scope->lens != NULL && t->lens[s] == NULL);
    }
    return failed ? unusable("no memory for the step's tensors") : 0;
}

static mlar_status read_out(place *p, const stepfile *step, const recorded_tensors *t, uint16_t *out) {
    uint16_t *padded_out = stepfile_allocate(t->out_bytes);
    if (padded_out == NULL) return MLAR_ERROR_OUT_OF_MEMORY;
    mlar_status status = place_read(p, padded_out, t->out, t->out_bytes);
    for (uint64_t i = 0; status == MLAR_OK && i < (uint64_t)step->rows * step->heads; i++)
        memcpy(out + i * step->d_v, padded_out + i * t->out_stride, (size_t)step->d_v * 2);
    free(padded_out);
    return status;
}

/* ---- running ---- */

/* By a program, or without one by enqueue. */
static mlar_status one_step(session *s, mlar_program *program, const mlar_bindings *b,
                            const mlar_step *step) {
    mlar_status status = MLAR_OK;
    if (program == NULL) {
        status = mlar_engine_prepare(s->engine, 0, b, step, NULL, NULL);
        if (status != MLAR_OK) return status;
        return mlar_engine_enqueue(s->engine, 0, b, s->config.max_rows, step, NULL, NULL);
    }
    status = mlar_engine_step(s->engine, step, NULL);
    if (status == MLAR_OK) status = mlar_engine_prepare(s->engine, 0, b, NULL, NULL, NULL);
    return status == MLAR_OK ? mlar_program_replay(program, NULL) : status;
}

/* Median times in microseconds: of whole steps, and of what is left when nothing has changed: a replay, or (--graph
 * off) an enqueue. */
static mlar_status time_steps(session *s, mlar_program *program, const mlar_bindings *b,
                              const mlar_step *step, int64_t replays, recorded_outcome *out) {
    double steps[TIMED_STEPS];
    for (int i = 0; i < TIMED_STEPS; i++) {
        double begin = seconds_now();
        mlar_status status = one_step(s, program, b, step);
        if (status != MLAR_OK) return status;
        place_wait(s->where);
        steps[i] = 1e6 * (seconds_now() - begin);
    }
    out->step_us = percentile(steps, TIMED_STEPS, 0.5);
    double *times = malloc((size_t)replays * sizeof *times);
    mlar_status status = times != NULL ? MLAR_OK : MLAR_ERROR_OUT_OF_MEMORY;
    for (int64_t i = 0; i < replays && status == MLAR_OK; i++) {
        double begin = seconds_now();
        status = program != NULL ? mlar_program_replay(program, NULL)
                                 : mlar_engine_enqueue(s->engine, 0, b, s->config.max_rows, step, NULL, NULL);
        place_wait(s->where);
        times[i] = 1e6 * (seconds_now() - begin);
    }
    if (status == MLAR_OK) out->replay_us = percentile(times, (int)replays, 0.5);
    free(times);
    return status;
}

/* The gather buffers hold one row tile: run the step tile by tile and collect. Rows get lengths of their own,
 * so that a tile may begin inside a request. */
static mlar_status collect_gathered(session *s, const stepfile *step, const mlar_bindings *whole,
                                    recorded_outcome *out) {
    place *p = s->where;
    int32_t *lens[MLAR_SCOPES] = {NULL}, tile = s->memory.row_tile[0];
    void *device_lens[MLAR_SCOPES] = {NULL};
    mlar_status status = MLAR_OK;
    for (int i = 0; i < recorded_scope_count(step); i++) {
        lens[i] = calloc(step->rows + 1, sizeof **lens);
        for (uint32_t r = 0; lens[i] != NULL && r < step->rows; r++)
            lens[i][r] = (int32_t)stepfile_row_len(recorded_scope(step, i), r);
        device_lens[i] = place_upload(p, lens[i], (uint64_t)step->rows * 4 + 4);
        if (device_lens[i] == NULL) status = MLAR_ERROR_OUT_OF_MEMORY;
    }
    for (int32_t begin = 0; begin < (int32_t)step->rows && status == MLAR_OK; begin += tile) {
        int32_t count = (int32_t)step->rows - begin < tile ? (int32_t)step->rows - begin : tile;
        mlar_bindings b = *whole;
        mlar_step part = {.struct_size = sizeof part, .rows = count};
        b.q = (const char *)b.q + (int64_t)begin * b.q_row_stride * 2;
        b.out = (char *)b.out + (int64_t)begin * b.out_row_stride * 2;
        b.lse += (int64_t)begin * b.lse_row_stride;
        for (int i = 0; i < recorded_scope_count(step); i++) {
            b.list[i].indices += (int64_t)begin * b.list[i].row_stride;
            b.list[i].lens = (const int32_t *)device_lens[i] + begin;
            b.list[i].rows_per_len = 1;
        }
        status = mlar_engine_prepare(s->engine, 0, &b, &part, NULL, NULL);
        if (status == MLAR_OK) status = mlar_engine_enqueue(s->engine, 0, &b, count, &part, NULL, NULL);
        static const char *const names[MLAR_SCOPES] = {"gather.window", "gather.extra"};
        uint16_t *const results[MLAR_SCOPES] = {out->results.gathered_window, out->results.gathered_extra};
        for (int i = 0; i < recorded_scope_count(step) && status == MLAR_OK; i++) {
            void *address = NULL;
            uint64_t bytes = 0, row = (uint64_t)recorded_scope(step, i)->width * step->d_qk;
            status = mlar_engine_buffer(s->engine, 0, names[i], &address, &bytes);
            if (status == MLAR_OK && bytes > 0)
                status =
                    place_read(p, results[i] + (uint64_t)begin * row, address, (uint64_t)count * row * 2);
        }
    }
    for (int i = 0; i < recorded_scope_count(step); i++) {
        place_free(p, device_lens[i], lens[i]);
        free(lens[i]);
    }
    return status;
}

int recorded_allocate_results(const stepfile *step, recorded_outcome *out) {
    uint64_t row_heads = (uint64_t)step->rows * step->heads, d = step->d_qk;
    out->results.out = stepfile_allocate(row_heads * step->d_v * 2);
    out->results.lse = stepfile_allocate(row_heads * 4);
    int failed = out->results.out == NULL || out->results.lse == NULL;
    if (out->strategy == MLAR_STRATEGY_GATHER) {
        out->results.gathered_window = stepfile_allocate((uint64_t)step->rows * step->window.width * d * 2);
        failed |= out->results.gathered_window == NULL;
        if (step->extra.present) {
            out->results.gathered_extra = stepfile_allocate((uint64_t)step->rows * step->extra.width * d * 2);
            failed |= out->results.gathered_extra == NULL;
        }
    }
    return failed ? unusable("no memory for the results") : 0;
}

void recorded_free_results(recorded_outcome *out) {
    free(out->results.out);
    free(out->results.lse);
    free(out->results.gathered_window);
    free(out->results.gathered_extra);
}

mlar_status recorded_run(session *s, const options *o, const stepfile *file, const recorded_tensors *t,
                         recorded_outcome *out, mlar_diag *diag) {
    mlar_bindings b;
    mlar_program *program = NULL;
    mlar_step step = {.struct_size = sizeof step, .rows = (int32_t)file->rows};
    mlar_status status = mlar_bindings_init(&b, &s->config, 0);
    if (status != MLAR_OK) return status;
    describe(file, t, &b);
    (void)configure_graph(o, &out->by_graph); /* checked before anything was opened */
    if (out->by_graph) status = mlar_engine_capture(s->engine, 0, &b, 1, s->config.max_rows, &program, diag);
    if (status == MLAR_OK) status = one_step(s, program, &b, &step);
    mlar_stats stats = {.struct_size = sizeof stats};
    if (status == MLAR_OK) status = mlar_engine_stats(s->engine, NULL, &stats); /* waits */
    out->invalid = stats.invalid_indices;
    if (status == MLAR_OK) status = read_out(s->where, file, t, out->results.out);
    if (status == MLAR_OK) status = place_read(s->where, out->results.lse, t->lse, t->lse_bytes);
    if (status == MLAR_OK && out->strategy == MLAR_STRATEGY_GATHER)
        status = collect_gathered(s, file, &b, out);
    int64_t replays = DEFAULT_REPLAYS;
    (void)configure_replays(o, &replays);
    if (status == MLAR_OK) status = time_steps(s, program, &b, &step, replays, out);
    if (status == MLAR_OK && s->config.guard_bytes > 0)
        status = mlar_engine_check_guards(s->engine, NULL, diag);
    return status;
}
