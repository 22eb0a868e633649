/* SPDX-License-Identifier: Apache-2.0
 *
 * torch_host.c: mlarena as a PyTorch process embeds it: what torch_step.py calls, with plain arguments instead of
 * structs. The arena is a tensor's memory, streams are PyTorch's, and the graph is PyTorch's own.
 *
 * One engine at a time. Functions return 0 if all went well; else host_error() says what did not. */
#include <mlarena/mlarena.h>

#include <stdio.h>
#include <stdlib.h>

/* Tensors of one layer, as torch_step.py lays them out: contiguous, dsv4 caches of 64 tokens a block. */
typedef struct host_tensors {
    void *q, *out, *lse, *sink;
    void *cache[MLAR_SCOPES];
    void *indices[MLAR_SCOPES];
    void *lens[MLAR_SCOPES];
    void *rows; /* their number, in device memory */
    int64_t num_blocks[MLAR_SCOPES];
    uint64_t block_stride_bytes;
} host_tensors;

int host_open(int32_t heads, int32_t rows, int32_t window, int32_t extra, uint64_t *arena_bytes);
int host_init(void *arena_memory);
int host_enqueue(const host_tensors *tensors, int32_t capacity_rows, void *stream);
int host_close(void);
const char *host_error(void);

static struct {
    void *device_memory, *host_memory;
    mlar_device *device;
    mlar_config config;
    mlar_memory need;
    mlar_arena arena;
    mlar_engine *engine;
    mlar_diag diag;
    char error[256];
} host;

static int done(mlar_status status, const char *what) {
    if (status == MLAR_OK) return 0;
    snprintf(host.error, sizeof host.error, "%s: %s: %s", what, mlar_status_name(status), host.diag.message);
    return -1;
}

const char *host_error(void) {
    return host.error;
}

/* A ROCm build of PyTorch has HIP in the process, a CUDA build the CUDA driver. */
int host_open(int32_t heads, int32_t rows, int32_t window, int32_t extra, uint64_t *arena_bytes) {
    mlar_device_options options = {.struct_size = sizeof options, .device = MLAR_DEVICE_HIP};
    mlar_device_info info = {.struct_size = sizeof info};
    mlar_status status;
    host.diag = (mlar_diag){.struct_size = sizeof host.diag};
    host.need = (mlar_memory){.struct_size = sizeof host.need};
    host.device_memory = malloc(mlar_device_bytes());
    status = mlar_device_open(host.device_memory, mlar_device_bytes(), &options, &host.device, &host.diag);
    if (status != MLAR_OK) {
        options.device = MLAR_DEVICE_CUDA;
        status =
            mlar_device_open(host.device_memory, mlar_device_bytes(), &options, &host.device, &host.diag);
    }
    if (status != MLAR_OK) return done(status, "open");
    (void)mlar_device_info_of(host.device, &info);
    (void)mlar_config_init(&host.config);
    host.config.heads = heads;
    host.config.max_rows = rows;
    host.config.device = info.profile;
    host.config.kind_count = 1;
    host.config.kinds[0].scope_count = MLAR_SCOPES;
    host.config.kinds[0].scope[MLAR_SCOPE_WINDOW].width = window;
    host.config.kinds[0].scope[MLAR_SCOPE_EXTRA].width = extra;
    status = mlar_memory_query(&host.config, &host.need, &host.diag);
    *arena_bytes = host.need.device_bytes;
    return done(status, "query");
}

int host_init(void *arena_memory) {
    const size_t align = (size_t)host.need.host_align_bytes;
    mlar_status status =
        mlar_arena_from_caller(&host.arena, arena_memory, host.need.device_bytes, 0, &host.diag);
    if (status != MLAR_OK) return done(status, "arena");
    host.host_memory = aligned_alloc(align, ((size_t)host.need.host_bytes + align - 1) / align * align);
    status = mlar_engine_init(&host.config, host.device, &host.arena, host.host_memory, host.need.host_bytes,
                              &host.engine, &host.diag);
    return done(status, "init");
}

int host_enqueue(const host_tensors *tensors, int32_t capacity_rows, void *stream) {
    const mlar_step step = {.struct_size = sizeof step, .rows = capacity_rows, .rows_device = tensors->rows};
    mlar_bindings bindings = {.struct_size = sizeof bindings};
    mlar_status status = mlar_bindings_init(&bindings, &host.config, 0);
    if (status != MLAR_OK) return done(status, "bindings");
    bindings.q = tensors->q;
    bindings.out = tensors->out;
    bindings.lse = tensors->lse;
    bindings.attn_sink = tensors->sink;
    for (int32_t s = 0; s < MLAR_SCOPES; s++) {
        bindings.cache[s] = (mlar_cache){.base = tensors->cache[s],
                                         .block_stride_bytes = tensors->block_stride_bytes,
                                         .num_blocks = tensors->num_blocks[s],
                                         .block_size = 64};
        bindings.list[s].indices = tensors->indices[s];
        bindings.list[s].lens = tensors->lens[s];
    }
    status = mlar_engine_prepare(host.engine, 0, &bindings, &step, stream, &host.diag);
    if (status != MLAR_OK) return done(status, "prepare");
    return done(mlar_engine_enqueue(host.engine, 0, &bindings, capacity_rows, &step, stream, &host.diag),
                "enqueue");
}

int host_close(void) {
    mlar_status status = mlar_engine_deinit(host.engine);
    if (status == MLAR_OK) status = mlar_arena_release(&host.arena, &host.diag);
    if (status == MLAR_OK) status = mlar_device_close(host.device);
    free(host.host_memory);
    free(host.device_memory);
    return done(status, "close");
}
