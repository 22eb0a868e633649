/* SPDX-License-Identifier: Apache-2.0
 *
 * blas_attention.c: see blas_attention.h. Compiled for this machine's own instructions, as OpenBLAS picks its
 * own; every loop below is one that the compiler vectorises. Where a step has fewer rows than threads, a
 * row's heads are shared out. */
#include "tests/bench/blas_attention.h"

#include <cblas.h>
#include <math.h>
#include <string.h>

#include "kernels/schedule.h"

/* From OpenBLAS's own header, which Debian's cblas.h alternatives may lack. */
extern char *openblas_get_config(void);
extern void openblas_set_num_threads(int threads);

typedef struct blas_step {
    const mlar_cpu_kernels *gather;
    mlar_stage_args *args;
    float *workspace; /* for each row, or for each thread */
    uint64_t row_floats;
    int32_t keys, row_chunks; /* of a row's heads, or of its keys */
} blas_step;

typedef struct blas_row {
    float *keys;    /* [keys][d_qk] */
    float *queries; /* [heads][d_qk] */
    float *scores;  /* [heads][keys] */
    float *out;     /* [heads][d_v] */
} blas_row;

const char *blas_name(void) {
    return openblas_get_config();
}

uint64_t blas_row_floats(const mlar_shape *shape, int32_t keys) {
    return (uint64_t)keys * (uint64_t)shape->d_qk +
           (uint64_t)shape->heads * (uint64_t)(shape->d_qk + keys + shape->d_v);
}

static blas_row workspace_of(const blas_step *step, int64_t which) {
    const mlar_shape *shape = &step->args->shape;
    blas_row result;
    result.keys = step->workspace + (uint64_t)which * step->row_floats;
    result.queries = result.keys + (int64_t)step->keys * shape->d_qk;
    result.scores = result.queries + (int64_t)shape->heads * shape->d_qk;
    result.out = result.scores + (int64_t)shape->heads * step->keys;
    return result;
}

static void widen(const uint16_t *from, float *to, int64_t count) {
    for (int64_t i = 0; i < count; ++i) to[i] = mlar_bf16_to_f32(from[i]);
}

/* e^x for x <= 0; enough digits for f32, and no branch. */
static inline float fast_exp(float x) {
    const float clamped = x < -87.0f ? -87.0f : x;
    const float n = rintf(clamped * 1.44269504f);
    const float r = (clamped - n * 0.693145752f) - n * 1.42860677e-6f;
    const float fit =
        1.0f + r * (1.0f + r * (0.49999994f +
                                r * (0.16666521f + r * (0.04166839f + r * (0.00836872f + r * 0.00138146f)))));
    return fit * mlar_f32_from_bits((uint32_t)((int32_t)n + 127) << 23);
}

/* One chunk of a row's keys, widened. */
static void widen_chunk(const blas_step *step, int64_t row, int64_t chunk, float *to) {
    const mlar_stage_args *args = step->args;
    const int64_t d_qk = args->shape.d_qk;
    for (int32_t s = 0; s < mlar_layer_of(args)->scope_count; ++s) {
        const int64_t width = mlar_layer_of(args)->scope[s].width;
        const int64_t begin = chunk * width / step->row_chunks, end = (chunk + 1) * width / step->row_chunks;
        widen(args->gathered[s] + (row * width + begin) * d_qk, to + begin * d_qk, (end - begin) * d_qk);
        to += width * d_qk;
    }
}

static void softmax(float *scores, int32_t keys, float *max, float *sum) {
    float most = scores[0], total = 0;
    for (int32_t j = 1; j < keys; ++j) most = scores[j] > most ? scores[j] : most;
    for (int32_t j = 0; j < keys; ++j) {
        scores[j] = fast_exp(scores[j] - most);
        total += scores[j];
    }
    *max = most;
    *sum = total;
}

