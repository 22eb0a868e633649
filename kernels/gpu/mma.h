/* SPDX-License-Identifier: Apache-2.0
 *
 * mma.h: matrix instructions behind one bf16 interface, in pieces of 16 x 16 with f32 sums.
 *
 * Two products are offered, the ones that attention is made of, for one wave:
 *
 *     scores  S[16 heads][16 tokens]  += Q[16 heads][32 columns]    * K[16 tokens][32 columns]^T
 *     output  O[16 heads][32 columns] += P[16 heads][MLAR_STEP tokens] * V[MLAR_STEP tokens][32 columns]
 *
 * K and V are the same rows of LDS, read along the row or across rows. A lane's place in a fragment is
 * private to this file; callers learn from mlar_tile_row, mlar_score_col and mlar_out_pair which element of a
 * tile a lane's accumulator is. The order of the reduction index inside an instruction is free as long as
 * both operands use the same one, and the order of output columns is free as long as mlar_out_pair tells it;
 * the AMD loads use both.
 *
 * Fragment layouts, with l the lane, and where they were looked up:
 *   mma.sync m16n8k16 bf16 (PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type"), g = l /
 * 4, t = l % 4: A: a0a1 row g, columns 2t, 2t+1; a2a3 row g+8; a4a5 row g, columns 2t+8, 2t+9; a6a7 row g+8,
 * those columns B: b0b1 rows 2t, 2t+1 of column g; b2b3 rows 2t+8, 2t+9.   C: c0c1 row g, columns 2t, 2t+1;
 * c2c3 row g+8. v_mfma_f32_16x16x16_bf16 (gfx942; gfx90a: ..bf16_1k; AMD Matrix Instruction Calculator): A
 * row l % 16, columns 4(l/16) .. +3; B column l % 16, rows 4(l/16) .. +3; C register r: row 4(l/16) + r,
 * column l % 16. v_mfma_f32_16x16x32_bf16 (gfx950): the same with 8(l/16) .. +7; C as above.
 *   v_wmma_f32_16x16x16_bf16, wave 32 (gfx1100; the same calculator): A row l % 16, columns 0 .. 15, lanes 16
 * .. 31 repeat lanes 0 .. 15; B column l % 16, rows 0 .. 15, repeated likewise; C register r: row 2r + l/16,
 * column l % 16. This file knows no softmax, no cache and no schedule. */
#ifndef MLAR_KERNELS_GPU_MMA_H
#define MLAR_KERNELS_GPU_MMA_H

#include "kernels/gpu/gpu.h"

#define MLAR_ACC (256 / MLAR_WAVE) /* accumulators that a lane holds of a 16 x 16 tile */

#if defined(__HIP__)

typedef float mlar_acc __attribute__((ext_vector_type(MLAR_ACC)));

MLAR_DEVICE mlar_u32x4 mlar_lds_u32x4(const uint16_t *from) {
    return *(const mlar_u32x4 *)from;
}

/* Two neighbouring columns of each of some tokens, turned into two fragments: even columns and odd columns.
 * So lane l % 16 owns columns 2(l % 16) and 2(l % 16) + 1 of the 32. */
#define MLAR_TURN(even, odd, word, i, token)                                                                 \
    do {                                                                                                     \
        uint32_t first = *(const uint32_t *)((token) + (word)),                                              \
                 second = *(const uint32_t *)((token) + stride + (word));                                    \
        (even)[i] = mlar_pack_low(first, second);                                                            \
        (odd)[i] = mlar_pack_high(first, second);                                                            \
    } while (0)

/* Element (row, columns) of a lane's accumulator pair `i` (0 .. MLAR_ACC - 1) of a 16 x 32 piece of O. */
typedef struct mlar_pair_place {
    int32_t row, column; /* of the pair's first element; the second stands in the next column */
} mlar_pair_place;

MLAR_DEVICE float mlar_out_first(const mlar_acc tile[2], int32_t i) {
    return tile[0][i];
}
MLAR_DEVICE float mlar_out_second(const mlar_acc tile[2], int32_t i) {
    return tile[1][i];
}

#if defined(__GFX11__)

/* ---- RDNA 3: WMMA, wave 32 ---- */

#define MLAR_STEP      16
#define MLAR_SCORE_PAD 4 /* floats behind a row of scores, and ... */

typedef short mlar_wmma_operand __attribute__((ext_vector_type(16)));
typedef uint32_t mlar_u32x8 __attribute__((ext_vector_type(8)));
typedef struct mlar_frag_q {
    mlar_u32x8 half[2];
} mlar_frag_q;
typedef mlar_frag_q mlar_frag_k;
typedef struct mlar_frag_p {
    mlar_u32x8 half;
} mlar_frag_p;
typedef struct mlar_frag_v {
    mlar_u32x8 tile[2];
} mlar_frag_v;

