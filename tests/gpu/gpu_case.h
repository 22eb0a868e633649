/* SPDX-License-Identifier: Apache-2.0
 *
 * gpu_case.h: the cases of tests/support on a GPU: an engine in a memory pool, a case's buffers copied to the
 * device, steps run through the public API, results copied back into the case for the same checks that the
 * CPU gets.
 *
 * No test framework: machines with a GPU need not have one. A failure prints a line and counts.
 *
 * What holds nothing is all zeros: what is declared so may be closed whether or not it was opened, and what fails to
 * open, or was closed, is so again. So every group closes all it declared, at its end, however far it came. */
#ifndef TESTS_GPU_GPU_CASE_H
#define TESTS_GPU_GPU_CASE_H

#include <mlarena/mlarena.h>

#include "tests/support/cases.h"

/* ---- counting ---- */

extern _Atomic int64_t gpu_checks, gpu_failures; /* engines run on threads of their own */

/* Counts a check; prints the message of one that fails (the first 40). Returns ok. */
__attribute__((format(printf, 2, 3))) int gpu_check(int ok, const char *format, ...);
/* A call that must succeed; prints its name and status otherwise. Returns 1 if it did. */
int gpu_must(mlar_status status, const char *what, const mlar_diag *diag);
#define GPU_MUST(call) gpu_must((call), #call, NULL)

/* ---- device and engine ---- */

typedef struct gpu_place {
    mlar_device *device;
    void *memory;
    mlar_device_info info;
} gpu_place;

/* HIP if there is one, else CUDA. 0 if there is neither. */
int gpu_open(gpu_place *place, int32_t ordinal);
void gpu_close(gpu_place *place);

typedef struct gpu_engine {
    gpu_place *place;
    mlar_config config;
    mlar_memory memory;
    mlar_arena arena;
    int has_arena;
    void *host_block;
    mlar_engine *engine;
} gpu_engine;

/* The device's profile replaces the configuration's. Returns 1 if the engine is up. */
int gpu_engine_open(gpu_engine *e, gpu_place *place, const mlar_config *config);
void gpu_engine_close(gpu_engine *e);

/* ---- a case on the device ---- */

typedef struct gpu_case {
    gpu_place *place;
    step_case *made;
    void *buffer[CASE_MAX_BUFFERS]; /* device copies, in the case's order */
    mlar_bindings bindings;         /* device addresses */
} gpu_case;

/* Returns 1 if it is there. */
int gpu_case_open(gpu_case *c, gpu_place *place, step_case *made);
void gpu_case_close(gpu_case *c);
/* Host buffers to the device (inputs and poisoned outputs); device outputs back to the host's. */
int gpu_case_upload(gpu_case *c);
int gpu_case_download(gpu_case *c);

/* prepare + enqueue, or step + prepare + replay; outputs poisoned before, downloaded after. */
int gpu_case_enqueue(gpu_engine *e, int32_t kind, gpu_case *c, int32_t rows);
int gpu_case_replay(gpu_engine *e, mlar_program *program, int32_t kind, gpu_case *c, int32_t rows);

#endif
