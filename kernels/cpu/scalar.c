/* SPDX-License-Identifier: Apache-2.0
 *
 * scalar.c: the decode step in plain C, the reference that every other variant is held against, and what runs
 * where there is no variant. It reads like SPEC: which entries count (section 4), dequantisation (section 3),
 * attention (section 5). Sums are f32, in an order that depends on the row alone. It must not know threads.
 */
#include "kernels/cpu/kernels.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "kernels/numeric.h"
#include "kernels/schedule.h"

enum { LANES = 16 };

/* Elements between two rows in scratch: rows are padded with zeros to whole groups of lanes. */
static int32_t padded(int32_t elements) {
    return (elements + LANES - 1) / LANES * LANES;
}

/* ---- dequantisation ---- */

/* One token's d_qk bf16 values; a NaN stays a NaN. The slot counts. */
static void decode_slot(const mlar_scope_params *scope, const mlar_shape *shape, int32_t slot, uint16_t *to) {
    const mlar_slot_place place = mlar_slot_place_of(scope, (uint32_t)slot);
    const uint8_t *record = scope->cache + place.record;
    const uint8_t *scales = scope->cache + place.scales;
    const int32_t nope = shape->nope;
    const size_t rope_bytes = (size_t)(2 * shape->rope);
    switch (scope->layout) {
    case MLAR_LAYOUT_DSV4: /* nope fp8, one e8m0 scale for each 64; rope bf16 */
        for (int32_t d = 0; d < nope; ++d)
            to[d] = mlar_bf16_dequantise(record[d], scope->fp8, mlar_e8m0_to_f32_bits(scales[d / 64]));
        memcpy(to + nope, record + nope, rope_bytes);
        break;
    case MLAR_LAYOUT_V32: /* nope fp8, one f32 scale for each 128; rope bf16 */
        for (int32_t d = 0; d < nope; ++d) {
            uint32_t scale;
            memcpy(&scale, scales + d / 128 * 4, sizeof scale);
            to[d] = mlar_bf16_dequantise(record[d], scope->fp8, scale);
        }
        memcpy(to + nope, record + nope + nope / 128 * 4, rope_bytes);
        break;
    default: /* bf16 */
        memcpy(to, record, (size_t)(2 * shape->d_qk));
    }
}

static void gather(const mlar_stage_args *args, int64_t item, void *scratch) {
    const mlar_cpu_gather_work work = mlar_cpu_gather_work_of(args, item);
    uint64_t invalid = 0;
    (void)scratch;
    for (int32_t j = 0; j < work.count; ++j) {
        const int32_t slot = work.entries[j];
        if (mlar_slot_counts(work.scope, slot))
            decode_slot(work.scope, &args->shape, slot, work.to + (int64_t)j * args->shape.d_qk);
        else if (mlar_slot_is_invalid(work.scope, slot))
            ++invalid;
    }
    mlar_cpu_count_invalid(args, invalid);
}

/* ---- attention ---- */

/* The keys of one tile's counting entries, as f32 with NaN as 0, one after the other; returns how many. The
 * others leave no trace: a mask by score could not be told from a genuine score of -inf. */
static int32_t load_tile(const mlar_stage_args *args, const mlar_part *part, int32_t tile, int32_t gathered,
                         float *keys, uint64_t *invalid) {
    const mlar_layer_params *layer = mlar_layer_of(args);
    const mlar_tile place = mlar_tile_of(&part->lists, tile);
    const mlar_scope_params *scope = &layer->scope[place.scope];
    const int32_t d_qk = args->shape.d_qk, stride = padded(d_qk);
    int32_t count = 0;
    for (int32_t j = 0; j < place.count; ++j) {
        uint16_t decoded[MLAR_MAX_D_QK];
        const uint16_t *from = decoded;
        float *key = keys + (int64_t)count * stride;
        const int32_t slot = part->lists.entries[place.scope][place.first + j];
        if (!mlar_slot_counts(scope, slot)) {
            if (mlar_slot_is_invalid(scope, slot)) ++*invalid;
            continue;
        }
        if (gathered)
            from =
                args->gathered[place.scope] + mlar_gathered_offset(args, scope, part->row, place.first + j);
        else
            decode_slot(scope, &args->shape, slot, decoded);
        for (int32_t d = 0; d < d_qk; ++d) key[d] = mlar_bf16_to_f32(mlar_bf16_nan_to_zero(from[d]));
        for (int32_t d = d_qk; d < stride; ++d) key[d] = 0.0f;
        ++count;
    }
    return count;
}