MLAR_DEVICE int32_t mlar_tile_row(int32_t lane, int32_t i) {
    return 2 * i + lane / 16;
}

MLAR_DEVICE mlar_acc mlar_wmma(mlar_u32x8 a, mlar_u32x8 b, mlar_acc c) {
    return __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32(__builtin_bit_cast(mlar_wmma_operand, a),
                                                       __builtin_bit_cast(mlar_wmma_operand, b), c);
}

MLAR_DEVICE mlar_u32x8 mlar_wmma_load(const uint16_t *row) {
    return __builtin_shufflevector(mlar_lds_u32x4(row), mlar_lds_u32x4(row + 8), 0, 1, 2, 3, 4, 5, 6, 7);
}

MLAR_DEVICE void mlar_load_k(mlar_frag_k &k, const uint16_t *keys, int32_t stride, int32_t lane) {
    const uint16_t *row = keys + (lane % 16) * stride;
    MLAR_UNROLL for (int32_t i = 0; i < 2; ++i) k.half[i] = mlar_wmma_load(row + 16 * i);
}
MLAR_DEVICE void mlar_mma_scores(mlar_acc &s, const mlar_frag_q &q, const mlar_frag_k &k) {
    MLAR_UNROLL for (int32_t i = 0; i < 2; ++i) s = mlar_wmma(q.half[i], k.half[i], s);
}
MLAR_DEVICE void mlar_load_p(mlar_frag_p &p, const uint16_t *weights, int32_t stride, int32_t lane) {
    p.half = mlar_wmma_load(weights + (lane % 16) * stride);
}
MLAR_DEVICE void mlar_load_v(mlar_frag_v &v, const uint16_t *keys, int32_t stride, int32_t lane) {
    MLAR_UNROLL for (int32_t i = 0; i < 8; ++i)
        MLAR_TURN(v.tile[0], v.tile[1], 2 * (lane % 16), i, keys + 2 * i * stride);
}
MLAR_DEVICE void mlar_mma_out(mlar_acc tile[2], const mlar_frag_p &p, const mlar_frag_v &v) {
    MLAR_UNROLL for (int32_t i = 0; i < 2; ++i) tile[i] = mlar_wmma(p.half, v.tile[i], tile[i]);
}

#else

/* ---- CDNA: MFMA, wave 64 ---- */

#define MLAR_SCORE_PAD 4
#if defined(__gfx950__)
#define MLAR_STEP 32
#else
#define MLAR_STEP 16
#endif

typedef short mlar_mfma_operand __attribute__((ext_vector_type(4)));
typedef struct mlar_frag_q {
    mlar_u32x4 word;
} mlar_frag_q; /* row lane % 16, columns 8(lane/16) .. +7 */
typedef mlar_frag_q mlar_frag_k;
typedef struct mlar_frag_p {
    uint32_t word[MLAR_STEP / 8];
} mlar_frag_p;
typedef struct mlar_frag_v {
    uint32_t tile[2][MLAR_STEP / 8];
} mlar_frag_v;

MLAR_DEVICE int32_t mlar_tile_row(int32_t lane, int32_t i) {
    return 4 * (lane / 16) + i;
}

#if defined(__gfx950__)
typedef __bf16 mlar_mfma_operand8 __attribute__((ext_vector_type(8)));

/* LDS, turned: four elements of a column for each lane. Lane l of sixteen names columns 4(l % 4) .. +3 of row l / 4
 * and gets column l of the four rows. */
MLAR_DEVICE mlar_u32x2 mlar_lds_turned(const uint16_t *from) {
    typedef __attribute__((address_space(3))) mlar_mfma_operand in_lds;
    return __builtin_bit_cast(mlar_u32x2, __builtin_amdgcn_ds_read_tr16_b64_v4i16((in_lds *)from));
}
#endif

/* Tells the compiler that a sum stays in vector registers. Left alone it moves sums to and from accumulation
 * registers in every round of a loop when it fears that they do not fit. */
MLAR_DEVICE void mlar_acc_stay(mlar_acc &sum) {
    asm("" : "+v"(sum));
}

/* 16 deep: two words of each operand. */
MLAR_DEVICE mlar_acc mlar_mfma16(uint32_t a0, uint32_t a1, uint32_t b0, uint32_t b1, mlar_acc c) {
    const mlar_u32x2 a = {a0, a1}, b = {b0, b1};
    return __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(__builtin_bit_cast(mlar_mfma_operand, a),
                                                     __builtin_bit_cast(mlar_mfma_operand, b), c, 0, 0, 0);
}

