/* SPDX-License-Identifier: Apache-2.0
 *
 * attend_wave.h: the CDNA attention engine, for keys of 512 columns, all of which are values too, or of 576, of
 * which the first 512 are; 16 bytes at a time. Where keys come from says its parameter `source` (wave_keys.h).
 *
 * A CDNA wave has 512 registers, so it keeps what other engines pass round. Four waves serve a head group of
 * up to 64. A wave owns a strip of 16 heads, whose queries and sums it holds, and computes their scores over
 * all columns: no partial scores, and the softmax needs no other wave. Groups of 32 and 16 heads have more
 * waves than strips: then 2 or 4 waves compute the same scores and each owns a part of the output columns.
 * The wave computes S^T = K Q^T, whose accumulators hold, for one head in each lane, four neighbouring
 * tokens: exactly what O^T += V^T P^T wants of P. Only the keys go through LDS, converted once for all heads:
 *
 *     convert 8 tokens of sub-tile n (loaded before)      LDS keys  bf16 [32 tokens][columns]
 *     -- barrier --
 *     begin to load 8 tokens of n + 1; indices of n + 2
 *     scores, softmax, output                             registers
 *     -- barrier, where there is but one buffer of keys --
 *
 * The maximum that weights refer to moves only when a score exceeds it by more than 2^MLAR_WAVE_SLACK; any
 * reference gives the same quotient, and most sub-tiles then need neither an exchange between lanes nor a
 * new scale for the sums. Each head decides for itself, so its bits do not depend on its neighbours. */
#ifndef MLAR_KERNELS_GPU_ATTEND_WAVE_H
#define MLAR_KERNELS_GPU_ATTEND_WAVE_H
#include "kernels/gpu/dequant.h"
#include "kernels/gpu/mma.h"
#include "kernels/gpu/wave_keys.h"

enum {
    MLAR_WAVE_HALVES = MLAR_WAVE_TOKENS / 16,
    MLAR_WAVE_COLUMNS = 512, /* of the output */
    MLAR_WAVE_SLACK = 10,
#if defined(__gfx950__)
    MLAR_WAVE_BUFFERS = 2,
#else
    MLAR_WAVE_BUFFERS = 1, /* 64 KiB hold no more */
#endif
};

template <class source> struct mlar_wave_shared {
    typename source::lds_keys keys[MLAR_WAVE_BUFFERS];
    mlar_layer_params layer;
};