/* Sixteen sums side by side, so that the compiler can use what vectors it has without changing the order. */
static float score(const float *query, const float *key, int32_t elements, float scale) {
    float lane[LANES] = {0};
    double sum = 0;
    for (int32_t d = 0; d < elements; d += LANES)
        for (int32_t i = 0; i < LANES; ++i) lane[i] += query[d + i] * key[d + i];
    for (int32_t i = 0; i < LANES; ++i) sum += lane[i];
    return (float)(scale * sum);
}

/* A softmax scale below 1 goes into the query, before the sum: scores are promised up to 2^126, and without
 * it their sums would overflow f32. One above 1 comes after it. */
static float scale_of_query(float scale) {
    return fabsf(scale) < 1.0f ? scale : 1.0f;
}
static float scale_of_score(float scale) {
    return fabsf(scale) < 1.0f ? 1.0f : scale;
}

/* exp(score - max), where a score of -inf gives 0 even if max is -inf, and NaN gives NaN. */
static float weight(float value, float max) {
    return value == -INFINITY ? 0.0f : expf(value - max);
}

/* What moves a sum from one maximum to another; both may be -inf, when there was nothing to move. */
static float rescale(float from, float to) {
    return from == to ? 1.0f : expf(from - to);
}

/* One head meets one tile: online softmax. `max` skips NaN; a NaN score lives on in `sum` and `out`. */
static void attend_tile(const float *query, const float *keys, int32_t count, const mlar_shape *shape,
                        float scale, float *scores, float *max, float *sum, float *out) {
    const int32_t d_qk = padded(shape->d_qk), d_v = shape->d_v;
    float new_max = *max, moved;
    for (int32_t j = 0; j < count; ++j) {
        scores[j] = score(query, keys + (int64_t)j * d_qk, d_qk, scale);
        if (scores[j] > new_max) new_max = scores[j];
    }
    moved = rescale(*max, new_max);
    *max = new_max;
    *sum *= moved;
    if (moved != 1.0f)
        for (int32_t d = 0; d < d_v; ++d) out[d] *= moved;
    for (int32_t j = 0; j < count; ++j) {
        const float *value = keys + (int64_t)j * d_qk; /* V is the first d_v elements of K */
        const float p = weight(scores[j], new_max);
        *sum += p;
        for (int32_t d = 0; d < d_v; ++d) out[d] += p * value[d];
    }
}

/* out = sum / (l + exp(sink - m)), the same as out * 1 / (1 + exp(sink - lse)); lse without the sink. A row
 * that nothing counted in has sum = 0. */
static void finish_head(const mlar_stage_args *args, int32_t row, int32_t head, float max, float sum,
                        const float *out) {
    const mlar_layer_params *layer = mlar_layer_of(args);
    const int64_t at = (int64_t)row * layer->out_row_stride + head * layer->out_head_stride;
    const float denominator = layer->sink ? sum + expf(layer->sink[head] - max) : sum;
    const float factor = sum == 0.0f ? 0.0f : 1.0f / denominator;
    for (int32_t d = 0; d < args->shape.d_v; ++d) {
        const float value = sum == 0.0f ? 0.0f : out[d] * factor;
        if (layer->out_f32)
            ((float *)layer->out)[at + d] = value;
        else
            ((uint16_t *)layer->out)[at + d] = mlar_bf16_from_f32(value);
    }
    if (layer->lse)
        layer->lse[(int64_t)row * layer->lse_row_stride + head * layer->lse_head_stride] =
            (float)(max + log((double)sum)); /* -inf where nothing counted */
}

