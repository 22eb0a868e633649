/* SPDX-License-Identifier: Apache-2.0
 *
 * state.h: what the stand-in's files share. Everything lives in static tables, behind one lock: a steady phase that
 * allocates nothing can then be told from one that does. */
#ifndef TESTS_STANDIN_STATE_H
#define TESTS_STANDIN_STATE_H

#include "engine/gpu/runtime.h"
#include "kernels/params.h"
#include "tests/standin/standin.h"

#include <pthread.h>

enum {
    MAX_ALLOCATIONS = 4096,
    MAX_POOLS = 64,
    MAX_STREAMS = 64,
    MAX_MODULES = 64,
    MAX_FUNCTIONS = 512,
    MAX_GRAPHS = 512,
    MAX_NODES = 4096,
    MAX_OPS = 4096,
    ARGUMENT_BYTES = 528
};

_Static_assert(sizeof(mlar_stage_args) <= ARGUMENT_BYTES && sizeof(mlar_set_block_args) <= ARGUMENT_BYTES,
               "the largest kernel argument");

enum {
    HIP_INVALID_VALUE = 1,
    HIP_OUT_OF_MEMORY = 2,
    HIP_NO_DEVICE = 100,
    HIP_INVALID_DEVICE = 101,
    HIP_INVALID_IMAGE = 200,
    HIP_NO_BINARY = 209,
    HIP_INVALID_HANDLE = 400,
    HIP_ILLEGAL_STATE = 401,
    HIP_NOT_FOUND = 500,
    HIP_CONTEXT_DESTROYED = 709,
    HIP_CAPTURE_UNSUPPORTED = 900,
    HIP_CAPTURE_INVALIDATED = 901,
    HIP_CAPTURE_IMPLICIT = 906,
    HIP_CAPTURE_WRONG_THREAD = 908
};

enum { CAPTURE_NONE = 0, CAPTURE_ACTIVE = 1, CAPTURE_INVALIDATED = 2 };
enum { MODE_GLOBAL = 0, MODE_THREAD_LOCAL = 1, MODE_RELAXED = 2 };

typedef struct standin_pool {
    int32_t alive, device;
    uint64_t limit, threshold, reserved, used, used_high;
} standin_pool;

typedef struct standin_allocation {
    unsigned char *base; /* what the caller knows */
    unsigned char *pages;
    size_t bytes, page_bytes;
    standin_pool *pool;
    int32_t alive, device;
    int32_t ready; /* 0: the allocation itself is still queued */
    int32_t freeing;
} standin_allocation;

typedef struct standin_module {
    int32_t alive, device;
    char unit[24];
} standin_module;

typedef struct standin_function {
    standin_module *module; /* NULL: free */
    int32_t stage;
} standin_function;

typedef struct standin_launch {
    const standin_function *function;
    uint64_t argument[ARGUMENT_BYTES / 8];
} standin_launch;

typedef struct standin_graph standin_graph;

typedef struct standin_node {
    standin_graph *graph; /* NULL: free */
    struct standin_node *next;
    const struct standin_node *origin; /* of an executable graph's node: the graph's */
    standin_launch launch;
} standin_node;

/* A graph, or an executable one. */
struct standin_graph {
    int32_t alive;
    int32_t executable;
    int32_t queued; /* launches that wait */
    int32_t device;
    standin_node *first, *last;
    size_t count;
};

enum op_kind { OP_NONE, OP_KERNEL, OP_GRAPH, OP_COPY_IN, OP_COPY_OUT, OP_FILL, OP_ALLOCATE, OP_FREE };

typedef struct standin_op {
    enum op_kind kind;
    uint64_t serial;
    struct standin_op *next;
    standin_launch launch;
    standin_graph *exec;
    standin_allocation *allocation;
    void *to;
    const void *from;
    size_t bytes;
    uint32_t word;
} standin_op;

