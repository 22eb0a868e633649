/* SPDX-License-Identifier: Apache-2.0
 *
 * engine.h: the engine's own state, inside the caller's host block:
 *
 *     mlar_engine | programs [max_programs + self-test] | layers [max_layers + self-test] | back end's state
 *
 * Shared by the files of engine/, unknown outside. */
#ifndef MLAR_ENGINE_ENGINE_H
#define MLAR_ENGINE_ENGINE_H

#include "arena/arena.h"
#include "engine/backend.h"
#include "engine/memory.h"

#include <mlarena/mlarena.h>

#define MLAR_HOST_ALIGN 64

struct mlar_program {
    mlar_engine *engine;
    uint64_t fingerprint; /* of the plan it was captured for */
    int32_t open;
    int32_t kind;
    int32_t capacity_rows;
    int32_t layer_count;
    int32_t first_layer;   /* head of a list through mlar_layer_slot.next */
    mlar_step_params step; /* route node-params: what its launches carry */
};

/* One layer block of the arena, and what the host knows of it. */
typedef struct mlar_layer_slot {
    mlar_layer_params bound; /* as last given */
    int32_t program;         /* owner, -1: free */
    int32_t next;            /* next layer of the same program, -1: last */
    int32_t written;         /* the device holds `bound` */
    int32_t reserved;
} mlar_layer_slot;

typedef struct mlar_engine_counts {
    uint64_t steps, replays, enqueues, set_blocks;
} mlar_engine_counts;

struct mlar_engine {
    uint64_t host_bytes;
    mlar_layout layout;
    mlar_arena_core *arena;
    const mlar_backend *backend;
    void *backend_state;
    mlar_program *programs;
    mlar_layer_slot *layers;
    int32_t program_count, layer_count; /* sizes of the two tables */
    int32_t poisoned;                   /* scratch was poisoned since init: high-water marks mean something */
    uint32_t poison_seed;
    mlar_status lost;     /* the device's last word, MLAR_OK while it lives */
    int32_t step_written; /* the device holds `step` */
    mlar_step_params step;
    uint64_t step_serial;                     /* counts steps; prepare notes which one it served */
    uint64_t prepared_serial[MLAR_KINDS_MAX]; /* 0: no schedule for the replays */
    int32_t prepared[MLAR_KINDS_MAX];         /* there is a schedule, made for ... */
    mlar_step_params prepared_step[MLAR_KINDS_MAX];
    mlar_engine_counts counts;
    mlar_guards guards;
    mlar_diag guard_diag; /* the first violation seen, status MLAR_OK while there is none */
};

/* Exactly the bytes that mlar_engine_init lays out; mlar_layout_make's share of the work. */
uint64_t mlar_engine_host_bytes(const mlar_dims *dims, mlar_checked *check);

/* Address of a buffer of the plan, null if the configuration has none. kind is ignored for engine-wide
 * buffers. */
void *mlar_engine_address(const mlar_engine *engine, enum mlar_buffer_id id, int32_t kind);

/* MLAR_OK, or why the engine cannot run (FORKED, DEVICE_LOST); with `stream`, also CAPTURING. */
mlar_status mlar_engine_usable(const mlar_engine *engine, mlar_diag *diag);
mlar_status mlar_engine_idle(const mlar_engine *engine, void *stream, mlar_diag *diag);
/* Passes a status on, remembering a lost device. */
mlar_status mlar_engine_note(mlar_engine *engine, mlar_status status);

/* Where the device finds a layer's bindings. */
mlar_layer_params *mlar_layer_block(const mlar_engine *engine, int32_t layer);

#endif
