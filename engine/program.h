/* SPDX-License-Identifier: Apache-2.0
 *
 * program.h: capture and enqueue as the self-test needs them. */
#ifndef MLAR_ENGINE_PROGRAM_H
#define MLAR_ENGINE_PROGRAM_H

#include "engine/engine.h"

/* The self-test has a program and a layer of its own, so that it works when the host has used all of its; and
 * its bindings lie in the arena, which a host's must not. */
enum mlar_use { MLAR_USE_HOST, MLAR_USE_SELFTEST };

/* mlar_bindings_resolve against the engine's own arena. */
mlar_status mlar_engine_resolve(const mlar_engine *engine, enum mlar_use use, int32_t kind,
                                const mlar_bindings *bindings, int32_t capacity_rows,
                                mlar_layer_params *layer, mlar_diag *diag);

/* mlar_engine_capture after its arguments were checked. */
mlar_status mlar_program_capture(mlar_engine *engine, enum mlar_use use, int32_t kind,
                                 const mlar_bindings *bindings, int32_t layer_count, int32_t capacity_rows,
                                 mlar_program **program, mlar_diag *diag);

/* The public functions of like names, which have no diag. */
mlar_status mlar_step_begin(mlar_engine *engine, const mlar_step *step, void *stream, mlar_diag *diag);
mlar_status mlar_program_run(mlar_program *program, void *stream, mlar_diag *diag);
mlar_status mlar_program_end(mlar_program *program, mlar_diag *diag);
mlar_status mlar_scratch_poison(mlar_engine *engine, uint32_t seed, void *stream, mlar_diag *diag);

/* mlar_engine_enqueue, likewise. */
mlar_status mlar_step_enqueue(mlar_engine *engine, enum mlar_use use, int32_t kind,
                              const mlar_bindings *bindings, int32_t capacity_rows, const mlar_step *given,
                              void *stream, mlar_diag *diag);

#endif