typedef struct standin_stream {
    int32_t alive, device;
    int32_t blocking; /* waits for the default stream, and it for this one */
    int32_t capture;  /* CAPTURE_* */
    int32_t mode;
    pthread_t owner; /* who began the capture */
    standin_graph *graph;
    standin_op *first, *last;
} standin_stream;

typedef struct standin_state {
    standin_settings settings;
    standin_stream streams[MAX_STREAMS];
    standin_stream defaults[STANDIN_DEVICES];
    standin_module modules[MAX_MODULES];
    standin_function functions[MAX_FUNCTIONS];
    standin_graph graphs[MAX_GRAPHS];
    uint64_t serial, queued;
    char violation[200];
    standin_node nodes[MAX_NODES]; /* from here on: large */
    standin_op ops[MAX_OPS];
} standin_state;

extern standin_state standin_now;

/* calls.c */
int standin_current(void);
__attribute__((format(printf, 1, 2))) void standin_violate(const char *format, ...);

/* memory.c */
void standin_memory_reset(void);
uint64_t standin_memory_alive(char *text, size_t bytes);
void standin_pin(void *memory, size_t bytes);
/* The live allocation that holds [address, address + bytes), or NULL. */
standin_allocation *standin_allocation_at(const void *address, size_t bytes);
int standin_is_device_address(const void *address);
void standin_memory_show(int32_t device); /* while work runs */
void standin_memory_hide(int32_t device);
void standin_allocation_ready(standin_allocation *allocation);
void standin_allocation_end(standin_allocation *allocation);

/* streams.c */
standin_stream *standin_stream_of(void *handle); /* NULL: no such stream */
void *standin_new_stream(int non_blocking);
void standin_end_stream(void *handle);
standin_op *standin_queue(standin_stream *stream, enum op_kind kind);
void standin_queued(standin_stream *stream); /* after the op is filled */
void standin_drain(standin_stream *stream);
void standin_drain_device(int32_t device);
void standin_run(const standin_launch *launch, int backwards);
int standin_fill_launch(standin_launch *launch, void *function, const uint32_t grid[3],
                        const uint32_t block[3], uint32_t lds_bytes, void **arguments, void **extra,
                        int32_t device);

/* capture.c */
/* 0, or why a call that may wait or allocate must not be made by this thread now. */
int standin_unsafe(void);
/* 0, or why the default stream must not be used now. */
int standin_default_use(const standin_stream *stream);
standin_graph *standin_graph_new(int32_t executable, int32_t device);
void standin_graph_end(standin_graph *graph);
standin_node *standin_node_add(standin_graph *graph, const standin_launch *launch,
                               const standin_node *origin);

/* ---- entry points ---- */

typedef struct standin_entry {
    const char *name;
    uint64_t calls;
    struct standin_entry *next;
} standin_entry;

/* Takes the lock; 0, or the error that was ordered. */
int standin_begin(standin_entry *entry);
int standin_end(int error); /* gives it back */
int standin_release_goes_on(void);

#define EXPORT __attribute__((visibility("default")))
#define HIP(name, parameters, work)                                                                          \
    EXPORT int name parameters;                                                                              \
    int name parameters {                                                                                    \
        static standin_entry entry = {#name, 0, NULL};                                                       \
        int error = standin_begin(&entry);                                                                   \
        if (error == 0) error = (work);                                                                      \
        return standin_end(error);                                                                           \
    }
/* A call that gives something back does so even where it reports an error: that of something earlier. */
#define HIP_RELEASE(name, parameters, work)                                                                  \
    EXPORT int name parameters;                                                                              \
    int name parameters {                                                                                    \
        static standin_entry entry = {#name, 0, NULL};                                                       \
        int ordered = standin_begin(&entry), error = ordered;                                                \
        if (ordered == 0 || standin_release_goes_on()) error = (work);                                       \
        return standin_end(ordered != 0 ? ordered : error);                                                  \
    }

#endif
