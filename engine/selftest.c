/* SPDX-License-Identifier: Apache-2.0
 *
 * selftest.c: does this machine replay what it would compute eagerly? Bit for bit, on scratch poisoned
 * differently.
 *
 * For each kind a synthetic step is written into the planned workspace: a small pool of pseudo-random bytes
 * in the kind's own layout (with NaNs and odd scales among them), queries, and lists with padding and wild
 * indices. Then: capture at capacity, replay at capacity, replay at one row, enqueue the same two; both
 * results of a pair must have been written and be equal. Replays that read a stale step, a stale pointer or someone
 * else's scratch differ (engine/gpu/quirks.def has one that does). The invalid-index counter is put back to what it
 * was. */
#include "engine/selftest.h"

#include "arena/fail.h"
#include "engine/program.h"
#include "kernels/schedule.h"

#include <stdio.h>
#include <string.h>

#define SELFTEST_ROWS   2
#define SELFTEST_BLOCK  16
#define SELFTEST_BLOCKS 8
#define PIECE           1024

/* Offsets inside the workspace. Two results, so that replay and enqueue can be compared where they were
 * written. */
typedef struct mlar_selftest_map {
    uint64_t q, sink, cache[MLAR_SCOPES], indices[MLAR_SCOPES], lens[MLAR_SCOPES], out[2], lse[2], total;
    uint64_t cache_bytes, stride[MLAR_SCOPES], q_bytes, out_bytes, lse_bytes;
} mlar_selftest_map;

static int32_t rows_of(const mlar_dims *dims) {
    return mlar_min_i32(SELFTEST_ROWS, dims->config.max_rows);
}

static uint64_t put(mlar_selftest_map *map, uint64_t bytes) {
    uint64_t at = map->total;
    map->total += (bytes + 255) / 256 * 256;
    return at;
}

/* A map that fits every kind: the widest lists, the largest records. */
static mlar_selftest_map map_of(const mlar_dims *dims) {
    mlar_selftest_map map = {0};
    const mlar_shape *shape = &dims->kind[0].shape;
    uint64_t rows = (uint64_t)rows_of(dims), heads = (uint64_t)shape->heads;
    uint64_t head_bytes = 2 * (((uint64_t)shape->d_qk + 7) / 8 * 8);
    map.q_bytes = rows * heads * head_bytes;
    map.out_bytes = map.q_bytes;
    map.lse_bytes = rows * heads * 4;
    uint64_t width[MLAR_SCOPES] = {0};
    for (int32_t k = 0; k < dims->config.kind_count; k++)
        for (int s = 0; s < dims->kind[k].scope_count; s++) {
            uint64_t w = (uint64_t)dims->kind[k].width[s], stride = 0;
            (void)mlar_kv_block_stride_padded(dims->kind[k].layout[s], shape->nope, shape->rope,
                                              SELFTEST_BLOCK, &stride);
            stride = (stride + 15) / 16 * 16;
            if (w > width[s]) width[s] = w;
            if (stride * SELFTEST_BLOCKS > map.cache_bytes) map.cache_bytes = stride * SELFTEST_BLOCKS;
        }
    map.q = put(&map, map.q_bytes);
    map.sink = put(&map, heads * 4);
    for (int s = 0; s < MLAR_SCOPES; s++) {
        map.cache[s] = put(&map, map.cache_bytes);
        map.indices[s] = put(&map, rows * width[s] * 4);
        map.lens[s] = put(&map, rows * 4);
        map.out[s] = put(&map, map.out_bytes);
        map.lse[s] = put(&map, map.lse_bytes);
    }
    return map;
}

uint64_t mlar_selftest_bytes(const mlar_dims *dims) {
    return map_of(dims).total;
}

/* ---- synthetic data ---- */

typedef struct mlar_selftest_run {
    mlar_engine *engine;
    void *stream;
    mlar_diag *diag;
    char *base;
    mlar_selftest_map map;
    uint64_t random;
} mlar_selftest_run;

