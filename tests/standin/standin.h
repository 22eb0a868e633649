/* SPDX-License-Identifier: Apache-2.0
 *
 * standin.h: a strict stand-in for libamdhip64, as tests see it.
 *
 * The library proves host code, never kernels: what it launches are the CPU back end's kernels, under the GPU kernels'
 * names. It is stricter than any one runtime that it stands for:
 *
 *   memory     Device memory is out of the host's reach (a fault) except while queued work runs; it is never reused,
 *              begins as garbage, starts at a multiple of 256 and no more, and is checked for writes beside it.
 *   order      Nothing that is queued runs before somebody waits for it. The default stream waits for, and holds up,
 *              the streams that were not created as non-blocking, and no other.
 *   arguments  A kernel's argument is copied during the launch call, a node's during the set-params call, and never
 *              looked at again; the host memory of a copy is read or written when the copy runs.
 *   capture    Whatever CUDA or HIP refuses while a stream is being captured is refused, and invalidates the capture.
 *   objects    Every handle is checked on every use and counted until it is destroyed.
 *   threads    Thread-local captures, and the current device, belong to a thread.
 *
 * What no runtime reports but no host may do (updating a graph that is in flight, unloading a module with launches
 * queued, writing beside an allocation) is kept as a violation. A test gets at all of this through standin(), the
 * one symbol beside HIP's own. */
#ifndef TESTS_STANDIN_STANDIN_H
#define TESTS_STANDIN_STANDIN_H

#include <stddef.h>
#include <stdint.h>

enum { STANDIN_DEVICES = 2 };

/* What the stand-in pretends to be. */
typedef struct standin_settings {
    const char *arch; /* with features, as the runtime spells it: "gfx942:sramecc+:xnack-" */
    int32_t version;  /* hipRuntimeGetVersion */
    int32_t devices;  /* 0 .. STANDIN_DEVICES */
    int32_t units;    /* of device 0; device 1 has one more */
    int32_t wave;
    int32_t pools;      /* the device says that it has pools */
    int32_t pool_limit; /* the runtime knows maxSize; else it refuses anything but zeros there */
    int32_t prompt;     /* queued work runs at once: the other extreme */
    uint64_t memory_bytes;
} standin_settings;

typedef struct standin_control {
    /* As if the process had just started. Whatever was alive is forgotten. */
    void (*reset)(const standin_settings *settings);
    /* Objects alive; `text` (may be NULL) says which. */
    uint64_t (*alive)(char *text, size_t bytes);
    /* The first violation since reset, or NULL. */
    const char *(*violation)(void);
    /* The nth call from now (1: the next) fails with `error`; lasting: and all after it, as of a lost device. A call
     * that gives something back does so all the same, unless the device is lost. nth = 0: no more failures. */
    void (*fail_call)(uint64_t nth, int error, int lasting);
    int (*failed)(void); /* the failure has happened */
    /* Calls of the function of that name since reset, or of all of them (NULL). */
    uint64_t (*calls)(const char *name);
    const char *(*last_call)(void); /* the name of the call that failed by order, or else of the last one */
    uint64_t (*queued)(void);       /* pieces of work that wait */
    /* The host's own doings, which count as no call and cannot be made to fail. */
    int (*current_device)(void); /* this thread's */
    void (*make_current)(int device);
    void *(*new_stream)(int non_blocking);
    void (*end_stream)(void *stream);
    /* Pinned host memory, as hipHostMalloc would give it. */
    void (*pin)(void *memory, size_t bytes);
} standin_control;

#ifdef __GNUC__
__attribute__((visibility("default")))
#endif
const standin_control *
standin(void);

#endif