template <int HEADS, class source> struct mlar_wave_engine {
    enum {
        UNITS = source::COLUMNS / 32, /* reduction steps of the scores */
        STRIDE = source::STRIDE,
        STRIPS = HEADS / 16,
        SHARES = MLAR_WAVE_COUNT / STRIPS, /* waves that share a strip ... */
        OWN = MLAR_WAVE_COLUMNS / SHARES,  /* ... and the columns of output that each owns */
        BLOCKS = OWN / 128,
        WEIGHT_PARTS = HEADS == 16 ? 2 : 1 /* attend_block.h says why */
    };

    const mlar_stage_args *args;
    mlar_wave_shared<source> *shared;
    source next_keys;         /* of the sub-tile that is next to be converted */
    int32_t lane, wave, head; /* head of this lane, from the group's first on */
    int32_t head_begin, head_end;
    float score_factor; /* from a sum of products to a score times log2(e) */

    mlar_u32x4 q[UNITS];
    mlar_acc out[BLOCKS][8];
    float m, l; /* m times log2(e), the same in the head's four lanes; l over this lane's tokens only */

    /* Anew in each round, so that what follows from it is not kept in registers from round to round. */
    MLAR_MEMBER void look_around() {
        next_keys.lane = lane = mlar_here(mlar_thread()) % 64;
        head = wave % STRIPS * 16 + lane % 16;
    }

    /* ---- a row begins ---- */

    /* Queries times a power of two, which is exact but for subnormals. */
    MLAR_MEMBER void begin_part(int32_t row) {
        const mlar_layer_params *layer = &shared->layer;
        const float factor = mlar_power_of_two(-mlar_query_shift(layer->scale));
        const int32_t there = mlar_min_i32(head_begin + head, head_end - 1); /* others are not written */
        const uint16_t *from =
            layer->q + row * layer->q_row_stride + there * layer->q_head_stride + 8 * (lane / 16);
        MLAR_UNROLL for (int32_t u = 0; u < UNITS; ++u) {
            const mlar_u32x4 words = mlar_load16(from + 32 * u);
            MLAR_UNROLL for (int32_t i = 0; i < 4; ++i) {
                const mlar_f32_pair pair = {mlar_f32_from_bits(words[i] << 16),
                                            mlar_f32_from_bits(words[i] & 0xffff0000u)};
                q[u][i] = mlar_pack_f32_pair(pair * factor);
            }
        }
        MLAR_UNROLL for (int32_t b = 0; b < BLOCKS; ++b) MLAR_UNROLL for (int32_t j = 0; j < 8; ++j)
            out[b][j] = 0.0f;
        m = -MLAR_INF;
        l = 0.0f;
    }

    /* ---- scores and weights ---- */

    typedef struct weights {
        uint32_t word[WEIGHT_PARTS][MLAR_WAVE_HALVES]
                     [2]; /* tokens 4(lane/16) .. +3 of each 16, of one head */
    } weights;

    MLAR_MEMBER void scores(mlar_acc sum[MLAR_WAVE_HALVES], int32_t buffer) const {
        const uint16_t *keys = shared->keys[buffer].keys + (lane % 16) * STRIDE + 8 * (lane / 16);
        MLAR_UNROLL for (int32_t t = 0; t < MLAR_WAVE_HALVES; ++t) sum[t] = 0.0f;
        enum { AHEAD = 2 }; /* reads of LDS run so many steps before their products */
        mlar_u32x4 key[AHEAD + 1][MLAR_WAVE_HALVES];
        MLAR_UNROLL for (int32_t u = 0; u < UNITS + AHEAD; ++u)
            MLAR_UNROLL for (int32_t t = 0; t < MLAR_WAVE_HALVES; ++t) {
            if (u < UNITS) key[u % (AHEAD + 1)][t] = mlar_lds_u32x4(keys + 16 * t * STRIDE + 32 * u);
            if (u >= AHEAD) sum[t] = mlar_mfma32(key[(u - AHEAD) % (AHEAD + 1)][t], q[u - AHEAD], sum[t]);
        }
    }

    /* To the reference `to`, which is the same in a head's four lanes. */
    MLAR_MEMBER void rescale_out(float to) {
        const float moved = m == to ? 1.0f : mlar_exp2(m - to);
        m = to;
        l *= moved;
        MLAR_UNROLL for (int32_t b = 0; b < BLOCKS; ++b) MLAR_UNROLL for (int32_t j = 0; j < 8; ++j)
            out[b][j] *= moved;
    }
    /* Over the four lanes of a head. */
    MLAR_MEMBER float of_head_max(float value) const {
        value = mlar_max(value, mlar_lane_xor(value, 16));
        return mlar_max(value, mlar_lane_xor(value, 32));
    }
    MLAR_MEMBER float of_head_sum(float value) const {
        value += mlar_lane_xor(value, 16);
        return value + mlar_lane_xor(value, 32);
    }

    /* Two weights, at least 0 or NaN, to bf16 (to nearest even); what was cut off stays in them. */
    static MLAR_MEMBER uint32_t round_pair(float *first, float *second) {
#if defined(__gfx950__)
        typedef __bf16 bf16_pair __attribute__((ext_vector_type(2)));
        const mlar_f32_pair pair = {*first, *second};
        const uint32_t rounded = __builtin_bit_cast(uint32_t, __builtin_convertvector(pair, bf16_pair));
#else
        const uint32_t a = mlar_f32_bits(*first), b = mlar_f32_bits(*second);
        const uint32_t rounded = mlar_pack_high(a + 0x7fffu + (a >> 16 & 1u), b + 0x7fffu + (b >> 16 & 1u));
#endif
        *first -= mlar_f32_from_bits(rounded << 16);
        *second -= mlar_f32_from_bits(rounded & 0xffff0000u);
        return rounded;
    }

    /* -inf where the token does not count: weight 0. */
    MLAR_MEMBER void mask(mlar_acc score[MLAR_WAVE_HALVES], const uint32_t valid[MLAR_WAVE_HALVES]) const {
        MLAR_UNROLL for (int32_t i = 0; i < 4 * MLAR_WAVE_HALVES;
                         ++i) if (!(valid[i / 4] >> 8 * (i % 4) & 1u)) score[i / 4][i % 4] = -MLAR_INF;
    }

    MLAR_MEMBER void softmax(weights &p, const mlar_acc sum[MLAR_WAVE_HALVES], int32_t buffer) {
        mlar_acc score[MLAR_WAVE_HALVES];
        uint32_t valid[MLAR_WAVE_HALVES], all = ~0u;
        float max;
        MLAR_UNROLL for (int32_t t = 0; t < MLAR_WAVE_HALVES; ++t) {
            valid[t] = *(const uint32_t *)(shared->keys[buffer].valid + 16 * t + 4 * (lane / 16));
            all &= valid[t];
            score[t] = sum[t] * score_factor;
        }
        if (mlar_any(all != ~0u)) mask(score, valid);
        max = score[0][0];
        MLAR_UNROLL for (int32_t i = 1; i < 4 * MLAR_WAVE_HALVES; ++i) max =
            mlar_max(max, score[i / 4][i % 4]);
        if (mlar_any(max > m + (float)MLAR_WAVE_SLACK)) {
            const float found = of_head_max(max);
            rescale_out(found > m + (float)MLAR_WAVE_SLACK ? found : m);
        }
        const float reference = m == -MLAR_INF ? 0.0f : m; /* then every weight is 0 or NaN */
        MLAR_UNROLL for (int32_t t = 0; t < MLAR_WAVE_HALVES; ++t) {
            MLAR_UNROLL for (int32_t i = 0; i < 4; ++i) score[t][i] = mlar_exp2(score[t][i] - reference);
            l += (score[t][0] + score[t][1]) + (score[t][2] + score[t][3]);
            MLAR_UNROLL for (int32_t part = 0; part < WEIGHT_PARTS; ++part)
                MLAR_UNROLL for (int32_t i = 0; i < 2; ++i) {
                float first = score[t][2 * i], second = score[t][2 * i + 1];
                p.word[part][t][i] = round_pair(&first, &second);
                score[t][2 * i] = first, score[t][2 * i + 1] = second;
            }
        }
    }

    /* ---- output ---- */

    MLAR_MEMBER int32_t own_column() const {
        return wave / STRIPS * OWN;
    }

    /* V^T of 16 tokens and some columns goes into a matrix instruction with a column in each lane, four tokens
     * deep. Accumulators stand as the columns do: `out[b][j]` is of block b of 128, and which of its columns
     * row `i` of a lane is says out_column. Reads run one step ahead. */
#if defined(__gfx950__)
    /* The read turns: sixteen lanes name four tokens' pieces of four columns and get a column each. */
    MLAR_MEMBER int32_t out_column(int32_t b, int32_t j, int32_t i) const {
        return own_column() + 128 * b + 16 * j + 4 * (lane / 16) + i;
    }
    MLAR_MEMBER void add_values(const weights &p, int32_t buffer) {
        enum { STEPS = 8 * BLOCKS, AHEAD = 3 };
        const uint16_t *values = shared->keys[buffer].keys + (4 * (lane / 16) + lane % 16 / 4) * STRIDE +
                                 own_column() + 4 * (lane % 4);
        mlar_u32x2 turned[AHEAD + 1][MLAR_WAVE_HALVES];
        MLAR_UNROLL for (int32_t n = 0; n < STEPS + AHEAD; ++n) {
            if (n < STEPS)
                MLAR_UNROLL for (int32_t t = 0; t < MLAR_WAVE_HALVES; ++t) turned[n % (AHEAD + 1)][t] =
                    mlar_lds_turned(values + 16 * t * STRIDE + 16 * n);
            if (n >= AHEAD) {
                const mlar_u32x2 *v = turned[(n - AHEAD) % (AHEAD + 1)];
                mlar_acc *sum = &out[(n - AHEAD) / 8][(n - AHEAD) % 8];
                MLAR_UNROLL for (int32_t part = 0; part < WEIGHT_PARTS; ++part) {
                    const mlar_u32x4 a = {v[0].x, v[0].y, v[1].x, v[1].y};
                    const mlar_u32x4 w = {p.word[part][0][0], p.word[part][0][1], p.word[part][1][0],
                                          p.word[part][1][1]};
                    *sum = mlar_mfma32(a, w, *sum);
                }
            }
        }
    }
#else
    /* A lane reads eight columns of four tokens and turns them itself. */
    MLAR_MEMBER int32_t out_column(int32_t b, int32_t j, int32_t i) const {
        return own_column() + 128 * b + 8 * (4 * (lane / 16) + i) + j;
    }
    MLAR_MEMBER void add_values(const weights &p, int32_t buffer) {
        enum { STEPS = MLAR_WAVE_HALVES * BLOCKS };
        const uint16_t *values =
            shared->keys[buffer].keys + 4 * (lane / 16) * STRIDE + own_column() + 8 * (lane % 16);
        mlar_u32x4 token[2][4];
        MLAR_UNROLL for (int32_t n = 0; n <= STEPS; ++n) {
            if (n < STEPS)
                MLAR_UNROLL for (int32_t i = 0; i < 4; ++i) token[n % 2][i] = mlar_lds_u32x4(
                    values + (n % MLAR_WAVE_HALVES * 16 + i) * STRIDE + n / MLAR_WAVE_HALVES * 128);
            if (n > 0) {
                const int32_t t = (n - 1) % MLAR_WAVE_HALVES, b = (n - 1) / MLAR_WAVE_HALVES;
                const mlar_u32x4 *v = token[(n - 1) % 2];
                MLAR_UNROLL for (int32_t j = 0; j < 8; ++j) {
                    uint32_t pair[2];
                    MLAR_UNROLL for (int32_t i = 0; i < 2; ++i) pair[i] =
                        j % 2 ? mlar_pack_high(v[2 * i][j / 2], v[2 * i + 1][j / 2])
                              : mlar_pack_low(v[2 * i][j / 2], v[2 * i + 1][j / 2]);
                    MLAR_UNROLL for (int32_t part = 0; part < WEIGHT_PARTS; ++part) out[b][j] =
                        mlar_mfma16(pair[0], pair[1], p.word[part][t][0], p.word[part][t][1], out[b][j]);
                }
            }
        }
    }
#endif

    /* All that the loop holds fits beside them. */
    MLAR_MEMBER void keep_out() {
        MLAR_UNROLL for (int32_t b = 0; b < BLOCKS; ++b) MLAR_UNROLL for (int32_t j = 0; j < 8; ++j)
            mlar_acc_stay(out[b][j]);
    }

    /* This lane's head, own columns, to where `to` says. */
    template <bool F32> MLAR_MEMBER void store_out(void *to, float factor) const {
        MLAR_UNROLL for (int32_t b = 0; b < BLOCKS; ++b) MLAR_UNROLL for (int32_t i = 0; i < 8; ++i) {
#if defined(__gfx950__)
            const int32_t column = out_column(b, i, 0); /* four neighbours */
            float value[4];
            MLAR_UNROLL for (int32_t j = 0; j < 4; ++j) value[j] = mlar_out_of(out[b][i][j], factor);
#else
            const int32_t half = i % 2 * 4, column = out_column(b, half, i / 2);
            float value[4];
            MLAR_UNROLL for (int32_t j = 0; j < 4; ++j) value[j] =
                mlar_out_of(out[b][half + j][i / 2], factor);
#endif
            if (F32) {
                const mlar_u32x4 four = {mlar_f32_bits(value[0]), mlar_f32_bits(value[1]),
                                         mlar_f32_bits(value[2]), mlar_f32_bits(value[3])};
                mlar_store16((float *)to + column, four);
            } else {
                const mlar_u32x2 four = {mlar_bf16x2(value[0], value[1]), mlar_bf16x2(value[2], value[3])};
                *(MLAR_GLOBAL mlar_u32x2 *)((uint16_t *)to + column) = four;
            }
        }
    }

    MLAR_MEMBER void end_part(int32_t row, int32_t slot) {
        const mlar_layer_params *layer = &shared->layer;
        const int32_t to = head_begin + head;
        const float sum = of_head_sum(l), max = m * MLAR_LN2;
        float factor = 1.0f;
        if (to >= head_end) return;
        if (slot < 0) factor = mlar_row_factor(layer, to, max, sum);
        if (lane < 16 && own_column() == 0) mlar_part_finish(args, layer, row, slot, to, max, sum);
        if (slot >= 0)
            store_out<true>(args->partial_out + ((int64_t)slot * args->shape.heads + to) * MLAR_WAVE_COLUMNS,
                            factor);
        else if (mlar_uniform(layer->out_f32))
            store_out<true>((float *)layer->out + row * layer->out_row_stride + to * layer->out_head_stride,
                            factor);
        else
            store_out<false>(
                (uint16_t *)layer->out + row * layer->out_row_stride + to * layer->out_head_stride, factor);
    }

    /* ---- a unit ---- */

    MLAR_MEMBER void run(int32_t worker, int32_t begin, int32_t end) {
        mlar_wave_walk walk;
        mlar_wave_tile now, next;
        int32_t entry, buffer = 0;
        head_begin = begin, head_end = end;
        next_keys.begin();
        mlar_wave_walk_begin(args, &shared->layer, &walk, worker);
        now = mlar_wave_walk_next(args, &shared->layer, &walk, MLAR_WAVE_TOKENS);
        entry = next_keys.entry_of(now);
        next = mlar_wave_walk_next(args, &shared->layer, &walk, MLAR_WAVE_TOKENS);
        next_keys.load(args, now, entry);
        entry = next_keys.entry_of(next);
        MLAR_NO_UNROLL while (!(now.flags & MLAR_TILE_END)) {
            mlar_acc sum[MLAR_WAVE_HALVES];
            mlar_wave_tile after;
            weights p;
            look_around();
            if (now.flags & MLAR_TILE_FIRST) begin_part(now.row);
            next_keys.convert(now, &shared->keys[buffer]);
            mlar_block_sync();
            next_keys.load(args, next, entry);
            after = mlar_wave_walk_next(args, &shared->layer, &walk, MLAR_WAVE_TOKENS);
            entry = next_keys.entry_of(after);
            scores(sum, buffer);
            softmax(p, sum, buffer);
            add_values(p, buffer);
            keep_out();
            if (now.flags & MLAR_TILE_LAST) end_part(now.row, now.slot);
            if (MLAR_WAVE_BUFFERS == 1) mlar_block_sync();
            buffer = (buffer + 1) % MLAR_WAVE_BUFFERS;
            now = next;
            next = after;
        }
        if (source::REPORTS && begin == 0) next_keys.count_invalid(args);
        mlar_block_sync();
    }

    MLAR_MEMBER void prepare(const mlar_stage_args *from, mlar_wave_shared<source> *lds) {
        args = from;
        shared = lds;
        next_keys.scopes = (mlar_scalar_scope)(uint64_t)mlar_uniform_pointer(&mlar_layer_of(from)->scope[0]);
        next_keys.wave = wave = mlar_wave();
        look_around();
        mlar_layer_to_lds(from, &lds->layer, MLAR_BLOCK_THREADS);
        score_factor = mlar_f32_from_bits(mlar_uniform((int32_t)mlar_f32_bits(
            lds->layer.scale * mlar_power_of_two(mlar_query_shift(lds->layer.scale)) * MLAR_LOG2E)));
    }
};

/* A launch: the head groups that the schedule asks for, of more than HEADS / 2 heads and at most HEADS. */
template <int HEADS, class source>
MLAR_DEVICE void mlar_wave_attend(const mlar_stage_args *args, mlar_wave_shared<source> *lds) {
    mlar_wave_engine<HEADS, source> engine;
    engine.prepare(args, lds);
    const int32_t live = mlar_uniform(mlar_live_rows(args));
    const int32_t units = mlar_uniform((int32_t)mlar_attend_units(args, live));
    for (int32_t i = mlar_block(); i < units; i += mlar_blocks(MLAR_BLOCK_THREADS)) {
        const mlar_unit unit = mlar_unit_of(args, i);
        engine.run(mlar_uniform(unit.worker), mlar_uniform(unit.head_begin), mlar_uniform(unit.head_end));
    }
    mlar_tail_zero(args, &lds->layer, live, MLAR_BLOCK_THREADS);
}

#endif