/* 32 deep; the words of both operands stand in the same order of the reduction index. */
MLAR_DEVICE mlar_acc mlar_mfma32(mlar_u32x4 a, mlar_u32x4 b, mlar_acc c) {
#if defined(__gfx950__)
    return __builtin_amdgcn_mfma_f32_16x16x32_bf16(__builtin_bit_cast(mlar_mfma_operand8, a),
                                                   __builtin_bit_cast(mlar_mfma_operand8, b), c, 0, 0, 0);
#else
    return mlar_mfma16(a[2], a[3], b[2], b[3], mlar_mfma16(a[0], a[1], b[0], b[1], c));
#endif
}

MLAR_DEVICE void mlar_load_k(mlar_frag_k &k, const uint16_t *keys, int32_t stride, int32_t lane) {
    k.word = mlar_lds_u32x4(keys + (lane % 16) * stride + 8 * (lane / 16));
}
MLAR_DEVICE void mlar_mma_scores(mlar_acc &s, const mlar_frag_q &q, const mlar_frag_k &k) {
    s = mlar_mfma32(q.word, k.word, s);
}
/* Tokens 4(lane/16) .. +3 of each 16: neighbouring groups of lanes then read rows that lie 16 banks apart. */
MLAR_DEVICE void mlar_load_p(mlar_frag_p &p, const uint16_t *weights, int32_t stride, int32_t lane) {
    const uint16_t *row = weights + (lane % 16) * stride + 4 * (lane / 16);
    MLAR_UNROLL for (int32_t i = 0; i < MLAR_STEP / 8; ++i) p.word[i] =
        *(const uint32_t *)(row + i / 2 * 16 + i % 2 * 2);
}
MLAR_DEVICE void mlar_load_v(mlar_frag_v &v, const uint16_t *keys, int32_t stride, int32_t lane) {
    const uint16_t *token = keys + 4 * (lane / 16) * stride;
    MLAR_UNROLL for (int32_t i = 0; i < MLAR_STEP / 8; ++i)
        MLAR_TURN(v.tile[0], v.tile[1], 2 * (lane % 16), i, token + (i / 2 * 16 + i % 2 * 2) * stride);
}
MLAR_DEVICE void mlar_mma_out(mlar_acc tile[2], const mlar_frag_p &p, const mlar_frag_v &v) {
    MLAR_UNROLL for (int32_t i = 0; i < 2; ++i) {
#if defined(__gfx950__)
        mlar_u32x4 a = {p.word[0], p.word[1], p.word[2], p.word[3]};
        mlar_u32x4 b = {v.tile[i][0], v.tile[i][1], v.tile[i][2], v.tile[i][3]};
        tile[i] = mlar_mfma32(a, b, tile[i]);
#else
        tile[i] = mlar_mfma16(p.word[0], p.word[1], v.tile[i][0], v.tile[i][1], tile[i]);
#endif
    }
}

#endif /* CDNA */

MLAR_DEVICE int32_t mlar_score_col(int32_t lane, int32_t i) {
    return (void)i, lane % 16;
}
MLAR_DEVICE mlar_pair_place mlar_out_pair(int32_t lane, int32_t i) {
    mlar_pair_place place;
    place.row = mlar_tile_row(lane, i);
    place.column = 2 * (lane % 16);
    return place;
}
/* A and B have one layout: rows of Q and rows of K. */
MLAR_DEVICE void mlar_load_q(mlar_frag_q &q, const uint16_t *queries, int32_t stride, int32_t lane) {
    mlar_load_k(q, queries, stride, lane);
}

#else

/* ---- NVIDIA: mma.sync, ldmatrix ---- */

#define MLAR_STEP      16
#define MLAR_SCORE_PAD 8

typedef struct mlar_pair_place {
    int32_t row, column;
} mlar_pair_place;

struct mlar_acc {
    float x[MLAR_ACC]; /* two m16n8 tiles, side by side */
    __device__ __forceinline__ float &operator[](int32_t i) { return x[i]; }
    __device__ __forceinline__ const float &operator[](int32_t i) const { return x[i]; }
};
typedef struct mlar_frag_q {
    uint32_t word[2][4];
} mlar_frag_q; /* two k16 operands A */
typedef struct mlar_frag_k {
    uint32_t word[2][4];
} mlar_frag_k; /* of each k16: B of tokens 0..7, B of tokens 8..15 */
typedef struct mlar_frag_p {
    uint32_t word[4];
} mlar_frag_p;
typedef struct mlar_frag_v {
    uint32_t word[2][4];
} mlar_frag_v; /* of each 16 columns: B of 0..7, B of 8..15 */

