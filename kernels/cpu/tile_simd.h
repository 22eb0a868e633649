/* SPDX-License-Identifier: Apache-2.0
 *
 * tile_simd.h: the stages of the CPU back end as every SIMD variant runs them: what scalar.c says, but a key
 * tile is converted once for all heads, and the next tile's tokens are fetched from memory meanwhile.
 *
 * A variant includes it last and puts the four functions at the end into its table. It may bring its own
 * tile_scores() and tile_accumulate() (TILE_OWN_PRODUCTS) and something to do around each item of attend
 * (TILE_ENTER, TILE_LEAVE). The order of all sums follows from the part alone. It must not know threads. */
#ifndef MLAR_KERNELS_CPU_TILE_SIMD_H
#define MLAR_KERNELS_CPU_TILE_SIMD_H

#include <math.h>

#include "kernels/cpu/kernels.h"

#ifndef TILE_ENTER
#define TILE_ENTER() ((void)0)
#define TILE_LEAVE() ((void)0)
#endif

/* ---- which tokens ---- */

static void tile_collect(const mlar_stage_args *args, const mlar_part *part, int32_t tile, int32_t gathered,
                         tile_tokens *tokens, uint64_t *invalid) {
    const mlar_tile place = mlar_tile_of(&part->lists, tile);
    const mlar_scope_params *scope = &mlar_layer_of(args)->scope[place.scope];
    const int32_t *entries = part->lists.entries[place.scope] + place.first;
    tokens->format = tile_format_of(scope, &args->shape, gathered);
    tokens->count = 0;
    for (int32_t j = 0; j < place.count; ++j) {
        const int32_t slot = entries[j];
        if (!mlar_slot_counts(scope, slot)) {
            *invalid += (uint64_t)mlar_slot_is_invalid(scope, slot);
        } else if (gathered) {
            const uint64_t at = mlar_gathered_offset(args, scope, part->row, place.first + j);
            tokens->record[tokens->count++] = (const uint8_t *)(args->gathered[place.scope] + at);
        } else {
            const mlar_slot_place at = mlar_slot_place_of(scope, (uint32_t)slot);
            tokens->record[tokens->count] = scope->cache + at.record;
            tokens->scales[tokens->count++] = scope->cache + at.scales;
        }
    }
}

#ifndef TILE_OWN_PRODUCTS

/* ---- products of a tile ---- */

/* Queries and keys -> scores, not yet scaled. */
static void tile_scores(const tile_state *state, const tile_tokens *tokens, const tile_tokens *ahead) {
    for (int32_t column = 0; column < state->columns; column += TILE_PANEL) {
        tile_scores_panel(state, tokens->count, column);
        tile_prefetch(ahead, column, column + TILE_PANEL, state->columns + state->value_columns);
    }
}

/* Weights and values -> out. */
static void tile_accumulate(const tile_state *state, const tile_tokens *tokens, const tile_tokens *ahead) {
    for (int32_t column = 0; column < state->value_columns; column += TILE_PANEL) {
        const int32_t done = state->columns + column;
        tile_accumulate_panel(state, tokens->count, column);
        tile_prefetch(ahead, done, done + TILE_PANEL, state->columns + state->value_columns);
    }
}

#endif

/* ---- results ---- */

/* One head of one finished row: out = sum / (l + exp(sink - m)), lse without the sink. `out` is [d_v]. */
static void tile_finish_head(const mlar_stage_args *args, int32_t row, int32_t head, float max, float sum,
                             const float *out) {
    const mlar_layer_params *layer = mlar_layer_of(args);
    const int32_t d_v = args->shape.d_v;
    const int64_t at = row * layer->out_row_stride + head * layer->out_head_stride;
    const float denominator = layer->sink ? sum + expf(layer->sink[head] - max) : sum;
    const v_f32 factor = v_set(sum == 0.0f ? 0.0f : 1.0f / denominator);
    for (int32_t d = 0; d < d_v; d += 2 * V_LANES) {
        const v_f32 low = v_mul(v_load(out + d), factor), high = v_mul(v_load(out + d + V_LANES), factor);
        const int32_t count = d_v - d < 2 * V_LANES ? d_v - d : 2 * V_LANES;
        union {
            float f32[2 * V_LANES];
            uint16_t bf16[2 * V_LANES];
        } part;
        if (layer->out_f32) {
            v_store(part.f32, low);
            v_store(part.f32 + V_LANES, high);
            memcpy((float *)layer->out + at + d, part.f32, (size_t)count * sizeof *part.f32);
        } else {
            v_store_bf16(part.bf16, low, high);
            memcpy((uint16_t *)layer->out + at + d, part.bf16, (size_t)count * sizeof *part.bf16);
        }
    }
    if (layer->lse)
        layer->lse[row * layer->lse_row_stride + head * layer->lse_head_stride] =
            sum == 0.0f ? -INFINITY : (float)(max + log((double)sum));
}