/* One chunk of a row's heads, from q to out. */
static void attend_chunk(const blas_step *step, int64_t row, int64_t chunk, blas_row at) {
    const mlar_layer_params *layer = mlar_layer_of(step->args);
    const mlar_shape *shape = &step->args->shape;
    const int32_t begin = (int32_t)(chunk * shape->heads / step->row_chunks);
    const int32_t end = (int32_t)((chunk + 1) * shape->heads / step->row_chunks);
    const int32_t heads = end - begin, keys = step->keys;
    float *queries = at.queries + (int64_t)begin * shape->d_qk;
    float *scores = at.scores + (int64_t)begin * keys;
    float *out = at.out + (int64_t)begin * shape->d_v;
    for (int32_t h = 0; h < heads; ++h)
        widen(layer->q + row * layer->q_row_stride + (begin + h) * layer->q_head_stride,
              queries + (int64_t)h * shape->d_qk, shape->d_qk);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, heads, keys, shape->d_qk, layer->scale, queries,
                shape->d_qk, at.keys, shape->d_qk, 0.0f, scores, keys);
    for (int32_t h = 0; h < heads; ++h) {
        float max, sum, factor;
        softmax(scores + (int64_t)h * keys, keys, &max, &sum);
        factor = 1.0f / (layer->sink ? sum + expf(layer->sink[begin + h] - max) : sum);
        for (int32_t j = 0; j < keys; ++j) scores[(int64_t)h * keys + j] *= factor;
        if (layer->lse)
            layer->lse[row * layer->lse_row_stride + (begin + h) * layer->lse_head_stride] = max + logf(sum);
    }
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, heads, shape->d_v, keys, 1.0f, scores, keys,
                at.keys, shape->d_qk, 0.0f, out, shape->d_v);
    for (int32_t h = 0; h < heads; ++h) {
        uint16_t *to =
            (uint16_t *)layer->out + row * layer->out_row_stride + (begin + h) * layer->out_head_stride;
        const float *from = out + (int64_t)h * shape->d_v;
        for (int32_t d = 0; d < shape->d_v; ++d) {
            const uint32_t bits = mlar_f32_bits(from[d]); /* finite: the inputs are ordinary */
            to[d] = (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
        }
    }
}

/* Enough rows for all threads: each goes through everything while its keys are in the thread's own caches. */
static void row_item(void *context, int64_t item, int32_t thread) {
    const blas_step *step = context;
    const int64_t row_items = mlar_cpu_items(MLAR_STAGE_GATHER, step->args) / mlar_live_rows(step->args);
    const blas_row at = workspace_of(step, thread);
    for (int64_t i = 0; i < row_items; ++i) step->gather->gather(step->args, item * row_items + i, NULL);
    widen_chunk(step, item, 0, at.keys);
    attend_chunk(step, item, 0, at);
}

/* Else in three loops, a row in several pieces. A gather needs no scratch. */
static void gather_item(void *context, int64_t item, int32_t thread) {
    const blas_step *step = context;
    (void)thread;
    step->gather->gather(step->args, item, NULL);
}

static void widen_item(void *context, int64_t item, int32_t thread) {
    const blas_step *step = context;
    const int64_t row = item / step->row_chunks;
    (void)thread;
    widen_chunk(step, row, item % step->row_chunks, workspace_of(step, row).keys);
}

static void attend_item(void *context, int64_t item, int32_t thread) {
    const blas_step *step = context;
    const int64_t row = item / step->row_chunks;
    (void)thread;
    attend_chunk(step, row, item % step->row_chunks, workspace_of(step, row));
}

void blas_attend(const mlar_cpu_kernels *gather, mlar_stage_args *args, parallel *pool, float *workspace) {
    const mlar_layer_params *layer = mlar_layer_of(args);
    const int32_t rows = mlar_live_rows(args), threads = parallel_threads(pool);
    blas_step step = {.gather = gather, .args = args, .workspace = workspace};
    for (int32_t s = 0; s < layer->scope_count; ++s) step.keys += layer->scope[s].width;
    step.row_floats = blas_row_floats(&args->shape, step.keys);
    step.row_chunks = mlar_ceil_div(threads, rows);
    openblas_set_num_threads(
        1); /* the threads are ours: OpenBLAS's own would have to be started and joined twice */
    if (step.row_chunks == 1) {
        parallel_for(pool, rows, row_item, &step);
        return;
    }
    parallel_for(pool, mlar_cpu_items(MLAR_STAGE_GATHER, args), gather_item, &step);
    parallel_for(pool, (int64_t)rows * step.row_chunks, widen_item, &step);
    parallel_for(pool, (int64_t)rows * step.row_chunks, attend_item, &step);
}
