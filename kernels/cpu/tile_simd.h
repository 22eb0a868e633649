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
            if (tokens->format.fp8_columns) __builtin_prefetch(scope->cache + at.scales, 0, 2);
        }
    }
}

VFN tile_ahead tile_ahead_of(const tile_tokens *tokens) {
    return (tile_ahead){tokens->record, tokens->count, tile_record_bytes(&tokens->format), 0, 0};
}

#ifndef TILE_OWN_PRODUCTS

/* ---- products of a tile ---- */

/* Queries and keys -> scores, not yet scaled. */
static void tile_scores(tile_state *state, int32_t count) {
    for (int32_t column = 0; column < state->columns; column += TILE_PANEL)
        tile_scores_panel(state, count, column);
}

/* Weights and values -> out. */
static void tile_accumulate(tile_state *state, int32_t count) {
    for (int32_t column = 0; column < state->value_columns; column += TILE_PANEL)
        tile_accumulate_panel(state, count, column);
}

#endif

/* ---- results ---- */

/* `count` elements of out from element `at` on, `from` times `factor`. */
VFN void tile_write(const mlar_layer_params *layer, int64_t at, const float *from, int32_t count,
                    float factor) {
    for (int32_t d = 0; d < count; d += 2 * V_LANES) {
        float rest[2 * V_LANES] = {0};
        uint16_t rest_bf16[2 * V_LANES];
        const int32_t whole = d + 2 * V_LANES <= count;
        v_f32 low, high;
        if (!whole) memcpy(rest, from + d, (size_t)(count - d) * sizeof *rest);
        low = v_mul(v_load(whole ? from + d : rest), v_set(factor));
        high = v_mul(v_load(whole ? from + d + V_LANES : rest + V_LANES), v_set(factor));
        if (layer->out_f32) {
            float *to = (float *)layer->out + at + d;
            v_store(whole ? to : rest, low);
            v_store((whole ? to : rest) + V_LANES, high);
            if (!whole) memcpy(to, rest, (size_t)(count - d) * sizeof *rest);
        } else {
            uint16_t *to = (uint16_t *)layer->out + at + d;
            v_store_bf16(whole ? to : rest_bf16, low, high);
            if (!whole) memcpy(to, rest_bf16, (size_t)(count - d) * sizeof *rest_bf16);
        }
    }
}

/* Writes a finished head's lse, which is without the sink, and returns by what its out is to be multiplied:
 * 1 / (sum + exp(sink - max)), or 0 where nothing counted. */
static float tile_finish_lse(const mlar_layer_params *layer, int32_t row, int32_t head, float max,
                             float sum) {
    const float denominator = layer->sink ? sum + expf(layer->sink[head] - max) : sum;
    if (layer->lse)
        layer->lse[row * layer->lse_row_stride + head * layer->lse_head_stride] =
            sum == 0.0f ? -INFINITY : (float)(max + log((double)sum));
    return sum == 0.0f ? 0.0f : 1.0f / denominator;
}

VFN int64_t tile_out_at(const mlar_layer_params *layer, int32_t row, int32_t head) {
    return row * layer->out_row_stride + head * layer->out_head_stride;
}

static void tile_finish_part(const mlar_stage_args *args, const mlar_unit *unit, const mlar_part *part,
                             const tile_state *state) {
    const mlar_layer_params *layer = mlar_layer_of(args);
    const mlar_shape *shape = &args->shape;
    for (int32_t i = 0; i < state->heads; ++i) {
        const int32_t head = unit->head_begin + i;
        const int64_t place = (int64_t)part->slot * shape->heads + head;
        float *out = state->out + (int64_t)i * state->out_row;
        if (!state->started) memset(out, 0, (size_t)shape->d_v * sizeof *out);
        if (part->slot < 0) {
            const float factor = tile_finish_lse(layer, part->row, head, state->max[i], state->sum[i]);
            tile_write(layer, tile_out_at(layer, part->row, head), out, shape->d_v, factor);
            continue;
        }
        args->partial_ml[2 * place] = state->sum[i] == 0.0f ? -INFINITY : state->max[i];
        args->partial_ml[2 * place + 1] = state->sum[i];
        if (out != args->partial_out + place * shape->d_v)
            memcpy(args->partial_out + place * shape->d_v, out, (size_t)shape->d_v * sizeof *out);
    }
}