/* A row's elements with room for whole vectors behind them. */
typedef struct tile_row {
    float out[MLAR_MAX_D_QK + 2 * V_LANES];
} tile_row;

static void tile_finish_part(const mlar_stage_args *args, const mlar_unit *unit, const mlar_part *part,
                             const tile_state *state) {
    const mlar_shape *shape = &args->shape;
    for (int32_t i = 0; i < state->heads; ++i) {
        const int32_t head = unit->head_begin + i;
        const int64_t place = (int64_t)part->slot * shape->heads + head;
        tile_row row = {{0}};
        if (state->started)
            for (int32_t column = 0; column < state->value_columns; column += TILE_PANEL) {
                const int32_t width = tile_panel_width(state->value_columns, column);
                memcpy(row.out + column, state->out + column * state->lanes + i * width,
                       (size_t)width * sizeof *row.out);
            }
        if (part->slot < 0) {
            tile_finish_head(args, part->row, head, state->max[i], state->sum[i], row.out);
        } else {
            memcpy(args->partial_out + place * shape->d_v, row.out, (size_t)shape->d_v * sizeof *row.out);
            args->partial_ml[2 * place] = state->sum[i] == 0.0f ? -INFINITY : state->max[i];
            args->partial_ml[2 * place + 1] = state->sum[i];
        }
    }
}

/* ---- attention ---- */

static void tile_begin(tile_state *state, const mlar_shape *shape, int32_t heads, const mlar_cpu_scratch *scratch) {
    state->heads = heads;
    state->lanes = tile_padded(heads);
    state->columns = tile_padded(shape->d_qk);
    state->value_columns = tile_padded(shape->d_v);
    state->started = 0;
    state->keys = scratch->keys;
    state->values = TILE_PACK == 1 ? scratch->keys : scratch->keys + MLAR_KEY_TILE / 2 * state->columns;
    state->queries = scratch->queries;
    state->scores = scratch->scores;
    state->out = scratch->out;
    state->max = scratch->max;
    state->sum = scratch->sum;
    for (int32_t head = 0; head < state->lanes; ++head) {
        state->max[head] = -FLT_MAX;
        state->sum[head] = 0.0f;
    }
}

static void tile_attend_part(const mlar_stage_args *args, const mlar_unit *unit, const mlar_part *part,
                             int32_t gathered, const mlar_cpu_scratch *scratch) {
    const mlar_layer_params *layer = mlar_layer_of(args);
    const mlar_shape *shape = &args->shape;
    tile_state state;
    tile_tokens tokens[2]; /* of this tile and of the next */
    uint64_t invalid = 0;

    tile_begin(&state, shape, unit->head_end - unit->head_begin, scratch);
    tile_collect(args, part, part->tile_begin, gathered, &tokens[0], &invalid);
    tile_prefetch(&tokens[0], 0, 1, 1);
    tile_load_queries(&state, layer->q + part->row * layer->q_row_stride + unit->head_begin * layer->q_head_stride,
                      layer->q_head_stride, shape->d_qk, layer->scale);
    for (int32_t tile = part->tile_begin; tile < part->tile_end; ++tile) {
        tile_tokens *now = &tokens[(tile - part->tile_begin) & 1], *ahead = &tokens[(tile - part->tile_begin + 1) & 1];
        ahead->count = 0;
        if (tile + 1 < part->tile_end) tile_collect(args, part, tile + 1, gathered, ahead, &invalid);
        if (now->count == 0) continue;
        tile_convert(now, state.keys, state.values);
        tile_scores(&state, now, ahead);
        tile_weights(&state, now->count);
        tile_accumulate(&state, now, ahead);
        state.started = 1;
    }
    tile_finish_part(args, unit, part, &state);
    /* Once per entry and step: gather has counted already, and other head groups read the same lists. */
    if (!gathered && unit->head_begin == 0) mlar_cpu_count_invalid(args, invalid);
}

