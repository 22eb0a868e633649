/* SPDX-License-Identifier: Apache-2.0
 *
 * workload.c: synthetic decode steps. */
#include "workload.h"

#include <math.h>
#include <mlarena/kv_cache.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 64 };
/* Pools are at least this large, so that scattered reads miss the last-level cache of CPUs and GPUs alike. */
#define POOL_BYTES_MIN ((uint64_t)320 << 20)

/* splitmix64 (Steele, Lea, Flood 2014) */
static uint64_t next(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* About normal: the sum of four uniforms, scaled to variance 1. */
static float normal(uint64_t *state) {
    uint64_t r = next(state);
    double sum = 0;
    for (int i = 0; i < 4; i++) sum += (double)(r >> 16 * i & 0xffff) / 65536.0 - 0.5;
    return (float)(sum * 1.7320508);
}

static uint16_t to_bf16(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

/* One block of encoded tokens, repeated with its fp8 bytes turned by the block's number: encoding every token
 * of a 320 MiB pool would take longer than the benchmark. */
static int fill_cache(workload *w, int s, const mlar_scope_config *scope) {
    uint64_t record, scales, state = 7 + (uint64_t)s;
    float values[640];
    w->host_cache[s] = malloc(w->cache_bytes[s]);
    if (w->host_cache[s] == NULL)
        return unusable("no memory for a cache of %llu bytes", (unsigned long long)w->cache_bytes[s]);
    uint8_t *first = w->host_cache[s];
    memset(first, 0, w->stride[s]);
    for (int t = 0; t < BLOCK; t++) {
        for (int d = 0; d < w->config.nope + w->config.rope; d++) values[d] = normal(&state);
        (void)mlar_kv_token_offsets(scope->layout, w->config.nope, w->config.rope, BLOCK, t, &record,
                                    &scales);
        (void)mlar_kv_encode_f32(scope->layout, scope->fp8, w->config.nope, w->config.rope, values,
                                 first + record, first + scales);
    }
    for (int64_t b = 1; b < w->num_blocks[s]; b++) {
        uint8_t *block = first + (uint64_t)b * w->stride[s];
        memcpy(block, first, w->stride[s]);
        for (int t = 0; t < BLOCK; t++) { /* another sign pattern in every block */
            (void)mlar_kv_token_offsets(scope->layout, w->config.nope, w->config.rope, BLOCK, t, &record,
                                        &scales);
            uint64_t sign = next(&state) & 0x8080808080808080u;
            for (int d = 0; scope->layout != MLAR_LAYOUT_BF16 && d + 8 <= w->config.nope; d += 8) {
                uint64_t word;
                memcpy(&word, block + record + d, 8);
                word ^= sign;
                sign = sign << 1 ^ sign >> 7;
                sign &= 0x8080808080808080u;
                memcpy(block + record + d, &word, 8);
            }
        }
    }
    w->cache[s] = place_upload(w->where, w->host_cache[s], w->cache_bytes[s]);
    return w->cache[s] == NULL ? unusable("no memory for a cache on the device") : 0;
}

static int fill_set(workload *w, int i, const mlar_kind_config *kind) {
    uint64_t state = 1000 + (uint64_t)i;
    uint16_t *q = malloc(w->q_bytes);
    w->set[i].host_q = q;
    if (q == NULL) return unusable("no memory for queries");
    for (uint64_t e = 0; e < w->q_bytes / 2; e++) q[e] = to_bf16(normal(&state));
    w->set[i].q = place_upload(w->where, q, w->q_bytes);
    w->set[i].out = place_allocate(w->where, w->out_bytes);
    int failed = w->set[i].q == NULL || w->set[i].out == NULL;
    for (int s = 0; s < kind->scope_count; s++) {
        int32_t *indices = malloc(w->indices_bytes[s] + 4);
        w->set[i].host_indices[s] = indices;
        if (indices == NULL) return unusable("no memory for index lists");
        uint64_t slots = (uint64_t)w->num_blocks[s] * BLOCK;
        for (uint64_t e = 0; e < w->indices_bytes[s] / 4; e++) indices[e] = (int32_t)(next(&state) % slots);
        w->set[i].indices[s] = place_upload(w->where, indices, w->indices_bytes[s]);
        failed |= w->set[i].indices[s] == NULL;
    }
    return failed ? unusable("no memory for inputs on the device") : 0;
}

int workload_open(workload *w, place *where, const mlar_config *config, int32_t kind, int32_t rows,
                  int32_t queries) {
    memset(w, 0, sizeof *w);
    w->where = where;
    w->config = *config;
    w->kind = kind;
    w->rows = rows;
    w->queries_per_request = queries;
    const mlar_kind_config *k = &config->kinds[kind];
    int32_t d_qk = 0, d_v = 0;
    (void)mlar_kv_head_dims(k->scope[0].layout, config->nope, config->rope, &d_qk, &d_v);
    w->q_bytes = (uint64_t)rows * (uint64_t)config->heads * (uint64_t)d_qk * 2;
    w->out_bytes = (uint64_t)rows * (uint64_t)config->heads * (uint64_t)d_v * 2;
    int failed = 0;
    for (int s = 0; s < k->scope_count && !failed; s++) {
        uint64_t record = 0;
        (void)mlar_kv_block_stride_padded(k->scope[s].layout, config->nope, config->rope, BLOCK,
                                          &w->stride[s]);
        (void)mlar_kv_record_bytes(k->scope[s].layout, config->nope, config->rope, &record);
        if (k->scope[s].layout == MLAR_LAYOUT_DSV4) record += 8;
        uint64_t keys = (uint64_t)rows * (uint64_t)k->scope[s].width;
        w->num_blocks[s] = (int64_t)((POOL_BYTES_MIN + w->stride[s] - 1) / w->stride[s]);
        w->cache_bytes[s] = (uint64_t)w->num_blocks[s] * w->stride[s];
        w->indices_bytes[s] = keys * 4;
        w->kv_bytes += keys * record;
        w->flops += 2.0 * config->heads * (double)keys * (d_qk + d_v);
        failed = fill_cache(w, s, &k->scope[s]);
    }
    for (int i = 0; i < WORKLOAD_SETS && !failed; i++) failed = fill_set(w, i, k);
    if (failed) workload_close(w);
    return failed;
}

void workload_close(workload *w) {
    for (int i = 0; i < WORKLOAD_SETS; i++) {
        place_free(w->where, w->set[i].q, w->set[i].host_q);
        place_free(w->where, w->set[i].out, NULL);
        free(w->set[i].host_q);
        for (int s = 0; s < MLAR_SCOPES; s++) {
            place_free(w->where, w->set[i].indices[s], w->set[i].host_indices[s]);
            free(w->set[i].host_indices[s]);
        }
    }
    for (int s = 0; s < MLAR_SCOPES; s++) {
        place_free(w->where, w->cache[s], w->host_cache[s]);
        free(w->host_cache[s]);
    }
    memset(w, 0, sizeof *w);
}

void workload_bind(const workload *w, int i, int on_host, mlar_bindings *b) {
    (void)mlar_bindings_init(b, &w->config, w->kind);
    b->q = on_host ? w->set[i].host_q : w->set[i].q;
    b->out = on_host ? NULL : w->set[i].out;
    for (int s = 0; s < w->config.kinds[w->kind].scope_count; s++) {
        b->cache[s].base = on_host ? w->host_cache[s] : w->cache[s];
        b->cache[s].num_blocks = w->num_blocks[s];
        b->list[s].indices = on_host ? w->set[i].host_indices[s] : w->set[i].indices[s];
        b->list[s].rows_per_len = w->queries_per_request;
    }
}