/* ---- attention ---- */

/* Sums that become a partial result are made in its place, where neither heads nor columns need padding. */
static void tile_begin(tile_state *state, const mlar_stage_args *args, const mlar_unit *unit,
                       const mlar_part *part, const mlar_cpu_scratch *scratch) {
    const mlar_shape *shape = &args->shape;
    state->heads = unit->head_end - unit->head_begin;
    state->lanes = tile_padded(state->heads);
    state->columns = tile_padded(shape->d_qk);
    state->value_columns = tile_padded(shape->d_v);
    state->started = 0;
    state->keys = scratch->keys;
    state->values = TILE_PACK == 1 ? scratch->keys : scratch->keys + MLAR_KEY_TILE / 2 * state->columns;
    state->queries = scratch->queries;
    state->scores = scratch->scores;
    state->out = scratch->out;
    state->out_row = state->value_columns;
    if (part->slot >= 0 && state->lanes == state->heads && state->value_columns == shape->d_v)
        state->out = args->partial_out + ((int64_t)part->slot * shape->heads + unit->head_begin) * shape->d_v;
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
    const tile_row row = {
        .q = layer->q + part->row * layer->q_row_stride + unit->head_begin * layer->q_head_stride,
        .head_stride = layer->q_head_stride,
        .elements = shape->d_qk,
    };
    tile_state state;
    tile_tokens tokens[2]; /* of this tile and of the next */
    uint64_t invalid = 0;

    tile_begin(&state, args, unit, part, scratch);
    tile_collect(args, part, part->tile_begin, gathered, &tokens[0], &invalid);
    state.ahead = tile_ahead_of(&tokens[0]);
    tile_fetch(&state.ahead, INT32_MAX);
    tile_load_queries(&state, &row, layer->scale);
    for (int32_t tile = part->tile_begin; tile < part->tile_end; ++tile) {
        tile_tokens *now = &tokens[(tile - part->tile_begin) & 1],
                    *ahead = &tokens[(tile - part->tile_begin + 1) & 1];
        state.ahead = (tile_ahead){0};
        if (tile + 1 < part->tile_end) {
            tile_collect(args, part, tile + 1, gathered, ahead, &invalid);
            state.ahead = tile_ahead_of(ahead);
        }
        if (now->count > 0) {
            tile_convert(now, state.keys, state.values);
            tile_scores(&state, now->count);
            tile_weights(&state, now->count);
            tile_accumulate(&state, now->count);
            state.started = 1;
        }
        tile_fetch(&state.ahead, INT32_MAX); /* what there was no time for */
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
    while (mlar_next_part(args, layer, &span, &part))
        tile_attend_part(args, &unit, &part, gathered, &scratch);
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
            const uint8_t *record = work.scope->cache + place.record;
            tile_ahead ahead = {&record, 1, tile_record_bytes(&format), 0, 0};
            tile_fetch(&ahead, INT32_MAX);
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
    const mlar_layer_params *layer = mlar_layer_of(args);
    const mlar_shape *shape = &args->shape;
    const int32_t row = args->row_begin + (int32_t)item;
    const mlar_row_parts parts = mlar_row_parts_of(args, layer, row);
    (void)scratch;
    if (parts.parts == 1) return;
    for (int32_t head = 0; head < shape->heads; ++head) {
        const int64_t first = (int64_t)parts.first_slot * shape->heads + head;
        float merged[MLAR_MAX_D_QK] = {0};
        float max = -INFINITY, sum = 0.0f, factor;
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
                v_store(merged + d, v_fma(v_set(moved), v_load(out + d), v_load(merged + d)));
            for (; d < shape->d_v; ++d) merged[d] += moved * out[d];
        }
        factor = tile_finish_lse(layer, row, head, max, sum);
        tile_write(layer, tile_out_at(layer, row, head), merged, shape->d_v, factor);
    }
}

#endif
