/* SPDX-License-Identifier: Apache-2.0
 *
 * streams.c: queues of work, and the moment at which it runs: when somebody waits, and not before. */
#include "tests/standin/state.h"

#include "kernels/cpu/kernels.h"

#include <string.h>

/* One thread runs work at a time: the lock is held. */
static _Alignas(MLAR_CPU_SCRATCH_ALIGN) unsigned char scratch[8 << 20];

standin_stream *standin_stream_of(void *handle) {
    if (handle == NULL) return &standin_now.defaults[standin_current()];
    for (int i = 0; i < MAX_STREAMS; i++)
        if (&standin_now.streams[i] == handle && standin_now.streams[i].alive) return handle;
    return NULL;
}

static int is_default(const standin_stream *stream) {
    return stream == &standin_now.defaults[stream->device];
}

/* ---- queueing ---- */

standin_op *standin_queue(standin_stream *stream, enum op_kind kind) {
    for (uint64_t i = 0; i < MAX_OPS; i++) {
        standin_op *op = &standin_now.ops[(standin_now.serial + i) % MAX_OPS];
        if (op->kind != OP_NONE) continue;
        op->kind = kind;
        op->serial = ++standin_now.serial;
        op->next = NULL;
        if (stream->last != NULL)
            stream->last->next = op;
        else
            stream->first = op;
        stream->last = op;
        standin_now.queued++;
        return op;
    }
    standin_violate("more work is queued than the stand-in has room for");
    static standin_op lost;
    return &lost;
}

void standin_queued(standin_stream *stream) {
    if (standin_now.settings.prompt) standin_drain(stream);
}

/* ---- running ---- */

void standin_run(const standin_launch *launch, int backwards) {
    if (launch->function->module == NULL) {
        standin_violate("a kernel runs after its module was unloaded");
        return;
    }
    if (launch->function->stage == MLAR_STAGE_SET_BLOCK) {
        mlar_cpu_set_block((const mlar_set_block_args *)(const void *)launch->argument);
        return;
    }
    const mlar_stage_args *args = (const mlar_stage_args *)(const void *)launch->argument;
    if (mlar_cpu_scratch_bytes(&args->shape) > sizeof scratch) {
        standin_violate("a kernel needs more scratch than the stand-in has");
        return;
    }
    const int64_t items = mlar_cpu_items(launch->function->stage, args);
    for (int64_t i = 0; i < items; i++)
        mlar_cpu_run(&mlar_cpu_kernels_scalar, launch->function->stage, args, backwards ? items - 1 - i : i,
                     scratch);
}

static void run_op(standin_op *op) {
    switch (op->kind) {
    case OP_KERNEL:
        standin_run(&op->launch, op->serial & 1);
        break;
    case OP_GRAPH:
        for (const standin_node *node = op->exec->first; node != NULL; node = node->next)
            standin_run(&node->launch, op->serial & 1);
        if (--op->exec->queued == 0 && !op->exec->alive) standin_graph_end(op->exec);
        break;
    case OP_COPY_IN:
    case OP_COPY_OUT:
        memcpy(op->to, op->from, op->bytes);
        break;
    case OP_FILL:
        for (size_t at = 0; at < op->bytes; at += sizeof op->word)
            memcpy((char *)op->to + at, &op->word, sizeof op->word);
        break;
    case OP_ALLOCATE:
        standin_allocation_ready(op->allocation);
        break;
    case OP_FREE:
        standin_allocation_end(op->allocation);
        break;
    default:
        break;
    }
}

/* Everything of the stream that was queued before `limit`, and first what it has to wait for. */
static void drain(standin_stream *stream, uint64_t limit) {
    while (stream->first != NULL && stream->first->serial < limit) {
        standin_op *op = stream->first;
        if (is_default(stream)) {
            for (int i = 0; i < MAX_STREAMS; i++) {
                standin_stream *other = &standin_now.streams[i];
                if (other->alive && other->blocking && other->device == stream->device)
                    drain(other, op->serial);
            }
        } else if (stream->blocking) {
            drain(&standin_now.defaults[stream->device], op->serial);
        }
        stream->first = op->next;
        if (op->next == NULL) stream->last = NULL;
        run_op(op);
        op->kind = OP_NONE;
        standin_now.queued--;
    }
}

