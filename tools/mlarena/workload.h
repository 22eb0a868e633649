/* SPDX-License-Identifier: Apache-2.0
 *
 * workload.h: synthetic decode steps for the benchmark: a shared pool of realistic cache bytes larger than
 * caches, and several sets of queries and random index lists over it, so that a timed call never finds its
 * inputs warm. */
#ifndef MLARENA_TOOL_WORKLOAD_H
#define MLARENA_TOOL_WORKLOAD_H

#include "session.h"

enum { WORKLOAD_SETS = 8 };

typedef struct workload {
    place *where;
    mlar_config config; /* one kind is used */
    int32_t kind, rows, queries_per_request;
    int64_t num_blocks[MLAR_SCOPES];
    uint64_t stride[MLAR_SCOPES], cache_bytes[MLAR_SCOPES];
    void *host_cache[MLAR_SCOPES], *cache[MLAR_SCOPES];
    struct {
        void *host_q, *q, *host_indices[MLAR_SCOPES], *indices[MLAR_SCOPES], *out;
    } set[WORKLOAD_SETS];
    uint64_t q_bytes, out_bytes, indices_bytes[MLAR_SCOPES];
    uint64_t kv_bytes; /* records and scales that one call refers to */
    double flops;      /* of one call: both matrix products */
} workload;

/* 0 or EXIT_UNUSABLE; closed on failure. */
int workload_open(workload *w, place *where, const mlar_config *config, int32_t kind, int32_t rows,
                  int32_t queries);
void workload_close(workload *w);
/* Bindings of set i where the engine can read them; on_host: where the CPU can. `out` is left to the caller
 * then. */
void workload_bind(const workload *w, int i, int on_host, mlar_bindings *b);

#endif