static void tile_attend(const mlar_stage_args *args, int64_t item, int32_t gathered, void *memory) {
    const mlar_layer_params *layer = mlar_layer_of(args);
    const mlar_cpu_scratch scratch = mlar_cpu_scratch_carve(&args->shape, memory);
    mlar_unit unit;
    mlar_span span;
    mlar_part part;
    if (mlar_cpu_tail_item(args, item)) return;
    unit = mlar_unit_of(args, item);
    span = mlar_worker_span(args, layer, unit.worker);
    TILE_ENTER();
    while (mlar_next_part(args, layer, &span, &part)) tile_attend_part(args, &unit, &part, gathered, &scratch);
    TILE_LEAVE();
}

static void tile_attend_gathered(const mlar_stage_args *args, int64_t item, void *scratch) {
    tile_attend(args, item, 1, scratch);
}

static void tile_attend_direct(const mlar_stage_args *args, int64_t item, void *scratch) {
    tile_attend(args, item, 0, scratch);
}

/* ---- gather ---- */

static void tile_gather(const mlar_stage_args *args, int64_t item, void *scratch) {
    enum { AHEAD = 6 }; /* tokens whose bytes are on their way while one is converted */
    const mlar_cpu_gather_work work = mlar_cpu_gather_work_of(args, item);
    const tile_format format = work.count ? tile_format_of(work.scope, &args->shape, 0) : (tile_format){0};
    uint64_t invalid = 0;
    (void)scratch;
    for (int32_t j = 0; j < work.count + AHEAD; ++j) {
        if (j < work.count && mlar_slot_counts(work.scope, work.entries[j])) {
            const mlar_slot_place place = mlar_slot_place_of(work.scope, (uint32_t)work.entries[j]);
            tile_prefetch_record(&format, work.scope->cache + place.record, 0, 1, 1);
            if (format.fp8_columns) __builtin_prefetch(work.scope->cache + place.scales, 0, 2);
        }
        if (j >= AHEAD && mlar_slot_counts(work.scope, work.entries[j - AHEAD])) {
            const mlar_slot_place place = mlar_slot_place_of(work.scope, (uint32_t)work.entries[j - AHEAD]);
            tile_decode(&format, work.scope->cache + place.record, work.scope->cache + place.scales,
                        work.to + (int64_t)(j - AHEAD) * args->shape.d_qk);
        } else if (j >= AHEAD) {
            invalid += (uint64_t)mlar_slot_is_invalid(work.scope, work.entries[j - AHEAD]);
        }
    }
    mlar_cpu_count_invalid(args, invalid);
}

/* ---- merge ---- */

/* What moves a sum from one maximum to another; both may be -inf, when there was nothing to move. */
static float tile_rescale(float from, float to) {
    return from == to ? 1.0f : expf(from - to);
}

/* Parts in their order. */
static void tile_combine(const mlar_stage_args *args, int64_t item, void *scratch) {
    const mlar_shape *shape = &args->shape;
    const int32_t row = args->row_begin + (int32_t)item;
    const mlar_row_parts parts = mlar_row_parts_of(args, mlar_layer_of(args), row);
    (void)scratch;
    if (parts.parts == 1) return;
    for (int32_t head = 0; head < shape->heads; ++head) {
        const int64_t first = (int64_t)parts.first_slot * shape->heads + head;
        float max = -INFINITY, sum = 0.0f;
        tile_row merged = {{0}};
        for (int32_t i = 0; i < parts.parts; ++i) {
            const float *ml = args->partial_ml + 2 * (first + (int64_t)i * shape->heads);
            if (ml[0] > max) max = ml[0];
        }
        for (int32_t i = 0; i < parts.parts; ++i) {
            const int64_t place = first + (int64_t)i * shape->heads;
            const float *out = args->partial_out + place * shape->d_v;
            const float moved = tile_rescale(args->partial_ml[2 * place], max);
            int32_t d = 0;
            sum += moved * args->partial_ml[2 * place + 1];
            for (; d + V_LANES <= shape->d_v; d += V_LANES)
                v_store(merged.out + d, v_fma(v_set(moved), v_load(out + d), v_load(merged.out + d)));
            for (; d < shape->d_v; ++d) merged.out[d] += moved * out[d];
        }
        tile_finish_head(args, row, head, max, sum, merged.out);
    }
}

#endif
