/* SPDX-License-Identifier: Apache-2.0
 *
 * gather.hip: the entries that count, dequantised into the gather buffer, bit for bit as SPEC section 3 says.
 *
 * Each wave works alone. It takes TOKENS consecutive entries of one row's list in one scope: a lane each finds out
 * whether they count and where their tokens lie, then all lanes ask for all the tokens' bytes, eight columns a lane and
 * piece, before the first is converted; and what the index list says of the wave's next entries is asked for behind
 * them. Eight columns are 16 bytes of the buffer, so that a wave writes whole lines. Rows of entries that do not count
 * are not written.
 *
 * The key tiles that attention reads first are written last: of a buffer that is larger than the cache they are what is
 * still there. */
#include "kernels/gpu/attend_sizes.h"
#include "kernels/gpu/dequant.h"
#include "kernels/gpu/layer.h"

#define WAVES         (MLAR_GATHER_THREADS / MLAR_WAVE)
#define PIECE         8                   /* columns */
#define WAVE_COLUMNS  (PIECE * MLAR_WAVE) /* that a wave has of a token at once */
#define PIECES        (512 / WAVE_COLUMNS)
#define IN_FLIGHT     8 /* pieces of a lane that are under way together */
#define TOKENS        (IN_FLIGHT / PIECES)
#define ITEMS_OF_TILE (MLAR_KEY_TILE / TOKENS)

/* Of a wave, in LDS. */
typedef struct gather_tokens {
    uint64_t record[TOKENS]; /* addresses; of no meaning where the entry does not count */
    uint64_t scales[TOKENS];
    mlar_u32x4 scale_words[TOKENS]; /* of a form that is `wide` */
} gather_tokens;

/* What there is to do: items, TOKENS entries each, in the order in which they are done. */
typedef struct gather_work {
    const mlar_stage_args *args;
    const mlar_layer_params *layer; /* in LDS */
    uint32_t rows;
    uint32_t window_tiles, tiles; /* of a row's lists at their full width */
} gather_work;

MLAR_DEVICE uint32_t items_of(const gather_work *work) {
    return work->rows * work->tiles * ITEMS_OF_TILE;
}

/* An item, and what a lane has asked for of the entry that is its own. */
typedef struct gather_item {
    int32_t row, scope, first;
    int32_t slot;            /* dense lists; -1 beyond the width */
    mlar_length_words words; /* of the list's length */
} gather_item;

MLAR_DEVICE gather_item ask_item(const gather_work *work, uint32_t number) {
    const int32_t lane = mlar_lane();
    number = mlar_uniform_here(number); /* what follows from it is cheap, and much to keep */
    const uint32_t tile_row = number / ITEMS_OF_TILE, tiles_after = tile_row / work->rows;
    const uint32_t tile = work->tiles - 1 - tiles_after;
    gather_item item;
    item.row = work->args->row_begin + (int32_t)(tile_row - tiles_after * work->rows);
    item.scope = tile >= work->window_tiles;
    item.first = (int32_t)((item.scope ? tile - work->window_tiles : tile) * MLAR_KEY_TILE +
                           number % ITEMS_OF_TILE * TOKENS);
    const mlar_scope_params *scope = &work->layer->scope[item.scope];
    item.words = mlar_length_words_of(scope, item.row);
    item.slot = -1;
    if (lane < TOKENS && item.first + lane < scope->width && scope->list_form == MLAR_LIST_DENSE)
        item.slot =
            (int32_t)mlar_load4(scope->indices + item.row * scope->index_row_stride + item.first + lane);
    return item;
}

/* Where the item's tokens lie, into `tokens`; returns a bit for each that counts. */
MLAR_DEVICE uint32_t find_tokens(const mlar_stage_args *args, const mlar_scope_params *scope,
                                 const gather_item *item, gather_tokens *tokens) {
    const int32_t lane = mlar_lane();
    int64_t begin;
    const int32_t length = mlar_row_length(scope, item->row, item->words, &begin);
    const int32_t there = lane < TOKENS && item->first + lane < length;
    int32_t slot = item->slot;
    if (there && scope->list_form == MLAR_LIST_RAGGED)
        slot = (int32_t)mlar_load4(scope->indices + begin + item->first + lane);
    const int32_t counts = there && mlar_slot_counts(scope, slot);
    const int32_t invalid = mlar_popcount(mlar_ballot(there && mlar_slot_is_invalid(scope, slot)));
    if (counts) {
        const mlar_slot_place place = mlar_slot_place_of(scope, (uint32_t)slot);
        tokens->record[lane] = (uint64_t)scope->cache + place.record;
        tokens->scales[lane] = (uint64_t)scope->cache + place.scales;
    }
    if (invalid && lane == 0) mlar_atomic_add_u64(args->invalid_indices, (uint64_t)invalid);
    return (uint32_t)mlar_ballot(counts);
}

