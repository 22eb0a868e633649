/* SPDX-License-Identifier: Apache-2.0
 *
 * attend_block.h: the portable attention engine, for every target: 256 threads serve a head group.
 *
 * Columns are split over waves, for everything. A wave owns 64 or 128 columns of the key (and at most 32 more
 * of keys wider than 512): it loads and converts them into LDS, multiplies its columns of Q with them, and
 * later its columns of V, which are the same LDS, with the weights. So the key tile needs no barrier; a
 * barrier stands only where the waves' partial scores are summed, and where the weights have been written:
 *
 *     convert the own columns of sub-tile n (loaded before)      LDS keys    bf16 [tokens][columns]
 *     begin to load the own columns of n + 1
 *     partial scores, own columns                                LDS scores  f32 [wave][heads][tokens]
 *     -- barrier --
 *     sum over waves in order, mask, online softmax              LDS weights bf16 [heads][tokens], LDS moved
 * [heads]
 *     -- barrier --
 *     O = O * moved + weights * V, own columns                   registers
 *
 * Q (own columns) and O (own columns) stay in registers; heads beyond the group are computed as zeros and not
 * written. A group of at most 16 heads has weights of two bf16 each, which costs little there: with few heads
 * the rounding errors of one bf16 do not average out, and SPEC's bound of relative L2 leaves little room.
 * Masked tokens are zeros in LDS and have weight 0 whatever their score. Sums have a fixed order, so results
 * do too. Key columns beyond d_qk are zeros. This file knows no target: mma.h and attend_sizes.h do. */
#ifndef MLAR_KERNELS_GPU_ATTEND_BLOCK_H
#define MLAR_KERNELS_GPU_ATTEND_BLOCK_H
#include "kernels/gpu/attend_common.h"
#include "kernels/gpu/attend_sizes.h"
#include "kernels/gpu/dequant.h"
#include "kernels/gpu/mma.h"

/* Registers decide how much is done side by side: a CDNA wave has four times an SM's or an RDNA wave's. */
#if defined(__GFX9__)
#define MLAR_SCORE_STRIPS              4
#define MLAR_LOADS_AHEAD(heads, units) 1
#elif defined(__HIP__)
#define MLAR_SCORE_STRIPS              1
#define MLAR_LOADS_AHEAD(heads, units) ((heads) <= 16 && (units) == MLAR_UNITS_NARROW)
#else
#define MLAR_SCORE_STRIPS              2
#define MLAR_LOADS_AHEAD(heads, units) ((heads) <= ((units) == MLAR_UNITS_NARROW ? 32 : 16))
#endif

#if !defined(__HIP__)
#define MLAR_BLOCK_TOKENS MLAR_TOKENS_SM_90
#elif defined(__gfx950__)
#define MLAR_BLOCK_TOKENS MLAR_TOKENS_GFX950
#elif defined(__GFX11__)
#define MLAR_BLOCK_TOKENS MLAR_TOKENS_GFX1100
#else
#define MLAR_BLOCK_TOKENS MLAR_TOKENS_GFX90A
#endif

template <int HEADS, int UNITS> struct mlar_block_sizes {
    enum {
        TOKENS = MLAR_BLOCK_TOKENS(HEADS, UNITS),
        WAVES = MLAR_BLOCK_THREADS / MLAR_WAVE,
        STRIPS = HEADS / 16,
        SCORE_STRIPS = STRIPS < MLAR_SCORE_STRIPS
                           ? STRIPS
                           : MLAR_SCORE_STRIPS,       /* whose scores are summed side by side */
        OWN_BASE = MLAR_UNITS_NARROW / WAVES,         /* neighbouring units that each wave owns ... */
        OWN = OWN_BASE + (UNITS > MLAR_UNITS_NARROW), /* ... and one of those beyond column 512 */
        KEY_STRIDE = UNITS * MLAR_UNIT_COLUMNS + 8,   /* 16 bytes off a multiple of the banks */
        SCORE_STRIDE = TOKENS + MLAR_SCORE_PAD,
        WEIGHT_STRIDE = TOKENS + 8,
        WEIGHT_PARTS = HEADS == 16 ? 2 : 1,          /* bf16 values that make a weight */
        LANES_PER_HEAD = MLAR_BLOCK_THREADS / HEADS, /* of the softmax */
        TOKENS_PER_LANE = TOKENS / LANES_PER_HEAD,
        TOKENS_AT_ONCE =
            TOKENS_PER_LANE < 4 ? TOKENS_PER_LANE : 4, /* neighbours, so that a lane reads up to 16 bytes */
        BASE_LANES = OWN_BASE * MLAR_UNIT_COLUMNS / MLAR_CHUNK, /* lanes that share a token while loading */
        BASE_TOKENS = MLAR_WAVE / BASE_LANES,
        BASE_STEPS = TOKENS / BASE_TOKENS,
        EXTRA_LANES = MLAR_UNIT_COLUMNS / MLAR_CHUNK,
        EXTRA_TOKENS = MLAR_WAVE / EXTRA_LANES,
        EXTRA_STEPS = OWN == OWN_BASE ? 0 : (TOKENS + EXTRA_TOKENS - 1) / EXTRA_TOKENS,
        STEPS = BASE_STEPS + EXTRA_STEPS
    };
};

