/* SPDX-License-Identifier: Apache-2.0
 *
 * gather.hip: the entries that count, dequantised into the gather buffer, bit for bit as SPEC section 3 says.
 *
 * An item is 64 consecutive entries of one row's list in one scope. A block takes items in turns: 64 threads
 * find out which entries count and where their tokens lie, then groups of 32 lanes copy a token each, 16
 * columns a lane. Rows of entries that do not count are not written. */
#include "kernels/gpu/dequant.h"
#include "kernels/gpu/layer.h"

#define THREADS        256
#define TOKEN_LANES    32
#define TOKENS_AT_ONCE (THREADS / TOKEN_LANES)
#define IN_FLIGHT      4 /* tokens of one lane group whose loads are under way together */

typedef struct gather_shared {
    mlar_layer_params layer;
    uint64_t record[MLAR_KEY_TILE]; /* address, 0: the entry does not count */
    uint64_t scales[MLAR_KEY_TILE];
} gather_shared;

typedef struct gather_item {
    const int32_t *entries;
    uint16_t *to;
    int32_t scope, count; /* count 0: nothing there */
} gather_item;

MLAR_DEVICE gather_item item_of(const mlar_stage_args *args, const mlar_layer_params *layer,
                                int32_t window_items, int32_t row_items, int32_t number) {
    const int32_t row = args->row_begin + number / row_items, place = number % row_items;
    const int32_t scope = place >= window_items;
    const int32_t first = (scope ? place - window_items : place) * MLAR_KEY_TILE;
    const mlar_row_lists lists = mlar_row_lists_of(layer, row);
    gather_item item;
    item.scope = scope;
    item.count =
        mlar_max_i32(0, mlar_min_i32((scope ? lists.length[1] : lists.length[0]) - first, MLAR_KEY_TILE));
    item.entries = (scope ? lists.entries[1] : lists.entries[0]) + first;
    item.to = args->gathered[scope] + mlar_gathered_offset(args, &layer->scope[scope], row, first);
    return item;
}

/* By the first 64 threads, whole waves. */
MLAR_DEVICE void find_tokens(const mlar_stage_args *args, gather_shared *shared, const gather_item *item) {
    const mlar_scope_params *scope = &shared->layer.scope[item->scope];
    const int32_t j = mlar_thread(), there = j < item->count;
    const int32_t slot = there ? (int32_t)mlar_load4(item->entries + j) : -1;
    const int32_t invalid = mlar_popcount(mlar_ballot(there && mlar_slot_is_invalid(scope, slot)));
    uint64_t record = 0, scales = 0;
    if (there && mlar_slot_counts(scope, slot)) {
        const mlar_slot_place place = mlar_slot_place_of(scope, (uint32_t)slot);
        record = (uint64_t)scope->cache + place.record;
        scales = (uint64_t)scope->cache + place.scales;
    }
    shared->record[j] = record;
    shared->scales[j] = scales;
    if (invalid && mlar_lane() == 0) mlar_atomic_add_u64(args->invalid_indices, (uint64_t)invalid);
}

/* The columns of a chunk that exist, to a row of the buffer. */
MLAR_DEVICE void store(uint16_t *to, const uint32_t words[8], int32_t columns, int32_t wide) {
    if (wide) {
        MLAR_UNROLL for (int32_t i = 0; i < 2; ++i) {
            const mlar_u32x4 four = {words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3]};
            if (8 * i < columns) mlar_store16(to + 8 * i, four);
        }
    } else {
        MLAR_UNROLL for (int32_t i = 0; i < 8; ++i) if (2 * i < columns) mlar_store4(to + 2 * i, words[i]);
    }
}

/* Tokens first, first + TOKENS_AT_ONCE, .. of the item, columns from `column` on. All lanes take part. */
MLAR_DEVICE void copy_tokens(const gather_shared *shared, const gather_item *item,
                             const mlar_record_form *form, int32_t first, int32_t column) {
    const mlar_chunk_place place = mlar_chunk_place_of(form, column);
    const int32_t columns = form->columns - column, wide = form->columns % 8 == 0;
    mlar_chunk chunk[IN_FLIGHT];
    const uint8_t *record[IN_FLIGHT];
    int32_t odd = 0;
    MLAR_UNROLL for (int32_t i = 0; i < IN_FLIGHT; ++i) {
        const int32_t j = first + i * TOKENS_AT_ONCE;
        const uint8_t *scales = (const uint8_t *)shared->scales[j];
        record[i] = columns > 0 ? (const uint8_t *)shared->record[j] : 0;
        chunk[i] = mlar_chunk_none(form);
        if (record[i])
            chunk[i] = form->wide ? mlar_chunk_load_wide(form, &place, record[i], scales)
                                  : mlar_chunk_load_any(form, &place, record[i], scales);
        odd |= place.fp8 && !mlar_chunk_is_ordinary(form, &chunk[i]);
    }
    odd = mlar_any(odd);
    MLAR_UNROLL for (int32_t i = 0; i < IN_FLIGHT; ++i) {
        uint16_t *row = item->to + (int64_t)(first + i * TOKENS_AT_ONCE) * form->columns;
        uint32_t words[8];
        if (odd)
            mlar_chunk_convert_exact(words, form, &chunk[i], place.fp8, 0);
        else
            mlar_chunk_convert(words, form, &chunk[i], place.fp8, 0);
        if (record[i]) store(row + column, words, columns, wide);
    }
}

MLAR_KERNEL MLAR_BLOCK(THREADS) void mlar_gather(MLAR_BY_VALUE(mlar_stage_args) by_value) {
    MLAR_SHARED static gather_shared shared;
    const mlar_stage_args *args = MLAR_ARGS(mlar_stage_args, by_value);
    const int32_t rows =
        mlar_uniform(mlar_live_rows_within(mlar_live_rows(args), args->row_begin, args->row_count));
    const int32_t group = mlar_thread() / TOKEN_LANES, lane = mlar_thread() % TOKEN_LANES;
    mlar_layer_to_lds(args, &shared.layer, THREADS);
    const int32_t window_items = mlar_uniform(mlar_ceil_div(shared.layer.scope[0].width, MLAR_KEY_TILE));
    const int32_t extra_items = mlar_uniform(
        shared.layer.scope_count > 1 ? mlar_ceil_div(shared.layer.scope[1].width, MLAR_KEY_TILE) : 0);
    const int64_t items = (int64_t)rows * (window_items + extra_items);
    for (int64_t number = mlar_block(); number < items; number += mlar_blocks(THREADS)) {
        const gather_item item =
            item_of(args, &shared.layer, window_items, window_items + extra_items, (int32_t)number);
        const int32_t count = mlar_uniform(item.count);
        if (count == 0) continue;
        const mlar_record_form form =
            mlar_record_form_of(&shared.layer.scope[mlar_uniform(item.scope)], &args->shape);
        mlar_block_sync();
        if (mlar_thread() < MLAR_KEY_TILE) find_tokens(args, &shared, &item);
        mlar_block_sync();
        for (int32_t first = 0; first < count; first += IN_FLIGHT * TOKENS_AT_ONCE)
            for (int32_t column = 0; column < form.columns; column += TOKEN_LANES * MLAR_CHUNK)
                copy_tokens(&shared, &item, &form, first + group, column + lane * MLAR_CHUNK);
    }
}