/* All the scales of the token that is this lane's own: 8 bytes of e8m0, or up to four f32. */
template <int32_t LAYOUT> MLAR_DEVICE mlar_u32x4 ask_scales(const gather_tokens *tokens, uint32_t counts) {
    const int32_t lane = mlar_lane();
    mlar_u32x4 words = {0, 0, 0, 0};
    if (LAYOUT == MLAR_LAYOUT_BF16 || lane >= TOKENS || !(counts >> lane & 1)) return words;
    if (LAYOUT == MLAR_LAYOUT_V32) return mlar_load16((const void *)tokens->scales[lane]);
    const mlar_u32x2 bytes = mlar_load8((const void *)tokens->scales[lane]);
    words.x = bytes.x, words.y = bytes.y;
    return words;
}

/* Converts and stores the lane's pieces of a token from `column` on, if they are ordinary; returns whether all were. */
MLAR_DEVICE int32_t copy_ordinary(const mlar_record_form *form, const mlar_chunk_place place[PIECES],
                                  mlar_chunk chunk[PIECES], const mlar_u32x4 *scale_words, uint16_t *row,
                                  int32_t column) {
    int32_t strange = 0;
    MLAR_UNROLL for (int32_t p = 0; p < PIECES; ++p) {
        chunk[p].scale = form->scale_is_f32 ? ((const uint32_t *)scale_words)[place[p].scale]
                                            : ((const uint8_t *)scale_words)[place[p].scale];
        strange |= place[p].fp8 && !mlar_chunk_is_ordinary(form, &chunk[p]);
    }
    if (mlar_any(strange)) return 0;
    MLAR_UNROLL for (int32_t p = 0; p < PIECES; ++p) {
        uint32_t words[8];
        mlar_chunk_convert(words, form, &chunk[p], place[p].fp8, 0);
        const mlar_u32x4 four = {words[0], words[1], words[2], words[3]};
        if (place[p].bytes) mlar_store16(row + column + p * WAVE_COLUMNS, four);
    }
    return 1;
}

/* A token of any bytes and alignment, chunk by chunk. */
MLAR_DEVICE void copy_any(const mlar_record_form *form, uint64_t record, uint64_t scales, uint16_t *row) {
    MLAR_NO_UNROLL for (int32_t column = mlar_lane() * MLAR_CHUNK; column < form->columns;
                        column += MLAR_WAVE * MLAR_CHUNK) {
        const mlar_chunk_place place = mlar_chunk_place_of(form, column);
        const mlar_chunk chunk =
            mlar_chunk_load_any(form, &place, (const uint8_t *)record, (const uint8_t *)scales);
        uint32_t words[8];
        mlar_chunk_convert_exact(words, form, &chunk, place.fp8, 0);
        MLAR_UNROLL for (int32_t i = 0; i < 8; ++i) if (column + 2 * i < form->columns)
            mlar_store4(row + column + 2 * i, words[i]);
    }
}

/* The tokens that count, of a layout known and a form that is `wide`, to rows from `to` on; asks for item number
 * `ahead` on the way. Returns which of them copy_any must do. */