/* Part of one row, one head group. */
static void attend_part(const mlar_stage_args *args, const mlar_unit *unit, const mlar_part *part,
                        int32_t gathered, const mlar_cpu_scratch *scratch) {
    const mlar_layer_params *layer = mlar_layer_of(args);
    const mlar_shape *shape = &args->shape;
    const int32_t stride = padded(shape->d_qk), heads = unit->head_end - unit->head_begin;
    uint64_t invalid = 0;

    for (int32_t h = 0; h < heads; ++h) {
        const uint16_t *from = layer->q + (int64_t)part->row * layer->q_row_stride +
                               (unit->head_begin + h) * layer->q_head_stride;
        float *query = scratch->queries + (int64_t)h * stride;
        for (int32_t d = 0; d < shape->d_qk; ++d)
            query[d] = scale_of_query(layer->scale) * mlar_bf16_to_f32(from[d]);
        for (int32_t d = shape->d_qk; d < stride; ++d) query[d] = 0.0f;
        scratch->max[h] = -INFINITY;
        scratch->sum[h] = 0.0f;
        memset(scratch->out + (int64_t)h * shape->d_v, 0, (size_t)shape->d_v * sizeof(float));
    }
    for (int32_t tile = part->tile_begin; tile < part->tile_end; ++tile) {
        const int32_t count = load_tile(args, part, tile, gathered, scratch->keys, &invalid);
        for (int32_t h = 0; h < heads; ++h)
            attend_tile(scratch->queries + (int64_t)h * stride, scratch->keys, count, shape,
                        scale_of_score(layer->scale), scratch->scores, &scratch->max[h], &scratch->sum[h],
                        scratch->out + (int64_t)h * shape->d_v);
    }
    for (int32_t h = 0; h < heads; ++h) {
        const int32_t head = unit->head_begin + h;
        const float *out = scratch->out + (int64_t)h * shape->d_v;
        if (part->slot < 0) {
            finish_head(args, part->row, head, scratch->max[h], scratch->sum[h], out);
        } else {
            const int64_t place = (int64_t)part->slot * shape->heads + head;
            memcpy(args->partial_out + place * shape->d_v, out, (size_t)shape->d_v * sizeof(float));
            args->partial_ml[2 * place] = scratch->max[h];
            args->partial_ml[2 * place + 1] = scratch->sum[h];
        }
    }
    /* Once per entry and step: gather has counted already, and other head groups read the same lists. */
    if (!gathered && unit->head_begin == 0) mlar_cpu_count_invalid(args, invalid);
}

static void attend(const mlar_stage_args *args, int64_t item, int32_t gathered, void *memory) {
    const mlar_layer_params *layer = mlar_layer_of(args);
    const mlar_cpu_scratch scratch = mlar_cpu_scratch_carve(&args->shape, memory);
    mlar_unit unit;
    mlar_span span;
    mlar_part part;
    if (mlar_cpu_tail_item(args, item)) return;
    unit = mlar_unit_of(args, item);
    span = mlar_worker_span(args, layer, unit.worker);
    while (mlar_next_part(args, layer, &span, &part)) attend_part(args, &unit, &part, gathered, &scratch);
}

static void attend_gathered(const mlar_stage_args *args, int64_t item, void *scratch) {
    attend(args, item, 1, scratch);
}

static void attend_direct(const mlar_stage_args *args, int64_t item, void *scratch) {
    attend(args, item, 0, scratch);
}

/* ---- merge ---- */

static void combine(const mlar_stage_args *args, int64_t item, void *memory) {
    const mlar_shape *shape = &args->shape;
    const mlar_cpu_scratch scratch = mlar_cpu_scratch_carve(shape, memory);
    const int32_t row = args->row_begin + (int32_t)item;
    const mlar_row_parts parts = mlar_row_parts_of(args, mlar_layer_of(args), row);
    if (parts.parts == 1) return;
    for (int32_t head = 0; head < shape->heads; ++head) {
        const int64_t first = (int64_t)parts.first_slot * shape->heads + head;
        float max = -INFINITY, sum = 0.0f;
        for (int32_t i = 0; i < parts.parts; ++i) {
            const float *ml = args->partial_ml + 2 * (first + (int64_t)i * shape->heads);
            if (ml[0] > max) max = ml[0];
        }
        memset(scratch.out, 0, (size_t)shape->d_v * sizeof(float));
        for (int32_t i = 0; i < parts.parts; ++i) {
            const int64_t place = first + (int64_t)i * shape->heads;
            const float *out = args->partial_out + place * shape->d_v;
            const float moved = rescale(args->partial_ml[2 * place], max);
            sum += moved * args->partial_ml[2 * place + 1];
            for (int32_t d = 0; d < shape->d_v; ++d) scratch.out[d] += moved * out[d];
        }
        finish_head(args, row, head, max, sum, scratch.out);
    }
}

const mlar_cpu_kernels mlar_cpu_kernels_scalar = {
    .isa = "scalar",
    .gather = gather,
    .attend_gathered = attend_gathered,
    .attend_direct = attend_direct,
    .combine = combine,
};