/* splitmix64 (Steele, Lea, Flood 2014) */
static uint64_t next_random(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

enum what { FILL_CACHE, FILL_BF16, FILL_F32, FILL_INDICES };

/* Small numbers with a few oddities. 16-bit units for bf16, 32-bit for the others. */
static uint32_t make_word(enum what what, uint64_t random) {
    switch (what) {
    case FILL_CACHE: /* bytes: fp8 below the NaNs; as scales, 2^(0x70..0x7f - 127) and smaller */
        return (uint32_t)random & 0x7e7e7e7eu;
    case FILL_BF16: /* 0.5 .. 2 with both signs */
        return ((uint32_t)random & 0x80ff80ffu) | 0x3f003f00u;
    case FILL_F32: {
        float x = (float)(random & 0xffff) / 65536.0f;
        uint32_t word;
        memcpy(&word, &x, 4);
        return word;
    }
    default: { /* one in eight is padding, one in 64 wild */
        uint32_t slot = (uint32_t)(random >> 32) % (SELFTEST_BLOCK * SELFTEST_BLOCKS);
        return (random & 7) == 0 ? (uint32_t)-1 : (random & 63) == 1 ? (uint32_t)-7 : slot;
    }
    }
}

static mlar_status fill(mlar_selftest_run *run, uint64_t at, uint64_t bytes, enum what what) {
    uint32_t piece[PIECE / 4];
    for (uint64_t done = 0; done < bytes; done += PIECE) {
        uint64_t now = bytes - done < PIECE ? bytes - done : PIECE;
        for (uint64_t i = 0; i < (now + 3) / 4; i++) piece[i] = make_word(what, next_random(&run->random));
        mlar_status status = run->engine->backend->copy_in(run->engine->backend_state, run->base + at + done,
                                                           piece, now, run->stream, run->diag);
        if (status != MLAR_OK) return status;
    }
    return MLAR_OK;
}

/* Writes the inputs of one kind and describes them. */
static mlar_status make_step(mlar_selftest_run *run, int32_t kind, mlar_bindings *bindings) {
    const mlar_dims *dims = &run->engine->layout.dims;
    const mlar_kind_dims *k = &dims->kind[kind];
    mlar_selftest_map *map = &run->map;
    uint64_t rows = (uint64_t)rows_of(dims);
    mlar_status status = mlar_bindings_init(bindings, &dims->config, kind);
    if (status == MLAR_OK) status = fill(run, map->q, map->q_bytes, FILL_BF16);
    if (status == MLAR_OK) status = fill(run, map->sink, (uint64_t)k->shape.heads * 4, FILL_F32);
    for (int s = 0; s < k->scope_count && status == MLAR_OK; s++) {
        uint64_t stride = 0;
        (void)mlar_kv_block_stride_padded(k->layout[s], k->shape.nope, k->shape.rope, SELFTEST_BLOCK,
                                          &stride);
        stride = (stride + 15) / 16 * 16;
        bindings->cache[s] =
            (mlar_cache){run->base + map->cache[s], stride, SELFTEST_BLOCKS, SELFTEST_BLOCK, 0};
        bindings->list[s].indices = (const int32_t *)(void *)(run->base + map->indices[s]);
        bindings->list[s].lens = (const int32_t *)(void *)(run->base + map->lens[s]);
        int32_t lens[SELFTEST_ROWS] = {k->width[s] - k->width[s] / 3, k->width[s]};
        int bf16 = k->layout[s] == MLAR_LAYOUT_BF16;
        status = fill(run, map->cache[s], map->cache_bytes, bf16 ? FILL_BF16 : FILL_CACHE);
        if (status == MLAR_OK)
            status = fill(run, map->indices[s], rows * (uint64_t)k->width[s] * 4, FILL_INDICES);
        if (status == MLAR_OK)
            status = run->engine->backend->copy_in(run->engine->backend_state, run->base + map->lens[s], lens,
                                                   rows * 4, run->stream, run->diag);
    }
    bindings->q = run->base + map->q;
    bindings->attn_sink = (const float *)(void *)(run->base + map->sink);
    return status;
}

/* ---- comparison ---- */

static void bind_result(const mlar_selftest_run *run, mlar_bindings *bindings, int which) {
    bindings->out = run->base + run->map.out[which];
    bindings->lse = (float *)(void *)(run->base + run->map.lse[which]);
}

/* A signalling NaN in both types: arithmetic gives none. */
#define UNWRITTEN 0xffb5ffb5u

/* A result's rows of heads: how far a head is from the next, and how much of that is the result. */
typedef struct mlar_selftest_heads {
    const uint64_t *at; /* [2] */
    uint64_t bytes, head_bytes, used_bytes;
    uint64_t element_bytes;
} mlar_selftest_heads;

static mlar_status unwrite(mlar_selftest_run *run, const mlar_selftest_heads *heads, mlar_diag *diag) {
    const mlar_backend *backend = run->engine->backend;
    mlar_status status = MLAR_OK;
    for (int i = 0; i < 2 && status == MLAR_OK; i++)
        status = backend->fill(run->engine->backend_state, run->base + heads->at[i], UNWRITTEN, heads->bytes,
                               run->stream, diag);
    return status;
}

static mlar_status same(mlar_selftest_run *run, const mlar_selftest_heads *heads, const char *what,
                        mlar_diag *diag) {
    static const uint32_t unwritten = UNWRITTEN;
    const uint64_t *at = heads->at, bytes = heads->bytes;
    unsigned char a[PIECE], b[PIECE];
    for (uint64_t done = 0; done < bytes; done += PIECE) {
        uint64_t now = bytes - done < PIECE ? bytes - done : PIECE;
        const mlar_backend *backend = run->engine->backend;
        mlar_status status = backend->copy_out(run->engine->backend_state, a, run->base + at[0] + done, now,
                                               run->stream, diag);
        if (status == MLAR_OK)
            status = backend->copy_out(run->engine->backend_state, b, run->base + at[1] + done, now,
                                       run->stream, diag);
        if (status != MLAR_OK) return status;
        for (uint64_t i = 0; i < now; i++)
            if (a[i] != b[i])
                return mlar_fail(diag, MLAR_ERROR_SELFTEST, what, (int64_t)(done + i), 0,
                                 "%s: replay and enqueue differ from byte %llu on", what,
                                 (unsigned long long)(done + i));
        for (uint64_t i = 0; i < now; i += heads->element_bytes)
            if ((done + i) % heads->head_bytes < heads->used_bytes &&
                memcmp(a + i, &unwritten, heads->element_bytes) == 0)
                return mlar_fail(diag, MLAR_ERROR_SELFTEST, what, (int64_t)(done + i), 0,
                                 "%s: neither replay nor enqueue wrote byte %llu", what,
                                 (unsigned long long)(done + i));
    }
    return MLAR_OK;
}

/* One comparison at `rows` live rows: program replay into result 0, enqueue into result 1. */
static mlar_status compare(mlar_selftest_run *run, mlar_program *program, int32_t kind,
                           mlar_bindings *bindings, int32_t rows, mlar_diag *diag) {
    mlar_engine *engine = run->engine;
    int32_t capacity = rows_of(&engine->layout.dims);
    mlar_step step = {.struct_size = sizeof step, .rows = rows};
    const mlar_selftest_heads out = {.at = run->map.out,
                                     .bytes = 2 * (uint64_t)capacity * (uint64_t)bindings->out_row_stride,
                                     .head_bytes = 2 * (uint64_t)bindings->out_head_stride,
                                     .used_bytes = 2 * (uint64_t)engine->layout.dims.kind[kind].shape.d_v,
                                     .element_bytes = 2};
    const mlar_selftest_heads lse = {.at = run->map.lse,
                                     .bytes = run->map.lse_bytes,
                                     .head_bytes = 4,
                                     .used_bytes = 4,
                                     .element_bytes = 4};
    mlar_status status = unwrite(run, &out, diag);
    if (status == MLAR_OK) status = unwrite(run, &lse, diag);
    if (status == MLAR_OK) status = mlar_scratch_poison(engine, 1u + (uint32_t)rows, run->stream, diag);
    if (status == MLAR_OK) status = mlar_step_begin(engine, &step, run->stream, diag);
    if (status == MLAR_OK) status = mlar_engine_prepare(engine, kind, bindings, NULL, run->stream, diag);
    if (status == MLAR_OK) status = mlar_program_run(program, run->stream, diag);
    if (status == MLAR_OK) status = mlar_scratch_poison(engine, 100u + (uint32_t)rows, run->stream, diag);
    bind_result(run, bindings, 1);
    if (status == MLAR_OK) status = mlar_engine_prepare(engine, kind, bindings, &step, run->stream, diag);
    if (status == MLAR_OK)
        status =
            mlar_step_enqueue(engine, MLAR_USE_SELFTEST, kind, bindings, capacity, &step, run->stream, diag);
    bind_result(run, bindings, 0);
    char what[32];
    snprintf(what, sizeof what, "kinds[%d].out", (int)kind);
    if (status == MLAR_OK) status = same(run, &out, what, diag);
    snprintf(what, sizeof what, "kinds[%d].lse", (int)kind);
    if (status == MLAR_OK) status = same(run, &lse, what, diag);
    return status;
}

static mlar_status run_kind(mlar_selftest_run *run, int32_t kind, mlar_diag *diag) {
    mlar_bindings bindings;
    mlar_status status = make_step(run, kind, &bindings);
    if (status != MLAR_OK) return status;
    bind_result(run, &bindings, 0);
    mlar_program *program = NULL;
    int32_t capacity = rows_of(&run->engine->layout.dims);
    status =
        mlar_program_capture(run->engine, MLAR_USE_SELFTEST, kind, &bindings, 1, capacity, &program, diag);
    if (status != MLAR_OK) return status;
    status = compare(run, program, kind, &bindings, capacity, diag);
    if (status == MLAR_OK) status = compare(run, program, kind, &bindings, 1, diag);
    mlar_status destroyed = mlar_program_end(program, status == MLAR_OK ? diag : NULL);
    return status == MLAR_OK ? destroyed : status;
}

mlar_status mlar_engine_selftest(mlar_engine *engine, void *stream, mlar_diag *diag) {
    if (engine == NULL) return mlar_fail_null(diag, "engine");
    mlar_status status = mlar_engine_idle(engine, stream, diag);
    if (status != MLAR_OK) return status;
    if (!engine->layout.dims.config.selftest)
        return mlar_fail(diag, MLAR_ERROR_STATE, "selftest", 0, 1, "selftest: its workspace was not planned");
    mlar_selftest_run run = {.engine = engine,
                             .stream = stream,
                             .diag = diag,
                             .base = mlar_engine_address(engine, MLAR_BUFFER_SELFTEST, 0),
                             .map = map_of(&engine->layout.dims),
                             .random = engine->layout.fingerprint};
    uint64_t counter = 0;
    void *counters = mlar_engine_address(engine, MLAR_BUFFER_COUNTERS, 0);
    mlar_engine_counts counts = engine->counts;
    status =
        engine->backend->copy_out(engine->backend_state, &counter, counters, sizeof counter, stream, diag);
    for (int32_t k = 0; k < engine->layout.dims.config.kind_count && status == MLAR_OK; k++)
        status = run_kind(&run, k, diag);
    /* Leave no trace: counter, statistics, and no step begun that the host did not begin. What the scratch was poisoned
     * with is gone. */
    engine->poisoned = 0;
    mlar_status restored = engine->backend->copy_in(engine->backend_state, counters, &counter, sizeof counter,
                                                    stream, status == MLAR_OK ? diag : NULL);
    engine->counts = counts;
    (void)mlar_engine_invalidate(engine, stream);
    return mlar_engine_note(engine, status == MLAR_OK ? restored : status);
}