/* LDS of one instantiation. */
template <int HEADS, int UNITS> struct mlar_block_shared {
    typedef mlar_block_sizes<HEADS, UNITS> size;
    alignas(16) uint16_t keys[size::TOKENS * size::KEY_STRIDE];
    alignas(16) float scores[size::WAVES * HEADS * size::SCORE_STRIDE];
    alignas(16) uint16_t weights[size::WEIGHT_PARTS * HEADS * size::WEIGHT_STRIDE];
    float moved[HEADS];
    float factor[HEADS];
    float query_factor;           /* what queries are multiplied with, and ... */
    float score_scale;            /* ... what brings a sum of products to the score then */
    int32_t head_begin, head_end; /* of the unit */
    mlar_layer_params layer;
    mlar_tiles<size::TOKENS> tiles;
};

template <int HEADS, int UNITS, bool GATHERED> struct mlar_block_engine {
    typedef mlar_block_sizes<HEADS, UNITS> size;
    typedef mlar_block_shared<HEADS, UNITS> shared_type;
    enum {
        AHEAD = MLAR_LOADS_AHEAD(HEADS, UNITS)
    }; /* the next sub-tile waits in registers while this one is worked on */

    const mlar_stage_args *args;
    shared_type *shared;
    int32_t thread, wave, lane;

    mlar_frag_q q[size::STRIPS][size::OWN];
    mlar_acc out[size::STRIPS][size::OWN][2];
    float m, l; /* of this thread's head; l over this thread's tokens only */
    mlar_chunk ahead[AHEAD ? (int)size::STEPS : 1];

    /* Anew in each round, so that what follows from it is not kept in registers from round to round. */
    MLAR_MEMBER void look_around() {
        thread = mlar_here(mlar_thread()) & (MLAR_BLOCK_THREADS - 1);
        lane = thread % MLAR_WAVE;
        wave = mlar_uniform(thread / MLAR_WAVE);
    }

    /* Units that hold columns of K, of V; waves that own such a unit. */
    MLAR_MEMBER int32_t key_units() const {
        return (args->shape.d_qk + MLAR_UNIT_COLUMNS - 1) / MLAR_UNIT_COLUMNS;
    }
    MLAR_MEMBER int32_t value_units() const {
        return (args->shape.d_v + MLAR_UNIT_COLUMNS - 1) / MLAR_UNIT_COLUMNS;
    }
    MLAR_MEMBER int32_t waves_used() const {
        return mlar_min_i32(size::WAVES, (key_units() + size::OWN_BASE - 1) / size::OWN_BASE);
    }

    /* Unit number `i` of those that this wave owns. */
    MLAR_MEMBER int32_t own(int32_t i) const {
        return i < size::OWN_BASE ? wave * size::OWN_BASE + i : MLAR_UNITS_NARROW + wave;
    }

    /* ---- keys ---- */

    /* Which token and column of the sub-tile this lane's chunk number `step` is. A wave can own a place
     * beyond the last unit, and a step can end beyond the last token: no such chunk exists. */
    MLAR_MEMBER int32_t chunk_token(int32_t step) const {
        return step < size::BASE_STEPS
                   ? step * size::BASE_TOKENS + lane / size::BASE_LANES
                   : (step - size::BASE_STEPS) * size::EXTRA_TOKENS + lane / size::EXTRA_LANES;
    }
    MLAR_MEMBER int32_t chunk_column(int32_t step) const {
        return step < size::BASE_STEPS
                   ? own(0) * MLAR_UNIT_COLUMNS + lane % size::BASE_LANES * MLAR_CHUNK
                   : own(size::OWN_BASE) * MLAR_UNIT_COLUMNS + lane % size::EXTRA_LANES * MLAR_CHUNK;
    }
    MLAR_MEMBER bool chunk_exists(int32_t step) const {
        return step < size::BASE_STEPS ||
               (chunk_token(step) < size::TOKENS && chunk_column(step) < UNITS * MLAR_UNIT_COLUMNS);
    }
    MLAR_MEMBER const uint8_t *chunk_record(int32_t n, int32_t step) const {
        return chunk_exists(step)
                   ? (const uint8_t *)shared->tiles.record[n % MLAR_TOKEN_RING][chunk_token(step)]
                   : 0;
    }
    MLAR_MEMBER const uint8_t *chunk_scales(int32_t n, int32_t step) const {
        return (const uint8_t *)shared->tiles.scales[n % MLAR_TOKEN_RING][chunk_token(step)];
    }
    MLAR_MEMBER void chunk_store(int32_t step, const uint32_t words[8]) const {
        uint16_t *to = shared->keys + chunk_token(step) * size::KEY_STRIDE + chunk_column(step);
        if (!chunk_exists(step)) return;
        MLAR_UNROLL for (int32_t i = 0; i < 2; ++i) {
            const mlar_u32x4 four = {words[4 * i], words[4 * i + 1], words[4 * i + 2], words[4 * i + 3]};
            *(mlar_u32x4 *)(to + 8 * i) = four;
        }
    }

    MLAR_MEMBER mlar_record_form form_of(int32_t n) const {
        const mlar_tile_desc *desc = &shared->tiles.desc[n % MLAR_DESC_RING];
        if (GATHERED) return mlar_record_form_gathered(&args->shape);
        return mlar_record_form_of(&shared->layer.scope[mlar_uniform(desc->scope)], &args->shape);
    }

    MLAR_MEMBER mlar_chunk load(const mlar_record_form &form, int32_t n, int32_t step) const {
        const mlar_chunk_place place = mlar_chunk_place_of(&form, chunk_column(step));
        const uint8_t *record = chunk_record(n, step);
        return record ? mlar_chunk_load_wide(&form, &place, record, chunk_scales(n, step))
                      : mlar_chunk_none(&form);
    }

    MLAR_MEMBER void load_ahead(int32_t n) {
        const mlar_record_form form = form_of(n);
        if (AHEAD && form.wide) {
            MLAR_UNROLL for (int32_t step = 0; step < (AHEAD ? (int)size::STEPS : 0); ++step) ahead[step] =
                load(form, n, step);
        }
    }

    /* Own columns of sub-tile n, all in the ordinary way; returns whether that was right. */
    MLAR_MEMBER int32_t convert_step(const mlar_record_form &form, const mlar_chunk &chunk,
                                     int32_t step) const {
        const int32_t fp8 = chunk_column(step) < form.fp8_columns;
        uint32_t words[8];
        mlar_chunk_convert(words, &form, &chunk, fp8, 1);
        chunk_store(step, words);
        return !fp8 || mlar_chunk_is_ordinary(&form, &chunk);
    }
    MLAR_MEMBER bool convert_ordinary(const mlar_record_form &form, int32_t n) const {
        int32_t right = 1;
        if (AHEAD) {
            MLAR_UNROLL for (int32_t step = 0; step < size::STEPS; ++step) right &=
                convert_step(form, ahead[AHEAD ? step : 0], step);
        } else {
            MLAR_NO_UNROLL for (int32_t first = 0; first < size::STEPS; first += 2) {
                mlar_chunk some[2];
                MLAR_UNROLL for (int32_t i = 0; i < 2; ++i) some[i] = load(form, n, first + i);
                MLAR_UNROLL for (int32_t i = 0; i < 2; ++i) right &= convert_step(form, some[i], first + i);
            }
        }
        return !mlar_any(!right);
    }
    MLAR_MEMBER void convert_exact(const mlar_record_form &form, int32_t n) const {
        MLAR_NO_UNROLL for (int32_t step = 0; step < size::STEPS; ++step) {
            const mlar_chunk_place place = mlar_chunk_place_of(&form, chunk_column(step));
            const uint8_t *record = chunk_record(n, step);
            mlar_chunk chunk = mlar_chunk_none(&form);
            uint32_t words[8];
            if (record) chunk = mlar_chunk_load_any(&form, &place, record, chunk_scales(n, step));
            mlar_chunk_convert_exact(words, &form, &chunk, place.fp8, 1);
            chunk_store(step, words);
        }
    }
    MLAR_MEMBER void convert(int32_t n) const {
        const mlar_record_form form = form_of(n);
        if (form.wide && convert_ordinary(form, n)) return;
        convert_exact(form, n);
    }

    /* ---- queries ---- */

    /* Eight columns of a row of Q, shifted; zeros beyond the group and beyond d_qk. */
    MLAR_MEMBER mlar_u32x4 query_piece(const uint16_t *row, int32_t head, int32_t column,
                                       float factor) const {
        const int32_t there = head < shared->head_end ? args->shape.d_qk - column : 0;
        const uint8_t *from = (const uint8_t *)(row + head * shared->layer.q_head_stride + column);
        uint32_t word[4] = {0, 0, 0, 0};
        if (there >= 8) {
            mlar_words_load16(word, from);
        } else {
            MLAR_UNROLL for (int32_t i = 0; i < 3; ++i) if (2 * i < there) word[i] = mlar_load4(from + 4 * i);
        }
        MLAR_UNROLL for (int32_t i = 0; i < 4; ++i) word[i] = mlar_bf16x2(
            mlar_f32_from_bits(word[i] << 16) * factor, mlar_f32_from_bits(word[i] & 0xffff0000u) * factor);
        const mlar_u32x4 piece = {word[0], word[1], word[2], word[3]};
        return piece;
    }

    /* This row's queries, own columns, a strip of 16 heads at a time by way of the wave's own columns of
     * `keys`. */
    MLAR_MEMBER void load_queries(int32_t row) {
        const float factor = shared->query_factor;
        const int32_t head_begin = mlar_uniform(shared->head_begin);
        const uint16_t *from = shared->layer.q + row * shared->layer.q_row_stride;
        MLAR_UNROLL for (int32_t s = 0; s < size::STRIPS; ++s) {
            MLAR_UNROLL for (int32_t u = 0; u < size::OWN; ++u) if (own(u) < key_units()) {
                MLAR_UNROLL for (int32_t i = 0; i < 64; i += MLAR_WAVE) { /* 16 rows of 4 pieces */
                    const int32_t head = (i + lane) / 4, column = own(u) * MLAR_UNIT_COLUMNS + lane % 4 * 8;
                    *(mlar_u32x4 *)(shared->keys + head * size::KEY_STRIDE + column) =
                        query_piece(from, head_begin + 16 * s + head, column, factor);
                }
            }
            mlar_wave_sync();
            MLAR_UNROLL for (int32_t u = 0; u < size::OWN; ++u) if (own(u) < key_units())
                mlar_load_q(q[s][u], shared->keys + own(u) * MLAR_UNIT_COLUMNS, size::KEY_STRIDE, lane);
            mlar_wave_sync();
        }
    }

    MLAR_MEMBER void begin_part(int32_t row) {
        load_queries(row);
        MLAR_UNROLL for (int32_t s = 0; s < size::STRIPS; ++s)
            MLAR_UNROLL for (int32_t u = 0; u < size::OWN; ++u)
                MLAR_UNROLL for (int32_t i = 0; i < 2 * MLAR_ACC; ++i) out[s][u][i / MLAR_ACC][i % MLAR_ACC] =
                    0.0f;
        m = -MLAR_INF;
        l = 0.0f;
    }

    /* ---- scores ---- */

    MLAR_MEMBER void partial_scores() const {
        MLAR_NO_UNROLL for (int32_t token = 0; token < size::TOKENS; token += 16)
            MLAR_UNROLL for (int32_t first = 0; first < size::STRIPS; first += size::SCORE_STRIPS) {
            mlar_acc sum[size::SCORE_STRIPS];
            MLAR_UNROLL for (int32_t s = 0; s < size::SCORE_STRIPS; ++s)
                MLAR_UNROLL for (int32_t i = 0; i < MLAR_ACC; ++i) sum[s][i] = 0.0f;
            MLAR_UNROLL for (int32_t u = 0; u < size::OWN; ++u) if (own(u) < key_units()) {
                mlar_frag_k k;
                mlar_load_k(k, shared->keys + token * size::KEY_STRIDE + own(u) * MLAR_UNIT_COLUMNS,
                            size::KEY_STRIDE, lane);
                MLAR_UNROLL for (int32_t s = 0; s < size::SCORE_STRIPS; ++s)
                    mlar_mma_scores(sum[s], q[first + s][u], k);
            }
            MLAR_UNROLL for (int32_t s = 0; s < size::SCORE_STRIPS; ++s)
                MLAR_UNROLL for (int32_t i = 0; i < MLAR_ACC; ++i) {
                const int32_t row = wave * HEADS + 16 * (first + s) + mlar_tile_row(lane, i);
                shared->scores[row * size::SCORE_STRIDE + token + mlar_score_col(lane, i)] = sum[s][i];
            }
        }
    }

    /* Token number `i` of this thread's; in groups of TOKENS_AT_ONCE neighbours. */
    MLAR_MEMBER int32_t softmax_token(int32_t i) const {
        const int32_t group = i / size::TOKENS_AT_ONCE, part = thread % size::LANES_PER_HEAD;
        return (group * size::LANES_PER_HEAD + part) * size::TOKENS_AT_ONCE + i % size::TOKENS_AT_ONCE;
    }

    MLAR_MEMBER void softmax(int32_t n) {
        const int32_t head = thread / size::LANES_PER_HEAD;
        const uint32_t *valid = shared->tiles.valid[n % MLAR_TOKEN_RING];
        const int32_t used = waves_used();
        const float score_scale = shared->score_scale;
        float score[size::TOKENS_PER_LANE], max = m, moved;
        MLAR_UNROLL for (int32_t i = 0; i < size::TOKENS_PER_LANE; ++i) score[i] = 0.0f;
        for (int32_t w = 0; w < used; ++w)
            MLAR_UNROLL for (int32_t i = 0; i < size::TOKENS_PER_LANE; ++i) score[i] +=
                shared->scores[(w * HEADS + head) * size::SCORE_STRIDE + softmax_token(i)];
        MLAR_UNROLL for (int32_t i = 0; i < size::TOKENS_PER_LANE; ++i) {
            const int32_t token = softmax_token(i);
            score[i] *= score_scale;
            if (valid[token / 32] >> token % 32 & 1u) max = mlar_max(max, score[i]);
        }
        max = mlar_lanes_max(max, size::LANES_PER_HEAD);
        moved = mlar_softmax_moved(m, max);
        m = max;
        l *= moved;
        MLAR_UNROLL for (int32_t i = 0; i < size::TOKENS_PER_LANE; ++i) {
            const int32_t token = softmax_token(i);
            const float p = valid[token / 32] >> token % 32 & 1u ? mlar_softmax_weight(score[i], max) : 0.0f;
            l += p;
            score[i] = p;
        }
        MLAR_UNROLL for (int32_t part = 0; part < size::WEIGHT_PARTS; ++part) {
            uint16_t *to = shared->weights + (part * HEADS + head) * size::WEIGHT_STRIDE;
            MLAR_UNROLL for (int32_t i = 0; i < size::TOKENS_PER_LANE; i += 2) {
                float *second = &score[(i + 1) % size::TOKENS_PER_LANE];
                const uint32_t pair = mlar_bf16x2(score[i], size::TOKENS_PER_LANE == 1 ? 0.0f : *second);
                if (size::TOKENS_AT_ONCE == 1)
                    to[softmax_token(i)] = (uint16_t)pair;
                else
                    *(uint32_t *)(to + softmax_token(i)) = pair;
                score[i] -= mlar_f32_from_bits(pair << 16);
                *second -= mlar_f32_from_bits(pair & 0xffff0000u);
            }
        }
        if (thread % size::LANES_PER_HEAD == 0) shared->moved[head] = moved;
    }

    /* ---- output ---- */

    MLAR_MEMBER void rescale_out() {
        float moved[size::STRIPS][MLAR_ACC];
        int32_t any = 0;
        MLAR_UNROLL for (int32_t s = 0; s < size::STRIPS; ++s)
            MLAR_UNROLL for (int32_t i = 0; i < MLAR_ACC; ++i) {
            moved[s][i] = shared->moved[16 * s + mlar_tile_row(lane, i)];
            any |= moved[s][i] != 1.0f;
        }
        if (!mlar_any(any)) return;
        MLAR_UNROLL for (int32_t s = 0; s < size::STRIPS; ++s)
            MLAR_UNROLL for (int32_t u = 0; u < size::OWN; ++u)
                MLAR_UNROLL for (int32_t i = 0; i < 2 * MLAR_ACC; ++i)
                    out[s][u][i / MLAR_ACC][i % MLAR_ACC] *= moved[s][i % MLAR_ACC];
    }

    MLAR_MEMBER void add_values() {
        rescale_out();
        MLAR_NO_UNROLL for (int32_t token = 0; token < size::TOKENS; token += MLAR_STEP) {
            mlar_frag_p p[size::WEIGHT_PARTS][size::STRIPS];
            MLAR_UNROLL for (int32_t part = 0; part < size::WEIGHT_PARTS; ++part)
                MLAR_UNROLL for (int32_t s = 0; s < size::STRIPS; ++s)
                    mlar_load_p(p[part][s],
                                shared->weights + (part * HEADS + 16 * s) * size::WEIGHT_STRIDE + token,
                                size::WEIGHT_STRIDE, lane);
            MLAR_UNROLL for (int32_t u = 0; u < size::OWN; ++u) if (own(u) < value_units()) {
                mlar_frag_v v;
                mlar_load_v(v, shared->keys + token * size::KEY_STRIDE + own(u) * MLAR_UNIT_COLUMNS,
                            size::KEY_STRIDE, lane);
                MLAR_UNROLL for (int32_t part = 0; part < size::WEIGHT_PARTS; ++part)
                    MLAR_UNROLL for (int32_t s = 0; s < size::STRIPS; ++s)
                        mlar_mma_out(out[s][u], p[part][s], v);
            }
        }
    }

    /* O's own columns, to where `place` and the strides say. */
    template <bool F32> MLAR_MEMBER void store_out(void *place, int64_t head_stride) const {
        const int32_t head_begin = mlar_uniform(shared->head_begin),
                      head_end = mlar_uniform(shared->head_end);
        MLAR_UNROLL for (int32_t s = 0; s < size::STRIPS; ++s)
            MLAR_UNROLL for (int32_t i = 0; i < MLAR_ACC; ++i) {
            const mlar_pair_place pair = mlar_out_pair(lane, i);
            const int32_t head = 16 * s + pair.row;
            const float factor = shared->factor[head];
            const int64_t at = (head_begin + head) * head_stride + pair.column;
            if (head_begin + head < head_end) {
                MLAR_UNROLL for (int32_t u = 0; u < size::OWN; ++u) {
                    const int32_t column = own(u) * MLAR_UNIT_COLUMNS;
                    const float first = mlar_out_of(mlar_out_first(out[s][u], i), factor);
                    const float second = mlar_out_of(mlar_out_second(out[s][u], i), factor);
                    if (column + pair.column < args->shape.d_v) {
                        if (F32)
                            mlar_store_f32x2((float *)place + at + column, first, second);
                        else
                            mlar_store4((uint16_t *)place + at + column, mlar_bf16x2(first, second));
                    }
                }
            }
        }
    }

    MLAR_MEMBER void end_part(int32_t row, int32_t slot) {
        const int32_t head = thread / size::LANES_PER_HEAD;
        const float sum = mlar_lanes_sum(l, size::LANES_PER_HEAD);
        const mlar_layer_params *layer = &shared->layer;
        const int32_t to = shared->head_begin + head;
        if (thread % size::LANES_PER_HEAD == 0 && to < shared->head_end)
            shared->factor[head] = mlar_part_finish(args, layer, row, slot, to, m, sum);
        mlar_block_sync();
        if (slot >= 0)
            store_out<true>(args->partial_out + (int64_t)slot * args->shape.heads * args->shape.d_v,
                            args->shape.d_v);
        else if (mlar_uniform(layer->out_f32))
            store_out<true>((float *)layer->out + row * layer->out_row_stride, layer->out_head_stride);
        else
            store_out<false>((uint16_t *)layer->out + row * layer->out_row_stride, layer->out_head_stride);
    }

    /* ---- a unit ---- */

    /* Sub-tile n is computed while n + 1 is loaded, the tokens of n + 2 are resolved and n + 3 is found; the
     * first three rounds only fill that line. */
    MLAR_MEMBER void run(int32_t worker, int32_t begin, int32_t end) {
        mlar_tiles<size::TOKENS> *tiles = &shared->tiles;
        mlar_pending<size::TOKENS> pending = {};
        int32_t invalid = 0;
        if (thread == 0) shared->head_begin = begin, shared->head_end = end;
        if (wave == 0) mlar_tiles_begin(args, &shared->layer, tiles, worker);
        MLAR_NO_UNROLL for (int32_t n = -3;; ++n) {
            const mlar_tile_desc *desc = &tiles->desc[n & (MLAR_DESC_RING - 1)];
            look_around();
            const int32_t flags = n < 0 ? 0 : mlar_uniform(desc->flags);
            if (flags & MLAR_TILE_END) break;
            if (flags & MLAR_TILE_FIRST) begin_part(mlar_uniform(desc->row));
            if (n >= 0) convert(n);
            if (n >= -1) load_ahead(n + 1);
            mlar_wave_sync();
            if (n >= 0 && wave < waves_used()) partial_scores();
            if (wave == 0) {
                if (n >= -2)
                    invalid += mlar_tiles_resolve<size::TOKENS, GATHERED>(args, &shared->layer, tiles, n + 2,
                                                                          &pending);
                mlar_tiles_fetch(args, &shared->layer, tiles, n + 3, &pending);
            }
            mlar_block_sync();
            if (n < 0) continue;
            softmax(n);
            mlar_block_sync();
            add_values();
            if (flags & MLAR_TILE_LAST) end_part(mlar_uniform(desc->row), mlar_uniform(desc->slot));
            mlar_wave_sync();
        }
        if (wave == 0 && begin == 0 && !GATHERED) mlar_count_invalid(args, invalid);
        mlar_block_sync();
    }

    MLAR_MEMBER void prepare(const mlar_stage_args *from, shared_type *lds) {
        args = from;
        shared = lds;
        look_around();
        mlar_layer_to_lds(from, &lds->layer, MLAR_BLOCK_THREADS);
        if (thread == 0) {
            const int32_t shift = mlar_query_shift(lds->layer.scale);
            lds->query_factor = mlar_power_of_two(-shift);
            lds->score_scale = lds->layer.scale * mlar_power_of_two(shift);
        }
        mlar_block_sync();
    }
};

/* A launch: head groups of at most HEADS heads that the schedule asks for. A group larger than HEADS is
 * served in turns. */
template <int HEADS, int UNITS, bool GATHERED>
MLAR_DEVICE void mlar_block_attend(const mlar_stage_args *args, void *lds) {
    mlar_block_engine<HEADS, UNITS, GATHERED> engine;
    engine.prepare(args, (mlar_block_shared<HEADS, UNITS> *)lds);
    const int32_t live = mlar_uniform(mlar_live_rows(args));
    const int32_t units = mlar_uniform((int32_t)mlar_attend_units(args, live));
    for (int32_t i = mlar_block(); i < units; i += mlar_blocks(MLAR_BLOCK_THREADS)) {
        const mlar_unit unit = mlar_unit_of(args, i);
        const int32_t end = mlar_uniform(unit.head_end);
        for (int32_t head = mlar_uniform(unit.head_begin); head < end; head += HEADS)
            engine.run(mlar_uniform(unit.worker), head, mlar_min_i32(head + HEADS, end));
    }
    mlar_tail_zero(args, &engine.shared->layer, live, MLAR_BLOCK_THREADS);
}

#endif