MLAR_DEVICE int32_t mlar_tile_row(int32_t lane, int32_t i) {
    return lane / 4 + (i / 2 % 2) * 8;
}
MLAR_DEVICE int32_t mlar_score_col(int32_t lane, int32_t i) {
    return i / 4 * 8 + lane % 4 * 2 + i % 2;
}
MLAR_DEVICE mlar_pair_place mlar_out_pair(int32_t lane, int32_t i) {
    mlar_pair_place place;
    place.row = lane / 4 + i % 2 * 8;
    place.column = i / 2 * 8 + lane % 4 * 2;
    return place;
}
MLAR_DEVICE float mlar_out_first(const mlar_acc tile[2], int32_t i) {
    return tile[i / 4][i % 4 * 2];
}
MLAR_DEVICE float mlar_out_second(const mlar_acc tile[2], int32_t i) {
    return tile[i / 4][i % 4 * 2 + 1];
}

MLAR_DEVICE void mlar_mma_16x8x16(float *c, const uint32_t *a, const uint32_t *b) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
/* Four 8 x 8 matrices; lane l gives the address of row l % 8 of matrix l / 8. */
MLAR_DEVICE void mlar_ldmatrix(uint32_t *word, const uint16_t *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(word[0]), "=r"(word[1]), "=r"(word[2]), "=r"(word[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row))
                 : "memory");
}
MLAR_DEVICE void mlar_ldmatrix_turned(uint32_t *word, const uint16_t *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(word[0]), "=r"(word[1]), "=r"(word[2]), "=r"(word[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row))
                 : "memory");
}

/* B of 16 tokens: matrices (tokens 0..7, k 0..7), (0..7, 8..15), (8..15, 0..7), (8..15, 8..15). */
MLAR_DEVICE void mlar_load_k(mlar_frag_k &k, const uint16_t *keys, int32_t stride, int32_t lane) {
    const uint16_t *row = keys + (lane / 16 * 8 + lane % 8) * stride + lane / 8 % 2 * 8;
    MLAR_UNROLL for (int32_t i = 0; i < 2; ++i) mlar_ldmatrix(k.word[i], row + 16 * i);
}
MLAR_DEVICE void mlar_mma_scores(mlar_acc &s, const mlar_frag_q &q, const mlar_frag_k &k) {
    MLAR_UNROLL for (int32_t i = 0; i < 2; ++i) {
        mlar_mma_16x8x16(s.x, q.word[i], k.word[i]);
        mlar_mma_16x8x16(s.x + 4, q.word[i], k.word[i] + 2);
    }
}
/* A of 16 rows: matrices (rows 0..7, k 0..7), (8..15, 0..7), (0..7, 8..15), (8..15, 8..15). */
MLAR_DEVICE void mlar_load_a(uint32_t *word, const uint16_t *rows, int32_t stride, int32_t lane) {
    mlar_ldmatrix(word, rows + lane % 16 * stride + lane / 16 * 8);
}
MLAR_DEVICE void mlar_load_q(mlar_frag_q &q, const uint16_t *queries, int32_t stride, int32_t lane) {
    MLAR_UNROLL for (int32_t i = 0; i < 2; ++i) mlar_load_a(q.word[i], queries + 16 * i, stride, lane);
}
MLAR_DEVICE void mlar_load_p(mlar_frag_p &p, const uint16_t *weights, int32_t stride, int32_t lane) {
    mlar_load_a(p.word, weights, stride, lane);
}
/* B of 16 columns, tokens being k: matrices (tokens 0..7, columns 0..7), (8..15, 0..7), (0..7, 8..15),
 * (8..15, 8..15). */
MLAR_DEVICE void mlar_load_v(mlar_frag_v &v, const uint16_t *keys, int32_t stride, int32_t lane) {
    const uint16_t *row = keys + lane % 16 * stride + lane / 16 * 8;
    MLAR_UNROLL for (int32_t i = 0; i < 2; ++i) mlar_ldmatrix_turned(v.word[i], row + 16 * i);
}
MLAR_DEVICE void mlar_mma_out(mlar_acc tile[2], const mlar_frag_p &p, const mlar_frag_v &v) {
    MLAR_UNROLL for (int32_t i = 0; i < 2; ++i) {
        mlar_mma_16x8x16(tile[i].x, p.word, v.word[i]);
        mlar_mma_16x8x16(tile[i].x + 4, p.word, v.word[i] + 2);
    }
}

#endif

#endif
