/* SPDX-License-Identifier: Apache-2.0
 *
 * buffers.h: every buffer of the device arena, as data: its name, size, element type and class.
 *
 * Lifetimes are not here: they follow from which stages read and write a buffer (stages.c). */
#ifndef MLAR_ENGINE_BUFFERS_H
#define MLAR_ENGINE_BUFFERS_H

#include "arena/checked_size.h"
#include "arena/guard.h"
#include "engine/dims.h"

#include <stddef.h>

enum mlar_buffer_id {
    MLAR_BUFFER_COUNTERS = 0,
    MLAR_BUFFER_STEP,
    MLAR_BUFFER_LAYERS,
    MLAR_BUFFER_SCHEDULE,
    MLAR_BUFFER_THREAD_SCRATCH,
    MLAR_BUFFER_SELFTEST,
    MLAR_BUFFER_GATHER_WINDOW,
    MLAR_BUFFER_GATHER_EXTRA,
    MLAR_BUFFER_PARTIAL_OUT,
    MLAR_BUFFER_PARTIAL_ML,
    MLAR_BUFFER_COUNT
};

/* How many of them are of MLAR_CLASS_ENGINE. */
#define MLAR_ENGINE_BUFFERS 5

enum mlar_buffer_class {
    MLAR_CLASS_ENGINE, /* persistent, one for all kinds */
    MLAR_CLASS_KIND,   /* persistent, one for each kind */
    MLAR_CLASS_SCRATCH /* lives between stages; kinds share the bytes */
};

typedef struct mlar_buffer {
    const char *name;
    enum mlar_buffer_class class;
    mlar_element element; /* how poison must look to be NaN */
    uint64_t (*bytes)(const mlar_dims *dims, const mlar_kind_dims *kind, mlar_checked *check);
    void (*shape)(const mlar_dims *dims, const mlar_kind_dims *kind, char *text, size_t size);
} mlar_buffer;

extern const mlar_buffer mlar_buffers[MLAR_BUFFER_COUNT];

/* Distance of two layer blocks in the arena. */
#define MLAR_LAYER_BLOCK_BYTES 320
/* The counters, and the step block: a cache line each. */
#define MLAR_SMALL_BLOCK_BYTES 64
/* Every buffer starts at a multiple of this, and guards are multiples of it, so no plan loses a byte to
 * rounding. */
#define MLAR_BUFFER_ALIGN 256

/* Bytes of all scratch buffers of one kind, spans and guards counted; of all persistent ones. */
uint64_t mlar_scratch_bytes(const mlar_dims *dims, const mlar_kind_dims *kind, mlar_checked *check);
uint64_t mlar_persistent_bytes(const mlar_dims *dims, mlar_checked *check);

#endif