void standin_drain(standin_stream *stream) {
    if (standin_now.queued == 0) return;
    standin_memory_show(stream->device);
    drain(stream, UINT64_MAX);
    for (int i = 0; is_default(stream) && i < MAX_STREAMS; i++) {
        standin_stream *other = &standin_now.streams[i];
        if (other->alive && other->blocking && other->device == stream->device) drain(other, UINT64_MAX);
    }
    standin_memory_hide(stream->device);
}

void standin_drain_device(int32_t device) {
    standin_drain(&standin_now.defaults[device]);
    for (int i = 0; i < MAX_STREAMS; i++)
        if (standin_now.streams[i].alive && standin_now.streams[i].device == device)
            standin_drain(&standin_now.streams[i]);
}

/* ---- streams ---- */

static int stream_create(void **handle, unsigned flags) {
    if (handle == NULL || flags > MLAR_GPU_STREAM_NON_BLOCKING) return HIP_INVALID_VALUE;
    for (int i = 0; i < MAX_STREAMS; i++) {
        standin_stream *stream = &standin_now.streams[i];
        if (stream->alive) continue;
        *stream = (standin_stream){
            .alive = 1, .device = standin_current(), .blocking = flags != MLAR_GPU_STREAM_NON_BLOCKING};
        *handle = stream;
        return 0;
    }
    return HIP_OUT_OF_MEMORY;
}

static int stream_destroy(void *handle) {
    standin_stream *stream = standin_stream_of(handle);
    if (handle == NULL) return HIP_INVALID_HANDLE;
    if (stream == NULL) return HIP_CONTEXT_DESTROYED;
    standin_drain(stream);
    if (stream->capture != CAPTURE_NONE) standin_graph_end(stream->graph);
    stream->alive = 0;
    return 0;
}

static int stream_synchronize(void *handle) {
    standin_stream *stream = standin_stream_of(handle);
    if (stream == NULL) return HIP_CONTEXT_DESTROYED;
    int error = standin_unsafe();
    if (error == 0) error = standin_default_use(stream);
    if (error != 0) return error;
    if (stream->capture != CAPTURE_NONE) {
        stream->capture = CAPTURE_INVALIDATED;
        return HIP_CAPTURE_UNSUPPORTED;
    }
    standin_drain(stream);
    return 0;
}

void *standin_new_stream(int non_blocking) {
    void *handle = NULL;
    return stream_create(&handle, non_blocking ? MLAR_GPU_STREAM_NON_BLOCKING : 0) == 0 ? handle : NULL;
}

void standin_end_stream(void *handle) {
    (void)stream_destroy(handle);
}

HIP(hipStreamCreateWithFlags, (void **stream, unsigned flags), stream_create(stream, flags))
HIP_RELEASE(hipStreamDestroy, (void *stream), stream_destroy(stream))
HIP(hipStreamSynchronize, (void *stream), stream_synchronize(stream))

/* ---- copies and fills ---- */

static int copy(void *to, const void *from, size_t bytes, void *handle, int in) {
    standin_stream *stream = standin_stream_of(handle);
    if (stream == NULL) return HIP_CONTEXT_DESTROYED;
    int error = standin_default_use(stream);
    if (error != 0) return error;
    if (stream->capture != CAPTURE_NONE) { /* of pageable memory */
        stream->capture = CAPTURE_INVALIDATED;
        return HIP_CAPTURE_UNSUPPORTED;
    }
    const void *device = in ? to : from, *host = in ? from : to;
    const standin_allocation *a = standin_allocation_at(device, bytes);
    if (bytes == 0 || host == NULL || standin_is_device_address(host) || a == NULL) return HIP_INVALID_VALUE;
    if (a->device != stream->device) return HIP_INVALID_DEVICE;
    standin_op *op = standin_queue(stream, in ? OP_COPY_IN : OP_COPY_OUT);
    op->to = to;
    op->from = from;
    op->bytes = bytes;
    standin_queued(stream);
    return 0;
}