template <int32_t LAYOUT>
MLAR_DEVICE uint32_t copy_tokens(const gather_work *work, const mlar_record_form *scope_form,
                                 gather_tokens *tokens, uint32_t counts, uint16_t *to, uint32_t ahead,
                                 gather_item *next) {
    mlar_record_form form = *scope_form;
    uint32_t odd = 0;
    form.scale_is_f32 = LAYOUT == MLAR_LAYOUT_V32;
    MLAR_NO_UNROLL for (int32_t begin = 0; begin < form.columns; begin += PIECES * WAVE_COLUMNS) {
        const int32_t column = begin + mlar_lane() * PIECE;
        mlar_chunk chunk[TOKENS][PIECES];
        mlar_chunk_place place[PIECES];
        mlar_u32x4 scale_words = {0, 0, 0, 0};
        MLAR_UNROLL for (int32_t p = 0; p < PIECES; ++p) {
            place[p] = mlar_chunk_place_of(&form, column + p * WAVE_COLUMNS);
            if (LAYOUT == MLAR_LAYOUT_BF16) place[p].fp8 = 0;
        }
        if (begin == 0) scale_words = ask_scales<LAYOUT>(tokens, counts);
        MLAR_UNROLL for (int32_t t = 0; t < TOKENS; ++t) MLAR_UNROLL for (int32_t p = 0; p < PIECES; ++p)
            chunk[t][p] =
                mlar_chunk_load_eight(&form, &place[p], (const uint8_t *)tokens->record[t], counts >> t & 1);
        if (begin == 0) {
            *next = ask_item(work, ahead);
            if (mlar_lane() < TOKENS) tokens->scale_words[mlar_lane()] = scale_words;
            mlar_wave_sync();
        }
        MLAR_UNROLL for (int32_t t = 0; t < TOKENS; ++t) {
            if (!(counts >> t & 1)) continue;
            if (!copy_ordinary(&form, place, chunk[t], &tokens->scale_words[t],
                               to + (int64_t)t * form.columns, column))
                odd |= 1u << t;
        }
    }
    return odd;
}

/* The item, and asks for item number `ahead`. */
MLAR_DEVICE gather_item copy_item(const gather_work *work, const gather_item *item, gather_tokens *tokens,
                                  uint32_t ahead) {
    const int32_t s = mlar_uniform(item->scope);
    const mlar_scope_params *scope = &work->layer->scope[s];
    const mlar_record_form form = mlar_record_form_of(scope, &work->args->shape);
    const uint32_t counts = find_tokens(work->args, scope, item, tokens);
    uint16_t *const to =
        work->args->gathered[s] + mlar_gathered_offset(work->args, scope, item->row, item->first);
    uint32_t odd = counts;
    gather_item next;
    mlar_wave_sync();
    if (!form.wide)
        next = ask_item(work, ahead);
    else if (scope->layout == MLAR_LAYOUT_DSV4)
        odd = copy_tokens<MLAR_LAYOUT_DSV4>(work, &form, tokens, counts, to, ahead, &next);
    else if (scope->layout == MLAR_LAYOUT_V32)
        odd = copy_tokens<MLAR_LAYOUT_V32>(work, &form, tokens, counts, to, ahead, &next);
    else
        odd = copy_tokens<MLAR_LAYOUT_BF16>(work, &form, tokens, counts, to, ahead, &next);
    MLAR_NO_UNROLL for (int32_t t = 0; t < TOKENS; ++t) if (odd >> t & 1)
        copy_any(&form, tokens->record[t], tokens->scales[t], to + (int64_t)t * form.columns);
    mlar_wave_sync();
    return next;
}

MLAR_KERNEL MLAR_BLOCKS(MLAR_GATHER_THREADS,
                        MLAR_GATHER_BLOCKS) void mlar_gather(MLAR_BY_VALUE(mlar_stage_args) by_value) {
    MLAR_SHARED static mlar_layer_params layer;
    MLAR_SHARED static gather_tokens tokens_of_wave[WAVES];
    const mlar_stage_args *args = MLAR_ARGS(mlar_stage_args, by_value);
    gather_tokens *const tokens = &tokens_of_wave[mlar_wave()];
    gather_work work = {args, &layer, 0, 0, 0};
    mlar_let_next_begin();
    work.rows =
        (uint32_t)mlar_uniform(mlar_live_rows_within(mlar_live_rows(args), args->row_begin, args->row_count));
    mlar_layer_to_lds(args, &layer, MLAR_GATHER_THREADS);
    work.window_tiles = work.tiles =
        (uint32_t)mlar_uniform(mlar_ceil_div(layer.scope[0].width, MLAR_KEY_TILE));
    if (layer.scope_count > 1)
        work.tiles += (uint32_t)mlar_uniform(mlar_ceil_div(layer.scope[1].width, MLAR_KEY_TILE));
    const uint32_t items = items_of(&work), step = (uint32_t)(mlar_blocks(MLAR_GATHER_THREADS) * WAVES);
    uint32_t number = (uint32_t)(mlar_block() * WAVES + mlar_wave());
    if (number >= items) return;
    gather_item item = ask_item(&work, number);
    for (; number < items; number += step)
        item = copy_item(&work, &item, tokens, number + step < items ? number + step : number);
}