HIP(hipMemcpyHtoDAsync, (void *to, const void *from, size_t bytes, void *stream),
    copy(to, from, bytes, stream, 1))
HIP(hipMemcpyDtoHAsync, (void *to, void *from, size_t bytes, void *stream), copy(to, from, bytes, stream, 0))

static int fill(void *to, unsigned word, size_t words, void *handle) {
    standin_stream *stream = standin_stream_of(handle);
    if (stream == NULL) return HIP_CONTEXT_DESTROYED;
    int error = standin_default_use(stream);
    if (error != 0) return error;
    if (stream->capture != CAPTURE_NONE) { /* it would become a node; nobody here asks for one */
        stream->capture = CAPTURE_INVALIDATED;
        return HIP_CAPTURE_UNSUPPORTED;
    }
    const size_t bytes = words * sizeof(uint32_t);
    const standin_allocation *a = standin_allocation_at(to, bytes);
    if (words == 0 || (uintptr_t)to % sizeof(uint32_t) != 0 || a == NULL) return HIP_INVALID_VALUE;
    if (a->device != stream->device) return HIP_INVALID_DEVICE;
    standin_op *op = standin_queue(stream, OP_FILL);
    op->to = to;
    op->word = word;
    op->bytes = bytes;
    standin_queued(stream);
    return 0;
}

HIP(hipMemsetD32Async, (void *to, unsigned word, size_t words, void *stream), fill(to, word, words, stream))

/* ---- launches ---- */

int standin_fill_launch(standin_launch *launch, void *handle, const uint32_t grid[3], const uint32_t block[3],
                        uint32_t lds_bytes, void **arguments, void **extra, int32_t device) {
    const standin_function *function = NULL;
    for (int i = 0; i < MAX_FUNCTIONS; i++)
        if (&standin_now.functions[i] == handle && standin_now.functions[i].module != NULL) function = handle;
    if (function == NULL || function->module->device != device) return HIP_INVALID_HANDLE;
    if (grid[0] == 0 || grid[1] != 1 || grid[2] != 1 || block[0] == 0 || block[0] > 1024 || block[1] != 1 ||
        block[2] != 1 || lds_bytes > 65536 || arguments == NULL || arguments[0] == NULL || extra != NULL)
        return HIP_INVALID_VALUE;
    launch->function = function;
    memcpy(launch->argument, arguments[0],
           function->stage == MLAR_STAGE_SET_BLOCK ? sizeof(mlar_set_block_args) : sizeof(mlar_stage_args));
    return 0;
}

static int launch_kernel(void *function, const uint32_t grid[3], const uint32_t block[3], uint32_t lds_bytes,
                         void *handle, void **arguments, void **extra) {
    standin_stream *stream = standin_stream_of(handle);
    if (stream == NULL) return HIP_INVALID_HANDLE;
    if (stream->device != standin_current()) return HIP_INVALID_HANDLE;
    int error = standin_default_use(stream);
    if (error == 0 && stream->capture == CAPTURE_INVALIDATED) error = HIP_CAPTURE_INVALIDATED;
    standin_launch launch;
    if (error == 0)
        error =
            standin_fill_launch(&launch, function, grid, block, lds_bytes, arguments, extra, stream->device);
    if (error != 0) return error;
    if (stream->capture == CAPTURE_ACTIVE)
        return standin_node_add(stream->graph, &launch, NULL) ? 0 : HIP_OUT_OF_MEMORY;
    standin_queue(stream, OP_KERNEL)->launch = launch;
    standin_queued(stream);
    return 0;
}

HIP(hipModuleLaunchKernel,
    (void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
     unsigned block_z, unsigned lds_bytes, void *stream, void **arguments, void **extra),
    launch_kernel(function, (uint32_t[3]){grid_x, grid_y, grid_z}, (uint32_t[3]){block_x, block_y, block_z},
                  lds_bytes, stream, arguments, extra))
